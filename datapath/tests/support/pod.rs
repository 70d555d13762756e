//! Two namespaces joined by a veth pair, each with a cgroup: a pod, and everything else in the world.

use std::collections::BTreeMap;
use std::fs;
use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;
use std::process::Command;
use std::sync::Arc;

use orlop_datapath::probe::cgroup2_mount;
use orlop_datapath::{Datapath, WorkloadSpec};
use orlop_plan::exclusion::Exclusions;
use orlop_podnet::NetNs;

use super::unique;

/// The pod's addresses.
pub(crate) const POD4: &str = "10.77.0.1";
pub(crate) const POD6: &str = "fd77::1";
/// Addresses of the world.
pub(crate) const WORLD4: [&str; 3] = ["10.77.0.2", "10.77.0.3", "10.77.0.4"];
pub(crate) const WORLD6: &str = "fd77::2";

/// A network namespace and a cgroup; both go on drop.
pub(crate) struct Pod {
    pub(crate) name: String,
    pub(crate) netns: Arc<NetNs>,
    pub(crate) cgroup: PathBuf,
}

impl Pod {
    fn new(prefix: &str) -> Self {
        let name = unique(prefix);
        ip(&["netns", "add", &name]);
        ip(&["-n", &name, "link", "set", "lo", "up"]);
        let cgroup = cgroup2_mount().expect("a cgroup2 mount").join(&name);
        fs::create_dir(&cgroup).unwrap();
        let netns = Arc::new(NetNs::open(&PathBuf::from("/run/netns").join(&name)).unwrap());
        Self { name, netns, cgroup }
    }

    /// How the datapath is told of it.
    pub(crate) fn spec(&self) -> WorkloadSpec {
        WorkloadSpec {
            name: self.name.clone(),
            netns: Arc::clone(&self.netns),
            cgroup: self.cgroup.clone(),
            addresses: [POD4, POD6].map(|a| a.parse::<IpAddr>().unwrap()).to_vec(),
            fail_open: false,
            exclusions: Exclusions::default(),
            attested: false,
        }
    }

    /// What `ip` says inside the namespace.
    pub(crate) fn ip(&self, args: &[&str]) -> String {
        ip(&[&["-n", &self.name], args].concat())
    }

    /// How many connections `ss` sees to each address, those that are only remembered (`TIME_WAIT`) left out.
    pub(crate) fn ss(&self) -> BTreeMap<SocketAddr, u64> {
        let args = ["-N", &self.name, "-Htn", "state", "connected", "exclude", "time-wait"];
        let output = Command::new("ss").args(args).output().expect("iproute2");
        assert!(output.status.success(), "{output:?}");
        let mut by = BTreeMap::new();
        for line in String::from_utf8(output.stdout).unwrap().lines() {
            let peer: SocketAddr = line.split_whitespace().nth(4).unwrap().parse().unwrap();
            *by.entry((peer.ip().to_canonical(), peer.port()).into()).or_default() += 1;
        }
        by
    }

    /// Resets the connections to `peer`.
    pub(crate) fn cut_off(&self, peer: &str) {
        let output =
            Command::new("ss").args(["-N", &self.name, "-K", "dst", peer]).output().expect("iproute2");
        assert!(output.status.success(), "{output:?}");
    }

    /// The value of `net.ipv4.tcp_fwmark_accept` inside the namespace.
    pub(crate) fn fwmark_accept(&self) -> String {
        self.netns.run(|| fs::read_to_string("/proc/sys/net/ipv4/tcp_fwmark_accept")).unwrap().unwrap()
    }
}

impl Drop for Pod {
    fn drop(&mut self) {
        drop(Command::new("ip").args(["netns", "del", &self.name]).output());
        // The processes inside were killed and are being reaped.
        for _ in 0..100 {
            if fs::remove_dir(&self.cgroup).is_ok() {
                break;
            }
            std::thread::sleep(std::time::Duration::from_millis(10));
        }
    }
}

/// What the kernel counts as open, by endpoint.
pub(crate) fn open_connections(datapath: &Datapath, pod: &Pod) -> BTreeMap<SocketAddr, u64> {
    let mut open = BTreeMap::new();
    for way in datapath.traffic(&pod.name).unwrap() {
        *open.entry(way.endpoint).or_default() += way.opened - way.closed;
    }
    open
}

/// A pod with its addresses that can reach nobody.
pub(crate) fn lonely_pod() -> Pod {
    let pod = Pod::new("odl");
    pod.ip(&["addr", "add", POD4, "dev", "lo"]);
    pod.ip(&["addr", "add", POD6, "dev", "lo", "nodad"]);
    pod
}

/// Whoever runs in it shares the network of another one, and not its cgroup.
pub(crate) fn beside(other: &Pod) -> Pod {
    let name = unique("odk");
    let cgroup = cgroup2_mount().unwrap().join(&name);
    fs::create_dir(&cgroup).unwrap();
    Pod { name, netns: Arc::clone(&other.netns), cgroup }
}

/// A pod and the world, joined.
pub(crate) fn pod_and_world() -> (Pod, Pod) {
    let (pod, world) = (Pod::new("odp"), Pod::new("odw"));
    ip(&[
        "link",
        "add",
        "eth0",
        "netns",
        &pod.name,
        "type",
        "veth",
        "peer",
        "name",
        "eth0",
        "netns",
        &world.name,
    ]);
    for (end, addresses) in [(&pod, &[POD4][..]), (&world, &WORLD4[..])] {
        for address in addresses {
            end.ip(&["addr", "add", &format!("{address}/24"), "dev", "eth0"]);
        }
    }
    for (end, address) in [(&pod, POD6), (&world, WORLD6)] {
        end.ip(&["addr", "add", &format!("{address}/64"), "dev", "eth0", "nodad"]);
        end.ip(&["link", "set", "eth0", "up"]);
    }
    // Service addresses are behind the default route, as in a cluster.
    pod.ip(&["route", "add", "default", "via", WORLD4[0]]);
    pod.ip(&["-6", "route", "add", "default", "via", WORLD6]);
    (pod, world)
}

fn ip(args: &[&str]) -> String {
    let output = Command::new("ip").args(args).output().expect("iproute2");
    assert!(output.status.success(), "ip {args:?}: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap()
}
