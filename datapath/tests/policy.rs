//! Who may connect to the pod: decided for each source before the application sees a byte, and again for what is open when a
//! policy changes.

#![allow(clippy::unwrap_used, reason = "a test that cannot be set up must fail")]

mod support;

use std::io::{self, BufRead, BufReader, ErrorKind};
use std::net::{SocketAddr, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use orlop_datapath::{Datapath, MapName};
use orlop_plan::kernel::{InboundAction, SourceAction};
use orlop_podnet::connect_socket;
use support::Node;
use support::plan::{PlanExt, by_source, nothing};
use support::pod::{POD4, POD6, Pod, WORLD4, WORLD6, pod_and_world};
use support::process::Process;
use support::proxy::attach_proxy;

use SourceAction::{Direct, Drop, Proxy, ProxyRefuses};

const PORT: u16 = 8080;
const ANY4: &str = "0.0.0.0/0";
const ANY6: &str = "::/0";

/// A pod with a proxy, whose application greets as `app`, and the rest of the world.
async fn scene(node: &Node) -> (Datapath, Pod, Pod, Process) {
    let (pod, world) = pod_and_world();
    let mut app = Process::start(&pod);
    app.listen(&format!("[::]:{PORT}"), "app");
    let mut datapath = node.open().await;
    datapath.enrol(pod.spec()).await.unwrap();
    attach_proxy(&mut datapath, &pod);
    (datapath, pod, world, app)
}

/// A client of the world's with this address: who greets it.
fn connect(world: &Pod, source: &str) -> io::Result<(String, TcpStream)> {
    let pod = if source.contains(':') { POD6 } else { POD4 };
    let to = SocketAddr::new(pod.parse().unwrap(), PORT);
    let source = SocketAddr::new(source.parse().unwrap(), 0);
    let stream = world.netns.run(|| {
        let socket = connect_socket(to, None)?;
        socket.bind(&source.into())?;
        socket.set_nonblocking(false)?;
        socket.connect_timeout(&to.into(), Duration::from_secs(1))?;
        socket.set_read_timeout(Some(Duration::from_secs(1)))?;
        Ok::<_, io::Error>(TcpStream::from(socket))
    });
    let stream = stream.unwrap()?;
    let mut line = String::new();
    BufReader::new(stream.try_clone()?).read_line(&mut line)?;
    Ok((line.split_whitespace().next().unwrap_or_default().to_owned(), stream))
}

fn greeting(world: &Pod, source: &str) -> String {
    connect(world, source).unwrap().0
}

fn assert_refused(world: &Pod, source: &str) {
    let started = Instant::now();
    assert_eq!(connect(world, source).unwrap_err().kind(), ErrorKind::ConnectionRefused, "{source}");
    assert!(started.elapsed() < Duration::from_millis(300), "at once");
}

/// Whether the other end has reset it; one that was reset has no peer any more.
fn is_reset(stream: &TcpStream) -> bool {
    let until = Instant::now() + Duration::from_millis(300);
    while stream.peer_addr().is_ok() && Instant::now() < until {
        std::thread::sleep(Duration::from_millis(5));
    }
    stream.peer_addr().is_err()
}

#[tokio::test]
async fn the_narrowest_range_that_contains_a_source_decides() {
    let node = Node::new();
    let (mut datapath, pod, world, _app) = scene(&node).await;
    let policy = by_source(&[
        (ANY4, Drop),
        (ANY6, Drop),
        ("10.77.0.0/29", Direct),
        ("10.77.0.3/32", Drop),
        ("10.77.0.4/31", ProxyRefuses),
        ("fd77::2/128", Proxy),
    ]);
    datapath.apply(&pod.name, &nothing().inbound(PORT, policy)).unwrap();

    assert_eq!(greeting(&world, WORLD4[0]), "app");
    assert_refused(&world, WORLD4[1]);
    assert_eq!(greeting(&world, WORLD4[2]), "inbound");
    assert_eq!(greeting(&world, WORLD6), "inbound");
    let counters = datapath.counters(&pod.name).unwrap();
    assert_eq!((counters.inbound_direct, counters.inbound_denied, counters.inbound_proxied), (1, 1, 2));
    assert_eq!(counters.inbound_dropped, 0);
}

#[tokio::test]
async fn a_family_of_which_a_policy_says_nothing_is_refused() {
    let node = Node::new();
    let (mut datapath, pod, world, _app) = scene(&node).await;
    datapath.apply(&pod.name, &nothing().inbound(PORT, by_source(&[(ANY4, Direct)]))).unwrap();

    assert_eq!(greeting(&world, WORLD4[0]), "app");
    assert_refused(&world, WORLD6);
}

#[tokio::test]
async fn ports_without_a_policy_of_their_own_follow_the_default_one() {
    let node = Node::new();
    let (mut datapath, pod, world, mut app) = scene(&node).await;
    let mut plan = nothing().inbound(9090, InboundAction::Direct);
    plan.default_inbound = by_source(&[(ANY4, Direct), (ANY6, Drop)]);
    app.listen("[::]:9090", "other");
    datapath.apply(&pod.name, &plan).unwrap();

    assert_eq!(greeting(&world, WORLD4[0]), "app");
    assert_refused(&world, WORLD6);
    let mut client = Process::start(&world);
    assert_eq!(client.connect(&format!("[{POD6}]:9090")).greeting, "other");
}

#[tokio::test]
async fn a_changed_policy_closes_what_it_denies_now_and_nothing_else() {
    let node = Node::new();
    let (mut datapath, pod, world, mut app) = scene(&node).await;
    let open = by_source(&[(ANY4, Direct), (ANY6, Proxy)]);
    datapath.apply(&pod.name, &nothing().inbound(PORT, open)).unwrap();
    let held: Vec<_> = [WORLD4[0], WORLD4[1], WORLD6].map(|source| connect(&world, source).unwrap()).into();
    let mut elsewhere = Process::start(&world);
    elsewhere.listen("10.77.0.3:9000", "world");
    app.hold("10.77.0.3:9000", 2);
    app.hold(&format!("{POD4}:{PORT}"), 1);

    let mut plan =
        nothing().inbound(PORT, by_source(&[(ANY4, Drop), ("10.77.0.2/32", Direct), (ANY6, Proxy)]));
    plan.default_inbound = by_source(&[(ANY4, Drop), (ANY6, Drop)]);
    datapath.apply(&pod.name, &plan).unwrap();

    assert_eq!(held.iter().map(|(_, stream)| is_reset(stream)).collect::<Vec<_>>(), [false, true, false]);
    assert_eq!(app.held().values().sum::<u32>(), 3, "what the pod itself has opened is not meant");
    assert_eq!(datapath.counters(&pod.name).unwrap().denied_closed, 1);
}

#[tokio::test]
async fn what_the_proxy_carries_is_closed_with_it_when_the_proxy_would_refuse_it_now() {
    let node = Node::new();
    let (mut datapath, pod, world, _app) = scene(&node).await;
    datapath.apply(&pod.name, &nothing().inbound(PORT, InboundAction::Proxy)).unwrap();
    let (by, stream) = connect(&world, WORLD4[1]).unwrap();
    assert_eq!(by, "inbound");

    let policy = by_source(&[(ANY4, Proxy), ("10.77.0.3/32", ProxyRefuses), (ANY6, Proxy)]);
    datapath.apply(&pod.name, &nothing().inbound(PORT, policy)).unwrap();
    assert!(is_reset(&stream));
    assert_eq!(greeting(&world, WORLD4[1]), "inbound", "who comes again is told by the proxy");
}

#[tokio::test]
async fn from_one_policy_to_the_next_nobody_slips_in_whom_both_deny() {
    let node = Node::new();
    let (mut datapath, pod, world, _app) = scene(&node).await;
    let [one, other] = [("10.77.0.2/32", Direct), ("10.77.0.4/32", Direct)].map(|range| {
        nothing().inbound(PORT, by_source(&[(ANY4, Drop), (ANY6, Drop), ("10.0.0.0/8", Drop), range]))
    });
    datapath.apply(&pod.name, &one).unwrap();
    let over = Arc::new(AtomicBool::new(false));
    let client = std::thread::spawn({
        let over = Arc::clone(&over);
        move || {
            let mut refused = 0;
            while !over.load(Ordering::Relaxed) {
                assert_refused(&world, WORLD4[1]);
                refused += 1;
            }
            refused
        }
    });
    for _ in 0..200 {
        datapath.apply(&pod.name, &other).unwrap();
        datapath.apply(&pod.name, &one).unwrap();
    }
    over.store(true, Ordering::Relaxed);
    assert!(client.join().unwrap() > 0);
}

#[tokio::test]
async fn equal_policies_are_in_the_map_once_and_what_nobody_refers_to_makes_room() {
    let node = Node::new();
    let (pod, world) = pod_and_world();
    let mut app = Process::start(&pod);
    app.listen(&format!("[::]:{PORT}"), "app");
    let mut config = node.config();
    (config.capacities.sources, config.capacities.largest) = (3, 3);
    let mut datapath = Datapath::open(config).await.unwrap();
    datapath.enrol(pod.spec()).await.unwrap();
    let small = || by_source(&[(ANY4, Drop), (ANY6, Drop)]);
    datapath.apply(&pod.name, &nothing().inbound(PORT, small()).inbound(81, small())).unwrap();
    let used = |datapath: &Datapath| {
        datapath.usage().into_iter().find(|usage| usage.map == MapName::Sources).unwrap().used
    };
    assert_eq!(used(&datapath), 2);

    let other = by_source(&[(ANY4, Direct), (ANY6, Direct)]);
    assert_eq!(datapath.apply(&pod.name, &nothing().inbound(PORT, other)).unwrap().without_room, 1);
    assert_refused(&world, WORLD4[0]);

    datapath.apply(&pod.name, &nothing()).unwrap();
    assert_eq!(greeting(&world, WORLD4[0]), "app");
    tokio::time::sleep(Duration::from_millis(1100)).await;
    let wide = by_source(&[(ANY4, Direct), (ANY6, Drop), ("10.77.0.3/32", Drop)]);
    datapath.apply(&pod.name, &nothing().inbound(PORT, wide)).unwrap();
    assert_eq!(used(&datapath), 3, "what nobody refers to has made room");
}

#[tokio::test]
async fn what_policies_say_holds_in_the_larger_map_as_well() {
    let node = Node::new();
    let (pod, world) = pod_and_world();
    let mut app = Process::start(&pod);
    app.listen(&format!("[::]:{PORT}"), "app");
    let mut config = node.config();
    config.capacities.sources = 4;
    let mut datapath = Datapath::open(config).await.unwrap();
    datapath.enrol(pod.spec()).await.unwrap();
    let plan = nothing().inbound(PORT, by_source(&[(ANY4, Direct), (ANY6, Drop), ("10.77.0.3/32", Drop)]));
    datapath.apply(&pod.name, &plan).unwrap();

    let many: Vec<_> = (1..200).map(|last| (format!("10.1.1.{last}/32"), Drop)).collect();
    let mut ranges: Vec<_> = many.iter().map(|(range, action)| (range.as_str(), *action)).collect();
    ranges.extend([(ANY4, Direct), (ANY6, Direct)]);
    datapath.apply(&pod.name, &plan.inbound(81, by_source(&ranges))).unwrap();
    assert_eq!(greeting(&world, WORLD4[0]), "app");
    assert_refused(&world, WORLD4[1]);
}
