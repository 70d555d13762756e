//! `orlop check`: the kernel's features, probed for real, and who else is on the hooks.

use std::process::ExitCode;

use anyhow::Context as _;
use orlop_datapath::neighbours::{Neighbour, neighbours};
use orlop_datapath::{DatapathConfig, probe};

pub(super) fn run(json: bool) -> anyhow::Result<ExitCode> {
    let pin_root = DatapathConfig::new("").pin_root;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let features = runtime.block_on(probe::probe(&pin_root));
    let others = neighbours(&pin_root).context("cannot see what is attached to cgroups")?;
    let usable = features.iter().all(|f| f.present || !f.required);
    if json {
        println!(
            "{}",
            serde_json::to_string_pretty(
                &serde_json::json!({ "usable": usable, "features": features, "neighbours": others })
            )?
        );
    } else {
        for feature in &features {
            let mark = match (feature.present, feature.required) {
                (true, _) => "yes    ",
                (false, true) => "MISSING",
                (false, false) => "no     ",
            };
            println!(
                "{mark}  {:<32} since {:<5} for {}",
                feature.name, feature.kernel_since, feature.needed_for
            );
            if !feature.detail.is_empty() {
                println!("         {}", feature.detail);
            }
        }
        for Neighbour { hook, cgroup, program, id, inside_a_pod } in &others {
            let order = if *inside_a_pod {
                "may run before Orlop's, and then Orlop sees what it has made of the destination"
            } else {
                "runs after Orlop's in the pods below, and sees the endpoint that was chosen"
            };
            println!("other    program {program:?} ({id}) on {hook} of {}: {order}", cgroup.display());
        }
        println!(
            "{}",
            if usable { "This kernel carries Orlop." } else { "This kernel lacks what Orlop needs." }
        );
    }
    Ok(if usable { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}
