//! HTTP filters.

use std::sync::Arc;

use envoy_types::pb::envoy::config::core::v3::ExtensionConfigSource;
use envoy_types::pb::envoy::extensions::filters::http::cors::v3::Cors;
use envoy_types::pb::envoy::extensions::filters::http::ext_authz::v3::ExtAuthz;
use envoy_types::pb::envoy::extensions::filters::http::fault::v3::HttpFault;
use envoy_types::pb::envoy::extensions::filters::http::grpc_stats::v3::FilterConfig as GrpcStats;
use envoy_types::pb::envoy::extensions::filters::http::grpc_web::v3::GrpcWeb;
use envoy_types::pb::envoy::extensions::filters::http::jwt_authn::v3::JwtAuthentication;
use envoy_types::pb::envoy::extensions::filters::http::local_ratelimit::v3::LocalRateLimit;
use envoy_types::pb::envoy::extensions::filters::http::rbac::v3::Rbac;
use envoy_types::pb::envoy::extensions::filters::http::router::v3::Router;
use envoy_types::pb::envoy::extensions::filters::network::http_connection_manager::v3::{
    HttpFilter as Proto, http_filter,
};
use envoy_types::pb::google::protobuf::Any;
use orlop_proto::alpn::FilterConfig as Alpn;
use orlop_proto::alpn::filter_config::{AlpnOverride as ProtoAlpnOverride, Protocol as UpstreamProtocol};
use orlop_proto::peer_metadata::Config as PeerMetadata;
use orlop_proto::stats::PluginConfig;
use prost::Name;

use super::at::{At, no_effect, refuse_set};
use super::decode::Extension;
use super::ext_authz::ext_authz;
use super::fault::fault;
use super::jwt_authn::jwt_authn;
use super::local_rate_limit::local_rate_limit;
use super::per_filter_config::{CORS, FAULT};
use super::rbac::http_rbac;
use super::scalar::expect_own_source;
use super::telemetry::{peer_metadata, stats};
use crate::resource::http_connection_manager::{AlpnOverride, AlpnProtocol, DiscoveredFilter, HttpFilter};

/// The filters in order; the router must be the last, and only there.
pub(super) fn http_filters(values: Vec<Proto>, at: &At<'_>) -> Option<Vec<HttpFilter>> {
    let filters: Vec<HttpFilter> = at.each(values, http_filter)?.into_iter().flatten().collect();
    let router = filters.iter().position(|filter| matches!(filter, HttpFilter::Router));
    if router.is_none_or(|position| position + 1 != filters.len()) {
        return at.refuse("does not have the router as its last filter, and nowhere else");
    }
    Some(filters)
}

/// `None` inside for a filter that does nothing, and for one that is switched off: only a route could switch it on, and such
/// routes are refused.
fn http_filter(value: Proto, at: &At<'_>) -> Option<Option<HttpFilter>> {
    let Proto { name, is_optional, disabled, config_type } = value;
    no_effect!(at; "allows a build of Envoy without the filter to leave it out"; is_optional);
    no_effect!(at; "is named in errors alone"; name);
    if disabled {
        return Some(None);
    }
    let at_config = at.field("typed_config");
    let extension = match config_type {
        Some(http_filter::ConfigType::TypedConfig(any)) => Extension::open(any, &at_config)?,
        Some(http_filter::ConfigType::ConfigDiscovery(source)) => {
            return discovered(source, &name, &at.field("config_discovery")).map(Some);
        }
        None => return at_config.refuse(format!("of filter {name:?} is required")),
    };
    known(&extension, &name, &at_config)
}

fn discovered(value: ExtensionConfigSource, name: &str, at: &At<'_>) -> Option<HttpFilter> {
    let ExtensionConfigSource {
        config_source,
        default_config,
        apply_default_config_without_warming,
        type_urls,
    } = value;
    no_effect!(at; "is held against what comes, which is refused by its own type"; type_urls);
    expect_own_source(config_source, &at.field("config_source"));
    let default_config = match default_config {
        None => None,
        Some(any) => Some(Box::new(inert_filter(any, name, &at.field("default_config"))?)),
    };
    Some(HttpFilter::Discovered(DiscoveredFilter {
        name: name.into(),
        waits: default_config.is_none() || !apply_default_config_without_warming,
        default_config,
    }))
}

/// A filter that stands apart from its manager. One that the classifier has to know is supported in the manager alone.
pub(super) fn inert_filter(value: Any, name: &str, at: &At<'_>) -> Option<HttpFilter> {
    let extension = Extension::open(value, at)?;
    match known(&extension, name, at)? {
        None
        | Some(
            HttpFilter::Router
            | HttpFilter::GrpcWeb
            | HttpFilter::Rbac(_)
            | HttpFilter::JwtAuthn(_)
            | HttpFilter::ExtAuthz(..)
            | HttpFilter::LocalRateLimit(..)
            | HttpFilter::Fault(_)
            | HttpFilter::Cors,
        ) => extension.refuse("filter by ECDS", name, at),
        filter => filter,
    }
}

/// `None` inside for a filter that does nothing as it is configured.
fn known(extension: &Extension, name: &str, at: &At<'_>) -> Option<Option<HttpFilter>> {
    if extension.type_name() == Rbac::full_name() {
        let rbac = http_rbac(extension.message(at)?, at)?;
        return Some(rbac.map(|rbac| HttpFilter::Rbac(rbac.into())));
    }
    let filter = active(extension, name, at)?;
    if matches!(filter, HttpFilter::Cors) && name != CORS {
        at.no_effect("is configured by routes, which know it as envoy.filters.http.cors");
        return Some(None);
    }
    Some(Some(filter))
}

fn active(extension: &Extension, name: &str, at: &At<'_>) -> Option<HttpFilter> {
    match extension.type_name() {
        known if known == Router::full_name() => {
            refuse_router(extension.message(at)?, at);
            Some(HttpFilter::Router)
        }
        known if known == PluginConfig::full_name() => {
            stats(extension, at).map(|stats| HttpFilter::Stats(Arc::new(stats)))
        }
        known if known == HttpFault::full_name() => {
            let fault = fault(extension.message(at)?, at)?;
            if name != FAULT {
                return at
                    .unsupported(format!("filter {name:?} is not named {FAULT}, by which routes know it"));
            }
            Some(HttpFilter::Fault(fault.into()))
        }
        known if known == JwtAuthentication::full_name() => {
            jwt_authn(extension.message(at)?, at).map(|filter| HttpFilter::JwtAuthn(filter.into()))
        }
        known if known == ExtAuthz::full_name() => ext_authz(extension.message(at)?, at)
            .map(|filter| HttpFilter::ExtAuthz(name.into(), filter.into())),
        known if known == LocalRateLimit::full_name() => local_rate_limit(extension.message(at)?, at)
            .map(|limit| HttpFilter::LocalRateLimit(name.into(), limit.into())),
        known if known == Cors::full_name() => {
            let Cors {} = extension.message(at)?;
            Some(HttpFilter::Cors)
        }
        known if known == GrpcWeb::full_name() => {
            let GrpcWeb {} = extension.message(at)?;
            Some(HttpFilter::GrpcWeb)
        }
        known if known == GrpcStats::full_name() => {
            at.no_effect("feeds statistics alone");
            Some(HttpFilter::GrpcStats)
        }
        known if known == Alpn::full_name() => alpn(extension.message(at)?, at).map(HttpFilter::Alpn),
        known if known == PeerMetadata::full_name() => {
            peer_metadata(extension, at).map(HttpFilter::PeerMetadata)
        }
        _ => extension.refuse("filter", name, at),
    }
}

fn alpn(value: Alpn, at: &At<'_>) -> Option<Vec<AlpnOverride>> {
    let Alpn { alpn_override } = value;
    at.field("alpn_override").each(alpn_override, |value: ProtoAlpnOverride, at| {
        let ProtoAlpnOverride { upstream_protocol, alpn_override: protocols } = value;
        let upstream_protocol = match UpstreamProtocol::try_from(upstream_protocol) {
            Ok(UpstreamProtocol::Http10) => AlpnProtocol::Http10,
            Ok(UpstreamProtocol::Http11) => AlpnProtocol::Http11,
            Ok(UpstreamProtocol::Http2) => AlpnProtocol::Http2,
            Err(_) => return at.field("upstream_protocol").refuse("is unknown"),
        };
        Some(AlpnOverride { upstream_protocol, protocols })
    })
}

fn refuse_router(value: Router, at: &At<'_>) {
    let Router {
        dynamic_stats,
        start_child_span,
        upstream_log,
        upstream_log_options,
        suppress_envoy_headers,
        strict_check_headers,
        respect_expected_rq_timeout,
        suppress_grpc_request_failure_code_stats,
        upstream_http_filters,
        reject_connect_request_early_data,
    } = value;
    no_effect!(at; "feeds statistics alone"; dynamic_stats, suppress_grpc_request_failure_code_stats);
    no_effect!(at; "is of traces, and none are made"; start_child_span);
    no_effect!(at; "is of upstream_log, which is refused"; upstream_log_options);
    no_effect!(at; "is of CONNECT, which is refused"; reject_connect_request_early_data);
    refuse_set!(
        at; upstream_log, suppress_envoy_headers, strict_check_headers, respect_expected_rq_timeout,
        upstream_http_filters
    );
}
