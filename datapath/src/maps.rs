//! The maps of one generation: their capacities, and how the agent reads and writes them.

use std::fmt;
use std::net::IpAddr;
use std::os::fd::{AsFd, AsRawFd};

use aya::Ebpf;
use aya::maps::lpm_trie::{Key, LpmTrie};
use aya::maps::{Array, HashMap, Map, MapData, MapError, PerCpuArray, RingBuf, SockMap};
use orlop_abi::{
    Address, Backend, Counters, FrontendKey, FrontendValue, InboundKey, InboundValue, LISTENERS_PER_WORKLOAD,
    MAX_WORKLOADS, PortKey, RangeKey, SourceKey, Workload, listener_slot,
};
use serde::Serialize;

use crate::connections::Connections;
use crate::counters::WorkloadCounters;
use crate::error::Error;
use crate::flows::Flows;
use crate::listener::ListenerRole;
use crate::raw::Raw;
use crate::slices::Slice;

/// How many entries the maps can hold at first. Those of frontends, backends, inbound ports and sources grow when a plan
/// needs it, see `growth`.
///
/// `workloads` and `backends` cost their memory at once (32 bytes a backend slot), `frontends` and `inbound` 16 bytes
/// at once and about 100 when used.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Capacities {
    /// Workloads enrolled at the same time; at most 65,536.
    pub workloads: u32,
    /// Frontends of all workloads together.
    pub frontends: u32,
    /// Backends of all different backend sets together, with those that were replaced within the last second.
    pub backends: u32,
    /// Inbound ports of all workloads together.
    pub inbound: u32,
    /// Ways from a frontend to an endpoint that were taken, and as many limited clusters, of all workloads together.
    pub ways: u32,
    /// Connections that the kernel balanced and that are open, of all workloads together.
    pub connections: u32,
    /// Connections that are open to workloads of the node, made by what probes them or by one another.
    pub attested: u32,
    /// Ports, and as many address ranges, that the annotations of all workloads together speak of; probed ones as well.
    pub exclusions: u32,
    /// Address ranges that policies speak of, each policy once however many workloads have it.
    pub sources: u32,
    /// No map grows beyond this.
    pub largest: u32,
}

impl Default for Capacities {
    /// 512 workloads, 131,072 ways, as many connections and as many within the node; what grows begins with 65,536 frontends, as many backends,
    /// 4,096 inbound ports and 16,384 sources: 9 MiB when empty. At most 4,194,304 of each.
    fn default() -> Self {
        Self {
            workloads: 512,
            frontends: 65_536,
            backends: 65_536,
            inbound: 4_096,
            ways: 131_072,
            connections: 131_072,
            attested: 131_072,
            exclusions: 16_384,
            sources: 16_384,
            largest: 4_194_304,
        }
    }
}

/// A map, named as in the kernel.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "SCREAMING_SNAKE_CASE")]
pub enum MapName {
    /// (workload, address, port) to an action.
    Frontends,
    /// Slots of backend sets.
    Backends,
    /// (workload, port) to an action.
    Inbound,
    /// What holds without an entry.
    Workloads,
    /// What went from a frontend to an endpoint.
    Traffic,
    /// Open connections by limited cluster.
    Limited,
    /// How each open connection was balanced.
    Connections,
    /// Open connections whose maker the kernel has seen.
    Attested,
    /// Addresses of workloads whose connections to each other are attested.
    Peers,
    /// The agent's sockets in pods.
    Listeners,
    /// (workload, port) to what annotations say of it.
    Ports,
    /// (workload, address range) to what annotations say of it.
    Ranges,
    /// (policy, address range) to an action.
    Sources,
    /// Counters of each workload.
    Counters,
    /// What is told of connections.
    Flows,
    /// Whether somebody wants to be told.
    Watched,
    /// Whose a cgroup is.
    Pods,
    /// Whose a network namespace is.
    Steered,
}

impl MapName {
    /// The maps of a generation, and those that outlive it.
    pub(crate) const ALL: [Self; 16] = [
        Self::Frontends,
        Self::Backends,
        Self::Inbound,
        Self::Workloads,
        Self::Traffic,
        Self::Limited,
        Self::Connections,
        Self::Attested,
        Self::Peers,
        Self::Listeners,
        Self::Ports,
        Self::Ranges,
        Self::Sources,
        Self::Counters,
        Self::Flows,
        Self::Watched,
    ];

    /// The name in the object, which is also that of the pin.
    pub(crate) const fn name(self) -> &'static str {
        match self {
            Self::Frontends => "FRONTENDS",
            Self::Backends => "BACKENDS",
            Self::Inbound => "INBOUND",
            Self::Workloads => "WORKLOADS",
            Self::Traffic => "TRAFFIC",
            Self::Limited => "LIMITED",
            Self::Connections => "CONNECTIONS",
            Self::Attested => "ATTESTED",
            Self::Peers => "PEERS",
            Self::Listeners => "LISTENERS",
            Self::Ports => "PORTS",
            Self::Ranges => "RANGES",
            Self::Sources => "SOURCES",
            Self::Counters => "COUNTERS",
            Self::Flows => "FLOWS",
            Self::Watched => "WATCHED",
            Self::Pods => "PODS",
            Self::Steered => "STEERED",
        }
    }

    /// What is known of connections goes on when the agent does not.
    pub(crate) const fn outlives_the_agent(self) -> bool {
        matches!(self, Self::Traffic | Self::Limited | Self::Connections | Self::Attested)
    }
}

impl fmt::Display for MapName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// Room for what is told of some 5,000 connections, should the agent be busy meanwhile.
const FLOW_BYTES: u32 = 512 * 1024;

impl Capacities {
    /// The size that a map may be given instead of `capacity`: four times as much, or what `needed` entries take.
    pub(crate) fn larger(self, map: MapName, needed: u64, capacity: u32) -> Option<u32> {
        let grows =
            matches!(map, MapName::Frontends | MapName::Backends | MapName::Inbound | MapName::Sources);
        let wanted =
            u32::try_from(needed).ok()?.max(capacity.saturating_mul(4)).checked_next_power_of_two()?;
        let larger = wanted.min(self.largest);
        (grows && larger > capacity && u64::from(larger) >= needed).then_some(larger)
    }

    /// The same with another size for a map that grows.
    pub(crate) fn with(mut self, map: MapName, capacity: u32) -> Self {
        match map {
            MapName::Frontends => self.frontends = capacity,
            MapName::Backends => self.backends = capacity,
            MapName::Inbound => self.inbound = capacity,
            MapName::Sources => self.sources = capacity,
            _ => {}
        }
        self
    }

    pub(crate) fn of(&self, map: MapName) -> u32 {
        let workloads = self.workloads.clamp(1, MAX_WORKLOADS);
        match map {
            MapName::Frontends => self.frontends.max(1),
            MapName::Backends => self.backends.max(1),
            MapName::Inbound => self.inbound.max(1),
            MapName::Ports | MapName::Ranges => self.exclusions.max(1),
            MapName::Sources => self.sources.max(1),
            MapName::Workloads | MapName::Counters => workloads,
            MapName::Traffic | MapName::Limited => self.ways.max(1),
            MapName::Connections => self.connections.max(1),
            MapName::Attested => self.attested.max(1),
            // One of either family each.
            MapName::Peers => workloads * 2,
            MapName::Listeners => workloads * LISTENERS_PER_WORKLOAD,
            MapName::Flows => FLOW_BYTES,
            // One value each, whatever the node's size.
            MapName::Pods | MapName::Steered | MapName::Watched => 1,
        }
    }
}

/// How full a map is, for `status`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub struct MapUsage {
    /// Which map.
    pub map: MapName,
    /// Entries that it can hold.
    pub capacity: u32,
    /// Entries that it holds.
    pub used: u32,
}

/// Handles on the maps.
pub(crate) struct Maps {
    frontends: HashMap<MapData, Raw<FrontendKey>, Raw<FrontendValue>>,
    backends: Array<MapData, Raw<Backend>>,
    inbound: HashMap<MapData, Raw<InboundKey>, Raw<InboundValue>>,
    workloads: Array<MapData, Raw<Workload>>,
    pub(crate) connections: Connections,
    listeners: SockMap<MapData>,
    ports: HashMap<MapData, Raw<PortKey>, u32>,
    ranges: LpmTrie<MapData, Raw<RangeKey>, u32>,
    sources: LpmTrie<MapData, Raw<SourceKey>, u32>,
    counters: PerCpuArray<MapData, Raw<Counters>>,
    peers: HashMap<MapData, Raw<Address>, u32>,
    /// Until somebody has asked for it.
    flows: Option<RingBuf<MapData>>,
    watched: Array<MapData, u32>,
}

impl Maps {
    /// Takes the maps out of a loaded object.
    pub(crate) fn take(ebpf: &mut Ebpf) -> Result<Self, Error> {
        Ok(Self {
            frontends: take(ebpf, MapName::Frontends)?,
            backends: take(ebpf, MapName::Backends)?,
            inbound: take(ebpf, MapName::Inbound)?,
            workloads: take(ebpf, MapName::Workloads)?,
            connections: Connections::take(ebpf)?,
            listeners: take(ebpf, MapName::Listeners)?,
            ports: take(ebpf, MapName::Ports)?,
            ranges: take(ebpf, MapName::Ranges)?,
            sources: take(ebpf, MapName::Sources)?,
            counters: take(ebpf, MapName::Counters)?,
            peers: take(ebpf, MapName::Peers)?,
            flows: Some(take(ebpf, MapName::Flows)?),
            watched: take(ebpf, MapName::Watched)?,
        })
    }

    /// Takes over what `old` holds in a map that has grown; `slots` is how many of an array's are in use. All other maps are
    /// the same ones.
    pub(crate) fn take_over(&mut self, old: &mut Self, map: MapName, slots: u32) -> Result<(), Error> {
        match map {
            MapName::Frontends => copy(&old.frontends, &mut self.frontends),
            MapName::Inbound => copy(&old.inbound, &mut self.inbound),
            MapName::Backends => (0..slots).try_for_each(|slot| {
                old.backends.get(&slot, 0).and_then(|value| self.backends.set(slot, value, 0))
            }),
            MapName::Sources => old.sources.iter().try_for_each(|entry| {
                let (key, value) = entry?;
                self.sources.insert(&key, value, 0)
            }),
            _ => Ok(()),
        }
        .map_err(in_map(map))?;
        self.flows = old.flows.take();
        Ok(())
    }

    pub(crate) fn set_frontend(&mut self, key: FrontendKey, value: FrontendValue) -> Result<(), Error> {
        self.frontends.insert(Raw(key), Raw(value), 0).map_err(in_map(MapName::Frontends))
    }

    pub(crate) fn remove_frontend(&mut self, key: FrontendKey) -> Result<(), Error> {
        self.frontends.remove(&Raw(key)).map_err(in_map(MapName::Frontends))
    }

    pub(crate) fn write_slice(&mut self, slice: Slice, slots: &[Backend]) -> Result<(), Error> {
        for (index, slot) in (slice.base..).zip(slots) {
            self.backends.set(index, Raw(*slot), 0).map_err(in_map(MapName::Backends))?;
        }
        Ok(())
    }

    pub(crate) fn set_inbound(&mut self, key: InboundKey, action: u8, policy: u16) -> Result<(), Error> {
        let value = InboundValue { tag: key.tag(), action, padding: 0, policy };
        self.inbound.insert(Raw(key), Raw(value), 0).map_err(in_map(MapName::Inbound))
    }

    pub(crate) fn remove_inbound(&mut self, key: InboundKey) -> Result<(), Error> {
        self.inbound.remove(&Raw(key)).map_err(in_map(MapName::Inbound))
    }

    pub(crate) fn set_workload(&mut self, workload: u32, value: Workload) -> Result<(), Error> {
        self.workloads.set(workload, Raw(value), 0).map_err(in_map(MapName::Workloads))
    }

    pub(crate) fn set_listener(
        &mut self,
        workload: u32,
        role: ListenerRole,
        address: IpAddr,
        listener: &impl AsFd,
    ) -> Result<(), Error> {
        let slot = listener_slot(workload, role.code(), address.is_ipv6());
        self.listeners.set(slot, &listener.as_fd().as_raw_fd(), 0).map_err(in_map(MapName::Listeners))
    }

    /// Empties the workload's slots, whether or not they hold something.
    pub(crate) fn clear_listeners(&mut self, workload: u32) {
        for slot in listener_slot(workload, 0, false)..listener_slot(workload + 1, 0, false) {
            // The only failure is that the slot is empty.
            drop(self.listeners.clear_index(&slot));
        }
    }

    pub(crate) fn set_port(&mut self, key: PortKey, said: u32) -> Result<(), Error> {
        self.ports.insert(Raw(key), said, 0).map_err(in_map(MapName::Ports))
    }

    pub(crate) fn remove_port(&mut self, key: PortKey) -> Result<(), Error> {
        self.ports.remove(&Raw(key)).map_err(in_map(MapName::Ports))
    }

    pub(crate) fn set_range(&mut self, bits: u32, key: RangeKey, said: u32) -> Result<(), Error> {
        self.ranges.insert(&Key::new(bits, Raw(key)), said, 0).map_err(in_map(MapName::Ranges))
    }

    pub(crate) fn remove_range(&mut self, bits: u32, key: RangeKey) -> Result<(), Error> {
        self.ranges.remove(&Key::new(bits, Raw(key))).map_err(in_map(MapName::Ranges))
    }

    pub(crate) fn set_source(&mut self, bits: u32, key: SourceKey, value: u32) -> Result<(), Error> {
        self.sources.insert(&Key::new(bits, Raw(key)), value, 0).map_err(in_map(MapName::Sources))
    }

    /// Whether it was there.
    pub(crate) fn remove_source(&mut self, bits: u32, key: SourceKey) -> Result<bool, Error> {
        match self.sources.remove(&Key::new(bits, Raw(key))) {
            Ok(()) => Ok(true),
            Err(MapError::KeyNotFound) => Ok(false),
            Err(error) => Err(in_map(MapName::Sources)(error)),
        }
    }

    /// From now on connections between this address and others of which this was said are attested.
    pub(crate) fn add_peer(&mut self, address: IpAddr, workload: u32) -> Result<(), Error> {
        self.peers.insert(Raw(address.into()), workload, 0).map_err(in_map(MapName::Peers))
    }

    /// Of how many addresses it was said.
    pub(crate) fn peers(&self) -> u32 {
        u32::try_from(self.peers.keys().flatten().count()).unwrap_or(u32::MAX)
    }

    /// New ones no more, unless the address is another workload's by now.
    pub(crate) fn remove_peer(&mut self, address: IpAddr, workload: u32) -> Result<(), Error> {
        let key = Raw(address.into());
        match self.peers.get(&key, 0) {
            Ok(found) if found == workload => {
                self.peers.remove(&key).map_err(in_map(MapName::Peers))?;
                self.connections.forget_attested(key.0)
            }
            Ok(_) | Err(MapError::KeyNotFound) => Ok(()),
            Err(error) => Err(in_map(MapName::Peers)(error)),
        }
    }

    pub(crate) fn counters(&self, workload: u32) -> Result<WorkloadCounters, Error> {
        let mut sum = WorkloadCounters::default();
        for Raw(cpu) in self.counters.get(&workload, 0).map_err(in_map(MapName::Counters))?.iter() {
            sum.add(cpu);
        }
        Ok(sum)
    }

    pub(crate) fn flows(&mut self) -> Result<Flows, Error> {
        let taken = || MapError::InvalidName { name: MapName::Flows.name().to_owned() };
        let ring = self.flows.take().ok_or_else(|| in_map(MapName::Flows)(taken()))?;
        Flows::new(ring)
    }

    pub(crate) fn want_flows(&mut self, wanted: bool) -> Result<(), Error> {
        self.watched.set(0, u32::from(wanted), 0).map_err(in_map(MapName::Watched))
    }

    pub(crate) fn reset_counters(&mut self, workload: u32) -> Result<(), Error> {
        let cpus = aya::util::nr_cpus().map_err(|(_, source)| MapError::IoError(source));
        let zero = cpus.and_then(|cpus| Ok(vec![Raw(Counters::default()); cpus].try_into()?));
        zero.and_then(|zero| self.counters.set(workload, zero, 0)).map_err(in_map(MapName::Counters))
    }
}

pub(crate) fn take<M: TryFrom<Map, Error = MapError>>(ebpf: &mut Ebpf, map: MapName) -> Result<M, Error> {
    let missing = || MapError::InvalidName { name: map.name().to_owned() };
    ebpf.take_map(map.name()).ok_or_else(missing).and_then(M::try_from).map_err(in_map(map))
}

pub(crate) fn in_map(map: MapName) -> impl FnOnce(MapError) -> Error {
    move |source| Error::Map { map, source }
}

fn copy<K: aya::Pod, V: aya::Pod>(
    from: &HashMap<MapData, K, V>,
    to: &mut HashMap<MapData, K, V>,
) -> Result<(), MapError> {
    from.iter().try_for_each(|entry| {
        let (key, value) = entry?;
        to.insert(key, value, 0)
    })
}
