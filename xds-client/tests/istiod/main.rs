//! The client against a real istiod, and against a plain control plane: what it subscribes to arrives, istiod sees it acknowledged, and istiod's
//! death changes nothing until it is back.
//!
//! `ORLOP_ISTIOD` and `ORLOP_ADSD` name them; `cargo xtask test` builds both and sets the variables.

#![expect(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a test fails by panicking")]

mod adsd;
mod consumer;
mod plain;
mod server;

use std::time::Duration;

use orlop_proto::Descriptors;
use orlop_xds_client::{BackoffBounds, Client, GrpcOptions, Node, Protocol, ResourceType, WorkloadNode};

use consumer::{Consumer, eventually};
use server::Istiod;

const SERVICES: &str = include_str!("../data/services.yaml");
const SECOND: &str = include_str!("../data/second.yaml");

fn options() -> GrpcOptions {
    let backoff = BackoffBounds {
        initial: Duration::from_millis(50),
        max: Duration::from_millis(200),
        stable: Duration::from_secs(1),
    };
    GrpcOptions { backoff, ..GrpcOptions::default() }
}

fn client(istiod: &Istiod) -> Client {
    client_by(istiod, Protocol::Delta)
}

fn client_by(istiod: &Istiod, protocol: Protocol) -> Client {
    Client::new(istiod.control_plane(protocol), options()).unwrap()
}

fn node(index: u8) -> Node {
    Node::from(WorkloadNode {
        name: format!("client-{index}"),
        namespace: "default".into(),
        service_account: "client".into(),
        addresses: vec![[10, 77, 1, index].into()],
        cluster_id: "Kubernetes".into(),
        trust_domain: "cluster.local".into(),
        domain: "cluster.local".into(),
        dns_capture: true,
        ..WorkloadNode::default()
    })
}

#[tokio::test]
async fn every_type_arrives_and_istiod_sees_it_acknowledged() {
    every_type_arrives(Protocol::Delta).await;
}

#[tokio::test]
async fn every_type_arrives_by_the_state_of_the_world_too() {
    every_type_arrives(Protocol::StateOfTheWorld).await;
}

async fn every_type_arrives(protocol: Protocol) {
    let istiod = Istiod::start(&[("services.yaml", SERVICES)]).await;

    let mut consumer = Consumer::new(client_by(&istiod, protocol).open(node(1)));
    consumer.settle().await;

    for (resource_type, name) in [
        (ResourceType::Cluster, "outbound|8080||web.default.svc.cluster.local"),
        (ResourceType::ClusterLoadAssignment, "outbound|8080||web.default.svc.cluster.local"),
        (ResourceType::Listener, "10.96.0.10_9000"),
        (ResourceType::RouteConfiguration, "8080"),
        (ResourceType::NameTable, ""),
    ] {
        assert!(
            consumer.has(resource_type, name),
            "{resource_type} {name} in {:?}",
            consumer.resources.keys()
        );
    }
    let mut order: Vec<_> = consumer.deliveries.iter().map(|delivery| delivery.resource_type).collect();
    // Nothing depends on the names.
    order.retain(|resource_type| *resource_type != ResourceType::NameTable);
    assert_eq!(
        order,
        [
            ResourceType::Cluster,
            ResourceType::ClusterLoadAssignment,
            ResourceType::Listener,
            ResourceType::RouteConfiguration,
        ],
        "in order of dependency"
    );
    eventually("istiod reports the proxy as synced", async || istiod.is_synced("client-1.default").await)
        .await;
}

#[tokio::test]
async fn everything_that_istiod_sends_can_be_printed_and_read_back() {
    let istiod = Istiod::start(&[("services.yaml", SERVICES)]).await;
    let mut consumer = Consumer::new(client(&istiod).open(node(1)));
    consumer.settle().await;
    let descriptors = Descriptors::load().unwrap();

    let mut printed = String::new();
    for (key, body) in &consumer.resources {
        let json = descriptors.to_json(body).unwrap_or_else(|error| panic!("{key:?}: {error}"));
        let again = descriptors.from_json(&body.type_url, &json).unwrap();
        assert_eq!(descriptors.to_json(&again).unwrap(), json);
        printed += &json.to_string();
    }

    for filter in ["stats.PluginConfig", "alpn.v2alpha1.FilterConfig", "udpa.type.v1.TypedStruct"] {
        assert!(printed.contains(filter), "{filter} is among istiod's filters");
    }
}

#[tokio::test]
async fn a_rejection_reaches_istiod_with_its_detail() {
    let istiod = Istiod::start(&[("services.yaml", SERVICES)]).await;
    let mut consumer = Consumer::new(client(&istiod).open(node(1)));
    consumer.reject = Some((ResourceType::Listener, "virtualInbound: filter_chains[0]: is not wanted here"));

    consumer.settle().await;

    let status = &consumer.stream.status().types[&ResourceType::Listener];
    assert_eq!((status.acked, status.nacked), (0, 1));
    eventually("istiod knows the detail", async || {
        istiod.debug("/debug/syncz").await.contains("filter_chains[0]: is not wanted here")
    })
    .await;
}

#[tokio::test]
async fn an_edit_delivers_what_changed_and_nothing_else() {
    let istiod = Istiod::start(&[("services.yaml", SERVICES)]).await;
    let mut consumer = Consumer::new(client(&istiod).open(node(1)));
    consumer.settle().await;
    consumer.deliveries.clear();

    istiod.write("services.yaml", &SERVICES.replace("10.77.0.12", "10.77.0.13"));
    consumer.settle().await;

    let changed: Vec<_> = consumer.deliveries.iter().map(|delivery| delivery.resource_type).collect();
    assert_eq!(changed, [ResourceType::ClusterLoadAssignment]);
}

#[tokio::test]
async fn a_stream_survives_the_death_of_istiod_with_its_state() {
    let mut istiod = Istiod::start(&[("services.yaml", SERVICES), ("second.yaml", SECOND)]).await;
    let mut consumer = Consumer::new(client(&istiod).open(node(1)));
    consumer.settle().await;
    let before = consumer.resources.clone();
    consumer.deliveries.clear();

    istiod.kill().await;
    let status = consumer.stream.watch_status();
    eventually("the loss is noticed", async || status.borrow().connected_since.is_none()).await;
    istiod.remove("second.yaml");
    consumer.settle().await;
    assert_eq!(consumer.resources, before, "nothing is withdrawn while istiod is away");
    istiod.restart().await;
    eventually("the stream is back", async || status.borrow().connected_since.is_some()).await;
    consumer.settle().await;

    let second = "outbound|7000||second.default.svc.cluster.local";
    assert!(!consumer.has(ResourceType::Cluster, second), "what was deleted meanwhile is withdrawn");
    assert!(!consumer.has(ResourceType::Listener, "10.96.0.20_7000"));
    let unnamed = |name: &&String| name.is_empty();
    let (names, upserted): (Vec<_>, Vec<_>) =
        consumer.deliveries.iter().flat_map(|delivery| &delivery.upserted).partition(unnamed);
    assert_eq!(names.len(), 1, "the name table has lost a name");
    assert!(upserted.is_empty(), "what did not change is not delivered again: {upserted:?}");
    eventually("istiod reports the proxy as synced", async || istiod.is_synced("client-1.default").await)
        .await;
}

#[tokio::test]
async fn many_workloads_share_a_connection_and_none_is_refused() {
    let istiod = Istiod::start(&[("services.yaml", SERVICES)]).await;
    let client = client(&istiod);

    let mut consumers: Vec<_> = (0..30).map(|index| Consumer::new(client.open(node(index)))).collect();
    for consumer in &mut consumers {
        consumer.settle().await;
    }

    for consumer in &consumers {
        assert!(consumer.has(ResourceType::RouteConfiguration, "8080"));
        assert_eq!(consumer.stream.status().last_error, None);
    }
}

#[tokio::test]
async fn a_dropped_stream_is_closed_at_istiod() {
    let istiod = Istiod::start(&[("services.yaml", SERVICES)]).await;
    let client = client(&istiod);
    let mut consumer = Consumer::new(client.open(node(1)));
    consumer.settle().await;

    drop(consumer);

    eventually("istiod forgets the proxy", async || !istiod.debug("/debug/syncz").await.contains("client-1"))
        .await;
}
