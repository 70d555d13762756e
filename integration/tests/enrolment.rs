//! `node.yaml` is live: workloads come and go with it, a mistake in it changes nothing, and a pod that is given back is
//! as it was found.

use std::collections::BTreeSet;
use std::fs;
use std::time::{Duration, Instant};

use anyhow::Result;
use orlop_integration::{Mesh, Pod, tally, until};

/// Routing rules and routes of all tables: what enrolment adds to.
fn routing_of(pod: &Pod) -> Result<String> {
    Ok(pod.run("ip rule show")? + &pod.run("ip route show table all")?)
}

#[test]
fn a_workload_is_enrolled_live_and_given_back_as_it_was() -> Result<()> {
    let mesh = Mesh::plain()?;
    let late = mesh.bed.pod("late").label("app", "late").start()?;
    let before = routing_of(&late)?;

    mesh.agent.set_workloads(&[&mesh.client, &late])?;
    mesh.agent
        .wait_for_status("the new workload", |status| Ok(status.ready && status.workloads.len() == 2))?;
    assert_eq!(tally(&late.tcp(Mesh::TCP).times(40)?).len(), 2);

    let load = mesh.client.load_tcp(mesh.client.tcp(Mesh::TCP))?;
    mesh.agent.set_workloads(&[&mesh.client])?;
    mesh.agent.wait_for_status("the workload to be gone", |status| Ok(status.workloads.len() == 1))?;
    assert_eq!(routing_of(&late)?, before);
    assert_eq!(
        late.tcp(mesh.v1.at(9000)).connect()?.greeting()?.server,
        "v1",
        "its network works without the mesh"
    );
    let (kernel, _) = mesh.agent.counters(&mesh.client)?;
    assert!(kernel.kernel_balanced > 0);
    let report = load.stop()?;
    assert_eq!(report.failures(), 0, "the other workload noticed nothing: {report:?}");
    Ok(())
}

#[test]
fn what_somebody_takes_away_from_a_pod_is_put_back_and_counted() -> Result<()> {
    let mesh = Mesh::plain()?;
    let rules = || -> Result<BTreeSet<String>> {
        Ok(mesh.client.run("ip rule show")?.lines().map(str::to_owned).collect())
    };
    let before = rules()?;
    mesh.client.run("ip rule del fwmark 0x6f72")?;
    until("the rule to be back", Duration::from_secs(5), || Ok((rules()? == before).then_some(())))?;
    let (kernel, _) = mesh.agent.counters(&mesh.client)?;
    assert!(kernel.repaired > 0, "{kernel:?}");
    Ok(())
}

#[test]
fn a_pod_that_vanished_is_released_and_the_others_go_on() -> Result<()> {
    let mesh = Mesh::plain()?;
    let (no_netns, no_cgroup) = (mesh.bed.plain_pod("no-netns")?, mesh.bed.plain_pod("no-cgroup")?);
    mesh.agent.set_workloads(&[&mesh.client, &no_netns, &no_cgroup])?;
    mesh.agent
        .wait_for_status("all to be ready", |status| Ok(status.ready && status.workloads.len() == 3))?;

    no_netns.delete_netns()?;
    fs::remove_dir(no_cgroup.cgroup()?)?;
    let status = mesh.agent.wait_for_status("both to be released", |status| {
        Ok(["no-netns", "no-cgroup"].iter().all(|pod| status.workload(pod).is_ok_and(|w| !w.ready)))
    })?;
    let problem = |pod| Ok::<_, anyhow::Error>(status.workload(pod)?.problem.clone().unwrap_or_default());
    assert!(problem("no-netns")?.contains("namespace"), "{}", problem("no-netns")?);
    assert!(problem("no-cgroup")?.contains("cgroup"), "{}", problem("no-cgroup")?);
    assert!(status.workload("client")?.ready);
    assert_eq!(tally(&mesh.client.tcp(Mesh::TCP).times(20)?).values().sum::<u32>(), 20);
    Ok(())
}

#[test]
fn a_mistake_in_node_yaml_names_file_line_and_field_and_changes_nothing() -> Result<()> {
    let mesh = Mesh::plain()?;
    let good = fs::read_to_string(mesh.agent.config_file())?;
    let line = 1 + good.lines().position(|line| line.contains("cgroup:")).expect("a workload has a cgroup");
    let load = mesh.client.load_tcp(mesh.client.tcp(Mesh::TCP))?;

    mesh.agent.write_config(&good.replace("cgroup:", "cgruop:"))?;
    let status = mesh
        .agent
        .wait_for_status("the mistake to be reported", |status| Ok(status.config_error.is_some()))?;
    let error = status.config_error.unwrap_or_default();
    for part in [&format!("node.yaml:{line}:"), "workloads[0]", "cgruop"] {
        assert!(error.contains(part), "{part} is not in {error}");
    }
    assert_eq!(status.workloads.len(), 1, "the workload is still carried");

    mesh.agent.write_config(&good)?;
    mesh.agent.wait_for_status("the mistake to be over", |status| Ok(status.ready))?;
    let report = load.stop()?;
    assert_eq!(report.failures(), 0, "{report:?}");
    Ok(())
}

#[test]
fn a_node_yaml_that_is_wrong_at_start_is_refused_with_its_place() -> Result<()> {
    let mut mesh = Mesh::plain()?;
    mesh.agent.stop()?;
    let good = fs::read_to_string(mesh.agent.config_file())?;
    mesh.agent.write_config(&good.replace("addresses:", "adresses:"))?;
    let output = mesh.agent.command()?.output()?;
    let error = String::from_utf8_lossy(&output.stderr);
    assert!(!output.status.success());
    assert!(error.contains("node.yaml:") && error.contains("adresses"), "{error}");
    Ok(())
}

#[test]
fn a_second_agent_is_refused_while_the_first_runs() -> Result<()> {
    let mut mesh = Mesh::plain()?;
    let output = mesh.agent.command()?.output()?;
    let error = String::from_utf8_lossy(&output.stderr);
    assert!(!output.status.success());
    assert!(error.contains(mesh.bed.node_name()), "it names the node: {error}");
    assert!(mesh.agent.status()?.ready, "the first goes on");

    mesh.agent.stop()?;
    mesh.agent.restart()
}

#[test]
fn an_agent_that_was_killed_leaves_the_kernel_path_and_refuses_the_proxied_one_at_once() -> Result<()> {
    let mut mesh = Mesh::start(|web| {
        web.http_routes(&serde_json::json!([
            {"match": [{"uri": {"exact": "/tea"}}], "directResponse": {"status": 418}},
            {"route": [{"destination": {"host": web.host()}}]},
        ]))
    })?;
    mesh.agent.wait_for_path(&mesh.client, Mesh::WEB, "l7")?;
    mesh.agent.wait_for_path(&mesh.client, Mesh::TCP, "kernel")?;
    let by_kernel = mesh.client.load_tcp(mesh.client.tcp(Mesh::TCP))?;

    mesh.agent.kill();
    let start = Instant::now();
    let error = mesh.client.http(Mesh::WEB).send()?.error.unwrap_or_default();
    assert!(error.contains("refused"), "{error}");
    assert!(start.elapsed() < Duration::from_secs(1), "after {:?}", start.elapsed());

    mesh.agent.restart()?;
    assert_eq!(mesh.client.http(Mesh::WEB).host(&mesh.web.host()).path("/tea").send()?.status, 418);
    let report = by_kernel.stop()?;
    assert_eq!(report.failures(), 0, "{report:?}");
    Ok(())
}
