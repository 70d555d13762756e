//! The load balancing of `cluster.v3.Cluster`: `lb_policy`, `lb_config` and `common_lb_config`.

use envoy_types::pb::envoy::config::cluster::v3::cluster::common_lb_config::{
    ConsistentHashingLbConfig, LocalityConfigSpecifier,
};
use envoy_types::pb::envoy::config::cluster::v3::cluster::ring_hash_lb_config::HashFunction;
use envoy_types::pb::envoy::config::cluster::v3::cluster::{
    CommonLbConfig, LbConfig, LbPolicy as ProtoLbPolicy, LeastRequestLbConfig, MaglevLbConfig,
    RingHashLbConfig, RoundRobinLbConfig, SlowStartConfig,
};
use envoy_types::pb::envoy::config::core::v3::RuntimeDouble;
use envoy_types::pb::envoy::r#type::v3::Percent;

use super::at::{At, no_effect, refuse_set};
use super::scalar::optional_duration;
use crate::resource::cluster::{LbPolicy, SlowStart};

/// Envoy's panic threshold in percent.
const DEFAULT_PANIC_THRESHOLD: u8 = 50;
/// Envoy's number of samples of least request.
const DEFAULT_CHOICE_COUNT: u32 = 2;
/// Envoy's `min_weight_percent`.
const DEFAULT_MIN_WEIGHT: f64 = 10.0;
/// Envoy's smallest ring.
const DEFAULT_MINIMUM_RING_SIZE: u64 = 1024;
/// Envoy's largest ring, and the most that may be asked for.
const MAXIMUM_RING_SIZE: u64 = 8 * 1024 * 1024;
/// The size of Envoy's Maglev tables.
const DEFAULT_TABLE_SIZE: u64 = 65537;
/// The most that may be asked for.
const MAXIMUM_TABLE_SIZE: u64 = 5_000_011;

/// The policy, and how it treats endpoints that are new.
pub(super) fn lb_policy_of(
    policy: i32,
    config: Option<LbConfig>,
    at: &At<'_>,
) -> Option<(LbPolicy, Option<SlowStart>)> {
    let mut warm_up = Some(None);
    let mut choice_count = DEFAULT_CHOICE_COUNT;
    let mut ring = LbPolicy::RingHash { minimum: DEFAULT_MINIMUM_RING_SIZE, maximum: MAXIMUM_RING_SIZE };
    let mut maglev = LbPolicy::Maglev { table_size: DEFAULT_TABLE_SIZE };
    match config {
        Some(LbConfig::LeastRequestLbConfig(config)) => {
            let LeastRequestLbConfig { choice_count: count, active_request_bias, slow_start_config } = config;
            let at = at.field("least_request_lb_config");
            refuse_set!(at; active_request_bias);
            warm_up = slow_start(slow_start_config, &at.field("slow_start_config"));
            choice_count = count.map_or(DEFAULT_CHOICE_COUNT, |count| count.value);
        }
        Some(LbConfig::RoundRobinLbConfig(RoundRobinLbConfig { slow_start_config })) => {
            let at = at.field("round_robin_lb_config").field("slow_start_config");
            warm_up = slow_start(slow_start_config, &at);
        }
        Some(LbConfig::RingHashLbConfig(config)) => {
            ring = ring_hash(config, &at.field("ring_hash_lb_config"))?;
        }
        Some(LbConfig::MaglevLbConfig(config)) => {
            maglev = maglev_table(config, &at.field("maglev_lb_config"))?;
        }
        // The original destination's is read with the type.
        Some(LbConfig::OriginalDstLbConfig(_)) | None => {}
    }
    let policy = match ProtoLbPolicy::try_from(policy) {
        Ok(ProtoLbPolicy::RoundRobin) => Some(LbPolicy::RoundRobin),
        Ok(ProtoLbPolicy::LeastRequest) => Some(LbPolicy::LeastRequest { choice_count }),
        Ok(ProtoLbPolicy::Random) => Some(LbPolicy::Random),
        Ok(ProtoLbPolicy::RingHash) => Some(ring),
        Ok(ProtoLbPolicy::Maglev) => Some(maglev),
        Ok(ProtoLbPolicy::ClusterProvided) => Some(LbPolicy::ClusterProvided),
        Ok(ProtoLbPolicy::LoadBalancingPolicyConfig) | Err(_) => {
            at.field("lb_policy").refuse("is not supported")
        }
    };
    Some((policy?, warm_up?))
}

/// `None` inside where no time is given: nothing is slow then.
fn slow_start(value: Option<SlowStartConfig>, at: &At<'_>) -> Option<Option<SlowStart>> {
    let Some(SlowStartConfig { slow_start_window, aggression, min_weight_percent }) = value else {
        return Some(None);
    };
    let window = optional_duration(slow_start_window, &at.field("slow_start_window"))?;
    let RuntimeDouble { default_value: aggression, runtime_key } =
        aggression.unwrap_or(RuntimeDouble { default_value: 1.0, runtime_key: String::new() });
    let at_aggression = at.field("aggression");
    no_effect!(at_aggression; "names a key of Envoy's runtime, and there is none"; runtime_key);
    let Percent { value: min_weight } = min_weight_percent.unwrap_or(Percent { value: DEFAULT_MIN_WEIGHT });
    if !(0.0..=100.0).contains(&min_weight) {
        return at.field("min_weight_percent").refuse("is not a percentage");
    }
    // What is no power counts as 1, as in Envoy.
    let aggression = if aggression > 0.0 && aggression.is_finite() { aggression } else { 1.0 };
    let min_weight = min_weight / 100.0;
    Some(window.filter(|window| !window.is_zero()).map(|window| SlowStart { window, aggression, min_weight }))
}

fn ring_hash(value: RingHashLbConfig, at: &At<'_>) -> Option<LbPolicy> {
    let RingHashLbConfig { minimum_ring_size, hash_function, maximum_ring_size } = value;
    if hash_function != i32::from(HashFunction::XxHash) {
        return at.field("hash_function").unsupported("is not supported but for XX_HASH");
    }
    let minimum = minimum_ring_size.map_or(DEFAULT_MINIMUM_RING_SIZE, |size| size.value);
    let maximum = maximum_ring_size.map_or(MAXIMUM_RING_SIZE, |size| size.value);
    if maximum > MAXIMUM_RING_SIZE {
        return at.field("maximum_ring_size").refuse(format!("is above {MAXIMUM_RING_SIZE}"));
    }
    if minimum > maximum {
        return at.field("minimum_ring_size").refuse(format!("is above the largest size, {maximum}"));
    }
    Some(LbPolicy::RingHash { minimum, maximum })
}

fn maglev_table(value: MaglevLbConfig, at: &At<'_>) -> Option<LbPolicy> {
    let MaglevLbConfig { table_size } = value;
    let table_size = table_size.map_or(DEFAULT_TABLE_SIZE, |size| size.value);
    let at = at.field("table_size");
    if table_size > MAXIMUM_TABLE_SIZE {
        return at.refuse(format!("is above {MAXIMUM_TABLE_SIZE}"));
    }
    if !is_prime(table_size) {
        return at.refuse(format!("is {table_size}, which is no prime"));
    }
    Some(LbPolicy::Maglev { table_size })
}

fn is_prime(number: u64) -> bool {
    number >= 2 && (2..=number.isqrt()).all(|divisor| !number.is_multiple_of(divisor))
}

/// The panic threshold, and whether localities are weighted.
pub(super) fn common_lb(value: CommonLbConfig, at: &At<'_>) -> Option<(u8, bool)> {
    let CommonLbConfig {
        healthy_panic_threshold,
        update_merge_window,
        ignore_new_hosts_until_first_hc,
        close_connections_on_host_set_change,
        consistent_hashing_lb_config,
        override_host_status,
        locality_config_specifier,
    } = value;
    no_effect!(at; "says how often Envoy rebuilds its balancers"; update_merge_window);
    no_effect!(at; "is of active health checks, which are refused"; ignore_new_hosts_until_first_hc);
    refuse_set!(at; close_connections_on_host_set_change, override_host_status);
    let ConsistentHashingLbConfig { use_hostname_for_hashing, hash_balance_factor } =
        consistent_hashing_lb_config.unwrap_or_default();
    let at_hashing = at.field("consistent_hashing_lb_config");
    refuse_set!(at_hashing; use_hostname_for_hashing, hash_balance_factor);
    let locality_weighted = match locality_config_specifier {
        None => Some(false),
        Some(LocalityConfigSpecifier::LocalityWeightedLbConfig(_)) => Some(true),
        Some(LocalityConfigSpecifier::ZoneAwareLbConfig(_)) => {
            at.field("zone_aware_lb_config").refuse("is not supported")
        }
    };
    let threshold = match healthy_panic_threshold {
        None => Some(DEFAULT_PANIC_THRESHOLD),
        // Envoy compares whole percents too.
        Some(percent) => (0..=100_u8)
            .rfind(|whole| f64::from(*whole) <= percent.value)
            .filter(|_| percent.value <= 100.0)
            .or_else(|| at.field("healthy_panic_threshold").refuse("is not a percentage")),
    };
    Some((threshold?, locality_weighted?))
}
