//! The table on the terminal.

use std::fmt::Write;

use super::{noise, times};
use crate::bench::goals::{Verdict, judge};
use crate::bench::summary::{CPU, Group, P50, P95, P99, RPS};

/// One group with its goals.
pub(super) fn of(group: &Group<'_>) -> String {
    let mut text = format!("\n{}\n", group.heading());
    let _ = writeln!(
        text,
        "  {:<17}{:>9}  {:<19}{:>9}{:>9}{:>9}{:>9}{:>8}",
        "", "rps", "to direct", "p50 µs", "p95 µs", "p99 µs", "CPU µs", "failed"
    );
    for subject in group.subjects() {
        let median = |figure| group.figure(subject, figure).map_or(f64::NAN, |spread| spread.median);
        let _ = writeln!(
            text,
            "  {subject:<17}{:>9.0}  {:<19}{:>9.1}{:>9.1}{:>9.1}{:>9.1}{:>8}",
            median(RPS),
            group.to_direct(subject, RPS).map(times).unwrap_or_default(),
            median(P50),
            median(P95),
            median(P99),
            median(CPU),
            group.failed(subject),
        );
    }
    let _ = writeln!(text, "  {}", noise(group));
    for goal in judge(group) {
        let mark = match goal.verdict {
            Verdict::Met => '✔',
            Verdict::Missed => '✘',
            Verdict::TooNoisy => '?',
        };
        let _ = writeln!(
            text,
            "  {mark} {}: {}, goal {}: {}",
            goal.ratio,
            times(goal.measured),
            goal.bound,
            goal.verdict
        );
    }
    text
}
