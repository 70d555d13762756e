//! Where configuration comes from, and the entry point to all of it.

use std::path::PathBuf;

use thiserror::Error;

use crate::consumer::Stream;
use crate::directory::Directory;
use crate::grpc::{Grpc, GrpcOptions};
use crate::protocol::Protocol;
use crate::{Node, Restored};

/// Where configuration comes from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ControlPlane {
    /// An xDS server such as istiod.
    Grpc {
        /// Host and port.
        address: String,
        /// How it says what changed.
        protocol: Protocol,
        /// PEM file with the authorities that may have signed the server's certificate. With it, the connection is TLS;
        /// without, plaintext. It is read again for every new connection.
        root_certificate: Option<PathBuf>,
    },
    /// Files in the form of Envoy's `path_config_source`, see [`Client`].
    Directory {
        /// The folder.
        path: PathBuf,
    },
}

/// The control plane cannot be used at all.
#[derive(Debug, Error)]
pub enum ClientError {
    /// The address is no host and port.
    #[error("control plane address '{address}' is not of the form host:port")]
    Address {
        /// As configured.
        address: String,
    },
    /// The directory does not exist or cannot be watched.
    #[error("cannot watch the control plane directory {}", path.display())]
    Directory {
        /// As configured.
        path: PathBuf,
        /// The reason.
        source: notify::Error,
    },
}

/// Opens streams of configuration, one for each workload. Those of one identity share a connection, and all share the watch
/// of a directory.
///
/// # A directory as the control plane
///
/// Every file in it named `*.yaml`, `*.json` or `*.pb` is a `DiscoveryResponse`, as Envoy's
/// `path_config_source` reads it: `resources` holds any number of resources of the types that a
/// sidecar lives on ([`ResourceType`](crate::ResourceType)), each with its `@type`. File names mean nothing. A subfolder named after a workload holds files for that workload alone: a
/// resource there replaces the one of the same type and name, or adds to the others. Hidden entries are
/// ignored. Changes apply as they happen, by writing, renaming or swapping symbolic links; a file that cannot
/// be read keeps what it held before and is named in the [status](crate::StreamStatus::files).
#[derive(Debug)]
pub struct Client(Source);

#[derive(Debug)]
enum Source {
    Grpc(Grpc),
    Directory(Directory),
}

impl Client {
    /// Prepares the source. Must be called within a Tokio runtime, where its tasks will run.
    pub fn new(control_plane: ControlPlane, options: GrpcOptions) -> Result<Self, ClientError> {
        Ok(Self(match control_plane {
            ControlPlane::Grpc { address, protocol, root_certificate } => {
                Source::Grpc(Grpc::new(&address, protocol, root_certificate, options)?)
            }
            ControlPlane::Directory { path } => Source::Directory(Directory::new(path)?),
        }))
    }

    /// Opens the stream of one workload that has no configuration yet.
    pub fn open(&self, node: Node) -> Stream {
        self.resume(node, Restored::default())
    }

    /// Opens the stream of one workload that has some configuration already. What is still as it was is not delivered
    /// again; what the control plane does not have any more is removed.
    pub fn resume(&self, node: Node, restored: Restored) -> Stream {
        match &self.0 {
            Source::Grpc(grpc) => grpc.open(node, restored),
            Source::Directory(directory) => directory.open(node, restored),
        }
    }
}
