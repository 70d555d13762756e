//! The images of the cluster: the agent's, and those that it needs to be one.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result};

use super::Programs;
use super::programs::Sidecar;
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
    image("pilot-discovery", &format!("localhost/pilot:{TAG}"), &programs.pilot, &[], "1337")?;
    programs.sidecar.as_ref().map_or(Ok(()), |sidecar| write_sidecar(dir, sidecar))
}

/// Writes the image that Istio's injector puts into pods, as the container that redirects and as the proxy.
fn write_sidecar(dir: &Path, Sidecar { agent, envoy, bootstrap }: &Sidecar) -> Result<()> {
    const AGENT: &str = "/usr/local/bin/pilot-agent";
    let mut files = BTreeMap::from([
        (AGENT.to_owned(), agent.clone()),
        ("/usr/local/bin/envoy".to_owned(), envoy.clone()),
        ("/var/lib/istio/envoy/envoy_bootstrap_tmpl.json".to_owned(), bootstrap.clone()),
    ]);
    let redirecting = ["xtables-nft-multi", "xtables-legacy-multi"].map(|name| format!("/usr/sbin/{name}"));
    let mut libraries = libraries(envoy)?;
    for program in &redirecting {
        files.insert(program.clone(), program.into());
        libraries.extend(self::libraries(Path::new(program))?);
    }
    let libc = libraries.iter().find(|path| path.ends_with("libc.so.6")).context("Envoy without a libc")?;
    // "/lib/x86_64-linux-gnu"
    let folder = Path::new(libc).parent().context("a library in no folder")?.to_owned();
    // What the C library loads when a thread ends.
    libraries.push(folder.join("libgcc_s.so.1").display().to_string());
    let extensions = format!("/usr{}/xtables", folder.display());
    for extension in fs::read_dir(&extensions).with_context(|| format!("no {extensions}"))? {
        libraries.push(extension?.path().display().to_string());
    }
    files.extend(libraries.into_iter().map(|path| (path.clone(), path.into())));
    let mut links = Vec::new();
    for (variant, program) in [("", "nft"), ("-nft", "nft"), ("-legacy", "legacy")] {
        for family in ["iptables", "ip6tables"] {
            for tool in ["", "-save", "-restore"] {
                let link = format!("/usr/sbin/{family}{variant}{tool}");
                links.push((link, format!("xtables-{program}-multi")));
            }
        }
    }
    let files: Vec<_> = files.into_iter().map(|(path, source)| (source, path)).collect();
    let reference = &format!("localhost/proxyv2:{TAG}");
    let image =
        Image { reference, entrypoint: &[AGENT], arguments: &[], user: "", files: &files, links: &links };
    image.write(&dir.join("proxyv2.tar"))
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
    let mut files = vec![(program.to_owned(), path.clone())];
    files.extend(libraries.into_iter().map(|library| (PathBuf::from(&library), library)));
    Image { reference, entrypoint: &[&path], arguments, user, files: &files, links: &[] }.write(archive)
}

/// What the program is linked to; nothing, where it is static.
fn libraries(program: &Path) -> Result<Vec<String>> {
    let output = Command::new("ldd").arg(program).output().context("cannot run ldd")?;
    // "libc.so.6 => /lib/x86_64-linux-gnu/libc.so.6 (0x…)", and the loader by its path alone.
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    let paths = text.lines().filter_map(|line| line.split_whitespace().find(|word| word.starts_with('/')));
    Ok(paths.map(str::to_owned).collect())
}
