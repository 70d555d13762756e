//! The client against a control plane that is not istiod, in both protocols.

use std::fmt::Write;
use std::time::{Duration, Instant};

use orlop_xds_client::{Client, Protocol, ResourceType};
use serde_json::Value;

use crate::adsd::Adsd;
use crate::consumer::{Consumer, eventually};
use crate::{node, options};

/// A service per name: cluster, endpoints and a listener; the listener of the first goes by RDS.
fn content(version: u32, services: &[&str], port: u16) -> String {
    let mut yaml = format!("version_info: '{version}'\nresources:\n");
    for name in services {
        let _ = write!(
            yaml,
            "- {{'@type': type.googleapis.com/envoy.config.cluster.v3.Cluster, name: {name}, type: EDS,
   eds_cluster_config: {{eds_config: {{ads: {{}}, resource_api_version: V3}}}}}}
- '@type': type.googleapis.com/envoy.config.endpoint.v3.ClusterLoadAssignment
  cluster_name: {name}
  endpoints: [{{lb_endpoints: [{{endpoint: {{address: {{socket_address: {{address: 10.0.0.1, port_value: {port}}}}}}}}}]}}]
"
        );
    }
    yaml + "
- '@type': type.googleapis.com/envoy.config.listener.v3.Listener
  name: http
  filter_chains:
  - filters:
    - name: http
      typed_config:
        '@type': type.googleapis.com/envoy.extensions.filters.network.http_connection_manager.v3.HttpConnectionManager
        stat_prefix: http
        rds: {route_config_name: main, config_source: {ads: {}, resource_api_version: V3}}
- {'@type': type.googleapis.com/envoy.config.route.v3.RouteConfiguration, name: main}
"
}

async fn the_whole_life(protocol: Protocol) {
    let mut adsd = Adsd::start(&content(1, &["a", "b"], 80)).await;
    let client = Client::new(adsd.control_plane(protocol), options()).unwrap();
    let mut consumer = Consumer::new(client.open(node(1)));

    consumer.settle().await;
    for (resource_type, name) in [
        (ResourceType::Cluster, "a"),
        (ResourceType::ClusterLoadAssignment, "b"),
        (ResourceType::Listener, "http"),
        (ResourceType::RouteConfiguration, "main"),
    ] {
        assert!(consumer.has(resource_type, name), "{resource_type} {name}");
    }

    consumer.deliveries.clear();
    adsd.write(&content(2, &["a", "b"], 81));
    consumer.settle().await;
    let changed: Vec<_> = consumer.deliveries.iter().map(|delivery| delivery.resource_type).collect();
    assert_eq!(changed, [ResourceType::ClusterLoadAssignment], "an update brings what changed");

    adsd.write(&content(3, &["a"], 81));
    consumer.settle().await;
    assert!(!consumer.has(ResourceType::Cluster, "b"), "a removal arrives");

    consumer.deliveries.clear();
    adsd.restart().await;
    consumer.settle().await;
    assert!(
        consumer.deliveries.is_empty(),
        "after a reconnection nothing unchanged comes: {:?}",
        consumer.deliveries
    );
    let status = consumer.stream.watch_status();
    eventually("the stream is back", async || status.borrow().connected_since.is_some()).await;

    adsd.write(&content(4, &["a", "c"], 81));
    consumer.reject_next("cluster 'c': is not wanted here").await;
    let mut status = adsd.status().await;
    eventually("the refusal arrives", async || {
        status = adsd.status().await;
        status.pointer("/nacks/0").is_some()
    })
    .await;
    let nack = |field: &str| status.pointer(&format!("/nacks/0/{field}")).and_then(Value::as_str);
    assert_eq!(nack("detail"), Some("cluster 'c': is not wanted here"));
    if protocol == Protocol::StateOfTheWorld {
        assert_eq!(nack("version"), Some("3"), "the version before it is in force");
    }
}

#[tokio::test]
async fn a_plain_control_plane_is_followed_by_delta() {
    the_whole_life(Protocol::Delta).await;
}

#[tokio::test]
async fn a_plain_control_plane_is_followed_by_the_state_of_the_world() {
    the_whole_life(Protocol::StateOfTheWorld).await;
}

#[tokio::test]
async fn a_resource_that_stays_refused_is_not_refused_at_full_speed() {
    let adsd = Adsd::start(&content(1, &["a"], 80)).await;
    let client = Client::new(adsd.control_plane(Protocol::StateOfTheWorld), options()).unwrap();
    let mut consumer = Consumer::new(client.open(node(1)));
    consumer.reject = Some((ResourceType::Cluster, "cluster 'a': is not wanted here"));
    let start = Instant::now();

    consumer.settle().await;
    while start.elapsed() < Duration::from_secs(4) {
        consumer.settle().await;
    }

    let refused = consumer.stream.status().types[&ResourceType::Cluster].nacked;
    // At once, then after 1 s, 2 s, 4 s, ...
    let most = 1 + u64::from((start.elapsed().as_secs() + 1).ilog2());
    assert!((2..=most).contains(&refused), "{refused} times, and at most {most} in {:?}", start.elapsed());
}
