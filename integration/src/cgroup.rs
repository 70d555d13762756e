//! Cgroups of version 2: where they are mounted, and making and removing them.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, Result};

use crate::wait::until;

/// The mount point of the cgroup2 hierarchy: `/sys/fs/cgroup`, or `/sys/fs/cgroup/unified` beside version 1.
pub fn root() -> Result<PathBuf> {
    let mounts = fs::read_to_string("/proc/mounts")?;
    mounts
        .lines()
        .filter_map(|line| {
            let mut fields = line.split(' ').skip(1);
            Some((fields.next()?, fields.next()?))
        })
        .find(|(_, kind)| *kind == "cgroup2")
        .map(|(path, _)| PathBuf::from(path))
        .context("no cgroup2 file system is mounted: mount -t cgroup2 none /sys/fs/cgroup/unified")
}

/// Makes the cgroup if it does not exist.
pub fn create(path: &Path) -> Result<()> {
    fs::create_dir_all(path).with_context(|| format!("cannot make the cgroup {}", path.display()))
}

/// Kills every process below `path` and removes it with its children. Does nothing when it does not exist.
pub fn kill_and_remove(path: &Path) -> Result<()> {
    if !path.exists() {
        return Ok(());
    }
    fs::write(path.join("cgroup.kill"), "1")
        .context("cannot kill the processes of a cgroup (needs Linux 5.14)")?;
    until("the processes of a cgroup to end", Duration::from_secs(10), || {
        Ok(fs::read_to_string(path.join("cgroup.events"))?.contains("populated 0").then_some(()))
    })?;
    remove_empty(path)
}

fn remove_empty(path: &Path) -> Result<()> {
    for entry in fs::read_dir(path)? {
        let entry = entry?;
        if entry.file_type()?.is_dir() {
            remove_empty(&entry.path())?;
        }
    }
    fs::remove_dir(path).with_context(|| format!("cannot remove the cgroup {}", path.display()))
}
