//! The workloads' certificates: from a real istiod's authority by the node's token and by the workloads' own, and from files.

use std::fs;
use std::net::{Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use orlop_integration::agent::Identity;
use orlop_integration::istiod::NODE_TOKEN;
use orlop_integration::{Agent, Authority, Bed, ControlPlane, Istiod, Pod, until};
use serde_json::{Value, json};

const ADMIN: SocketAddr = SocketAddr::new(std::net::IpAddr::V4(Ipv4Addr::LOCALHOST), 15000);
const DAY_SECONDS: u64 = 24 * 60 * 60;
/// Attempts are up to 30 s apart.
const AFTER_BACKOFF: Duration = Duration::from_mins(1);

struct Scene {
    bed: Bed,
    authority: Authority,
}

impl Scene {
    fn new() -> Result<Self> {
        Ok(Self { bed: Bed::new()?, authority: Authority::new()? })
    }

    fn file(&self, name: &str, text: &str) -> Result<PathBuf> {
        let path = self.bed.dir().join(name);
        fs::write(&path, text)?;
        Ok(path)
    }

    fn root(&self) -> Result<PathBuf> {
        self.file("root.pem", self.authority.certificate())
    }

    /// An agent whose workloads show tokens of their own.
    fn agent_with_tokens(&self, istiod: &Istiod, identity: Value, pods: &[&Pod]) -> Result<Agent> {
        let mut agent = Agent::described(&self.bed, self.secure(istiod)?, &[])?;
        agent.set_identity(identity);
        for pod in pods {
            let (name, account) = (pod.name(), pod.account());
            let token = format!("fake:default:{account}:{name}:uid-of-{name}");
            let token = self.file(&format!("{name}.token"), &token)?;
            agent.set_credentials(pod, json!({ "token": token }));
        }
        agent.set_workloads(pods)?;
        Ok(agent)
    }

    fn secure(&self, istiod: &Istiod) -> Result<ControlPlane> {
        let address = istiod.secure_address().to_string();
        Ok(ControlPlane::Secure { address, root_certificate: self.root()? })
    }

    /// An agent that asks for its workloads with its own token.
    fn agent_with_node_token(
        &self,
        istiod: &Istiod,
        control_plane: ControlPlane,
        token: &str,
        pods: &[&Pod],
    ) -> Result<Agent> {
        let mut agent = Agent::described(&self.bed, control_plane, &[])?;
        agent.set_identity(json!({
            "certificateAuthority": istiod.secure_address().to_string(),
            "rootCertificate": self.root()?,
            "token": self.file("node.token", token)?,
        }));
        agent.set_workloads(pods)?;
        Ok(agent)
    }
}

fn identity(agent: &Agent, pod: &Pod) -> Result<Identity> {
    agent.status()?.workload(pod.name())?.identity.clone().context("the node keeps no certificates")
}

fn wait_for(
    agent: &Agent,
    pod: &Pod,
    what: &str,
    mut wanted: impl FnMut(&Identity) -> bool,
) -> Result<Identity> {
    until(what, AFTER_BACKOFF, || {
        let identity = identity(agent, pod)?;
        ensure!(wanted(&identity), "{identity:?}");
        Ok(Some(identity))
    })
}

fn page(pod: &Pod, path: &str) -> Result<Value> {
    let reply = pod.http(ADMIN).path(path).send()?;
    serde_json::from_str(&reply.body).with_context(|| reply.body)
}

#[test]
fn each_account_has_a_certificate_by_its_workloads_own_tokens() -> Result<()> {
    let scene = Scene::new()?;
    let istiod = Istiod::start_secure(&scene.bed, &scene.authority, &[])?;
    let pods = [("a", "first"), ("b", "first"), ("c", "second")]
        .map(|(name, account)| scene.bed.pod(name).account(account).start());
    let [a, b, c] = pods;
    let [a, b, c] = [a?, b?, c?];
    let mut agent = scene.agent_with_tokens(&istiod, json!({}), &[&a, &b, &c])?;

    agent.restart()?;

    let [first, same, other] = [&a, &b, &c].map(|pod| identity(&agent, pod));
    let (first, same, other) = (first?, same?, other?);
    assert_eq!(first.spiffe_id, "spiffe://cluster.local/ns/default/sa/first");
    assert_eq!(other.spiffe_id, "spiffe://cluster.local/ns/default/sa/second");
    assert_eq!(first.serial_number, same.serial_number);
    assert_ne!(first.serial_number, other.serial_number);
    assert!((DAY_SECONDS - 300..=DAY_SECONDS).contains(&first.remaining_seconds.unwrap_or_default()));
    assert_eq!((first.roots, first.problem), (1, None));
    Ok(())
}

#[test]
fn a_node_gets_certificates_for_the_workloads_that_run_on_it_by_its_own_token() -> Result<()> {
    let scene = Scene::new()?;
    let (here, elsewhere) = (scene.bed.pod("here").start()?, scene.bed.pod("elsewhere").start()?);
    let istiod = Istiod::start_with_pods(&scene.bed, &scene.authority, &[&here])?;
    let plaintext = ControlPlane::from(&istiod);
    let mut agent = scene.agent_with_node_token(&istiod, plaintext, NODE_TOKEN, &[&here, &elsewhere])?;

    agent.start_without_waiting()?;

    let mine = wait_for(&agent, &here, "the certificate", |identity| identity.serial_number.is_some())?;
    assert_eq!(mine.spiffe_id, format!("spiffe://cluster.local/ns/default/sa/{}", here.account()));
    let refused = wait_for(&agent, &elsewhere, "the refusal", |identity| identity.problem.is_some())?;
    let problem = refused.problem.unwrap_or_default();
    assert!(problem.contains("Unauthenticated: "), "{problem}");
    assert!(
        problem.contains("no pod of the workload's account runs on the node of the token's pod"),
        "{problem}"
    );
    let status =
        agent.wait_for_status("the one to be ready", |status| Ok(status.workload(here.name())?.ready))?;
    assert!(!status.workload(elsewhere.name())?.ready);
    Ok(())
}

#[test]
fn workloads_without_credentials_of_their_own_show_the_control_plane_the_certificates_that_the_node_has()
-> Result<()> {
    let scene = Scene::new()?;
    let [a, b, c] = [("a", "first"), ("b", "first"), ("c", "second")]
        .map(|(name, account)| scene.bed.pod(name).account(account).start());
    let (a, b, c) = (a?, b?, c?);
    let istiod = Istiod::start_with_pods(&scene.bed, &scene.authority, &[&a, &b, &c])?;
    let secure = scene.secure(&istiod)?;
    let mut agent = scene.agent_with_node_token(&istiod, secure, NODE_TOKEN, &[&a, &b, &c])?;

    // istiod takes no stream of a workload by the certificate of another account.
    agent.restart()?;

    assert_ne!(identity(&agent, &b)?.serial_number, identity(&agent, &c)?.serial_number);
    Ok(())
}

#[test]
fn roots_that_the_control_plane_names_are_trusted_beside_the_authoritys() -> Result<()> {
    let scene = Scene::new()?;
    let istiod = Istiod::start_with_roots(&scene.bed, &scene.authority, &Authority::new()?)?;
    let pod = scene.bed.pod("a").start()?;
    let mut agent = scene.agent_with_tokens(&istiod, json!({}), &[&pod])?;

    agent.start_without_waiting()?;

    wait_for(&agent, &pod, "two roots", |identity| identity.roots == 2)?;
    Ok(())
}

#[test]
fn an_authority_that_is_away_is_seen_in_the_status_and_asked_until_it_is_back() -> Result<()> {
    let scene = Scene::new()?;
    let mut istiod = Istiod::start_secure(&scene.bed, &scene.authority, &[])?;
    let pod = scene.bed.pod("a").start()?;
    let mut agent = scene.agent_with_tokens(&istiod, json!({}), &[&pod])?;
    istiod.kill();

    agent.start_without_waiting()?;

    let away = wait_for(&agent, &pod, "two attempts", |identity| identity.attempts >= 2)?;
    let problem = away.problem.unwrap_or_default();
    assert!(problem.contains(&format!("authority {}: ", istiod.secure_address())), "{problem}");
    assert!(problem.contains("Connection refused"), "{problem}");
    assert_eq!(away.serial_number, None);
    istiod.restart()?;
    let back = wait_for(&agent, &pod, "the certificate", |identity| identity.serial_number.is_some())?;
    assert_eq!(back.problem, None);
    Ok(())
}

#[test]
fn a_certificate_is_renewed_before_half_of_its_life_and_outlives_an_authority_that_is_away() -> Result<()> {
    let scene = Scene::new()?;
    let mut istiod = Istiod::start_secure(&scene.bed, &scene.authority, &[])?;
    let pod = scene.bed.pod("a").start()?;
    let short = json!({ "certificateLifetimeSeconds": 20 });
    let mut agent = scene.agent_with_tokens(&istiod, short, &[&pod])?;
    agent.restart()?;
    let first = identity(&agent, &pod)?;

    let renewed = wait_for(&agent, &pod, "the next certificate", |identity| {
        assert!(identity.remaining_seconds.is_some_and(|left| left > 0), "{identity:?}");
        identity.serial_number != first.serial_number
    })?;
    istiod.kill();
    let kept = wait_for(&agent, &pod, "a failure", |identity| identity.problem.is_some())?;

    assert_eq!(kept.serial_number, renewed.serial_number);
    assert!(kept.remaining_seconds.is_some_and(|left| left > 0), "{kept:?}");
    istiod.restart()?;
    wait_for(&agent, &pod, "another certificate", |identity| {
        identity.serial_number != renewed.serial_number
    })?;
    Ok(())
}

#[test]
fn an_agent_that_takes_over_has_certificates_of_its_own_before_the_old_one_goes() -> Result<()> {
    let scene = Scene::new()?;
    let istiod = Istiod::start_secure(&scene.bed, &scene.authority, &[])?;
    let pod = scene.bed.pod("a").start()?;
    let mut agent = scene.agent_with_tokens(&istiod, json!({}), &[&pod])?;
    agent.restart()?;
    let before = identity(&agent, &pod)?;
    agent.wait_for_status("the last good configuration to be saved", |status| {
        Ok(status.last_good.saved.is_some() && !status.last_good.pending)
    })?;

    let _old = agent.take_over()?;

    let log = agent.log();
    let new = log.rfind("a certificate came").context("the new agent has one")?;
    let enrolled = log.rfind("enrolled").context("and the pod")?;
    assert!(new < enrolled, "{log}");
    assert_ne!(identity(&agent, &pod)?.serial_number, before.serial_number);
    Ok(())
}

#[test]
fn the_pods_admin_pages_show_its_certificate_as_a_sidecars_do() -> Result<()> {
    let scene = Scene::new()?;
    let istiod = Istiod::start_secure(&scene.bed, &scene.authority, &[])?;
    let pod = scene.bed.pod("a").start()?;
    let mut agent = scene.agent_with_tokens(&istiod, json!({}), &[&pod])?;
    agent.restart()?;

    let certs = page(&pod, "/certs")?;
    let leaf = &certs["certificates"][0]["cert_chain"][0];
    let identity = identity(&agent, &pod)?;
    assert_eq!(leaf["subject_alt_names"], json!([{ "uri": identity.spiffe_id }]));
    assert_eq!(leaf["serial_number"].as_str(), identity.serial_number.as_deref());
    assert_eq!(certs["certificates"][0]["ca_cert"][0]["subject_alt_names"], json!([]));

    let dump = page(&pod, "/config_dump?resource=dynamic_active_secrets")?;
    let [certificate, roots] = dump["configs"].as_array().map(Vec::as_slice).unwrap_or_default() else {
        panic!("{dump}");
    };
    assert_eq!((&certificate["name"], &roots["name"]), (&json!("default"), &json!("ROOTCA")));
    let redacted = json!({ "inline_bytes": "W3JlZGFjdGVkXQ==" });
    assert_eq!(certificate["secret"]["tls_certificate"]["private_key"], redacted);
    assert!(roots["secret"]["validation_context"]["trusted_ca"]["inline_bytes"].is_string(), "{roots}");
    Ok(())
}

#[test]
fn a_certificate_in_files_is_shown_and_replaced_and_somebody_elses_is_not() -> Result<()> {
    let scene = Scene::new()?;
    let istiod = Istiod::start_secure(&scene.bed, &scene.authority, &[])?;
    let pod = scene.bed.pod("a").account("first").start()?;
    let mut agent = scene.agent_with_tokens(&istiod, json!({}), &[])?;
    let place = |account: &str| -> Result<(PathBuf, PathBuf)> {
        let issued = scene.authority.issue(account)?;
        Ok((scene.file("a.pem", &issued.certificate)?, scene.file("a.key", &issued.key)?))
    };
    let (certificate, key) = place("first")?;
    agent.set_credentials(&pod, json!({ "certificate": certificate, "key": key }));
    agent.set_workloads(&[&pod])?;
    agent.restart()?;
    let first = identity(&agent, &pod)?;

    place("first")?;
    let second = wait_for(&agent, &pod, "the next certificate", |i| {
        i.serial_number != first.serial_number && i.problem.is_none()
    })?;
    place("second")?;
    let refused = wait_for(&agent, &pod, "the refusal", |identity| {
        identity.problem.as_ref().is_some_and(|problem| problem.contains("it is for spiffe://"))
    })?;

    assert_eq!(refused.serial_number, second.serial_number);
    Ok(())
}

#[test]
fn nothing_secret_is_in_a_log_a_page_the_status_or_on_disk() -> Result<()> {
    let scene = Scene::new()?;
    let istiod = Istiod::start_secure(&scene.bed, &scene.authority, &[])?;
    let (asks, brings) = (scene.bed.pod("a").start()?, scene.bed.pod("b").account("b").start()?);
    let mut agent = scene.agent_with_tokens(&istiod, json!({}), &[&asks])?;
    let issued = scene.authority.issue("b")?;
    // Planted outside of what is searched.
    let planted = scene.bed.dir().join("planted");
    fs::create_dir(&planted)?;
    let (certificate, key) = (planted.join("b.pem"), planted.join("b.key"));
    fs::write(&certificate, &issued.certificate)?;
    fs::write(&key, &issued.key)?;
    agent.set_credentials(&brings, json!({ "certificate": certificate, "key": key }));
    agent.set_workloads(&[&asks, &brings])?;
    agent.restart()?;
    agent.wait_for_status("the last good configuration to be saved", |status| {
        Ok(status.last_good.saved.is_some() && !status.last_good.pending)
    })?;

    let mut said = vec![agent.log(), format!("{:?}", agent.status()?)];
    for path in ["/certs", "/config_dump?include_eds", "/stats", "/clusters", "/server_info"] {
        for pod in [&asks, &brings] {
            said.push(pod.http(ADMIN).path(path).send()?.body);
        }
    }
    let mut said: Vec<Vec<u8>> = said.into_iter().map(String::into_bytes).collect();
    let files = files_below(&scene.bed.dir().join("state"))?;
    assert!(!files.is_empty());
    for file in files {
        said.push(fs::read(file)?);
    }

    let key_line = issued.key.lines().nth(1).context("a key has lines")?;
    for secret in ["PRIVATE KEY", key_line, "fake:default:"] {
        let found = |text: &&Vec<u8>| text.windows(secret.len()).any(|window| window == secret.as_bytes());
        let leak = said.iter().find(found).map(|text| String::from_utf8_lossy(text).into_owned());
        assert_eq!(leak, None, "{secret}");
    }
    Ok(())
}

fn files_below(dir: &Path) -> Result<Vec<PathBuf>> {
    let mut files = Vec::new();
    for entry in fs::read_dir(dir)? {
        let path = entry?.path();
        if path.is_dir() { files.extend(files_below(&path)?) } else { files.push(path) }
    }
    Ok(files)
}
