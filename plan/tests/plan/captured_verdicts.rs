//! What becomes of a real istiod's configuration: every destination's path and reason, as a reviewer would read them.

use std::collections::BTreeMap;
use std::fmt::Write;

use orlop_plan::compile::{Plans, explain};
use orlop_plan::snapshot::Interner;

use crate::capture;

fn compiled(name: &str) -> Plans {
    let mut interner = Interner::new();
    let capture = capture::load(name, &mut interner);
    capture::plans(&capture, &mut interner)
}

fn verdicts(plans: &Plans) -> String {
    assert!(plans.ready(), "everything that the configuration names is in the capture");
    assert_eq!(plans.held(), []);
    let mut text = String::new();
    for (destination, verdict) in &plans.verdicts() {
        writeln!(text, "{destination} — {}\n    {}", verdict.path, verdict.reason).unwrap();
    }
    text
}

#[test]
fn nothing_of_an_ordinary_configuration_is_refused() {
    for name in ["shop", "strict"] {
        assert_eq!(capture::load(name, &mut Interner::new()).errors, [], "{name}");
    }
}

#[test]
fn every_kind_of_service_has_its_path() {
    insta::assert_snapshot!(verdicts(&compiled("shop")));
}

#[test]
fn strict_mutual_tls_drops_inbound_plaintext() {
    let text = verdicts(&compiled("strict"));
    let inbound: Vec<_> = text.lines().skip_while(|line| !line.starts_with("in at")).collect();
    insta::assert_snapshot!(inbound.join("\n"));
}

#[test]
fn the_kernel_is_told_weights_and_addresses() {
    let plans = compiled("shop");
    let sorted: BTreeMap<_, _> = plans.kernel().frontends.iter().collect();
    let frontends: Vec<_> =
        sorted.iter().map(|(frontend, action)| format!("{frontend:?} {action:?}")).collect();
    insta::assert_snapshot!(frontends.join("\n"));
}

#[test]
fn a_service_is_explained_by_name_and_by_address() {
    let plans = compiled("shop");
    let by_name = explain(&plans, "reviews.shop.svc.cluster.local", 8080);
    assert_eq!(by_name, explain(&plans, "10.96.1.3", 8080));
    assert_eq!(by_name.len(), 1);
    let unknown = explain(&plans, "192.0.2.1", 5000);
    assert_eq!(unknown[0].destination.to_string(), "to anywhere else");
}

#[test]
fn two_workloads_share_equal_resources() {
    let mut interner = Interner::new();
    let one = capture::load("shop", &mut interner);
    let alive = interner.len();
    let other = capture::load("shop", &mut interner);
    assert_eq!(interner.len(), alive);
    for (name, stored) in one.snapshot.clusters().iter() {
        assert!(std::sync::Arc::ptr_eq(&stored.resource, other.snapshot.clusters().get(name).unwrap()));
    }
}
