//! `/logging`: the levels of the agent's log. One log serves every pod of the node, so a pod may read them and no more.

use std::fmt::Write;

use hyper::{Response, StatusCode};
use tracing::Level;

use super::answer::{Body, text};
use super::query::Query;

const REFUSAL: &str = "The log is that of the node's agent and serves every pod: its levels cannot be changed from within \
                       one. They are set by ORLOP_LOG where the agent is started.\n";

pub(super) fn answer(query: &Query) -> Response<Body> {
    if query.is_empty() { text(StatusCode::OK, loggers()) } else { text(StatusCode::FORBIDDEN, REFUSAL) }
}

/// The most verbose level that a target's events are logged at, by the names that Envoy gives levels.
macro_rules! level_of {
    ($target:literal) => {
        [
            (tracing::enabled!(target: $target, Level::TRACE), "trace"),
            (tracing::enabled!(target: $target, Level::DEBUG), "debug"),
            (tracing::enabled!(target: $target, Level::INFO), "info"),
            (tracing::enabled!(target: $target, Level::WARN), "warning"),
            (tracing::enabled!(target: $target, Level::ERROR), "error"),
        ]
        .into_iter()
        .find_map(|(enabled, name)| enabled.then_some(name))
        .unwrap_or("off")
    };
}

fn loggers() -> String {
    let loggers = [
        ("orlop_agent", level_of!("orlop_agent")),
        ("orlop_datapath", level_of!("orlop_datapath")),
        ("orlop_l7_proxy", level_of!("orlop_l7_proxy")),
        ("orlop_xds_client", level_of!("orlop_xds_client")),
    ];
    let mut out = "active loggers:\n".to_owned();
    for (name, level) in loggers {
        // Writing to a String cannot fail.
        let _ = writeln!(out, "  {name}: {level}");
    }
    out
}
