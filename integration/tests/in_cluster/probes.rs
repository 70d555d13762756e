//! Every kind of probe, under STRICT and a policy that lets nobody in.

use anyhow::{Result, ensure};
use orlop_integration::{Call, Cluster, until};
use serde_json::{Value, json};

use crate::scene::{PATIENCE, Scene, client, server, service};

const NOBODY: &str = "
apiVersion: security.istio.io/v1
kind: PeerAuthentication
metadata: {name: default}
spec: {mtls: {mode: STRICT}}
---
apiVersion: security.istio.io/v1
kind: AuthorizationPolicy
metadata: {name: nobody}
spec: {}
";

pub(crate) fn every_kind_of_probe_succeeds_under_strict(cluster: &Cluster) -> Result<()> {
    let scene = Scene::enrolled(cluster, "probes")?;
    scene.apply(NOBODY)?;
    let call = serde_json::to_string(&Call::new("127.0.0.1:8080".parse()?))?;
    let kinds = [
        ("by-http", json!({"httpGet": {"path": "/", "port": 8080}})),
        ("by-tcp", json!({"tcpSocket": {"port": 8080}})),
        ("by-grpc", json!({"grpc": {"port": 8080}})),
        ("by-exec", json!({"exec": {"command": ["bed-pod", "http", call]}})),
    ];
    let probed = kinds.iter().map(|(name, kind)| probed(name, kind));
    let others = [client("client", 1), service("web", &json!({"app": "web"}))];
    scene.add(&probed.chain(others).collect::<Vec<_>>())?;
    scene.ready()?;

    let call = scene.to("web")?;
    scene.eventually("nobody to be let in", "client", &call, |reply| reply.status == 403)?;
    let before = probes(&scene)?;
    until("three more probes to have succeeded in each pod", PATIENCE, || {
        let now = probes(&scene)?;
        Ok((now >= before + 9).then_some(()))
    })?;
    let pods = cluster.get(&["-n", "probes", "pods", "-l", "app=web"])?;
    for pod in pods["items"].as_array().into_iter().flatten() {
        let status = &pod["status"]["containerStatuses"][0];
        ensure!(status["ready"] == true && status["restartCount"] == 0, "{status}");
    }
    Ok(())
}

/// How many arrivals the kernel has let in because they were the kubelet's.
fn probes(scene: &Scene<'_>) -> Result<u64> {
    let status = scene.cluster.status(2)?;
    let workloads = status["workloads"].as_array().into_iter().flatten();
    let here = workloads.filter(|workload| workload["namespace"] == scene.namespace);
    Ok(here.filter_map(|workload| workload["kernel"]["inbound_probes"].as_u64()).sum())
}

fn probed(name: &str, kind: &Value) -> Value {
    let mut probe = kind.clone();
    for (field, value) in [("periodSeconds", 1), ("timeoutSeconds", 5), ("failureThreshold", 3)] {
        probe[field] = json!(value);
    }
    let mut pod = server(name, "web", "v1", 2);
    for field in ["startupProbe", "readinessProbe", "livenessProbe"] {
        pod["spec"]["containers"][0][field] = probe.clone();
    }
    // However long it takes to start on a busy machine.
    pod["spec"]["containers"][0]["startupProbe"]["failureThreshold"] = json!(60);
    pod
}
