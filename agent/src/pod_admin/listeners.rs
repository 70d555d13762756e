//! `/listeners`: `envoy.admin.v3.Listeners`, or one line for each listener.

use std::io::{self, Write};

use hyper::Response;
use serde::Serialize;
use serde_json::Value as Json;

use super::answer::{Body, Format, write_json};
use super::envoy_json;
use super::query::Query;
use super::server::Pod;
use super::stream::stream;
use super::view::Resources;

#[derive(Debug, Serialize)]
struct Listeners<'a> {
    listener_statuses: Vec<ListenerStatus<'a>>,
}

#[derive(Debug, Serialize)]
struct ListenerStatus<'a> {
    name: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    local_address: Option<Json>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    additional_local_addresses: Vec<Json>,
}

pub(super) async fn answer(pod: &Pod, query: &Query) -> Response<Body> {
    match Format::asked(query) {
        Format::Json => {
            stream(pod, Format::Json, |resources, out| write_json(&statuses(resources), out)).await
        }
        Format::Text => stream(pod, Format::Text, write_lines).await,
    }
}

fn statuses(resources: &Resources) -> Listeners<'_> {
    let status = |(name, addresses): (_, &Vec<_>)| {
        let mut addresses = addresses.iter().map(|address| envoy_json::address(*address));
        ListenerStatus {
            name,
            local_address: addresses.next(),
            additional_local_addresses: addresses.collect(),
        }
    };
    let listeners = resources.listeners.iter().map(|stored| (&*stored.name, &stored.resource.addresses));
    Listeners { listener_statuses: listeners.map(status).collect() }
}

fn write_lines(resources: &Resources, out: &mut dyn Write) -> io::Result<()> {
    for stored in &resources.listeners {
        let addresses: Vec<_> = stored.resource.addresses.iter().map(ToString::to_string).collect();
        writeln!(out, "{}::{}", stored.name, addresses.join(","))?;
    }
    Ok(())
}
