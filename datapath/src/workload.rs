//! A workload as the datapath knows it: checked before anything is touched.

use std::fmt;
use std::fs::File;
use std::io::{self, ErrorKind};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, UdpSocket};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use aya::Ebpf;
use orlop_abi::{Address, Pod};
use orlop_plan::exclusion::Exclusions;
use orlop_podnet::NetNs;
use rustix::fs::fstatfs;

use crate::drain::Draining;
use crate::error::Error;
use crate::guard::Watch;
use crate::hook::Hook;
use crate::judge::Judged;
use crate::link::{LinkTarget, PinnedLink};
use crate::pins::{Record, WorkloadPins};
use crate::writer::Written;

/// `CGROUP2_SUPER_MAGIC`.
const CGROUP2: u32 = 0x6367_7270;
/// The inode of a hierarchy's root.
const CGROUP_ROOT_INODE: u64 = 1;

/// A pod to enrol.
#[derive(Debug, Clone)]
pub struct WorkloadSpec {
    /// Unique on the node; the pins go by it, so it must be the same after a restart of the agent.
    pub name: String,
    /// The pod's network namespace. It is kept open until the workload is released.
    pub netns: Arc<NetNs>,
    /// The pod's folder in the cgroup v2 hierarchy. Sockets that processes below it make are the workload's.
    pub cgroup: PathBuf,
    /// The pod's addresses, at most one a family. Arrivals at another address of the pod are not steered.
    pub addresses: Vec<IpAddr>,
    /// Whether connections that need the proxy go directly while the proxy is not there.
    pub fail_open: bool,
    /// What is not to be taken at all, the same for as long as the workload is enrolled.
    pub exclusions: Exclusions,
    /// The kernel vouches for its connections to other workloads of which this is true.
    pub attested: bool,
}

/// An IP version.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Family {
    /// IPv4.
    V4,
    /// IPv6.
    V6,
}

impl fmt::Display for Family {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::V4 => "IPv4",
            Self::V6 => "IPv6",
        })
    }
}

/// The pod's addresses: one at least.
#[derive(Debug, Clone, Copy)]
pub(crate) struct PodAddresses {
    v4: Option<Ipv4Addr>,
    v6: Option<Ipv6Addr>,
}

impl PodAddresses {
    pub(crate) fn parse(workload: &str, addresses: &[IpAddr]) -> Result<Self, Error> {
        let wrong = |family| Error::Addresses { workload: workload.to_owned(), family };
        let mut parsed = Self { v4: None, v6: None };
        for address in addresses {
            let (family, taken) = match address.to_canonical() {
                IpAddr::V4(v4) => (Family::V4, parsed.v4.replace(v4).is_some()),
                IpAddr::V6(v6) => (Family::V6, parsed.v6.replace(v6).is_some()),
            };
            if taken {
                return Err(wrong(Some(family)));
            }
        }
        if parsed.iter().next().is_none() { Err(wrong(None)) } else { Ok(parsed) }
    }

    pub(crate) fn iter(self) -> impl Iterator<Item = IpAddr> {
        self.v4.map(IpAddr::V4).into_iter().chain(self.v6.map(IpAddr::V6))
    }

    /// As the programs know the pod.
    pub(crate) fn pod(self, workload: u32) -> Pod {
        let address = |ip: Option<IpAddr>| ip.map_or_else(Address::default, Address::from);
        Pod {
            enrolled: 1,
            workload,
            ip4: address(self.v4.map(IpAddr::V4)),
            ip6: address(self.v6.map(IpAddr::V6)),
        }
    }
}

/// An enrolled workload.
pub(crate) struct Enrolled {
    pub(crate) index: u32,
    pub(crate) netns: Arc<NetNs>,
    /// Its folder, and the inode that it had.
    pub(crate) cgroup: PathBuf,
    pub(crate) cgroup_id: u64,
    pub(crate) addresses: PodAddresses,
    pub(crate) fail_open: bool,
    pub(crate) exclusions: Exclusions,
    pub(crate) pins: WorkloadPins,
    /// What is recorded beside the pins.
    pub(crate) records: Vec<(Record, PathBuf)>,
    pub(crate) written: Written,
    pub(crate) draining: Draining,
    /// Nobody disturbs its routing unnoticed, if somebody listens.
    pub(crate) watch: Option<Watch>,
    /// Its rules and routes are disturbed and could not be put back so far.
    pub(crate) astray: bool,
    /// How often something was put back.
    pub(crate) repaired: u64,
    pub(crate) judged: Judged,
    /// Destinations and ports that are left to the proxy for want of room in the maps.
    pub(crate) without_room: usize,
    /// A loaded `steer` that waits for the first plan, because a dead agent's programs are still at work in the links.
    pub(crate) waiting: Option<Ebpf>,
}

impl WorkloadSpec {
    /// Opens the cgroup, if it is a pod's own.
    pub(crate) fn open_cgroup(&self) -> Result<File, Error> {
        let (workload, path) = (self.name.clone(), self.cgroup.clone());
        let cgroup = open_own_cgroup(&self.cgroup).map_err(|source| self.cgroup_error(source))?;
        cgroup.ok_or(Error::NotACgroup { workload, path })
    }

    pub(crate) fn cgroup_error(&self, source: io::Error) -> Error {
        Error::Cgroup { workload: self.name.clone(), path: self.cgroup.clone(), source }
    }

    /// Refuses an address that the namespace cannot bind: a mistake, or not there yet.
    pub(crate) fn check_addresses(&self) -> Result<(), Error> {
        for address in &self.addresses {
            let bound = self.netns.run(|| UdpSocket::bind((*address, 0)))?;
            if bound.is_err_and(|error| error.kind() == ErrorKind::AddrNotAvailable) {
                let (workload, path) = (self.name.clone(), self.netns.path().to_owned());
                return Err(Error::ForeignAddress { workload, address: *address, path });
            }
        }
        Ok(())
    }

    /// Refuses a namespace that was deleted, and the host's.
    pub(crate) fn check_netns(&self) -> Result<(), Error> {
        let (workload, path) = (self.name.clone(), self.netns.path().to_owned());
        if !self.netns.is_current() {
            return Err(Error::NetNsGone { workload, path });
        }
        for host in ["/proc/self/ns/net", "/proc/1/ns/net"] {
            if NetNs::open(Path::new(host)).is_ok_and(|host| host.id() == self.netns.id()) {
                return Err(Error::HostNetwork { workload, path });
            }
        }
        Ok(())
    }
}

/// Opens a folder of a cgroup v2 hierarchy; `None` if it is none, or the root, which holds every process of the node.
pub(crate) fn open_own_cgroup(path: &Path) -> io::Result<Option<File>> {
    let cgroup = File::open(path)?;
    let kind = fstatfs(&cgroup)?.f_type;
    let own = u32::try_from(kind) == Ok(CGROUP2) && cgroup.metadata()?.ino() != CGROUP_ROOT_INODE;
    Ok(own.then_some(cgroup))
}

/// Whether every pinned link is attached to this very cgroup and namespace, and not to a namesake's of old.
pub(crate) fn links_match(pins: &WorkloadPins, cgroup: &File, netns: &NetNs) -> bool {
    let Ok(cgroup) = cgroup.metadata().map(|meta| meta.ino()) else { return false };
    let mut pinned = Hook::ALL.into_iter().filter(|hook| pins.hook(*hook).exists());
    pinned.all(|hook| is_attached(pins, hook, cgroup, netns))
}

/// Whether the hook's link is pinned and attached to this very cgroup or namespace.
pub(crate) fn is_attached(pins: &WorkloadPins, hook: Hook, cgroup: u64, netns: &NetNs) -> bool {
    let expected = match hook.attach_type() {
        Some(_) => Some(LinkTarget::Cgroup(cgroup)),
        None => netns_inode(netns).map(LinkTarget::Netns),
    };
    let target = PinnedLink::open(&pins.hook(hook)).and_then(|link| link.target());
    target.ok().is_some_and(|target| Some(target) == expected)
}

/// The inode of the namespace's file, by which links name it.
pub(crate) fn netns_inode(netns: &NetNs) -> Option<u64> {
    netns.file().metadata().ok().map(|meta| meta.ino())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(addresses: &[&str]) -> Result<PodAddresses, Error> {
        PodAddresses::parse("web", &addresses.iter().map(|a| a.parse().unwrap()).collect::<Vec<_>>())
    }

    #[test]
    fn a_pod_has_one_address_of_either_family_or_of_both() {
        assert_eq!(parse(&["10.0.0.1"]).unwrap().iter().count(), 1);
        assert_eq!(parse(&["fd77::1", "10.0.0.1"]).unwrap().iter().count(), 2);
    }

    #[test]
    fn no_address_and_two_of_a_family_are_refused_by_name() {
        assert_eq!(parse(&[]).unwrap_err().to_string(), "workload web: no address");
        let two = parse(&["10.0.0.1", "10.0.0.2"]).unwrap_err();
        assert_eq!(two.to_string(), "workload web: more than one IPv4 address");
    }
}
