//! Where the virtual hosts of a route configuration are reached and where they lead, found once for each.

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

use crate::resource::route::{Domain, RouteConfiguration, VirtualHost};
use crate::snapshot::host_clusters;

/// Addresses and clusters of virtual hosts, by position.
#[derive(Debug)]
pub(crate) struct Reach {
    /// In order. An address without a port stands for every port.
    addresses: Box<[(IpAddr, Option<u16>, u32)]>,
    /// In order; each cluster once for each virtual host that names it.
    clusters: Box<[(Arc<str>, u32)]>,
    /// The one for hosts that no other has.
    any: Option<u32>,
}

impl RouteConfiguration {
    pub(crate) fn reach(&self) -> &Reach {
        self.index.reach.get_or_init(|| Reach::new(self))
    }

    pub(crate) fn host(&self, position: u32) -> Option<&VirtualHost> {
        self.virtual_hosts.get(usize::try_from(position).ok()?).map(AsRef::as_ref)
    }

    /// The virtual host that has the address among its domains.
    pub(crate) fn host_at(&self, ip: IpAddr, port: u16) -> Option<&VirtualHost> {
        self.host(self.reach().at(ip, port)?)
    }

    /// The virtual host for hosts that no other has.
    pub(crate) fn any_host(&self) -> Option<&VirtualHost> {
        self.host(self.reach().any?)
    }
}

impl Reach {
    fn new(routes: &RouteConfiguration) -> Self {
        let hosts = || (0_u32..).zip(&routes.virtual_hosts);
        let mut addresses: Vec<_> = hosts()
            .flat_map(|(position, host)| {
                let addresses = host.domains.iter().filter_map(address_of);
                addresses.map(move |(ip, port)| (ip, port, position))
            })
            .collect();
        addresses.sort_unstable();
        let mut clusters: Vec<_> = hosts()
            .flat_map(|(position, host)| host_clusters(host).map(move |name| (Arc::clone(name), position)))
            .collect();
        clusters.sort_unstable();
        clusters.dedup();
        let any = hosts().find(|(_, host)| host.domains.contains(&Domain::Any));
        Self {
            addresses: addresses.into(),
            clusters: clusters.into(),
            any: any.map(|(position, _)| position),
        }
    }

    fn at(&self, ip: IpAddr, port: u16) -> Option<u32> {
        let first = |port| {
            let behind = self.addresses.partition_point(|(other, at, _)| (*other, *at) < (ip, port));
            let (other, at, position) = self.addresses.get(behind)?;
            ((*other, *at) == (ip, port)).then_some(*position)
        };
        [first(None), first(Some(port))].into_iter().flatten().min()
    }

    /// The addresses that virtual hosts have at a port.
    pub(crate) fn addresses(&self, port: u16) -> impl Iterator<Item = IpAddr> {
        let here = self.addresses.iter().filter(move |(_, at, _)| at.is_none_or(|at| at == port));
        here.map(|(ip, _, _)| *ip)
    }

    /// The clusters that are named, each once.
    pub(crate) fn clusters(&self) -> impl Iterator<Item = &Arc<str>> {
        self.clusters.chunk_by(|a, b| a.0 == b.0).filter_map(|group| group.first()).map(|(name, _)| name)
    }

    /// The positions of virtual hosts that name a cluster.
    pub(crate) fn naming(&self, cluster: &str) -> impl Iterator<Item = u32> {
        let start = self.clusters.partition_point(|(name, _)| **name < *cluster);
        let from = self.clusters.get(start..).unwrap_or_default();
        from.iter().take_while(move |(name, _)| **name == *cluster).map(|(_, position)| *position)
    }
}

/// The addresses that a virtual host has at a port.
pub(crate) fn addresses_of(host: &VirtualHost, port: u16) -> impl Iterator<Item = IpAddr> {
    let addresses = host.domains.iter().filter_map(address_of);
    addresses.filter(move |(_, at)| at.is_none_or(|at| at == port)).map(|(ip, _)| ip)
}

/// istiod lists a service's addresses among the domains of its virtual host, with or without the port.
pub(super) fn address_of(domain: &Domain) -> Option<(IpAddr, Option<u16>)> {
    let Domain::Exact(host) = domain else { return None };
    // Most names are told from addresses by their last character.
    if !host.ends_with(|last: char| last.is_ascii_hexdigit() || last == ']' || last == ':') {
        return None;
    }
    if let Ok(with_port) = host.parse::<SocketAddr>() {
        return Some((with_port.ip(), Some(with_port.port())));
    }
    Some((host.trim_start_matches('[').trim_end_matches(']').parse().ok()?, None))
}
