//! Which names a workload may call a host of the table by: what Istio's DNS proxy answers, case by case.

#![allow(clippy::unwrap_used, clippy::panic, reason = "a test that cannot be set up must fail")]

mod support;

use support::{Expected, names};

/// The address of `name`, and the name that it is an alias of.
fn find(name: &str) -> Expected {
    support::find(&names(), name)
}

fn address(ip: &str) -> Expected {
    Expected::Address(ip.to_owned())
}

fn alias(target: &str, ip: &str) -> Expected {
    Expected::Alias(target.to_owned(), ip.to_owned())
}

#[test]
fn a_service_of_the_own_namespace_is_known_by_all_its_names() {
    for name in ["productpage.ns1.svc.cluster.local", "productpage.ns1.svc", "productpage.ns1", "productpage"]
    {
        assert_eq!(find(name), address("9.9.9.9"), "{name}");
    }
}

#[test]
fn a_service_of_another_namespace_needs_its_namespace() {
    for name in ["example.ns2.svc.cluster.local", "example.ns2.svc", "example.ns2"] {
        assert_eq!(find(name), address("10.10.10.10"), "{name}");
    }
    assert_eq!(find("example"), Expected::Unknown);
}

#[test]
fn a_service_of_another_clusters_domain_is_known_by_its_full_name_only() {
    assert_eq!(find("details.ns2.svc.cluster.remote"), address("11.11.11.11"));
    assert_eq!(find("details.ns2"), Expected::Unknown);
    assert_eq!(find("details.ns2.svc"), Expected::Unknown);
}

#[test]
fn a_host_that_is_no_service_has_one_name() {
    assert_eq!(find("www.google.com"), address("1.1.1.1"));
    assert_eq!(find("google.com"), Expected::Unknown);
    assert_eq!(find("www.google.com.example"), Expected::Unknown);
    assert_eq!(find("elsewhere.ns1"), Expected::Unknown, "though elsewhere.ns1.svc.cluster.local is a host");
}

#[test]
fn with_the_search_domain_a_name_is_an_alias_of_itself_without() {
    assert_eq!(find("www.google.com.ns1.svc.cluster.local"), alias("www.google.com", "1.1.1.1"));
    assert_eq!(find("productpage.ns1.ns1.svc.cluster.local"), alias("productpage.ns1", "9.9.9.9"));
    assert_eq!(find("example.ns2.ns1.svc.cluster.local"), alias("example.ns2", "10.10.10.10"));
}

#[test]
fn a_name_that_ends_in_the_search_domain_is_not_searched_for_in_it_again() {
    assert_eq!(find("productpage.ns1.svc.cluster.local.ns1.svc.cluster.local"), Expected::Unknown);
}

#[test]
fn the_other_search_domains_are_left_to_the_resolver() {
    assert_eq!(find("www.google.com.svc.cluster.local"), Expected::Unknown);
}

#[test]
fn a_wildcard_answers_for_every_name_below_it_and_the_longest_wins() {
    assert_eq!(find("foo.wildcard"), address("10.10.10.10"));
    assert_eq!(find("foo.bar.wildcard"), address("10.10.10.10"));
    assert_eq!(find("a.b.wildcard"), address("11.11.11.12"));
    assert_eq!(find("wildcard"), Expected::Unknown, "the domain itself is not below it");
    assert_eq!(find("foo.foons.svc.mesh.company.net"), address("10.1.2.3"));
}

#[test]
fn a_wildcard_with_the_search_domain_is_an_alias_of_the_name_and_not_of_the_pattern() {
    assert_eq!(find("foo.wildcard.ns1.svc.cluster.local"), alias("foo.wildcard", "10.10.10.10"));
    assert_eq!(find("a.b.wildcard.ns1.svc.cluster.local"), alias("a.b.wildcard", "11.11.11.12"));
}

#[test]
fn a_service_of_the_full_name_wins_over_another_host_with_the_search_domain() {
    assert_eq!(find("shadow.ns1.svc.cluster.local"), address("7.7.7.7"));
    assert_eq!(find("shadow"), address("8.8.8.8"), "a host of that name is before the service's short name");
}

#[test]
fn a_pod_of_a_headless_service_is_known_by_its_names_as_well() {
    for name in ["mysql-0.mysql.ns1.svc.cluster.local", "mysql-0.mysql.ns1", "mysql-0.mysql"] {
        assert_eq!(find(name), address("10.0.0.7"), "{name}");
    }
}

#[test]
fn names_of_any_form_are_looked_for_without_harm() {
    for name in ["", ".", "..", "a..b", "*", "*.wildcard", ".ns1.svc.cluster.local", &"a.".repeat(300)] {
        let _ = find(name);
    }
}
