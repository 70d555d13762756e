//! The HTTP filters of a connection manager: a request passes them in the configuration's order before it is routed on, and its
//! answer passes those that the request has passed.
//!
//! A filter joins by an arm of [`Passage::decode`], and where it changes answers by a field of [`Passage`]. In: the request's
//! head and what is known of its connection and route. Out: the request as it goes on, or the answer that a filter gives in
//! the router's place.

mod cors;
mod ext_authz;
mod fault;
mod grpc_web;
mod jwt_authn;
mod local_rate_limit;
mod rbac;

pub(crate) use grpc_web::{Base64Body, GrpcWebEncoder};
pub(crate) use local_rate_limit::{Buckets, WorkerBuckets};
pub(crate) use rbac::{Tried, denied_by};

use http::StatusCode;
use orlop_plan::rbac::{Answer, decide};
use orlop_plan::resource::http_connection_manager::{HttpConnectionManager, HttpFilter};
use orlop_plan::resource::listener::FilterChain;
use orlop_plan::resource::route::FilterConfig;
use orlop_plan::route_match::RouteSelection;

use serde_json::Value;

use super::body::RequestBody;
use super::connection_manager::Response;
use super::head::RequestHead;
use super::local_reply::LocalReply;
use crate::pod::ConnectionContext;
use crate::stats::{HttpCounters, Refusal, ResponseFlag};

/// What filters see beside the request.
#[derive(Clone, Copy)]
pub(super) struct FilterContext<'a> {
    /// Whose filters they are.
    pub(super) config: &'a HttpConnectionManager,
    /// What the request came by.
    pub(super) connection: &'a ConnectionContext,
    /// Of the connection manager.
    pub(super) counters: &'a HttpCounters,
    /// Where the request will go, if there is a route.
    pub(super) route: Option<RouteSelection<'a>>,
}

/// The answer of a filter to a request that goes no further.
#[derive(Debug)]
pub(super) struct Stopped {
    /// The answer.
    pub(super) reply: LocalReply,
    /// What is counted of the stream.
    pub(super) flag: Option<ResponseFlag>,
    /// Whether the route's operations on responses apply, as to other answers of the proxy's own.
    pub(super) is_local_reply: bool,
}

impl<'a> FilterContext<'a> {
    /// What the request's route and virtual host say to the filter of this name, the more specific one first.
    fn said_to(&self, name: &str) -> [Option<&'a FilterConfig>; 2] {
        self.route.map_or([None; 2], |selection| {
            [&selection.route.filters, &selection.virtual_host.filters].map(|said| said.by_name.get(name))
        })
    }
}

impl From<LocalReply> for Stopped {
    fn from(reply: LocalReply) -> Self {
        Self { reply, flag: None, is_local_reply: true }
    }
}

/// A request's way through the filters, and its answer's way back.
#[derive(Debug, Default)]
pub(super) struct Passage {
    /// What the CORS filter says in the answer.
    cors: Option<Box<cors::Allowed>>,
    /// What the gRPC-Web filter has made gRPC of.
    web: Option<grpc_web::GrpcWeb>,
    /// What `jwt_authn` has left for policies.
    metadata: Option<Box<Value>>,
    /// The policy that leaves the request to an authorizer.
    policy: Option<String>,
    /// What becomes of the request by policies that are tried, where a span may tell: those that allow, those that deny.
    pub(super) tried: [Option<Tried>; 2],
    /// What an authorizer says in the answer.
    granted: Option<ext_authz::Granted>,
    /// What a client is told of its limit.
    limit: Option<local_rate_limit::Told>,
    /// What was changed may lead another way.
    pub(super) is_rerouted: bool,
    /// The fault filter has held the request up.
    pub(super) delayed: bool,
}

/// Whether a chain lets a request's connection in, for a connection that came before the chain.
pub(super) fn admit(chain: &FilterChain, context: FilterContext<'_>) -> Result<(), Box<Stopped>> {
    let facts = context.connection.facts();
    let decision = decide(chain.network_rbac(), &facts);
    if decision.allowed == Answer::Yes {
        return Ok(());
    }
    context.connection.pod.counters.refuse(Refusal::Policy);
    let details = denied_by(decision.policy);
    Err(Box::new(LocalReply::text(StatusCode::FORBIDDEN, details, rbac::ACCESS_DENIED).closing().into()))
}

impl Passage {
    /// Takes a request through the filters.
    pub(super) async fn decode(
        &mut self,
        head: &mut RequestHead,
        body: &mut RequestBody,
        context: FilterContext<'_>,
    ) -> Result<(), Box<Stopped>> {
        for filter in &context.config.http_filters {
            match filter {
                HttpFilter::JwtAuthn(filter) => {
                    jwt_authn::decode(filter, head, context, &mut self.metadata)?;
                }
                HttpFilter::Rbac(filter) => {
                    let Self { metadata, policy, tried, .. } = &mut *self;
                    let metadata = metadata.as_deref().unwrap_or(&Value::Null);
                    rbac::decode(filter, head, context, metadata, (policy, tried))?;
                }
                HttpFilter::ExtAuthz(name, filter) => {
                    let Self { policy, granted, .. } = &mut *self;
                    let asked = ext_authz::Asked { filter, name, policy: policy.as_deref() };
                    self.is_rerouted |= ext_authz::decode(asked, head, body, context, granted).await?;
                }
                HttpFilter::LocalRateLimit(name, limit) => {
                    local_rate_limit::decode(limit, name, head, context, &mut self.limit)?;
                }
                HttpFilter::Fault(fault) => fault::decode(fault, head, context, &mut self.delayed).await?,
                HttpFilter::GrpcWeb => self.web = self.web.or(grpc_web::decode(head)),
                HttpFilter::Cors => cors::decode(head, context, &mut self.cors)?,
                // These say nothing of requests: of metrics, of what is offered to endpoints, or nothing at all.
                HttpFilter::PeerMetadata(_)
                | HttpFilter::GrpcStats
                | HttpFilter::Alpn(_)
                | HttpFilter::Stats(_)
                | HttpFilter::Discovered(_)
                | HttpFilter::Router => {}
            }
        }
        Ok(())
    }

    /// A request's body as it goes on.
    pub(super) fn body(&self, body: RequestBody) -> RequestBody {
        match self.web {
            Some(web) => web.request(body),
            None => body,
        }
    }

    /// Takes an answer back, whoever gives it.
    pub(super) fn encode(self, response: &mut Response) {
        let Response { headers, body, .. } = response;
        if let Some(encoder) = self.web.and_then(|web| web.response(headers)) {
            body.encode_for_web(encoder);
        }
        if let Some(told) = self.limit {
            told.encode(headers);
        }
        if let Some(granted) = self.granted {
            granted.encode(headers);
        }
        if let Some(allowed) = self.cors {
            allowed.encode(headers);
        }
    }
}
