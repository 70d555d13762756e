//! Agents, started as an operator starts them, with a directory as their control plane.

use std::fs;
use std::net::SocketAddr;

use anyhow::{Context, Result};
use orlop_integration::{Agent, Bed, ControlPlane, Pod};

use super::xds;
use super::{L4_PORT, L7_PORT, VIP};
use crate::bench::placement::{Placement, Seat};

/// A running agent that carries one pod. It is a node of its own, so that several can run side by side.
pub(super) struct Node {
    // In this order: the bed, which gives the node its name, removes what the agent pinned.
    _agent: Agent,
    _bed: Bed,
}

impl Node {
    /// Starts an agent with one proxy worker that knows the benchmark's service and `crowd` others, and waits until each
    /// port takes the path that it is there for.
    pub(super) fn start(pod: &Pod, backend: SocketAddr, crowd: u32, placement: Placement) -> Result<Self> {
        let bed = Bed::new()?;
        let directory = bed.dir().join("xds");
        xds::write(&directory, backend, crowd)?;
        let mut agent = Agent::described(&bed, ControlPlane::Directory(directory), &[pod])?;
        agent.set_proxy_workers(1);
        agent.set_workloads(&[pod])?;
        agent.restart()?;
        agent.wait_for_path(pod, (VIP, L4_PORT).into(), "kernel")?;
        agent.wait_for_path(pod, (VIP, L7_PORT).into(), "l7")?;
        placement.seat(process_of(&bed)?, Seat::Between)?;
        Ok(Self { _agent: agent, _bed: bed })
    }
}

/// The agent's process: the only one of its node.
pub(in crate::bench) fn process_of(bed: &Bed) -> Result<u32> {
    let processes = fs::read_to_string(bed.node_cgroup()?.join("cgroup.procs"))?;
    processes.lines().next().and_then(|pid| pid.parse().ok()).context("the agent's cgroup is empty")
}
