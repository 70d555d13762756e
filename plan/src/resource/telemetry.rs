//! What Istio's own filters are told of metrics: `istio.stats` and `istio.metadata_exchange`.

/// `stats.PluginConfig`: what is different from Istio's metrics as they come.
#[derive(Debug, Clone, Default, PartialEq, Eq, Hash)]
pub struct IstioStats {
    /// `disable_host_header_fallback`: a destination that the configuration does not know is not named after the request's
    /// host.
    pub disable_host_header_fallback: bool,
    /// `metrics`
    pub overrides: Vec<MetricOverride>,
}

/// `stats.MetricConfig`.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct MetricOverride {
    /// `name`, without the prefix `istio_`; empty is all.
    pub name: String,
    /// `drop`: there is no such metric. Has no effect on all at once, as with Istio.
    pub drop: bool,
    /// `tags_to_remove`
    pub tags_to_remove: Vec<String>,
}

impl MetricOverride {
    fn is_of(&self, metric: &str) -> bool {
        self.name.is_empty() || self.name == metric
    }
}

impl IstioStats {
    /// Whether there is no metric `requests_total`, say.
    pub fn drops(&self, metric: &str) -> bool {
        self.overrides.iter().any(|change| change.drop && change.name == metric)
    }

    /// Whether a metric goes without a label.
    pub fn removes(&self, metric: &str, tag: &str) -> bool {
        let of_metric = self.overrides.iter().filter(|change| !change.drop && change.is_of(metric));
        of_metric.flat_map(|change| &change.tags_to_remove).any(|removed| removed == tag)
    }
}

/// `peer_metadata.Config`: where the ends of a request describe themselves in headers (`istio_headers`).
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct PeerExchange {
    /// `downstream_discovery`: clients are believed.
    pub hears_downstream: bool,
    /// `upstream_discovery`: endpoints are believed.
    pub hears_upstream: bool,
    /// `downstream_propagation`: clients that described themselves are told.
    pub tells_downstream: bool,
    /// `upstream_propagation`
    pub tells_upstream: ToldEndpoints,
}

/// Which endpoints are told who calls.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum ToldEndpoints {
    /// None.
    #[default]
    None,
    /// Those of the mesh (`skip_external_clusters`).
    OfTheMesh,
    /// All.
    All,
}
