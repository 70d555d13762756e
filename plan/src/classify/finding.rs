//! What one way through a listener comes to, and how several come to one verdict.

use std::sync::Arc;

use super::{Cause, Path, Reason};
use crate::kernel::BackendSet;
use crate::resource::FieldPath;

/// Where one filter chain, for one virtual host, leads a connection.
#[derive(Debug, Clone)]
pub(super) struct Finding {
    pub(super) path: Path,
    pub(super) reason: Reason,
    /// The only cluster it leads to.
    pub(super) cluster: Option<Arc<str>>,
    /// For [`Path::Kernel`].
    pub(super) backends: Option<Arc<BackendSet>>,
}

impl Finding {
    pub(super) fn new(path: Path, resource: &str, field: FieldPath, cause: Cause) -> Self {
        let reason = Reason { resource: resource.to_owned(), field, cause };
        Self { path, reason, cluster: None, backends: None }
    }

    pub(super) fn of_cluster(mut self, cluster: &Arc<str>) -> Self {
        self.cluster = Some(Arc::clone(cluster));
        self
    }

    fn same_as(&self, other: &Self) -> bool {
        self.path == other.path && self.cluster == other.cluster
    }

    fn destination(&self) -> Arc<str> {
        self.cluster.clone().unwrap_or_else(|| "none".into())
    }
}

/// Which layer a finding was made at.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Layer {
    Tcp,
    Http,
}

impl Layer {
    pub(super) fn proxy(self) -> Path {
        match self {
            Self::Tcp => Path::TcpProxy,
            Self::Http => Path::L7Proxy,
        }
    }
}

/// One finding for all chains that a connection may match. What differs is the proxy's to tell apart.
pub(super) fn combine(findings: &[(Layer, Finding)], resource: &str) -> Option<Finding> {
    let ((_, first), rest) = findings.split_first()?;
    let highest =
        if findings.iter().any(|(layer, _)| *layer == Layer::Http) { Layer::Http } else { Layer::Tcp };
    let proxied = |path| findings.iter().map(|(_, finding)| finding).find(|finding| finding.path == path);
    if let Some(finding) = proxied(Path::L7Proxy).or_else(|| proxied(Path::TcpProxy)) {
        return Some(Finding { path: highest.proxy(), ..finding.clone() });
    }
    let Some((_, other)) = rest.iter().find(|(_, finding)| !finding.same_as(first)) else {
        return Some(first.clone());
    };
    let cause = Cause::ChainsDiffer { one: first.destination(), other: other.destination() };
    let field = FieldPath::root().field("filter_chains");
    Some(Finding::new(highest.proxy(), resource, field, cause))
}
