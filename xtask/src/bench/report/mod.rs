//! What is shown and kept of a run: a table, JSON with every row, a picture, and the project's page of results.

mod docs;
mod svg;
mod table;

use std::fs;
use std::path::Path;

use anyhow::{Context, Result};
use serde::Serialize;

use super::machine::Machine;
use super::memory::AgentMemory;
use super::placement::Placement;
use super::summary::{Group, Spread, TOLERANCE, groups};
use super::turns::Row;

/// Everything that a run found out.
#[derive(Debug, Serialize)]
pub(super) struct Results {
    /// Where and when.
    pub(super) machine: Machine,
    /// How processes were spread.
    pub(super) placement: Placement,
    /// Seconds of a turn.
    pub(super) seconds: f64,
    /// Every turn.
    pub(super) rows: Vec<Row>,
    /// The agent's memory, when it was measured.
    pub(super) memory: Option<AgentMemory>,
}

impl Results {
    /// The table for a person.
    pub(super) fn print(&self) {
        for group in groups(&self.rows) {
            println!("{}", table::of(&group));
        }
        if let Some(memory) = &self.memory {
            println!("{memory}");
        }
    }

    /// Writes `latest.json` and `latest.svg`.
    pub(super) fn save(&self, dir: &Path) -> Result<()> {
        fs::create_dir_all(dir)?;
        write(&dir.join("latest.json"), &serde_json::to_string_pretty(self)?)?;
        write(&dir.join("latest.svg"), &svg::picture(&groups(&self.rows)))
    }

    /// Rewrites the checked-in page and its picture.
    pub(super) fn write_docs(&self, dir: &Path) -> Result<()> {
        let page = dir.join("benchmarks.md");
        let previous = fs::read_to_string(&page).unwrap_or_default();
        write(&page, &docs::page(self, &previous))?;
        write(&dir.join("benchmarks.svg"), &svg::picture(&groups(&self.rows)))
    }
}

fn write(file: &Path, text: &str) -> Result<()> {
    fs::write(file, text).with_context(|| format!("cannot write {}", file.display()))
}

/// How far the two direct paths were apart, and what follows.
fn noise(group: &Group<'_>) -> String {
    let Some(noise) = group.noise() else { return "no direct path was measured".to_owned() };
    let verdict = if group.is_quiet() { "" } else { ": too noisy, no verdict" };
    format!(
        "the direct path against itself: {:.1} % apart (at most {:.0} %){verdict}",
        noise * 100.0,
        TOLERANCE * 100.0
    )
}

/// `0.52× (0.49–0.55)`.
fn times(spread: Spread) -> String {
    let Spread { low, median, high } = spread;
    let digits = if median < 10.0 { 2 } else { 1 };
    format!("{median:.digits$}× ({low:.digits$}–{high:.digits$})")
}
