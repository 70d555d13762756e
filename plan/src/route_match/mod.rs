//! Which route takes a request: Envoy's search for a virtual host and a route, on the proxy's hot path.
//!
//! Pure, and without allocation but where a matcher has to see repeated headers joined or a host in lower case. In: a
//! [`RouteConfiguration`] and the head of a request. Out: the [`RouteSelection`]. Header operations, redirects and the
//! like are the proxy's work.

mod header;
mod metadata;
mod path;
mod routes;
mod string;
mod virtual_host_index;
mod weighted;

use std::sync::Arc;

use http::HeaderMap;

use crate::resource::route::{Route, RouteConfiguration, RouteMatch, VirtualHost};

pub use header::header_value;
pub use path::query_parameter;
pub use routes::Routes;
pub use virtual_host_index::{DuplicateDomain, VirtualHostIndex};

/// The head of a request as routes see it.
#[derive(Debug, Clone, Copy)]
pub struct RequestHead<'a> {
    /// `:method`
    pub method: &'a str,
    /// `:path`, with the query.
    pub path_and_query: &'a str,
    /// `:authority` or `host`, with the port where it has one.
    pub authority: &'a str,
    /// `:scheme`
    pub scheme: &'a str,
    /// Ordinary headers.
    pub headers: &'a HeaderMap,
}

impl<'a> RequestHead<'a> {
    /// The path without its query.
    pub fn path(&self) -> &'a str {
        path::split(self.path_and_query).0
    }
}

/// What was found.
#[derive(Debug, Clone, Copy)]
pub struct RouteSelection<'a> {
    /// The virtual host that the authority belongs to.
    pub virtual_host: &'a Arc<VirtualHost>,
    /// Its first route that takes the request.
    pub route: &'a Arc<Route>,
}

impl RouteConfiguration {
    /// The virtual host of an authority (with or without port).
    pub fn virtual_host(&self, authority: &str) -> Option<&Arc<VirtualHost>> {
        let position = self.index.find(authority, self.ignore_port_in_host_matching)?;
        self.virtual_hosts.get(position)
    }

    /// The route that takes `request`; `None` is Envoy's 404 "no route". `random` decides runtime fractions.
    pub fn select(&self, request: &RequestHead<'_>, random: u64) -> Option<RouteSelection<'_>> {
        let virtual_host = self.virtual_host(request.authority)?;
        let route = virtual_host.routes.find(request, random)?;
        Some(RouteSelection { virtual_host, route })
    }
}

impl RouteMatch {
    /// Whether all of its conditions hold.
    pub fn matches(&self, request: &RequestHead<'_>, random: u64) -> bool {
        let (path, query) = path::split(request.path_and_query);
        self.path.matches(path, self.case_sensitive)
            && self.headers.iter().all(|header| header.matches(request))
            && self.query_parameters.iter().all(|parameter| parameter.matches(query))
            && (!self.grpc || header::is_grpc(request.headers))
            && self
                .runtime_fraction_per_million
                .is_none_or(|numerator| random % 1_000_000 < u64::from(numerator))
    }
}
