//! `route.v3.RouteAction`.

use std::sync::Arc;
use std::time::Duration;

use envoy_types::pb::envoy::config::route::v3::route_action::{
    self, ClusterNotFoundResponseCode, HostRewriteSpecifier, MaxStreamDuration, RequestMirrorPolicy,
    UpgradeConfig,
};
use envoy_types::pb::envoy::config::route::v3::weighted_cluster::{ClusterWeight, cluster_weight};
use envoy_types::pb::envoy::config::route::v3::{RouteAction as Proto, WeightedCluster as ProtoWeighted};
use http::StatusCode;

use super::at::{At, no_effect, refuse_set};
use super::hash_policy::hash_policies;
use super::header::{Mutations, header_name};
use super::per_filter_config::refuse_per_filter_config;
use super::regex::substitution;
use super::retry::retry_policy;
use super::scalar::{self, optional_duration, optional_text, per_million};
use crate::resource::route::{
    ClusterSpecifier, HostRewrite, MirrorPolicy, PathRewrite, RouteAction, WeightedCluster, WeightedClusters,
};

/// Envoy's timeout of a route that does not name one.
const DEFAULT_TIMEOUT: Duration = Duration::from_secs(15);

pub(super) fn route_action(value: Proto, at: &At<'_>) -> Option<RouteAction> {
    let Proto {
        cluster_not_found_response_code,
        metadata_match,
        prefix_rewrite,
        regex_rewrite,
        path_rewrite_policy,
        path_rewrite,
        append_x_forwarded_host,
        timeout: route_timeout,
        idle_timeout,
        flush_timeout,
        early_data_policy,
        retry_policy: retry,
        retry_policy_typed_config,
        request_mirror_policies,
        priority,
        rate_limits,
        include_vh_rate_limits,
        hash_policy,
        cors,
        max_grpc_timeout,
        grpc_timeout_offset,
        upgrade_configs,
        internal_redirect_policy,
        internal_redirect_action,
        max_internal_redirects,
        hedge_policy,
        max_stream_duration,
        cluster_specifier,
        host_rewrite_specifier,
    } = value;
    no_effect!(at; "is of rate_limits, which are refused"; include_vh_rate_limits);
    refuse_set!(
        at; metadata_match, path_rewrite_policy, path_rewrite, flush_timeout, early_data_policy,
        retry_policy_typed_config, priority, rate_limits, cors, grpc_timeout_offset,
        internal_redirect_policy, internal_redirect_action, max_internal_redirects, hedge_policy
    );
    let cluster_not_found_response =
        match ClusterNotFoundResponseCode::try_from(cluster_not_found_response_code) {
            Ok(ClusterNotFoundResponseCode::ServiceUnavailable) => Some(StatusCode::SERVICE_UNAVAILABLE),
            Ok(ClusterNotFoundResponseCode::NotFound) => Some(StatusCode::NOT_FOUND),
            Ok(ClusterNotFoundResponseCode::InternalServerError) => Some(StatusCode::INTERNAL_SERVER_ERROR),
            Err(_) => at.field("cluster_not_found_response_code").refuse("is unknown"),
        };
    let path_rewrite = match (prefix_rewrite.is_empty(), regex_rewrite) {
        (true, None) => Some(None),
        (false, None) => Some(Some(PathRewrite::Prefix(prefix_rewrite))),
        (true, Some(rewrite)) => substitution(rewrite, &at.field("regex_rewrite"))
            .map(|(pattern, substitution)| Some(PathRewrite::Regex { pattern, substitution })),
        (false, Some(_)) => at.field("regex_rewrite").refuse("stands beside prefix_rewrite"),
    };
    let host_rewrite = host_rewrite(host_rewrite_specifier, at);
    let timeout = scalar::timeout(route_timeout, Some(DEFAULT_TIMEOUT), &at.field("timeout"));
    let idle_timeout = optional_duration(idle_timeout, &at.field("idle_timeout"));
    let grpc_timeout = optional_duration(max_grpc_timeout, &at.field("max_grpc_timeout"));
    let at_limits = at.field("max_stream_duration");
    let MaxStreamDuration { max_stream_duration, grpc_timeout_header_max, grpc_timeout_header_offset } =
        max_stream_duration.unwrap_or_default();
    refuse_set!(at_limits; grpc_timeout_header_offset);
    // istiod writes 0 on inbound routes: no limit.
    let max_stream_duration =
        scalar::timeout(max_stream_duration, None, &at_limits.field("max_stream_duration"));
    let header_max = optional_duration(grpc_timeout_header_max, &at_limits.field("grpc_timeout_header_max"));
    let retry_policy = match retry {
        None => Some(None),
        Some(policy) => retry_policy(policy, &at.field("retry_policy")).map(|policy| Some(Arc::new(policy))),
    };
    let mirrors = at.field("request_mirror_policies").each(request_mirror_policies, mirror);
    let hash_policy = hash_policies(hash_policy, &at.field("hash_policy"));
    let upgrades = at.field("upgrade_configs").each(upgrade_configs, upgrade);
    let cluster = at
        .field("cluster_specifier")
        .required(cluster_specifier)
        .and_then(|value| cluster_specifier_of(value, at));
    Some(RouteAction {
        cluster: cluster?,
        cluster_not_found_response: cluster_not_found_response?,
        path_rewrite: path_rewrite?,
        host_rewrite: host_rewrite?,
        append_x_forwarded_host,
        timeout: timeout?,
        idle_timeout: idle_timeout?,
        max_stream_duration: max_stream_duration?,
        grpc_timeout_header_max: header_max?.or(grpc_timeout?),
        retry_policy: retry_policy?,
        mirrors: mirrors?,
        hash_policy: hash_policy?,
        upgrades: upgrades?,
    })
}

fn host_rewrite(value: Option<HostRewriteSpecifier>, at: &At<'_>) -> Option<Option<HostRewrite>> {
    match value {
        None => Some(None),
        Some(HostRewriteSpecifier::HostRewriteLiteral(host)) => {
            Some(optional_text(host).map(HostRewrite::Literal))
        }
        Some(HostRewriteSpecifier::AutoHostRewrite(flag)) => Some(flag.value.then_some(HostRewrite::Auto)),
        Some(HostRewriteSpecifier::HostRewriteHeader(name)) => {
            header_name(&name, &at.field("host_rewrite_header")).map(|name| Some(HostRewrite::Header(name)))
        }
        Some(HostRewriteSpecifier::HostRewritePathRegex(_)) => {
            at.field("host_rewrite_path_regex").unsupported("is not supported")
        }
        Some(HostRewriteSpecifier::HostRewrite(_)) => {
            at.field("host_rewrite").unsupported("is not supported")
        }
    }
}

fn mirror(value: RequestMirrorPolicy, at: &At<'_>) -> Option<MirrorPolicy> {
    let RequestMirrorPolicy {
        cluster,
        cluster_header,
        runtime_fraction,
        trace_sampled,
        disable_shadow_host_suffix_append,
        request_headers_mutations,
        host_rewrite_literal,
    } = value;
    no_effect!(at; "is of traces, and none are made"; trace_sampled);
    refuse_set!(at; cluster_header, request_headers_mutations, host_rewrite_literal);
    let fraction = match runtime_fraction {
        None => Some(None),
        Some(fraction) => per_million(&fraction, &at.field("runtime_fraction")).map(Some),
    };
    if cluster.is_empty() && cluster_header.is_empty() {
        return at.field("cluster").refuse("is empty");
    }
    Some(MirrorPolicy {
        cluster: cluster.into(),
        fraction_per_million: fraction?,
        marks_host: !disable_shadow_host_suffix_append,
    })
}

/// The type of an upgrade that the route allows.
fn upgrade(value: UpgradeConfig, at: &At<'_>) -> Option<String> {
    let UpgradeConfig { upgrade_type, enabled, connect_config } = value;
    refuse_set!(at; connect_config);
    // It would take away what the connection manager allows.
    if enabled.is_some_and(|flag| !flag.value) {
        return at.field("enabled").unsupported("false is not supported");
    }
    let upgrade_type = upgrade_type.to_ascii_lowercase();
    if upgrade_type == "connect" {
        return at.field("upgrade_type").unsupported("CONNECT is not supported");
    }
    Some(upgrade_type)
}

fn cluster_specifier_of(value: route_action::ClusterSpecifier, at: &At<'_>) -> Option<ClusterSpecifier> {
    match value {
        route_action::ClusterSpecifier::Cluster(name) => Some(ClusterSpecifier::Cluster(name.into())),
        route_action::ClusterSpecifier::ClusterHeader(name) => {
            header_name(&name, &at.field("cluster_header")).map(ClusterSpecifier::ClusterHeader)
        }
        route_action::ClusterSpecifier::WeightedClusters(value) => {
            weighted_clusters(value, &at.field("weighted_clusters")).map(ClusterSpecifier::Weighted)
        }
        route_action::ClusterSpecifier::ClusterSpecifierPlugin(_) => {
            at.field("cluster_specifier_plugin").unsupported("is not supported")
        }
        route_action::ClusterSpecifier::InlineClusterSpecifierPlugin(_) => {
            at.field("inline_cluster_specifier_plugin").unsupported("is not supported")
        }
    }
}

fn weighted_clusters(value: ProtoWeighted, at: &At<'_>) -> Option<WeightedClusters> {
    let ProtoWeighted { clusters, total_weight, runtime_key_prefix, random_value_specifier } = value;
    refuse_set!(at; runtime_key_prefix, random_value_specifier);
    let clusters = at.field("clusters").each(clusters, weighted_cluster)?;
    let sum = clusters.iter().try_fold(0_u32, |sum, cluster| sum.checked_add(cluster.weight));
    let Some(sum) = sum.filter(|sum| *sum > 0) else {
        return at.field("clusters").refuse("has weights whose sum is 0 or above 4294967295");
    };
    no_effect!(at; "is checked to be the sum of the weights"; total_weight);
    if total_weight.is_some_and(|total| total.value != sum) {
        return at.field("total_weight").refuse(format!("is not the sum of the weights, {sum}"));
    }
    Some(WeightedClusters { clusters, total_weight: sum })
}

fn weighted_cluster(value: ClusterWeight, at: &At<'_>) -> Option<WeightedCluster> {
    let ClusterWeight {
        name,
        cluster_header,
        weight,
        metadata_match,
        request_headers_to_add,
        request_headers_to_remove,
        response_headers_to_add,
        response_headers_to_remove,
        typed_per_filter_config,
        host_rewrite_specifier,
    } = value;
    refuse_set!(at; cluster_header, metadata_match);
    refuse_per_filter_config(typed_per_filter_config, at);
    let headers = Mutations {
        request_headers_to_add,
        request_headers_to_remove,
        response_headers_to_add,
        response_headers_to_remove,
    }
    .convert(at);
    let host_rewrite = host_rewrite_specifier
        .and_then(|cluster_weight::HostRewriteSpecifier::HostRewriteLiteral(host)| optional_text(host));
    Some(WeightedCluster {
        name: name.into(),
        weight: weight.map_or(0, |weight| weight.value),
        host_rewrite,
        headers: headers?,
    })
}
