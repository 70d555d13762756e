//! What a workload asks for, and what its resources are called.

use std::sync::Arc;

use envoy_types::pb::google::protobuf::Any;
use orlop_shared_map::{SharedMap, SharedSet};
use prost::Message;

use crate::{Resource, ResourceType};

/// Names of resources, each with whatever names it, which matters to the consumer alone. A consumer that makes all its
/// maps with one pool pays for what changes and not for what is there.
pub type Names = SharedMap<Arc<str>, SharedSet<Arc<str>>>;

/// Names by themselves, in a map that shares nothing.
pub fn names<N: Into<Arc<str>>>(names: impl IntoIterator<Item = N>) -> Names {
    names.into_iter().map(|name| (name.into(), SharedSet::default())).collect()
}

/// The resources that a workload wants by name now. Clusters, listeners, the name table and the proxy
/// configuration come without being asked for.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Subscriptions {
    /// `ClusterLoadAssignment` names: the EDS service name of each EDS cluster.
    pub endpoints: Names,
    /// `RouteConfiguration` names: those that listeners refer to by RDS.
    pub routes: Names,
    /// `Secret` names: those that TLS contexts refer to by SDS over ADS.
    pub secrets: Names,
    /// `TypedExtensionConfig` names: filters that listeners take by ECDS.
    pub extensions: Names,
}

/// What a workload has already when its stream opens, as an earlier stream gave it.
#[derive(Debug, Default)]
pub struct Restored {
    /// By type.
    pub resources: Vec<(ResourceType, Vec<Resource>)>,
    /// What these resources name.
    pub subscribe: Subscriptions,
}

/// The part that the types with names have in common: field 1 is the name.
#[derive(Clone, PartialEq, Message)]
struct Named {
    #[prost(string, tag = "1")]
    name: String,
}

/// The name by which a resource is asked for, or what is wrong with it.
pub(crate) fn name_of(resource_type: ResourceType, body: &Any) -> Result<String, String> {
    if resource_type.is_singleton() {
        return Ok(String::new());
    }
    match Named::decode(body.value.as_slice()) {
        Err(error) => Err(format!("is malformed: {error}")),
        Ok(Named { name }) if name.is_empty() => Err("has no name".into()),
        Ok(Named { name }) => Ok(name),
    }
}
