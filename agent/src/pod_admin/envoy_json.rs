//! Small messages of Envoy's API in protobuf's JSON form, for pages that do without the descriptors of the whole API.

use std::net::SocketAddr;
use std::time::SystemTime;

use envoy_types::pb::envoy::config::core::v3::node::UserAgentVersionType;
use envoy_types::pb::envoy::config::core::v3::{self as core, BuildVersion};
use envoy_types::pb::google::protobuf::value::Kind;
use envoy_types::pb::google::protobuf::{Struct, Value};
use orlop_plan::resource::cluster::Cluster;
use orlop_plan::resource::endpoint::Locality;
use orlop_proto::prost_reflect::prost_types::Timestamp;
use prost::Message;
use serde_json::{Map, Value as Json, json};

use super::view::StoredResource;

/// `core.v3.Address`.
pub(super) fn address(address: SocketAddr) -> Json {
    json!({ "socket_address": { "address": address.ip(), "port_value": address.port() } })
}

/// `core.v3.Locality`.
pub(super) fn locality(locality: &Locality) -> Json {
    let Locality { region, zone, sub_zone } = locality;
    present([("region", region.as_str()), ("zone", zone), ("sub_zone", sub_zone)])
}

/// `google.protobuf.Timestamp`.
pub(super) fn timestamp(time: SystemTime) -> String {
    Timestamp::from(time).to_string()
}

/// The name that a cluster has in statistics: `alt_stat_name`, or its own.
pub(super) fn observability_name(cluster: &StoredResource<Cluster>) -> String {
    /// The one field that is wanted of `cluster.v3.Cluster`.
    #[derive(Clone, PartialEq, prost::Message)]
    struct Named {
        #[prost(string, tag = "28")]
        alt_stat_name: String,
    }
    match Named::decode(&*cluster.source.bytes.bytes()) {
        Ok(Named { alt_stat_name }) if !alt_stat_name.is_empty() => alt_stat_name,
        _ => cluster.name.to_string(),
    }
}

/// `core.v3.Node`, without what no client of the control plane is told: listening addresses and dynamic parameters.
pub(super) fn node(node: &core::Node) -> Json {
    let mut json = present([
        ("id", node.id.as_str()),
        ("cluster", &node.cluster),
        ("user_agent_name", &node.user_agent_name),
    ]);
    let mut set = |name: &str, value: Json| {
        if let Json::Object(fields) = &mut json {
            fields.insert(name.to_owned(), value);
        }
    };
    if let Some(metadata) = &node.metadata {
        set("metadata", structure(metadata));
    }
    if let Some(core::Locality { region, zone, sub_zone }) = &node.locality {
        set("locality", present([("region", region.as_str()), ("zone", zone), ("sub_zone", sub_zone)]));
    }
    if !node.client_features.is_empty() {
        set("client_features", node.client_features.clone().into());
    }
    match &node.user_agent_version_type {
        Some(UserAgentVersionType::UserAgentVersion(version)) => {
            set("user_agent_version", version.clone().into());
        }
        Some(UserAgentVersionType::UserAgentBuildVersion(version)) => {
            set("user_agent_build_version", build_version(version));
        }
        None => {}
    }
    json
}

fn build_version(BuildVersion { version, metadata }: &BuildVersion) -> Json {
    let mut fields = Map::new();
    if let Some(version) = version {
        fields.insert(
            "version".to_owned(),
            json!({
                "major_number": version.major_number,
                "minor_number": version.minor_number,
                "patch": version.patch,
            }),
        );
    }
    if let Some(metadata) = metadata {
        fields.insert("metadata".to_owned(), structure(metadata));
    }
    Json::Object(fields)
}

fn structure(Struct { fields }: &Struct) -> Json {
    fields.iter().map(|(name, field)| (name.clone(), value(field))).collect::<Map<_, _>>().into()
}

fn value(value: &Value) -> Json {
    match &value.kind {
        None | Some(Kind::NullValue(_)) => Json::Null,
        Some(Kind::NumberValue(number)) => (*number).into(),
        Some(Kind::StringValue(text)) => text.clone().into(),
        Some(Kind::BoolValue(flag)) => (*flag).into(),
        Some(Kind::StructValue(fields)) => structure(fields),
        Some(Kind::ListValue(list)) => list.values.iter().map(self::value).collect(),
    }
}

/// An object of the texts that are not empty.
pub(super) fn present<const N: usize>(fields: [(&str, &str); N]) -> Json {
    let set = fields.into_iter().filter(|(_, text)| !text.is_empty());
    set.map(|(name, text)| (name.to_owned(), text.into())).collect::<Map<_, _>>().into()
}
