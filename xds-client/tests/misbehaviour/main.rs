//! Control planes that flap, hang, talk nonsense, break off or are too big: what was accepted stays, each fault is named,
//! and no server is asked again and again.

#![expect(clippy::unwrap_used, clippy::expect_used, reason = "a test fails by panicking")]

mod server;

use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::time::Duration;

use envoy_types::pb::envoy::service::discovery::v3::DeltaDiscoveryResponse;
use orlop_xds_client::{
    BackoffBounds, Client, ControlPlane, GrpcOptions, Node, Protocol, RenewalWindow, ResourceType, Stream,
    StreamStatus, Subscriptions, WorkloadNode,
};
use tokio::io::{AsyncReadExt, AsyncWriteExt, copy};
use tokio::net::{TcpListener, TcpStream};
use tokio::time::{sleep, timeout};
use tonic::Status;

use server::{Behaviour, Server, clusters};

/// Far above what anything takes here, so that only a failure reaches it.
const PATIENCE: Duration = Duration::from_secs(10);
/// Far above what an unchanged delivery would take to come.
const QUIET: Duration = Duration::from_millis(300);

fn options() -> GrpcOptions {
    let backoff = BackoffBounds {
        initial: Duration::from_millis(20),
        max: Duration::from_millis(40),
        stable: Duration::from_secs(5),
    };
    GrpcOptions { backoff, stream_interval: Duration::from_millis(1), ..GrpcOptions::default() }
}

fn open(address: SocketAddr, options: GrpcOptions) -> Stream {
    client(address, options).open(node("client-0"))
}

fn client(address: SocketAddr, options: GrpcOptions) -> Client {
    let control_plane = ControlPlane::Grpc {
        address: address.to_string(),
        protocol: Protocol::Delta,
        root_certificate: None,
    };
    Client::new(control_plane, options).unwrap()
}

fn node(name: &str) -> Node {
    WorkloadNode { name: name.into(), namespace: "default".into(), ..WorkloadNode::default() }.into()
}

/// Accepts the next delivery, and says which clusters came.
async fn accept(stream: &mut Stream) -> Vec<String> {
    let delivery = timeout(PATIENCE, stream.next()).await.expect("a delivery").expect("the stream goes on");
    assert_eq!(delivery.resource_type, ResourceType::Cluster);
    let names = delivery.upserted.iter().map(|resource| resource.name.clone()).collect();
    delivery.accept(Subscriptions::default());
    names
}

async fn until(stream: &Stream, reached: impl FnMut(&StreamStatus) -> bool) -> StreamStatus {
    let mut status = stream.watch_status();
    timeout(PATIENCE, status.wait_for(reached)).await.expect("the status is reached").unwrap().clone()
}

#[tokio::test]
async fn an_answer_before_hanging_up_does_not_reset_the_delay() {
    let server = Server::start(|_| {
        Behaviour::SendAndFail(vec![clusters("n1", &["a"], 1)], Status::unavailable("not now"))
    })
    .await;
    let backoff = BackoffBounds {
        initial: Duration::from_millis(20),
        max: Duration::from_secs(30),
        stable: Duration::from_secs(5),
    };

    let mut stream = open(server.address, GrpcOptions { backoff, ..options() });
    accept(&mut stream).await;
    sleep(Duration::from_secs(2)).await;

    // Delays are random below a ceiling that doubles; without it there would be a hundred streams.
    let opened = server.opened().len();
    assert!((2..30).contains(&opened), "{opened}");
    let status = stream.status();
    assert_eq!(status.last_error.as_deref(), Some("Unavailable: not now"));
    assert_eq!(status.types[&ResourceType::Cluster].resources, 1, "what was accepted stays");
}

#[tokio::test]
async fn a_stream_that_is_never_answered_is_given_up_and_tried_again() {
    let server = Server::start(|number| match number {
        0 => Behaviour::Hang,
        _ => Behaviour::Send(vec![clusters("n1", &["a"], 1)]),
    })
    .await;

    let mut stream =
        open(server.address, GrpcOptions { first_response: Duration::from_millis(200), ..options() });

    let status = until(&stream, |status| status.last_error.is_some()).await;
    assert_eq!(status.last_error.as_deref(), Some("no answer to the first request within 0.2 s"));
    assert_eq!(accept(&mut stream).await, ["a"]);
}

#[tokio::test]
async fn a_push_of_more_than_4_mb_is_taken() {
    let server = Server::start(|_| Behaviour::Send(vec![clusters("n1", &["a", "b"], 3 << 20)])).await;

    let mut stream = open(server.address, options());

    assert_eq!(accept(&mut stream).await, ["a", "b"]);
}

#[tokio::test]
async fn a_response_above_the_limit_is_refused_with_both_sizes() {
    let server = Server::start(|_| Behaviour::Send(vec![clusters("n1", &["a"], 2 << 20)])).await;

    let stream = open(server.address, GrpcOptions { max_response_bytes: 1 << 20, ..options() });

    let status = until(&stream, |status| status.last_error.is_some()).await;
    let error = status.last_error.unwrap();
    assert!(error.starts_with("OutOfRange: "), "{error}");
    assert!(error.contains("2097") && error.contains("1048576"), "{error}");
}

#[tokio::test]
async fn a_connection_that_breaks_in_the_middle_of_a_message_is_made_again() {
    let server = Server::start(|_| Behaviour::Send(vec![clusters("n1", &["a"], 1 << 20)])).await;
    // Cuts the first connection after half of the message.
    let relay = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = relay.local_addr().unwrap();
    let upstream = server.address;
    tokio::spawn(async move {
        for limit in [512 << 10, u64::MAX] {
            let (client, _) = relay.accept().await.unwrap();
            let server = TcpStream::connect(upstream).await.unwrap();
            tokio::spawn(async move {
                let (mut from_client, mut to_client) = client.into_split();
                let (from_server, mut to_server) = server.into_split();
                let up = tokio::spawn(async move { copy(&mut from_client, &mut to_server).await });
                let _ = copy(&mut from_server.take(limit), &mut to_client).await;
                let _ = to_client.shutdown().await;
                up.abort();
            });
        }
    });

    let mut stream = open(address, options());

    assert_eq!(accept(&mut stream).await, ["a"]);
    assert_eq!(server.opened().len(), 2);
    assert!(stream.status().last_error.is_some());
}

#[tokio::test]
async fn responses_of_types_that_were_not_asked_for_are_dropped_and_counted() {
    let server = Server::start(|_| {
        let of = |type_url: &str, nonce: &str| DeltaDiscoveryResponse {
            type_url: type_url.into(),
            nonce: nonce.into(),
            ..DeltaDiscoveryResponse::default()
        };
        Behaviour::Send(vec![
            of("acme.Thing", "n1"),
            of(ResourceType::Secret.type_url(), "n2"),
            clusters("n3", &["a"], 1),
        ])
    })
    .await;

    let mut stream = open(server.address, options());

    assert_eq!(accept(&mut stream).await, ["a"]);
    assert_eq!(stream.status().unasked, 2);
    assert!(server.answers_to("n1").is_empty() && server.answers_to("n2").is_empty());
}

#[tokio::test]
async fn a_response_that_contradicts_itself_is_refused_as_a_whole_and_the_next_is_not() {
    let server = Server::start(|_| {
        let twice = clusters("n1", &["a", "a"], 1);
        let mut both = clusters("n2", &["b"], 1);
        both.removed_resources.push("b".into());
        Behaviour::Send(vec![twice, both, clusters("n3", &["c"], 1)])
    })
    .await;

    let mut stream = open(server.address, options());

    assert_eq!(accept(&mut stream).await, ["c"]);
    until(&stream, |status| status.types.get(&ResourceType::Cluster).is_some_and(|of| of.acked == 1)).await;
    sleep(Duration::from_millis(50)).await;
    let detail = |nonce| {
        let [answer] = &*server.answers_to(nonce) else { panic!("{nonce} is answered once") };
        answer.error_detail.as_ref().map(|status| status.message.clone())
    };
    assert_eq!(detail("n1").as_deref(), Some("cluster 'a': is in the response twice"));
    assert_eq!(detail("n2").as_deref(), Some("cluster 'b': removed_resources: names it once more"));
    assert_eq!(detail("n3"), None);
}

#[tokio::test]
async fn an_old_nonce_is_answered_like_any_other_and_old_content_goes_no_further() {
    let server = Server::start(|_| {
        Behaviour::Send(vec![clusters("n1", &["a"], 1), clusters("n2", &["b"], 1), clusters("n1", &["a"], 1)])
    })
    .await;

    let mut stream = open(server.address, options());

    let mut delivered = accept(&mut stream).await;
    while let Ok(Some(delivery)) = timeout(QUIET, stream.next()).await {
        delivered.extend(delivery.upserted.iter().map(|resource| resource.name.clone()));
        delivery.accept(Subscriptions::default());
    }
    assert_eq!(delivered, ["a", "b"]);
    assert_eq!(server.answers_to("n1").len(), 2);
}

#[tokio::test]
async fn streams_move_to_one_fresh_connection_before_the_server_ends_the_old_one() {
    let server = Server::start(|_| Behaviour::Send(vec![clusters("n1", &["a"], 1)])).await;
    let renewal = RenewalWindow { earliest: Duration::from_secs(1), latest: Duration::from_millis(1500) };
    let client = client(server.address, GrpcOptions { renewal, ..options() });
    let mut streams: Vec<_> = (0..5).map(|index| client.open(node(&format!("client-{index}")))).collect();
    for stream in &mut streams {
        accept(stream).await;
    }

    for stream in &mut streams {
        until(stream, |status| status.renewals == 1).await;
    }
    sleep(QUIET).await;

    let opened = server.opened();
    let peers = |range: &[server::Opened]| range.iter().map(|opened| opened.peer).collect::<BTreeSet<_>>();
    assert_eq!(peers(&opened[..5]).len(), 1, "one connection for all");
    assert_eq!(peers(&opened[5..10]).len(), 1, "and one fresh connection for all");
    assert_ne!(peers(&opened[..5]), peers(&opened[5..10]));
    let moved: Vec<_> = opened[5..10].iter().map(|later| later.at - opened[0].at).collect();
    assert!(moved.iter().all(|age| (900..2_500).contains(&age.as_millis())), "{moved:?}");
    for stream in &mut streams {
        assert!(timeout(Duration::from_millis(10), stream.next()).await.is_err(), "nothing has changed");
        assert_eq!(stream.status().last_error, None);
    }
}
