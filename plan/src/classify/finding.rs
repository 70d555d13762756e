//! What one way through a listener comes to, and how several come to one verdict.

use std::net::IpAddr;
use std::rc::Rc;
use std::sync::Arc;

use super::{Cause, ModeOf, Path, Reason};
use crate::kernel::BackendSet;
use crate::resource::FieldPath;

/// Says why, to whoever asks. Most of the time nobody does.
pub(super) type Why<'a> = Rc<dyn Fn() -> Reason + 'a>;

/// Where one filter chain, for one virtual host, leads a connection.
#[derive(Clone)]
pub(super) struct Finding<'a> {
    pub(super) path: Path,
    pub(super) why: Why<'a>,
    /// The only cluster it leads to.
    pub(super) cluster: Option<&'a Arc<str>>,
    /// For [`Path::Kernel`].
    pub(super) backends: Option<Arc<BackendSet>>,
    /// The mode that holds, where there is a choice.
    pub(super) mode: Option<ModeOf>,
    /// What is asked for and not done, because of the mode.
    pub(super) forgone: Vec<Rc<dyn Fn() -> Vec<Reason> + 'a>>,
}

impl<'a> Finding<'a> {
    pub(super) fn new(path: Path, why: impl Fn() -> Reason + 'a) -> Self {
        Self { path, why: Rc::new(why), cluster: None, backends: None, mode: None, forgone: Vec::new() }
    }

    pub(super) fn reason(&self) -> Reason {
        (self.why)()
    }

    /// What it comes to for connections to an address: those to endpoints of the other family are the proxy's.
    pub(super) fn for_connections_to(self, ip: IpAddr, layer: Layer) -> Self {
        let Some(backends) = self.backends.as_ref().filter(|_| self.path == Path::Kernel) else {
            return self;
        };
        if let Some(backends) = backends.for_connections_to(ip) {
            return Self { backends: Some(backends), ..self };
        }
        let cluster = self.destination();
        let why = move || Reason {
            resource: format!("cluster `{cluster}`"),
            field: FieldPath::root().field("endpoints"),
            cause: Cause::Cluster {
                cluster: Arc::clone(&cluster),
                what: "has endpoints without an address of the destination's family",
            },
        };
        Self { path: layer.proxy(), why: Rc::new(why), backends: None, ..self }
    }

    fn same_as(&self, other: &Self) -> bool {
        self.path == other.path && self.cluster == other.cluster
    }

    fn destination(&self) -> Arc<str> {
        self.cluster.cloned().unwrap_or_else(|| "none".into())
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

/// The highest layer of them.
pub(super) fn highest(findings: &[(Layer, Finding<'_>)]) -> Layer {
    if findings.iter().any(|(layer, _)| *layer == Layer::Http) { Layer::Http } else { Layer::Tcp }
}

/// One finding for all chains that a connection may match. What differs is the proxy's to tell apart.
pub(super) fn combine<'a>(
    findings: &[(Layer, Finding<'a>)],
    resource: impl Fn() -> String + 'a,
) -> Finding<'a> {
    let Some(((_, first), rest)) = findings.split_first() else {
        return no_chain(resource);
    };
    let highest = highest(findings);
    let mode = findings.iter().find_map(|(_, finding)| finding.mode.clone());
    let proxied = |path| findings.iter().map(|(_, finding)| finding).find(|finding| finding.path == path);
    if let Some(finding) = proxied(Path::L7Proxy).or_else(|| proxied(Path::TcpProxy)) {
        return Finding { path: highest.proxy(), mode, ..finding.clone() };
    }
    let Some((_, other)) = rest.iter().find(|(_, finding)| !finding.same_as(first)) else {
        let forgone = findings.iter().flat_map(|(_, finding)| finding.forgone.iter().cloned()).collect();
        return Finding { mode, forgone, ..first.clone() };
    };
    let (one, other) = (first.destination(), other.destination());
    let differ = move || Reason {
        resource: resource(),
        field: FieldPath::root().field("filter_chains"),
        cause: Cause::ChainsDiffer { one: Arc::clone(&one), other: Arc::clone(&other) },
    };
    Finding { mode, ..Finding::new(highest.proxy(), differ) }
}

/// A connection that matches no chain is closed.
pub(super) fn no_chain<'a>(resource: impl Fn() -> String + 'a) -> Finding<'a> {
    Finding::new(Path::Blocked, move || Reason {
        resource: resource(),
        field: FieldPath::root(),
        cause: Cause::NoChain,
    })
}
