//! Where istiod does not trust the agent's account, certificates come by tokens of the pods' own.

use anyhow::{Result, ensure};
use orlop_integration::{Cluster, until};
use serde_json::json;

use crate::scene::{PATIENCE, Scene, client, is_from, server, service};

const STRICT: &str = "
apiVersion: security.istio.io/v1
kind: PeerAuthentication
metadata: {name: default}
spec: {mtls: {mode: STRICT}}
";

/// For the whole cluster, so nothing runs beside it.
pub(crate) fn stand_in_for_a_node_that_is_not_trusted(cluster: &Cluster) -> Result<()> {
    cluster.configure_orlop("serviceAccount.name=orlop,serviceAccount.podTokens=true")?;
    let scene = Scene::enrolled(cluster, "tokens")?;
    scene.apply(STRICT)?;
    scene.add(&[
        client("client", 1),
        server("web", "web", "v1", 2),
        service("web", &json!({"app": "web"})),
    ])?;
    scene.ready()?;
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
