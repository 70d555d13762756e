//! `tcp_proxy.v3.TcpProxy`.

use envoy_types::pb::envoy::extensions::filters::network::tcp_proxy::v3::TcpProxy as Proto;
use envoy_types::pb::envoy::extensions::filters::network::tcp_proxy::v3::tcp_proxy::weighted_cluster::ClusterWeight;
use envoy_types::pb::envoy::extensions::filters::network::tcp_proxy::v3::tcp_proxy::{
    ClusterSpecifier, WeightedCluster,
};

use super::access_log::access_logs;
use super::at::{At, no_effect, refuse_set};
use super::hash_policy::hashes_source_ip;
use super::scalar::{optional_duration, timeout};
use super::upstream_http::DEFAULT_IDLE_TIMEOUT;
use crate::resource::tcp_proxy::{TcpClusterSpecifier, TcpProxy};

pub(super) fn tcp_proxy(value: Proto, at: &At<'_>) -> Option<TcpProxy> {
    let Proto {
        stat_prefix,
        on_demand,
        metadata_match,
        idle_timeout,
        downstream_idle_timeout,
        upstream_idle_timeout,
        access_log,
        max_connect_attempts,
        backoff_options,
        hash_policy,
        tunneling_config,
        max_downstream_connection_duration,
        max_downstream_connection_duration_jitter_percentage,
        access_log_flush_interval,
        flush_access_log_on_connected,
        access_log_options,
        proxy_protocol_tlvs,
        proxy_protocol_tlv_merge_policy,
        upstream_connect_mode,
        max_early_data_bytes,
        check_drain_close,
        cluster_specifier,
    } = value;
    no_effect!(at; "feeds statistics alone"; stat_prefix);
    no_effect!(at; "asks for lines before the end, and there is one line, at the end"; access_log_flush_interval, flush_access_log_on_connected, access_log_options);
    refuse_set!(
        at; on_demand, metadata_match, downstream_idle_timeout, upstream_idle_timeout, backoff_options,
        tunneling_config, max_downstream_connection_duration_jitter_percentage, proxy_protocol_tlvs,
        proxy_protocol_tlv_merge_policy, upstream_connect_mode, max_early_data_bytes, check_drain_close
    );
    let idle_timeout = timeout(idle_timeout, Some(DEFAULT_IDLE_TIMEOUT), &at.field("idle_timeout"));
    let max_duration = optional_duration(
        max_downstream_connection_duration,
        &at.field("max_downstream_connection_duration"),
    );
    let hash_source_ip = hashes_source_ip(hash_policy, &at.field("hash_policy"));
    let access_logs = access_logs(access_log, &at.field("access_log"));
    let max_connect_attempts = max_connect_attempts.map_or(1, |attempts| attempts.value);
    if max_connect_attempts == 0 {
        let _: Option<()> = at.field("max_connect_attempts").refuse("must be at least 1");
    }
    let cluster = at.field("cluster_specifier").required(cluster_specifier).and_then(|value| match value {
        ClusterSpecifier::Cluster(name) => Some(TcpClusterSpecifier::Cluster(name.into())),
        ClusterSpecifier::WeightedClusters(value) => weighted(value, &at.field("weighted_clusters")),
    });
    Some(TcpProxy {
        cluster: cluster?,
        idle_timeout: idle_timeout?,
        max_connect_attempts,
        max_downstream_connection_duration: max_duration?,
        hash_source_ip: hash_source_ip?,
        access_logs: access_logs?,
    })
}

fn weighted(value: WeightedCluster, at: &At<'_>) -> Option<TcpClusterSpecifier> {
    let WeightedCluster { clusters } = value;
    let clusters = at.field("clusters").each(clusters, |value, at| {
        let ClusterWeight { name, weight, metadata_match } = value;
        refuse_set!(at; metadata_match);
        if weight == 0 {
            return at.field("weight").refuse("must be at least 1");
        }
        Some((name.into(), weight))
    })?;
    let sum = clusters.iter().try_fold(0_u32, |sum, (_, weight)| sum.checked_add(*weight));
    match sum {
        Some(total_weight) if total_weight > 0 => {
            Some(TcpClusterSpecifier::Weighted { clusters, total_weight })
        }
        _ => at.field("clusters").refuse("has weights whose sum is 0 or above 4294967295"),
    }
}
