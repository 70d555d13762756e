//! `node.yaml`: what the node is, where its control plane is, and which workloads it carries.
//!
//! Parsed whole or not at all: a [`NodeConfig`] in hand is fit to run, and an error names file, line and field.

mod control_plane;
mod identity;
mod kubernetes;

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::num::{NonZeroU16, NonZeroUsize};
use std::path::{Path, PathBuf};

use orlop_plan::classify::{L7Modes, Mode};
use serde::Deserialize;

pub use crate::annotations::Annotations;
pub use control_plane::{ControlPlane, Credentials, Protocol};
use identity::RawIdentity;
pub use identity::{Identity, SameNode};
pub use kubernetes::{Cni, Kubernetes, WhenAway};

/// The whole file.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(try_from = "RawNodeConfig")]
pub struct NodeConfig {
    /// Who this node is.
    pub node: Node,
    /// Where configuration comes from.
    pub control_plane: ControlPlane,
    /// Where the workloads' certificates come from; they have none without.
    pub identity: Option<Identity>,
    /// The shared proxy.
    pub proxy: Proxy,
    /// When HTTP goes through it, request by request.
    pub l7: L7,
    /// What becomes of the workloads' questions to resolvers, where their annotations do not say.
    pub dns: Dns,
    /// Who probes the workloads; in a cluster, the kubelet where this does not say.
    pub probes: Option<Probes>,
    /// Where the workloads come from instead of this file.
    pub kubernetes: Option<Kubernetes>,
    /// Whom the agent carries.
    pub workloads: Workloads,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct RawNodeConfig {
    node: Node,
    control_plane: ControlPlane,
    identity: Option<RawIdentity>,
    #[serde(default)]
    proxy: Proxy,
    #[serde(default)]
    l7: L7,
    #[serde(default)]
    dns: Dns,
    probes: Option<Probes>,
    kubernetes: Option<Kubernetes>,
    #[serde(default)]
    workloads: Workloads,
}

impl TryFrom<RawNodeConfig> for NodeConfig {
    type Error = String;
    fn try_from(raw: RawNodeConfig) -> Result<Self, String> {
        let RawNodeConfig { node, control_plane, identity, proxy, l7, dns, probes, kubernetes, workloads } =
            raw;
        if kubernetes.is_some() && !workloads.0.is_empty() {
            return Err("workloads: kubernetes says which they are; set one of the two".to_owned());
        }
        let plaintext = matches!(control_plane, ControlPlane::Server { root_certificate: None, .. });
        let secret = workloads.0.iter().find(|(_, workload)| workload.credentials.is_some());
        if let Some((id, _)) = secret.filter(|_| plaintext) {
            return Err(format!("workloads: {id}: credentials need controlPlane.rootCertificate, for TLS"));
        }
        let identity = identity.map(|identity| identity.resolve(&control_plane)).transpose()?;
        Ok(Self { node, control_plane, identity, proxy, l7, dns, probes, kubernetes, workloads })
    }
}

/// What becomes of questions to resolvers.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Dns {
    /// The node answers for names of the mesh (`ISTIO_META_DNS_CAPTURE`).
    #[serde(default)]
    pub capture: bool,
    /// Services without an address get one (`ISTIO_META_DNS_AUTO_ALLOCATE`).
    #[serde(default)]
    pub auto_allocate: bool,
}

/// Who probes the workloads: at the ports that they declare it goes past policies and mutual TLS.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Probes {
    /// Its cgroup v2 folder, which holds nobody else.
    pub cgroup: PathBuf,
}

/// Who this node is, as istiod is told.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Node {
    /// `NODE_NAME`; also names the agent's folders, so that agents of several nodes can live on one machine.
    pub name: NodeName,
    /// `CLUSTER_ID`.
    #[serde(default = "default_cluster")]
    pub cluster: String,
    /// Trust domain of the mesh.
    #[serde(default = "default_trust_domain")]
    pub trust_domain: String,
    /// `NETWORK`; empty is the default network.
    #[serde(default)]
    pub network: String,
    /// Where the last good configuration is kept, in a folder named after the node.
    #[serde(default = "default_state_directory")]
    pub state_directory: PathBuf,
    /// How long connections that the kernel balanced to an endpoint may go on once its service has lost it, in seconds.
    #[serde(default = "default_drain_time")]
    pub drain_time_seconds: u32,
}

fn default_drain_time() -> u32 {
    u32::try_from(orlop_datapath::DEFAULT_DRAIN_TIME.as_secs()).unwrap_or(u32::MAX)
}

fn default_state_directory() -> PathBuf {
    PathBuf::from("/var/lib/orlop")
}

fn default_cluster() -> String {
    "Kubernetes".to_owned()
}

fn default_trust_domain() -> String {
    "cluster.local".to_owned()
}

/// A node's name, as Kubernetes has them. Written as `$VARIABLE`, it is what the environment says.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Deserialize)]
#[serde(try_from = "String")]
pub struct NodeName(String);

impl NodeName {
    /// The name.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The name of the agent's folders: bpffs allows no dot in one, and no node's name has an underscore.
    pub fn folder(&self) -> String {
        self.0.replace('.', "_")
    }
}

impl TryFrom<String> for NodeName {
    type Error = String;
    fn try_from(name: String) -> Result<Self, String> {
        let name = match name.strip_prefix('$') {
            None => name,
            Some(variable) => std::env::var(variable)
                .map_err(|_| format!("node.name: the environment does not say what {name} is"))?,
        };
        dns_name("node.name", &name, 253, true).map(|()| Self(name.clone()))
    }
}

/// The shared proxy.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize, Default)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Proxy {
    /// Whether connections that need the proxy go past it while it is away, instead of being refused. What the mesh would
    /// have done for them is not done.
    #[serde(default)]
    pub fail_open: bool,
    /// Threads that carry traffic; one per core when absent.
    pub workers: Option<NonZeroUsize>,
    /// Whom to ask for names of clusters, from inside each pod; whom the node asks (`/etc/resolv.conf`) when empty.
    #[serde(default)]
    pub resolvers: Vec<IpAddr>,
}

/// When HTTP goes through the shared proxy. What is said of a service counts before what is said of its namespace, and that
/// before the rest.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct L7(pub L7Modes);

impl<'de> Deserialize<'de> for L7 {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        /// As it is written.
        #[derive(Deserialize)]
        #[serde(rename_all = "camelCase", deny_unknown_fields)]
        struct Raw {
            #[serde(default)]
            default: Option<Mode>,
            #[serde(default)]
            http2: Option<Mode>,
            #[serde(default)]
            namespaces: BTreeMap<String, Mode>,
            #[serde(default)]
            services: BTreeMap<String, Mode>,
        }
        let Raw { default, http2, namespaces, services } = Raw::deserialize(deserializer)?;
        for namespace in namespaces.keys() {
            dns_name("l7.namespaces", namespace, 63, false).map_err(serde::de::Error::custom)?;
        }
        for host in services.keys() {
            dns_name("l7.services", host, 253, true).map_err(serde::de::Error::custom)?;
        }
        let stock = L7Modes::default();
        Ok(Self(L7Modes {
            default: default.unwrap_or(stock.default),
            http2: http2.unwrap_or(stock.http2),
            by_namespace: namespaces,
            by_service: services,
        }))
    }
}

/// The node's workloads by identity; no identity, address, namespace or cgroup twice.
#[derive(Debug, Clone, PartialEq, Eq, Default, Deserialize)]
#[serde(try_from = "Vec<Workload>")]
pub struct Workloads(pub BTreeMap<WorkloadId, Workload>);

impl TryFrom<Vec<Workload>> for Workloads {
    type Error = String;
    fn try_from(list: Vec<Workload>) -> Result<Self, String> {
        let mut addresses = BTreeMap::new();
        let (mut namespaces, mut cgroups) = (BTreeSet::new(), BTreeSet::new());
        let mut by_id = BTreeMap::new();
        for workload in list {
            let id = workload.id();
            for address in &workload.addresses {
                if let Some(other) = addresses.insert(*address, id.clone()) {
                    return Err(format!("workloads: {id} and {other} share the address {address}"));
                }
            }
            if !namespaces.insert(workload.netns.clone()) {
                return Err(format!(
                    "workloads: {id}: netns {} is another workload's",
                    workload.netns.display()
                ));
            }
            if !cgroups.insert(workload.cgroup.clone()) {
                return Err(format!(
                    "workloads: {id}: cgroup {} is another workload's",
                    workload.cgroup.display()
                ));
            }
            if by_id.insert(id.clone(), workload).is_some() {
                return Err(format!("workloads: {id} is there twice"));
            }
        }
        Ok(Self(by_id))
    }
}

/// What identifies a workload on the node: `namespace/name`.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct WorkloadId {
    /// Kubernetes namespace.
    pub namespace: String,
    /// Pod name.
    pub name: String,
}

impl std::fmt::Display for WorkloadId {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}/{}", self.namespace, self.name)
    }
}

/// One pod.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(try_from = "RawWorkload")]
pub struct Workload {
    /// Pod name.
    pub name: String,
    /// Kubernetes namespace.
    pub namespace: String,
    /// Kubernetes service account.
    pub service_account: String,
    /// The pod's network namespace, e.g. `/run/netns/NAME`.
    pub netns: PathBuf,
    /// The pod's cgroup v2 folder.
    pub cgroup: PathBuf,
    /// Addresses of the pod; at least one, the first is the primary one.
    pub addresses: Vec<IpAddr>,
    /// Pod labels.
    pub labels: BTreeMap<String, String>,
    /// What it belongs to, where a cluster says so.
    pub owner: Option<Owner>,
    /// By what the control plane knows it; nothing, on istiod's plaintext port.
    pub credentials: Option<Credentials>,
    /// Instead of [`Proxy::fail_open`], for this one.
    pub fail_open: Option<bool>,
    /// What its annotations ask of the agent, and where it is probed.
    pub annotations: Annotations,
}

/// What a pod belongs to, as Istio's injector tells its sidecar.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Owner {
    /// `WORKLOAD_NAME`: of its Deployment, for example.
    pub workload_name: String,
    /// `OWNER`: that as a URI.
    pub reference: String,
}

impl Workload {
    /// Its identity.
    pub fn id(&self) -> WorkloadId {
        WorkloadId { namespace: self.namespace.clone(), name: self.name.clone() }
    }
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct RawWorkload {
    name: String,
    #[serde(default = "default_name")]
    namespace: String,
    #[serde(default = "default_name")]
    service_account: String,
    netns: PathBuf,
    cgroup: PathBuf,
    addresses: Vec<IpAddr>,
    #[serde(default)]
    labels: BTreeMap<String, String>,
    credentials: Option<Credentials>,
    fail_open: Option<bool>,
    #[serde(default)]
    annotations: Annotations,
    /// Where it is probed.
    #[serde(default)]
    probe_ports: BTreeSet<NonZeroU16>,
}

fn default_name() -> String {
    "default".to_owned()
}

impl TryFrom<RawWorkload> for Workload {
    type Error = String;
    fn try_from(raw: RawWorkload) -> Result<Self, String> {
        dns_name("name", &raw.name, 253, true)?;
        dns_name("namespace", &raw.namespace, 63, false)?;
        dns_name("serviceAccount", &raw.service_account, 253, true)?;
        for (field, path) in [("netns", &raw.netns), ("cgroup", &raw.cgroup)] {
            if !path.is_absolute() {
                return Err(format!("{field}: {} is not an absolute path", path.display()));
            }
        }
        if raw.addresses.is_empty() {
            return Err("addresses: at least one address is needed".to_owned());
        }
        if let Some(address) = raw.addresses.iter().find(|a| a.is_loopback() || a.is_unspecified()) {
            return Err(format!("addresses: {address} cannot be a pod's address"));
        }
        let RawWorkload { name, namespace, service_account, netns, cgroup, addresses, labels, .. } = raw;
        let (credentials, fail_open) = (raw.credentials, raw.fail_open);
        let probe_ports = raw.probe_ports.into_iter().map(NonZeroU16::get).collect();
        let annotations = raw.annotations.with_probes(probe_ports);
        Ok(Self {
            name,
            namespace,
            service_account,
            netns,
            cgroup,
            addresses,
            labels,
            owner: None,
            credentials,
            fail_open,
            annotations,
        })
    }
}

/// RFC 1123 label (or subdomain, with dots).
fn dns_name(field: &str, name: &str, longest: usize, dots: bool) -> Result<(), String> {
    let ok = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-' || (dots && c == '.');
    let edge = |c: Option<char>| c.is_some_and(|c| c.is_ascii_lowercase() || c.is_ascii_digit());
    if name.len() <= longest && name.chars().all(ok) && edge(name.chars().next()) && edge(name.chars().last())
    {
        return Ok(());
    }
    let kind = if dots { "letters, digits, '-' and '.'" } else { "letters, digits and '-'" };
    Err(format!("{field}: {name:?} is not a Kubernetes name (lower-case {kind}, at most {longest})"))
}

/// Why a `node.yaml` was not taken.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    /// It cannot be read.
    #[error("cannot read {path}: {source}", path = path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// What the kernel said.
        source: std::io::Error,
    },
    /// It is not YAML, lacks a field, has one too many, or a value does not fit.
    #[error("{path}:{line}:{column}: {reason}", path = path.display())]
    Invalid {
        /// The file.
        path: PathBuf,
        /// From 1.
        line: usize,
        /// From 1.
        column: usize,
        /// Names the field.
        reason: String,
    },
}

/// Reads and checks the file.
pub fn load(path: &Path) -> Result<NodeConfig, ConfigError> {
    let text = std::fs::read_to_string(path)
        .map_err(|source| ConfigError::Read { path: path.to_owned(), source })?;
    parse(path, &text)
}

/// Checks the text of a file; `path` is for its errors.
pub fn parse(path: &Path, text: &str) -> Result<NodeConfig, ConfigError> {
    serde_norway::from_str(text).map_err(|error| {
        let (line, column) = error.location().map_or((1, 1), |l| (l.line(), l.column()));
        // The position stands in front already.
        let reason = error.to_string();
        let reason = reason.split(" at line ").next().unwrap_or_default().to_owned();
        ConfigError::Invalid { path: path.to_owned(), line, column, reason }
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    pub(super) const GOOD: &str = r#"
node: { name: node-1, cluster: Kubernetes, trustDomain: cluster.local }
controlPlane: { address: "127.0.0.1:15010" }
workloads:
  - name: client-0
    namespace: default
    serviceAccount: client
    netns: /run/netns/client-0
    cgroup: /sys/fs/cgroup/unified/client-0
    addresses: [10.77.0.1, "fd77::1"]
    labels: { app: client }
"#;

    pub(super) fn refused(text: &str) -> String {
        parse(Path::new("node.yaml"), text).unwrap_err().to_string()
    }

    #[test]
    fn the_documented_example_is_taken() {
        let config = parse(Path::new("node.yaml"), GOOD).unwrap();
        let id = WorkloadId { namespace: "default".into(), name: "client-0".into() };
        assert_eq!(config.workloads.0[&id].addresses.len(), 2);
        let address = "127.0.0.1:15010".to_owned();
        let expected = ControlPlane::Server { address, protocol: Protocol::Delta, root_certificate: None };
        assert_eq!(config.control_plane, expected);
    }

    #[test]
    fn a_nodes_name_may_be_the_environments() {
        let named = |name: &str| parse(Path::new("node.yaml"), &GOOD.replace("node-1", name));
        let config = named("node-1.example.org").unwrap();
        assert_eq!(config.node.name.folder(), "node-1_example_org");
        // Cargo says this one to every test.
        let config = named("$CARGO_PKG_NAME").unwrap();
        assert_eq!(config.node.name.as_str(), "orlop-agent");
        let error = named("$NOBODY_SAYS_THIS").unwrap_err().to_string();
        assert!(
            error.contains("node.name: the environment does not say what $NOBODY_SAYS_THIS is"),
            "{error}"
        );
    }

    #[test]
    fn a_value_of_the_wrong_form_names_line_and_field() {
        let error = refused(&GOOD.replace("10.77.0.1", "10.77.0"));
        assert_eq!(error, "node.yaml:10:17: workloads[0].addresses[0]: invalid IP address syntax");
    }

    #[test]
    fn an_unknown_field_is_refused_by_name() {
        let error = refused(&GOOD.replace("    cgroup:", "    cgruop:"));
        assert!(error.starts_with("node.yaml:9:5: workloads[0]: unknown field `cgruop`"), "{error}");
    }

    #[test]
    fn a_missing_field_is_named() {
        let error = refused(&GOOD.replace("    netns: /run/netns/client-0\n", ""));
        assert!(error.contains("missing field `netns`") && error.starts_with("node.yaml:5:"), "{error}");
    }

    #[test]
    fn l7_modes_are_said_of_services_namespaces_and_the_rest() {
        let l7 = "l7: { default: always, namespaces: { shop: on-intent }, services: { db.shop.svc.cluster.local: never } }\n";
        let L7(modes) = parse(Path::new("node.yaml"), &format!("{GOOD}{l7}")).unwrap().l7;
        assert_eq!((modes.default, modes.http2), (Mode::Always, Mode::Always));
        assert_eq!(modes.by_namespace["shop"], Mode::OnIntent);
        assert_eq!(modes.by_service["db.shop.svc.cluster.local"], Mode::Never);
    }

    #[test]
    fn an_unknown_l7_mode_is_refused_with_those_that_there_are() {
        let error = refused(&format!("{GOOD}l7: {{ default: sometimes }}\n"));
        assert!(error.contains("l7.default: unknown variant `sometimes`"), "{error}");
        assert!(error.contains("`always`, `on-intent`, `never`"), "{error}");
        let error = refused(&format!("{GOOD}l7: {{ namespaces: {{ Shop: never }} }}\n"));
        assert!(error.contains("l7.namespaces: \"Shop\" is not a Kubernetes name"), "{error}");
    }

    #[test]
    fn two_workloads_cannot_share_an_address() {
        let second = "  - { name: b, netns: /n, cgroup: /c, addresses: [10.77.0.1] }\n";
        let error = refused(&format!("{GOOD}{second}"));
        assert!(
            error.contains("default/client-0 and default/b share the address 10.77.0.1")
                || error.contains("default/b and default/client-0 share the address 10.77.0.1"),
            "{error}"
        );
    }

    #[test]
    fn a_file_that_is_not_yaml_names_the_line() {
        assert!(
            refused("node: [").starts_with("node.yaml:2:1:")
                || refused("node: [").starts_with("node.yaml:1:")
        );
    }
}
