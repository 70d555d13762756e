//! `core.v3.Metadata`: what of it is read.

use envoy_types::pb::envoy::config::core::v3::Metadata;

use super::at::{At, no_effect};

/// Where istiod says which services and workloads there are.
pub(super) const ISTIO_METADATA: &str = "istio";

/// Says that other metadata than that under `read` has no effect.
pub(super) fn unread_metadata(metadata: &Metadata, read: &[&str], at: &At<'_>) {
    if !at.lists_no_effect() {
        return;
    }
    let Metadata { filter_metadata, typed_filter_metadata } = metadata;
    for key in filter_metadata.keys().filter(|key| !read.contains(&key.as_str())) {
        at.field("filter_metadata")
            .key(key)
            .no_effect("is for telemetry and for extensions, none of which reads it");
    }
    let typed_filter_metadata = typed_filter_metadata.iter().next();
    no_effect!(at; "is for telemetry and for extensions, none of which reads it"; typed_filter_metadata);
}
