//! What is accepted without effect is told, not forgotten.

use orlop_plan::snapshot::ResourceType;
use serde_json::{Value, json};

use crate::support::{any, deliver};

fn cluster(name: &str, fields: &Value) -> (String, envoy_types::pb::google::protobuf::Any) {
    let mut json =
        json!({ "name": name, "type": "EDS", "eds_cluster_config": { "eds_config": { "ads": {} } } });
    for (key, value) in fields.as_object().expect("fields") {
        json[key] = value.clone();
    }
    (name.to_owned(), any(ResourceType::Cluster, &json))
}

#[test]
fn a_field_without_effect_is_told_once_for_all_resources_that_have_it() {
    let bound = json!({ "upstream_bind_config": { "source_address": { "address": "10.0.0.9" } } });
    let clusters = ["b", "a", "c"].map(|name| cluster(name, &bound));
    let (snapshot, outcome) = deliver(ResourceType::Cluster, clusters);

    assert_eq!(outcome.errors, []);
    let told: Vec<String> = snapshot.without_effect().iter().map(ToString::to_string).collect();
    assert_eq!(
        told,
        [
            "cluster a: upstream_bind_config.source_address: connections come from an address that the kernel chooses \
             (and 2 more places)"
        ]
    );
}

#[test]
fn an_address_to_connect_from_is_told_unless_it_is_the_sidecars_own() {
    let bound = |v4: &str, v6: &str| {
        let extra = json!([{ "address": { "address": v6 } }]);
        json!({ "upstream_bind_config": { "source_address": { "address": v4 }, "extra_source_addresses": extra } })
    };
    let clusters = [
        cluster("inbound", &bound("127.0.0.6", "::6")),
        cluster("wish", &bound("10.0.0.9", "::6")),
        cluster("wish of the other family", &bound("127.0.0.6", "fd00::9")),
    ];
    let (snapshot, outcome) = deliver(ResourceType::Cluster, clusters);

    assert_eq!(outcome.errors, []);
    let mut told: Vec<_> = snapshot.without_effect().iter().map(|note| note.resource.clone()).collect();
    told.sort();
    assert_eq!(told, ["wish", "wish of the other family"]);
}

#[test]
fn what_has_no_effect_by_its_nature_is_not_told() {
    let (snapshot, _) =
        deliver(ResourceType::Cluster, [cluster("a", &json!({ "alt_stat_name": "statistics" }))]);
    assert_eq!(snapshot.without_effect(), []);
}
