//! The maps of one generation: their capacities, and how the agent reads and writes them.

use std::fmt;
use std::net::{IpAddr, SocketAddr};
use std::os::fd::{AsFd, AsRawFd};

use aya::Ebpf;
use aya::maps::lpm_trie::{Key, LpmTrie};
use aya::maps::{Array, HashMap, Map, MapData, MapError, PerCpuArray, SockMap};
use orlop_abi::{
    Backend, Connection, Counters, FrontendKey, FrontendValue, InboundKey, InboundValue,
    LISTENERS_PER_WORKLOAD, MAX_WORKLOADS, OpenKey, PortKey, RangeKey, SocketKey, SourceKey, Workload,
    connection, listener_slot,
};
use serde::Serialize;

use crate::counters::WorkloadCounters;
use crate::error::Error;
use crate::listener::ListenerRole;
use crate::raw::Raw;
use crate::slices::Slice;

/// How many entries the maps can hold, fixed for the life of the agent.
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
    /// Endpoints and limited clusters that connections are counted for, of all workloads together.
    pub open: u32,
    /// Connections that the kernel balanced and that are open, of all workloads together.
    pub connections: u32,
    /// Ports, and as many address ranges, that the annotations of all workloads together speak of.
    pub exclusions: u32,
    /// Address ranges that policies speak of, each policy once however many workloads have it.
    pub sources: u32,
}

impl Default for Capacities {
    /// 512 workloads, 524,288 frontends, 131,072 backends, 16,384 inbound ports, 131,072 endpoints
    /// with connections, 131,072 connections: 17 MiB when empty.
    fn default() -> Self {
        Self {
            workloads: 512,
            frontends: 524_288,
            backends: 131_072,
            inbound: 16_384,
            open: 131_072,
            connections: 131_072,
            exclusions: 16_384,
            sources: 65_536,
        }
    }
}

/// A map, named as in the kernel.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
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
    /// Open connections by workload and endpoint.
    Open,
    /// How each open connection was balanced.
    Connections,
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
    /// Whose a cgroup is.
    Pods,
    /// Whose a network namespace is.
    Steered,
}

impl MapName {
    /// The maps of a generation, and those that outlive it.
    pub(crate) const ALL: [Self; 11] = [
        Self::Frontends,
        Self::Backends,
        Self::Inbound,
        Self::Workloads,
        Self::Open,
        Self::Connections,
        Self::Listeners,
        Self::Ports,
        Self::Ranges,
        Self::Sources,
        Self::Counters,
    ];

    /// The name in the object, which is also that of the pin.
    pub(crate) const fn name(self) -> &'static str {
        match self {
            Self::Frontends => "FRONTENDS",
            Self::Backends => "BACKENDS",
            Self::Inbound => "INBOUND",
            Self::Workloads => "WORKLOADS",
            Self::Open => "OPEN",
            Self::Connections => "CONNECTIONS",
            Self::Listeners => "LISTENERS",
            Self::Ports => "PORTS",
            Self::Ranges => "RANGES",
            Self::Sources => "SOURCES",
            Self::Counters => "COUNTERS",
            Self::Pods => "PODS",
            Self::Steered => "STEERED",
        }
    }

    /// What is known of open connections goes on when the agent does not.
    pub(crate) const fn outlives_the_agent(self) -> bool {
        matches!(self, Self::Open | Self::Connections)
    }
}

impl fmt::Display for MapName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

impl Capacities {
    pub(crate) fn of(&self, map: MapName) -> u32 {
        let workloads = self.workloads.clamp(1, MAX_WORKLOADS);
        match map {
            MapName::Frontends => self.frontends.max(1),
            MapName::Backends => self.backends.max(1),
            MapName::Inbound => self.inbound.max(1),
            MapName::Ports | MapName::Ranges => self.exclusions.max(1),
            MapName::Sources => self.sources.max(1),
            MapName::Workloads | MapName::Counters => workloads,
            MapName::Open => self.open.max(1),
            MapName::Connections => self.connections.max(1),
            MapName::Listeners => workloads * LISTENERS_PER_WORKLOAD,
            // One value each, whatever the node's size.
            MapName::Pods | MapName::Steered => 1,
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
    open: HashMap<MapData, Raw<OpenKey>, u64>,
    connections: HashMap<MapData, SocketKey, Raw<Connection>>,
    listeners: SockMap<MapData>,
    ports: HashMap<MapData, Raw<PortKey>, u32>,
    ranges: LpmTrie<MapData, Raw<RangeKey>, u32>,
    sources: LpmTrie<MapData, Raw<SourceKey>, u32>,
    counters: PerCpuArray<MapData, Raw<Counters>>,
}

impl Maps {
    /// Takes the maps out of a loaded object.
    pub(crate) fn take(ebpf: &mut Ebpf) -> Result<Self, Error> {
        Ok(Self {
            frontends: take(ebpf, MapName::Frontends)?,
            backends: take(ebpf, MapName::Backends)?,
            inbound: take(ebpf, MapName::Inbound)?,
            workloads: take(ebpf, MapName::Workloads)?,
            open: take(ebpf, MapName::Open)?,
            connections: take(ebpf, MapName::Connections)?,
            listeners: take(ebpf, MapName::Listeners)?,
            ports: take(ebpf, MapName::Ports)?,
            ranges: take(ebpf, MapName::Ranges)?,
            sources: take(ebpf, MapName::Sources)?,
            counters: take(ebpf, MapName::Counters)?,
        })
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

    /// How the socket was balanced, if it was.
    pub(crate) fn connection(&self, socket: SocketKey) -> Result<Option<Connection>, Error> {
        match self.connections.get(&socket, 0) {
            Ok(Raw(connection)) => Ok(Some(connection)),
            Err(MapError::KeyNotFound) => Ok(None),
            Err(error) => Err(in_map(MapName::Connections)(error)),
        }
    }

    /// Forgets connections whose connect failed before there was a SYN: chosen before `limit`, in nanoseconds of
    /// `CLOCK_MONOTONIC`, and not open yet. No event tells of their end.
    pub(crate) fn forget_unborn(&mut self, limit: u64) -> Result<(), Error> {
        self.forget_connections(|found| found.state == connection::CHOSEN && found.since < limit)
    }

    fn forget_connections(&mut self, which: impl Fn(&Connection) -> bool) -> Result<(), Error> {
        let found = self.connections.iter().filter_map(Result::ok).filter(|(_, Raw(value))| which(value));
        let keys: Vec<_> = found.map(|(key, _)| key).collect();
        for key in keys {
            match self.connections.remove(&key) {
                Ok(()) | Err(MapError::KeyNotFound) => {}
                Err(error) => return Err(in_map(MapName::Connections)(error)),
            }
        }
        Ok(())
    }

    /// Connections that are known.
    pub(crate) fn connection_entries(&self) -> u32 {
        u32::try_from(self.connections.keys().flatten().count()).unwrap_or(u32::MAX)
    }

    /// Open connections of a workload, by endpoint.
    pub(crate) fn open(&self, workload: u32) -> Result<Vec<(SocketAddr, u64)>, Error> {
        let mut open = Vec::new();
        for entry in &self.open {
            let (Raw(key), count) = entry.map_err(in_map(MapName::Open))?;
            if key.workload == workload && key.port.0 != 0 {
                open.push((SocketAddr::new(key.address.into(), u16::from_be(key.port.0)), count));
            }
        }
        Ok(open)
    }

    /// Forgets the connections of a workload that is no more.
    pub(crate) fn forget_open(&mut self, workload: u32) -> Result<(), Error> {
        self.forget_connections(|found| found.frontend.workload == workload)?;
        let keys: Vec<_> =
            self.open.keys().filter_map(Result::ok).filter(|Raw(key)| key.workload == workload).collect();
        for key in keys {
            match self.open.remove(&key) {
                Ok(()) | Err(MapError::KeyNotFound) => {}
                Err(error) => return Err(in_map(MapName::Open)(error)),
            }
        }
        Ok(())
    }

    /// Endpoints and clusters that are counted for.
    pub(crate) fn open_entries(&self) -> u32 {
        u32::try_from(self.open.keys().flatten().count()).unwrap_or(u32::MAX)
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

    pub(crate) fn counters(&self, workload: u32) -> Result<WorkloadCounters, Error> {
        let mut sum = WorkloadCounters::default();
        for Raw(cpu) in self.counters.get(&workload, 0).map_err(in_map(MapName::Counters))?.iter() {
            sum.add(cpu);
        }
        Ok(sum)
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
