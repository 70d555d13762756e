//! `core.v3.GrpcService` and `core.v3.HttpService`: a service to which the proxy itself sends what it has collected.

use std::sync::Arc;
use std::time::Duration;

use http::{HeaderName, HeaderValue};

/// Whom to send to, and how.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Collector {
    /// The cluster of its endpoints.
    pub cluster: Arc<str>,
    /// `:authority`: of the URI, or `authority`; the cluster's name where none is given.
    pub authority: String,
    /// What is spoken.
    pub protocol: CollectorProtocol,
    /// How long it may take to answer.
    pub timeout: Duration,
    /// `request_headers_to_add`, `initial_metadata`
    pub headers: Vec<(HeaderName, HeaderValue)>,
}

/// `grpc_service` or `http_service`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum CollectorProtocol {
    /// The method is known from what is sent.
    Grpc,
    /// A `POST`.
    Http {
        /// Of the URI.
        path: String,
    },
}
