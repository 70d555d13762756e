//! Clusters whose endpoints have names: `STRICT_DNS` and `LOGICAL_DNS`.

#![allow(clippy::unwrap_used, reason = "helpers of tests fail the test")]

mod support;

use std::collections::BTreeSet;
use std::net::{IpAddr, SocketAddr, UdpSocket};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::Duration;

use hickory_proto::op::{Message, Metadata, ResponseCode};
use hickory_proto::rr::rdata::{A, AAAA};
use hickory_proto::rr::{RData, Record, RecordType};
use orlop_plan::resource::cluster::{Cluster, ClusterDiscovery};
use orlop_plan::resource::dns_discovery::{DnsDiscovery, DnsLookupFamily};
use orlop_plan::resource::endpoint::{ClusterLoadAssignment, LbEndpoint, Locality, LocalityLbEndpoints};
use support::http::{Client, says};
use support::http_plan::{all_to, http_listener};
use support::plan::{Plan, eds, endpoint, tcp_listener};
use support::tcp::{read_all, serve_name};
use support::{CLIENT_IP, POD_IP, Pod, Proxied, eventually};

const VIP: &str = "10.96.0.1:80";
const OTHER_IP: &str = "10.77.0.3";
const NAME: &str = "backend.test";

/// What a resolver says of every name.
#[derive(Clone)]
enum Says {
    Addresses(Vec<&'static str>),
    NoSuchName,
    Failure,
    Nothing,
}

/// A resolver outside of the pod, and whom it was asked by.
struct Resolver {
    says: Arc<Mutex<Says>>,
    clients: Arc<Mutex<Vec<SocketAddr>>>,
}

impl Resolver {
    fn start(pod: &Pod, first: Says) -> Self {
        let says = Arc::new(Mutex::new(first));
        let clients = Arc::<Mutex<Vec<_>>>::default();
        let socket = pod.outside.run(|| UdpSocket::bind((CLIENT_IP, 53))).unwrap().unwrap();
        socket.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
        let (saying, asked) = (Arc::clone(&says), Arc::clone(&clients));
        thread::spawn(move || {
            let mut buffer = [0; 4096];
            while let Ok((length, from)) = socket.recv_from(&mut buffer) {
                asked.lock().unwrap().push(from);
                if let Some(answer) = answer(buffer.get(..length).unwrap(), &saying.lock().unwrap().clone()) {
                    let _sent = socket.send_to(&answer, from);
                }
            }
        });
        Self { says, clients }
    }

    fn now_says(&self, says: Says) {
        *self.says.lock().unwrap() = says;
    }
}

fn answer(query: &[u8], says: &Says) -> Option<Vec<u8>> {
    let query = Message::from_vec(query).unwrap();
    let question = query.queries.first().unwrap();
    let mut response = Message::response(query.metadata.id, query.metadata.op_code);
    response.metadata = Metadata::response_from_request(&query.metadata);
    response.queries.clone_from(&query.queries);
    match says {
        Says::Nothing => return None,
        Says::NoSuchName => response.metadata.response_code = ResponseCode::NXDomain,
        Says::Failure => response.metadata.response_code = ResponseCode::ServFail,
        Says::Addresses(addresses) => {
            let data = addresses.iter().filter_map(|address| {
                match (address.parse().unwrap(), question.query_type()) {
                    (IpAddr::V4(address), RecordType::A) => Some(RData::A(A(address))),
                    (IpAddr::V6(address), RecordType::AAAA) => Some(RData::AAAA(AAAA(address))),
                    _ => None,
                }
            });
            response.answers =
                data.map(|data| Record::from_rdata(question.name().clone(), 1, data)).collect();
        }
    }
    Some(response.to_vec().unwrap())
}

/// One endpoint of that name, asked for again as soon as may be.
fn named(name: &str) -> DnsDiscovery {
    let somewhere: LbEndpoint = endpoint("0.0.0.0:8080".parse().unwrap());
    DnsDiscovery {
        logical: false,
        names: vec![name.to_owned()],
        endpoints: ClusterLoadAssignment {
            cluster_name: "backend".into(),
            localities: vec![LocalityLbEndpoints {
                locality: Locality::default(),
                weight: None,
                priority: 0,
                endpoints: vec![somewhere],
            }],
            overprovisioning_factor: 140,
        },
        family: DnsLookupFamily::V4Only,
        refresh_rate: Duration::from_millis(50),
        respect_ttl: false,
        jitter: Duration::ZERO,
        failure_refresh_rate: (Duration::from_millis(50), Duration::from_millis(50)),
    }
}

fn served(pod: &Pod, discovery: DnsDiscovery) -> Proxied {
    let cluster = Cluster { discovery: ClusterDiscovery::Dns(discovery.into()), ..eds("backend") };
    pod.proxied(Plan::new().outbound(VIP, tcp_listener("backend")).cluster(cluster).build())
}

/// Servers at both addresses that say which one they are.
fn servers(pod: &Pod) {
    pod.add_outside_address(OTHER_IP);
    for (address, name) in [(CLIENT_IP, "one"), (OTHER_IP, "other")] {
        serve_name(pod.listen_outside(&format!("{address}:8080")), name);
    }
}

fn who_answers(pod: &Pod) -> String {
    read_all(&mut pod.connect(VIP)).unwrap()
}

fn all_who_answer(pod: &Pod) -> BTreeSet<String> {
    (0..10).map(|_| who_answers(pod)).collect()
}

fn set(names: &[&str]) -> BTreeSet<String> {
    names.iter().map(|name| (*name).to_owned()).collect()
}

#[test]
fn every_address_of_a_name_is_an_endpoint() {
    let pod = Pod::new();
    servers(&pod);
    let resolver = Resolver::start(&pod, Says::Addresses(vec![CLIENT_IP, OTHER_IP]));
    let proxied = served(&pod, named(NAME));

    assert_eq!(all_who_answer(&pod), set(&["one", "other"]));
    let clients = resolver.clients.lock().unwrap();
    assert!(clients.iter().all(|client| client.ip().to_string() == POD_IP), "asked by the pod: {clients:?}");
    let stats = &proxied.stats().dns["backend"];
    assert!(stats.update_attempt > 0 && stats.update_failure == 0);
    let endpoints = &stats.endpoints.as_ref().unwrap().localities[0].endpoints;
    assert_eq!(
        endpoints.iter().map(|endpoint| endpoint.address.to_string()).collect::<Vec<_>>(),
        [format!("{CLIENT_IP}:8080"), format!("{OTHER_IP}:8080")]
    );
}

#[test]
fn a_logical_name_is_one_endpoint() {
    let pod = Pod::new();
    servers(&pod);
    let _resolver = Resolver::start(&pod, Says::Addresses(vec![OTHER_IP, CLIENT_IP]));
    let _proxied = served(&pod, DnsDiscovery { logical: true, ..named(NAME) });

    assert_eq!(all_who_answer(&pod).len(), 1);
}

#[test]
fn requests_go_where_the_newest_answer_says() {
    let pod = Pod::new();
    pod.add_outside_address(OTHER_IP);
    let _one = says(pod.listen_outside(&format!("{CLIENT_IP}:8080")), "one");
    let _other = says(pod.listen_outside(&format!("{OTHER_IP}:8080")), "other");
    let resolver = Resolver::start(&pod, Says::Addresses(vec![CLIENT_IP]));
    let cluster = Cluster { discovery: ClusterDiscovery::Dns(named(NAME).into()), ..eds("backend") };
    let plan = Plan::new().outbound(VIP, http_listener(all_to("backend"))).cluster(cluster);
    let _proxied = pod.proxied_by(2, plan.build());

    let mut client = Client::new(pod.connect(VIP));
    assert_eq!(client.get("/").body, "one");
    resolver.now_says(Says::Addresses(vec![OTHER_IP]));
    eventually("the other one answers", || client.get("/").body == "other");
}

#[test]
fn answers_are_asked_for_again_when_their_time_is_over() {
    let pod = Pod::new();
    servers(&pod);
    let resolver = Resolver::start(&pod, Says::Addresses(vec![CLIENT_IP]));
    let never = Duration::from_hours(1);
    let _proxied = served(&pod, DnsDiscovery { respect_ttl: true, refresh_rate: never, ..named(NAME) });

    assert_eq!(who_answers(&pod), "one");
    resolver.now_says(Says::Addresses(vec![OTHER_IP]));
    eventually("the other one answers", || who_answers(&pod) == "other");
}

#[test]
fn the_last_answer_stays_while_nobody_answers() {
    let pod = Pod::new();
    servers(&pod);
    let resolver = Resolver::start(&pod, Says::Addresses(vec![CLIENT_IP]));
    let proxied = served(&pod, named(NAME));

    assert_eq!(who_answers(&pod), "one");
    resolver.now_says(Says::Failure);
    eventually("failures are counted", || proxied.stats().dns["backend"].update_failure > 1);
    assert_eq!(who_answers(&pod), "one");
}

#[test]
fn a_name_that_ceases_to_exist_has_no_endpoint_any_more() {
    let pod = Pod::new();
    servers(&pod);
    let resolver = Resolver::start(&pod, Says::Addresses(vec![CLIENT_IP]));
    let proxied = served(&pod, named(NAME));

    assert_eq!(who_answers(&pod), "one");
    resolver.now_says(Says::NoSuchName);
    eventually("nobody answers", || pod.is_reset(VIP));
    assert!(proxied.flag("UH") > 0);
}

#[test]
fn the_first_connection_waits_for_the_answer() {
    let pod = Pod::new();
    servers(&pod);
    let resolver = Resolver::start(&pod, Says::Nothing);
    let _proxied = served(&pod, named(NAME));

    let mut client = pod.connect(VIP);
    eventually("the name is asked for", || !resolver.clients.lock().unwrap().is_empty());
    resolver.now_says(Says::Addresses(vec![CLIENT_IP]));
    assert_eq!(read_all(&mut client).unwrap(), "one");
}

#[test]
fn an_address_needs_no_resolver() {
    let pod = Pod::new();
    servers(&pod);
    let proxied = served(&pod, named(OTHER_IP));

    assert_eq!(who_answers(&pod), "other");
    assert_eq!(proxied.stats().dns["backend"].update_attempt, 0);
}
