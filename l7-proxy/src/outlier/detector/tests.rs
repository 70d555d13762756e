//! When hosts are ejected and when they come back.

use orlop_plan::resource::cluster::{
    CircuitBreakers, ClusterDiscovery, LbPolicy, ServerNameSource, ToldOfPeers, UpstreamProtocol,
    UpstreamTransportSocket,
};
use orlop_plan::resource::outlier_detection::Consecutive;

use super::*;
use crate::outlier::{Detectors, Report};

const SECOND: Duration = Duration::from_secs(1);

/// As in Envoy, but that any number of hosts may be ejected and rates of few requests count.
fn config() -> OutlierDetection {
    let rate =
        RateDetection { minimum_hosts: 3, request_volume: 10, enforcing: 0, enforcing_local_origin: 0 };
    OutlierDetection {
        interval: 10 * SECOND,
        base_ejection_time: 30 * SECOND,
        max_ejection_time: 300 * SECOND,
        max_ejection_time_jitter: Duration::ZERO,
        max_ejection_percent: 100,
        always_eject_one_host: false,
        split_external_local_origin_errors: false,
        consecutive_5xx: Consecutive { failures: 5, enforcing: 100 },
        consecutive_gateway_failure: Consecutive { failures: 0, enforcing: 0 },
        consecutive_local_origin_failure: Consecutive { failures: 5, enforcing: 100 },
        success_rate: rate,
        success_rate_stdev_factor: 1900,
        failure_percentage: rate,
        failure_percentage_threshold: 85,
    }
}

fn cluster(outlier_detection: OutlierDetection) -> Arc<Cluster> {
    Arc::new(Cluster {
        name: "backend".into(),
        discovery: ClusterDiscovery::Eds { service_name: "backend".into() },
        connect_timeout: SECOND,
        lb_policy: LbPolicy::RoundRobin,
        protocol: UpstreamProtocol::Http1,
        transport_socket: UpstreamTransportSocket::RawBuffer,
        server_name: ServerNameSource::Context,
        alpn_override: true,
        circuit_breakers: CircuitBreakers {
            max_connections: 1024,
            max_pending_requests: 1024,
            max_requests: 1024,
            max_retries: 3,
        },
        outlier_detection: Some(outlier_detection),
        idle_timeout: None,
        max_requests_per_connection: None,
        tcp_keepalive: None,
        slow_start: None,
        healthy_panic_threshold: 50,
        locality_weighted: false,
        service: None,
        told_of_peers: ToldOfPeers::Always,
    })
}

/// A detector with so many hosts.
struct Bench {
    detector: Arc<Detector>,
    hosts: Vec<Watch>,
}

impl Bench {
    fn new(config: OutlierDetection, hosts: u8) -> Self {
        let detector = Detectors::default().get(&cluster(config)).unwrap();
        let addresses: Vec<_> = (0..hosts).map(address).collect();
        let mut watches = detector.watch(addresses.iter().copied());
        let hosts = addresses.iter().map(|address| watches.remove(address).unwrap()).collect();
        Self { detector, hosts }
    }

    fn report(&self, host: usize, report: Report, times: u32) {
        for _ in 0..times {
            self.hosts[host].report(report);
        }
    }

    fn ejected(&self) -> Vec<usize> {
        (0..self.hosts.len()).filter(|host| self.hosts[*host].is_ejected()).collect()
    }

    /// The last of too many failures in a row, this long after the start.
    fn fails(&self, host: u8, after: Duration) {
        let monitor = Arc::clone(&self.detector.state().hosts[&address(host)].monitor);
        self.detector.failed_in_a_row(&monitor, Ejection::Consecutive5xx, self.detector.started + after);
    }

    /// What is due a moment after this time.
    fn after(&self, time: Duration) {
        self.detector.tick(self.detector.started + time + Duration::from_millis(100));
    }
}

fn address(host: u8) -> SocketAddr {
    SocketAddr::from(([10, 0, 0, host], 80))
}

#[test]
fn five_failures_in_a_row_eject_a_host() {
    let bench = Bench::new(config(), 2);
    let before = bench.detector.changes();

    bench.report(0, Report::Status(500), 4);
    bench.report(0, Report::Status(200), 1);
    bench.report(0, Report::Status(503), 4);
    assert!(bench.ejected().is_empty() && bench.detector.changes() == before);
    bench.report(0, Report::Failed, 1);
    assert_eq!(bench.ejected(), [0]);
    assert_ne!(bench.detector.changes(), before, "workers balance anew");
}

#[test]
fn failures_of_gateways_have_a_limit_of_their_own() {
    let limits = OutlierDetection {
        consecutive_5xx: Consecutive { failures: 0, enforcing: 0 },
        consecutive_gateway_failure: Consecutive { failures: 3, enforcing: 100 },
        ..config()
    };
    let bench = Bench::new(limits, 2);

    bench.report(0, Report::Status(502), 2);
    bench.report(0, Report::Status(500), 10);
    bench.report(0, Report::Status(504), 2);
    assert!(bench.ejected().is_empty());
    bench.report(0, Report::TimedOut, 1);
    assert_eq!(bench.ejected(), [0]);
}

#[test]
fn failures_to_connect_may_be_counted_by_themselves() {
    let split = OutlierDetection {
        split_external_local_origin_errors: true,
        consecutive_5xx: Consecutive { failures: 2, enforcing: 100 },
        ..config()
    };
    let bench = Bench::new(split, 2);

    bench.report(0, Report::Failed, 4);
    bench.report(0, Report::Connected, 1);
    bench.report(0, Report::TimedOut, 4);
    assert!(bench.ejected().is_empty());
    bench.report(0, Report::Failed, 1);
    bench.report(1, Report::Status(500), 2);
    assert_eq!(bench.ejected(), [0, 1]);
}

#[test]
fn no_more_hosts_are_ejected_than_may_be() {
    let half = OutlierDetection { max_ejection_percent: 50, ..config() };
    let bench = Bench::new(half.clone(), 3);
    for host in 0..3 {
        bench.report(host, Report::Status(500), 5);
    }
    assert_eq!(bench.ejected(), [0]);
    assert_eq!(bench.detector.stats().ejections_overflow, 2);

    let none = OutlierDetection { max_ejection_percent: 10, ..half };
    let bench = Bench::new(none.clone(), 2);
    bench.report(0, Report::Status(500), 5);
    assert!(bench.ejected().is_empty());

    let bench = Bench::new(OutlierDetection { always_eject_one_host: true, ..none }, 2);
    bench.report(0, Report::Status(500), 5);
    bench.report(1, Report::Status(500), 5);
    assert_eq!(bench.ejected(), [0]);
}

#[test]
fn what_is_not_enforced_is_only_counted() {
    let shown = OutlierDetection { consecutive_5xx: Consecutive { failures: 5, enforcing: 0 }, ..config() };
    let bench = Bench::new(shown, 2);
    bench.report(0, Report::Status(500), 5);

    let stats = bench.detector.stats();
    assert!(bench.ejected().is_empty());
    assert_eq!(stats.ejections_detected["consecutive_5xx"], 1);
    assert_eq!((stats.ejections_enforced["consecutive_5xx"], stats.ejections_active), (0, 0));
}

#[test]
fn a_host_comes_back_after_its_time_which_grows_while_it_fails_again() {
    let bench = Bench::new(config(), 2);
    let at = |seconds: u32| seconds * SECOND;
    bench.fails(0, at(0));
    bench.after(at(20));
    assert_eq!(bench.ejected(), [0]);
    bench.after(at(30));
    assert!(bench.ejected().is_empty());

    // The second time for twice as long.
    bench.fails(0, at(40));
    bench.after(at(90));
    assert_eq!(bench.ejected(), [0]);
    bench.after(at(100));
    assert!(bench.ejected().is_empty());

    // Every interval in which it is well takes one time off.
    bench.after(at(110));
    bench.after(at(120));
    bench.fails(0, at(130));
    bench.after(at(150));
    assert_eq!(bench.ejected(), [0]);
    bench.after(at(160));
    assert!(bench.ejected().is_empty());
}

#[test]
fn a_host_that_comes_back_starts_afresh() {
    let split = OutlierDetection { split_external_local_origin_errors: true, ..config() };
    let bench = Bench::new(split, 2);
    bench.report(0, Report::Failed, 4);
    bench.fails(0, Duration::ZERO);
    bench.after(30 * SECOND);

    bench.report(0, Report::Failed, 4);
    assert!(bench.ejected().is_empty());
}

#[test]
fn a_rate_far_below_the_others_ejects() {
    let enforced = RateDetection { enforcing: 100, ..config().success_rate };
    let bench = Bench::new(OutlierDetection { success_rate: enforced, ..config() }, 6);
    for host in 0..6 {
        bench.report(host, Report::Status(200), 10);
    }
    for _ in 0..10 {
        bench.report(5, Report::Status(500), 1);
        bench.report(5, Report::Status(200), 1);
    }
    assert!(bench.ejected().is_empty());
    bench.after(10 * SECOND);

    assert_eq!(bench.ejected(), [5]);
    let rate = |host| bench.detector.stats().hosts[&address(host)].success_rate;
    assert!(rate(0) == Some(100.0) && rate(5).is_some_and(|rate| (66.0..67.0).contains(&rate)));
}

#[test]
fn a_percentage_of_failures_ejects_whatever_the_others_do() {
    let enforced = RateDetection { enforcing: 100, ..config().failure_percentage };
    let limits = OutlierDetection {
        failure_percentage: enforced,
        consecutive_5xx: Consecutive { failures: 0, enforcing: 0 },
        ..config()
    };
    let bench = Bench::new(limits, 3);
    for host in 0..3 {
        bench.report(host, Report::Status(500), 10);
    }
    bench.after(10 * SECOND);
    assert_eq!(bench.ejected(), [0, 1, 2]);
    assert_eq!(bench.detector.stats().ejections_enforced["failure_percentage"], 3);
}

#[test]
fn a_host_that_leaves_the_cluster_is_forgotten_and_others_are_kept() {
    let bench = Bench::new(config(), 2);
    bench.report(0, Report::Status(500), 5);
    bench.report(1, Report::Status(500), 5);
    let watches = bench.detector.watch([address(1), address(2)].into_iter());

    assert!(watches[&address(1)].is_ejected() && !watches[&address(2)].is_ejected());
    assert_eq!(bench.detector.stats().ejections_active, 1);
}

#[test]
fn all_workers_have_the_same_detector_until_the_cluster_changes() {
    let detectors = Detectors::default();
    let first = cluster(config());
    let one = detectors.get(&first).unwrap();

    assert!(Arc::ptr_eq(&one, &detectors.get(&first).unwrap()));
    assert!(!Arc::ptr_eq(&one, &detectors.get(&cluster(config())).unwrap()));
}
