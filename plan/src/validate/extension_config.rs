//! `core.v3.TypedExtensionConfig`.

use envoy_types::pb::envoy::config::core::v3::TypedExtensionConfig as Proto;

use super::at::At;
use super::http_filter::inert_filter;
use crate::resource::extension_config::ExtensionConfig;

pub(super) fn extension_config(value: Proto, at: &At<'_>) -> Option<ExtensionConfig> {
    let Proto { name, typed_config } = value;
    if name.is_empty() {
        return at.field("name").refuse("is empty");
    }
    let at = at.field("typed_config");
    let filter = inert_filter(at.required(typed_config)?, &name, &at)?;
    Some(ExtensionConfig { name: name.into(), filter })
}
