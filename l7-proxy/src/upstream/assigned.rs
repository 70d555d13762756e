//! The hosts that EDS or the cluster itself names, and the balancer that chooses among them.

use std::cell::{Cell, RefCell};
use std::collections::HashMap;
use std::net::SocketAddr;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Instant;

use orlop_plan::balance::{HashTables, HashedHost};
use orlop_plan::proxy::ClusterPlan;

use super::host::{Host, HostState};
use super::pick::{PickContext, PickError};
use crate::balance::{Balancer, Candidate, Locality};
use crate::outlier::{Detector, Watch};

/// The hosts of one version of a cluster.
pub(super) struct AssignedHosts {
    by_address: HashMap<SocketAddr, Rc<HostState>>,
    balancer: RefCell<Balancer<Rc<Host>>>,
    watched: Option<Watched>,
}

/// What another balancer is made of when hosts are ejected or let back.
struct Watched {
    detector: Arc<Detector>,
    localities: Vec<Locality<Rc<Host>>>,
    /// The detector's number that the balancer is of.
    changes: Cell<u64>,
}

impl AssignedHosts {
    /// Those of `plan`; addresses that are `known` keep what they have.
    pub(super) fn new(
        plan: &ClusterPlan,
        known: &HashMap<SocketAddr, Rc<HostState>>,
        detector: Option<Arc<Detector>>,
    ) -> Self {
        let localities = || plan.endpoints().into_iter().flat_map(|endpoints| &endpoints.localities);
        let addresses =
            localities().flat_map(|locality| &locality.endpoints).map(|endpoint| endpoint.address);
        // Before the hosts are looked at: what changes from now on is seen by the next choice.
        let changes = detector.as_ref().map_or(0, |detector| detector.changes());
        let by_detector = detector.as_ref().map_or_else(HashMap::new, |detector| detector.watch(addresses));
        let mut by_address = HashMap::new();
        let localities: Vec<_> = localities()
            .map(|locality| Locality {
                priority: locality.priority,
                weight: locality.weight,
                hosts: locality
                    .endpoints
                    .iter()
                    .map(|endpoint| {
                        let address = endpoint.address;
                        let state = by_address
                            .entry(address)
                            .or_insert_with(|| known.get(&address).cloned().unwrap_or_default());
                        let watch = by_detector.get(&address).cloned();
                        Rc::new(Host::new(endpoint.clone(), Rc::clone(state), watch))
                    })
                    .collect(),
            })
            .collect();
        let watched = detector.map(|detector| Watched {
            detector,
            localities: localities.clone(),
            changes: Cell::new(changes),
        });
        let balancer = RefCell::new(balancer(plan, localities));
        Self { by_address, balancer, watched }
    }

    pub(super) fn by_address(&self) -> &HashMap<SocketAddr, Rc<HostState>> {
        &self.by_address
    }

    /// A host that was not tried before, as far as the draws allow (`previous_hosts`).
    pub(super) fn choose(
        &self,
        plan: &ClusterPlan,
        context: &PickContext<'_>,
    ) -> Result<Rc<Host>, PickError> {
        if let Some(watched) = &self.watched {
            watched.detector.tick(Instant::now());
            let changes = watched.detector.changes();
            if watched.changes.replace(changes) != changes {
                self.balancer.replace(balancer(plan, watched.localities.clone()));
            }
        }
        let balancer = self.balancer.borrow();
        let hash = context.hash.unwrap_or_else(|| fastrand::u64(..));
        let mut attempt = 0;
        loop {
            let host = balancer.choose(hash, attempt).ok_or(PickError::NoHealthyUpstream)?;
            if attempt >= context.reselections || !context.tried.contains(&host.address()) {
                return Ok(host);
            }
            attempt += 1;
        }
    }

    pub(super) fn sweep(&self, now: Instant) {
        if let Some(watched) = &self.watched {
            watched.detector.tick(now);
        }
        for state in self.by_address.values() {
            state.sweep(now);
        }
    }
}

/// The balancer of these hosts as they are now.
fn balancer(plan: &ClusterPlan, localities: Vec<Locality<Rc<Host>>>) -> Balancer<Rc<Host>> {
    let config = plan.balancer_config();
    let hosts = || localities.iter().flat_map(|locality| &locality.hosts);
    let tables = config.policy.is_by_hash().then(|| {
        if !hosts().any(|host| host.watch().is_some_and(Watch::is_ejected)) {
            return Arc::clone(plan.hash_tables());
        }
        Arc::new(HashTables::new(config, &hashed(&localities)))
    });
    Balancer::new(config, localities, tables)
}

fn hashed(localities: &[Locality<Rc<Host>>]) -> Vec<HashedHost> {
    let hosts = localities.iter().enumerate().flat_map(|(position, locality)| {
        locality.hosts.iter().map(move |host| HashedHost {
            address: host.address(),
            weight: host.weight(),
            health: host.health(),
            priority: locality.priority,
            locality: (position, locality.weight),
        })
    });
    hosts.collect()
}
