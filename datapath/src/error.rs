//! What can go wrong, what it concerned, and whose fault it is.

use std::io;
use std::path::PathBuf;

use aya::EbpfError;
use aya::maps::MapError;
use aya::pin::PinError;
use aya::programs::ProgramError;
use orlop_plan::kernel::Frontend;
use orlop_podnet::NetNsError;

use crate::hook::Hook;
use crate::maps::MapName;
use crate::workload::Family;

/// Every error of this crate.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The kernel, its configuration or this process's capabilities lack something that nothing works without.
    #[error("this node lacks {feature}, needed for {needed_for} (since Linux {kernel_since}): {detail}")]
    MissingFeature {
        /// As in [`probe::Feature`](crate::probe::Feature).
        feature: &'static str,
        /// As in [`probe::Feature`](crate::probe::Feature).
        needed_for: &'static str,
        /// As in [`probe::Feature`](crate::probe::Feature).
        kernel_since: &'static str,
        /// As in [`probe::Feature`](crate::probe::Feature).
        detail: String,
    },
    /// The BPF file system is not mounted and cannot be.
    #[error("cannot mount the BPF file system at {path}")]
    MountBpffs {
        /// Where.
        path: PathBuf,
        /// What the kernel said.
        source: io::Error,
    },
    /// A folder, record or pin below the pin root cannot be read, made or removed.
    #[error("cannot access {path} in the BPF file system")]
    Pins {
        /// Which.
        path: PathBuf,
        /// What the kernel said.
        source: io::Error,
    },
    /// The object or one of its maps was refused.
    #[error("cannot load the kernel programs")]
    Load(#[from] EbpfError),
    /// A program was refused by the verifier or could not be attached.
    #[error("kernel program {hook}")]
    Program {
        /// Which.
        hook: Hook,
        /// What aya said.
        source: ProgramError,
    },
    /// An attached program could not be kept.
    #[error("cannot pin a link at {path}")]
    PinLink {
        /// Where.
        path: PathBuf,
        /// What aya said.
        source: PinError,
    },
    /// The program of a pinned link could not be exchanged. The old one goes on.
    #[error("cannot exchange the program of the link at {path}")]
    SwapLink {
        /// Which.
        path: PathBuf,
        /// What the kernel said; ENOLINK if what it was attached to is gone.
        source: io::Error,
    },
    /// A map could not be opened, read or written.
    #[error("map {map}")]
    Map {
        /// Which.
        map: MapName,
        /// What aya said.
        source: MapError,
    },
    /// A map has no room for what the plan needs. Nothing was changed.
    #[error("map {map} is full: {needed} entries needed, {capacity} configured")]
    MapFull {
        /// Which.
        map: MapName,
        /// Entries that it would have to hold; for `BACKENDS`, at least.
        needed: u64,
        /// Entries that it can hold.
        capacity: u32,
    },
    /// The network namespace cannot be opened or entered.
    #[error(transparent)]
    NetNs(#[from] NetNsError),
    /// The path names another namespace than the one that was opened, or none.
    #[error("workload {workload}: network namespace {path} is gone")]
    NetNsGone {
        /// Whose.
        workload: String,
        /// Which.
        path: PathBuf,
    },
    /// Steering would catch the node's own traffic.
    #[error("workload {workload}: {path} is the network namespace of the host")]
    HostNetwork {
        /// Whose.
        workload: String,
        /// Which.
        path: PathBuf,
    },
    /// The cgroup is gone or cannot be opened.
    #[error("workload {workload}: cannot open cgroup {path}")]
    Cgroup {
        /// Whose.
        workload: String,
        /// Which.
        path: PathBuf,
        /// What the kernel said.
        source: io::Error,
    },
    /// The path is no folder of a cgroup v2 hierarchy, or its root, which holds every process of the node.
    #[error("workload {workload}: {path} is not a cgroup v2 of its own")]
    NotACgroup {
        /// Whose.
        workload: String,
        /// Which.
        path: PathBuf,
    },
    /// The cgroup of what probes the pods cannot be opened.
    #[error("cannot open cgroup {path} of what probes the pods")]
    Prober {
        /// Which.
        path: PathBuf,
        /// What the kernel said.
        source: io::Error,
    },
    /// It is no cgroup v2, or the root, and every process of the node would pass for the prober.
    #[error("{path} is not a cgroup v2 of what probes the pods alone")]
    NotAProber {
        /// Which.
        path: PathBuf,
    },
    /// Who listens in a namespace cannot be found out.
    #[error("cannot list the listening sockets of network namespace {path}")]
    Listeners {
        /// Where.
        path: PathBuf,
        /// What the kernel said.
        source: io::Error,
    },
    /// Nothing that arrives for the workload would ever be steered.
    #[error("workload {workload}: {address} belongs to no interface in network namespace {path}")]
    ForeignAddress {
        /// Whose.
        workload: String,
        /// Which.
        address: std::net::IpAddr,
        /// Where.
        path: PathBuf,
    },
    /// A workload needs one address at least, and one a family at most.
    #[error("workload {workload}: {}", match .family {
        Some(family) => format!("more than one {family} address"),
        None => "no address".to_owned(),
    })]
    Addresses {
        /// Whose.
        workload: String,
        /// The family that has more than one; `None` if there is no address at all.
        family: Option<Family>,
    },
    /// A route or rule in the pod's namespace was refused.
    #[error("cannot {doing} in network namespace {path}")]
    Netlink {
        /// What was tried.
        doing: &'static str,
        /// Where.
        path: PathBuf,
        /// What the kernel said.
        source: rtnetlink::Error,
    },
    /// No netlink socket could be opened in the namespace.
    #[error("cannot open a netlink socket in network namespace {path}")]
    NetlinkSocket {
        /// Where.
        path: PathBuf,
        /// What the kernel said.
        source: io::Error,
    },
    /// Records of flows cannot be waited for.
    #[error("cannot wait for records of connections")]
    Flows(#[source] io::Error),
    /// Sockets of the pod's namespace could not be looked at or closed.
    #[error("cannot close connections to removed endpoints in network namespace {path}")]
    SockDiag {
        /// Where.
        path: PathBuf,
        /// What the kernel said; EOPNOTSUPP without `CONFIG_INET_DIAG_DESTROY`.
        source: io::Error,
    },
    /// The sysctl of the pod's namespace cannot be read or written.
    #[error("sysctl {name} in network namespace {path}")]
    Sysctl {
        /// Which.
        name: &'static str,
        /// Where.
        path: PathBuf,
        /// What the kernel said.
        source: io::Error,
    },
    /// The listener's own address cannot be read, or it is no TCP listener over IP.
    #[error("workload {workload}: not a TCP listener")]
    Listener {
        /// Whose.
        workload: String,
        /// What the kernel said.
        source: io::Error,
    },
    /// No workload of this name is enrolled.
    #[error("workload {0} is not enrolled")]
    UnknownWorkload(String),
    /// A workload of this name is enrolled.
    #[error("workload {0} is already enrolled")]
    AlreadyEnrolled(String),
    /// The plan's default is to balance; only a frontend can be balanced.
    #[error("the default for destinations without a frontend cannot be a set of backends")]
    BalancedDefault,
    /// The frontend's address is unspecified or IPv4-mapped, which would clash with another frontend's key.
    #[error("frontend {0:?}: write IPv4 as IPv4, and any address as none")]
    AmbiguousFrontend(Frontend),
}
