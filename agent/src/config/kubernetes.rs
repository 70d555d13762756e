//! Where the workloads come from in a cluster.

use std::path::PathBuf;

use serde::Deserialize;

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
}

fn default_socket() -> PathBuf {
    PathBuf::from("/run/containerd/containerd.sock")
}

fn default_cgroups() -> PathBuf {
    PathBuf::from("/sys/fs/cgroup")
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
        let expected = Kubernetes { runtime_socket: default_socket(), cgroups: default_cgroups() };
        assert_eq!(config.kubernetes, Some(expected));

        let error = refused(&format!("{GOOD}kubernetes: {{}}\n"));
        assert!(error.contains("workloads: kubernetes says which they are"), "{error}");
    }
}
