//! A pod's cgroup, from what the runtime says of its sandbox.

use std::path::{Path, PathBuf};

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

#[cfg(test)]
mod tests {
    use super::*;

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
