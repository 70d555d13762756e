//! From rows to statements: medians, ratios with their spread, and whether a goal is met.
//!
//! A ratio is taken round by round, between turns that were minutes apart at most, and then the median of those ratios:
//! what slowed a whole round down cancels out. The spread is the whole range; nothing is trimmed.

use super::cell::{Cell, Subject};
use super::turns::Row;

/// How far apart the two direct paths may be before nothing can be said.
pub(super) const TOLERANCE: f64 = 0.03;

/// A figure of a row.
pub(super) type Figure = fn(&Row) -> f64;

/// Requests a second.
pub(super) const RPS: Figure = |row| row.rps;
/// Median latency.
pub(super) const P50: Figure = |row| row.p50_us;
/// 95th percentile.
pub(super) const P95: Figure = |row| row.p95_us;
/// 99th percentile.
pub(super) const P99: Figure = |row| row.p99_us;
/// Processor time a request.
pub(super) const CPU: Figure = |row| row.cpu_us_per_request;

/// A median with the range around it.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct Spread {
    pub(super) low: f64,
    pub(super) median: f64,
    pub(super) high: f64,
}

/// The rows of one cell at one number of connections.
#[derive(Debug, Clone)]
pub(super) struct Group<'a> {
    pub(super) cell: Cell,
    pub(super) connections: usize,
    rows: Vec<&'a Row>,
}

/// Splits rows into groups, in the order of their first rows.
pub(super) fn groups(rows: &[Row]) -> Vec<Group<'_>> {
    let mut groups: Vec<Group<'_>> = Vec::new();
    for row in rows {
        match groups.iter_mut().find(|group| (group.cell, group.connections) == (row.cell, row.connections)) {
            Some(group) => group.rows.push(row),
            None => groups.push(Group { cell: row.cell, connections: row.connections, rows: vec![row] }),
        }
    }
    groups
}

impl Group<'_> {
    /// What was done, for people.
    pub(super) fn heading(&self) -> String {
        let plural = if self.connections == 1 { "" } else { "s" };
        format!("{}, {} connection{plural}", self.cell.title(), self.connections)
    }

    /// Who took part, in the cell's order.
    pub(super) fn subjects(&self) -> impl Iterator<Item = Subject> {
        self.cell
            .subjects()
            .iter()
            .copied()
            .filter(|subject| self.rows.iter().any(|row| row.subject == *subject))
    }

    /// The figure's median and range for one subject.
    pub(super) fn figure(&self, subject: Subject, figure: Figure) -> Option<Spread> {
        Spread::of(self.of(subject).map(figure).collect())
    }

    /// The subject's figure over that of `base`, round by round.
    pub(super) fn ratio(&self, subject: Subject, base: &[Subject], figure: Figure) -> Option<Spread> {
        let ratio = |row: &Row| {
            let bases: Vec<_> =
                base.iter().filter_map(|base| self.of(*base).find(|other| other.run == row.run)).collect();
            #[expect(clippy::cast_precision_loss, reason = "two at most")]
            let mean = bases.iter().map(|base| figure(base)).sum::<f64>() / bases.len() as f64;
            figure(row) / mean
        };
        Spread::of(self.of(subject).map(ratio).filter(|ratio| ratio.is_finite()).collect())
    }

    /// The figure relative to the direct path, which is the mean of its two turns in the round.
    pub(super) fn to_direct(&self, subject: Subject, figure: Figure) -> Option<Spread> {
        self.ratio(subject, &[Subject::Direct, Subject::DirectAgain], figure)
    }

    /// How far the two direct paths are apart, as a share: the same statistic as every other ratio, of something that is
    /// one.
    pub(super) fn noise(&self) -> Option<f64> {
        let apart = |figure| {
            let ratio = self.ratio(Subject::DirectAgain, &[Subject::Direct], figure)?;
            Some((ratio.median - 1.0).abs())
        };
        Some(apart(RPS)?.max(apart(P50)?))
    }

    /// Whether the machine was quiet enough for a verdict.
    pub(super) fn is_quiet(&self) -> bool {
        self.noise().is_some_and(|noise| noise <= TOLERANCE)
    }

    /// Failed requests of all turns of the subject.
    pub(super) fn failed(&self, subject: Subject) -> u64 {
        self.of(subject).map(|row| row.failed).sum()
    }

    /// The better of nginx and `HAProxy` by requests a second.
    pub(super) fn better_peer(&self) -> Option<Subject> {
        let rps = |subject: &Subject| self.figure(*subject, RPS).map(|spread| spread.median);
        let peers = [Subject::Nginx, Subject::Haproxy].into_iter().filter(|peer| rps(peer).is_some());
        peers.max_by(|a, b| rps(a).unwrap_or_default().total_cmp(&rps(b).unwrap_or_default()))
    }

    fn of(&self, subject: Subject) -> impl Iterator<Item = &Row> {
        self.rows.iter().copied().filter(move |row| row.subject == subject)
    }
}

impl Spread {
    fn of(mut values: Vec<f64>) -> Option<Self> {
        values.sort_by(f64::total_cmp);
        let (low, high) = (*values.first()?, *values.last()?);
        let upper = *values.get(values.len() / 2)?;
        let lower = *values.get((values.len() - 1) / 2)?;
        Some(Self { low, median: f64::midpoint(lower, upper), high })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn row(subject: Subject, run: usize, rps: f64) -> Row {
        Row {
            cell: Cell::D2,
            subject,
            connections: 16,
            rps,
            p50_us: 1e6 / rps,
            p95_us: 1e6 / rps,
            p99_us: 1e6 / rps,
            cpu_us_per_request: 1.0,
            failed: 0,
            run,
        }
    }

    /// The second round ran at half the speed, for everybody.
    fn rows() -> Vec<Row> {
        [(1, 1.0), (2, 0.5), (3, 1.0)]
            .into_iter()
            .flat_map(|(run, speed)| {
                [
                    row(Subject::Direct, run, 100.0 * speed),
                    row(Subject::Nginx, run, 50.0 * speed),
                    row(Subject::DirectAgain, run, 102.0 * speed),
                ]
            })
            .collect()
    }

    #[test]
    fn a_slow_round_does_not_show_in_a_ratio() {
        let rows = rows();
        let ratio = groups(&rows)[0].to_direct(Subject::Nginx, RPS).unwrap();
        assert!(
            (ratio.low - 50.0 / 101.0).abs() < 1e-9 && (ratio.high - ratio.low).abs() < 1e-9,
            "{ratio:?}"
        );
    }

    #[test]
    fn a_slow_round_shows_in_the_spread_of_the_figure_itself() {
        let rows = rows();
        let rps = groups(&rows)[0].figure(Subject::Nginx, RPS);
        assert_eq!(rps, Some(Spread { low: 25.0, median: 50.0, high: 50.0 }));
    }

    #[test]
    fn two_direct_paths_four_percent_apart_allow_no_verdict() {
        let mut rows = rows();
        assert!(groups(&rows)[0].is_quiet());
        for row in rows.iter_mut().filter(|row| row.subject == Subject::DirectAgain) {
            row.rps *= 1.02;
        }
        assert!(!groups(&rows)[0].is_quiet());
    }
}
