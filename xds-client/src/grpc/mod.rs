//! The control plane over gRPC: one HTTP/2 connection for all workloads of an identity, one ADS stream for each.
//!
//! Every stream has a task that reads as fast as the server sends, whatever the consumer does: a push occupies
//! one of istiod's push slots until it is read, so a stream that stalls would stall the mesh. A lost connection
//! changes nothing at the consumer; the task opens another stream after a jittered, growing delay. Before a server ends
//! a connection for its age, the task moves to a fresh one.

mod advice;
mod backoff;
mod call;
mod connections;
mod credentials;
mod error;
mod options;
mod pacer;
#[cfg(test)]
mod tests;
mod tls;
mod worker;

use std::path::PathBuf;
use std::sync::Arc;

pub use backoff::BackoffBounds;
use connections::Connections;
pub use credentials::{Credentials, KeptCertificate};
pub use options::{GrpcOptions, RenewalWindow};
use pacer::Pacer;
use worker::Worker;

use crate::consumer::{Consumer, Stream};
use crate::protocol::Protocol;
use crate::shared::Shared;
use crate::{ClientError, Node, Restored};

/// What the streams of a client share.
#[derive(Debug, Clone)]
pub(crate) struct Grpc {
    protocol: Protocol,
    options: GrpcOptions,
    connections: Arc<Connections>,
    pacer: Arc<Pacer>,
    shared: Shared,
}

impl Grpc {
    /// Connects when the first stream opens. Must be called within a Tokio runtime.
    pub(crate) fn new(
        address: &str,
        protocol: Protocol,
        root_certificate: Option<PathBuf>,
        options: GrpcOptions,
    ) -> Result<Self, ClientError> {
        Ok(Self {
            protocol,
            options,
            connections: Arc::new(Connections::new(address, root_certificate, options.renewal)?),
            pacer: Arc::new(Pacer::new(options.stream_interval)),
            shared: Shared::default(),
        })
    }

    pub(crate) fn open(&self, node: Node, restored: Restored) -> Stream {
        let (consumer, deliveries, status) = Consumer::new();
        let task = tokio::spawn(Worker::new(self.clone(), node, restored, consumer).run());
        Stream::new(deliveries, status, task)
    }
}
