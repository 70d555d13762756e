//! What a cluster is made of.

use std::path::PathBuf;

use anyhow::Result;

use crate::tools::{
    CLUSTER_DNS_ENV, ENVOY_ENV, GATEWAY_API_ENV, HELM_ENV, ISTIOCTL_ENV, KUBERNETES_ENV, PILOT_AGENT_ENV,
    PILOT_ENV, SIDECAR_BOOTSTRAP_ENV, prepared, workspace_binary,
};

/// Where the programs are that a cluster is made of.
#[derive(Debug, Clone)]
pub struct Programs {
    pub(super) kubernetes: PathBuf,
    pub(super) dns: PathBuf,
    pub(super) pilot: PathBuf,
    pub(super) istioctl: PathBuf,
    pub(super) helm: PathBuf,
    pub(super) agent: PathBuf,
    pub(super) pod: PathBuf,
    pub(super) sidecar: Option<Sidecar>,
    pub(super) gateway_api: Option<PathBuf>,
    /// The mode of kube-proxy.
    pub(super) kube_proxy: &'static str,
}

/// What an injected sidecar is made of.
#[derive(Debug, Clone)]
pub(super) struct Sidecar {
    pub(super) agent: PathBuf,
    pub(super) envoy: PathBuf,
    pub(super) bootstrap: PathBuf,
}

impl Programs {
    /// The foreign ones as the environment names them, which `cargo xtask test` prepares.
    pub fn prepared() -> Result<Self> {
        Self::named(prepared)
    }

    /// The foreign ones as whoever knows them by the variables of [`crate::tools`] says.
    pub fn named(place: impl Fn(&str) -> Result<PathBuf>) -> Result<Self> {
        Ok(Self {
            kubernetes: place(KUBERNETES_ENV)?,
            dns: place(CLUSTER_DNS_ENV)?,
            pilot: place(PILOT_ENV)?,
            istioctl: place(ISTIOCTL_ENV)?,
            helm: place(HELM_ENV)?,
            agent: workspace_binary("orlop")?,
            pod: workspace_binary("bed-pod")?,
            sidecar: None,
            gateway_api: None,
            kube_proxy: "nftables",
        })
    }

    /// With those that real sidecars are made of, for [`super::Cluster::install_istio_with_sidecars`].
    pub fn with_sidecars(self) -> Result<Self> {
        let sidecar = Sidecar {
            agent: prepared(PILOT_AGENT_ENV)?,
            envoy: prepared(ENVOY_ENV)?,
            bootstrap: prepared(SIDECAR_BOOTSTRAP_ENV)?,
        };
        Ok(Self { sidecar: Some(sidecar), ..self })
    }

    /// With kube-proxy in its oldest mode that is still in use.
    #[must_use]
    pub fn with_iptables(self) -> Self {
        Self { kube_proxy: "iptables", ..self }
    }

    /// With the Gateway API's resource definitions, for [`super::Cluster::install_gateway_api`].
    pub fn with_gateway_api(self) -> Result<Self> {
        Ok(Self { gateway_api: Some(prepared(GATEWAY_API_ENV)?), ..self })
    }
}
