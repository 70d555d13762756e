//! What becomes of filters that listeners take by name.

use orlop_plan::resource::http_connection_manager::HttpFilter;
use orlop_plan::snapshot::ResourceType;
use serde_json::json;

use crate::support::{accepted, refused};

const KIND: ResourceType = ResourceType::ExtensionConfig;

#[test]
fn a_filter_that_changes_nothing_is_accepted() {
    let stats =
        json!({ "@type": "type.googleapis.com/envoy.extensions.filters.http.grpc_stats.v3.FilterConfig" });
    let snapshot = accepted(KIND, &json!({ "name": "default.stats", "typed_config": stats }));
    let filter = &snapshot.extensions().get("default.stats").expect("accepted").filter;
    assert!(matches!(filter, HttpFilter::GrpcStats), "{filter:?}");
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
    for (name, type_name) in [
        ("router", "envoy.extensions.filters.http.router.v3.Router"),
        ("envoy.filters.http.cors", "envoy.extensions.filters.http.cors.v3.Cors"),
    ] {
        let filter = json!({ "@type": format!("type.googleapis.com/{type_name}") });
        assert_eq!(
            refused(KIND, &json!({ "name": name, "typed_config": filter })),
            [format!("typed_config: filter by ECDS {name:?} ({type_name}) is not supported")]
        );
    }
}
