//! What is known of the connections that the kernel balanced: the maps that outlive the agent.

use std::net::SocketAddr;

use aya::Ebpf;
use aya::maps::{HashMap, MapData, MapError};
use orlop_abi::{
    ANY, Address, Connection, FourTuple, FrontendKey, LimitedKey, Port, SocketKey, Traffic, Way, attested,
    connection,
};
use orlop_plan::kernel::Frontend;

use crate::error::Error;
use crate::maps::{MapName, in_map, take};
use crate::raw::Raw;

/// What went from a frontend of a workload to an endpoint, since the workload was enrolled.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct WayTraffic {
    /// The frontend that the application named.
    pub frontend: Frontend,
    /// Where the kernel led it.
    pub endpoint: SocketAddr,
    /// Connections that were begun.
    pub opened: u64,
    /// Those of them that are over. What follows is of these.
    pub closed: u64,
    /// Bytes of the application that the endpoint has acknowledged.
    pub sent: u64,
    /// Bytes that have come from the endpoint; one more for a connection that the application ended first and read to the end.
    pub received: u64,
    /// Segments that were sent again.
    pub retransmitted: u64,
}

/// Handles on the maps.
pub(crate) struct Connections {
    traffic: HashMap<MapData, Raw<Way>, Raw<Traffic>>,
    limited: HashMap<MapData, Raw<LimitedKey>, u64>,
    sockets: HashMap<MapData, SocketKey, Raw<Connection>>,
    attested: HashMap<MapData, Raw<FourTuple>, u32>,
}

impl Connections {
    pub(crate) fn take(ebpf: &mut Ebpf) -> Result<Self, Error> {
        Ok(Self {
            traffic: take(ebpf, MapName::Traffic)?,
            limited: take(ebpf, MapName::Limited)?,
            sockets: take(ebpf, MapName::Connections)?,
            attested: take(ebpf, MapName::Attested)?,
        })
    }

    /// How the socket was balanced, if it was.
    pub(crate) fn of(&self, socket: SocketKey) -> Result<Option<Connection>, Error> {
        match self.sockets.get(&socket, 0) {
            Ok(Raw(connection)) => Ok(Some(connection)),
            Err(MapError::KeyNotFound) => Ok(None),
            Err(error) => Err(in_map(MapName::Connections)(error)),
        }
    }

    /// Forgets connections whose connect failed before there was a SYN: chosen before `limit`, in nanoseconds of
    /// `CLOCK_MONOTONIC`, and not open yet. No event tells of their end.
    pub(crate) fn forget_unborn(&mut self, limit: u64) -> Result<(), Error> {
        self.forget_where(|found| found.state == connection::CHOSEN && found.since < limit)
    }

    fn forget_where(&mut self, which: impl Fn(&Connection) -> bool) -> Result<(), Error> {
        let found = self.sockets.iter().filter_map(Result::ok).filter(|(_, Raw(value))| which(value));
        let keys: Vec<_> = found.map(|(key, _)| key).collect();
        keys.iter().try_for_each(|key| gone(self.sockets.remove(key), MapName::Connections))
    }

    /// What went each way that the workload has taken.
    pub(crate) fn traffic(&self, workload: u32) -> Result<Vec<WayTraffic>, Error> {
        let mut found = Vec::new();
        for entry in &self.traffic {
            let (Raw(way), Raw(traffic)) = entry.map_err(in_map(MapName::Traffic))?;
            if way.frontend.workload == workload {
                found.push(way_traffic(way, traffic));
            }
        }
        Ok(found)
    }

    /// Forgets what went a way that nobody is led any more, unless some connection still goes it. Returns what it was.
    pub(crate) fn forget_way(
        &mut self,
        workload: u32,
        frontend: Frontend,
        endpoint: SocketAddr,
    ) -> Result<Option<WayTraffic>, Error> {
        let way = Raw(Way {
            frontend: FrontendKey {
                workload,
                address: frontend.addr.map_or(ANY, Address::from),
                port: Port::new(frontend.port),
                padding: 0,
            },
            address: endpoint.ip().into(),
            port: Port::new(endpoint.port()),
            padding: 0,
        });
        match self.traffic.get(&way, 0) {
            Ok(Raw(traffic)) if traffic.opened != traffic.closed => Ok(None),
            Ok(Raw(traffic)) => {
                gone(self.traffic.remove(&way), MapName::Traffic)?;
                Ok(Some(way_traffic(way.0, traffic)))
            }
            Err(MapError::KeyNotFound) => Ok(None),
            Err(error) => Err(in_map(MapName::Traffic)(error)),
        }
    }

    /// Forgets the connections of a workload that is no more.
    pub(crate) fn forget(&mut self, workload: u32) -> Result<(), Error> {
        self.forget_where(|found| found.way.frontend.workload == workload)?;
        let ways = self.traffic.keys().filter_map(Result::ok);
        let ways: Vec<_> = ways.filter(|Raw(way)| way.frontend.workload == workload).collect();
        ways.iter().try_for_each(|way| gone(self.traffic.remove(way), MapName::Traffic))?;
        let limited = self.limited.keys().filter_map(Result::ok);
        let limited: Vec<_> = limited.filter(|Raw(key)| key.workload == workload).collect();
        limited.iter().try_for_each(|key| gone(self.limited.remove(key), MapName::Limited))
    }

    /// Whether the kernel has seen a workload make this connection.
    pub(crate) fn is_attested(&self, ends: FourTuple) -> Result<bool, Error> {
        match self.attested.get(&Raw(ends), 0) {
            Ok(value) => Ok(value == ends.attested(attested::WORKLOAD)),
            Err(MapError::KeyNotFound) => Ok(false),
            Err(error) => Err(in_map(MapName::Attested)(error)),
        }
    }

    /// Forgets the connections of a workload with this address: nobody tells any more when they end.
    pub(crate) fn forget_attested(&mut self, client: Address) -> Result<(), Error> {
        let entries = self.attested.iter().filter_map(Result::ok);
        let of = |(Raw(ends), value): &(Raw<FourTuple>, u32)| {
            ends.client == client && *value == ends.attested(attested::WORKLOAD)
        };
        let keys: Vec<_> = entries.filter(of).map(|(ends, _)| ends).collect();
        keys.iter().try_for_each(|ends| gone(self.attested.remove(ends), MapName::Attested))
    }

    /// How many entries one of the maps has; zero for any other.
    pub(crate) fn entries(&self, map: MapName) -> u32 {
        let entries = match map {
            MapName::Connections => self.sockets.keys().flatten().count(),
            MapName::Traffic => self.traffic.keys().flatten().count(),
            MapName::Limited => self.limited.keys().flatten().count(),
            MapName::Attested => self.attested.keys().flatten().count(),
            _ => 0,
        };
        u32::try_from(entries).unwrap_or(u32::MAX)
    }
}

/// The frontend that a key stands for.
pub(crate) fn frontend_of(key: FrontendKey) -> Frontend {
    let addr = (key.address != ANY).then(|| key.address.into());
    Frontend { addr, port: key.port.host_order() }
}

fn way_traffic(way: Way, traffic: Traffic) -> WayTraffic {
    let Traffic { opened, closed, sent, received, retransmitted } = traffic;
    WayTraffic {
        frontend: frontend_of(way.frontend),
        endpoint: SocketAddr::new(way.address.into(), way.port.host_order()),
        opened,
        closed,
        sent,
        received,
        retransmitted,
    }
}

/// An entry may have gone by itself.
fn gone(removed: Result<(), MapError>, map: MapName) -> Result<(), Error> {
    match removed {
        Ok(()) | Err(MapError::KeyNotFound) => Ok(()),
        Err(error) => Err(in_map(map)(error)),
    }
}
