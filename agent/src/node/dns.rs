//! A workload's DNS: from a table that istiod sent to sockets that the kernel steers to.
//!
//! The kernel gets the sockets with the first table: until then the pod's questions go where it sends them.

use std::sync::Arc;

use orlop_datapath::{Datapath, ListenerRole};
use orlop_dns::{DnsCounters, Names, PodDns, PodNetwork, Server};
use orlop_plan::resource::name_table::NameTable;

use super::CLUSTER_DOMAIN;

/// The DNS of one enrolled workload.
pub(super) struct WorkloadDns {
    network: PodNetwork,
    namespace: String,
    state: State,
}

enum State {
    /// Not asked for.
    Off,
    /// Asked for, and why not.
    Failed(String),
    On {
        pod: PodDns,
        /// What it answers from; `None` before the kernel has its sockets.
        table: Option<Arc<NameTable>>,
    },
}

impl WorkloadDns {
    /// Opens the sockets, if `capture` asks for them.
    pub(super) fn open(server: &Server, capture: bool, network: PodNetwork, namespace: &str) -> Self {
        let mut this = Self { network, namespace: namespace.to_owned(), state: State::Off };
        if capture {
            this.try_open(server);
        }
        this
    }

    /// Tries again where it failed.
    pub(super) fn look_after(
        &mut self,
        server: &Server,
        table: Option<&Arc<NameTable>>,
        key: &str,
        datapath: &mut Datapath,
    ) {
        if let State::Failed(_) = self.state {
            self.try_open(server);
            self.follow(table, key, datapath);
        }
    }

    /// Answers from this table from now on.
    pub(super) fn follow(&mut self, table: Option<&Arc<NameTable>>, key: &str, datapath: &mut Datapath) {
        let (State::On { pod, table: present }, Some(table)) = (&mut self.state, table) else { return };
        if present.as_ref().is_some_and(|present| Arc::ptr_eq(present, table)) {
            return;
        }
        pod.set_names(Names::new(Arc::clone(table), &self.namespace, CLUSTER_DOMAIN));
        if present.replace(Arc::clone(table)).is_none()
            && let Err(error) = steer(pod, key, datapath)
        {
            self.state = State::Failed(error.to_string());
        }
    }

    /// Why its DNS is not answered though it is asked for.
    pub(super) fn problem(&self) -> Option<String> {
        match &self.state {
            State::Failed(reason) => Some(format!("DNS is not answered: {reason}; will be tried again")),
            State::Off | State::On { .. } => None,
        }
    }

    /// What became of its questions; `None` where none are taken.
    pub(super) fn counters(&self) -> Option<DnsCounters> {
        match &self.state {
            State::On { pod, .. } => Some(pod.counters()),
            State::Off | State::Failed(_) => None,
        }
    }

    fn try_open(&mut self, server: &Server) {
        self.state = match server.open(self.network.clone()) {
            Ok(pod) => State::On { pod, table: None },
            Err(error) => State::Failed(error.to_string()),
        };
    }
}

fn steer(pod: &PodDns, key: &str, datapath: &mut Datapath) -> Result<(), orlop_datapath::Error> {
    pod.udp().try_for_each(|socket| datapath.set_listener(key, ListenerRole::DnsUdp, socket))?;
    pod.tcp().try_for_each(|socket| datapath.set_listener(key, ListenerRole::DnsTcp, socket))
}
