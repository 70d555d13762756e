//! Tokens: by which the authority is shown who asks.

use std::fmt;
use std::pin::Pin;

use tonic::metadata::{Ascii, MetadataValue};

/// Where a workload's own token comes from when it is asked for, as by Kubernetes' `TokenRequest`.
pub trait TokenSource: fmt::Debug + Send + Sync {
    /// A token for the authority, or in words why there is none.
    fn token(&self) -> Pin<Box<dyn Future<Output = Result<String, String>> + Send + '_>>;
}

/// What the authority gave a certificate for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Shown {
    /// The node's token: it trusts the node to ask for its workloads.
    NodeToken,
    /// The workload's own, from a file.
    WorkloadToken,
    /// The workload's own, from a [`TokenSource`].
    OwnToken {
        /// What it said to the node's.
        because: String,
    },
}

/// The header's value, where there is a token that can be one.
pub(crate) fn bearer(token: &[u8]) -> Option<MetadataValue<Ascii>> {
    let token = std::str::from_utf8(token).map(str::trim).unwrap_or_default();
    let mut value: MetadataValue<Ascii> =
        format!("Bearer {token}").parse().ok().filter(|_| !token.is_empty())?;
    value.set_sensitive(true);
    Some(value)
}
