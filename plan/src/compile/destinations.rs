//! Which destinations a change touches, and what the kernel does for them now.

use std::collections::BTreeSet;
use std::sync::Arc;

use orlop_shared_map::SharedMap;

use super::Plans;
use super::claims::{Claim, claims};
use super::pools::Pools;
use super::refusals::frontends;
use super::warming::{Replaced, Touched, User};
use crate::classify::{Destination, addresses_of, asks, own_ports, route_configurations};
use crate::index::{self, Naming, members};
use crate::kernel::Frontend;
use crate::neighbours::Neighbours;
use crate::proxy::ClusterPlan;
use crate::resource::listener::{Listener, TrafficDirection};
use crate::resource::route::{Domain, RouteConfiguration};
use crate::snapshot::{Changes, Snapshot, rds_names};

/// Destinations that have to be looked at again.
#[derive(Default)]
struct Dirty {
    frontends: BTreeSet<Frontend>,
    outbound_elsewhere: bool,
    inbound: bool,
}

impl Dirty {
    /// The destinations that a listener takes for itself, whatever its routes.
    fn own(&mut self, listener: &Listener) {
        match (listener.takes_original_dst(), listener.direction) {
            (true, TrafficDirection::Inbound) => self.inbound = true,
            (true, _) => {
                self.outbound_elsewhere = true;
                self.frontends.extend(own_ports(listener).map(|port| Frontend { addr: None, port }));
            }
            (false, _) => self.frontends.extend(claims(listener).map(frontend)),
        }
    }

    /// The addresses that virtual hosts have in a shared listener.
    fn shared(&mut self, listener: &Listener, routes: &RouteConfiguration) {
        for port in shared_ports(listener) {
            let addresses = routes.reach().addresses(port);
            self.frontends.extend(addresses.map(|ip| Frontend { addr: Some(ip), port }));
        }
    }
}

fn frontend((addr, port): Claim) -> Frontend {
    Frontend { addr, port }
}

/// The ports that a listener takes for any address.
fn shared_ports(listener: &Listener) -> impl Iterator<Item = u16> {
    claims(listener).filter_map(|(ip, port)| ip.is_none().then_some(port))
}

impl Plans {
    /// Looks at what a change touched. Returns at how many destinations.
    pub(super) fn reclassify(
        &mut self,
        pools: &mut Pools,
        snapshot: &Snapshot,
        changes: &Changes,
        touched: &Touched,
    ) -> usize {
        let mut dirty = Dirty::default();
        for name in &changes.listeners {
            let is_served = self.serving.listeners.contains_key(name);
            for listener in self.refused.update(snapshot, name, is_served).into_iter().flatten() {
                dirty.frontends.extend(frontends(&listener));
                dirty.outbound_elsewhere |= listener.takes_original_dst;
                dirty.inbound |= listener.takes_original_dst;
            }
        }
        self.asked(pools, touched, &mut dirty);
        for Replaced { old, new } in &touched.listeners {
            for listener in old.iter().chain(new) {
                self.all_of(listener, touched, &mut dirty);
            }
        }
        for (name, Replaced { old, new }) in &touched.routes {
            for listener in self.listeners_of(name) {
                dirty.own(listener);
                for routes in old.iter().chain(new) {
                    dirty.shared(listener, routes);
                }
            }
        }
        self.of_clusters(touched, &mut dirty);
        self.classify(pools, &dirty)
    }

    /// Looks at what it makes a difference to that other workloads are on the node, or that something else is in force for
    /// them.
    pub(super) fn reclassify_among(
        &mut self,
        pools: &mut Pools,
        before: &Neighbours,
        now: &Neighbours,
    ) -> usize {
        let changed = before.changed(now);
        if changed.is_empty() {
            return 0;
        }
        let is_touched = |plan: &ClusterPlan| {
            let localities = || plan.load_assignment.iter().flat_map(|assignment| &assignment.localities);
            let endpoints = || localities().flat_map(|locality| &locality.endpoints);
            let are_all =
                |of: &Neighbours| endpoints().all(|endpoint| of.get(endpoint.address.ip()).is_some());
            (are_all(before) || are_all(now))
                && endpoints().any(|endpoint| changed.contains(&endpoint.address.ip().to_canonical()))
        };
        let clusters = self.serving.proxy.clusters.iter().filter(|(_, plan)| is_touched(plan));
        let clusters = clusters.map(|(name, _)| Arc::clone(name)).collect();
        let touched = Touched { clusters, ..Touched::default() };
        let mut dirty = Dirty { inbound: before.are_others(now), ..Dirty::default() };
        self.asked(pools, &touched, &mut dirty);
        self.of_clusters(&touched, &mut dirty);
        self.classify(pools, &dirty)
    }

    /// What any address at a port leads to, where virtual hosts need the proxy now and did not, or the other way round.
    fn asked(&mut self, pools: &mut Pools, touched: &Touched, dirty: &mut Dirty) {
        for route in self.ask(pools, touched) {
            for listener in self.listeners_of(&route) {
                let ports = shared_ports(listener);
                dirty.frontends.extend(ports.map(|port| Frontend { addr: None, port }));
            }
        }
    }

    /// Whatever leads to a touched cluster.
    fn of_clusters(&self, touched: &Touched, dirty: &mut Dirty) {
        for cluster in &touched.clusters {
            for user in members(&self.serving.users, cluster) {
                match user {
                    User::Listener(name) => {
                        if let Some(listener) = self.serving.listeners.get(name) {
                            self.all_of(listener, touched, dirty);
                        }
                    }
                    User::Routes(name) => self.of_cluster(cluster, name, dirty),
                }
            }
        }
    }

    /// Looks at everything.
    pub(super) fn reclassify_all(&mut self, pools: &mut Pools) -> usize {
        let everything = Touched {
            routes: self
                .serving
                .proxy
                .routes
                .iter()
                .map(|(name, routes)| {
                    (Arc::clone(name), Replaced { old: None, new: Some(Arc::clone(routes)) })
                })
                .collect(),
            ..Touched::default()
        };
        self.ask(pools, &everything);
        let all = self.served().destinations().into_iter().filter_map(|destination| match destination {
            Destination::Outbound(frontend) => Some(frontend),
            _ => None,
        });
        let dirty = Dirty { frontends: all.collect(), outbound_elsewhere: true, inbound: true };
        self.classify(pools, &dirty)
    }

    fn listeners_of(&self, routes: &str) -> impl Iterator<Item = &Arc<Listener>> {
        let names = members(&self.serving.listeners_of, routes);
        names.filter_map(|name| self.serving.listeners.get(name))
    }

    /// Everything that a listener takes, with the routes that it has or had.
    fn all_of(&self, listener: &Listener, touched: &Touched, dirty: &mut Dirty) {
        dirty.own(listener);
        for routes in route_configurations(self.served(), listener) {
            dirty.shared(listener, routes);
        }
        for replaced in rds_names(listener).filter_map(|name| touched.routes.get(name)) {
            if let Some(routes) = &replaced.old {
                dirty.shared(listener, routes);
            }
        }
    }

    /// What a cluster is to the listeners that take a route configuration which names it.
    fn of_cluster(&self, cluster: &str, name: &str, dirty: &mut Dirty) {
        let Some(routes) = self.serving.proxy.routes.get(name) else { return };
        for listener in self.listeners_of(name) {
            let mut shared = shared_ports(listener).peekable();
            if shared.peek().is_none() {
                dirty.own(listener);
                continue;
            }
            dirty.frontends.extend(claims(listener).filter(|(ip, _)| ip.is_some()).map(frontend));
            let hosts = || routes.reach().naming(cluster).filter_map(|position| routes.host(position));
            for port in shared {
                for host in hosts() {
                    let addresses = addresses_of(host, port);
                    dirty.frontends.extend(addresses.map(|ip| Frontend { addr: Some(ip), port }));
                    if host.domains.contains(&Domain::Any) {
                        dirty.frontends.insert(Frontend { addr: None, port });
                    }
                }
            }
        }
    }

    /// Brings up to date which virtual hosts need the proxy. Returns the route configurations where there are some now and
    /// were none before, or the other way round.
    fn ask(&mut self, pools: &mut Pools, touched: &Touched) -> BTreeSet<Arc<str>> {
        let mut namings = Vec::new();
        let mut looked_at = BTreeSet::new();
        let served = self.served();
        for (name, Replaced { new, .. }) in &touched.routes {
            let before = members(&self.asking, name).map(|position| Naming::new(name, *position, false));
            namings.extend(before);
            let hosts = new.iter().flat_map(|routes| {
                (0_u32..).zip(&routes.virtual_hosts).filter(|(_, host)| asks(served, routes, host))
            });
            namings.extend(hosts.map(|(position, _)| Naming::new(name, position, true)));
            looked_at.insert(Arc::clone(name));
        }
        for cluster in &touched.clusters {
            for user in members(&self.serving.users, cluster) {
                let User::Routes(name) = user else { continue };
                let Some(routes) = self.serving.proxy.routes.get(name) else { continue };
                for position in routes.reach().naming(cluster) {
                    let names = routes.host(position).is_some_and(|host| asks(served, routes, host));
                    let before =
                        self.asking.get(name).is_some_and(|positions| positions.contains_key(&position));
                    if names != before {
                        namings.push(Naming::new(name, position, names));
                        looked_at.insert(Arc::clone(name));
                    }
                }
            }
        }
        let before = self.asking.clone();
        index::edit(&mut self.asking, &mut pools.asking, namings);
        looked_at.retain(|name| before.contains_key(name) != self.asking.contains_key(name));
        looked_at
    }

    fn classify(&mut self, pools: &mut Pools, dirty: &Dirty) -> usize {
        let served = self.served();
        let mut edits = Vec::new();
        for frontend in &dirty.frontends {
            let action = served.outbound(*frontend);
            if self.kernel.frontends.get(frontend) != action.as_ref() {
                edits.push((*frontend, action));
            }
        }
        let mut looked_at = dirty.frontends.len();
        let outbound_elsewhere = dirty.outbound_elsewhere.then(|| served.outbound_elsewhere());
        let inbound = dirty.inbound.then(|| {
            let ports = served.inbound_ports().into_iter();
            let inbound: Vec<_> = ports.map(|port| (port, Some(served.inbound(port)))).collect();
            (inbound, served.inbound_elsewhere())
        });
        self.kernel.frontends.edit(&mut pools.frontends, edits);
        if let Some(action) = outbound_elsewhere {
            looked_at += 1;
            self.kernel.default_outbound = action;
        }
        if let Some((inbound, elsewhere)) = inbound {
            looked_at += inbound.len() + 1;
            self.kernel.inbound = SharedMap::new();
            self.kernel.inbound.edit(&mut pools.inbound, inbound);
            self.kernel.default_inbound = elsewhere;
        }
        looked_at
    }
}
