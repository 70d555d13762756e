//! Namespaces and links, by iproute2: one bridge in a namespace of its own, one veth pair a pod. The machine's own
//! namespace stays untouched.

use std::net::Ipv4Addr;
use std::process::Command;

use anyhow::{Context, Result, bail};

use crate::bed::BedName;

const SWITCH: &str = "switch";

pub(crate) fn add_switch(bed: &BedName) -> Result<()> {
    let switch = bed.netns(SWITCH);
    ip(&format!("netns add {switch}"))?;
    ip(&format!("-n {switch} link add br0 type bridge"))?;
    ip(&format!("-n {switch} link set br0 up"))
}

/// Makes the pod's namespace with its `eth0`. The default route has no gateway: a service's address must be routable
/// for `connect` to succeed, and whoever intercepts the connection changes where it goes.
pub(crate) fn add_pod(bed: &BedName, pod: &str, index: u8, address: Ipv4Addr) -> Result<()> {
    let (netns, switch) = (bed.netns(pod), bed.netns(SWITCH));
    ip(&format!("netns add {netns}"))?;
    ip(&format!("link add eth0 netns {netns} type veth peer name pod{index} netns {switch}"))?;
    ip(&format!("-n {switch} link set pod{index} master br0 up"))?;
    ip(&format!("-n {netns} link set lo up"))?;
    ip(&format!("-n {netns} addr add {address}/16 dev eth0"))?;
    ip(&format!("-n {netns} link set eth0 up"))?;
    ip(&format!("-n {netns} route add default dev eth0"))
}

pub(crate) fn delete_netns(name: &str) -> Result<()> {
    ip(&format!("netns del {name}"))
}

fn ip(arguments: &str) -> Result<()> {
    let output =
        Command::new("ip").args(arguments.split(' ')).output().context("cannot run `ip` (iproute2)")?;
    if !output.status.success() {
        bail!("ip {arguments}: {}", String::from_utf8_lossy(&output.stderr).trim());
    }
    Ok(())
}
