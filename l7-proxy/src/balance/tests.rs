//! What a request's choice of host depends on.

use std::cell::Cell;
use std::collections::HashMap;
use std::rc::Rc;
use std::time::Duration;

use orlop_plan::resource::cluster::{LbPolicy, SlowStart};

use super::*;

#[derive(Debug)]
struct Backend {
    name: &'static str,
    weight: u32,
    health: HealthStatus,
    active: Cell<u32>,
    since: Instant,
}

impl Candidate for Rc<Backend> {
    fn weight(&self) -> u32 {
        self.weight
    }
    fn active(&self) -> u32 {
        self.active.get()
    }
    fn since(&self) -> Instant {
        self.since
    }
    fn health(&self) -> HealthStatus {
        self.health
    }
}

fn backend(name: &'static str) -> Backend {
    Backend { name, weight: 1, health: HealthStatus::Healthy, active: Cell::new(0), since: Instant::now() }
}

fn unhealthy(name: &'static str) -> Backend {
    Backend { health: HealthStatus::Unhealthy, ..backend(name) }
}

fn locality(priority: u32, hosts: Vec<Backend>) -> Locality<Rc<Backend>> {
    Locality { priority, weight: None, hosts: hosts.into_iter().map(Rc::new).collect() }
}

fn config(policy: LbPolicy) -> BalancerConfig {
    BalancerConfig {
        policy,
        slow_start: None,
        panic_threshold: 50,
        locality_weighted: false,
        overprovisioning_factor: 140,
    }
}

const LEAST_REQUEST: LbPolicy = LbPolicy::LeastRequest { choice_count: 2 };

fn build(config: BalancerConfig, localities: Vec<Locality<Rc<Backend>>>) -> Balancer<Rc<Backend>> {
    Balancer::new(config, localities, None)
}

fn choose(balancer: &Balancer<Rc<Backend>>) -> Option<Rc<Backend>> {
    balancer.choose(0, 0)
}

/// How often each backend is chosen in `n` requests, none of which ends.
fn tally(balancer: &Balancer<Rc<Backend>>, n: u32) -> HashMap<&'static str, u32> {
    let mut tally = HashMap::new();
    for _ in 0..n {
        if let Some(host) = choose(balancer) {
            host.active.set(host.active.get() + 1);
            *tally.entry(host.name).or_default() += 1;
        }
    }
    tally
}

fn share(tally: &HashMap<&'static str, u32>, name: &str) -> u32 {
    tally.get(name).copied().unwrap_or(0)
}

#[test]
fn round_robin_visits_every_host_equally_often() {
    let hosts = vec![backend("a"), backend("b"), backend("c")];
    let balancer = build(config(LbPolicy::RoundRobin), vec![locality(0, hosts)]);
    assert_eq!(tally(&balancer, 300), HashMap::from([("a", 100), ("b", 100), ("c", 100)]));
}

#[test]
fn round_robin_follows_weights() {
    let hosts = vec![Backend { weight: 3, ..backend("a") }, backend("b")];
    let balancer = build(config(LbPolicy::RoundRobin), vec![locality(0, hosts)]);
    let tally = tally(&balancer, 400);
    assert!(share(&tally, "a").abs_diff(300) <= 2, "{tally:?}");
}

#[test]
fn least_request_evens_out_requests_that_do_not_end() {
    let hosts = vec![backend("a"), backend("b"), backend("c"), backend("d")];
    let balancer = build(config(LEAST_REQUEST), vec![locality(0, hosts)]);
    let tally = tally(&balancer, 400);
    for name in ["a", "b", "c", "d"] {
        assert!(share(&tally, name).abs_diff(100) <= 5, "{tally:?}");
    }
}

#[test]
fn least_request_with_weights_loads_in_proportion() {
    let hosts = vec![Backend { weight: 3, ..backend("a") }, backend("b")];
    let balancer = build(config(LEAST_REQUEST), vec![locality(0, hosts)]);
    let tally = tally(&balancer, 400);
    // Least request weighs by the load too, so that the heavier host gets less than its weight says.
    assert!(share(&tally, "a") > 200 && share(&tally, "a") < 320, "{tally:?}");
}

/// A host that became one so many seconds ago.
fn aged(name: &'static str, seconds: u64) -> Backend {
    let now = Instant::now();
    Backend { since: now.checked_sub(Duration::from_secs(seconds)).unwrap_or(now), ..backend(name) }
}

/// Slow for a minute.
fn warming(policy: LbPolicy) -> BalancerConfig {
    let slow_start = SlowStart { window: Duration::from_mins(1), aggression: 1.0, min_weight: 0.1 };
    BalancerConfig { slow_start: Some(slow_start), ..config(policy) }
}

#[test]
fn a_new_host_gets_the_part_that_it_has_grown_to() {
    for (seconds, part) in [(0, 0.1), (15, 0.25), (45, 0.75)] {
        let hosts = vec![aged("old", 300), aged("new", seconds)];
        let balancer = build(warming(LbPolicy::RoundRobin), vec![locality(0, hosts)]);
        let tally = tally(&balancer, 1100);
        let asked = f64::from(share(&tally, "new")) / f64::from(share(&tally, "old"));
        assert!((asked - part).abs() < 0.02, "{seconds} s: {tally:?}");
    }
}

#[test]
fn a_new_host_is_not_flooded_for_having_no_requests() {
    let old = Backend { active: Cell::new(3), ..aged("old", 300) };
    let balancer = build(warming(LEAST_REQUEST), vec![locality(0, vec![old, aged("new", 0)])]);
    let tally = tally(&balancer, 10);
    assert!(share(&tally, "new") <= 5, "{tally:?}");
}

#[test]
fn hosts_that_are_not_new_any_more_share_alike() {
    let hosts = vec![aged("a", 61), aged("b", 3600)];
    let balancer = build(warming(LbPolicy::RoundRobin), vec![locality(0, hosts)]);
    assert_eq!(tally(&balancer, 100), HashMap::from([("a", 50), ("b", 50)]));
}

#[test]
fn unhealthy_hosts_get_nothing_while_enough_are_healthy() {
    let hosts = vec![backend("a"), backend("b"), unhealthy("c")];
    let balancer = build(config(LEAST_REQUEST), vec![locality(0, hosts)]);
    assert_eq!(share(&tally(&balancer, 100), "c"), 0);
}

#[test]
fn below_the_panic_threshold_health_is_ignored() {
    let hosts = vec![backend("a"), unhealthy("b"), unhealthy("c")];
    let balancer = build(config(LbPolicy::RoundRobin), vec![locality(0, hosts)]);
    assert_eq!(tally(&balancer, 300), HashMap::from([("a", 100), ("b", 100), ("c", 100)]));
}

#[test]
fn without_panic_no_healthy_host_is_no_host() {
    let config = BalancerConfig { panic_threshold: 0, ..config(LEAST_REQUEST) };
    let balancer = build(config, vec![locality(0, vec![unhealthy("a")])]);
    assert!(choose(&balancer).is_none());
}

#[test]
fn no_endpoints_is_no_host() {
    let balancer: Balancer<Rc<Backend>> = build(config(LEAST_REQUEST), Vec::new());
    assert!(choose(&balancer).is_none());
}

#[test]
fn draining_hosts_get_nothing_even_in_a_panic() {
    let hosts = vec![unhealthy("a"), Backend { health: HealthStatus::Draining, ..backend("b") }];
    let balancer = build(config(LEAST_REQUEST), vec![locality(0, hosts)]);
    assert_eq!(tally(&balancer, 100), HashMap::from([("a", 100)]));
}

#[test]
fn degraded_hosts_take_over_when_no_host_is_healthy() {
    let hosts = vec![unhealthy("a"), Backend { health: HealthStatus::Degraded, ..backend("b") }];
    let balancer = build(config(LEAST_REQUEST), vec![locality(0, hosts)]);
    assert_eq!(tally(&balancer, 100), HashMap::from([("b", 100)]));
}

#[test]
fn a_lower_priority_gets_nothing_while_the_higher_one_is_well() {
    let localities =
        vec![locality(0, vec![backend("a"), backend("b"), backend("c")]), locality(1, vec![backend("d")])];
    let balancer = build(config(LbPolicy::RoundRobin), localities);
    assert_eq!(share(&tally(&balancer, 300), "d"), 0);
}

#[test]
fn a_lower_priority_takes_what_the_higher_one_lacks() {
    // Half of priority 0 is healthy: 50 % times 1.4 is 70 % of the load.
    let localities = vec![locality(0, vec![backend("a"), unhealthy("b")]), locality(1, vec![backend("c")])];
    let balancer = build(config(LbPolicy::RoundRobin), localities);
    let tally = tally(&balancer, 2000);
    assert!(share(&tally, "c").abs_diff(600) <= 100, "{tally:?}");
    assert_eq!(share(&tally, "b"), 0);
}

#[test]
fn weighted_localities_share_by_weight_whatever_their_size() {
    let mut near = locality(0, vec![backend("a")]);
    near.weight = Some(80);
    let mut far = locality(0, vec![backend("b"), backend("b"), backend("b")]);
    far.weight = Some(20);
    let config = BalancerConfig { locality_weighted: true, ..config(LbPolicy::RoundRobin) };
    let tally = tally(&build(config, vec![near, far]), 2000);
    assert!(share(&tally, "a").abs_diff(1600) <= 100, "{tally:?}");
}
