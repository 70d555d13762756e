//! A consumer that accepts everything and subscribes as a proxy would.

use std::collections::BTreeMap;
use std::time::Duration;

use envoy_types::pb::envoy::config::cluster::v3::Cluster;
use envoy_types::pb::envoy::config::listener::v3::filter::ConfigType;
use envoy_types::pb::envoy::config::listener::v3::{FilterChain, Listener};
use envoy_types::pb::envoy::extensions::filters::network::http_connection_manager::v3::{
    HttpConnectionManager, http_connection_manager::RouteSpecifier,
};
use envoy_types::pb::google::protobuf::Any;
use orlop_xds_client::{ResourceType, Stream, Subscriptions, names};
use prost::{Message, Name};
use tokio::time::{sleep, timeout};

/// No push of a small mesh takes longer; istiod waits for 100 ms for further edits.
const QUIET: Duration = Duration::from_millis(1500);
/// Far above what anything takes here, so that only a failure reaches it.
const PATIENCE: Duration = Duration::from_secs(20);

/// What one delivery brought.
#[derive(Debug)]
pub(crate) struct Delivered {
    pub(crate) resource_type: ResourceType,
    pub(crate) upserted: Vec<String>,
}

pub(crate) struct Consumer {
    pub(crate) stream: Stream,
    pub(crate) resources: BTreeMap<(ResourceType, String), Any>,
    pub(crate) deliveries: Vec<Delivered>,
    /// Rejects every delivery of a type, for this reason.
    pub(crate) reject: Option<(ResourceType, &'static str)>,
}

impl Consumer {
    pub(crate) fn new(stream: Stream) -> Self {
        Self { stream, resources: BTreeMap::new(), deliveries: Vec::new(), reject: None }
    }

    pub(crate) fn has(&self, resource_type: ResourceType, name: &str) -> bool {
        self.resources.contains_key(&(resource_type, name.to_owned()))
    }

    /// Takes deliveries until none has come for a while.
    pub(crate) async fn settle(&mut self) {
        while let Ok(delivery) = timeout(QUIET, self.stream.next()).await {
            let delivery = delivery.expect("the stream goes on");
            let resource_type = delivery.resource_type;
            for name in &delivery.removed {
                self.resources.remove(&(resource_type, name.clone()));
            }
            for resource in &delivery.upserted {
                self.resources.insert((resource_type, resource.name.clone()), resource.body.clone());
            }
            let upserted = delivery.upserted.iter().map(|resource| resource.name.clone()).collect();
            self.deliveries.push(Delivered { resource_type, upserted });
            match self.reject {
                Some((rejected, detail)) if rejected == resource_type => {
                    delivery.reject(detail.into(), self.subscriptions());
                }
                _ => delivery.accept(self.subscriptions()),
            }
        }
    }

    /// Rejects the next delivery and takes no other.
    pub(crate) async fn reject_next(&mut self, detail: &str) {
        let delivery =
            timeout(PATIENCE, self.stream.next()).await.expect("a delivery").expect("the stream goes on");
        delivery.reject(detail.into(), self.subscriptions());
    }

    fn subscriptions(&self) -> Subscriptions {
        let of = |wanted: ResourceType| {
            self.resources.iter().filter(move |((found, _), _)| *found == wanted).map(|(_, body)| body)
        };
        Subscriptions {
            endpoints: names(of(ResourceType::Cluster).filter_map(endpoints_of)),
            routes: names(of(ResourceType::Listener).flat_map(routes_of)),
            ..Subscriptions::default()
        }
    }
}

fn endpoints_of(body: &Any) -> Option<String> {
    let cluster = Cluster::decode(body.value.as_slice()).unwrap();
    let eds = cluster.eds_cluster_config?;
    Some(if eds.service_name.is_empty() { cluster.name } else { eds.service_name })
}

fn routes_of(body: &Any) -> Vec<String> {
    let listener = Listener::decode(body.value.as_slice()).unwrap();
    listener.filter_chains.iter().chain(&listener.default_filter_chain).filter_map(route_of).collect()
}

fn route_of(chain: &FilterChain) -> Option<String> {
    chain.filters.iter().find_map(|filter| {
        let Some(ConfigType::TypedConfig(config)) = &filter.config_type else { return None };
        if config.type_url != HttpConnectionManager::type_url() {
            return None;
        }
        match HttpConnectionManager::decode(config.value.as_slice()).unwrap().route_specifier? {
            RouteSpecifier::Rds(rds) => Some(rds.route_config_name),
            RouteSpecifier::RouteConfig(_) | RouteSpecifier::ScopedRoutes(_) => None,
        }
    })
}

/// Waits for a condition that comes true without anything further being done.
pub(crate) async fn eventually(what: &str, mut condition: impl AsyncFnMut() -> bool) {
    let wait = async {
        while !condition().await {
            sleep(Duration::from_millis(50)).await;
        }
    };
    timeout(PATIENCE, wait).await.unwrap_or_else(|_| panic!("in vain: {what}"));
}
