//! The HTTP filters of a connection manager: a request passes them in the configuration's order before it is routed on.
//!
//! A filter joins by an arm of [`decode`]. In: the request's head and what is known of its connection and route. Out: the
//! request as it goes on, or the answer that a filter gives in the router's place.

mod rbac;

use http::StatusCode;
use orlop_plan::rbac::{Answer, decide};
use orlop_plan::resource::http_connection_manager::{HttpConnectionManager, HttpFilter};
use orlop_plan::resource::listener::FilterChain;

use super::head::RequestHead;
use super::local_reply::LocalReply;
use crate::pod::ConnectionContext;
use crate::stats::{HttpCounters, Refusal};

/// What filters see beside the request.
#[derive(Clone, Copy)]
pub(super) struct FilterContext<'a> {
    /// Whose filters they are.
    pub(super) config: &'a HttpConnectionManager,
    /// What the request came by.
    pub(super) connection: &'a ConnectionContext,
    /// Of the connection manager.
    pub(super) counters: &'a HttpCounters,
}

/// The answer of a filter to a request that goes no further.
pub(super) type Stopped = Box<LocalReply>;

/// Whether a chain lets a request's connection in, for a connection that came before the chain.
pub(super) fn admit(chain: &FilterChain, context: FilterContext<'_>) -> Result<(), Stopped> {
    if decide(chain.network_rbac(), &context.connection.facts()).allowed == Answer::Yes {
        return Ok(());
    }
    context.connection.pod.counters.refuse(Refusal::Policy);
    Err(LocalReply::text(StatusCode::FORBIDDEN, rbac::ACCESS_DENIED).closing().into())
}

/// Takes a request through the filters.
pub(super) fn decode(head: &RequestHead, context: FilterContext<'_>) -> Result<(), Stopped> {
    for filter in &context.config.http_filters {
        match filter {
            HttpFilter::Rbac(filter) => rbac::decode(filter, head, context)?,
            // These say nothing of requests: of metrics, of what is offered to endpoints, or nothing at all.
            HttpFilter::PeerMetadata
            | HttpFilter::GrpcStats
            | HttpFilter::Alpn(_)
            | HttpFilter::Stats
            | HttpFilter::Fault
            | HttpFilter::Cors
            | HttpFilter::GrpcWeb
            | HttpFilter::Discovered(_)
            | HttpFilter::Router => {}
        }
    }
    Ok(())
}
