//! How long a request may take: the route's timeout, each attempt's, the stream's idle timeout and longest duration.
//!
//! All but the last run from when the whole request was received, as in Envoy. One [`Timer`](super::timer::Timer) holds
//! whichever comes first.

use std::time::{Duration, Instant};

use http::header::HeaderName;
use orlop_plan::resource::retry::RetryPolicy;
use orlop_plan::resource::route::RouteAction;

use super::head::RequestHead;
use super::timer::Timer;

const GRPC_TIMEOUT: HeaderName = HeaderName::from_static("grpc-timeout");

/// The deadlines of one request.
#[derive(Debug, Clone)]
pub(crate) struct Deadlines {
    timeout: Option<Duration>,
    per_try: Option<Duration>,
    idle: Option<Duration>,
    route: Option<Instant>,
    attempt: Option<Instant>,
    stream: Option<Instant>,
}

/// Which deadline passed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Expired {
    /// The route's timeout.
    Route,
    /// `per_try_timeout`
    Attempt,
    /// `idle_timeout`, `stream_idle_timeout`
    Idle,
    /// `max_stream_duration`
    Stream,
}

impl Deadlines {
    /// Of a request whose head came at `arrived`. `idle` is the connection manager's.
    pub(crate) fn new(
        head: &RequestHead,
        action: &RouteAction,
        policy: Option<&RetryPolicy>,
        idle: Option<Duration>,
        arrived: Instant,
    ) -> Self {
        Self {
            timeout: route_timeout(head, action),
            per_try: policy.and_then(|policy| policy.per_try_timeout),
            // An explicit 0 on the route switches the connection manager's off.
            idle: action.idle_timeout.or(idle).filter(|idle| !idle.is_zero()),
            route: None,
            attempt: None,
            stream: action.max_stream_duration.map(|duration| arrived + duration),
        }
    }

    /// Of a request of the proxy's own, all of which is to be over by `end`.
    pub(crate) fn until(end: Instant) -> Self {
        Self { timeout: None, per_try: None, idle: None, route: None, attempt: None, stream: Some(end) }
    }

    /// Whether there are any.
    pub(crate) fn are_set(&self) -> bool {
        self.timeout.is_some() || self.per_try.is_some() || self.idle.is_some() || self.stream.is_some()
    }

    /// How long the next attempt may take (`x-envoy-expected-rq-timeout-ms`); `None` is without limit.
    pub(crate) fn left(&self) -> Option<Duration> {
        let left = match self.route {
            Some(route) => Some(route.saturating_duration_since(Instant::now())),
            None => self.timeout,
        };
        earliest([left, self.per_try])
    }

    /// An attempt begins; `received` is whether the whole request is there.
    pub(crate) fn begin(&mut self, timer: &Timer, received: bool) {
        self.attempt = None;
        if received {
            self.start(timer);
        } else {
            timer.set(earliest([self.route, self.stream]));
        }
    }

    /// The whole request has been received: for this attempt, the time runs from now.
    pub(crate) fn start(&mut self, timer: &Timer) {
        let now = Instant::now();
        self.route = self.route.or(self.timeout.map(|timeout| now + timeout));
        self.attempt = self.per_try.map(|timeout| now + timeout);
        self.set(timer, now);
    }

    /// The response has begun, or another attempt is waited for: an attempt's timeout does not count any more.
    pub(crate) fn end_attempt(&mut self, timer: &Timer) {
        self.attempt = None;
        if self.are_set() {
            self.set(timer, Instant::now());
        }
    }

    /// Something came of the response, which puts off the idle timeout.
    pub(crate) fn active(&self, timer: &Timer) {
        if self.idle.is_some() {
            self.set(timer, Instant::now());
        }
    }

    /// Which of them an expired timer means.
    pub(crate) fn expired(&self) -> Expired {
        let now = Instant::now();
        let passed = |deadline: Option<Instant>| deadline.is_some_and(|deadline| deadline <= now);
        if passed(self.stream) {
            Expired::Stream
        } else if passed(self.route) {
            Expired::Route
        } else if passed(self.attempt) {
            Expired::Attempt
        } else {
            Expired::Idle
        }
    }

    fn set(&self, timer: &Timer, now: Instant) {
        let idle = self.idle.map(|idle| now + idle);
        timer.set(earliest([self.route, self.attempt, self.stream, idle]));
    }
}

fn earliest<T: Ord, const N: usize>(candidates: [Option<T>; N]) -> Option<T> {
    candidates.into_iter().flatten().min()
}

/// The route's timeout; for gRPC, where the route allows it, what the client says, within the route's limit.
fn route_timeout(head: &RequestHead, action: &RouteAction) -> Option<Duration> {
    let Some(longest) = action.grpc_timeout_header_max.filter(|_| head.is_grpc()) else {
        return action.timeout;
    };
    let longest = Some(longest).filter(|longest| !longest.is_zero());
    earliest([grpc_timeout(head), longest])
}

/// `grpc-timeout`: up to eight digits and a unit ("gRPC over HTTP2", Requests). What is malformed is ignored.
fn grpc_timeout(head: &RequestHead) -> Option<Duration> {
    let value = head.headers.get(GRPC_TIMEOUT)?.to_str().ok()?;
    let (number, unit) = value.split_at_checked(value.len().checked_sub(1)?)?;
    let number: u64 = number.parse().ok().filter(|_| number.len() <= 8)?;
    Some(match unit {
        "H" => Duration::from_secs(number * 3600),
        "M" => Duration::from_secs(number * 60),
        "S" => Duration::from_secs(number),
        "m" => Duration::from_millis(number),
        "u" => Duration::from_micros(number),
        "n" => Duration::from_nanos(number),
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use http::{HeaderValue, StatusCode};
    use orlop_plan::resource::route::ClusterSpecifier;

    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    fn action(timeout: Option<Duration>, grpc_timeout_header_max: Option<Duration>) -> RouteAction {
        RouteAction {
            cluster: ClusterSpecifier::Cluster("c".into()),
            cluster_not_found_response: StatusCode::SERVICE_UNAVAILABLE,
            path_rewrite: None,
            host_rewrite: None,
            append_x_forwarded_host: false,
            timeout,
            idle_timeout: None,
            max_stream_duration: None,
            grpc_timeout_header_max,
            retry_policy: None,
            mirrors: Vec::new(),
            hash_policy: Vec::new(),
            upgrades: Vec::new(),
        }
    }

    fn call(timeout: &'static str) -> RequestHead {
        let mut head = RequestHead::default();
        head.headers.insert(http::header::CONTENT_TYPE, HeaderValue::from_static("application/grpc"));
        head.headers.insert(GRPC_TIMEOUT, HeaderValue::from_static(timeout));
        head
    }

    #[test]
    fn a_grpc_client_says_how_long_it_waits_within_the_routes_limit() {
        let limited = action(Some(15 * SECOND), Some(10 * SECOND));
        assert_eq!(route_timeout(&call("5S"), &limited), Some(5 * SECOND));
        assert_eq!(route_timeout(&call("1H"), &limited), Some(10 * SECOND));
        assert_eq!(route_timeout(&call("1500m"), &limited), Some(Duration::from_millis(1500)));
        assert_eq!(route_timeout(&call("nonsense"), &limited), Some(10 * SECOND));
        assert_eq!(route_timeout(&RequestHead::default(), &limited), Some(15 * SECOND), "not gRPC");
    }

    #[test]
    fn a_limit_of_zero_is_none() {
        let unlimited = action(Some(15 * SECOND), Some(Duration::ZERO));
        assert_eq!(route_timeout(&call("5S"), &unlimited), Some(5 * SECOND));
        assert_eq!(route_timeout(&call("x"), &unlimited), None);
    }

    #[test]
    fn without_the_routes_leave_the_routes_timeout_holds() {
        assert_eq!(route_timeout(&call("5S"), &action(Some(15 * SECOND), None)), Some(15 * SECOND));
    }

    #[test]
    fn the_earliest_deadline_is_announced() {
        let deadlines = Deadlines::new(
            &RequestHead::default(),
            &action(Some(15 * SECOND), None),
            None,
            Some(300 * SECOND),
            Instant::now(),
        );
        assert_eq!(deadlines.left(), Some(15 * SECOND));
    }
}
