//! Which pages there are.

use std::fmt::Write;

use hyper::body::Incoming;
use hyper::{Method, Request, Response, StatusCode};

use super::answer::{Body, gone, json, text};
use super::query::Query;
use super::server::Pod;
use super::view::{Question, ServerState};
use super::{certs, clusters, config_dump, listeners, logging, server_info, stats};

struct Page {
    path: &'static str,
    /// What `/help` says.
    help: &'static str,
    /// Parameters and what `/help` says of them.
    parameters: &'static [(&'static str, &'static str)],
    /// Envoy wants a POST.
    post: bool,
    content: Content,
}

#[derive(Clone, Copy)]
enum Content {
    Help,
    Certs,
    Clusters,
    ConfigDump,
    Listeners,
    Logging,
    Ready,
    ServerInfo,
    Stats,
    Prometheus,
}

const FORMAT: (&str, &str) = ("format", "Format to use; One of (text, json)");

const USED_ONLY: (&str, &str) = ("usedonly", "Only counters that have counted something");
const FILTER: (&str, &str) = ("filter", "Regular expression for filtering stats by name");
const INVERT_FILTER: (&str, &str) = ("invert_filter", "Invert the filter");

/// Sorted by path, as `/help` lists them.
const PAGES: [Page; 11] = [
    Page { path: "/", help: "Admin home page", parameters: &[], post: false, content: Content::Help },
    Page {
        path: "/certs",
        help: "print the pod's certificates",
        parameters: &[],
        post: false,
        content: Content::Certs,
    },
    Page {
        path: "/clusters",
        help: "upstream cluster status",
        parameters: &[("filter", "Regular expression for filtering clusters by name"), FORMAT],
        post: false,
        content: Content::Clusters,
    },
    Page {
        path: "/config_dump",
        help: "dump the configuration that the pod is carried by",
        parameters: &[
            ("resource", "The repeated field to dump, such as dynamic_listeners"),
            ("name_regex", "Dump only what has a name that matches the regular expression as a whole"),
            ("include_eds", "Dump the endpoints as well"),
        ],
        post: false,
        content: Content::ConfigDump,
    },
    Page {
        path: "/help",
        help: "print out list of admin commands",
        parameters: &[],
        post: false,
        content: Content::Help,
    },
    Page {
        path: "/listeners",
        help: "print listener info",
        parameters: &[FORMAT],
        post: false,
        content: Content::Listeners,
    },
    Page {
        path: "/logging",
        help: "query logging levels; they are the node's and cannot be changed from a pod",
        parameters: &[],
        post: true,
        content: Content::Logging,
    },
    Page {
        path: "/ready",
        help: "print server state, return 200 if LIVE, otherwise return 503",
        parameters: &[],
        post: false,
        content: Content::Ready,
    },
    Page {
        path: "/server_info",
        help: "print server version/status information",
        parameters: &[],
        post: false,
        content: Content::ServerInfo,
    },
    Page {
        path: "/stats",
        help: "print what is counted for the pod",
        parameters: &[
            USED_ONLY,
            FILTER,
            INVERT_FILTER,
            ("format", "Format to use; One of (text, json, prometheus)"),
            ("type", "Stat types to include; One of (All, Counters, Histograms, Gauges, TextReadouts)"),
        ],
        post: false,
        content: Content::Stats,
    },
    Page {
        path: "/stats/prometheus",
        help: "print what is counted for the pod in prometheus format",
        parameters: &[USED_ONLY, FILTER, INVERT_FILTER],
        post: false,
        content: Content::Prometheus,
    },
];

/// Answers one request. A body is not looked at.
pub(super) async fn answer(pod: &Pod, request: &Request<Incoming>) -> Response<Body> {
    let path = request.uri().path();
    let Some(page) = PAGES.iter().find(|page| page.path == path) else {
        return text(StatusCode::NOT_FOUND, format!("invalid path. {}", help()));
    };
    if page.post && request.method() != Method::POST {
        let refusal = format!("Method {} not allowed, POST required.", request.method());
        return text(StatusCode::METHOD_NOT_ALLOWED, refusal);
    }
    let query = Query::parse(request.uri().query());
    match page.content {
        Content::Help => text(StatusCode::OK, help()),
        Content::Certs => match pod.ask(Question::Resources).await {
            Some(resources) => json(&certs::certificates(&resources)),
            None => gone(),
        },
        Content::Logging => logging::answer(&query),
        Content::Ready => match pod.ask(Question::State).await {
            Some(ServerState::Live) => text(StatusCode::OK, "LIVE\n"),
            Some(state) => text(StatusCode::SERVICE_UNAVAILABLE, format!("{state}\n")),
            None => gone(),
        },
        Content::ServerInfo => match pod.ask(Question::State).await {
            Some(state) => json(&server_info::server_info(pod, state)),
            None => gone(),
        },
        Content::Clusters => clusters::answer(pod, &query).await,
        Content::Stats => stats::answer(pod, &query).await,
        Content::Prometheus => stats::prometheus(pod, &query).await,
        Content::Listeners => listeners::answer(pod, &query).await,
        Content::ConfigDump => config_dump::answer(pod, &query).await,
    }
}

fn help() -> String {
    let mut out = "admin commands are:\n".to_owned();
    for page in &PAGES {
        // Writing to a String cannot fail.
        let _ = writeln!(out, "  {}{}: {}", page.path, if page.post { " (POST)" } else { "" }, page.help);
        for (name, help) in page.parameters {
            let _ = writeln!(out, "      {name}: {help}");
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_help_lists_the_pages_in_order_as_envoy_does() {
        assert!(PAGES.is_sorted_by_key(|page| page.path));
        assert!(help().starts_with("admin commands are:\n  /: Admin home page\n  /certs: "));
        assert!(help().contains("\n  /logging (POST): "));
        assert!(help().contains("\n      include_eds: "));
    }
}
