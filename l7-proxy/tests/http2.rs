//! HTTP/2 on either side, gRPC's trailers, and the translation to and from HTTP/1.1.

#![allow(clippy::unwrap_used, reason = "helpers of tests fail the test")]

mod support;

use std::future::poll_fn;
use std::net::TcpStream;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use bytes::Bytes;
use h2::{RecvStream, client, server};
use http::{HeaderMap, Request, Response};
use orlop_plan::resource::cluster::{Cluster, UpstreamProtocol};
use orlop_plan::resource::route::{Action, RouteAction};
use support::http::{Client, backend, ok};
use support::http_plan::{http_listener, istio_retry_policy, route, route_action};
use support::plan::{Plan, eds, endpoint};
use support::{Pod, Proxied, block_on};

const VIP: &str = "10.96.0.1:80";
const BACKEND: &str = "10.77.0.2:8080";

fn served(pod: &Pod, protocol: UpstreamProtocol) -> Proxied {
    served_by(pod, protocol, route_action("backend"))
}

fn served_by(pod: &Pod, protocol: UpstreamProtocol, action: RouteAction) -> Proxied {
    let cluster = Cluster { protocol, ..eds("backend") };
    let plan = Plan::new()
        .outbound(VIP, http_listener(vec![route("/", Action::Route(Box::new(action)))]))
        .cluster_with(cluster, &[endpoint(BACKEND.parse().unwrap())]);
    pod.proxied(plan.build())
}

type Sender = client::SendRequest<Bytes>;

async fn connected(stream: TcpStream) -> Sender {
    stream.set_nonblocking(true).unwrap();
    let io = tokio::net::TcpStream::from_std(stream).unwrap();
    let (sender, connection) = client::handshake(io).await.unwrap();
    tokio::spawn(connection);
    sender.ready().await.unwrap()
}

/// Status, body and trailers of a stream.
struct Answer {
    head: Response<()>,
    body: String,
    trailers: Option<HeaderMap>,
}

async fn send(sender: &Sender, request: Request<()>, body: &str) -> Result<Answer, h2::Error> {
    let mut sender = sender.clone().ready().await?;
    let (response, mut stream) = sender.send_request(request, body.is_empty())?;
    if !body.is_empty() {
        stream.send_data(Bytes::from(body.to_owned()), true)?;
    }
    let (head, mut body) = response.await?.into_parts();
    let (body, trailers) = read(&mut body).await?;
    Ok(Answer { head: Response::from_parts(head, ()), body, trailers })
}

async fn read(body: &mut RecvStream) -> Result<(String, Option<HeaderMap>), h2::Error> {
    let mut text = String::new();
    while let Some(data) = body.data().await {
        let data = data?;
        body.flow_control().release_capacity(data.len())?;
        text.push_str(std::str::from_utf8(&data).unwrap());
    }
    Ok((text, body.trailers().await?))
}

fn request(method: &str, path: &str) -> Request<()> {
    Request::builder().method(method).uri(format!("http://a.example{path}")).body(()).unwrap()
}

/// An HTTP/2 backend that says what it was asked, with trailers as gRPC has them. Counts its connections.
fn h2_backend(pod: &Pod, delay: Duration) -> Arc<AtomicUsize> {
    let connections = Arc::new(AtomicUsize::new(0));
    let counted = Arc::clone(&connections);
    support::tcp::serve(pod.listen_outside(BACKEND), move |stream, _| {
        counted.fetch_add(1, Ordering::Relaxed);
        block_on(async {
            stream.set_nonblocking(true).unwrap();
            let io = tokio::net::TcpStream::from_std(stream).unwrap();
            let mut connection = server::handshake(io).await.unwrap();
            while let Some(Ok((request, respond))) = connection.accept().await {
                tokio::spawn(answer(request, respond, delay));
            }
        });
    });
    connections
}

async fn answer(request: Request<RecvStream>, mut respond: server::SendResponse<Bytes>, delay: Duration) {
    let (head, mut body) = request.into_parts();
    let (body, trailers) = read(&mut body).await.unwrap();
    tokio::time::sleep(delay).await;
    if head.uri.path() == "/refuse" {
        return respond.send_reset(h2::Reason::REFUSED_STREAM);
    }
    if head.uri.path() == "/reset" {
        return respond.send_reset(h2::Reason::INTERNAL_ERROR);
    }
    let response = Response::builder().header("content-type", "application/grpc").body(()).unwrap();
    let mut stream = respond.send_response(response, false).unwrap();
    let authority = head.uri.authority().unwrap();
    let trailers = trailers.is_some();
    let text = format!("{} {authority} {} [{body}] trailers {trailers}", head.method, head.uri.path());
    stream.send_data(text.into(), false).unwrap();
    let trailers = [("grpc-status", "0")].map(|(k, v)| (k.parse().unwrap(), v.parse().unwrap()));
    stream.send_trailers(HeaderMap::from_iter(trailers)).unwrap();
}

#[test]
fn streams_reach_an_http_1_backend() {
    let pod = Pod::new();
    let backend =
        backend(pod.listen_outside(BACKEND), |request| ok(std::str::from_utf8(&request.body).unwrap()));
    let _proxied = served(&pod, UpstreamProtocol::Http1);

    block_on(async {
        let sender = connected(pod.connect(VIP)).await;
        let mut crumbs = request("POST", "/path?query");
        crumbs.headers_mut().append("cookie", "a=1".parse().unwrap());
        crumbs.headers_mut().append("cookie", "b=2".parse().unwrap());
        let answer = send(&sender, crumbs, "hello").await.unwrap();
        assert_eq!((answer.head.status().as_u16(), answer.body.as_str()), (200, "hello"));
        assert_eq!(answer.head.headers()["server"], "istio-envoy");
    });

    let request = backend.request();
    assert_eq!(request.line(), "POST /path?query HTTP/1.1");
    assert_eq!(request.header("host"), Some("a.example"));
    assert_eq!(request.header("transfer-encoding"), Some("chunked"));
    assert_eq!(request.header("cookie"), Some("a=1; b=2"));
}

#[test]
fn requests_of_http_1_reach_an_http_2_backend() {
    let pod = Pod::new();
    let connections = h2_backend(&pod, Duration::ZERO);
    let _proxied = served(&pod, UpstreamProtocol::Http2);
    let mut client = Client::new(pod.connect(VIP));

    assert_eq!(client.get("/get").body, "GET a.example /get [] trailers false");
    client.send("POST /post HTTP/1.1\r\nhost: a\r\ncontent-length: 5\r\n\r\nhello");
    assert_eq!(client.receive().body, "POST a /post [hello] trailers false");
    assert_eq!(connections.load(Ordering::Relaxed), 1);
}

#[test]
fn an_upgrade_does_not_reach_an_http_2_backend_as_something_else() {
    let pod = Pod::new();
    let connections = h2_backend(&pod, Duration::ZERO);
    let _proxied = served(&pod, UpstreamProtocol::Http2);
    let mut client = Client::new(pod.connect(VIP));

    client.send("GET /chat HTTP/1.1\r\nhost: a\r\nconnection: upgrade\r\nupgrade: websocket\r\n\r\n");
    assert_eq!(client.receive().status(), 503);
    assert_eq!(connections.load(Ordering::Relaxed), 0);
}

#[test]
fn grpc_passes_with_its_trailers() {
    let pod = Pod::new();
    let _connections = h2_backend(&pod, Duration::ZERO);
    let proxied = served(&pod, UpstreamProtocol::Downstream);

    block_on(async {
        let sender = connected(pod.connect(VIP)).await;
        let mut call = request("POST", "/service/method");
        call.headers_mut().insert("content-type", "application/grpc".parse().unwrap());
        call.headers_mut().insert("te", "trailers".parse().unwrap());
        let answer = send(&sender, call, "message").await.unwrap();
        assert_eq!(answer.body, "POST a.example /service/method [message] trailers false");
        assert_eq!(answer.trailers.unwrap()["grpc-status"], "0");
    });
    assert!(proxied.stats().response_flags.is_empty());
}

#[test]
fn many_streams_at_a_time_share_one_upstream_connection() {
    let pod = Pod::new();
    let connections = h2_backend(&pod, Duration::from_millis(100));
    let _proxied = served(&pod, UpstreamProtocol::Http2);

    block_on(async {
        let sender = connected(pod.connect(VIP)).await;
        let streams = (0..50).map(|n| {
            let sender = sender.clone();
            tokio::spawn(async move { send(&sender, request("GET", &format!("/{n}")), "").await.unwrap() })
        });
        for (n, stream) in streams.collect::<Vec<_>>().into_iter().enumerate() {
            assert_eq!(stream.await.unwrap().body, format!("GET a.example /{n} [] trailers false"));
        }
    });
    assert_eq!(connections.load(Ordering::Relaxed), 1);
}

#[test]
fn failures_to_a_grpc_client_are_grpc_statuses() {
    let pod = Pod::new();
    let proxied = served(&pod, UpstreamProtocol::Http2);

    block_on(async {
        let sender = connected(pod.connect(VIP)).await;
        let mut call = request("POST", "/service/method");
        call.headers_mut().insert("content-type", "application/grpc".parse().unwrap());
        let answer = send(&sender, call, "").await.unwrap();
        assert_eq!(answer.head.status(), 200);
        assert_eq!(answer.head.headers()["grpc-status"], "14");
        assert_eq!(
            answer.head.headers()["grpc-message"],
            "upstream connect error or disconnect/reset before headers. reset reason: remote connection failure"
        );
    });
    proxied.expect_flag("UF", 1);
}

#[test]
fn a_refused_stream_is_tried_again_and_a_reset_one_is_not() {
    let pod = Pod::new();
    let _connections = h2_backend(&pod, Duration::ZERO);
    let action =
        RouteAction { retry_policy: Some(Arc::new(istio_retry_policy())), ..route_action("backend") };
    let proxied = served_by(&pod, UpstreamProtocol::Http2, action);
    let mut client = Client::new(pod.connect(VIP));

    let refused = client.get("/refuse");
    assert_eq!(refused.status(), 503);
    assert_eq!(proxied.stats().clusters["backend"].requests, 3);
    let reset = client.get("/reset");
    assert!(reset.body.ends_with("reset reason: remote reset"), "{}", reset.body);
    assert_eq!(proxied.stats().clusters["backend"].requests, 4);
    proxied.expect_flag("UR", 2);
}

#[test]
fn a_client_that_resets_its_stream_cancels_its_request() {
    let pod = Pod::new();
    let _connections = h2_backend(&pod, Duration::from_mins(1));
    let proxied = served(&pod, UpstreamProtocol::Http2);

    block_on(async {
        let mut sender = connected(pod.connect(VIP)).await;
        let (_response, mut stream) = sender.send_request(request("GET", "/"), true).unwrap();
        while proxied.stats().clusters.get("backend").is_none_or(|cluster| cluster.requests == 0) {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        stream.send_reset(h2::Reason::CANCEL);
        while proxied.flag("DC") == 0 {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    });
}

#[test]
fn a_route_timeout_over_http_2_runs_from_the_end_of_the_request() {
    let pod = Pod::new();
    let _connections = h2_backend(&pod, Duration::from_mins(1));
    let action = RouteAction { timeout: Some(Duration::from_millis(200)), ..route_action("backend") };
    let proxied = served_by(&pod, UpstreamProtocol::Http2, action);

    block_on(async {
        let mut sender = connected(pod.connect(VIP)).await;
        let (response, mut stream) = sender.send_request(request("POST", "/"), false).unwrap();
        tokio::time::sleep(Duration::from_millis(400)).await;
        assert_eq!(proxied.flag("UT"), 0, "the request is not over yet");
        stream.send_data(Bytes::from_static(b"x"), true).unwrap();
        assert_eq!(response.await.unwrap().status(), 504);
    });
    proxied.expect_flag("UT", 1);
}

#[test]
fn a_released_pod_finishes_open_streams() {
    let pod = Pod::new();
    let _connections = h2_backend(&pod, Duration::from_millis(300));
    let proxied = served(&pod, UpstreamProtocol::Http2);

    block_on(async {
        let mut sender = connected(pod.connect(VIP)).await;
        let (response, _) = sender.send_request(request("GET", "/"), true).unwrap();
        while proxied.stats().clusters.get("backend").is_none_or(|cluster| cluster.requests == 0) {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        let drained = proxied.proxy.release(support::NAME, Duration::from_secs(5)).unwrap();
        assert_eq!(response.await.unwrap().status(), 200);
        drained.await;
        assert!(poll_fn(|cx| sender.poll_ready(cx)).await.is_err(), "no new streams");
    });
}
