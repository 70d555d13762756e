//! Hosts that fail are ejected, for requests and for connections, on all workers.

#![allow(clippy::unwrap_used, reason = "helpers of tests fail the test")]

mod support;

use std::time::Duration;

use orlop_plan::resource::cluster::{Cluster, LbPolicy};
use orlop_plan::resource::outlier_detection::{Consecutive, OutlierDetection, RateDetection};
use support::http::{Client, backend, says, status};
use support::http_plan::{all_to, http_listener};
use support::plan::{Plan, eds, endpoint, tcp_listener};
use support::tcp::{read_all, serve_name};
use support::{Pod, Proxied};

const VIP: &str = "10.96.0.1:80";

/// Two failures in a row eject for good.
fn detecting() -> Cluster {
    let rate =
        RateDetection { minimum_hosts: 5, request_volume: 100, enforcing: 0, enforcing_local_origin: 0 };
    let detection = OutlierDetection {
        interval: Duration::from_mins(10),
        base_ejection_time: Duration::from_mins(10),
        max_ejection_time: Duration::from_mins(10),
        max_ejection_time_jitter: Duration::ZERO,
        max_ejection_percent: 100,
        always_eject_one_host: false,
        split_external_local_origin_errors: false,
        consecutive_5xx: Consecutive { failures: 2, enforcing: 100 },
        consecutive_gateway_failure: Consecutive { failures: 0, enforcing: 0 },
        consecutive_local_origin_failure: Consecutive { failures: 0, enforcing: 0 },
        success_rate: rate,
        success_rate_stdev_factor: 1900,
        failure_percentage: rate,
        failure_percentage_threshold: 85,
    };
    Cluster { outlier_detection: Some(detection), healthy_panic_threshold: 0, ..eds("backend") }
}

fn ejections(proxied: &Proxied) -> u64 {
    proxied.stats().outliers.get("backend").map_or(0, |found| found.ejections_active)
}

#[test]
fn a_host_that_answers_with_errors_gets_no_more_requests() {
    let pod = Pod::new();
    let bad = backend(pod.listen_outside("10.77.0.2:8081"), |_| status("500 Internal Server Error"));
    let good = says(pod.listen_outside("10.77.0.2:8082"), "good");
    let hosts = [endpoint(bad.address), endpoint(good.address)];
    let plan = Plan::new().outbound(VIP, http_listener(all_to("backend"))).cluster_with(detecting(), &hosts);
    let proxied = pod.proxied_by(2, plan.build());

    let mut statuses = Vec::new();
    for _ in 0..10 {
        // Each on a connection of its own, so that both workers have some.
        statuses.push(Client::new(pod.connect(VIP)).get("/").status());
    }
    assert_eq!(statuses.iter().filter(|status| **status == 500).count(), 2, "{statuses:?}");
    assert_eq!(ejections(&proxied), 1);
}

#[test]
fn a_hash_of_an_ejected_host_leads_to_another() {
    let pod = Pod::new();
    let bad = backend(pod.listen_outside("10.77.0.2:8081"), |_| status("503 Service Unavailable"));
    let worse = backend(pod.listen_outside("10.77.0.2:8082"), |_| status("502 Bad Gateway"));
    let good = says(pod.listen_outside("10.77.0.2:8083"), "good");
    let hosts = [endpoint(bad.address), endpoint(worse.address), endpoint(good.address)];
    let cluster = Cluster { lb_policy: LbPolicy::Maglev { table_size: 65537 }, ..detecting() };
    let plan = Plan::new().outbound(VIP, http_listener(all_to("backend"))).cluster_with(cluster, &hosts);
    let proxied = pod.proxied(plan.build());

    let mut client = Client::new(pod.connect(VIP));
    while ejections(&proxied) < 2 {
        client.get("/");
    }
    for _ in 0..10 {
        assert_eq!(client.get("/").status(), 200);
    }
}

#[test]
fn a_host_that_refuses_connections_gets_none_any_more() {
    let pod = Pod::new();
    let live = serve_name(pod.listen_outside("10.77.0.2:8080"), "live");
    let hosts = [endpoint("10.77.0.2:1".parse().unwrap()), endpoint(live)];
    let plan = Plan::new().outbound(VIP, tcp_listener("backend")).cluster_with(detecting(), &hosts);
    let proxied = pod.proxied(plan.build());

    while ejections(&proxied) == 0 {
        // The reset of a refused one may come before its connect has returned.
        let _refused = pod.try_connect(VIP).and_then(|mut connection| read_all(&mut connection));
    }
    for _ in 0..10 {
        assert_eq!(read_all(&mut pod.connect(VIP)).unwrap(), "live");
    }
    assert_eq!(proxied.stats().clusters["backend"].connect_failures, 2);
}

#[test]
fn nobody_serves_when_everybody_is_ejected_and_panic_is_off() {
    let pod = Pod::new();
    let bad = backend(pod.listen_outside("10.77.0.2:8081"), |_| status("500 Internal Server Error"));
    let plan = Plan::new()
        .outbound(VIP, http_listener(all_to("backend")))
        .cluster_with(detecting(), &[endpoint(bad.address)]);
    let proxied = pod.proxied(plan.build());

    let mut client = Client::new(pod.connect(VIP));
    let statuses = [(); 4].map(|()| client.get("/").status());
    assert_eq!(statuses, [500, 500, 503, 503]);
    proxied.expect_flag("UH", 2);
}
