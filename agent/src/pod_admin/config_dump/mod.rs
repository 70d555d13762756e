//! `/config_dump`: `envoy.admin.v3.ConfigDump`.
//!
//! Printed resource by resource from the bytes that the control plane sent. The descriptors of Envoy's API are loaded for
//! one dump and dropped with it.

mod endpoints;
mod sections;

use std::io::{self, Write};

use hyper::{Response, StatusCode};
use orlop_proto::Descriptors;
use regex::Regex;
use serde::Serialize;
use serde::ser::{SerializeMap, Serializer};
use serde_json::Value as Json;

use super::answer::{Body, Format, text, write_json};
use super::envoy_json;
use super::query::Query;
use super::server::Pod;
use super::stream::stream;
use super::view::Resources;
use sections::{FIELDS, List, Section, sections};

const ADMIN: &str = "type.googleapis.com/envoy.admin.v3.";

/// What of the configuration is wanted.
#[derive(Debug)]
struct Wanted {
    /// The elements of one repeated field only.
    field: Option<String>,
    names: Option<Regex>,
    endpoints: bool,
}

pub(super) async fn answer(pod: &Pod, query: &Query) -> Response<Body> {
    let wanted = match Wanted::parse(query) {
        Ok(wanted) => wanted,
        Err((status, reason)) => return text(status, reason),
    };
    let node = envoy_json::node(pod.node.message());
    stream(pod, Format::Json, move |resources, out| write(resources, &node, &wanted, out)).await
}

impl Wanted {
    fn parse(query: &Query) -> Result<Self, (StatusCode, String)> {
        if query.has("mask") {
            let reason = "mask is not supported: use resource, name_regex, or both";
            return Err((StatusCode::BAD_REQUEST, reason.to_owned()));
        }
        let names = query
            .full_regex("name_regex")
            .map_err(|error| (StatusCode::BAD_REQUEST, format!("Error while parsing name_regex: {error}")))?;
        let field = query.get("resource").map(ToOwned::to_owned);
        if let Some(field) = &field
            && !FIELDS.contains(&field.as_str())
        {
            let reason = format!("{field} not found in config dump; there are: {}", FIELDS.join(", "));
            return Err((StatusCode::NOT_FOUND, reason));
        }
        Ok(Self { field, names, endpoints: query.has("include_eds") })
    }
}

fn write(resources: &Resources, node: &Json, wanted: &Wanted, out: &mut dyn Write) -> io::Result<()> {
    let descriptors = Descriptors::load().map_err(io::Error::other)?;
    let sections = sections(resources, &descriptors, node, wanted);
    let configs = Configs { sections: &sections, field: wanted.field.as_deref() };
    write_json(&ConfigDump { configs }, out)
}

#[derive(Serialize)]
struct ConfigDump<'a> {
    configs: Configs<'a>,
}

/// `ConfigDump.configs`: the sections, or the elements of one of their fields.
struct Configs<'a> {
    sections: &'a [Section<'a>],
    field: Option<&'a str>,
}

impl Serialize for Configs<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let Some(field) = self.field else { return serializer.collect_seq(self.sections) };
        let lists = self.sections.iter().flat_map(|section| &section.lists);
        let elements = lists.filter(|list| list.field == field).flat_map(|list| {
            list.items.iter().map(|item| {
                let mut element = item();
                if let Json::Object(fields) = &mut element {
                    fields.insert("@type".to_owned(), format!("{ADMIN}{}", list.element).into());
                }
                element
            })
        });
        serializer.collect_seq(elements)
    }
}

impl Serialize for Section<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut map = serializer.serialize_map(None)?;
        map.serialize_entry("@type", &format!("{ADMIN}{}", self.message))?;
        for (name, value) in &self.fields {
            map.serialize_entry(name, value)?;
        }
        for list in self.lists.iter().filter(|list| !list.items.is_empty()) {
            map.serialize_entry(list.field, list)?;
        }
        map.end()
    }
}

impl Serialize for List<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_seq(self.items.iter().map(|item| item()))
    }
}
