//! What a push costs is what it changes, however large the mesh is. Counted by the agent; the kernel's maps are real.

use std::net::SocketAddr;
use std::thread::sleep;
use std::time::Duration;

use anyhow::{Context, Result};
use orlop_integration::agent::Work;
use orlop_integration::{Mesh, Pod, Service, tally, until};

const SERVICES: usize = 300;
const PORT: u16 = 9000;

fn vip(n: usize) -> String {
    format!("10.97.{}.{}", n / 250, n % 250 + 1)
}

fn service(n: usize, endpoints: &[&Pod]) -> String {
    let described = Service::new(&format!("service-{n}"), &vip(n)).tcp(PORT, PORT);
    endpoints.iter().fold(described, |service, pod| service.endpoint(pod)).yaml()
}

/// What the client's pushes have cost, once there are no more.
fn work(mesh: &Mesh) -> Result<Work> {
    let done = || Ok::<_, anyhow::Error>(mesh.agent.status()?.workload("client")?.work.clone());
    until("the pushes to end", Duration::from_secs(20), || {
        let before = done()?.context("nothing was pushed")?;
        sleep(Duration::from_secs(1));
        let after = done()?.context("nothing was pushed")?;
        Ok((before.pushes == after.pushes).then_some(after.total))
    })
}

#[test]
fn one_endpoint_among_many_services_costs_one_resource_one_destination_and_a_few_map_entries() -> Result<()> {
    let mesh = Mesh::plain()?;
    let all: String = (1..SERVICES).map(|n| service(n, &[&mesh.v1])).collect();
    mesh.istiod.apply("edited.yaml", &service(0, &[&mesh.v1]))?;
    mesh.istiod.apply("many.yaml", &all)?;
    let last: SocketAddr = format!("{}:{PORT}", vip(SERVICES - 1)).parse()?;
    mesh.agent.wait_for_path(&mesh.client, last, "kernel")?;
    let before = work(&mesh)?;

    mesh.istiod.apply("edited.yaml", &service(0, &[&mesh.v2]))?;
    let edited: SocketAddr = format!("{}:{PORT}", vip(0)).parse()?;
    until("the edit to be in force", Duration::from_secs(10), || {
        Ok((tally(&mesh.client.tcp(edited).times(5)?) == [("v2".to_owned(), 5)].into()).then_some(()))
    })?;

    let edit = work(&mesh)?.since(&before);
    assert_eq!((edit.validated, edit.reclassified, edit.clusters), (1, 1, 1), "{edit:?}");
    assert!((1..=3).contains(&edit.kernel_entries), "{edit:?}");
    Ok(())
}

#[test]
fn an_istiod_that_comes_back_with_the_same_content_changes_nothing() -> Result<()> {
    let mut mesh = Mesh::start(Service::canary_routing)?;
    mesh.agent.wait_for_path(&mesh.client, Mesh::WEB, "l7")?;
    let received = |mesh: &Mesh| {
        let status = mesh.agent.status()?;
        let types = &status.workload("client")?.xds["types"];
        let types = types.as_object().context("the stream has types")?.clone();
        Ok::<_, anyhow::Error>(
            types.into_iter().map(|(kind, of_type)| (kind, of_type["received"].as_u64())).collect::<Vec<_>>(),
        )
    };
    let (before, answers_before) = (work(&mesh)?, received(&mesh)?);

    mesh.istiod.kill();
    mesh.istiod.restart()?;
    until("istiod to have answered for every type again", Duration::from_secs(30), || {
        let again = received(&mesh)?;
        let answered =
            answers_before.iter().all(|(kind, old)| again.iter().any(|(k, new)| k == kind && new > old));
        Ok(answered.then_some(()))
    })?;

    let reconnect = work(&mesh)?.since(&before);
    assert_eq!(reconnect, Work { deduplicated: reconnect.deduplicated, ..Work::default() });
    Ok(())
}
