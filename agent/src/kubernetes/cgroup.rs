//! A pod's cgroup, from what the runtime says of its sandbox.

use std::io;
use std::path::{Path, PathBuf};

/// Pods lie no deeper below a hierarchy's root.
const DEEPEST: usize = 6;

/// Below which the pods' cgroups of version 2 lie: `mounted` itself, or `unified` where version 1 is beside it.
pub(super) fn root(mounted: &Path) -> PathBuf {
    if mounted.join("cgroup.controllers").exists() { mounted.to_owned() } else { mounted.join("unified") }
}

/// The pod's folder below the root, from the `cgroupsPath` of its sandbox (OCI runtime specification): `PARENT/SANDBOX` with
/// the driver cgroupfs, `SLICE:PREFIX:SANDBOX` with systemd, whose slices lie in each other by their names.
pub(super) fn of_pod(sandbox: &str) -> Option<PathBuf> {
    let Some((slice, _)) = sandbox.split_once(':') else {
        let parent = Path::new(sandbox.trim_start_matches('/')).parent()?;
        return (!parent.as_os_str().is_empty()).then(|| parent.to_owned());
    };
    // A slice may be given with those that it lies in.
    let name = slice.rsplit('/').next()?.strip_suffix(".slice")?;
    let ends = name.match_indices('-').map(|(end, _)| end).chain([name.len()]);
    ends.map(|end| Some(format!("{}.slice", name.get(..end)?))).collect()
}

/// The folder of a pod that has no sandbox yet. The kubelet has made it in the hierarchies that it knows; where version 2 is not
/// among them, it is made there, as the runtime is about to.
pub(super) fn of_starting(mounted: &Path, uid: &str) -> io::Result<PathBuf> {
    let root = root(mounted);
    let hierarchies = if root == mounted {
        vec![root.clone()]
    } else {
        ["memory", "pids", "systemd"].iter().map(|name| mounted.join(name)).collect()
    };
    for hierarchy in hierarchies {
        if let Some(found) = search(&hierarchy, uid) {
            let relative = found.strip_prefix(&hierarchy).map_err(io::Error::other)?;
            let cgroup = root.join(relative);
            std::fs::create_dir_all(&cgroup)?;
            return Ok(cgroup);
        }
    }
    Err(io::Error::new(
        io::ErrorKind::NotFound,
        format!("no cgroup of a pod {uid} below {}", mounted.display()),
    ))
}

/// The nearest folder that is the pod's by its name, as the kubelet names it with either driver.
fn search(hierarchy: &Path, uid: &str) -> Option<PathBuf> {
    let (folder, slice) = (format!("pod{uid}"), format!("-pod{}.slice", uid.replace('-', "_")));
    let mut level = vec![hierarchy.to_owned()];
    for _ in 0..DEEPEST {
        let mut next = Vec::new();
        for entry in level.iter().filter_map(|folder| std::fs::read_dir(folder).ok()).flatten().flatten() {
            let name = entry.file_name();
            let Some(name) = name.to_str() else { continue };
            if name == folder || name.ends_with(&slice) {
                return Some(entry.path());
            }
            let is_of_another = name.starts_with("pod") || name.contains("-pod");
            if !is_of_another && entry.file_type().is_ok_and(|kind| kind.is_dir()) {
                next.push(entry.path());
            }
        }
        level = next;
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    fn made(folders: &[&str]) -> tempfile::TempDir {
        let dir = tempfile::tempdir().unwrap();
        for folder in folders {
            std::fs::create_dir_all(dir.path().join(folder)).unwrap();
        }
        dir
    }

    #[test]
    fn a_pod_that_starts_is_found_by_its_uid() {
        let own = "kubepods.slice/kubepods-besteffort.slice/kubepods-besteffort-pod1_2.slice";
        let dir = made(&[own, "system.slice/a.service", "kubepods.slice/kubepods-pod3_4.slice"]);
        std::fs::write(dir.path().join("cgroup.controllers"), "").unwrap();
        assert_eq!(of_starting(dir.path(), "1-2").unwrap(), dir.path().join(own));
        let error = of_starting(dir.path(), "5-6").unwrap_err().to_string();
        assert!(error.starts_with("no cgroup of a pod 5-6 below"), "{error}");
    }

    #[test]
    fn beside_version_1_its_folder_of_version_2_is_made() {
        let dir = made(&["memory/node/kubepods/burstable/pod1-2", "unified"]);
        let expected = dir.path().join("unified/node/kubepods/burstable/pod1-2");
        assert_eq!(of_starting(dir.path(), "1-2").unwrap(), expected);
        assert!(expected.is_dir());
    }

    #[test]
    fn the_driver_cgroupfs_gives_a_path() {
        let path = of_pod("/kubepods/besteffort/pod123e4567-e89b/0a1b2c");
        assert_eq!(path, Some("kubepods/besteffort/pod123e4567-e89b".into()));
    }

    #[test]
    fn the_driver_systemd_gives_a_slice_that_lies_in_others() {
        let expected = "kubepods.slice/kubepods-burstable.slice/kubepods-burstable-pod123e4567_e89b.slice";
        let slice = "kubepods-burstable-pod123e4567_e89b.slice";
        assert_eq!(of_pod(&format!("{slice}:cri-containerd:0a1b2c")), Some(expected.into()));
        assert_eq!(of_pod(&format!("/{expected}:crio:0a1b2c")), Some(expected.into()));
    }

    #[test]
    fn what_names_no_pod_is_none() {
        assert_eq!(of_pod("/0a1b2c"), None);
        assert_eq!(of_pod(""), None);
        assert_eq!(of_pod("kubepods:cri-containerd:0a1b2c"), None);
    }
}
