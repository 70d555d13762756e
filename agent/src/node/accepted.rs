//! What one workload has accepted, as it is kept on disk.

use std::io::Write;

use orlop_plan::resource::cluster::Cluster;
use orlop_plan::resource::endpoint::ClusterLoadAssignment;
use orlop_plan::resource::listener::Listener;
use orlop_plan::resource::route::RouteConfiguration;
use orlop_plan::snapshot::{ResourceType, Snapshot, Store};

use crate::last_good::Writer;

/// Everything that one workload has accepted, apart from secrets: private keys do not touch the disk. Taking it copies
/// nothing.
pub(crate) struct Accepted {
    node_id: String,
    clusters: Store<Cluster>,
    load_assignments: Store<ClusterLoadAssignment>,
    listeners: Store<Listener>,
    routes: Store<RouteConfiguration>,
}

impl Accepted {
    pub(crate) fn of(node_id: &str, snapshot: &Snapshot) -> Self {
        Self {
            node_id: node_id.to_owned(),
            clusters: snapshot.clusters().clone(),
            load_assignments: snapshot.load_assignments().clone(),
            listeners: snapshot.listeners().clone(),
            routes: snapshot.routes().clone(),
        }
    }

    /// Adds it to the file.
    pub(crate) fn write(&self, writer: &mut Writer<impl Write>) {
        writer.workload(&self.node_id);
        write(writer, ResourceType::Cluster, &self.clusters);
        write(writer, ResourceType::ClusterLoadAssignment, &self.load_assignments);
        write(writer, ResourceType::Listener, &self.listeners);
        write(writer, ResourceType::RouteConfiguration, &self.routes);
    }
}

fn write<T>(writer: &mut Writer<impl Write>, kind: ResourceType, store: &Store<T>) {
    writer.resources(
        kind,
        store.identity(),
        store.iter().map(|(name, stored)| (name, &*stored.version, &stored.bytes)),
    );
}
