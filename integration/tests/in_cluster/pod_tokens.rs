//! Where istiod does not trust the agent's account, certificates come by tokens of the pods' own.

use anyhow::{Result, ensure};
use orlop_integration::{Cluster, until};

use crate::scene::{PATIENCE, STRICT, Scene, is_from};

/// For the whole cluster, so nothing runs beside it.
pub(crate) fn stand_in_for_a_node_that_is_not_trusted(cluster: &Cluster) -> Result<()> {
    cluster.configure_orlop("serviceAccount.name=orlop,serviceAccount.podTokens=true")?;
    let scene = Scene::enrolled(cluster, "tokens")?.with_web()?;
    scene.apply(STRICT)?;
    let call = scene.to("web")?;
    scene.eventually("mutual TLS with such certificates", "client", &call, |reply| is_from(reply, "web"))?;
    until("the status to say which way, and why", PATIENCE, || {
        let status = cluster.orlop(1, &["status"])?;
        let line = status.lines().find(|line| line.contains("/ns/tokens/sa/default"));
        let said = line.is_some_and(|line| {
            line.contains("by a token bound to the pod, since the authority does not take the node's")
        });
        ensure!(said, "{status}");
        Ok(Some(()))
    })
}
