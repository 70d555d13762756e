//! The machine of somebody who operates the cluster: nothing of it but `kubectl` and the command line.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use anyhow::Result;

use super::{Cluster, finished};

/// Writes the `kubectl` that is found there.
pub(super) fn write(dir: &Path) -> Result<()> {
    let folder = dir.join("bin");
    fs::create_dir_all(&folder)?;
    let program = folder.join("kubectl");
    fs::write(&program, format!("#!/bin/sh\nexec {}/kubernetes kubectl \"$@\"\n", dir.display()))?;
    Ok(fs::set_permissions(&program, fs::Permissions::from_mode(0o755))?)
}

impl Cluster {
    /// Runs `orlop` there and returns what it printed.
    pub fn orlop_on_workstation(&self, arguments: &[&str]) -> Result<String> {
        let mut command = self.in_node(1, &["-n"])?;
        let path = format!("{}/bin:{}", self.dir.display(), std::env::var("PATH").unwrap_or_default());
        finished(command.arg(&self.programs.agent).args(arguments).env("PATH", path))
    }
}
