//! Outlier detection, as Envoy's `DetectorImpl`: hosts that fail are ejected for a while.
//!
//! A workload's cluster has one [`Detector`] for all workers. In: what became of each request, by a host's [`Watch`]; that is
//! a few relaxed atomics, and a lock only where something is decided. Out: [`Watch::is_ejected`], and a number that changes
//! with every ejection, by which workers know that their balancers are out of date. There is no task: whoever uses the
//! cluster, or sweeps it, looks whether the interval is over.

mod detector;
mod monitor;
mod stats;

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError, Weak};

use orlop_plan::resource::cluster::Cluster;

pub(crate) use detector::Detector;
pub(crate) use monitor::{Report, Watch};
pub use stats::{OutlierHost, OutlierStats};

/// The detectors of one workload, shared by its workers. Locked when a worker first uses a version of a cluster, and when
/// statistics are read. A detector lives as long as somebody uses it.
#[derive(Debug, Default)]
pub(crate) struct Detectors(Mutex<Vec<Weak<Detector>>>);

impl Detectors {
    /// The detector of this version of a cluster; `None` where it does not ask for one.
    pub(crate) fn get(&self, cluster: &Arc<Cluster>) -> Option<Arc<Detector>> {
        let config = cluster.outlier_detection.as_ref()?;
        let mut all = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(known) = all.iter().filter_map(Weak::upgrade).find(|known| known.is_of(cluster)) {
            return Some(known);
        }
        all.retain(|known| known.strong_count() > 0);
        let detector = Arc::new(Detector::new(cluster, config.clone()));
        all.push(Arc::downgrade(&detector));
        Some(detector)
    }

    /// What they found, by cluster.
    pub(crate) fn stats(&self) -> BTreeMap<String, OutlierStats> {
        let all = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let alive = all.iter().filter_map(Weak::upgrade);
        alive.map(|detector| (detector.cluster().to_owned(), detector.stats())).collect()
    }
}
