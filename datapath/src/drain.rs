//! Endpoints that a frontend has lost, and the end of the connections that it still has to them.
//!
//! Nobody is sent to such an endpoint from the moment its frontend changes. What is open may end by itself for the drain
//! time; if the endpoint is back by then nothing happens, else what is left is closed. Only connections that the kernel
//! balanced are meant, and each by the frontend that it was made through: what the application opened by itself to the same
//! address, what went by the proxy, or what another service led there is none of it.

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::net::SocketAddr;
use std::time::{Duration, Instant};

use orlop_abi::Connection;
use orlop_plan::kernel::{Frontend, KernelPlan, OutboundAction};
use orlop_podnet::NetNs;

use crate::connections::{WayTraffic, frontend_of};
use crate::error::Error;
use crate::maps::Maps;
use crate::sock_diag::{Connected, SockDiag};

/// What one workload's frontends have lost, and until when it may still be talked to.
#[derive(Debug, Default)]
pub(crate) struct Draining {
    until: BTreeMap<(Frontend, SocketAddr), Instant>,
    closed: u64,
}

impl Draining {
    /// A frontend's action changed. `None` is no frontend.
    pub(crate) fn changed(
        &mut self,
        frontend: Frontend,
        before: Option<&OutboundAction>,
        after: Option<&OutboundAction>,
        until: Instant,
    ) {
        let kept: BTreeSet<SocketAddr> = match after {
            Some(OutboundAction::Balance(set)) => set.addresses().collect(),
            Some(OutboundAction::Block) | None => BTreeSet::new(),
            // Another way to endpoints that may be the same: what is open goes on as it was made.
            Some(OutboundAction::Proxy | OutboundAction::Passthrough) => return self.forget(frontend),
        };
        let all = (frontend, SocketAddr::from(([0; 4], 0)))..=(frontend, LAST);
        let back: Vec<_> =
            self.until.range(all).map(|(key, _)| *key).filter(|(_, at)| kept.contains(at)).collect();
        for key in back {
            self.until.remove(&key);
        }
        if let Some(OutboundAction::Balance(set)) = before {
            for address in set.addresses().filter(|address| !kept.contains(address)) {
                self.until.entry((frontend, address)).or_insert(until);
            }
        }
    }

    /// Connections of an earlier agent's time, of which `plan` knows no endpoint, drain from now on.
    pub(crate) fn adopt(
        &mut self,
        workload: u32,
        netns: &NetNs,
        maps: &Maps,
        plan: &KernelPlan,
        until: Instant,
    ) -> Result<(), Error> {
        for socket in in_namespace(netns, SockDiag::connected)? {
            let Some(frontend) = made_through(maps, workload, &socket)? else { continue };
            let address = socket.peer;
            let lost = match plan.frontends.get(&frontend) {
                Some(OutboundAction::Balance(set)) => set.addresses().all(|kept| kept != address),
                Some(OutboundAction::Block) | None => true,
                Some(OutboundAction::Proxy | OutboundAction::Passthrough) => false,
            };
            if lost {
                self.until.entry((frontend, address)).or_insert(until);
            }
        }
        Ok(())
    }

    fn forget(&mut self, frontend: Frontend) {
        self.until.retain(|(other, _), _| *other != frontend);
    }

    /// How many connections were closed so far.
    pub(crate) fn closed(&self) -> u64 {
        self.closed
    }

    /// Closes what has had its time. Returns how many connections that were, and what is forgotten with them.
    pub(crate) fn close_due(
        &mut self,
        workload: u32,
        netns: &NetNs,
        maps: &mut Maps,
        now: Instant,
    ) -> Result<(usize, Vec<WayTraffic>), Error> {
        let due: BTreeSet<_> =
            self.until.iter().filter(|(_, until)| **until <= now).map(|(key, _)| *key).collect();
        if due.is_empty() {
            return Ok((0, Vec::new()));
        }
        self.until.retain(|key, _| !due.contains(key));
        let leads_there: BTreeSet<_> = due.iter().map(|(_, address)| *address).collect();
        let mut sockets = in_namespace(netns, SockDiag::connected)?;
        sockets.retain(|socket| leads_there.contains(&socket.peer));
        let mut ended = Vec::new();
        for socket in sockets {
            if let Some(frontend) = made_through(maps, workload, &socket)?
                && due.contains(&(frontend, socket.peer))
            {
                ended.push(socket);
            }
        }
        let mut closed = 0;
        let outcome = in_namespace(netns, |diag| {
            for socket in &ended {
                closed += usize::from(diag.destroy(socket)?);
            }
            Ok(())
        });
        self.closed += closed as u64;
        let mut forgotten = Vec::new();
        for (frontend, address) in due {
            forgotten.extend(maps.connections.forget_way(workload, frontend, address)?);
        }
        outcome.map(|()| (closed, forgotten))
    }
}

/// The workload's frontend that the connection was made through, if the kernel balanced it.
fn made_through(maps: &Maps, workload: u32, socket: &Connected) -> Result<Option<Frontend>, Error> {
    let connection = maps.connections.of(socket.key)?;
    let of_workload = |Connection { way, .. }: &Connection| way.frontend.workload == workload;
    Ok(connection.filter(of_workload).map(|connection| frontend_of(connection.way.frontend)))
}

pub(crate) fn in_namespace<T>(
    netns: &NetNs,
    work: impl FnOnce(&mut SockDiag) -> io::Result<T>,
) -> Result<T, Error> {
    let done = netns.run(|| SockDiag::open().and_then(|mut diag| work(&mut diag)))?;
    done.map_err(|source| Error::SockDiag { path: netns.path().to_owned(), source })
}

/// No address is behind it.
const LAST: SocketAddr =
    SocketAddr::new(std::net::IpAddr::V6(std::net::Ipv6Addr::from_bits(u128::MAX)), u16::MAX);

/// How long a connection to a removed endpoint may go on: what Istio gives a sidecar as Envoy's `--drain-time-s`.
pub const DEFAULT_DRAIN_TIME: Duration = Duration::from_secs(45);

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::Arc;

    use orlop_plan::kernel::{Backend, BackendSet};

    const VIP: Frontend = Frontend { addr: None, port: 80 };

    fn set(ports: &[u16]) -> OutboundAction {
        let backend = |port: &u16| Backend { address: ([10, 0, 0, 1], *port).into(), weight: 1 };
        OutboundAction::Balance(Arc::new(BackendSet::weighted(ports.iter().map(backend).collect())))
    }

    fn ports(draining: &Draining) -> Vec<u16> {
        draining.until.keys().map(|(_, address)| address.port()).collect()
    }

    #[test]
    fn what_a_frontend_loses_drains_and_what_comes_back_in_time_does_not() {
        let (mut draining, now) = (Draining::default(), Instant::now());
        draining.changed(VIP, Some(&set(&[1, 2, 3])), Some(&set(&[1])), now);
        assert_eq!(ports(&draining), [2, 3]);
        draining.changed(VIP, Some(&set(&[1])), Some(&set(&[1, 3])), now);
        assert_eq!(ports(&draining), [2]);
    }

    #[test]
    fn a_second_change_does_not_put_the_end_off() {
        let (mut draining, now) = (Draining::default(), Instant::now());
        let later = now + Duration::from_secs(1);
        draining.changed(VIP, Some(&set(&[1, 2])), None, now);
        draining.changed(VIP, None, Some(&set(&[1])), later);
        draining.changed(VIP, Some(&set(&[1])), None, later);
        assert_eq!(draining.until.values().copied().collect::<Vec<_>>(), [later, now]);
    }

    #[test]
    fn a_way_by_the_proxy_ends_nothing() {
        let (mut draining, now) = (Draining::default(), Instant::now());
        draining.changed(VIP, Some(&set(&[1])), Some(&OutboundAction::Proxy), now);
        assert_eq!(ports(&draining), [0; 0]);
    }

    #[test]
    fn an_endpoint_that_rests_keeps_its_connections() {
        let (mut draining, now) = (Draining::default(), Instant::now());
        let OutboundAction::Balance(one) = set(&[1]) else { unreachable!() };
        let resting = vec![([10, 0, 0, 1], 2).into()];
        let resting = OutboundAction::Balance(Arc::new(BackendSet { resting, ..(*one).clone() }));
        draining.changed(VIP, Some(&set(&[1, 2])), Some(&resting), now);
        assert_eq!(ports(&draining), [0; 0]);
    }
}
