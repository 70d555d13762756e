//! The draw among weighted clusters.

use std::sync::Arc;

use crate::resource::route::{WeightedCluster, WeightedClusters};
use crate::resource::tcp_proxy::TcpClusterSpecifier;

impl WeightedClusters {
    /// The cluster that `random` falls on, as Envoy draws: `random` modulo the total, then the running sum.
    pub fn pick(&self, random: u64) -> Option<&WeightedCluster> {
        draw(self.clusters.iter().map(|cluster| (cluster, cluster.weight)), self.total_weight, random)
    }
}

impl TcpClusterSpecifier {
    /// The cluster of a connection.
    pub fn pick(&self, random: u64) -> Option<&Arc<str>> {
        match self {
            Self::Cluster(name) => Some(name),
            Self::Weighted { clusters, total_weight } => {
                draw(clusters.iter().map(|(name, weight)| (name, *weight)), *total_weight, random)
            }
        }
    }
}

fn draw<T>(weighted: impl Iterator<Item = (T, u32)>, total: u32, random: u64) -> Option<T> {
    let mut ticket = random.checked_rem(u64::from(total))?;
    for (item, weight) in weighted {
        match ticket.checked_sub(u64::from(weight)) {
            Some(rest) => ticket = rest,
            None => return Some(item),
        }
    }
    None
}
