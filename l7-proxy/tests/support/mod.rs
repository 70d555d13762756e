//! Pods as network namespaces, and plans without the noise.
//!
//! A [`Pod`] is routed as the datapath routes one: connections with the mark loop over `lo`. What `sk_lookup` does in
//! production, choosing the listener, `TPROXY` does here. Needs root; without it every test fails at once.

#![allow(dead_code, unreachable_pub, reason = "each test file is a crate of its own and uses its part")]
#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "a test bed that cannot be built fails the test"
)]

pub mod http;
pub mod http_plan;
pub mod plan;
pub mod tcp;
pub mod tls;

use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::PathBuf;
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

use orlop_l7_proxy::{Description, PodFacts, Proxy, ProxyConfig};
use orlop_plan::proxy::ProxyPlan;
use orlop_podnet::NetNs;
use socket2::{Domain, Socket, Type};

/// As the datapath's.
pub const MARK: u32 = 0x6f72;
/// The pod's address.
pub const POD_IP: &str = "10.77.0.1";
/// The address of the client namespace.
pub const CLIENT_IP: &str = "10.77.0.2";
/// The pod's other address, where it is dual-stack.
pub const POD_IPV6: &str = "fd77::1";
/// The client namespace's other address.
pub const CLIENT_IPV6: &str = "fd77::2";
/// The name that pods are enrolled by.
pub const NAME: &str = "default/client-0";

/// One enrolled-to-be pod, and beside it a namespace that clients and servers outside the pod live in.
pub struct Pod {
    pub netns: Arc<NetNs>,
    pub outside: Arc<NetNs>,
    names: [String; 2],
}

impl Pod {
    pub fn new() -> Self {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        let n = NEXT.fetch_add(1, Ordering::Relaxed);
        let names = ["pod", "out"].map(|what| format!("l7-{}-{n}-{what}", std::process::id()));
        let [pod, out] = &names;
        for name in &names {
            ip(&format!("netns add {name}"));
            ip(&format!("-n {name} link set lo up"));
        }
        ip(&format!("link add eth0 netns {pod} type veth peer name eth0 netns {out}"));
        for (name, address) in [(pod, POD_IP), (out, CLIENT_IP)] {
            ip(&format!("-n {name} addr add {address}/24 dev eth0"));
            ip(&format!("-n {name} link set eth0 up"));
        }
        ip(&format!("-n {pod} route add default via {CLIENT_IP}"));
        ip(&format!("-n {pod} rule add fwmark {MARK} lookup {MARK}"));
        ip(&format!("-n {pod} route add local default dev lo src {POD_IP} table {MARK}"));
        let open = |name: &String| Arc::new(NetNs::open(&PathBuf::from("/run/netns").join(name)).unwrap());
        let this = Self { netns: open(pod), outside: open(out), names: names.clone() };
        this.sysctl("net/ipv4/tcp_fwmark_accept", "1");
        this.tproxy(&format!("-i lo -m mark --mark {MARK} ! -d {POD_IP}"), 15001);
        this
    }

    /// A pod that has an IPv6 address as well, and is captured there too, inbound at `inbound_port`.
    pub fn dual_stack(inbound_port: u16) -> Self {
        let this = Self::new();
        let [pod, out] = &this.names;
        for (name, address) in [(pod, POD_IPV6), (out, CLIENT_IPV6)] {
            ip(&format!("-n {name} addr add {address}/64 dev eth0 nodad"));
        }
        ip(&format!("-n {pod} -6 route add default via {CLIENT_IPV6}"));
        ip(&format!("-n {pod} -6 rule add fwmark {MARK} lookup {MARK}"));
        ip(&format!("-n {pod} -6 route add local default dev lo src {POD_IPV6} table {MARK}"));
        this.tproxy_v6(&format!("-i lo -m mark --mark {MARK} ! -d {POD_IPV6}"), 15001);
        this.tproxy_v6(&format!("-i eth0 -d {POD_IPV6} -m tcp --dport {inbound_port}"), 15006);
        this
    }

    /// Connections from outside to this port of the pod go to the proxy.
    pub fn capture_inbound(&self, port: u16) {
        self.tproxy(&format!("-i eth0 -d {POD_IP} -m tcp --dport {port}"), 15006);
    }

    fn tproxy(&self, matching: &str, port: u16) {
        let to = format!("TPROXY --on-ip 127.0.0.1 --on-port {port}");
        self.run(&format!("iptables -t mangle -A PREROUTING -p tcp {matching} -j {to}"));
    }

    fn tproxy_v6(&self, matching: &str, port: u16) {
        let to = format!("TPROXY --on-ip ::1 --on-port {port}");
        self.run(&format!("ip6tables -t mangle -A PREROUTING -p tcp {matching} -j {to}"));
    }

    fn run(&self, command: &str) {
        ip(&format!("netns exec {} {command}", self.names[0]));
    }

    fn sysctl(&self, name: &str, value: &str) {
        self.netns.run(|| std::fs::write(format!("/proc/sys/{name}"), value)).unwrap().unwrap();
    }

    /// Another address that the outside answers at.
    pub fn add_outside_address(&self, address: &str) {
        ip(&format!("-n {} addr add {address}/32 dev lo", self.names[1]));
    }

    /// As the pod's application connects, captured.
    pub fn connect(&self, to: &str) -> TcpStream {
        self.try_connect(to).unwrap()
    }

    pub fn try_connect(&self, to: &str) -> std::io::Result<TcpStream> {
        let to: SocketAddr = to.parse().unwrap();
        let socket = self.netns.run(|| Socket::new(Domain::for_address(to), Type::STREAM, None)).unwrap()?;
        socket.set_mark(MARK)?;
        tcp::with_timeouts(&socket);
        socket.connect_timeout(&to.into(), Duration::from_secs(1))?;
        Ok(socket.into())
    }

    /// Whether a connection of the pod's application is reset, be it so soon that connecting already says so.
    pub fn is_reset(&self, to: &str) -> bool {
        match self.try_connect(to) {
            Ok(mut client) => tcp::is_reset(&mut client),
            Err(error) => error.kind() == std::io::ErrorKind::ConnectionReset,
        }
    }

    /// As a client outside the pod connects.
    pub fn connect_from_outside(&self, to: &str) -> TcpStream {
        let to: SocketAddr = to.parse().unwrap();
        let socket =
            self.outside.run(|| Socket::new(Domain::for_address(to), Type::STREAM, None)).unwrap().unwrap();
        tcp::with_timeouts(&socket);
        socket.connect_timeout(&to.into(), Duration::from_secs(5)).unwrap();
        socket.into()
    }

    /// A server outside the pod.
    pub fn listen_outside(&self, at: &str) -> TcpListener {
        self.outside.run(|| tcp::listen(at)).unwrap()
    }

    /// The pod's own application.
    pub fn listen_inside(&self, at: &str) -> TcpListener {
        self.netns.run(|| tcp::listen(at)).unwrap()
    }

    /// A proxy that serves this pod by `plan`.
    pub fn proxied(&self, plan: ProxyPlan) -> Proxied {
        self.proxied_by(1, plan)
    }

    pub fn proxied_by(&self, workers: usize, plan: ProxyPlan) -> Proxied {
        let proxy = Proxy::start(ProxyConfig { workers, mark: MARK }).unwrap();
        proxy.enrol(NAME, self.network(), Arc::new(plan)).unwrap();
        Proxied { proxy }
    }

    pub fn network(&self) -> PodFacts {
        PodFacts {
            netns: Arc::clone(&self.netns),
            addresses: vec![POD_IP.parse().unwrap()],
            description: Description::default(),
            resolvers: vec![CLIENT_IP.parse().unwrap()],
        }
    }
}

impl Drop for Pod {
    fn drop(&mut self) {
        for name in &self.names {
            let _status = Command::new("ip").args(["netns", "del", name]).status();
        }
    }
}

/// A running proxy with one pod.
pub struct Proxied {
    pub proxy: Proxy,
}

impl Proxied {
    /// Waits until the count of a response flag is `n`.
    pub fn expect_flag(&self, flag: &str, n: u64) {
        eventually(&format!("{flag} = {n}"), || self.flag(flag) == n);
    }

    pub fn flag(&self, flag: &str) -> u64 {
        self.stats().response_flags.get(flag).copied().unwrap_or_default()
    }

    /// Waits until the count of a refusal is `n`.
    pub fn expect_refused(&self, reason: &str, n: u64) {
        eventually(&format!("refused {reason} = {n}"), || {
            self.stats().refused.get(reason).copied().unwrap_or_default() == n
        });
    }

    pub fn stats(&self) -> orlop_l7_proxy::stats::PodStats {
        self.proxy.stats(NAME).unwrap()
    }
}

/// Waits for up to 5 s.
pub fn eventually(what: &str, mut holds: impl FnMut() -> bool) {
    let deadline = Instant::now() + Duration::from_secs(5);
    while !holds() {
        assert!(Instant::now() < deadline, "did not happen: {what}");
        std::thread::sleep(Duration::from_millis(2));
    }
}

/// Runs a future of the proxy's interface to its end.
pub fn block_on<F: Future>(future: F) -> F::Output {
    tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap().block_on(future)
}

fn ip(args: &str) {
    run("ip", args);
}

fn run(program: &str, args: &str) {
    let output = Command::new(program).args(args.split_whitespace()).output().unwrap();
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "needs root: `{program} {args}`: {stderr}");
}
