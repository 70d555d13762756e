//! Every kind of service that Kubernetes knows, from pods that Orlop carries.
//!
//! `sessionAffinity` is not among them: istiod tells no proxy of it, and a sidecar has none either; Istio's way to ask for it is a
//! `DestinationRule`, of which `istio.rs` shows the effect. Nor is `trafficDistribution: PreferSameNode`: this istiod keeps one
//! answer for the proxies of all nodes, whoever asked first.

use std::net::SocketAddr;

use anyhow::{Context, Result, ensure};
use orlop_integration::traffic::tally;
use orlop_integration::{Call, Cluster, until};
use serde_json::{Value, json};

use crate::scene::{PATIENCE, Scene, client, container, is_from, pod, server, service};

pub(crate) fn every_kind_of_service_is_reached(cluster: &Cluster) -> Result<()> {
    let scene = Scene::enrolled(cluster, "services")?;
    let web = json!({"app": "web"});
    scene.add(&[
        client("client-1", 1),
        client("client-2", 2),
        server_with_named_ports("web-1", 1),
        server_with_named_ports("web-2", 2),
        in_the_nodes_network("host", 2, "18080"),
        spec(
            service("web", &web),
            &json!({"ports": [
                {"name": "http", "port": 80, "targetPort": "web"},
                {"name": "tcp", "port": 90, "targetPort": "echo"},
            ]}),
        ),
        headless("headless", &web),
        headless("set", &json!({"app": "set"})),
        spec(service("local", &web), &json!({"internalTrafficPolicy": "Local"})),
        spec(service("outside", &web), &json!({"type": "NodePort"})),
        spec(
            service("host", &json!({"app": "host"})),
            &json!({"ports": [
                {"name": "http", "port": 80, "targetPort": 18080},
            ]}),
        ),
        external("alias", "web.services.svc.cluster.local"),
        stateful_set(),
    ])?;
    scene.kubectl(&["rollout", "status", "statefulset/set", "--timeout=120s"])?;
    scene.ready()?;

    cluster_addresses_balance_named_ports(&scene)?;
    headless_names_are_the_pods(&scene)?;
    members_of_a_stateful_set_are_reached_by_name(&scene)?;
    node_ports_are_reached_from_inside_and_outside(&scene)?;
    an_external_name_is_the_service_that_it_names(&scene)?;
    traffic_that_is_to_stay_on_the_node_does(&scene)?;
    pods_in_the_nodes_own_network_are_peers(&scene)
}

fn cluster_addresses_balance_named_ports(scene: &Scene<'_>) -> Result<()> {
    let call = Call { times: 20, fresh: true, ..scene.to("web")? };
    scene.eventually_all("both pods to answer for the service", "client-1", &[call], |replies| {
        let answers = tally(replies);
        ensure!(answers.keys().map(String::as_str).eq(["web-1", "web-2"]), "{answers:?}");
        Ok(())
    })?;
    let tcp = Call { body: "ahoy".to_owned(), ..Call::new(scene.service("web", 90)?) };
    until("the TCP port to answer", PATIENCE, || {
        let replies = scene.cluster.raw_all("services/client-1", std::slice::from_ref(&tcp))?;
        ensure!(replies.iter().all(|reply| reply.body.ends_with("ahoy")), "{replies:?}");
        Ok(Some(()))
    })
}

fn headless_names_are_the_pods(scene: &Scene<'_>) -> Result<()> {
    let answer = until("the names of the pods", PATIENCE, || {
        let answer = scene.resolve("client-1", "headless")?;
        Ok((answer.records.len() == 2).then_some(answer))
    })?;
    for address in answer.data() {
        let to = SocketAddr::new(address.parse()?, 8080);
        let call = scene.host("headless", Call::new(to));
        scene.eventually(
            "the pod at the address to answer, and to know who asks",
            "client-1",
            &call,
            |reply| {
                reply.echo().is_ok_and(|echo| {
                    echo.local.ip() == to.ip() && echo.headers.contains_key("x-forwarded-client-cert")
                })
            },
        )?;
    }
    Ok(())
}

fn members_of_a_stateful_set_are_reached_by_name(scene: &Scene<'_>) -> Result<()> {
    for member in ["set-0", "set-1"] {
        let name = format!("{member}.set");
        let answer = until(&format!("the address of {name}"), PATIENCE, || {
            let answer = scene.resolve("client-1", &name)?;
            Ok((answer.records.len() == 1).then_some(answer))
        })?;
        let address = answer.data().first().context("one record")?.parse()?;
        let call = scene.host(&name, Call::new(SocketAddr::new(address, 8080)));
        scene.eventually("the member that was asked to answer", "client-1", &call, |reply| {
            is_from(reply, member)
        })?;
    }
    Ok(())
}

fn node_ports_are_reached_from_inside_and_outside(scene: &Scene<'_>) -> Result<()> {
    let outside = scene.cluster.get(&["-n", scene.namespace, "service", "outside"])?;
    let port = outside.pointer("/spec/ports/0/nodePort").and_then(Value::as_u64).context("no port")?;
    for node in ["10.99.0.2", "10.99.0.3"] {
        let to = format!("{node}:{port}");
        scene.eventually(
            "the node's port to lead to a pod",
            "client-1",
            &Call::new(to.parse()?),
            |reply| reply.status == 200,
        )?;
        let mut outside = scene.cluster.node_command(1)?;
        let output = outside.args(["curl", "-sS", "-m", "5", "-w", " %{http_code}", &to]).output()?;
        ensure!(output.stdout.ends_with(b" 200"), "{to} from the node: {output:?}");
    }
    Ok(())
}

fn an_external_name_is_the_service_that_it_names(scene: &Scene<'_>) -> Result<()> {
    let answer = scene.resolve("client-1", "alias")?;
    let web = scene.service("web", 80)?;
    ensure!(answer.data().contains(&web.ip().to_string().as_str()), "{answer:?}");
    let call = Call { times: 10, fresh: true, ..scene.host("alias", Call::new(web)) };
    scene.eventually("the pods of the service to answer", "client-1", &call, |reply| reply.status == 200)
}

fn traffic_that_is_to_stay_on_the_node_does(scene: &Scene<'_>) -> Result<()> {
    for (client, server) in [("client-1", "web-1"), ("client-2", "web-2")] {
        let call = Call { times: 20, fresh: true, ..scene.to("local")? };
        let what = format!("{server} alone to answer {client}");
        scene.eventually(&what, client, &call, |reply| is_from(reply, server))?;
    }
    Ok(())
}

fn pods_in_the_nodes_own_network_are_peers(scene: &Scene<'_>) -> Result<()> {
    let call = scene.to("host")?;
    scene.eventually("the pod in the node's network to answer", "client-1", &call, |reply| {
        is_from(reply, "host")
    })?;
    let call = scene.to("web")?;
    scene.eventually("it to be answered", "host", &call, |reply| reply.status == 200)
}

/// One that serves HTTP at the port `web`, and TCP at the port `echo`.
fn server_with_named_ports(name: &str, node: u8) -> Value {
    let mut pod = server(name, "web", "v1", node);
    let mut http = container("app", &["echo-http", "--name", name, "--port", "8080"]);
    http["ports"] = json!([{"name": "web", "containerPort": 8080}]);
    let mut tcp = container("tcp", &["echo-tcp", "--name", name, "--port", "9090"]);
    tcp["ports"] = json!([{"name": "echo", "containerPort": 9090}]);
    pod["spec"]["containers"] = json!([http, tcp]);
    pod
}

/// One in the network of the node itself.
fn in_the_nodes_network(name: &str, node: u8, port: &str) -> Value {
    let mut pod = pod(name, &json!({"app": name}), node, &["echo-http", "--name", name, "--port", port]);
    pod["spec"]["hostNetwork"] = json!(true);
    pod
}

fn stateful_set() -> Value {
    let mut member = container("app", &["echo-http", "--name", "$(POD)", "--port", "8080"]);
    member["env"] = json!([{"name": "POD", "valueFrom": {"fieldRef": {"fieldPath": "metadata.name"}}}]);
    json!({
        "apiVersion": "apps/v1", "kind": "StatefulSet", "metadata": {"name": "set"},
        "spec": {
            "serviceName": "set", "replicas": 2, "podManagementPolicy": "Parallel", "selector": {"matchLabels": {"app": "set"}},
            "template": {
                "metadata": {"labels": {"app": "set"}},
                "spec": {"terminationGracePeriodSeconds": 1, "containers": [member]},
            },
        },
    })
}

/// A service without an address of its own.
fn headless(name: &str, selector: &Value) -> Value {
    let ports = json!([{"name": "http", "port": 8080}]);
    spec(service(name, selector), &json!({"clusterIP": "None", "ports": ports}))
}

/// Another name for a name.
fn external(name: &str, to: &str) -> Value {
    let ports = json!([{"name": "http", "port": 80}]);
    json!({
        "apiVersion": "v1", "kind": "Service", "metadata": {"name": name},
        "spec": {"type": "ExternalName", "externalName": to, "ports": ports},
    })
}

/// The service with more in its specification, or other things.
fn spec(mut service: Value, more: &Value) -> Value {
    for (field, value) in more.as_object().into_iter().flatten() {
        service["spec"][field] = value.clone();
    }
    service
}
