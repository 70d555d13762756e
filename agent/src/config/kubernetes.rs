//! Where the workloads come from in a cluster.

use std::path::PathBuf;

use serde::Deserialize;

pub use crate::cni::WhenAway;

/// Where the workloads come from in a cluster: the pods of the node that bears this node's name, by the label
/// `istio.io/dataplane-mode`. The API server is found as from any pod.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Kubernetes {
    /// The container runtime's socket (CRI).
    #[serde(default = "default_socket")]
    pub runtime_socket: PathBuf,
    /// Where the host's cgroups are mounted.
    #[serde(default = "default_cgroups")]
    pub cgroups: PathBuf,
    /// Where the host's processes are to be found (`/proc`).
    #[serde(default = "default_processes")]
    pub processes: PathBuf,
    /// Where the kubelet of the node listens, by which it is found.
    #[serde(default = "default_kubelet_port")]
    pub kubelet_port: u16,
    /// By what pods are held until they are carried; without, they are carried as soon as their addresses are known.
    pub cni: Option<Cni>,
}

/// The plug-in of the container runtime that holds pods until they are carried.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Cni {
    /// Where the node's chains of plug-ins lie, as the agent sees them.
    pub conf_directory: PathBuf,
    /// Where their programs lie.
    pub bin_directory: PathBuf,
    /// What becomes of a pod that the agent does not carry in time.
    #[serde(default)]
    pub when_away: WhenAway,
    /// For how long a pod is held at most.
    #[serde(default = "default_timeout")]
    pub timeout_seconds: u32,
    /// Namespaces whose pods are never held: of those that the agent itself cannot do without.
    #[serde(default)]
    pub exclude_namespaces: Vec<String>,
    /// The `DaemonSet` of the agent, in its own namespace: when that is gone, the plug-in is taken off the node.
    pub daemon_set: String,
}

fn default_timeout() -> u32 {
    30
}

fn default_socket() -> PathBuf {
    PathBuf::from("/run/containerd/containerd.sock")
}

fn default_cgroups() -> PathBuf {
    PathBuf::from("/sys/fs/cgroup")
}

fn default_processes() -> PathBuf {
    PathBuf::from("/proc")
}

/// What Kubernetes calls `KubeletPort`.
fn default_kubelet_port() -> u16 {
    10250
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::super::parse;
    use super::super::tests::{GOOD, refused};
    use super::*;

    #[test]
    fn workloads_are_listed_or_come_from_the_cluster_not_both() {
        let listed = GOOD.split("workloads:").next().unwrap();
        let config = parse(Path::new("node.yaml"), &format!("{listed}kubernetes: {{}}\n")).unwrap();
        let expected = Kubernetes {
            runtime_socket: default_socket(),
            cgroups: default_cgroups(),
            processes: default_processes(),
            kubelet_port: 10250,
            cni: None,
        };
        assert_eq!(config.kubernetes, Some(expected));

        let error = refused(&format!("{GOOD}kubernetes: {{}}\n"));
        assert!(error.contains("workloads: kubernetes says which they are"), "{error}");
    }
}
