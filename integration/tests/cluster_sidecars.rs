//! Pods that Orlop carries, pods with real sidecars and plain pods reach each other, in a real cluster.
//!
//! Two nodes with one pod of each kind; every pod calls every other, by HTTP and by TCP, on its own node and across. The
//! sidecars are Istio's own agent and a stock Envoy, injected by the istiod that serves Orlop as well.

use std::fmt;
use std::net::{Ipv4Addr, SocketAddr};
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use orlop_integration::cluster::Programs;
use orlop_integration::traffic::Greeting;
use orlop_integration::{Call, Cluster, Reply, until};
use serde_json::Value;

const PATIENCE: Duration = Duration::from_mins(2);
const STRICT: &str = include_str!("cluster_sidecars/strict.yaml");

/// Who carries a pod's traffic. Also the name of its namespace.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    Orlop,
    Sidecar,
    Plain,
}

impl Kind {
    const ALL: [Self; 3] = [Self::Orlop, Self::Sidecar, Self::Plain];

    fn namespace(self) -> &'static str {
        match self {
            Self::Orlop => "orlop",
            Self::Sidecar => "sidecar",
            Self::Plain => "plain",
        }
    }

    fn label(self) -> &'static str {
        match self {
            Self::Orlop => "{istio.io/dataplane-mode: orlop}",
            Self::Sidecar => "{istio-injection: enabled}",
            Self::Plain => "{}",
        }
    }

    fn is_in_the_mesh(self) -> bool {
        self != Self::Plain
    }
}

/// One of the pods, with a service of its own.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Member {
    kind: Kind,
    node: u8,
}

impl fmt::Display for Member {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/node{}", self.kind.namespace(), self.node)
    }
}

impl Member {
    fn all() -> impl Iterator<Item = Self> {
        Kind::ALL.into_iter().flat_map(|kind| [1, 2].map(|node| Self { kind, node }))
    }

    fn others(self) -> impl Iterator<Item = Self> {
        Self::all().filter(move |other| *other != self)
    }

    fn service(self) -> Ipv4Addr {
        Ipv4Addr::new(10, 96, 100 + self.kind as u8, self.node)
    }

    fn call(self, port: u16) -> Call {
        let host = format!("node{}.{}.svc.cluster.local", self.node, self.kind.namespace());
        let mut call = Call::new(SocketAddr::from((self.service(), port)));
        call.headers.insert("host".to_owned(), host);
        Call { timeout_ms: 3000, body: "Is anybody there?".to_owned(), ..call }
    }

    fn yaml(self) -> String {
        format!(
            include_str!("cluster_sidecars/member.yaml"),
            namespace = self.kind.namespace(),
            node = self.node,
            service = self.service()
        )
    }

    /// What comes of calls to all others, by HTTP and by TCP.
    fn calls(self, cluster: &Cluster) -> Result<Vec<Outcome>> {
        let calls = |port| self.others().map(|other| other.call(port)).collect::<Vec<_>>();
        let http = cluster.http_all(&self.to_string(), &calls(80))?;
        // Under PERMISSIVE, who speaks first is to be the client: so it is with sidecars.
        let tcp = cluster.raw_all(&self.to_string(), &calls(90))?;
        let outcomes = |way, replies: Vec<Reply>| {
            let outcome = move |(to, reply)| Outcome { way, from: self, to, reply };
            self.others().zip(replies).map(outcome).collect::<Vec<_>>()
        };
        Ok([outcomes("HTTP", http), outcomes("TCP", tcp)].concat())
    }
}

/// What came of one call.
#[derive(Debug, Clone)]
struct Outcome {
    way: &'static str,
    from: Member,
    to: Member,
    reply: Reply,
}

impl Outcome {
    fn reached(&self) -> bool {
        let greeting =
            self.reply.body.lines().next().and_then(|line| serde_json::from_str::<Greeting>(line).ok());
        let server = greeting.map(|greeting| greeting.server).or_else(|| self.reply.server.clone());
        self.reply.error.is_none() && server == Some(self.to.to_string())
    }

    fn is_in_the_mesh(&self) -> bool {
        self.from.kind.is_in_the_mesh() && self.to.kind.is_in_the_mesh()
    }
}

#[test]
fn orlops_pods_pods_with_sidecars_and_plain_pods_reach_whom_policy_lets_them() -> Result<()> {
    let cluster = Cluster::start(Programs::prepared()?.with_sidecars()?)?;
    cluster.install_istio_with_sidecars()?;
    cluster.install_orlop()?;
    for kind in Kind::ALL {
        let (name, label) = (kind.namespace(), kind.label());
        cluster.apply(&format!(
            "apiVersion: v1\nkind: Namespace\nmetadata: {{name: {name}, labels: {label}}}\n"
        ))?;
    }
    cluster.apply(&Member::all().map(Member::yaml).collect::<String>())?;
    for kind in Kind::ALL {
        let wait = ["wait", "--for=condition=Ready", "pod", "--all", "--timeout=120s"];
        cluster.kubectl(&[&["-n", kind.namespace()], &wait[..]].concat())?;
    }

    every_outcome(&cluster, "everybody to reach everybody", |_| true)?;
    whoever_is_in_the_mesh_shows_who_it_is(&cluster)?;
    a_port_where_nothing_listens_is_answered_at_once(&cluster)?;

    cluster.apply(STRICT)?;
    every_outcome(&cluster, "plaintext alone to be refused", |outcome| {
        outcome.from.kind.is_in_the_mesh() || !outcome.to.kind.is_in_the_mesh()
    })
}

/// Waits until every call comes to what is expected of it.
fn every_outcome(cluster: &Cluster, what: &str, reaches: impl Fn(&Outcome) -> bool) -> Result<()> {
    for member in Member::all() {
        until(&format!("{what}, from {member}"), PATIENCE, || {
            for outcome in member.calls(cluster)? {
                let Outcome { way, from, to, reply } = &outcome;
                let expected = reaches(&outcome);
                ensure!(
                    outcome.reached() == expected,
                    "{way} from {from} to {to}, which should {} through: {reply:?}",
                    if expected { "get" } else { "not get" }
                );
            }
            Ok(Some(()))
        })
        .with_context(|| cluster.orlop(member.node, &["status"]).unwrap_or_default())?;
    }
    Ok(())
}

/// Between a pod that Orlop carries and one with a sidecar there is mutual TLS, both ways.
fn whoever_is_in_the_mesh_shows_who_it_is(cluster: &Cluster) -> Result<()> {
    for member in Member::all().filter(|member| member.kind.is_in_the_mesh()) {
        let calls = member.calls(cluster)?;
        let mixed = |o: &&Outcome| o.way == "HTTP" && o.is_in_the_mesh() && o.from.kind != o.to.kind;
        for Outcome { from, to, reply, .. } in calls.iter().filter(mixed) {
            let shown = reply.echo()?.headers.remove("x-forwarded-client-cert").unwrap_or_default();
            let identity = format!("URI=spiffe://cluster.local/ns/{}/sa/default", from.kind.namespace());
            ensure!(shown.contains(&identity), "{from} showed {to} {shown:?}");
        }
    }
    Ok(())
}

/// As the probes of a kubelet meet it while the application starts.
fn a_port_where_nothing_listens_is_answered_at_once(cluster: &Cluster) -> Result<()> {
    let stranger = Member { kind: Kind::Plain, node: 1 };
    for member in Member::all().filter(|member| member.kind.is_in_the_mesh()) {
        let pod = cluster.get(&["pod", "-n", member.kind.namespace(), &format!("node{}", member.node)])?;
        let address =
            pod.pointer("/status/podIP").and_then(Value::as_str).context("a pod without address")?;
        let closed = SocketAddr::new(address.parse()?, 8099);
        let reply = cluster.http(&stranger.to_string(), &Call { timeout_ms: 3000, ..Call::new(closed) })?;
        ensure!(reply.iter().all(|reply| reply.status == 503), "{member}: {reply:?}");
    }
    Ok(())
}
