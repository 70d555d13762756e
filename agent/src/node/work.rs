//! What a push costs: counts, so that whoever wonders need not measure.

use serde::Serialize;

/// Work done for one push or for several.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Work {
    /// Resources that had to be validated.
    pub(crate) validated: usize,
    /// Resources that some workload of the node had already.
    pub(crate) deduplicated: usize,
    /// Destinations that were classified again.
    pub(crate) reclassified: usize,
    /// Entries of the kernel's maps that were written or removed.
    pub(crate) kernel_entries: usize,
    /// Clusters that the proxy was told of.
    pub(crate) clusters: usize,
}

/// The work of a workload's pushes, or of all workloads'.
#[derive(Debug, Clone, Copy, Default, Serialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct WorkDone {
    /// How many pushes.
    pub(crate) pushes: usize,
    /// Of the last one.
    pub(crate) last: Work,
    /// Of all of them.
    pub(crate) total: Work,
}

impl WorkDone {
    pub(crate) fn push(&mut self, work: Work) {
        self.pushes += 1;
        self.last = work;
        self.total.add(work);
    }
}

impl Work {
    pub(crate) fn add(&mut self, other: Self) {
        let Self { validated, deduplicated, reclassified, kernel_entries, clusters } = other;
        self.validated += validated;
        self.deduplicated += deduplicated;
        self.reclassified += reclassified;
        self.kernel_entries += kernel_entries;
        self.clusters += clusters;
    }
}

impl std::fmt::Display for Work {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Self { validated, deduplicated, reclassified, kernel_entries, clusters } = self;
        write!(
            f,
            "{validated} validated, {deduplicated} deduplicated, {reclassified} destinations, {kernel_entries} kernel \
             entries, {clusters} clusters"
        )
    }
}
