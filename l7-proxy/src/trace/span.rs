//! A span: its place in a trace, and what is said of it once it is over.

use std::borrow::Cow;
use std::time::{Duration, SystemTime};

use http::HeaderValue;
use orlop_plan::resource::tracing::{TracingProvider, Zipkin};

use super::context::Told;
use crate::stats::Direction;

/// A span's place in a trace.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Span {
    pub(super) trace_id: u128,
    pub(super) id: u64,
    pub(super) parent: Option<u64>,
    /// `tracestate`
    pub(super) state: Option<HeaderValue>,
    /// It is reported, and the next hop told so.
    pub(super) sampled: bool,
    /// The client has reported its side under the same id.
    pub(super) shared: bool,
    /// B3 was told in one header, and is told on so.
    pub(super) in_one: bool,
}

/// A span that is over.
#[derive(Debug)]
pub(crate) struct Finished {
    pub(super) span: Span,
    pub(super) direction: Direction,
    pub(super) name: String,
    pub(super) began: SystemTime,
    pub(super) took: Duration,
    pub(super) tags: Tags,
    /// `http.status_code`; 0 where there was no response.
    pub(super) code: u16,
}

/// Names and values, each name once.
#[derive(Debug, Default)]
pub(super) struct Tags(Vec<(Cow<'static, str>, String)>);

impl Span {
    /// Goes on with the trace that a request tells of, or begins one.
    pub(super) fn new(provider: &TracingProvider, told: Told, traced: bool, direction: Direction) -> Self {
        let Told { sampled, parent, in_one } = told;
        let sampled = sampled.unwrap_or(traced);
        let id = random();
        match (parent, provider) {
            (Some(parent), TracingProvider::Zipkin(Zipkin { shared_span_context: true, .. }))
                if direction == Direction::Inbound =>
            {
                Self {
                    trace_id: parent.trace_id,
                    id: parent.span_id,
                    parent: parent.grandparent,
                    state: parent.state,
                    sampled,
                    shared: true,
                    in_one,
                }
            }
            (Some(parent), _) => Self {
                trace_id: parent.trace_id,
                id,
                parent: Some(parent.span_id),
                state: parent.state,
                sampled,
                shared: false,
                in_one,
            },
            (None, provider) => {
                let high = match provider {
                    TracingProvider::Zipkin(Zipkin { trace_id_128bit: false, .. }) => 0,
                    TracingProvider::Zipkin(_) | TracingProvider::OpenTelemetry(_) => random(),
                };
                // Zipkin's first span has the number of its trace.
                let low = match provider {
                    TracingProvider::Zipkin(_) => id,
                    TracingProvider::OpenTelemetry(_) => random(),
                };
                let trace_id = u128::from(high) << 64 | u128::from(low);
                Self { trace_id, id, parent: None, state: None, sampled, shared: false, in_one }
            }
        }
    }
}

/// Never 0, which stands for none.
fn random() -> u64 {
    fastrand::u64(1..)
}

impl Tags {
    /// Sets one, also where it is there already.
    pub(super) fn set(&mut self, name: impl Into<Cow<'static, str>>, value: impl Into<String>) {
        let (name, value) = (name.into(), value.into());
        match self.0.iter_mut().find(|(known, _)| *known == name) {
            Some((_, known)) => *known = value,
            None => self.0.push((name, value)),
        }
    }

    /// All of them.
    pub(super) fn into_iter(self) -> impl Iterator<Item = (Cow<'static, str>, String)> {
        self.0.into_iter()
    }
}
