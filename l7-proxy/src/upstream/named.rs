//! The hosts of a cluster whose endpoints have names: those of the last answer.

use std::cell::{Cell, RefCell};
use std::collections::HashMap;
use std::net::SocketAddr;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Instant;

use orlop_plan::proxy::ClusterPlan;
use tokio::sync::watch;

use super::assigned::AssignedHosts;
use super::host::{Host, HostState};
use super::pick::{PickContext, PickError};
use crate::names::NamedCluster;
use crate::outlier::Detector;

/// The hosts of one version of a cluster, which change with the answers.
pub(super) struct NamedHosts {
    /// Keeps the names up to date.
    _cluster: Arc<NamedCluster>,
    answers: RefCell<watch::Receiver<Option<Arc<ClusterPlan>>>>,
    detector: Option<Arc<Detector>>,
    /// There is an answer.
    resolved: Cell<bool>,
    current: RefCell<Option<(Arc<ClusterPlan>, AssignedHosts)>>,
}

impl NamedHosts {
    pub(super) fn new(cluster: Arc<NamedCluster>, detector: Option<Arc<Detector>>) -> Self {
        let mut answers = cluster.watch();
        answers.mark_changed();
        Self {
            _cluster: cluster,
            answers: RefCell::new(answers),
            detector,
            resolved: Cell::new(false),
            current: RefCell::default(),
        }
    }

    /// Returns once there is an answer, or none came in time.
    pub(super) async fn resolved(&self) {
        if !self.resolved.get() {
            let mut answers = self.answers.borrow().clone();
            // An error says that nobody asks any more.
            let _ended = answers.wait_for(Option::is_some).await;
            self.resolved.set(true);
        }
    }

    pub(super) fn choose(&self, context: &PickContext<'_>) -> Result<Rc<Host>, PickError> {
        self.update();
        match &*self.current.borrow() {
            Some((plan, hosts)) => hosts.choose(plan, context),
            None => Err(PickError::NoHealthyUpstream),
        }
    }

    pub(super) fn sweep(&self, now: Instant) {
        self.update();
        if let Some((_, hosts)) = &*self.current.borrow() {
            hosts.sweep(now);
        }
    }

    pub(super) fn states(&self) -> HashMap<SocketAddr, Rc<HostState>> {
        self.current.borrow().as_ref().map(|(_, hosts)| hosts.by_address().clone()).unwrap_or_default()
    }

    /// Takes the newest answer over. Hosts that remain keep their connections and counts.
    fn update(&self) {
        // The cluster is held here, and with it the other end.
        if !self.answers.borrow().has_changed().unwrap_or(false) {
            return;
        }
        let Some(plan) = self.answers.borrow_mut().borrow_and_update().clone() else { return };
        let known = self.states();
        let hosts = AssignedHosts::new(&plan, &known, self.detector.clone());
        let gone: Vec<_> =
            known.into_iter().filter(|(address, _)| !hosts.by_address().contains_key(address)).collect();
        self.current.replace(Some((plan, hosts)));
        for (_, state) in gone {
            state.retire();
        }
    }
}
