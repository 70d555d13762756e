//! istiod's port for TLS: by what it is known, by what workloads are known there, and what the status says where one is not.

use std::fs;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use orlop_integration::{Agent, Authority, Bed, ControlPlane, Istiod, Pod, until};
use serde_json::json;

/// Attempts are up to 30 s apart.
const AFTER_BACKOFF: Duration = Duration::from_mins(1);

struct Scene {
    bed: Bed,
    authority: Authority,
    istiod: Istiod,
}

impl Scene {
    fn new() -> Result<Self> {
        let bed = Bed::new()?;
        let authority = Authority::new()?;
        let istiod = Istiod::start_secure(&bed, &authority, &[])?;
        Ok(Self { bed, authority, istiod })
    }

    fn file(&self, name: &str, text: &str) -> Result<PathBuf> {
        let path = self.bed.dir().join(name);
        fs::write(&path, text)?;
        Ok(path)
    }

    fn control_plane(&self, address: &str) -> Result<ControlPlane> {
        let root_certificate = self.file("root.pem", self.authority.certificate())?;
        Ok(ControlPlane::Secure { address: address.to_owned(), root_certificate })
    }

    /// An agent that waits for its pods' credentials.
    fn agent(&self) -> Result<Agent> {
        Agent::described(&self.bed, self.control_plane(&self.istiod.secure_address().to_string())?, &[])
    }

    fn token(&self, pod: &Pod, account: &str) -> Result<PathBuf> {
        let name = pod.name();
        self.file(&format!("{name}.token"), &format!("fake:default:{account}:{name}:uid-of-{name}\n"))
    }
}

fn wait_until_ready(agent: &Agent) -> Result<()> {
    until("every workload to be ready", AFTER_BACKOFF, || {
        let status = agent.status()?;
        ensure!(status.ready, "{status:?}");
        Ok(Some(()))
    })
}

/// Waits until the status says this of why there is no stream.
fn wait_for_error(agent: &Agent, pod: &Pod, expected: &str) -> Result<()> {
    until(expected, AFTER_BACKOFF, || {
        let status = agent.status()?;
        let error = status.workload(pod.name())?.xds.get("last_error").map(ToString::to_string);
        let error = error.unwrap_or_default();
        ensure!(error.contains(expected), "{error}");
        Ok(Some(()))
    })
}

/// Connections that stand from this machine to an address.
fn connections_to(server: SocketAddr) -> Result<usize> {
    const ESTABLISHED: &str = "01";
    let table = fs::read_to_string("/proc/net/tcp")?;
    let remote = format!("0100007F:{:04X}", server.port());
    Ok(table
        .lines()
        .map(|line| line.split_ascii_whitespace().collect::<Vec<_>>())
        .filter(|fields| fields.get(2) == Some(&&*remote) && fields.get(3) == Some(&ESTABLISHED))
        .count())
}

#[test]
fn workloads_with_tokens_share_a_connection() -> Result<()> {
    let scene = Scene::new()?;
    let pods = [scene.bed.pod("a").start()?, scene.bed.pod("b").start()?];
    let mut agent = scene.agent()?;
    for pod in &pods {
        let token = scene.token(pod, pod.account())?;
        agent.set_credentials(pod, json!({ "token": token }));
    }
    agent.set_workloads(&pods.iter().collect::<Vec<_>>())?;

    agent.restart()?;

    assert_eq!(connections_to(scene.istiod.secure_address())?, 1);
    Ok(())
}

#[test]
fn workloads_with_certificates_have_a_connection_for_each_identity() -> Result<()> {
    let scene = Scene::new()?;
    let shared = scene.bed.pod("a").account("shared").start()?;
    let pods = [shared, scene.bed.pod("b").account("shared").start()?, scene.bed.pod("c").start()?];
    let mut agent = scene.agent()?;
    for account in ["shared", "c"] {
        let issued = scene.authority.issue(account)?;
        let certificate = scene.file(&format!("{account}.pem"), &issued.certificate)?;
        let key = scene.file(&format!("{account}.key"), &issued.key)?;
        for pod in pods.iter().filter(|pod| pod.account() == account) {
            agent.set_credentials(pod, json!({ "certificate": certificate, "key": key }));
        }
    }
    agent.set_workloads(&pods.iter().collect::<Vec<_>>())?;

    agent.restart()?;

    assert_eq!(connections_to(scene.istiod.secure_address())?, 2);
    Ok(())
}

#[test]
fn a_certificate_of_another_authority_is_named() -> Result<()> {
    let scene = Scene::new()?;
    let pod = scene.bed.pod("a").start()?;
    let mut agent = scene.agent()?;
    let issued = Authority::new()?.issue("a")?;
    let certificate = scene.file("a.pem", &issued.certificate)?;
    let key = scene.file("a.key", &issued.key)?;
    agent.set_credentials(&pod, json!({ "certificate": certificate, "key": key }));
    agent.set_workloads(&[&pod])?;

    agent.start_without_waiting()?;

    let expected = format!("the control plane does not accept the certificate {}", certificate.display());
    wait_for_error(&agent, &pod, &expected)
}

#[test]
fn a_control_plane_of_another_authority_is_not_spoken_to_until_the_root_is_replaced() -> Result<()> {
    let scene = Scene::new()?;
    let pod = scene.bed.pod("a").start()?;
    let mut agent = scene.agent()?;
    let token = scene.token(&pod, "a")?;
    agent.set_credentials(&pod, json!({ "token": token }));
    agent.set_workloads(&[&pod])?;
    let root = scene.file("root.pem", Authority::new()?.certificate())?;

    agent.start_without_waiting()?;

    let reason = "has signed the control plane's certificate";
    wait_for_error(&agent, &pod, &format!("none of the authorities in {} ", root.display()))?;
    wait_for_error(&agent, &pod, reason)?;
    fs::write(root, scene.authority.certificate())?;
    wait_until_ready(&agent)
}

#[test]
fn a_control_plane_of_another_name_is_not_spoken_to() -> Result<()> {
    let scene = Scene::new()?;
    let pod = scene.bed.pod("a").start()?;
    let address = format!("localhost:{}", scene.istiod.secure_address().port());
    let mut agent = Agent::described(&scene.bed, scene.control_plane(&address)?, &[])?;
    let token = scene.token(&pod, "a")?;
    agent.set_credentials(&pod, json!({ "token": token }));
    agent.set_workloads(&[&pod])?;

    agent.start_without_waiting()?;

    wait_for_error(&agent, &pod, "certificate is not for localhost: let controlPlane.address be a name that")
}

#[test]
fn a_token_is_read_again_whenever_a_stream_opens_and_the_status_says_what_is_wrong_with_it() -> Result<()> {
    let scene = Scene::new()?;
    let pod = scene.bed.pod("a").start()?;
    let mut agent = scene.agent()?;
    let token = scene.token(&pod, "somebody-else")?;
    agent.set_credentials(&pod, json!({ "token": token }));
    agent.set_workloads(&[&pod])?;
    agent.start_without_waiting()?;

    let named = format!("the token in {}", token.display());
    wait_for_error(&agent, &pod, &format!("{named} is not of the workload's namespace and service account"))?;
    fs::write(&token, "expired")?;
    wait_for_error(&agent, &pod, &format!("{named} has expired, or is not for this control plane"))?;
    fs::remove_file(&token)?;
    wait_for_error(&agent, &pod, &format!("cannot read {}: No such file", token.display()))?;
    scene.token(&pod, "a")?;
    wait_until_ready(&agent)
}

#[test]
fn a_workload_without_credentials_is_told_where_to_set_them() -> Result<()> {
    let scene = Scene::new()?;
    let pod = scene.bed.pod("a").start()?;
    let mut agent = scene.agent()?;
    agent.set_workloads(&[&pod])?;

    agent.start_without_waiting()?;

    wait_for_error(&agent, &pod, "the workload has no credentials: set them in node.yaml")
}

#[test]
fn a_port_of_the_other_kind_is_named() -> Result<()> {
    let scene = Scene::new()?;
    let pod = scene.bed.pod("a").start()?;
    let plaintext = scene.istiod.address().to_string();
    let mut agent = Agent::described(&scene.bed, scene.control_plane(&plaintext)?, &[&pod])?;
    agent.start_without_waiting()?;
    wait_for_error(&agent, &pod, "controlPlane.address is not a port for TLS")?;
    agent.stop().context("the first agent")?;

    let mut agent =
        Agent::described(&scene.bed, ControlPlane::Address(scene.istiod.secure_address()), &[&pod])?;
    agent.start_without_waiting()?;
    wait_for_error(&agent, &pod, "if it is a port for TLS, set controlPlane.rootCertificate")
}
