//! Writes `docs/xds.md`: what becomes of every field of xDS, found by asking the validators.

use std::path::Path;

use anyhow::{Context, Result, ensure};
use orlop_integration::fidelity::Table;
use orlop_proto::Descriptors;

/// Writes the file, or with `check` only compares it with what it would be.
pub(crate) fn build(check: bool) -> Result<()> {
    let workspace = Path::new(env!("CARGO_MANIFEST_DIR")).parent().context("xtask lies in the workspace")?;
    let target = workspace.join("docs/xds.md");
    let text = Table::probe(&Descriptors::load()?)?.to_markdown();
    if check {
        let present =
            std::fs::read_to_string(&target).with_context(|| format!("cannot read {}", target.display()))?;
        ensure!(present == text, "{} is stale: run `cargo xtask build-docs`", target.display());
    } else {
        std::fs::write(&target, &text).with_context(|| format!("cannot write {}", target.display()))?;
        println!("{}: {} lines", target.display(), text.lines().count());
    }
    Ok(())
}
