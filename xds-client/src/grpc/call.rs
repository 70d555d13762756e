//! One call of the control plane's method, in either protocol.

use std::future::ready;
use std::pin::Pin;

use envoy_types::pb::envoy::service::discovery::v3::aggregated_discovery_service_client::AggregatedDiscoveryServiceClient;
use futures_util::{Stream, StreamExt, TryStreamExt, stream};
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::metadata::MetadataMap;
use tonic::transport::Channel;
use tonic::{Extensions, Response as Answer, Status};

use crate::protocol::{Protocol, Request, Response};

pub(super) type Responses = Pin<Box<dyn Stream<Item = Result<Response, Status>> + Send>>;

/// Opens a stream. istiod sends no headers before its first response, and that waits for our requests; so an error of
/// the opening is the stream's first item.
pub(super) fn open(
    channel: Channel,
    protocol: Protocol,
    metadata: MetadataMap,
    max_response_bytes: usize,
    requests: mpsc::Receiver<Request>,
) -> Responses {
    let mut client =
        AggregatedDiscoveryServiceClient::new(channel).max_decoding_message_size(max_response_bytes);
    let requests = ReceiverStream::new(requests);
    match protocol {
        Protocol::Delta => {
            let requests = requests.filter_map(|request| {
                ready(if let Request::Delta(request) = request { Some(request) } else { None })
            });
            let request = tonic::Request::from_parts(metadata, Extensions::default(), requests);
            let opened = async move { client.delta_aggregated_resources(request).await };
            let responses = stream::once(opened).map_ok(Answer::into_inner).try_flatten();
            Box::pin(responses.map_ok(Response::Delta))
        }
        Protocol::StateOfTheWorld => {
            let requests = requests.filter_map(|request| {
                ready(if let Request::StateOfTheWorld(request) = request { Some(request) } else { None })
            });
            let request = tonic::Request::from_parts(metadata, Extensions::default(), requests);
            let opened = async move { client.stream_aggregated_resources(request).await };
            let responses = stream::once(opened).map_ok(Answer::into_inner).try_flatten();
            Box::pin(responses.map_ok(Response::StateOfTheWorld))
        }
    }
}
