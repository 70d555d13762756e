//! Connections that a changed policy denies are closed, at once.
//!
//! Whatever is connected to a port of the workload from a source that may not connect any more: the application's own socket,
//! and where the proxy is between, both. What went straight in because the kernel has seen a workload of the node make it is
//! closed as well where that does no longer do.

use std::io;

use orlop_abi::{FourTuple, Port};
use orlop_plan::exclusion::Exclusions;
use orlop_plan::kernel::{InboundAction, KernelPlan, SourceAction};
use orlop_podnet::NetNs;
use orlop_shared_map::SharedMap;

use crate::connections::Connections;
use crate::drain::in_namespace;
use crate::error::Error;
use crate::sock_diag::Connected;
use crate::workload::PodAddresses;

/// What the open connections of one workload have been held against.
#[derive(Debug)]
pub(crate) struct Judged {
    addresses: PodAddresses,
    ports: SharedMap<u16, InboundAction>,
    elsewhere: InboundAction,
    closed: u64,
}

impl Judged {
    /// Against nothing: what an earlier agent has let in is looked at anew.
    pub(crate) fn new(addresses: PodAddresses) -> Self {
        Self { addresses, ports: SharedMap::new(), elsewhere: InboundAction::Direct, closed: 0 }
    }

    /// How many sockets were closed so far.
    pub(crate) fn closed(&self) -> u64 {
        self.closed
    }

    /// Closes what `plan` denies and was not denied before. Where that fails, the next time is a new attempt.
    pub(crate) fn follow(
        &mut self,
        plan: &KernelPlan,
        netns: &NetNs,
        exclusions: &Exclusions,
        connections: &Connections,
    ) -> Result<(), Error> {
        if self.is_stricter(plan) {
            self.close(plan, netns, exclusions, connections)?;
        }
        self.ports = plan.inbound.clone();
        self.elsewhere = plan.default_inbound.clone();
        Ok(())
    }

    /// Whether `plan` may deny something that was not denied.
    fn is_stricter(&self, plan: &KernelPlan) -> bool {
        let judges = |action: &InboundAction| matches!(action, InboundAction::BySource(_));
        let elsewhere = plan.default_inbound != self.elsewhere && judges(&plan.default_inbound);
        elsewhere
            || self
                .ports
                .diff(&plan.inbound)
                .iter()
                .any(|change| judges(change.after().unwrap_or(&plan.default_inbound)))
    }

    fn close(
        &mut self,
        plan: &KernelPlan,
        netns: &NetNs,
        exclusions: &Exclusions,
        connections: &Connections,
    ) -> Result<(), Error> {
        let denied = |socket: &Connected| {
            let port = socket.local.port();
            let before = self.ports.get(&port).unwrap_or(&self.elsewhere);
            let now = plan.inbound.get(&port).unwrap_or(&plan.default_inbound);
            let source = socket.peer.ip();
            if !connections.is_attested(ends(socket))? {
                return Ok(now.denies(source) && !before.denies(source));
            }
            let (before, now) = (before.attested(source), now.attested(source));
            Ok::<_, Error>(
                before == SourceAction::Direct && now != before || now.denies() && !before.denies(),
            )
        };
        let own = |address| self.addresses.iter().any(|own| own == address);
        let closed = in_namespace(netns, |diag| {
            let listening = diag.listening()?;
            let arrived = |Connected { local, peer, .. }: &Connected| {
                // The kernel draws no port that is listened at for a connection of the workload's own.
                let accepted = listening.contains(&local.port()) || plan.inbound.contains_key(&local.port());
                accepted && own(local.ip()) && !own(peer.ip()) && exclusions.inbound(local.port()).is_none()
            };
            let mut closed = 0;
            for socket in diag.connected()?.iter().filter(|socket| arrived(socket)) {
                if denied(socket).map_err(io::Error::other)? {
                    closed += u64::from(diag.destroy(socket)?);
                }
            }
            Ok(closed)
        })?;
        self.closed += closed;
        Ok(())
    }
}

/// Of a socket that was connected to.
fn ends(socket: &Connected) -> FourTuple {
    FourTuple {
        client: socket.peer.ip().into(),
        server: socket.local.ip().into(),
        client_port: Port::new(socket.peer.port()),
        server_port: Port::new(socket.local.port()),
    }
}
