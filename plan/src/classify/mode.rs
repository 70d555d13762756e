//! When HTTP goes request by request: the operator's say, by namespace and service.

use std::collections::BTreeMap;
use std::fmt;

use serde::{Deserialize, Serialize, Serializer};

use super::Served;
use crate::resource::cluster::UpstreamProtocol;
use crate::resource::route::{Domain, VirtualHost};
use crate::snapshot::host_clusters;

/// When HTTP to a destination goes through the L7 proxy.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Mode {
    /// Always, be it that nothing asks for it.
    Always,
    /// Where something asks for it.
    #[default]
    OnIntent,
    /// Not even where something asks for it, as long as one cluster stands for the destination and no policy is passed by.
    Never,
}

impl fmt::Display for Mode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Always => "always",
            Self::OnIntent => "on-intent",
            Self::Never => "never",
        })
    }
}

/// Modes of outbound destinations. What is said of a service counts before what is said of its namespace, and that before
/// what is said of all. Inbound, where nothing is balanced, intent alone decides.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct L7Modes {
    /// Where nothing else is said.
    pub default: Mode,
    /// Of gRPC and HTTP/2, which has to be balanced by request, where neither service nor namespace is named.
    pub http2: Mode,
    /// By Kubernetes namespace.
    pub by_namespace: BTreeMap<String, Mode>,
    /// By the service's full host name, in lower case.
    pub by_service: BTreeMap<String, Mode>,
}

impl Default for L7Modes {
    fn default() -> Self {
        Self {
            default: Mode::OnIntent,
            http2: Mode::Always,
            by_namespace: BTreeMap::new(),
            by_service: BTreeMap::new(),
        }
    }
}

/// The mode of one destination.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ModeOf {
    /// The mode.
    pub mode: Mode,
    /// Who says so.
    pub said_of: Subject,
}

/// What a mode is said of.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Subject {
    /// A service, by its host name.
    Service(String),
    /// A namespace.
    Namespace(String),
    /// HTTP/2.
    Http2,
    /// Everything else.
    Default,
}

impl fmt::Display for ModeOf {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { mode, said_of } = self;
        match said_of {
            Subject::Service(host) => write!(f, "{mode} (service {host})"),
            Subject::Namespace(namespace) => write!(f, "{mode} (namespace {namespace})"),
            Subject::Http2 => write!(f, "{mode} (HTTP/2)"),
            Subject::Default => write!(f, "{mode} (default)"),
        }
    }
}

impl Serialize for ModeOf {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

/// The mode that holds for a virtual host.
pub(super) fn mode_of(served: Served<'_>, host: &VirtualHost) -> ModeOf {
    let modes = &served.facts.l7;
    let said = |mode: Mode, said_of| ModeOf { mode, said_of };
    if !modes.by_service.is_empty() {
        for name in names(host) {
            if let Some(mode) = modes.by_service.get(name) {
                return said(*mode, Subject::Service(name.to_owned()));
            }
        }
    }
    let plans = || host_clusters(host).filter_map(|name| served.proxy.clusters.get(name));
    if !modes.by_namespace.is_empty() {
        let own = names(host).find_map(namespace);
        let of_cluster = || plans().find_map(|plan| Some(plan.cluster.service.as_ref()?.namespace.as_str()));
        if let Some(namespace) = own.or_else(of_cluster)
            && let Some(mode) = modes.by_namespace.get(namespace)
        {
            return said(*mode, Subject::Namespace(namespace.to_owned()));
        }
    }
    if modes.http2 != modes.default && plans().any(|plan| plan.cluster.protocol == UpstreamProtocol::Http2) {
        return said(modes.http2, Subject::Http2);
    }
    said(modes.default, Subject::Default)
}

/// The full names that a virtual host goes by. istiod calls it by the service's name and port; the domains may be `*`.
fn names(host: &VirtualHost) -> impl Iterator<Item = &str> {
    let own = host.name.rsplit_once(':').map_or(host.name.as_str(), |(name, _port)| name);
    let domains = host.domains.iter().filter_map(|domain| match domain {
        Domain::Exact(name) => Some(name.as_str()),
        _ => None,
    });
    [own].into_iter().chain(domains)
}

/// The namespace in `<service>.<namespace>.svc.<domain>`.
fn namespace(name: &str) -> Option<&str> {
    let mut labels = name.split('.');
    let (_service, namespace, svc) = (labels.next()?, labels.next()?, labels.next()?);
    (svc == "svc").then_some(namespace)
}
