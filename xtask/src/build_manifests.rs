//! Writes `deploy/orlop.yaml`: what the Helm chart makes of its own values, for those who do not use Helm.

use std::process::Command;

use anyhow::{Context, Result, ensure};

use crate::setup::{helm, workspace};

const HEADING: &str = "# Made from deploy/helm/orlop by `cargo xtask build-manifests`. `kubectl apply -f` installs it into istio-system.\n";

/// Writes the file, or with `check` only compares it with what it would be.
pub(crate) fn build(check: bool) -> Result<()> {
    let workspace = workspace()?;
    let output = Command::new(helm()?)
        .args(["template", "orlop", "--namespace", "istio-system"])
        .arg(workspace.join("deploy/helm/orlop"))
        .output()
        .context("cannot run helm")?;
    ensure!(output.status.success(), "helm template: {}", String::from_utf8_lossy(&output.stderr));
    let text = format!("{HEADING}{}", String::from_utf8(output.stdout)?);
    let target = workspace.join("deploy/orlop.yaml");
    if !check {
        return std::fs::write(&target, text).with_context(|| format!("cannot write {}", target.display()));
    }
    let present =
        std::fs::read_to_string(&target).with_context(|| format!("cannot read {}", target.display()))?;
    ensure!(present == text, "{} is stale: run `cargo xtask build-manifests`", target.display());
    Ok(())
}
