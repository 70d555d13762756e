//! The kinds of traffic that the demo shows, and what is measured of each.

use std::collections::BTreeMap;
use std::net::SocketAddr;

use anyhow::{Context, Result, ensure};
use orlop_integration::agent::Explanation;
use orlop_integration::{Http, Pod, Reply, tally};

use super::scene::Scene;

/// Round trips of each kind in a turn.
const TIMES: u32 = 500;
/// So many of them are not counted: a new client is slower at first.
const WARM_UP: usize = 20;
/// New connections of each kind in a turn, to see where they go.
const CONNECTIONS: u32 = 100;
/// The path and the direct connection take turns, so that both meet the same disturbances.
const TURNS: u32 = 4;

/// One kind of traffic.
pub(super) struct Traffic {
    /// What it is, for a reader.
    pub(super) name: &'static str,
    /// Where to.
    pub(super) to: &'static str,
    kind: Kind,
    /// The path that it must take.
    expected: &'static str,
    /// Whose server is connected to directly for comparison.
    direct: Option<(&'static str, u16)>,
}

enum Kind {
    Tcp,
    Http { path: &'static str, canary: bool },
    Refused,
}

/// Every path that there is.
pub(super) const TRAFFIC: [Traffic; 7] = [
    Traffic {
        name: "TCP to db, two pods",
        to: "10.96.0.10:5432",
        kind: Kind::Tcp,
        expected: "kernel",
        direct: Some(("db-1", 5432)),
    },
    Traffic {
        name: "TCP to cache, split 90/10",
        to: "10.96.0.30:6379",
        kind: Kind::Tcp,
        expected: "tcp",
        direct: Some(("cache-v1", 6379)),
    },
    Traffic {
        name: "HTTP to web, split 70/30",
        to: "10.96.0.20:8080",
        kind: Kind::Http { path: "/", canary: false },
        expected: "l7",
        direct: Some(("web-v1", 8080)),
    },
    Traffic {
        name: "HTTP to web, x-canary: true",
        to: "10.96.0.20:8080",
        kind: Kind::Http { path: "/", canary: true },
        expected: "l7",
        direct: Some(("web-v2", 8080)),
    },
    Traffic {
        name: "HTTP to web, /teapot",
        to: "10.96.0.20:8080",
        kind: Kind::Http { path: "/teapot", canary: false },
        expected: "l7",
        direct: None,
    },
    Traffic {
        name: "TCP to legacy, not in the mesh",
        to: "10.77.0.8:7000",
        kind: Kind::Tcp,
        expected: "passthrough",
        direct: Some(("legacy", 7000)),
    },
    Traffic {
        name: "TCP to a pod nobody may reach",
        to: "10.77.0.9:7000",
        kind: Kind::Refused,
        expected: "blocked",
        direct: None,
    },
];

/// What came of one kind of traffic.
pub(super) struct Outcome {
    pub(super) explanation: Explanation,
    /// Who answered, in per cent.
    pub(super) answered: Vec<(String, u32)>,
    /// What the kernel counted meanwhile, by name.
    pub(super) kernel: Vec<(&'static str, u64)>,
    /// Connections that the proxy accepted meanwhile.
    pub(super) proxy_connections: u64,
    /// Requests that the proxy answered meanwhile.
    pub(super) proxy_requests: u64,
    pub(super) latency: Latency,
    pub(super) direct: Option<Latency>,
}

/// Microseconds of a round trip, or of a refusal.
#[derive(Clone, Copy)]
pub(super) struct Latency {
    pub(super) p50: u64,
    pub(super) p99: u64,
}

impl Traffic {
    /// Sends it, beside direct connections, and proves the path from the counters.
    pub(super) fn observe(&self, scene: &Scene) -> Result<Outcome> {
        let to: SocketAddr = self.to.parse()?;
        let explanation = scene.agent.explain(&scene.client, self.to)?;
        ensure!(
            explanation.path == self.expected,
            "{}: expected path {}, but {explanation:?}",
            self.name,
            self.expected
        );
        let direct_to = match self.direct {
            Some((pod, port)) => Some(scene.server(pod)?.at(port)),
            None => None,
        };
        let (kernel_before, proxy_before) = scene.agent.counters(&scene.client)?;
        let (mut answers, mut by_path, mut direct) = (Vec::new(), Vec::new(), Vec::new());
        for _ in 0..TURNS {
            answers.extend(self.connect(&scene.client, to)?);
            by_path.extend(self.time(&scene.client, to)?);
            if let Some(direct_to) = direct_to {
                direct.extend(self.time(&scene.bystander, direct_to)?);
            }
        }
        let (kernel, proxy) = scene.agent.counters(&scene.client)?;
        let requests = |by_class: &BTreeMap<String, u64>| by_class.values().sum::<u64>();
        let outcome = Outcome {
            explanation,
            answered: shares(&answers),
            kernel: [
                ("balanced", kernel.kernel_balanced - kernel_before.kernel_balanced),
                ("to proxy", kernel.proxied - kernel_before.proxied),
                ("let past", kernel.passthrough - kernel_before.passthrough),
                ("blocked", kernel.blocked - kernel_before.blocked),
            ]
            .into_iter()
            .filter(|(_, n)| *n > 0)
            .collect(),
            proxy_connections: proxy.accepted_outbound - proxy_before.accepted_outbound,
            proxy_requests: requests(&proxy.requests) - requests(&proxy_before.requests),
            latency: Latency::of(by_path)?,
            direct: direct_to.map(|_| Latency::of(direct)).transpose()?,
        };
        self.prove(&outcome)?;
        Ok(outcome)
    }

    /// New connections, or requests where each of them is routed by itself.
    fn connect(&self, from: &Pod, to: SocketAddr) -> Result<Vec<Reply>> {
        match &self.kind {
            Kind::Http { path, canary } => http(from, to, path, *canary).times(CONNECTIONS),
            Kind::Tcp | Kind::Refused => from.tcp(to).times(CONNECTIONS),
        }
    }

    /// Microseconds of round trips on one connection, or of refusals.
    fn time(&self, from: &Pod, to: SocketAddr) -> Result<Vec<u64>> {
        let replies = match &self.kind {
            Kind::Http { path, canary } => http(from, to, path, *canary).times(TIMES)?,
            Kind::Tcp => from.tcp(to).payload(&"x".repeat(200)).one_connection().times(TIMES)?,
            Kind::Refused => return Ok(self.connect(from, to)?.iter().map(|reply| reply.us).collect()),
        };
        let failed = replies.iter().find_map(|reply| reply.error.as_ref());
        ensure!(failed.is_none(), "{}: {}", self.name, failed.map_or("", String::as_str));
        Ok(replies.iter().skip(WARM_UP).map(|reply| reply.us).collect())
    }

    /// Each path leaves its own trace in the counters and none in the others.
    fn prove(&self, outcome: &Outcome) -> Result<()> {
        let counted: Vec<&str> = outcome.kernel.iter().map(|(name, _)| *name).collect();
        let by_proxy = outcome.proxy_connections > 0;
        let proven = match self.expected {
            "kernel" => counted == ["balanced"] && !by_proxy,
            "tcp" => counted == ["to proxy"] && by_proxy && outcome.proxy_requests == 0,
            "l7" => counted == ["to proxy"] && by_proxy && outcome.proxy_requests > 0,
            "passthrough" => counted == ["let past"] && !by_proxy,
            _ => counted == ["blocked"] && !by_proxy,
        };
        ensure!(
            proven,
            "{}: the counters do not prove the path {}: kernel {:?}, proxy {} connections",
            self.name,
            self.expected,
            outcome.kernel,
            outcome.proxy_connections
        );
        Ok(())
    }
}

fn http<'a>(from: &'a Pod, to: SocketAddr, path: &str, canary: bool) -> Http<'a> {
    let request = from.http(to).host("web.default.svc.cluster.local").path(path);
    if canary { request.header("x-canary", "true") } else { request }
}

impl Latency {
    fn of(mut us: Vec<u64>) -> Result<Self> {
        us.sort_unstable();
        let at = |per_cent: usize| us.get(us.len() * per_cent / 100).copied().context("nothing was measured");
        Ok(Self { p50: at(50)?, p99: at(99)? })
    }
}

fn shares(replies: &[Reply]) -> Vec<(String, u32)> {
    let counts = tally(replies);
    let all: u32 = counts.values().sum();
    let mut left = 100;
    let last = counts.len().saturating_sub(1);
    let share = |(i, (who, n)): (usize, (String, u32))| {
        let rounded = (n * 100 + all / 2) / all.max(1);
        // The last one gets what makes it a hundred.
        let share = if i == last { left } else { rounded.min(left) };
        left -= share;
        (who, share)
    };
    counts.into_iter().enumerate().map(share).collect()
}
