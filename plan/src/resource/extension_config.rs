//! `core.v3.TypedExtensionConfig`: filters that listeners take by name.

use std::sync::Arc;

use super::http_connection_manager::HttpFilter;

/// `TypedExtensionConfig`.
#[derive(Debug)]
pub struct ExtensionConfig {
    /// The name that ECDS knows it by.
    pub name: Arc<str>,
    /// One that changes nothing: whatever does is refused when validated.
    pub filter: HttpFilter,
}
