//! Traces: which requests are traced, how that is told to the next hop, and what is sent to the collector.
//!
//! In: a request whose route is known ([`StreamTrace::begin`]), and what is noted of its stream until it is over. Out: headers
//! by which the next hop goes on with the trace, and spans, which are queued for their collector when the stream is over
//! ([`Exporters`](crate::collect::Exporters)).

mod b3;
mod context;
mod decision;
mod otlp;
mod span;
mod stream;
mod w3c;
mod zipkin;

use std::time::Duration;

use orlop_plan::resource::collector::Collector;
use orlop_plan::resource::tracing::{OpenTelemetry, TracingProvider};

use crate::collect::{Collected, Reporter};
use crate::http::Message;
use crate::stats::{Counter, PodCounters};

pub(crate) use span::Finished;
pub(crate) use stream::{Finish, StreamTrace};

/// Envoy's `tracing.opentelemetry.flush_interval_ms` and `tracing.zipkin.flush_interval_ms`.
const FLUSH_INTERVAL: Duration = Duration::from_secs(5);
/// Envoy's `tracing.opentelemetry.min_flush_spans` and `tracing.zipkin.min_flush_spans`.
const MIN_FLUSH_SPANS: usize = 5;
/// How many spans may wait where the configuration does not say.
const MOST_WAITING: usize = 1024;

impl Collected for TracingProvider {
    type Item = Finished;

    fn collector(&self) -> &Collector {
        self.collector()
    }

    fn size(_: &Finished) -> usize {
        1
    }

    fn enough(&self) -> usize {
        MIN_FLUSH_SPANS
    }

    fn most(&self) -> usize {
        match self {
            Self::OpenTelemetry(OpenTelemetry { max_cache_size, .. }) => *max_cache_size,
            Self::Zipkin(_) => MOST_WAITING,
        }
    }

    fn interval(&self) -> Duration {
        FLUSH_INTERVAL
    }

    fn message(&self, reporter: &Reporter, batch: Vec<Finished>) -> Message<'_> {
        let (body, method, content_type) = match self {
            Self::OpenTelemetry(config) => {
                (otlp::encode(config, batch), otlp::EXPORT, "application/x-protobuf")
            }
            Self::Zipkin(_) => (zipkin::encode(reporter, batch), "", "application/json"),
        };
        Message { collector: self.collector(), method, content_type, body }
    }

    fn counters(counters: &PodCounters) -> [&Counter; 2] {
        [&counters.spans_sent, &counters.spans_dropped]
    }
}
