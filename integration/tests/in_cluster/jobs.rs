//! What runs before an application (init containers), and what ends (jobs), under STRICT.

use anyhow::{Context, Result, ensure};
use orlop_integration::{Call, Cluster, Reply, until};
use serde_json::{Value, json};

use crate::scene::{PATIENCE, STRICT, Scene, container, is_from, pod};

pub(crate) fn what_runs_before_an_application_and_what_ends_is_in_the_mesh(cluster: &Cluster) -> Result<()> {
    let scene = Scene::enrolled(cluster, "jobs")?.with_web()?;
    scene.apply(STRICT)?;
    let call = scene.to("web")?;
    scene.eventually("the service to answer in the mesh", "client", &call, |reply| is_from(reply, "web"))?;

    init_containers_are_in_the_mesh(&scene, &call)?;
    a_job_ends_and_is_let_go(&scene, &call)
}

fn init_containers_are_in_the_mesh(scene: &Scene<'_>, call: &Call) -> Result<()> {
    let mut pod = pod("prepared", &json!({"app": "prepared"}), 1, &["pause"]);
    pod["spec"]["initContainers"] = json!([container("before", &["http", &serde_json::to_string(call)?])]);
    scene.add(&[pod])?;
    scene.kubectl(&["wait", "--for=condition=Ready", "pod/prepared", "--timeout=120s"])?;
    let replies: Vec<Reply> = serde_json::from_str(&scene.kubectl(&["logs", "prepared", "-c", "before"])?)?;
    ensure!(replies.iter().all(|reply| is_from(reply, "web")), "{replies:?}");
    Ok(())
}

/// A sidecar would hold it for ever.
fn a_job_ends_and_is_let_go(scene: &Scene<'_>, call: &Call) -> Result<()> {
    let work = container("app", &["http", &serde_json::to_string(&Call { times: 20, ..call.clone() })?]);
    let spec = json!({"nodeName": "node1", "restartPolicy": "Never", "containers": [work]});
    let job = json!({"completions": 3, "backoffLimit": 0, "template": {"spec": spec}});
    scene
        .add(&[json!({"apiVersion": "batch/v1", "kind": "Job", "metadata": {"name": "job"}, "spec": job})])?;
    scene
        .kubectl(&["wait", "--for=condition=Complete", "job/job", "--timeout=120s"])
        .with_context(|| scene.kubectl(&["get", "pods,events"]).unwrap_or_default())?;
    let pods = scene.kubectl(&["get", "pods", "-l", "job-name=job", "-o", "name"])?;
    ensure!(pods.lines().count() == 3, "{pods}");
    for pod in pods.lines() {
        let replies: Vec<Reply> = serde_json::from_str(&scene.kubectl(&["logs", pod])?)?;
        ensure!(replies.iter().all(|reply| is_from(reply, "web")), "{pod}: {replies:?}");
    }
    until("what has ended to be carried no more", PATIENCE, || {
        let status = scene.cluster.status(1)?;
        let workloads = status["workloads"].as_array().context("no workloads")?.iter();
        let names = workloads.filter_map(|workload| workload["name"].as_str());
        Ok((!names.into_iter().any(|name| name.starts_with("job-"))).then_some(()))
    })?;
    let left = &scene.cluster.status(1)?["not_carried"];
    let of_the_job = |pod: &Value| pod.to_string().contains("job-");
    ensure!(!left.as_array().into_iter().flatten().any(of_the_job), "{left}");
    Ok(())
}
