//! Which host a hash belongs to. Rings are held against those in Envoy's own tests.

use std::collections::BTreeMap;

use super::*;

const RING: LbPolicy = LbPolicy::RingHash { minimum: 12, maximum: 8 * 1024 * 1024 };
const MAGLEV: LbPolicy = LbPolicy::Maglev { table_size: 65537 };

fn host(port: u16) -> HashedHost {
    HashedHost {
        address: SocketAddr::from(([127, 0, 0, 1], port)),
        weight: 1,
        health: HealthStatus::Healthy,
        priority: 0,
        locality: (0, None),
    }
}

fn unhealthy(port: u16) -> HashedHost {
    HashedHost { health: HealthStatus::Unhealthy, ..host(port) }
}

fn tables(policy: LbPolicy, hosts: &[HashedHost]) -> HashTables {
    let config = BalancerConfig {
        slow_start: None,
        policy,
        panic_threshold: 50,
        locality_weighted: false,
        overprovisioning_factor: 140,
    };
    HashTables::new(config, hosts)
}

/// How often each host is chosen by hashes all over.
fn tally(tables: &HashTables) -> BTreeMap<usize, u32> {
    let mut tally = BTreeMap::new();
    for number in 0..10_000_u32 {
        if let Some(host) = tables.choose(xx_hash(0, &number.to_be_bytes()), 0) {
            *tally.entry(host).or_default() += 1;
        }
    }
    tally
}

#[test]
fn a_ring_is_envoys() {
    let tables = tables(RING, &(90..96).map(host).collect::<Vec<_>>());

    for (hash, port) in [
        (0, 94),
        (833_437_586_790_550_860, 94),
        (833_437_586_790_550_861, 92),
        (3_551_244_743_356_806_947, 95),
        (3_551_244_743_356_806_948, 93),
        (16_117_243_373_044_804_889, 90),
        (u64::MAX, 94),
    ] {
        assert_eq!(tables.choose(hash, 0), Some(port - 90), "{hash}");
    }
}

#[test]
fn another_attempt_goes_to_the_next_place_in_the_ring() {
    let tables = tables(RING, &(90..96).map(host).collect::<Vec<_>>());

    assert_eq!(tables.choose(0, 1), Some(2));
    assert_eq!(tables.choose(16_117_243_373_044_804_889, 1), Some(4), "past its end comes its beginning");
}

#[test]
fn a_host_that_leaves_takes_few_other_hashes_along() {
    // The smaller ring gives those that stay more hashes than before.
    for (policy, few) in
        [(LbPolicy::RingHash { minimum: 1024, maximum: 8 * 1024 * 1024 }, 2500), (MAGLEV, 200)]
    {
        let before = tables(policy, &[host(90), host(91), host(92)]);
        let after = tables(policy, &[host(90), host(91), unhealthy(92)]);
        let moved = (0..10_000_u32).map(|number| xx_hash(0, &number.to_be_bytes())).filter(|hash| {
            before.choose(*hash, 0) != Some(2) && before.choose(*hash, 0) != after.choose(*hash, 0)
        });
        let moved = moved.count();
        assert!(moved < few, "{policy:?}: {moved}");
        assert!(!tally(&after).contains_key(&2));
    }
}

#[test]
fn hosts_get_hashes_by_their_weights() {
    for policy in [LbPolicy::RingHash { minimum: 65_536, maximum: 8 * 1024 * 1024 }, MAGLEV] {
        let tally = tally(&tables(policy, &[HashedHost { weight: 3, ..host(90) }, host(91)]));
        assert!(tally[&0].abs_diff(7500) < 300, "{policy:?}: {tally:?}");
    }
}

#[test]
fn localities_get_hashes_by_theirs_whatever_their_size() {
    let near = HashedHost { locality: (0, Some(80)), ..host(90) };
    let far = |port| HashedHost { locality: (1, Some(20)), ..host(port) };
    let config = BalancerConfig {
        slow_start: None,
        policy: MAGLEV,
        panic_threshold: 50,
        locality_weighted: true,
        overprovisioning_factor: 140,
    };
    let tally = tally(&HashTables::new(config, &[near, far(91), far(92), far(93)]));
    assert!(tally[&0].abs_diff(8000) < 300, "{tally:?}");
}

#[test]
fn a_lower_priority_gets_the_share_that_the_higher_one_lacks() {
    // Half of priority 0 is healthy: 50 % times 1.4 is 70 % of the load.
    let lower = HashedHost { priority: 1, ..host(92) };
    let tally = tally(&tables(MAGLEV, &[host(90), unhealthy(91), lower]));
    assert!(tally[&2].abs_diff(3000) < 300, "{tally:?}");
    assert!(!tally.contains_key(&1));
}

#[test]
fn below_the_panic_threshold_health_is_ignored_but_not_draining() {
    let draining = HashedHost { health: HealthStatus::Draining, ..host(93) };
    let tally = tally(&tables(MAGLEV, &[host(90), unhealthy(91), unhealthy(92), draining]));
    assert_eq!(tally.keys().collect::<Vec<_>>(), [&0, &1, &2]);
}

#[test]
fn no_host_is_no_host() {
    for policy in [RING, MAGLEV] {
        assert_eq!(tables(policy, &[]).choose(1, 0), None);
    }
}
