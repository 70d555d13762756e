//! The order of the runs: every subject once a round, forwards and backwards in alternation (A B B A), so that a machine
//! that slowly gets warmer or busier is as unkind to the first as to the last.

use std::collections::BTreeSet;
use std::time::Duration;

use anyhow::Result;
use serde::{Deserialize, Serialize};

use super::cell::{Cell, Layer, Subject};
use super::fleet::{Fleet, Run};

/// What to run.
#[derive(Debug)]
pub(super) struct Programme {
    /// The work.
    pub(super) cells: Vec<Cell>,
    /// Who takes part, besides the direct path; everybody when empty.
    pub(super) only: Vec<Subject>,
    /// Numbers of connections; those of the cell when empty.
    pub(super) connections: Vec<usize>,
    /// Turns of each subject.
    pub(super) rounds: usize,
    /// Length of a turn.
    pub(super) measured: Duration,
}

/// What one turn measured. No row is ever left out.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(super) struct Row {
    /// The work.
    pub(super) cell: Cell,
    /// Whom it went through.
    pub(super) subject: Subject,
    /// Connections with one request outstanding each.
    pub(super) connections: usize,
    /// Right answers a second.
    pub(super) rps: f64,
    /// Median latency in microseconds.
    pub(super) p50_us: f64,
    /// 95th percentile in microseconds.
    pub(super) p95_us: f64,
    /// 99th percentile in microseconds.
    pub(super) p99_us: f64,
    /// Processor time of the whole machine over the right answers, in microseconds.
    pub(super) cpu_us_per_request: f64,
    /// Requests without a right answer.
    pub(super) failed: u64,
    /// The round, from 1.
    pub(super) run: usize,
}

impl Programme {
    /// Who takes part, and at which layer.
    pub(super) fn subjects(&self) -> BTreeSet<(Subject, Layer)> {
        let of = |cell: &Cell| {
            let layer = cell.layer();
            self.subjects_of(*cell).into_iter().map(move |subject| (subject, layer))
        };
        self.cells.iter().flat_map(of).collect()
    }

    /// Has everybody take their turns. Each row is shown to `watch` as soon as it is there.
    pub(super) fn run(&self, fleet: &Fleet, mut watch: impl FnMut(&Row)) -> Result<Vec<Row>> {
        let mut rows = Vec::new();
        for &cell in &self.cells {
            let connections =
                if self.connections.is_empty() { cell.connections() } else { &self.connections };
            for &connections in connections {
                for round in 1..=self.rounds {
                    let mut order = self.subjects_of(cell);
                    if round % 2 == 0 {
                        order.reverse();
                    }
                    for subject in order {
                        let row = self.turn(fleet, cell, connections, subject, round)?;
                        watch(&row);
                        rows.push(row);
                    }
                }
            }
        }
        Ok(rows)
    }

    fn turn(
        &self,
        fleet: &Fleet,
        cell: Cell,
        connections: usize,
        subject: Subject,
        round: usize,
    ) -> Result<Row> {
        let report = fleet.run(&Run {
            subject,
            layer: cell.layer(),
            connections,
            churn: cell.churns(),
            warm_up: self.measured / 5,
            measured: self.measured,
        })?;
        if let Some(failure) = &report.first_failure {
            eprintln!("{cell} {subject}: {} failed, the first: {failure}", report.failed);
        }
        Ok(Row {
            cell,
            subject,
            connections,
            rps: report.rps,
            p50_us: report.p50_us,
            p95_us: report.p95_us,
            p99_us: report.p99_us,
            cpu_us_per_request: report.cpu_us_per_request,
            failed: report.failed,
            run: round,
        })
    }

    fn subjects_of(&self, cell: Cell) -> Vec<Subject> {
        let wanted =
            |subject: &Subject| subject.is_direct() || self.only.is_empty() || self.only.contains(subject);
        cell.subjects().iter().copied().filter(wanted).collect()
    }
}
