//! Where the programs are that the bed runs: the project's own in Cargo's target directory, foreign ones in the cache
//! that `cargo xtask` fills.

use std::env;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};

/// Names the istiod that the tests run.
pub const ISTIOD_ENV: &str = "ORLOP_ISTIOD";
/// Names the `sdsd` that serves a real Envoy its certificates.
pub const SDSD_ENV: &str = "ORLOP_SDSD";
/// Names the `istioctl` that reads what the agent answers in the place of a sidecar.
pub const ISTIOCTL_ENV: &str = "ORLOP_ISTIOCTL";
/// Names the plain control plane that is built on go-control-plane.
pub const ADSD_ENV: &str = "ORLOP_ADSD";
/// Names the Envoy that serves as the oracle.
pub const ENVOY_ENV: &str = "ORLOP_ENVOY";
/// Names the conformance suite of HTTP/2.
pub const H2SPEC_ENV: &str = "ORLOP_H2SPEC";

/// Names the `kubernetes` that the test cluster's nodes run.
pub const KUBERNETES_ENV: &str = "ORLOP_KUBERNETES";
/// Names the DNS server of the test cluster.
pub const CLUSTER_DNS_ENV: &str = "ORLOP_CLUSTER_DNS";
/// Names the istiod that Istio's charts run in the test cluster.
pub const PILOT_ENV: &str = "ORLOP_PILOT";
/// Names the `pilot-agent` of the test cluster's sidecars.
pub const PILOT_AGENT_ENV: &str = "ORLOP_PILOT_AGENT";
/// Names the template of the configuration that it starts its Envoy with.
pub const SIDECAR_BOOTSTRAP_ENV: &str = "ORLOP_SIDECAR_BOOTSTRAP";
/// Names the folder of the Gateway API's resource definitions.
pub const GATEWAY_API_ENV: &str = "ORLOP_GATEWAY_API";
/// Names the `helm` that installs Orlop there.
pub const HELM_ENV: &str = "ORLOP_HELM";

/// A program of this workspace, `orlop` or `bed-pod`, of the same profile as the running test.
pub fn workspace_binary(name: &str) -> Result<PathBuf> {
    let exe = env::current_exe()?;
    // `target/debug/xtask`, or `target/debug/deps/<test>`.
    let found = exe.ancestors().skip(1).take(2).map(|dir| dir.join(name)).find(|path| path.is_file());
    found.with_context(|| {
        format!("{name} is not built: `cargo xtask test` builds it, or `cargo build --workspace`")
    })
}

/// A foreign program that `cargo xtask` has prepared and named by an environment variable.
pub fn prepared(variable: &str) -> Result<PathBuf> {
    match env::var_os(variable) {
        Some(path) if Path::new(&path).exists() => Ok(path.into()),
        Some(path) => bail!("{variable} names {}, which does not exist", Path::new(&path).display()),
        None => bail!(
            "{variable} is not set: run the tests with `cargo xtask test`, which prepares what they need"
        ),
    }
}
