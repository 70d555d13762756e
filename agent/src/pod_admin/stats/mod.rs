//! `/stats` and `/stats/prometheus`: what is counted for the pod, under Envoy's names where Envoy has the same number and
//! under `orlop.` where it has not. What is not counted is not there.

mod collect;
mod format;
mod stat;

use hyper::{Response, StatusCode};
use regex::Regex;

use super::answer::{self, Body, Format, gone, text};
use super::query::Query;
use super::server::Pod;
use super::view::Question;
use stat::{Kind, Stat};

const USAGE: &str = "usage: /stats?format=(json|prometheus|text)\n\n";
const TYPES: &str = "usage: /stats?type=(All|Counters|Histograms|Gauges|TextReadouts)\n\n";

#[derive(Debug, Clone, Copy)]
enum Output {
    Text,
    Json,
    Prometheus,
}

/// Which stats are wanted.
#[derive(Debug)]
struct Wanted {
    filter: Option<Regex>,
    inverted: bool,
    used_only: bool,
    /// `None` is every kind.
    kinds: Option<Vec<Kind>>,
}

/// `/stats`.
pub(super) async fn answer(pod: &Pod, query: &Query) -> Response<Body> {
    match query.get("format") {
        None | Some("" | "text") => print(pod, query, Output::Text).await,
        Some("json") => print(pod, query, Output::Json).await,
        Some("prometheus") => print(pod, query, Output::Prometheus).await,
        Some(_) => text(StatusCode::BAD_REQUEST, USAGE),
    }
}

/// `/stats/prometheus`.
pub(super) async fn prometheus(pod: &Pod, query: &Query) -> Response<Body> {
    print(pod, query, Output::Prometheus).await
}

async fn print(pod: &Pod, query: &Query, output: Output) -> Response<Body> {
    let wanted = match Wanted::parse(query) {
        Ok(wanted) => wanted,
        Err(reason) => return text(StatusCode::BAD_REQUEST, reason),
    };
    let Some(figures) = pod.ask(Question::Figures).await else { return gone() };
    let uptime = pod.since.elapsed();
    let printed = tokio::task::spawn_blocking(move || {
        let mut stats = collect::stats(&figures, uptime);
        stats.retain(|stat| wanted.wants(stat));
        if !matches!(output, Output::Prometheus) {
            // Envoy gives quantiles there, which buckets do not.
            stats.retain(|stat| stat.kind != Kind::Histogram);
        }
        match output {
            Output::Text => (Format::Text, format::text(stats)),
            Output::Json => (Format::Json, format::json(stats)),
            Output::Prometheus => (Format::Text, format::prometheus(stats)),
        }
    });
    match printed.await {
        Ok((format, body)) => answer::whole(format, body),
        Err(error) => text(StatusCode::INTERNAL_SERVER_ERROR, error.to_string()),
    }
}

impl Wanted {
    fn parse(query: &Query) -> Result<Self, String> {
        let kinds = match query.get("type") {
            None | Some("All") => None,
            Some("Counters") => Some(vec![Kind::Counter]),
            Some("Gauges") => Some(vec![Kind::Gauge]),
            Some("Histograms") => Some(vec![Kind::Histogram]),
            // There are none.
            Some("TextReadouts") => Some(Vec::new()),
            Some(_) => return Err(TYPES.to_owned()),
        };
        let filter = query.regex("filter").map_err(|error| format!("Invalid regex: {error}\n"))?;
        let (inverted, used_only) = (query.has("invert_filter"), query.has("usedonly"));
        Ok(Self { filter, inverted, used_only, kinds })
    }

    fn wants(&self, stat: &Stat) -> bool {
        let used = stat.kind == Kind::Gauge || stat.value > 0;
        self.kinds.as_ref().is_none_or(|kinds| kinds.contains(&stat.kind))
            && (used || !self.used_only)
            && self.filter.as_ref().is_none_or(|filter| filter.is_match(&stat.name) != self.inverted)
    }
}
