//! The identity by which a workload introduces itself: what istiod's injected sidecar would say.
//!
//! istiod finds the pod by the name in the node id and then uses its own view of labels, locality and network;
//! the metadata decides for workloads that it does not know, and how the configuration is generated
//! (`NodeMetadata` in Istio's `pkg/model/proxy.go`).

use std::collections::BTreeMap;
use std::net::IpAddr;

use envoy_types::pb::envoy::config::core::v3::{self as core, Locality};
use envoy_types::pb::google::protobuf::{Struct, Value, value::Kind};

use crate::Credentials;

/// Istio's release whose sidecar is imitated: it selects `EnvoyFilter` matches and keys istiod's cache, so all
/// workloads of a mesh share one.
const ISTIO_VERSION: &str = "1.31.0";

/// What is known about a workload before any configuration.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct WorkloadNode {
    /// The pod's name.
    pub name: String,
    /// Its namespace.
    pub namespace: String,
    /// The service account that it runs as.
    pub service_account: String,
    /// Its addresses; the first stands in the node id.
    pub addresses: Vec<IpAddr>,
    /// Its labels.
    pub labels: BTreeMap<String, String>,
    /// What it is in Istio's metrics, for example the name of its Deployment; empty where nothing says so.
    pub workload_name: String,
    /// That as a URI, `kubernetes://apis/apps/v1/namespaces/NAMESPACE/deployments/NAME`.
    pub owner: String,
    /// The Kubernetes node or machine that it runs on.
    pub node_name: String,
    /// The cluster that istiod knows the workload's registry by.
    pub cluster_id: String,
    /// Its network in a multi-network mesh; empty for the default.
    pub network: String,
    /// The SPIFFE trust domain, which is the mesh's id as well.
    pub trust_domain: String,
    /// The cluster's DNS domain, for example `cluster.local`.
    pub domain: String,
    /// Where it runs; istiod prefers what it knows of the pod's node.
    pub locality: Option<Locality>,
    /// By what it shows a control plane over gRPC who it is.
    pub credentials: Credentials,
    /// Its DNS is answered from istiod's name table.
    pub dns_capture: bool,
    /// Services without an address are to have one, for names of the table that have none otherwise.
    pub dns_auto_allocate: bool,
}

/// A workload as the control plane sees it.
#[derive(Debug, Clone, PartialEq)]
pub struct Node {
    /// The workload's name, by which a directory's subfolder is found.
    pub(crate) name: String,
    /// The cluster that its credentials are of.
    pub(crate) cluster_id: String,
    pub(crate) credentials: Credentials,
    /// It has a use for the table of names.
    pub(crate) names: bool,
    pub(crate) message: core::Node,
}

impl Node {
    /// The node id, `sidecar~<address>~<pod>.<namespace>~<namespace>.svc.<domain>`.
    pub fn id(&self) -> &str {
        &self.message.id
    }

    /// What the control plane is told.
    pub fn message(&self) -> &core::Node {
        &self.message
    }
}

impl From<WorkloadNode> for Node {
    fn from(workload: WorkloadNode) -> Self {
        let WorkloadNode { name, namespace, domain, .. } = &workload;
        let address = workload.addresses.first().map(ToString::to_string).unwrap_or_default();
        Self {
            message: core::Node {
                id: format!("sidecar~{address}~{name}.{namespace}~{namespace}.svc.{domain}"),
                cluster: cluster(&workload),
                metadata: Some(metadata(&workload)),
                locality: workload.locality.clone(),
                user_agent_name: "orlop".into(),
                ..core::Node::default()
            },
            name: workload.name,
            cluster_id: workload.cluster_id,
            credentials: workload.credentials,
            names: workload.dns_capture,
        }
    }
}

/// The labels that name an application to the program that starts Istio's sidecars, which has its own order.
const APP_LABELS: [&str; 3] = ["app", "app.kubernetes.io/name", "service.istio.io/canonical-name"];

/// The service that it is, as Istio's sidecars are told their own name: the application's, or else the workload's.
fn cluster(workload: &WorkloadNode) -> String {
    let WorkloadNode { name, namespace, workload_name, labels, .. } = workload;
    let known = APP_LABELS.iter().find_map(|label| labels.get(*label)).unwrap_or(workload_name);
    // The injector takes the pod for its own workload where nothing owns it.
    let known = if known.is_empty() { name } else { known };
    format!("{known}.{namespace}")
}

fn metadata(workload: &WorkloadNode) -> Struct {
    let addresses: Vec<String> = workload.addresses.iter().map(ToString::to_string).collect();
    let texts = [
        ("NAME", workload.name.as_str()),
        ("NAMESPACE", &workload.namespace),
        ("SERVICE_ACCOUNT", &workload.service_account),
        ("INSTANCE_IPS", &addresses.join(",")),
        ("WORKLOAD_NAME", &workload.workload_name),
        ("OWNER", &workload.owner),
        ("NODE_NAME", &workload.node_name),
        ("CLUSTER_ID", &workload.cluster_id),
        ("NETWORK", &workload.network),
        ("MESH_ID", &workload.trust_domain),
        ("ISTIO_VERSION", ISTIO_VERSION),
        // Listeners for traffic that is captured with its addresses intact.
        ("INTERCEPTION_MODE", "REDIRECT"),
        // HBONE is not spoken yet.
        ("DISABLE_HBONE_SEND", "true"),
        ("DNS_CAPTURE", if workload.dns_capture { "true" } else { "" }),
        ("DNS_AUTO_ALLOCATE", if workload.dns_auto_allocate { "true" } else { "" }),
    ];
    let labels = workload.labels.iter().map(|(key, value)| (key.clone(), text(value))).collect();
    let mut fields: BTreeMap<String, Value> = texts
        .into_iter()
        .filter(|(_, value)| !value.is_empty())
        .map(|(key, value)| (key.to_owned(), text(value)))
        .collect();
    fields.insert("LABELS".into(), structure(labels));
    // Without it `istioctl proxy-status` hides the proxy.
    fields.insert("PROXY_CONFIG".into(), structure(BTreeMap::new()));
    Struct { fields: fields.into_iter().collect() }
}

fn text(value: &str) -> Value {
    Value { kind: Some(Kind::StringValue(value.to_owned())) }
}

fn structure(fields: BTreeMap<String, Value>) -> Value {
    Value { kind: Some(Kind::StructValue(Struct { fields: fields.into_iter().collect() })) }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn workload() -> WorkloadNode {
        WorkloadNode {
            name: "client-0".into(),
            namespace: "default".into(),
            service_account: "client".into(),
            addresses: vec!["10.77.0.1".parse().unwrap(), "fd77::1".parse().unwrap()],
            labels: BTreeMap::from([("app".into(), "client".into())]),
            domain: "cluster.local".into(),
            ..WorkloadNode::default()
        }
    }

    #[test]
    fn the_id_has_the_form_that_istiod_parses() {
        let node = Node::from(workload());

        assert_eq!(node.id(), "sidecar~10.77.0.1~client-0.default~default.svc.cluster.local");
    }

    #[test]
    fn the_metadata_holds_every_address_and_the_labels() {
        let metadata = Node::from(workload()).message.metadata.unwrap().fields;

        assert_eq!(metadata["INSTANCE_IPS"], text("10.77.0.1,fd77::1"));
        assert_eq!(metadata["LABELS"], structure(BTreeMap::from([("app".into(), text("client"))])));
    }

    #[test]
    fn the_cluster_is_the_application_or_else_the_workload() {
        let of = |labels, workload_name: &str| {
            Node::from(WorkloadNode { labels, workload_name: workload_name.into(), ..workload() })
                .message
                .cluster
        };
        let labels = |labels: &[(&str, &str)]| {
            labels.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect()
        };
        let app = ("app", "client");
        let kubernetes = ("app.kubernetes.io/name", "other");
        assert_eq!(of(labels(&[app, kubernetes]), "client-v1"), "client.default");
        assert_eq!(of(labels(&[kubernetes]), "client-v1"), "other.default");
        assert_eq!(of(BTreeMap::new(), "client-v1"), "client-v1.default");
        assert_eq!(of(BTreeMap::new(), ""), "client-0.default");
    }

    #[test]
    fn what_is_not_known_is_not_claimed() {
        let metadata = Node::from(workload()).message.metadata.unwrap().fields;

        assert!(!metadata.contains_key("NETWORK"));
    }
}
