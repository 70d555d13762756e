//! What the agent's threads may do once it runs, and who may ask it anything.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::os::unix::fs::PermissionsExt;

use anyhow::{Context, Result, ensure};
use orlop_integration::{Agent, Mesh};

/// The bits of `linux/capability.h`.
const DAC_OVERRIDE: u32 = 1;
const NET_BIND_SERVICE: u32 = 10;
const NET_ADMIN: u32 = 12;
const NET_RAW: u32 = 13;
const SYS_PTRACE: u32 = 19;
const SYS_ADMIN: u32 = 21;
const PERFMON: u32 = 38;
const BPF: u32 = 39;
const NOBODY: u32 = 65534;

fn set(bits: &[u32]) -> u64 {
    bits.iter().map(|bit| 1 << bit).sum()
}

/// What the kernel says of each thread, by its name without a number.
fn threads(agent: &Agent) -> Result<BTreeMap<String, Vec<BTreeMap<String, String>>>> {
    let mut threads: BTreeMap<_, Vec<_>> = BTreeMap::new();
    for task in fs::read_dir(format!("/proc/{}/task", agent.id()?))? {
        let status = fs::read_to_string(task?.path().join("status"))?;
        let fields = status.lines().filter_map(|line| line.split_once(':'));
        let fields: BTreeMap<_, _> =
            fields.map(|(key, value)| (key.to_owned(), value.trim().to_owned())).collect();
        let name = fields.get("Name").context("a thread has a name")?;
        let name = name.trim_end_matches(|c: char| c.is_ascii_digit()).to_owned();
        threads.entry(name).or_default().push(fields);
    }
    Ok(threads)
}

fn capabilities(thread: &BTreeMap<String, String>, which: &str) -> Result<u64> {
    Ok(u64::from_str_radix(thread.get(which).context("capabilities")?, 16)?)
}

#[test]
fn no_thread_may_do_more_than_its_part_needs() -> Result<()> {
    let mesh = Mesh::plain()?;
    mesh.client.http(Mesh::WEB).host(&mesh.web.host()).send()?.echo()?;
    let threads = threads(&mesh.agent)?;

    let traffic = set(&[NET_BIND_SERVICE, NET_ADMIN, SYS_ADMIN]);
    let dns = traffic | set(&[NET_RAW]);
    let agent = dns | set(&[DAC_OVERRIDE, SYS_PTRACE, PERFMON, BPF]);
    for (name, thread) in threads.iter().flat_map(|(name, all)| all.iter().map(move |one| (name, one))) {
        let most = match name.as_str() {
            "orlop-proxy-" => traffic,
            "orlop-dns" => dns,
            _ => agent,
        };
        for which in ["CapEff", "CapPrm"] {
            let held = capabilities(thread, which)?;
            ensure!(held & !most == 0, "{name} has {which} {held:x}, and needs {most:x}");
        }
        ensure!(capabilities(thread, "CapBnd")? & !agent == 0, "{name}: {thread:?}");
        ensure!(capabilities(thread, "CapInh")? == 0, "{name}: {thread:?}");
        if most != agent {
            ensure!(thread["Seccomp"] == "2" && thread["NoNewPrivs"] == "1", "{name}: {thread:?}");
        }
    }
    for part in ["orlop-proxy-", "orlop-dns"] {
        ensure!(threads.contains_key(part), "{part} is not among {:?}", threads.keys());
    }
    Ok(())
}

#[test]
fn the_status_says_what_the_threads_may_do() -> Result<()> {
    let mesh = Mesh::plain()?;
    let status = mesh.agent.status()?;
    let proxy = status.threads.iter().find(|group| group.name == "orlop-proxy").context("traffic threads")?;
    let expected = BTreeSet::from(["NET_ADMIN", "NET_BIND_SERVICE", "SYS_ADMIN"].map(str::to_owned));
    assert_eq!((&proxy.capabilities, proxy.filtered), (&expected, true));
    Ok(())
}

#[test]
fn the_agents_sockets_are_roots_alone() -> Result<()> {
    let mesh = Mesh::plain()?;
    let admin = mesh.agent.socket();
    for socket in [&admin, &admin.with_file_name("takeover.sock")] {
        let mode = fs::metadata(socket)?.permissions().mode() & 0o777;
        ensure!(mode == 0o600, "{} has the mode {mode:o}", socket.display());
    }
    let output = mesh.agent.status_for(NOBODY)?;
    let said = String::from_utf8_lossy(&output.stderr);
    ensure!(!output.status.success() && said.contains("ermission denied"), "{said}");
    Ok(())
}
