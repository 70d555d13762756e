//! `typed_per_filter_config`: what routes and virtual hosts say to HTTP filters.

use std::collections::{BTreeMap, HashMap};

use envoy_types::pb::envoy::extensions::filters::http::cors::v3::CorsPolicy;
use envoy_types::pb::envoy::extensions::filters::http::ext_authz::v3::ExtAuthzPerRoute;
use envoy_types::pb::envoy::extensions::filters::http::fault::v3::HttpFault;
use envoy_types::pb::envoy::extensions::filters::http::local_ratelimit::v3::LocalRateLimit;
use envoy_types::pb::google::protobuf::Any;
use prost::Name;

use super::at::At;
use super::cors::cors_policy;
use super::decode::Extension;
use super::ext_authz::ext_authz_per_route;
use super::fault::fault;
use super::local_rate_limit::local_rate_limit;
use crate::resource::route::{FilterConfig, FilterConfigs};

/// The name by which routes know the fault filter.
pub(super) const FAULT: &str = "envoy.filters.http.fault";
/// The name by which routes know the CORS filter.
pub(super) const CORS: &str = "envoy.filters.http.cors";

pub(super) fn per_filter_config(configs: HashMap<String, Any>, at: &At<'_>) -> Option<FilterConfigs> {
    let mut parsed = FilterConfigs::default();
    let mut complete = true;
    for (filter, config) in BTreeMap::from_iter(configs) {
        let at = at.field("typed_per_filter_config").key(&filter);
        complete &= one(&filter, config, &mut parsed, &at).is_some();
    }
    complete.then_some(parsed)
}

fn one(filter: &str, config: Any, parsed: &mut FilterConfigs, at: &At<'_>) -> Option<()> {
    let extension = Extension::open(config, at)?;
    match (filter, extension.type_name()) {
        (FAULT, name) if name == HttpFault::full_name() => {
            parsed.fault = Some(fault(extension.message(at)?, at)?.into());
        }
        (CORS, name) if name == CorsPolicy::full_name() => {
            parsed.cors = Some(cors_policy(extension.message(at)?, at)?.into());
        }
        (_, name) if name == ExtAuthzPerRoute::full_name() => {
            let config = ext_authz_per_route(extension.message(at)?, at)?;
            parsed.by_name.insert(filter.to_owned(), FilterConfig::ExtAuthz(config.into()));
        }
        (_, name) if name == LocalRateLimit::full_name() => {
            let config = local_rate_limit(extension.message(at)?, at)?;
            parsed.by_name.insert(filter.to_owned(), FilterConfig::LocalRateLimit(config.into()));
        }
        _ => return extension.refuse("configuration by route of the filter", filter, at),
    }
    Some(())
}

/// No filter that is supported takes configuration here.
pub(super) fn refuse_per_filter_config(configs: HashMap<String, Any>, at: &At<'_>) {
    for (filter, config) in BTreeMap::from_iter(configs) {
        let at = at.field("typed_per_filter_config").key(&filter);
        if let Some(extension) = Extension::open(config, &at) {
            let _: Option<()> = extension.refuse("configuration by route of the filter", &filter, &at);
        }
    }
}
