//! A control plane that sends what it was given: incremental ADS, one subscriber, no cleverness to be measured with.

use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError};

use anyhow::{Context, Result};
use envoy_types::pb::envoy::service::discovery::v3::aggregated_discovery_service_server::{
    AggregatedDiscoveryService, AggregatedDiscoveryServiceServer,
};
use envoy_types::pb::envoy::service::discovery::v3::{
    DeltaDiscoveryRequest, DeltaDiscoveryResponse, DiscoveryRequest, DiscoveryResponse, Resource,
};
use hyper::server::conn::http2;
use hyper_util::rt::{TokioExecutor, TokioIo};
use hyper_util::service::TowerToHyperService;
use prost::Message;
use tokio::net::TcpListener;
use tokio::runtime::Runtime;
use tokio::sync::mpsc;
use tokio_stream::wrappers::{ReceiverStream, UnboundedReceiverStream};
use tonic::{Request, Response, Status, Streaming};

use super::resources::{Mesh, Named};

/// The server and its threads; ends with this handle.
pub(super) struct Server {
    runtime: Runtime,
    address: SocketAddr,
    shared: Arc<Shared>,
}

#[derive(Default)]
struct Shared {
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    /// By type URL, then by name.
    resources: BTreeMap<String, BTreeMap<String, Resource>>,
    to_client: Option<mpsc::UnboundedSender<Result<DeltaDiscoveryResponse, Status>>>,
    asked_for: BTreeSet<String>,
    nonce: u64,
    acked: u64,
    nacks: Vec<String>,
}

impl Server {
    /// Serves the mesh on a free port.
    pub(super) fn start(mesh: Mesh) -> Result<Self> {
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build()?;
        let shared = Arc::new(Shared::default());
        for resource in
            [mesh.clusters, mesh.load_assignments, mesh.listeners, mesh.routes].into_iter().flatten()
        {
            shared.set(resource);
        }
        let listener = runtime.block_on(TcpListener::bind("127.0.0.1:0"))?;
        let address = listener.local_addr()?;
        let service = AggregatedDiscoveryServiceServer::new(Service(Arc::clone(&shared)))
            .max_decoding_message_size(64 << 20);
        runtime.spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                // Without it a change would wait for the answer to the one before.
                if stream.set_nodelay(true).is_err() {
                    continue;
                }
                let service = TowerToHyperService::new(service.clone());
                let connection = http2::Builder::new(TokioExecutor::new());
                tokio::spawn(connection.serve_connection(TokioIo::new(stream), service));
            }
        });
        Ok(Self { runtime, address, shared })
    }

    /// Where it serves.
    pub(super) fn address(&self) -> SocketAddr {
        self.address
    }

    /// Bytes of all resources.
    pub(super) fn wire_bytes(&self) -> usize {
        let state = self.shared.lock();
        state.resources.values().flat_map(BTreeMap::values).map(Message::encoded_len).sum()
    }

    /// Sends one resource anew.
    pub(super) fn push(&self, resource: Named) -> Result<()> {
        let type_url = resource.1.type_url.clone();
        let sent = self.shared.set(resource);
        let _in_runtime = self.runtime.enter();
        self.shared.send(&type_url, vec![sent]).context("the agent is not connected")
    }

    /// Responses that were acknowledged; an error if one was refused.
    pub(super) fn acked(&self) -> Result<u64> {
        let state = self.shared.lock();
        anyhow::ensure!(state.nacks.is_empty(), "refused: {}", state.nacks.join("\n"));
        Ok(state.acked)
    }
}

impl Shared {
    fn lock(&self) -> std::sync::MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn set(&self, (name, body): Named) -> Resource {
        let mut state = self.lock();
        let by_name = state.resources.entry(body.type_url.clone()).or_default();
        let resource = Resource {
            name: name.clone(),
            version: "1".to_owned(),
            resource: Some(body),
            ..Resource::default()
        };
        by_name.insert(name, resource.clone());
        resource
    }

    /// `None` without a client.
    fn send(&self, type_url: &str, resources: Vec<Resource>) -> Option<()> {
        let mut state = self.lock();
        state.nonce += 1;
        let response = DeltaDiscoveryResponse {
            system_version_info: "1".to_owned(),
            type_url: type_url.to_owned(),
            nonce: state.nonce.to_string(),
            resources,
            ..DeltaDiscoveryResponse::default()
        };
        state.to_client.as_ref()?.send(Ok(response)).ok()
    }

    fn request(&self, request: DeltaDiscoveryRequest) {
        if !request.response_nonce.is_empty() {
            let mut state = self.lock();
            match request.error_detail {
                Some(detail) => state.nacks.push(format!("{}: {}", request.type_url, detail.message)),
                None => state.acked += 1,
            }
        }
        let names = &request.resource_names_subscribe;
        let resources: Vec<Resource> = {
            let mut state = self.lock();
            // The first request of a type without a name means all.
            let first = state.asked_for.insert(request.type_url.clone());
            if names.is_empty() && !first {
                return;
            }
            let none = BTreeMap::new();
            let all = state.resources.get(&request.type_url).unwrap_or(&none);
            if names.iter().all(|name| name == "*") {
                all.values().cloned().collect()
            } else {
                names.iter().filter_map(|name| all.get(name).cloned()).collect()
            }
        };
        // A client that went away meanwhile asks again.
        let _: Option<()> = self.send(&request.type_url, resources);
    }
}

struct Service(Arc<Shared>);

#[tonic::async_trait]
impl AggregatedDiscoveryService for Service {
    type StreamAggregatedResourcesStream = ReceiverStream<Result<DiscoveryResponse, Status>>;

    async fn stream_aggregated_resources(
        &self,
        _: Request<Streaming<DiscoveryRequest>>,
    ) -> Result<Response<Self::StreamAggregatedResourcesStream>, Status> {
        Err(Status::unimplemented("incremental only"))
    }

    type DeltaAggregatedResourcesStream =
        Pin<Box<UnboundedReceiverStream<Result<DeltaDiscoveryResponse, Status>>>>;

    async fn delta_aggregated_resources(
        &self,
        requests: Request<Streaming<DeltaDiscoveryRequest>>,
    ) -> Result<Response<Self::DeltaAggregatedResourcesStream>, Status> {
        let (to_client, responses) = mpsc::unbounded_channel();
        {
            let mut state = self.0.lock();
            state.to_client = Some(to_client);
            state.asked_for.clear();
        }
        let (shared, mut requests) = (Arc::clone(&self.0), requests.into_inner());
        tokio::spawn(async move {
            while let Ok(Some(request)) = requests.message().await {
                shared.request(request);
            }
        });
        Ok(Response::new(Box::pin(UnboundedReceiverStream::new(responses))))
    }
}
