//! What is measured: the cells, and who takes part in each.

use serde::{Deserialize, Serialize};

/// One kind of work.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, clap::ValueEnum)]
#[value(rename_all = "UPPER")]
pub(super) enum Cell {
    /// Round trips on connections that stay open, to a service that needs no more than L4.
    A,
    /// A connection for every round trip.
    B,
    /// HTTP/1.1 through an L7 path, as much as it takes.
    D2,
}

/// Whom the requests of a run go through.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, clap::ValueEnum)]
#[serde(rename_all = "kebab-case")]
pub(super) enum Subject {
    /// Nobody: pod to pod.
    Direct,
    /// The same once more. How far the two are apart is how much the machine's noise can fake.
    DirectAgain,
    /// The agent, to a service that the kernel carries.
    OrlopKernel,
    /// The same among 10 000 services, to each of them in turn.
    #[serde(rename = "orlop-kernel-10k")]
    #[value(name = "orlop-kernel-10k")]
    OrlopKernel10k,
    /// The agent, to a service whose route matches a header, so that the shared proxy carries it.
    OrlopL7,
    /// One nginx beside the client.
    Nginx,
    /// One `HAProxy` beside the client.
    Haproxy,
    /// Two Envoys, one beside the client and one beside the server, as two sidecars.
    EnvoyPair,
}

impl Cell {
    /// The subjects in the order of the first round.
    pub(super) fn subjects(self) -> &'static [Subject] {
        use Subject::{Direct, DirectAgain, EnvoyPair, Haproxy, Nginx, OrlopKernel, OrlopKernel10k, OrlopL7};
        match self {
            Self::A => &[Direct, OrlopKernel, Haproxy, EnvoyPair, DirectAgain],
            Self::B => &[Direct, OrlopKernel, OrlopKernel10k, Haproxy, EnvoyPair, DirectAgain],
            Self::D2 => &[Direct, OrlopL7, Nginx, Haproxy, EnvoyPair, DirectAgain],
        }
    }

    /// Numbers of connections, unless the command line says others.
    pub(super) fn connections(self) -> &'static [usize] {
        match self {
            Self::A => &[1, 16, 64],
            Self::B => &[16],
            Self::D2 => &[16, 64],
        }
    }

    /// Whether the subjects carry bytes or requests.
    pub(super) fn layer(self) -> Layer {
        match self {
            Self::A | Self::B => Layer::L4,
            Self::D2 => Layer::L7,
        }
    }

    /// Whether every round trip has a connection of its own.
    pub(super) fn churns(self) -> bool {
        self == Self::B
    }

    /// A heading for people.
    pub(super) fn title(self) -> &'static str {
        match self {
            Self::A => "A: round trips, L4",
            Self::B => "B: a connection for every round trip, L4",
            Self::D2 => "D2: saturation, L7 HTTP/1.1",
        }
    }
}

/// What a proxy looks at.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Layer {
    /// Connections.
    L4,
    /// Requests.
    L7,
}

impl Subject {
    /// Whether this is the yardstick.
    pub(super) fn is_direct(self) -> bool {
        matches!(self, Self::Direct | Self::DirectAgain)
    }

    /// The name in tables, pictures and JSON.
    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Direct => "direct",
            Self::DirectAgain => "direct-again",
            Self::OrlopKernel => "orlop-kernel",
            Self::OrlopKernel10k => "orlop-kernel-10k",
            Self::OrlopL7 => "orlop-l7",
            Self::Nginx => "nginx",
            Self::Haproxy => "haproxy",
            Self::EnvoyPair => "envoy-pair",
        }
    }
}

impl std::fmt::Display for Cell {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{self:?}")
    }
}

impl std::fmt::Display for Subject {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.pad(self.name())
    }
}
