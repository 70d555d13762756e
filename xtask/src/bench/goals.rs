//! What the project has set itself to reach, as ratios of one run.

use super::cell::{Cell, Subject};
use super::summary::{Figure, Group, P50, P99, RPS, Spread};

/// One statement about a group, to be judged.
#[derive(Debug, Clone)]
pub(super) struct Goal {
    /// The ratio in words, e.g. "orlop-l7 rps over envoy-pair".
    pub(super) ratio: String,
    /// What it has to be.
    pub(super) bound: Bound,
    /// What it was.
    pub(super) measured: Spread,
    /// What follows.
    pub(super) verdict: Verdict,
}

/// A bound on a ratio.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) enum Bound {
    AtLeast(f64),
    AtMost(f64),
}

/// What can be said about a goal.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Verdict {
    Met,
    Missed,
    /// The two direct paths disagreed: the machine was too noisy for a verdict.
    TooNoisy,
}

/// The goals that the group's subjects allow to judge.
pub(super) fn judge(group: &Group<'_>) -> Vec<Goal> {
    use Bound::{AtLeast, AtMost};
    use Subject::{Direct, DirectAgain, EnvoyPair, OrlopKernel, OrlopKernel10k, OrlopL7};
    let direct = [Direct, DirectAgain];
    let better_peer: Vec<_> = group.better_peer().into_iter().collect();
    let goals: Vec<(Subject, &str, Figure, &[Subject], Bound)> = match group.cell {
        Cell::A => vec![
            (OrlopKernel, "p50", P50, &direct, AtMost(1.02)),
            (OrlopKernel, "p99", P99, &direct, AtMost(1.05)),
        ],
        Cell::B => vec![
            (OrlopKernel, "rps", RPS, &direct, AtLeast(0.96)),
            (OrlopKernel10k, "rps", RPS, &[OrlopKernel], AtLeast(0.97)),
        ],
        Cell::D2 => vec![
            (OrlopL7, "rps", RPS, &[EnvoyPair], AtLeast(6.0)),
            (OrlopL7, "rps", RPS, &better_peer, AtLeast(0.9)),
        ],
    };
    let judged = goals.into_iter().filter_map(|(subject, name, figure, base, bound)| {
        let measured = group.ratio(subject, base, figure)?;
        let base = if base == direct { Direct } else { *base.first()? };
        let verdict = match (group.is_quiet(), bound.holds(measured.median)) {
            (false, _) => Verdict::TooNoisy,
            (true, true) => Verdict::Met,
            (true, false) => Verdict::Missed,
        };
        Some(Goal { ratio: format!("{subject} / {base}, {name}"), bound, measured, verdict })
    });
    judged.collect()
}

impl Bound {
    fn holds(self, ratio: f64) -> bool {
        match self {
            Self::AtLeast(bound) => ratio >= bound,
            Self::AtMost(bound) => ratio <= bound,
        }
    }
}

impl std::fmt::Display for Bound {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::AtLeast(bound) => write!(f, "≥ {bound}"),
            Self::AtMost(bound) => write!(f, "≤ {bound}"),
        }
    }
}

impl std::fmt::Display for Verdict {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Met => "met",
            Self::Missed => "missed",
            Self::TooNoisy => "too noisy, no verdict",
        })
    }
}
