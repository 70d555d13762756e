//! The numbers themselves: one set of series for each worker and pod.

use std::cell::RefCell;
use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use super::dimensions::Dimensions;
use super::histogram::{Histogram, HistogramStats};
use crate::stats::Counter;

/// The most series of one pod on one worker. Clients may choose hosts, and describe themselves as they like.
const MOST: usize = 10_000;

/// One worker's numbers of one series.
#[derive(Debug, Default)]
pub(crate) struct SeriesCounters {
    /// Requests, or connections that were opened.
    pub(crate) opened: Counter,
    /// Connections that are over.
    pub(crate) closed: Counter,
    /// Of connections: to the client.
    pub(crate) sent: Counter,
    /// Of connections: from the client.
    pub(crate) received: Counter,
    request_messages: Counter,
    response_messages: Counter,
    milliseconds: Histogram,
    request_bytes: Histogram,
    response_bytes: Histogram,
}

/// What is seen of a request that is over.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Observed {
    /// From its head to the end of its response.
    pub(crate) took: Duration,
    /// With its head.
    pub(crate) request_bytes: u64,
    /// With its head.
    pub(crate) response_bytes: u64,
    /// Of gRPC.
    pub(crate) request_messages: u64,
    /// Of gRPC.
    pub(crate) response_messages: u64,
}

impl SeriesCounters {
    /// A request is over.
    fn observe(&self, observed: Observed) {
        self.opened.inc();
        self.milliseconds.record(u64::try_from(observed.took.as_millis()).unwrap_or(u64::MAX));
        self.request_bytes.record(observed.request_bytes);
        self.response_bytes.record(observed.response_bytes);
        self.request_messages.add(observed.request_messages);
        self.response_messages.add(observed.response_messages);
    }
}

/// Where whoever asks finds a worker's series. Locked when a series is made and when it is read, never for a request.
#[derive(Debug, Default)]
pub(crate) struct Published {
    series: Mutex<Vec<(Dimensions, Arc<SeriesCounters>)>>,
    /// What was in no series, because there were too many.
    pub(crate) lost: Counter,
}

/// A pod's series on one worker.
#[derive(Debug, Default)]
pub(crate) struct Series {
    known: RefCell<HashMap<Dimensions, Arc<SeriesCounters>>>,
    published: Arc<Published>,
}

impl Series {
    /// With a place to publish them.
    pub(crate) fn new(published: Arc<Published>) -> Self {
        Self { known: RefCell::default(), published }
    }

    /// The series; `None`, which is counted, where there are too many.
    pub(crate) fn of(&self, dimensions: Dimensions) -> Option<Arc<SeriesCounters>> {
        let mut known = self.known.borrow_mut();
        if let Some(counters) = known.get(&dimensions) {
            return Some(Arc::clone(counters));
        }
        if known.len() >= MOST {
            self.published.lost.inc();
            return None;
        }
        let counters = Arc::<SeriesCounters>::default();
        let mut series = self.published.series.lock().unwrap_or_else(PoisonError::into_inner);
        series.push((dimensions.clone(), Arc::clone(&counters)));
        known.insert(dimensions, Arc::clone(&counters));
        Some(counters)
    }

    /// A request is over.
    pub(crate) fn observe(&self, dimensions: Dimensions, observed: Observed) {
        if let Some(counters) = self.of(dimensions) {
            counters.observe(observed);
        }
    }
}

/// The numbers of one series, added up.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct SeriesStats {
    /// `istio_requests_total`, `istio_tcp_connections_opened_total`
    pub opened: u64,
    /// `istio_tcp_connections_closed_total`
    pub closed: u64,
    /// `istio_tcp_sent_bytes_total`
    pub sent: u64,
    /// `istio_tcp_received_bytes_total`
    pub received: u64,
    /// `istio_request_messages_total`
    pub request_messages: u64,
    /// `istio_response_messages_total`
    pub response_messages: u64,
    /// `istio_request_duration_milliseconds`
    pub milliseconds: HistogramStats,
    /// `istio_request_bytes`
    pub request_bytes: HistogramStats,
    /// `istio_response_bytes`
    pub response_bytes: HistogramStats,
}

impl SeriesStats {
    fn merge(&mut self, counters: &SeriesCounters) {
        self.opened += counters.opened.get();
        self.closed += counters.closed.get();
        self.sent += counters.sent.get();
        self.received += counters.received.get();
        self.request_messages += counters.request_messages.get();
        self.response_messages += counters.response_messages.get();
        self.milliseconds.merge(&counters.milliseconds);
        self.request_bytes.merge(&counters.request_bytes);
        self.response_bytes.merge(&counters.response_bytes);
    }
}

impl Published {
    /// Adds these series to others.
    pub(crate) fn merge_into(&self, sums: &mut HashMap<Dimensions, SeriesStats>) {
        let series = self.series.lock().unwrap_or_else(PoisonError::into_inner);
        for (dimensions, counters) in series.iter() {
            sums.entry(dimensions.clone()).or_default().merge(counters);
        }
    }
}
