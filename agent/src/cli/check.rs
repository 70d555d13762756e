//! `orlop check`: the kernel's features, probed for real.

use std::process::ExitCode;

use orlop_datapath::{DatapathConfig, probe};

pub(super) fn run(json: bool) -> anyhow::Result<ExitCode> {
    let pin_root = DatapathConfig::new("").pin_root;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let features = runtime.block_on(probe::probe(&pin_root));
    let usable = features.iter().all(|f| f.present || !f.required);
    if json {
        println!(
            "{}",
            serde_json::to_string_pretty(&serde_json::json!({ "usable": usable, "features": features }))?
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
        println!(
            "{}",
            if usable { "This kernel carries Orlop." } else { "This kernel lacks what Orlop needs." }
        );
    }
    Ok(if usable { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}
