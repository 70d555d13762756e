//! Services with addresses of both families, in a cluster whose pods have both, under STRICT.

use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use orlop_integration::cluster::Programs;
use orlop_integration::cluster::objects::{STRICT, list, namespace, pod, service};
use orlop_integration::traffic::tally;
use orlop_integration::{Call, Cluster, until};
use serde_json::{Value, json};

const NAMESPACE: &str = "families";
const CLIENT: &str = "families/client";
const PATIENCE: Duration = Duration::from_mins(2);

#[test]
fn services_are_reached_by_either_family() -> Result<()> {
    let cluster = Cluster::start(Programs::prepared()?)?;
    cluster.install_istio_with_dual_stack()?;
    cluster.install_orlop()?;
    cluster.apply(&namespace(NAMESPACE, &json!({"istio.io/dataplane-mode": "orlop"})).to_string())?;
    cluster.apply_in(NAMESPACE, STRICT)?;
    let (web, echo) = (json!({"app": "web"}), json!({"app": "echo"}));
    let objects = [
        pod("client", &json!({"app": "client"}), 1, &["pause"]),
        pod("web-1", &web, 1, &["echo-http", "--name", "web-1", "--port", "8080"]),
        pod("web-2", &web, 2, &["echo-http", "--name", "web-2", "--port", "8080"]),
        pod("echo", &echo, 2, &["echo-tcp", "--name", "echo", "--port", "8080"]),
        of_both_families(service("web", &web), "http"),
        of_both_families(service("echo", &echo), "tcp"),
    ];
    cluster.apply_in(NAMESPACE, &list(&objects))?;
    let ready = ["wait", "--for=condition=Ready", "pod", "--all", "--timeout=180s"];
    cluster.kubectl(&[&["-n", NAMESPACE], &ready[..]].concat())?;

    for ip in addresses(&cluster, "web")? {
        requests_reach_both_servers_by_mutual_tls(&cluster, ip)?;
    }
    for ip in addresses(&cluster, "echo")? {
        let call = Call { body: "ahoy".to_owned(), ..Call::new(SocketAddr::new(ip, 80)) };
        until(&format!("{ip} to echo"), PATIENCE, || {
            let replies = cluster.raw_all(CLIENT, std::slice::from_ref(&call))?;
            ensure!(replies.iter().all(|reply| reply.body.ends_with("ahoy")), "{replies:?}");
            Ok(Some(()))
        })?;
    }
    Ok(())
}

fn requests_reach_both_servers_by_mutual_tls(cluster: &Cluster, ip: IpAddr) -> Result<()> {
    let mut call = Call { times: 20, fresh: true, ..Call::new(SocketAddr::new(ip, 80)) };
    call.headers.insert("host".to_owned(), "web.families.svc.cluster.local".to_owned());
    until(&format!("both servers to answer at {ip}"), PATIENCE, || {
        let replies = cluster.http(CLIENT, &call)?;
        let answers = tally(&replies);
        ensure!(
            answers.keys().map(String::as_str).eq(["web-1", "web-2"]),
            "{answers:?}: {:?}",
            replies.last()
        );
        for reply in &replies {
            ensure!(reply.echo()?.headers.contains_key("x-forwarded-client-cert"), "{reply:?}");
        }
        Ok(Some(()))
    })
}

fn of_both_families(mut service: Value, protocol: &str) -> Value {
    if let Some(spec) = service.get_mut("spec") {
        *spec = json!({
            "ipFamilyPolicy": "RequireDualStack", "selector": spec.get("selector"),
            "ports": [{"name": protocol, "port": 80, "targetPort": 8080}],
        });
    }
    service
}

/// The service's, one of each family.
fn addresses(cluster: &Cluster, service: &str) -> Result<Vec<IpAddr>> {
    let service = cluster.get(&["-n", NAMESPACE, "service", service])?;
    let listed = service.pointer("/spec/clusterIPs").and_then(Value::as_array).context("no addresses")?;
    let addresses: Vec<IpAddr> = listed.iter().filter_map(|one| one.as_str()?.parse().ok()).collect();
    ensure!(addresses.len() == 2 && addresses.iter().any(IpAddr::is_ipv6), "{listed:?}");
    Ok(addresses)
}
