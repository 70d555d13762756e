//! A directory of files as the control plane, edited in the ways that people and tools edit directories.

#![expect(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a test fails by panicking")]

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::symlink;
use std::path::Path;
use std::time::Duration;

use envoy_types::pb::envoy::config::cluster::v3::Cluster;
use envoy_types::pb::envoy::service::discovery::v3::DiscoveryResponse;
use envoy_types::pb::google::protobuf::{self, Any};
use orlop_xds_client::{
    Client, ClientError, ControlPlane, GrpcOptions, Node, ResourceType, Stream, StreamStatus, Subscriptions,
    WorkloadNode, names,
};
use prost::{Message, Name};
use tempfile::TempDir;
use tokio::time::timeout;

/// Far above what a change takes to arrive, so that only a failure reaches it.
const PATIENCE: Duration = Duration::from_secs(10);

fn client(path: &Path) -> Client {
    Client::new(ControlPlane::Directory { path: path.into() }, GrpcOptions::default()).unwrap()
}

fn open(client: &Client, workload: &str) -> Consumer {
    let node = Node::from(WorkloadNode { name: workload.into(), ..WorkloadNode::default() });
    Consumer { stream: client.open(node), wanted: Subscriptions::default(), timeouts: BTreeMap::new() }
}

/// A file of clusters, told apart by their connect timeouts in seconds.
fn clusters(clusters: &[(&str, u8)]) -> String {
    let type_url = ResourceType::Cluster.type_url();
    let resources = clusters.iter().map(|(name, timeout)| {
        format!("- {{\"@type\": {type_url}, name: {name}, connect_timeout: {timeout}s}}\n")
    });
    let resources: Vec<String> = resources.collect();
    format!("resources:\n{}", resources.concat())
}

/// Applies everything; remembers names, and the timeouts of clusters.
struct Consumer {
    stream: Stream,
    wanted: Subscriptions,
    timeouts: BTreeMap<String, i64>,
}

impl Consumer {
    /// Applies deliveries until it holds these clusters.
    async fn until(&mut self, expected: &[(&str, i64)]) {
        let expected: BTreeMap<String, i64> =
            expected.iter().map(|(name, timeout)| ((*name).to_owned(), *timeout)).collect();
        while self.timeouts != expected {
            let delivery = timeout(PATIENCE, self.stream.next())
                .await
                .unwrap_or_else(|_| panic!("{:?} instead of {expected:?}", self.timeouts))
                .expect("the stream goes on");
            for name in &delivery.removed {
                self.timeouts.remove(name);
            }
            for resource in &delivery.upserted {
                let cluster = Cluster::decode(resource.body.value.as_slice()).unwrap();
                self.timeouts
                    .insert(cluster.name, cluster.connect_timeout.map_or(0, |timeout| timeout.seconds));
            }
            delivery.accept(self.wanted.clone());
        }
    }

    async fn until_status(&mut self, reached: impl FnMut(&StreamStatus) -> bool) -> StreamStatus {
        let mut status = self.stream.watch_status();
        let found = timeout(PATIENCE, status.wait_for(reached)).await.expect("the status is reached");
        found.unwrap().clone()
    }
}

#[tokio::test]
async fn files_that_are_written_renamed_over_and_deleted_apply_as_they_change() {
    let root = TempDir::new().unwrap();
    let path = root.path().join("cds.yaml");
    fs::write(&path, clusters(&[("a", 1), ("b", 1)])).unwrap();
    let client = client(root.path());
    let mut consumer = open(&client, "client-0");
    consumer.until(&[("a", 1), ("b", 1)]).await;

    fs::write(root.path().join(".cds.tmp"), clusters(&[("a", 2)])).unwrap();
    fs::rename(root.path().join(".cds.tmp"), &path).unwrap();
    consumer.until(&[("a", 2)]).await;

    fs::write(root.path().join("more.yaml"), clusters(&[("c", 3)])).unwrap();
    consumer.until(&[("a", 2), ("c", 3)]).await;

    fs::remove_file(&path).unwrap();
    consumer.until(&[("c", 3)]).await;
}

#[tokio::test]
async fn a_config_map_that_swaps_its_data_link_applies_at_once() {
    let root = TempDir::new().unwrap();
    for (version, timeout) in [("..1", 1), ("..2", 2)] {
        fs::create_dir(root.path().join(version)).unwrap();
        fs::write(root.path().join(version).join("cds.yaml"), clusters(&[("a", timeout)])).unwrap();
    }
    symlink("..1", root.path().join("..data")).unwrap();
    symlink("..data/cds.yaml", root.path().join("cds.yaml")).unwrap();
    let client = client(root.path());
    let mut consumer = open(&client, "client-0");
    consumer.until(&[("a", 1)]).await;

    symlink("..2", root.path().join("..data_tmp")).unwrap();
    fs::rename(root.path().join("..data_tmp"), root.path().join("..data")).unwrap();

    consumer.until(&[("a", 2)]).await;
}

#[tokio::test]
async fn the_directory_itself_may_be_a_link_that_is_swapped() {
    let root = TempDir::new().unwrap();
    for (release, timeout) in [("1", 1), ("2", 2)] {
        fs::create_dir(root.path().join(release)).unwrap();
        fs::write(root.path().join(release).join("cds.yaml"), clusters(&[("a", timeout)])).unwrap();
    }
    let current = root.path().join("current");
    symlink("1", &current).unwrap();
    let client = client(&current);
    let mut consumer = open(&client, "client-0");
    consumer.until(&[("a", 1)]).await;

    symlink("2", root.path().join("next")).unwrap();
    fs::rename(root.path().join("next"), &current).unwrap();
    consumer.until(&[("a", 2)]).await;

    fs::write(current.join("cds.yaml"), clusters(&[("a", 3)])).unwrap();
    consumer.until(&[("a", 3)]).await;
}

#[tokio::test]
async fn a_subfolder_that_appears_later_overrides_for_its_workload_alone() {
    let root = TempDir::new().unwrap();
    fs::write(root.path().join("cds.yaml"), clusters(&[("a", 1), ("b", 1)])).unwrap();
    let client = client(root.path());
    let (mut named, mut other) = (open(&client, "client-0"), open(&client, "client-1"));
    named.until(&[("a", 1), ("b", 1)]).await;
    other.until(&[("a", 1), ("b", 1)]).await;

    fs::create_dir(root.path().join("client-0")).unwrap();
    fs::write(root.path().join("client-0/cds.yaml"), clusters(&[("b", 2), ("c", 2)])).unwrap();
    named.until(&[("a", 1), ("b", 2), ("c", 2)]).await;

    fs::write(root.path().join("client-0/cds.yaml"), clusters(&[("b", 3)])).unwrap();
    named.until(&[("a", 1), ("b", 3)]).await;
    assert!(timeout(Duration::from_millis(300), other.stream.next()).await.is_err(), "another workload");
}

#[tokio::test]
async fn a_malformed_file_changes_nothing_and_is_named_until_it_is_mended() {
    let root = TempDir::new().unwrap();
    let path = root.path().join("cds.yaml");
    fs::write(&path, clusters(&[("a", 1)])).unwrap();
    let client = client(root.path());
    let mut consumer = open(&client, "client-0");
    consumer.until(&[("a", 1)]).await;

    fs::write(&path, clusters(&[("a", 2)]).replace("connect_timeout", "timeout")).unwrap();
    let status = consumer.until_status(|status| !status.files.is_empty()).await;
    assert_eq!(status.files[0].path, path);
    assert!(status.files[0].error.starts_with("resources[0]: unrecognized field name 'timeout'"));
    assert!(timeout(Duration::from_millis(300), consumer.stream.next()).await.is_err());

    fs::write(&path, clusters(&[("a", 3)])).unwrap();
    consumer.until(&[("a", 3)]).await;
    consumer.until_status(|status| status.files.is_empty()).await;
}

#[tokio::test]
async fn endpoints_and_routes_come_when_they_are_subscribed_to() {
    let root = TempDir::new().unwrap();
    fs::write(root.path().join("cds.yaml"), clusters(&[("a", 1)])).unwrap();
    let endpoints = ["a", "b"].map(|name| Any {
        type_url: ResourceType::ClusterLoadAssignment.type_url().into(),
        // Field 1 is the name in all four types.
        value: Cluster { name: name.into(), ..Cluster::default() }.encode_to_vec(),
    });
    let response = DiscoveryResponse { resources: endpoints.into(), ..DiscoveryResponse::default() };
    fs::write(root.path().join("eds.pb"), response.encode_to_vec()).unwrap();
    let client = client(root.path());
    let mut consumer = open(&client, "client-0");
    consumer.wanted.endpoints = names(["a", "missing"]);
    consumer.until(&[("a", 1)]).await;

    let delivery = timeout(PATIENCE, consumer.stream.next()).await.unwrap().unwrap();

    assert_eq!(delivery.resource_type, ResourceType::ClusterLoadAssignment);
    let names: Vec<_> = delivery.upserted.iter().map(|resource| resource.name.as_str()).collect();
    assert_eq!(names, ["a"]);
    assert_eq!(delivery.removed, ["missing"]);
}

#[tokio::test]
async fn yaml_json_and_binary_say_the_same() {
    let root = TempDir::new().unwrap();
    fs::write(root.path().join("yaml.yaml"), clusters(&[("yaml", 1)])).unwrap();
    let json = r#"{"resources": [{
        "@type": "type.googleapis.com/envoy.config.cluster.v3.Cluster", "name": "json", "connect_timeout": "2s"
    }]}"#;
    fs::write(root.path().join("json.json"), json).unwrap();
    let binary = Cluster {
        name: "binary".into(),
        connect_timeout: Some(protobuf::Duration { seconds: 3, nanos: 0 }),
        ..Cluster::default()
    };
    let body = Any { type_url: ResourceType::Cluster.type_url().into(), value: binary.encode_to_vec() };
    let response = DiscoveryResponse { resources: vec![body], ..DiscoveryResponse::default() };
    fs::write(root.path().join("binary.pb"), response.encode_to_vec()).unwrap();
    let client = client(root.path());
    let mut consumer = open(&client, "client-0");

    consumer.until(&[("binary", 3), ("json", 2), ("yaml", 1)]).await;

    fs::write(root.path().join("json.json"), json.replace("2s", "4s")).unwrap();
    consumer.until(&[("binary", 3), ("json", 4), ("yaml", 1)]).await;
}

#[tokio::test]
async fn a_directory_that_does_not_exist_is_an_error_at_the_start() {
    let root = TempDir::new().unwrap();
    let path = root.path().join("missing");

    let error = Client::new(ControlPlane::Directory { path }, GrpcOptions::default()).unwrap_err();

    assert!(matches!(error, ClientError::Directory { .. }), "{error}");
}

#[test]
fn the_type_urls_are_those_of_the_messages() {
    assert_eq!(ResourceType::Cluster.type_url(), Cluster::type_url());
    for resource_type in ResourceType::ALL {
        assert_eq!(ResourceType::from_type_url(resource_type.type_url()), Some(resource_type));
    }
}
