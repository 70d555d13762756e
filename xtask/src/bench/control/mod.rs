//! `cargo xtask bench --control`: what configuration costs, apart from traffic.
//!
//! Two scenes: a node full of pods with a real istiod ([`many_pods`]), and one pod in a large mesh whose configuration is
//! generated ([`many_services`]). What comes out are figures and verdicts on the project's goals.

mod many_pods;
mod many_services;
mod process;
mod resources;
mod server;

use std::fmt::Write;
use std::fs;
use std::path::Path;

use anyhow::Result;
use serde::Serialize;

use self::many_pods::ManyPods;
use self::many_services::ManyServices;
use super::machine::Machine;

/// Everything that one run came to.
#[derive(Debug, Serialize)]
pub(super) struct Control {
    machine: Machine,
    many_services: ManyServices,
    many_pods: ManyPods,
}

/// Runs both scenes.
pub(super) fn measure(machine: Machine) -> Result<Control> {
    let many_services = many_services::measure()?;
    let many_pods = many_pods::measure()?;
    Ok(Control { machine, many_services, many_pods })
}

/// One line of the table.
struct Figure {
    what: String,
    measured: f64,
    unit: &'static str,
    goal: Option<f64>,
}

impl Control {
    /// Writes `control.json` into `dir`.
    pub(super) fn save(&self, dir: &Path) -> Result<()> {
        fs::create_dir_all(dir)?;
        Ok(fs::write(dir.join("control.json"), serde_json::to_vec_pretty(self)?)?)
    }

    /// The figures as a Markdown table.
    pub(super) fn table(&self) -> String {
        let mut out = "| what | measured | goal | |\n|---|---|---|---|\n".to_owned();
        for Figure { what, measured, unit, goal } in self.figures() {
            let (goal, verdict) = match goal {
                Some(goal) if measured <= goal => (format!("≤ {goal}"), "met"),
                Some(goal) => (format!("≤ {goal}"), "missed"),
                None => (String::new(), ""),
            };
            // Writing to a String cannot fail.
            let _ = writeln!(out, "| {what} | {measured:.2} {unit} | {goal} | {verdict} |");
        }
        out
    }

    fn figures(&self) -> Vec<Figure> {
        let figure =
            |what: &str, measured, unit, goal| Figure { what: what.to_owned(), measured, unit, goal };
        let (services, pods) = (&self.many_services, &self.many_pods);
        let edit = |at: usize| pods.edit_cpu_ms.get(at).map_or(0.0, |ms| (ms - pods.idle_cpu_ms).max(0.0));
        vec![
            figure(
                &format!(
                    "{} services × {} endpoints, one pod: on the wire",
                    services.services, services.endpoints
                ),
                services.wire_mb,
                "MB",
                None,
            ),
            figure("— from the agent's start until ready", services.ready_s, "s", None),
            figure(
                "— processor time to receive, decode, validate, compile and write it to the kernel",
                services.load_cpu_s,
                "s",
                Some(1.0),
            ),
            figure("— memory of the agent (PSS)", services.pss_mb, "MB", Some(40.0)),
            figure("— the same with one service", services.idle_pss_mb, "MB", None),
            figure("— BPF maps", services.maps_mb, "MB", None),
            figure(
                "— one endpoint's change, bytes sent to first correct connect, p50",
                services.in_force_p50_us,
                "µs",
                None,
            ),
            figure("— the same, p99", services.in_force_p99_us, "µs", Some(1000.0)),
            figure("— connects that failed meanwhile", f64::from(services.failed), "", Some(0.0)),
            figure(
                &format!(
                    "{} pods of {} accounts, {} services × {} ports × {} endpoints from a real istiod: from the agent's start until all are served, of what istiod's limit on new streams takes",
                    pods.workloads, pods.accounts, pods.services, pods.ports, pods.endpoints
                ),
                pods.ready_s / pods.istiod_limit_s,
                "×",
                Some(1.3),
            ),
            figure("— memory of the agent (PSS)", pods.pss_mb, "MB", Some(60.0)),
            figure("— BPF maps", pods.maps_mb, "MB", None),
            figure(
                "— processor time of the agent for one endpoint's edit, all streams together, median",
                edit(pods.edit_cpu_ms.len() / 2),
                "ms",
                Some(5.0),
            ),
            figure("— the same, worst", edit(pods.edit_cpu_ms.len().saturating_sub(1)), "ms", None),
        ]
    }
}
