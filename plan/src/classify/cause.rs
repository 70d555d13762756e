//! What decides a path, as a sentence.

use std::net::SocketAddr;
use std::sync::Arc;

use super::ModeOf;

/// The fact that decided. Printed as a sentence without its full stop.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Cause {
    /// Kernel: nothing asks for more.
    #[error("every connection goes to cluster `{cluster}` and nothing asks for more than L4: {}", proofs.join(", "))]
    L4IsEnough {
        /// Where to.
        cluster: Arc<str>,
        /// What was looked at.
        proofs: Vec<String>,
    },
    /// Passthrough: the proxy would do the same.
    #[error("cluster `{cluster}` sends a connection to where the application named it")]
    OriginalDestination {
        /// The cluster.
        cluster: Arc<str>,
    },
    /// Passthrough: no listener takes such connections.
    #[error("no listener takes connections to elsewhere")]
    NoListener,
    /// Inbound, kernel: straight to the application.
    #[error("plaintext goes unchanged to the application: {}", proofs.join(", "))]
    InboundUnchanged {
        /// What was looked at.
        proofs: Vec<String>,
    },
    /// Inbound before the first `virtualInbound`.
    #[error("no inbound listener has been delivered")]
    NoInboundListener,

    /// The listener or route configuration was never accepted.
    #[error("its only version was refused: {error}")]
    Refused {
        /// The refusal.
        error: String,
    },
    /// Named, but not there.
    #[error("there is no cluster `{cluster}`")]
    UnknownCluster {
        /// Its name.
        cluster: Arc<str>,
    },
    /// No endpoint to go to.
    #[error("cluster `{cluster}` has no healthy endpoint")]
    NoEndpoint {
        /// The cluster.
        cluster: Arc<str>,
    },
    /// TLS is owed on the hop.
    #[error("cluster `{cluster}` owes TLS to every endpoint and the node holds no identity for the workload")]
    TlsOwed {
        /// The cluster.
        cluster: Arc<str>,
    },
    /// The proxy has the identity that the kernel lacks.
    #[error("cluster `{cluster}` asks for TLS to every endpoint, which the proxy speaks")]
    TlsToAll {
        /// The cluster.
        cluster: Arc<str>,
    },
    /// TLS is owed to some endpoints.
    #[error(
        "cluster `{cluster}` owes TLS to {endpoint} and plaintext to others; only the proxy keeps them apart"
    )]
    TlsOwedToSome {
        /// The cluster.
        cluster: Arc<str>,
        /// The first endpoint that expects TLS.
        endpoint: SocketAddr,
    },
    /// STRICT.
    #[error(
        "plaintext matches no filter chain: mutual TLS is required and the node holds no identity for the workload"
    )]
    InboundTlsRequired,
    /// A connection that matches no chain is closed.
    #[error("connections match no filter chain")]
    NoChain,
    /// A static cluster without endpoints, like `BlackHoleCluster`.
    #[error("cluster `{cluster}` is a black hole")]
    BlackHole {
        /// The cluster.
        cluster: Arc<str>,
    },

    /// A virtual host or route that asks for L7.
    #[error("virtual host `{virtual_host}` {what}")]
    VirtualHost {
        /// Its name.
        virtual_host: String,
        /// What it does.
        what: &'static str,
    },
    /// A route that asks for L7.
    #[error("route `{route}` of virtual host `{virtual_host}` {what}")]
    Route {
        /// The virtual host's name.
        virtual_host: String,
        /// The route's name.
        route: String,
        /// What it does.
        what: String,
    },
    /// A filter or setting of the connection manager or of a TCP proxy.
    #[error("filter chain `{chain}` {what}")]
    FilterChain {
        /// Its name.
        chain: String,
        /// What it does.
        what: &'static str,
    },
    /// A setting of the cluster.
    #[error("cluster `{cluster}` {what}")]
    Cluster {
        /// Its name.
        cluster: Arc<str>,
        /// What it asks for.
        what: &'static str,
    },
    /// Chains that can be reached lead to different places.
    #[error("what the first bytes are decides between cluster `{one}` and cluster `{other}`")]
    ChainsDiffer {
        /// Of one chain.
        one: Arc<str>,
        /// Of another one.
        other: Arc<str>,
    },
    /// The operator's say.
    #[error("HTTP is carried request by request: l7 is {said}")]
    Always {
        /// What is said, and of what.
        said: ModeOf,
    },
    /// The operator's say that cannot be followed.
    #[error("l7 is never, but no route leads everything to one cluster: {because}")]
    NoSingleCluster {
        /// What is asked for instead.
        because: Box<Cause>,
    },
    /// Hosts decide.
    #[error("the host that a request names decides between cluster `{one}` and cluster `{other}`")]
    HostsDiffer {
        /// Of one virtual host.
        one: Arc<str>,
        /// Of another one.
        other: Arc<str>,
    },
}
