//! A control plane that does what a test tells it, in the same process.

use std::future::pending;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use envoy_types::pb::envoy::config::cluster::v3::Cluster;
use envoy_types::pb::envoy::service::discovery::v3::aggregated_discovery_service_server::{
    AggregatedDiscoveryService, AggregatedDiscoveryServiceServer,
};
use envoy_types::pb::envoy::service::discovery::v3::{
    DeltaDiscoveryRequest, DeltaDiscoveryResponse, DiscoveryRequest, DiscoveryResponse, Resource,
};
use envoy_types::pb::google::protobuf::Any;
use futures_util::{Stream, StreamExt};
use hyper::server::conn::http2;
use hyper_util::rt::{TokioExecutor, TokioIo};
use hyper_util::service::TowerToHyperService;
use prost::{Message, Name};
use tokio::net::TcpListener;
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Request, Response, Status, Streaming};

/// What the server does with a stream, by its number from 0.
pub(crate) type Script = fn(usize) -> Behaviour;

#[derive(Clone)]
pub(crate) enum Behaviour {
    /// Sends these and leaves the stream open.
    Send(Vec<DeltaDiscoveryResponse>),
    /// Sends these and ends the stream with a status.
    SendAndFail(Vec<DeltaDiscoveryResponse>, Status),
    /// Says nothing.
    Hang,
}

/// A stream as the server saw it.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Opened {
    pub(crate) at: Instant,
    /// Tells connections apart.
    pub(crate) peer: SocketAddr,
}

#[derive(Default)]
struct Log {
    opened: Vec<Opened>,
    requests: Vec<DeltaDiscoveryRequest>,
}

pub(crate) struct Server {
    pub(crate) address: SocketAddr,
    log: Arc<Mutex<Log>>,
}

impl Server {
    pub(crate) async fn start(script: Script) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let log = Arc::new(Mutex::new(Log::default()));
        let log_of_all = Arc::clone(&log);
        tokio::spawn(async move {
            while let Ok((connection, peer)) = listener.accept().await {
                let service = Service { script, peer, log: Arc::clone(&log_of_all) };
                let ads =
                    AggregatedDiscoveryServiceServer::new(service).max_encoding_message_size(usize::MAX);
                let serve = http2::Builder::new(TokioExecutor::new())
                    .serve_connection(TokioIo::new(connection), TowerToHyperService::new(ads));
                tokio::spawn(serve);
            }
        });
        Self { address, log }
    }

    pub(crate) fn opened(&self) -> Vec<Opened> {
        self.log.lock().unwrap().opened.clone()
    }

    /// Requests that answer this nonce.
    pub(crate) fn answers_to(&self, nonce: &str) -> Vec<DeltaDiscoveryRequest> {
        let log = self.log.lock().unwrap();
        log.requests.iter().filter(|request| request.response_nonce == nonce).cloned().collect()
    }
}

struct Service {
    script: Script,
    peer: SocketAddr,
    log: Arc<Mutex<Log>>,
}

type Responses<T> = Pin<Box<dyn Stream<Item = Result<T, Status>> + Send>>;

#[tonic::async_trait]
impl AggregatedDiscoveryService for Service {
    type StreamAggregatedResourcesStream = Responses<DiscoveryResponse>;
    type DeltaAggregatedResourcesStream = Responses<DeltaDiscoveryResponse>;

    async fn stream_aggregated_resources(
        &self,
        _: Request<Streaming<DiscoveryRequest>>,
    ) -> Result<Response<Responses<DiscoveryResponse>>, Status> {
        Err(Status::unimplemented("state of the world"))
    }

    async fn delta_aggregated_resources(
        &self,
        request: Request<Streaming<DeltaDiscoveryRequest>>,
    ) -> Result<Response<Responses<DeltaDiscoveryResponse>>, Status> {
        let number = {
            let mut log = self.log.lock().unwrap();
            log.opened.push(Opened { at: Instant::now(), peer: self.peer });
            log.opened.len() - 1
        };
        let mut requests = request.into_inner();
        let (asked, mut first) = mpsc::channel(1);
        let log = Arc::clone(&self.log);
        tokio::spawn(async move {
            while let Some(Ok(request)) = requests.next().await {
                log.lock().unwrap().requests.push(request);
                let _ = asked.try_send(());
            }
        });
        let behaviour = (self.script)(number);
        let (sender, receiver) = mpsc::channel(16);
        tokio::spawn(async move {
            first.recv().await;
            let (responses, end) = match behaviour {
                Behaviour::Hang => return pending().await,
                Behaviour::Send(responses) => (responses, None),
                Behaviour::SendAndFail(responses, status) => (responses, Some(status)),
            };
            // Give the client the time to ask for everything.
            tokio::time::sleep(Duration::from_millis(20)).await;
            for response in responses {
                let _ = sender.send(Ok(response)).await;
            }
            match end {
                Some(status) => drop(sender.send(Err(status)).await),
                None => sender.closed().await,
            }
        });
        Ok(Response::new(ReceiverStream::new(receiver).boxed()))
    }
}

/// A response of clusters, each of about so many bytes.
pub(crate) fn clusters(nonce: &str, names: &[&str], bytes: usize) -> DeltaDiscoveryResponse {
    let resource = |name: &&str| {
        let alt_stat_name = "x".repeat(bytes);
        let cluster = Cluster { name: (*name).into(), alt_stat_name, ..Cluster::default() };
        Resource {
            name: (*name).into(),
            version: "1".into(),
            resource: Some(Any { type_url: Cluster::type_url(), value: cluster.encode_to_vec() }),
            ..Resource::default()
        }
    };
    DeltaDiscoveryResponse {
        type_url: Cluster::type_url(),
        nonce: nonce.into(),
        resources: names.iter().map(resource).collect(),
        ..DeltaDiscoveryResponse::default()
    }
}
