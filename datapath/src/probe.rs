//! What this kernel, its configuration and this process's capabilities can do: found out by trying.

use std::fs;
use std::path::{Path, PathBuf};

use aya::EbpfLoader;
use aya::maps::MapType;
use aya::programs::ProgramType;
use aya::sys::{BpfHelper, is_helper_supported, is_map_supported, is_program_supported};
use futures_util::TryStreamExt;
use orlop_podnet::NetNs;
use rtnetlink::IpVersion;
use rustix::thread::{CapabilitySet, capabilities};
use serde::Serialize;

use crate::error::Error;
use crate::hook::{self, Hook};
use crate::netns;
use crate::pins;
use crate::programs::OBJECT;

/// One thing that the datapath needs of the node.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Feature {
    /// What it is, in the kernel's words.
    pub name: &'static str,
    /// What of Orlop needs it.
    pub needed_for: &'static str,
    /// The first kernel that can have it.
    pub kernel_since: &'static str,
    /// Whether the agent refuses to start without it.
    pub required: bool,
    /// Whether it is there.
    pub present: bool,
    /// How it was found, or what is wrong.
    pub detail: String,
}

/// What was found: words for `status`, or what is wrong.
type Finding = Result<String, String>;

/// Tries everything. Changes nothing, except that it mounts the BPF file system above `pin_root` if it is not there.
pub async fn probe(pin_root: &Path) -> Vec<Feature> {
    vec![
        required(
            "CAP_NET_ADMIN",
            "routes and socket marks in pods",
            "2.2",
            capability(CapabilitySet::NET_ADMIN),
        ),
        required(
            "CAP_SYS_ADMIN",
            "entering pod network namespaces",
            "2.2",
            capability(CapabilitySet::SYS_ADMIN),
        ),
        required(
            "CAP_BPF",
            "loading the programs",
            "5.8",
            capability(CapabilitySet::BPF).or_else(|_| capability(CapabilitySet::SYS_ADMIN)),
        ),
        required("cgroup v2", "connect hooks for each pod", "4.5", cgroup2()),
        required("BPF file system", "programs that outlive the agent", "4.4", bpffs(pin_root)),
        required("cgroup/connect4", "choosing the way out", "4.17", program(ProgramType::CgroupSockAddr)),
        required("sock_ops", "counting open connections", "4.13", program(ProgramType::SockOps)),
        required("sk_lookup", "steering to the proxy", "5.9", program(ProgramType::SkLookup)),
        required("SOCKMAP", "steering to the proxy", "4.14", map(MapType::SockMap)),
        required(
            "bpf_set_retval",
            "an immediate refusal when the proxy is not there",
            "5.18",
            helper(ProgramType::CgroupSockAddr, BpfHelper::BPF_FUNC_set_retval),
        ),
        required(
            "bpf_setsockopt in connect hooks",
            "marking connections for the proxy",
            "5.8",
            helper(ProgramType::CgroupSockAddr, BpfHelper::BPF_FUNC_setsockopt),
        ),
        required("orlop.bpf.o", "everything: the kernel verifies the programs", "5.18", object()),
        required(
            "policy routing",
            "the marked connection's way over loopback",
            "2.2",
            policy_routing().await,
        ),
        optional("IPv6", "pods with an IPv6 address", "2.2", ipv6()),
        required(
            "net.ipv4.tcp_fwmark_accept",
            "the client's address at the application",
            "3.16",
            fwmark_accept(),
        ),
    ]
}

/// Refuses a node that lacks a required feature, by the feature's name.
pub fn require(features: Vec<Feature>) -> Result<(), Error> {
    match features.into_iter().find(|feature| feature.required && !feature.present) {
        None => Ok(()),
        Some(Feature { name: feature, needed_for, kernel_since, detail, .. }) => {
            Err(Error::MissingFeature { feature, needed_for, kernel_since, detail })
        }
    }
}

/// Where the cgroup v2 hierarchy is mounted: `/sys/fs/cgroup`, or `/sys/fs/cgroup/unified` beside v1.
pub fn cgroup2_mount() -> Option<PathBuf> {
    // proc_pid_mountinfo(5): the mount point is the fifth field, the type the first after a lone dash.
    let mounts = fs::read_to_string("/proc/self/mountinfo").ok()?;
    mounts.lines().find_map(|line| {
        let (mount, kind) = line.split_once(" - ")?;
        kind.starts_with("cgroup2 ").then(|| mount.split(' ').nth(4).map(PathBuf::from))?
    })
}

fn required(
    name: &'static str,
    needed_for: &'static str,
    kernel_since: &'static str,
    finding: Finding,
) -> Feature {
    let present = finding.is_ok();
    let detail = finding.unwrap_or_else(|wrong| wrong);
    Feature { name, needed_for, kernel_since, required: true, present, detail }
}

fn optional(
    name: &'static str,
    needed_for: &'static str,
    kernel_since: &'static str,
    finding: Finding,
) -> Feature {
    Feature { required: false, ..required(name, needed_for, kernel_since, finding) }
}

fn capability(wanted: CapabilitySet) -> Finding {
    match capabilities(None) {
        Ok(sets) if sets.effective.contains(wanted) => Ok("held".to_owned()),
        Ok(_) => Err("not held: run as root, or give the capability".to_owned()),
        Err(errno) => Err(errno.to_string()),
    }
}

fn cgroup2() -> Finding {
    let mount = cgroup2_mount().ok_or("no cgroup2 file system is mounted")?;
    Ok(mount.display().to_string())
}

fn bpffs(pin_root: &Path) -> Finding {
    pins::mount_bpffs(pin_root).map_err(|error| chain(&error))?;
    Ok(format!("mounted above {}", pin_root.display()))
}

fn program(kind: ProgramType) -> Finding {
    supported(
        is_program_supported(kind),
        "a program of the type loads",
        "the kernel has no such program type",
    )
}

fn map(kind: MapType) -> Finding {
    supported(is_map_supported(kind), "a map of the type can be made", "the kernel has no such map type")
}

fn helper(kind: ProgramType, helper: BpfHelper) -> Finding {
    supported(
        is_helper_supported(kind, helper),
        "the helper may be called",
        "the program type has no such helper",
    )
}

fn supported<E: std::error::Error>(result: Result<bool, E>, yes: &str, no: &str) -> Finding {
    match result {
        Ok(true) => Ok(yes.to_owned()),
        Ok(false) => Err(no.to_owned()),
        Err(error) => Err(chain(&error)),
    }
}

/// The real thing, with maps of its own and attached to nothing.
fn object() -> Finding {
    let mut ebpf = EbpfLoader::new().load(OBJECT).map_err(|error| chain(&error))?;
    for hook in Hook::ALL.into_iter().chain([Hook::Prober]) {
        hook::load(&mut ebpf, hook).map_err(|error| chain(&error))?;
    }
    Ok(format!("verified, ABI {}", orlop_abi::ABI_VERSION))
}

async fn policy_routing() -> Finding {
    let here = NetNs::open(Path::new("/proc/self/ns/net")).map_err(|error| chain(&error))?;
    netns::with_netlink(&here, |handle| async move {
        let rules = handle.rule().get(IpVersion::V4).execute().try_collect::<Vec<_>>().await;
        rules.map(drop).map_err(|error| ("list routing rules", error))
    })
    .await
    .map_err(|error| chain(&error))?;
    Ok("routing rules can be listed".to_owned())
}

fn fwmark_accept() -> Finding {
    let path = netns::SYSCTL_PATH;
    fs::read(path).map_err(|error| format!("{path}: {error}"))?;
    Ok(path.to_owned())
}

fn ipv6() -> Finding {
    let path = "/proc/net/if_inet6";
    fs::metadata(path).map_err(|error| format!("{path}: {error}"))?;
    Ok(path.to_owned())
}

/// The error with its causes, on one line.
fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        text = format!("{text}: {error}");
        cause = error.source();
    }
    text.replace('\n', " ")
}
