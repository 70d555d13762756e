//! The images of the cluster: the agent's, and those that it needs to be one.

use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result};

use super::Programs;
use crate::oci::Image;

/// The tag that Istio's charts are told.
pub(super) const TAG: &str = "1.31";
/// The agent.
pub const AGENT_IMAGE: &str = "localhost/orlop:1";
/// `bed-pod`: the applications of the tests, and what holds a pod's namespaces.
pub const POD_IMAGE: &str = "localhost/bed-pod:1";

/// Writes them to `dir`.
pub(super) fn write(dir: &Path, programs: &Programs) -> Result<()> {
    let image = |name: &str, reference: &str, program: &PathBuf, arguments: &[&str], user: &str| {
        write_program(&dir.join(format!("{name}.tar")), reference, name, program, arguments, user)
    };
    image("orlop", AGENT_IMAGE, &programs.agent, &[], "")?;
    image("bed-pod", POD_IMAGE, &programs.pod, &["pause"], "")?;
    image("dns", "localhost/dns:1", &programs.dns, &[], "")?;
    // As whom Istio's charts run it.
    image("pilot-discovery", &format!("localhost/pilot:{TAG}"), &programs.pilot, &[], "1337")
}

/// Writes the image of one program, with the libraries that it is linked to.
pub fn write_program(
    archive: &Path,
    reference: &str,
    name: &str,
    program: &Path,
    arguments: &[&str],
    user: &str,
) -> Result<()> {
    let path = format!("/usr/local/bin/{name}");
    let libraries = libraries(program)?;
    let mut files = vec![(program.to_owned(), path.as_str())];
    files.extend(libraries.iter().map(|library| (library.into(), library.as_str())));
    Image { reference, entrypoint: &[&path], arguments, user, files: &files }.write(archive)
}

/// What the program is linked to; nothing, where it is static.
fn libraries(program: &Path) -> Result<Vec<String>> {
    let output = Command::new("ldd").arg(program).output().context("cannot run ldd")?;
    // "libc.so.6 => /lib/x86_64-linux-gnu/libc.so.6 (0x…)", and the loader by its path alone.
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    let paths = text.lines().filter_map(|line| line.split_whitespace().find(|word| word.starts_with('/')));
    Ok(paths.map(str::to_owned).collect())
}
