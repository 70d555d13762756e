//! A stream's part in a trace: from the routing of its request to its end.

use std::borrow::Cow;
use std::rc::Rc;
use std::sync::Arc;

use http::{HeaderMap, HeaderName, HeaderValue};
use orlop_plan::resource::http_connection_manager::HttpConnectionManager;
use orlop_plan::resource::route::Route;
use orlop_plan::resource::tracing::{CustomTag, CustomTagValue, Tracing, TracingProvider, Zipkin};

use super::span::{Finished, Span, Tags};
use super::{b3, decision, w3c};
use crate::collect::Exporter;
use crate::http::{FormatContext, RequestHead, Tried};
use crate::pod::ConnectionContext;
use crate::stats::{Direction, HttpCounters};

const X_ENVOY_DECORATOR_OPERATION: HeaderName = HeaderName::from_static("x-envoy-decorator-operation");

/// What is kept of a stream for its span.
#[derive(Debug)]
pub(crate) struct StreamTrace {
    config: Arc<HttpConnectionManager>,
    provider: Arc<TracingProvider>,
    direction: Direction,
    /// None where what the request says of its trace is malformed.
    span: Option<Span>,
    /// Where its span goes; none of what is not reported.
    exporter: Option<Rc<Exporter<TracingProvider>>>,
    name: String,
    /// Of the route.
    custom_tags: Vec<CustomTag>,
    /// What the client is told that its span is named.
    decorated: Option<HeaderValue>,
}

/// What is known of a stream when it is over, beside what logs tell.
pub(crate) struct Finish<'a> {
    /// What logs tell.
    pub(crate) context: &'a FormatContext<'a>,
    /// gRPC's status and message.
    pub(crate) grpc: Option<(u16, &'a str)>,
    /// What becomes of the request by policies that are tried: those that allow, and those that deny.
    pub(crate) tried: &'a [Option<Tried>; 2],
}

impl StreamTrace {
    /// A request that is traced, or that might have been; `None` where the connection manager has no provider.
    pub(crate) fn begin(
        config: &Arc<HttpConnectionManager>,
        headers: &mut HeaderMap,
        host: &str,
        connection: &ConnectionContext,
        counters: &HttpCounters,
        route: Option<&Route>,
    ) -> Option<Box<Self>> {
        let Tracing { provider, sampling, .. } = config.tracing.as_ref()?;
        let provider = provider.as_ref()?;
        let of_route = route.and_then(|route| route.tracing.as_deref());
        let sampling = of_route.map_or(*sampling, |tracing| tracing.sampling);
        let reason = decision::decide(headers, sampling, config.request_id);
        counters.filter(reason.stat());
        let direction = connection.direction;
        let told = match &**provider {
            TracingProvider::OpenTelemetry(_) => w3c::extract(headers),
            TracingProvider::Zipkin(zipkin) => b3::extract(headers, zipkin.with_w3c),
        };
        let span = told.ok().map(|told| Span::new(provider, told, reason.is_traced(), direction));
        let sampled = span.as_ref().is_some_and(|span| span.sampled);
        let exporter = sampled.then(|| connection.pod.spans.by(provider, &connection.pod));
        let decorator = route.and_then(|route| route.decorator.as_ref());
        let decorator = decorator.filter(|decorator| !decorator.operation.is_empty());
        let mut trace = Self {
            config: Arc::clone(config),
            provider: Arc::clone(provider),
            direction,
            span,
            exporter,
            name: String::new(),
            custom_tags: of_route.map(|tracing| tracing.custom_tags.clone()).unwrap_or_default(),
            decorated: None,
        };
        if let Some(decorator) = decorator {
            trace.rename(&decorator.operation);
        } else if sampled {
            trace.name = match direction {
                Direction::Inbound => "ingress".to_owned(),
                Direction::Outbound => format!("egress {host}"),
            };
        }
        let propagated =
            decorator.filter(|decorator| decorator.propagate).map(|decorator| &decorator.operation);
        match direction {
            Direction::Outbound => {
                if let Some(operation) = propagated {
                    headers.insert(X_ENVOY_DECORATOR_OPERATION, operation.clone());
                }
            }
            Direction::Inbound => match headers.remove(X_ENVOY_DECORATOR_OPERATION) {
                Some(operation) if !operation.is_empty() => trace.rename(&operation),
                _ => trace.decorated = propagated.cloned(),
            },
        }
        Some(Box::new(trace))
    }

    /// Whether a span will be made of it.
    pub(crate) fn is_reported(&self) -> bool {
        self.exporter.is_some()
    }

    fn rename(&mut self, operation: &HeaderValue) {
        if self.is_reported() {
            self.name = String::from_utf8_lossy(operation.as_bytes()).into_owned();
        }
    }

    /// Tells the upstream.
    pub(crate) fn inject(&self, headers: &mut HeaderMap) {
        let Some(span) = &self.span else { return };
        if self.tracing().is_some_and(|tracing| tracing.no_context_propagation) {
            return;
        }
        match &*self.provider {
            TracingProvider::OpenTelemetry(_) => w3c::inject(span, headers),
            TracingProvider::Zipkin(Zipkin { with_w3c, .. }) => b3::inject(span, *with_w3c, headers),
        }
    }

    /// The response's head: the two ends tell each other what their spans are named.
    pub(crate) fn answered(&mut self, headers: &mut HeaderMap) {
        match self.direction {
            Direction::Inbound => {
                if let Some(operation) = self.decorated.take() {
                    headers.insert(X_ENVOY_DECORATOR_OPERATION, operation);
                }
            }
            Direction::Outbound => {
                if let Some(operation) = headers.remove(X_ENVOY_DECORATOR_OPERATION)
                    && !operation.is_empty()
                {
                    self.rename(&operation);
                }
            }
        }
    }

    fn tracing(&self) -> Option<&Tracing> {
        self.config.tracing.as_ref()
    }

    /// The stream is over.
    pub(crate) fn finish(mut self, finish: &Finish<'_>) {
        let (Some(span), Some(exporter)) = (self.span.take(), self.exporter.take()) else { return };
        let Some(end) = finish.context.end else { return };
        let mut tags = Tags::default();
        tags.set("node_id", &*exporter.reporter().node_id);
        tags.set("zone", "");
        self.standard(finish, &mut tags);
        let of_manager = self.tracing().map(|tracing| tracing.custom_tags.as_slice()).unwrap_or_default();
        for CustomTag { tag, value } in of_manager.iter().chain(&self.custom_tags) {
            if let Some(value) = custom(value, finish) {
                tags.set(tag.to_string(), value);
            }
        }
        exporter.queue(Finished {
            span,
            direction: self.direction,
            name: self.name,
            began: end.began,
            took: end.took,
            tags,
            code: finish.context.status.map_or(0, |status| status.as_u16()),
        });
    }

    /// What Envoy says of every request.
    fn standard(&self, finish: &Finish<'_>, tags: &mut Tags) {
        let context = finish.context;
        if let Some(head) = context.request {
            self.of_request(head, context, tags);
        }
        if let Some((status, message)) = finish.grpc {
            tags.set("grpc.status_code", status.to_string());
            if !message.is_empty() {
                tags.set("grpc.message", message);
            }
            if status != 0 {
                tags.set("error", "true");
            }
        }
        if let Some(end) = context.end {
            tags.set("request_size", end.received.to_string());
            tags.set("response_size", end.sent.to_string());
        }
        let code = context.status.map_or(0, |status| status.as_u16());
        tags.set("http.status_code", code.to_string());
        if code == 0 || code >= 500 {
            tags.set("error", "true");
        }
        tags.set("component", "proxy");
        let flags: Vec<_> = context.flags.iter().map(|flag| flag.short()).collect();
        tags.set("response_flags", if flags.is_empty() { "-".to_owned() } else { flags.join(",") });
        if let Some(cluster) = context.cluster {
            tags.set("upstream_cluster", cluster);
            tags.set("upstream_cluster.name", cluster);
        }
    }

    fn of_request(&self, head: &RequestHead, context: &FormatContext<'_>, tags: &mut Tags) {
        let header = |name: &str| head.headers.get(name).map(lossy);
        let most = self.tracing().map_or(0, |tracing| tracing.max_path_tag_length);
        let path = header("x-envoy-original-path").unwrap_or(Cow::Borrowed(&head.path));
        let path = path.get(..path.floor_char_boundary(most)).unwrap_or(&path);
        let scheme = header("x-forwarded-proto").unwrap_or(Cow::Borrowed(head.scheme));
        if let Some(id) = header("x-request-id") {
            tags.set("guid:x-request-id", id);
        }
        if let Some(id) = header("x-client-trace-id") {
            tags.set("guid:x-client-trace-id", id);
        }
        tags.set("http.url", format!("{scheme}://{}{path}", head.authority));
        tags.set("http.method", head.method.as_str());
        let or_none = |value: Option<Cow<'_, str>>| value.map_or_else(|| "-".to_owned(), Cow::into_owned);
        tags.set("downstream_cluster", or_none(header("x-envoy-downstream-service-cluster")));
        tags.set("user_agent", or_none(header("user-agent")));
        tags.set("http.protocol", head.version.as_str());
        tags.set("peer.address", context.peer.ip().to_string());
        if head.is_grpc() {
            tags.set("grpc.path", head.path.as_str());
            tags.set("grpc.authority", head.authority.as_str());
            tags.set("grpc.content_type", header("content-type").unwrap_or_default());
            if let Some(timeout) = header("grpc-timeout") {
                tags.set("grpc.timeout", timeout);
            }
        }
    }
}

fn lossy(value: &HeaderValue) -> Cow<'_, str> {
    String::from_utf8_lossy(value.as_bytes())
}

/// A custom tag's value; `None` leaves it out.
fn custom(value: &CustomTagValue, finish: &Finish<'_>) -> Option<String> {
    let value = match value {
        CustomTagValue::Literal(value) => value.clone(),
        CustomTagValue::RequestHeader { name, otherwise } => {
            let value = finish.context.request.and_then(|head| head.headers.get(name));
            value.map_or_else(|| otherwise.clone(), |value| lossy(value).into_owned())
        }
        CustomTagValue::Format(parts) => {
            let mut text = Vec::new();
            for part in parts {
                finish.context.write_part(part, finish.context.request, &mut text);
            }
            String::from_utf8_lossy(&text).into_owned()
        }
        CustomTagValue::DryRun(wanted) => {
            let [of_allow, of_deny] = finish.tried;
            let Tried { policy, passes } = if wanted.of_allow { of_allow } else { of_deny }.as_ref()?;
            match (wanted.policy, passes) {
                (true, _) => policy.clone()?,
                (false, true) => "allowed".to_owned(),
                (false, false) => "denied".to_owned(),
            }
        }
    };
    (!value.is_empty()).then_some(value)
}
