//! What the connection manager does with each request, whatever protocol it came by: admission, routing, and the answer's
//! headers.

use std::cell::RefCell;
use std::rc::Rc;
use std::sync::Arc;
use std::time::{Duration, Instant};

use http::header::{DATE, SERVER};
use http::{HeaderMap, HeaderValue, Method, StatusCode};
use orlop_plan::proxy::ProxyPlan;
use orlop_plan::resource::http_connection_manager::{HttpConnectionManager, RouteSpecifier, ServerHeader};
use orlop_plan::resource::listener::{FilterChain, TerminalFilter};
use orlop_plan::resource::route::{Action, RouteConfiguration};
use orlop_plan::resource::telemetry::PeerExchange;
use orlop_plan::route_match::RouteSelection;

use super::body::{RequestBody, ResponseBody};
use super::date::DateCache;
use super::filter::{self, FilterContext, Passage, Stopped};
use super::format::FormatContext;
use super::h1::ProtocolError;
use super::head::RequestHead;
use super::header_mutation::MutationLevels;
use super::local_reply::{DIRECT_RESPONSE, LocalReply};
use super::request_headers::{self, X_REQUEST_ID, is_enabled};
use super::stream::StreamGuard;
use super::stream_info::StreamInfo;
use super::stream_log::StreamLog;
use super::timer::Timer;
use super::{failure, redirect, router};
use crate::pod::{ConnectionContext, PodContext};
use crate::stats::{Direction, HttpCounters, Refusal, ResponseFlag};
use crate::upstream::UpstreamCluster;

/// The name of the route by which Istio refuses what a workload may not call.
const BLOCK_ALL: &str = "block_all";

/// An answer, ready to be encoded.
#[derive(Debug)]
pub(crate) struct Response {
    /// The status.
    pub(crate) status: StatusCode,
    /// Everything but the connection's own headers.
    pub(crate) headers: HeaderMap,
    /// The body.
    pub(crate) body: ResponseBody,
    /// Whether the connection closes after it.
    pub(crate) close: bool,
}

/// Serves the requests of one downstream connection.
pub(crate) struct ConnectionManager {
    config: Arc<HttpConnectionManager>,
    /// The configuration's.
    exchange: PeerExchange,
    connection: Rc<ConnectionContext>,
    counters: Arc<HttpCounters>,
    server: HeaderValue,
    date: DateCache,
    routing: RefCell<Option<Routing>>,
}

/// What was looked up by name in a plan, for as long as the plan is the newest.
#[derive(Clone)]
struct Routing {
    plan: Arc<ProxyPlan>,
    routes: Option<Arc<RouteConfiguration>>,
    /// Whose filters requests go through.
    filters: Filters,
    /// The cluster that was used last.
    cluster: Option<(Arc<str>, Rc<UpstreamCluster>)>,
}

/// A route, and the configuration that it is of.
type Selection<'a> = (&'a RouteConfiguration, RouteSelection<'a>);

/// Whose filters a request goes through. A policy that has changed holds for connections that are open as well: what became of
/// their filter chain in the newest plan decides.
#[derive(Clone)]
enum Filters {
    /// The connection's own, which the plan has.
    Own,
    /// The connection's own, which the plan has no more. On the way out nobody's policy is at stake.
    Old,
    /// Those of the chain that would take the connection now.
    Newest(Arc<FilterChain>),
    /// No connection manager would take it.
    Nobody,
}

impl ConnectionManager {
    /// For a connection that `config`'s filter chain takes.
    pub(crate) fn new(config: Arc<HttpConnectionManager>, connection: Rc<ConnectionContext>) -> Self {
        let server =
            HeaderValue::try_from(config.server_name.as_str()).unwrap_or(HeaderValue::from_static("envoy"));
        let counters = connection.pod.counters.http(&config.stat_prefix);
        counters.connections.inc();
        Self {
            exchange: config.peer_exchange(),
            config,
            connection,
            counters,
            server,
            date: DateCache::default(),
            routing: RefCell::default(),
        }
    }

    /// Its configuration.
    pub(crate) fn config(&self) -> &Arc<HttpConnectionManager> {
        &self.config
    }

    /// How the ends of its requests learn about each other.
    pub(crate) fn exchange(&self) -> PeerExchange {
        self.exchange
    }

    /// The pod that the connection belongs to.
    pub(crate) fn pod(&self) -> &PodContext {
        &self.connection.pod
    }

    /// The answer to a request; its body may still have to come. `timer` is the stream's.
    pub(crate) async fn handle(
        &self,
        head: &mut RequestHead,
        body: RequestBody,
        timer: &Rc<Timer>,
    ) -> Response {
        self.counters.requests.inc();
        let arrived = Instant::now();
        let info = StreamInfo::new(&self.config, head, arrived);
        let mut guard = StreamGuard::new(Rc::clone(&self.connection), Rc::clone(timer), info);
        let mut body = body.metered(&mut guard);
        if self.exchange.hears_downstream && head.has_envoy_headers {
            let (said, peer) = self.pod().peers.hear(&mut head.headers);
            head.said = said;
            guard.info().into_iter().for_each(|info| info.met(peer.clone()));
        }
        if let Err(reply) = request_headers::admit(head, &self.config, &self.connection) {
            return self.local(head, *reply, None, guard);
        }
        guard.info().into_iter().for_each(|info| info.sees(head));
        let (plan, routes, filters) = self.routing();
        for name in routes.iter().flat_map(|routes| &routes.internal_only_headers) {
            head.headers.remove(name);
        }
        let random = fastrand::u64(..);
        let select = |head: &RequestHead| {
            let routes = routes.as_deref()?;
            Some((routes, routes.select(&head.for_routes(), random)?))
        };
        let mut selection = select(head);
        if let (Some((_, selection)), Some(info)) = (selection, guard.info()) {
            info.routed(selection.route, &plan);
        }
        let route = selection.map(|(_, selection)| &**selection.route);
        if let Some(info) = guard.info().filter(|_| self.config.tracing_provider().is_some()) {
            info.traced(&self.config, head, &self.connection, &self.counters, route);
        }
        let mut passage = Passage::default();
        let filtered = self.filter(head, &mut body, &filters, selection, &mut passage).await;
        if let Some(info) = guard.info() {
            info.tried(std::mem::take(&mut passage.tried));
        }
        if passage.delayed {
            guard.note(ResponseFlag::DelayInjected);
        }
        if passage.is_rerouted {
            selection = select(head);
            if let (Some((_, selection)), Some(info)) = (selection, guard.info()) {
                info.routed(selection.route, &plan);
            }
        }
        let mut response = match filtered {
            Ok(()) => self.route(head, passage.body(body), &plan, selection, arrived, guard).await,
            Err(stopped) => self.stopped(head, *stopped, selection, guard),
        };
        passage.encode(&mut response);
        response
    }

    /// The answer where the route leads to, for a request that has passed the filters.
    async fn route(
        &self,
        head: &mut RequestHead,
        body: RequestBody,
        plan: &ProxyPlan,
        selection: Option<Selection<'_>>,
        arrived: Instant,
        mut guard: StreamGuard,
    ) -> Response {
        let Some((routes, selection)) = selection else {
            let reply = LocalReply::new(StatusCode::NOT_FOUND, "route_not_found");
            return self.local(head, reply, Some(ResponseFlag::NoRouteFound), guard);
        };
        if !selection.virtual_host.unsupported.is_empty() {
            return self.unsupported(head, guard);
        }
        if selection.virtual_host.require_tls && self.connection.tls.get().is_none() {
            return self.local(head, redirect::require_tls(head), None, guard);
        }
        let route = selection.route;
        match &route.action {
            Action::Route(action) => {
                if let Some(upgrade) = &head.upgrade
                    && !is_enabled(&self.config.upgrades, upgrade)
                    && !is_enabled(&action.upgrades, upgrade)
                {
                    let reply = LocalReply::new(StatusCode::FORBIDDEN, "upgrade_failed").closing();
                    return self.local(head, reply, None, guard);
                }
                let started = Instant::now();
                let request =
                    router::Routed { manager: self, plan, routes, selection, action, arrived, started };
                request.forward(head, body, guard).await
            }
            Action::Redirect(action) => {
                let mut reply = redirect::reply(head, action, &route.route_match);
                self.mutate(routes, &selection, head, &mut reply.headers);
                self.local(head, reply, None, guard)
            }
            Action::DirectResponse(action) => {
                let mut reply = LocalReply::new(action.status, DIRECT_RESPONSE);
                reply.body = action.body.clone().into();
                self.mutate(routes, &selection, head, &mut reply.headers);
                if route.name == BLOCK_ALL {
                    guard.info().into_iter().for_each(|info| info.blocked(head));
                }
                self.local(head, reply, None, guard)
            }
            Action::Unsupported(_) => self.unsupported(head, guard),
        }
    }

    /// The answer of a filter in the router's place.
    fn stopped(
        &self,
        head: &RequestHead,
        stopped: Stopped,
        selection: Option<Selection<'_>>,
        guard: StreamGuard,
    ) -> Response {
        let Stopped { mut reply, flag, is_local_reply } = stopped;
        if let Some((routes, selection)) = selection
            && is_local_reply
            && matches!(selection.route.action, Action::Route(_))
        {
            self.mutate(routes, &selection, head, &mut reply.headers);
        }
        self.local(head, reply, flag, guard)
    }

    /// The answer where the route, its virtual host or its cluster asks for what is not done.
    pub(crate) fn unsupported(&self, head: &RequestHead, guard: StreamGuard) -> Response {
        self.pod().counters.refuse(Refusal::UnsupportedRoute);
        let (reply, flag) = failure::unsupported_route();
        self.local(head, reply, Some(flag), guard)
    }

    /// The answer to what is not a request.
    pub(crate) fn protocol_error(&self, error: ProtocolError) -> Response {
        self.counters.requests.inc();
        self.pod().counters.flag(ResponseFlag::DownstreamProtocolError);
        let status = error.status();
        let text = status.canonical_reason().unwrap_or_default();
        let reply = LocalReply::text(status, "http1.codec_error", text).closing();
        let response = self.finish(reply.into_response(false), None, Instant::now());
        if let Some(mut log) = StreamLog::new(&self.config) {
            log.malformed(&response);
            log.write(&self.connection, Duration::ZERO, 0, response.status.as_u16(), None);
        }
        response
    }

    /// An answer of the proxy's own, which ends the stream.
    pub(crate) fn local(
        &self,
        head: &RequestHead,
        reply: LocalReply,
        flags: impl IntoIterator<Item = ResponseFlag>,
        mut guard: StreamGuard,
    ) -> Response {
        let details = reply.details.clone();
        let mut response = self.finish(reply.into_response(head.is_grpc()), Some(head), Instant::now());
        if let Some(info) = guard.info() {
            info.trace().into_iter().for_each(|trace| trace.answered(&mut response.headers));
            info.sees(head);
            info.details(details);
            info.sent_nowhere(head);
            info.answered(response.status, &response.headers);
            if head.method != Method::HEAD {
                info.passed(response.body.own());
            }
        }
        guard.finish(flags);
        response
    }

    /// Whether the connection is to end when it can: the pod is released, or its listener was replaced.
    pub(crate) fn is_draining(&self) -> bool {
        self.pod().drain.is_draining()
            || self.routing.borrow().as_ref().is_some_and(|routing| !matches!(routing.filters, Filters::Own))
    }

    /// What every answer gets on its way out: `server`, `date`, and the request id where it is asked for.
    pub(crate) fn finish(
        &self,
        mut response: Response,
        head: Option<&RequestHead>,
        now: Instant,
    ) -> Response {
        let headers = &mut response.headers;
        match self.config.server_header {
            ServerHeader::Overwrite => {
                headers.insert(SERVER, self.server.clone());
            }
            ServerHeader::AppendIfAbsent => {
                headers.entry(SERVER).or_insert_with(|| self.server.clone());
            }
            ServerHeader::PassThrough => {}
        }
        headers.entry(DATE).or_insert_with(|| self.date.at(now));
        if self.exchange.tells_downstream
            && let Some(head) = head
        {
            self.pod().peers.answer(headers, head.said);
        }
        if self.config.always_set_request_id_in_response
            && let Some(id) = head.and_then(|head| head.headers.get(X_REQUEST_ID))
        {
            headers.insert(X_REQUEST_ID, id.clone());
        }
        self.counters.answered(response.status);
        response
    }

    /// The cluster of that name, looked up once for each plan while it stays the same.
    pub(crate) fn cluster(&self, plan: &ProxyPlan, name: &Arc<str>) -> Option<Rc<UpstreamCluster>> {
        let mut routing = self.routing.borrow_mut();
        let routing = routing.as_mut().filter(|routing| std::ptr::eq(Arc::as_ptr(&routing.plan), plan));
        if let Some((known, cluster)) = routing.as_ref().and_then(|routing| routing.cluster.as_ref())
            && Arc::ptr_eq(known, name)
        {
            return Some(Rc::clone(cluster));
        }
        let cluster = self.pod().upstreams.cluster(plan, name)?;
        if let Some(routing) = routing {
            routing.cluster = Some((Arc::clone(name), Rc::clone(&cluster)));
        }
        Some(cluster)
    }

    /// What operators in header values refer to, before anything upstream is known.
    pub(crate) fn format_context<'a>(&self, cluster: Option<&'a str>) -> FormatContext<'a> {
        FormatContext { cluster, ..FormatContext::of(&self.connection) }
    }

    /// Takes a request through the filters.
    async fn filter(
        &self,
        head: &mut RequestHead,
        body: &mut RequestBody,
        filters: &Filters,
        selection: Option<Selection<'_>>,
        passage: &mut Passage,
    ) -> Result<(), Box<Stopped>> {
        let own = FilterContext {
            config: &self.config,
            connection: &self.connection,
            counters: &self.counters,
            route: selection.map(|(_, selection)| selection),
        };
        match filters {
            Filters::Own | Filters::Old => passage.decode(head, body, own).await,
            Filters::Newest(chain) => match &chain.terminal {
                TerminalFilter::HttpConnectionManager(config) => {
                    filter::admit(chain, own)?;
                    passage.decode(head, body, FilterContext { config, ..own }).await
                }
                TerminalFilter::TcpProxy(_) => Ok(()),
            },
            Filters::Nobody => {
                self.pod().counters.refuse(Refusal::NoFilterChain);
                let text = Refusal::NoFilterChain.to_string();
                let details = "filter_chain_not_found";
                Err(Box::new(
                    LocalReply::text(StatusCode::SERVICE_UNAVAILABLE, details, text).closing().into(),
                ))
            }
        }
    }

    /// The newest plan, its routes for this connection manager, and whose filters hold.
    fn routing(&self) -> (Arc<ProxyPlan>, Option<Arc<RouteConfiguration>>, Filters) {
        let plan = self.pod().plan();
        let mut routing = self.routing.borrow_mut();
        if let Some(known) = routing.as_ref().filter(|known| Arc::ptr_eq(&known.plan, &plan)) {
            return (plan, known.routes.clone(), known.filters.clone());
        }
        let routes = match &self.config.routes {
            RouteSpecifier::Inline(routes) => Some(Arc::clone(routes)),
            RouteSpecifier::Rds(name) => plan.routes.get(name).cloned(),
        };
        let filters = self.filters(&plan);
        *routing = Some(Routing {
            plan: Arc::clone(&plan),
            routes: routes.clone(),
            filters: filters.clone(),
            cluster: None,
        });
        (plan, routes, filters)
    }

    fn filters(&self, plan: &ProxyPlan) -> Filters {
        let connection = &*self.connection;
        let listener = match connection.direction {
            Direction::Outbound => plan.outbound.select(connection.local.ip(), connection.local.port()),
            Direction::Inbound => plan.inbound.as_ref(),
        };
        let manager = |chain: &FilterChain| match &chain.terminal {
            TerminalFilter::HttpConnectionManager(config) => Some(Arc::clone(config)),
            TerminalFilter::TcpProxy(_) => None,
        };
        let is_own =
            |chain: &FilterChain| manager(chain).is_some_and(|config| Arc::ptr_eq(&config, &self.config));
        let chains = listener
            .into_iter()
            .flat_map(|listener| listener.filter_chains.iter().chain(&listener.default_filter_chain));
        if chains.into_iter().any(|chain| is_own(chain)) {
            return Filters::Own;
        }
        let chain = listener.and_then(|listener| connection.select_chain(listener));
        match (chain.filter(|chain| manager(chain).is_some()), connection.direction) {
            (Some(chain), _) => Filters::Newest(Arc::clone(chain)),
            (None, Direction::Outbound) => Filters::Old,
            (None, Direction::Inbound) => Filters::Nobody,
        }
    }

    fn mutate(
        &self,
        routes: &RouteConfiguration,
        selection: &RouteSelection<'_>,
        head: &RequestHead,
        headers: &mut HeaderMap,
    ) {
        let levels = [
            None,
            Some(&selection.route.headers),
            Some(&selection.virtual_host.headers),
            Some(&routes.headers),
        ];
        let context = FormatContext { request: Some(head), ..self.format_context(None) };
        MutationLevels::new(levels, routes.most_specific_header_mutations_wins)
            .apply_to_response(headers, &context);
    }
}
