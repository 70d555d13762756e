//! From a query's bytes to an answer's.

#![allow(clippy::unwrap_used, clippy::panic, reason = "a test that cannot be set up must fail")]

mod support;

use hickory_proto::op::{Edns, Message, OpCode, Query, ResponseCode};
use hickory_proto::rr::{DNSClass, Name, RecordType};
use orlop_dns::{Carrier, Resolution, resolve};
use support::names;

fn query(name: &str, kind: RecordType) -> Message {
    let mut message = Message::query();
    message.metadata.recursion_desired = true;
    message.add_query(Query::query(Name::from_ascii(name).unwrap(), kind));
    message
}

fn with_edns(mut query: Message, payload: u16, version: u8) -> Message {
    let mut edns = Edns::new();
    edns.set_max_payload(payload).set_version(version);
    query.set_edns(edns);
    query
}

fn resolution(query: &Message, carrier: Carrier) -> Resolution {
    resolve(&names(), &query.to_vec().unwrap(), carrier)
}

fn answer_over(query: &Message, carrier: Carrier) -> Message {
    match resolution(query, carrier) {
        Resolution::Answer(bytes) => {
            let answer = Message::from_vec(&bytes).unwrap();
            assert_eq!(answer.metadata.id, query.metadata.id);
            assert_eq!(answer.queries, query.queries);
            answer
        }
        other => panic!("{other:?}"),
    }
}

fn answer(query: &Message) -> Message {
    answer_over(query, Carrier::Udp)
}

fn records(answer: &Message) -> Vec<String> {
    let mut records: Vec<_> = answer
        .answers
        .iter()
        .map(|r| format!("{} {} {} {}", r.name.to_ascii(), r.ttl, r.record_type(), r.data))
        .collect();
    records.sort_unstable();
    records
}

#[test]
fn an_answer_has_the_address_for_half_a_minute_and_is_authoritative() {
    let answer = answer(&query("productpage.", RecordType::A));
    assert_eq!(records(&answer), ["productpage. 30 A 9.9.9.9"]);
    assert!(answer.metadata.authoritative && answer.metadata.recursion_desired);
    assert!(answer.metadata.recursion_available, "other names are resolved, too");
    assert!(answer.edns.is_none(), "none was offered");
}

#[test]
fn the_owner_is_spelt_as_in_the_question() {
    let answer = answer(&query("ProductPage.NS1.", RecordType::A));
    assert_eq!(records(&answer), ["ProductPage.NS1. 30 A 9.9.9.9"]);
}

#[test]
fn a_family_that_the_host_has_not_is_no_error_and_no_record() {
    for (name, kind) in [("productpage.", RecordType::AAAA), ("ipv6.localhost.", RecordType::A)] {
        let answer = answer(&query(name, kind));
        assert_eq!(answer.metadata.response_code, ResponseCode::NoError);
        assert!(answer.answers.is_empty());
    }
    // With the search domain as well: no alias without an address.
    let answer = answer(&query("productpage.ns1.ns1.svc.cluster.local.", RecordType::AAAA));
    assert!(answer.answers.is_empty());
}

#[test]
fn each_family_is_answered_by_itself() {
    let v4 = answer(&query("dual.localhost.", RecordType::A));
    assert_eq!(records(&v4), ["dual.localhost. 30 A 2.2.2.2"]);
    let v6 = answer(&query("dual.localhost.", RecordType::AAAA));
    assert_eq!(records(&v6), ["dual.localhost. 30 AAAA 2001:db8::ff00:42:8329"]);
}

#[test]
fn an_alias_comes_first_with_the_address_of_its_target() {
    let answer = answer(&query("www.google.com.ns1.svc.cluster.local.", RecordType::A));
    let records: Vec<_> =
        answer.answers.iter().map(|r| format!("{} {} {}", r.name, r.record_type(), r.data)).collect();
    assert_eq!(
        records,
        ["www.google.com.ns1.svc.cluster.local. CNAME www.google.com.", "www.google.com. A 1.1.1.1"]
    );
}

#[test]
fn too_many_addresses_are_cut_to_what_the_client_takes() {
    let plain = answer(&query("many.example.", RecordType::A));
    assert!(plain.metadata.truncation);
    assert!(plain.to_vec().unwrap().len() <= 512 && plain.answers.len() == 30, "{}", plain.answers.len());

    let roomy = answer(&with_edns(query("many.example.", RecordType::A), 1232, 0));
    assert!(!roomy.metadata.truncation && roomy.answers.len() == 64);
    assert!(roomy.edns.is_some());

    let little = answer(&with_edns(query("many.example.", RecordType::A), 100, 0));
    assert!(little.metadata.truncation && little.answers.len() >= 28, "less than 512 means 512");

    let tcp = answer_over(&query("many.example.", RecordType::A), Carrier::Tcp);
    assert!(!tcp.metadata.truncation && tcp.answers.len() == 64);
}

#[test]
fn the_order_of_addresses_is_another_each_time() {
    let orders: std::collections::BTreeSet<_> = (0..20)
        .map(|_| {
            let answer = answer_over(&query("many.example.", RecordType::A), Carrier::Tcp);
            answer.answers.iter().map(|r| r.data.to_string()).collect::<Vec<_>>()
        })
        .collect();
    assert!(orders.len() > 1);
}

#[test]
fn a_version_of_edns_that_there_is_not_is_refused() {
    let answer = answer(&with_edns(query("productpage.", RecordType::A), 1232, 1));
    // The decoder calls the number by its other name.
    assert_eq!(u16::from(answer.metadata.response_code), u16::from(ResponseCode::BADVERS));
    assert!(answer.answers.is_empty());
}

#[test]
fn what_is_not_the_nodes_to_answer_is_forwarded() {
    let mut chaos = query("productpage.", RecordType::A);
    chaos.queries[0].set_query_class(DNSClass::CH);
    let mut two = query("productpage.", RecordType::A);
    two.add_query(Query::query(Name::from_ascii("www.google.com.").unwrap(), RecordType::A));
    let mut update = query("productpage.", RecordType::A);
    update.metadata.op_code = OpCode::Update;
    let mut none = query("productpage.", RecordType::A);
    none.queries.clear();
    for message in [
        query("www.bing.com.", RecordType::A),
        query("productpage.", RecordType::TXT),
        query("productpage.", RecordType::SRV),
        query("9.9.9.9.in-addr.arpa.", RecordType::PTR),
        chaos,
        two,
        update,
        none,
    ] {
        assert_eq!(resolution(&message, Carrier::Udp), Resolution::Forward, "{message:?}");
    }
}

#[test]
fn what_is_no_query_is_malformed() {
    let good = query("productpage.", RecordType::A).to_vec().unwrap();
    let response = Message::response(7, OpCode::Query).to_vec().unwrap();
    let looping = [&[0, 1, 1, 0, 0, 1, 0, 0, 0, 0, 0, 0][..], &[0xc0, 12, 0, 1, 0, 1]].concat();
    let forward_pointer = [&[0, 1, 1, 0, 0, 1, 0, 0, 0, 0, 0, 0][..], &[0xc0, 40, 0, 1, 0, 1]].concat();
    let long_name = [&good[..12], &[63; 64 * 6], &[0, 0, 1, 0, 1]].concat();
    for bytes in
        [&[][..], &good[..5], &good[..good.len() - 1], &response, &looping, &forward_pointer, &long_name]
    {
        assert_eq!(resolve(&names(), bytes, Carrier::Udp), Resolution::Malformed, "{bytes:?}");
    }
}
