//! The kubelet of this node: in which cgroup it runs, by which the kernel knows its connections.
//!
//! It is found as whoever listens at the kubelet's port in the host's network namespace, whatever its program or service is
//! called. Nobody takes that port while it runs; a pod of the host's network that took it meanwhile is known by its cgroup.

use std::fs;
use std::os::unix::fs::DirEntryExt;
use std::path::{Path, PathBuf};

use orlop_datapath::cgroups_listening_at;
use orlop_podnet::NetNs;

use super::cgroup;
use crate::config::Kubernetes;

/// What the cgroups of pods lie in, whatever the driver: `kubepods` or `kubepods.slice`.
const PODS: &str = "kubepods";
/// A service's cgroup is nearer to the root than this.
const DEEPEST: usize = 8;

/// Where to look for it, and where it was found last.
#[derive(Debug)]
pub(crate) struct Kubelet {
    host: NetNs,
    port: u16,
    cgroups: PathBuf,
    found: Option<(u64, PathBuf)>,
}

impl Kubelet {
    /// Opens the host's network namespace.
    pub(crate) fn new(config: &Kubernetes) -> Result<Self, String> {
        let host = NetNs::open(&config.processes.join("1/ns/net"))
            .map_err(|error| format!("kubernetes.processes: {:#}", anyhow::Error::from(error)))?;
        Ok(Self { host, port: config.kubelet_port, cgroups: cgroup::root(&config.cgroups), found: None })
    }

    /// Its cgroup now; while it is not there, the one that it had. In words, why there is none.
    pub(crate) fn cgroup(&mut self) -> Result<PathBuf, String> {
        let port = self.port;
        let listening = cgroups_listening_at(&self.host, port)
            .map_err(|error| format!("{:#}", anyhow::Error::from(error)))?;
        let mut ids = listening.into_iter();
        match (ids.next(), ids.next(), &self.found) {
            (Some(id), None, Some((known, path))) if id == *known => Ok(path.clone()),
            (Some(id), None, _) => {
                let path = find(&self.cgroups, id, DEEPEST).ok_or_else(|| {
                    format!(
                        "whoever listens at port {port} runs in a pod, or in no cgroup v2 below {}",
                        self.cgroups.display()
                    )
                })?;
                self.found = Some((id, path.clone()));
                Ok(path)
            }
            (Some(_), Some(_), _) => Err(format!("several services listen at port {port}")),
            (None, _, Some((_, path))) => Ok(path.clone()),
            (None, _, None) => Err(format!("nobody listens at port {port} of this node")),
        }
    }
}

/// The folder of this inode, unless it is the root or a pod's.
fn find(folder: &Path, id: u64, deepest: usize) -> Option<PathBuf> {
    let entries = fs::read_dir(folder).ok()?.flatten();
    let is_folder = |entry: &fs::DirEntry| entry.file_type().is_ok_and(|kind| kind.is_dir());
    let is_pods = |entry: &fs::DirEntry| entry.file_name().to_string_lossy().starts_with(PODS);
    let folders: Vec<_> = entries.filter(|entry| is_folder(entry) && !is_pods(entry)).collect();
    if let Some(found) = folders.iter().find(|entry| entry.ino() == id) {
        return Some(found.path());
    }
    let deepest = deepest.checked_sub(1)?;
    folders.iter().find_map(|entry| find(&entry.path(), id, deepest))
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::MetadataExt;

    use super::*;

    #[test]
    fn a_folder_is_found_by_its_inode_unless_it_is_a_pods() {
        let root = tempfile::tempdir().unwrap();
        let make = |path: &str| {
            let path = root.path().join(path);
            fs::create_dir_all(&path).unwrap();
            fs::metadata(&path).unwrap().ino()
        };
        let service = make("system.slice/kubelet.service");
        let pod = make("kubepods.slice/kubepods-pod1.slice");

        let found = find(root.path(), service, DEEPEST);
        assert_eq!(found, Some(root.path().join("system.slice/kubelet.service")));
        assert_eq!(find(root.path(), pod, DEEPEST), None);
        assert_eq!(find(root.path(), fs::metadata(root.path()).unwrap().ino(), DEEPEST), None);
    }
}
