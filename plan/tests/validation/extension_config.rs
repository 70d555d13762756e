//! What becomes of filters that listeners take by name.

use orlop_plan::resource::http_connection_manager::HttpFilter;
use orlop_plan::snapshot::ResourceType;
use serde_json::json;

use crate::support::{accepted, refused};

const KIND: ResourceType = ResourceType::ExtensionConfig;

#[test]
fn a_filter_that_changes_nothing_is_accepted() {
    let cors = json!({ "@type": "type.googleapis.com/envoy.extensions.filters.http.cors.v3.Cors" });
    let snapshot = accepted(KIND, &json!({ "name": "default.cors", "typed_config": cors }));
    let filter = &snapshot.extensions().get("default.cors").expect("accepted").filter;
    assert!(matches!(filter, HttpFilter::Cors), "{filter:?}");
}

#[test]
fn a_filter_that_is_not_known_is_refused_by_name_and_type() {
    let wasm = json!({ "@type": "type.googleapis.com/envoy.extensions.filters.http.wasm.v3.Wasm" });
    assert_eq!(
        refused(KIND, &json!({ "name": "default.auth", "typed_config": wasm })),
        [
            r#"typed_config: filter "default.auth" (envoy.extensions.filters.http.wasm.v3.Wasm) is not supported"#
        ]
    );
}

#[test]
fn a_filter_that_belongs_into_its_manager_is_refused() {
    let router = json!({ "@type": "type.googleapis.com/envoy.extensions.filters.http.router.v3.Router" });
    assert_eq!(
        refused(KIND, &json!({ "name": "router", "typed_config": router })),
        [
            r#"typed_config: filter by ECDS "router" (envoy.extensions.filters.http.router.v3.Router) is not supported"#
        ]
    );
}
