//! The labels of Istio's metrics, as Istio's proxies find them.

use envoy_types::pb::envoy::config::core::v3 as core;
use orlop_l7_proxy::Description;
use orlop_l7_proxy::telemetry::{Peer, PeerMetadata};

use crate::canonical;
use crate::config::{Node, Workload};

/// Names and values, in Istio's order.
pub(crate) type Labels = Vec<(&'static str, String)>;

/// The value of a label of which nothing is known.
pub(super) const UNKNOWN: &str = "unknown";

/// One end of a request or connection. What is empty is not known.
#[derive(Debug, Clone, Default)]
pub(super) struct End {
    about: PeerMetadata,
    principal: String,
}

/// The service that a request or connection is for.
#[derive(Debug, Clone, Default)]
pub(super) struct Service {
    pub(super) host: String,
    pub(super) name: String,
    pub(super) namespace: String,
}

/// What the labels are said of.
pub(super) struct Ends {
    /// The workload is the source, and `own` that.
    pub(super) is_source: bool,
    pub(super) own: End,
    pub(super) peer: End,
    pub(super) service: Service,
}

/// What a workload is, to its peers and in its own metrics.
pub(super) fn description(node: &Node, spec: &Workload, told: &core::Node) -> Description {
    let labels = &spec.labels;
    let metadata = PeerMetadata {
        name: spec.name.clone(),
        namespace: spec.namespace.clone(),
        workload: spec.owner.as_ref().map_or(&spec.name, |owner| &owner.workload_name).clone(),
        cluster: node.cluster.clone(),
        canonical_service: canonical::service(labels).unwrap_or_else(|| spec.name.clone()),
        canonical_revision: canonical::revision(labels),
        app: canonical::app(labels).unwrap_or_default(),
        version: canonical::version(labels).unwrap_or_default(),
    };
    Description { node_id: told.id.clone(), node_cluster: told.cluster.clone(), metadata }
}

impl End {
    /// The workload itself; `principal` where it has shown itself.
    pub(super) fn own(about: PeerMetadata, principal: Option<String>) -> Self {
        Self { about, principal: principal.unwrap_or_default() }
    }

    /// The other end. The namespace of an identity is believed before any other.
    pub(super) fn peer(peer: &Peer, principal: Option<&str>) -> Self {
        let mut about = match peer {
            Peer::Unknown => PeerMetadata::default(),
            Peer::Said(metadata) => (**metadata).clone(),
            Peer::Endpoint(about) => endpoint(&about.workload),
        };
        let principal = principal.unwrap_or_default().to_owned();
        if let Some(namespace) = namespace_of(&principal) {
            namespace.clone_into(&mut about.namespace);
        }
        Self { about, principal }
    }
}

/// `workload;namespace;canonical service;canonical revision;cluster`, as istiod describes an endpoint.
pub(super) fn endpoint(about: &str) -> PeerMetadata {
    let mut parts = about.split(';').map(ToOwned::to_owned);
    let mut part = || parts.next().unwrap_or_default();
    PeerMetadata {
        workload: part(),
        namespace: part(),
        canonical_service: part(),
        canonical_revision: part(),
        cluster: part(),
        ..PeerMetadata::default()
    }
}

/// Of `spiffe://<trust domain>/ns/<namespace>/sa/<account>`.
fn namespace_of(principal: &str) -> Option<&str> {
    principal.split_once("/ns/")?.1.split('/').next()
}

impl Ends {
    /// The labels that all metrics have, and then `protocol`'s.
    pub(super) fn labels(self, protocol: impl IntoIterator<Item = (&'static str, String)>) -> Labels {
        let Self { is_source, own, peer, mut service } = self;
        let (source, destination) = if is_source { (own, peer) } else { (peer, own) };
        if !is_source {
            // The workload itself stands for a service that nothing is known of.
            service.namespace.clone_from(&destination.about.namespace);
            for name in [&mut service.host, &mut service.name] {
                if name.is_empty() {
                    name.clone_from(&destination.about.canonical_service);
                }
            }
        } else if service.namespace.is_empty() {
            service.namespace.clone_from(&destination.about.namespace);
        }
        let text = |text: String| if text.is_empty() { UNKNOWN.to_owned() } else { text };
        let revision = |text: String| if text.is_empty() { canonical::LATEST.to_owned() } else { text };
        let mut labels = vec![
            ("reporter", if is_source { "source" } else { "destination" }.to_owned()),
            ("source_workload", text(source.about.workload)),
            ("source_canonical_service", text(source.about.canonical_service)),
            ("source_canonical_revision", revision(source.about.canonical_revision)),
            ("source_workload_namespace", text(source.about.namespace)),
            ("source_principal", text(source.principal)),
            ("source_app", text(source.about.app)),
            ("source_version", text(source.about.version)),
            ("source_cluster", text(source.about.cluster)),
            ("destination_workload", text(destination.about.workload)),
            ("destination_workload_namespace", text(destination.about.namespace)),
            ("destination_principal", text(destination.principal)),
            ("destination_app", text(destination.about.app)),
            ("destination_version", text(destination.about.version)),
            ("destination_service", text(service.host)),
            ("destination_canonical_service", text(destination.about.canonical_service)),
            ("destination_canonical_revision", revision(destination.about.canonical_revision)),
            ("destination_service_name", text(service.name)),
            ("destination_service_namespace", text(service.namespace)),
            ("destination_cluster", text(destination.about.cluster)),
        ];
        labels.extend(protocol);
        labels
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;

    fn value<'a>(labels: &'a Labels, name: &str) -> &'a str {
        labels.iter().find(|(label, _)| *label == name).map_or("", |(_, value)| value)
    }

    fn ends(is_source: bool, peer: End) -> Ends {
        let own = PeerMetadata {
            namespace: "shop".to_owned(),
            canonical_service: "cart".to_owned(),
            ..PeerMetadata::default()
        };
        Ends { is_source, own: End::own(own, None), peer, service: Service::default() }
    }

    #[test]
    fn a_peers_identity_says_its_namespace_whatever_the_peer_says() {
        let said = PeerMetadata { namespace: "elsewhere".to_owned(), ..PeerMetadata::default() };
        let peer = End::peer(&Peer::Said(Arc::new(said)), Some("spiffe://cluster.local/ns/web/sa/front"));
        let labels = ends(false, peer).labels([]);
        assert_eq!(value(&labels, "source_workload_namespace"), "web");
        assert_eq!(value(&labels, "source_principal"), "spiffe://cluster.local/ns/web/sa/front");
    }

    #[test]
    fn a_destination_that_reports_stands_for_a_service_that_nothing_is_known_of() {
        let labels = ends(false, End::default()).labels([]);
        assert_eq!(value(&labels, "reporter"), "destination");
        assert_eq!(value(&labels, "destination_service"), "cart");
        assert_eq!(value(&labels, "destination_service_name"), "cart");
        assert_eq!(value(&labels, "destination_service_namespace"), "shop");
        assert_eq!(value(&labels, "source_workload"), "unknown");
        assert_eq!(value(&labels, "source_canonical_revision"), "latest");
    }

    #[test]
    fn what_istiod_says_of_an_endpoint_is_taken_apart() {
        let about = endpoint("reviews-v2;shop;reviews;v2;Kubernetes");
        assert_eq!((about.workload.as_str(), about.namespace.as_str()), ("reviews-v2", "shop"));
        assert_eq!((about.canonical_service.as_str(), about.canonical_revision.as_str()), ("reviews", "v2"));
        assert_eq!(about.cluster, "Kubernetes");
    }
}
