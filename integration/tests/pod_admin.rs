//! The admin interface inside each pod.

use std::fs;
use std::net::{Ipv4Addr, SocketAddr};
use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use orlop_integration::process::Process;
use orlop_integration::{Agent, Bed, ControlPlane, Mesh, Pod, Reply, until};
use orlop_proto::Descriptors;
use serde_json::{Value, json};

const ADMIN: SocketAddr = SocketAddr::new(std::net::IpAddr::V4(Ipv4Addr::LOCALHOST), 15000);

fn get(pod: &Pod, path: &str) -> Result<Reply> {
    pod.http(ADMIN).path(path).send()
}

fn get_json(pod: &Pod, path: &str) -> Result<Value> {
    let reply = get(pod, path)?;
    ensure!(reply.header("content-type") == Some("application/json"), "{path}: {reply:?}");
    serde_json::from_str(&reply.body).with_context(|| reply.body)
}

/// The pod that answers, by its node id.
fn who_answers(pod: &Pod) -> Result<String> {
    let info = get_json(pod, "/server_info")?;
    Ok(info.pointer("/node/id").and_then(Value::as_str).context("no node id")?.to_owned())
}

#[test]
fn every_page_of_a_sidecar_that_tools_ask_for_is_there() -> Result<()> {
    let mesh = Mesh::plain()?;
    let pod = &mesh.client;
    for (path, starts_with) in [
        ("/", "admin commands are:\n  /: "),
        ("/help", "admin commands are:\n  /: "),
        ("/ready", "LIVE\n"),
        ("/server_info", "{\n \"version\": \"orlop/"),
        ("/certs", "{\n \"certificates\": []"),
        ("/clusters", "BlackHoleCluster::observability_name::"),
        ("/clusters?format=json", "{\n \"cluster_statuses\": ["),
        ("/clusters?filter=^outbound.*web", "outbound|8080||web.default.svc.cluster.local::"),
        ("/listeners", "0.0.0.0_8080::0.0.0.0:8080\n"),
        ("/listeners?format=json", "{\n \"listener_statuses\": ["),
        ("/stats", "cluster_manager.active_clusters: "),
        ("/stats?format=json", "{\"stats\":["),
        ("/stats/prometheus", "# TYPE envoy_cluster_manager_active_clusters gauge\n"),
        ("/stats?format=prometheus&type=Gauges&filter=server.live", "# TYPE envoy_server_live gauge\n"),
        (
            "/config_dump",
            "{\n \"configs\": [\n  {\n   \"@type\": \"type.googleapis.com/envoy.admin.v3.BootstrapConfigDump\"",
        ),
    ] {
        let reply = get(pod, path)?;
        assert_eq!(reply.status, 200, "{path}: {reply:?}");
        assert!(reply.body.starts_with(starts_with), "{path}: {reply:?}");
        assert_eq!(reply.header("x-content-type-options"), Some("nosniff"), "{path}");
    }
    let logging = pod.http(ADMIN).method("POST").path("/logging").send()?;
    assert_eq!(
        (logging.status, logging.body.starts_with("active loggers:\n  orlop_agent: info\n")),
        (200, true)
    );
    Ok(())
}

#[test]
fn every_answer_in_json_is_a_message_of_envoys_api() -> Result<()> {
    let mesh = Mesh::plain()?;
    let descriptors = Descriptors::load()?;
    for (path, message) in [
        ("/certs", "Certificates"),
        ("/clusters?format=json", "Clusters"),
        ("/config_dump?include_eds", "ConfigDump"),
        ("/config_dump?resource=dynamic_listeners", "ConfigDump"),
        ("/config_dump?resource=dynamic_endpoint_configs&include_eds", "ConfigDump"),
        ("/listeners?format=json", "Listeners"),
        ("/server_info", "ServerInfo"),
    ] {
        let json = get_json(&mesh.client, path)?;
        // Strict: a field that the message lacks is an error.
        descriptors
            .from_json(&format!("type.googleapis.com/envoy.admin.v3.{message}"), &json)
            .with_context(|| format!("{path}: {json:#}"))?;
    }
    Ok(())
}

#[test]
fn what_is_not_understood_is_refused_as_envoy_does_it_or_with_what_to_do() -> Result<()> {
    let mesh = Mesh::plain()?;
    for (path, status, says) in [
        ("/nothing", 404, "invalid path. admin commands are:\n"),
        ("/logging", 405, "Method GET not allowed, POST required."),
        ("/stats?format=xml", 400, "usage: /stats?format="),
        ("/stats?filter=(", 400, "Invalid regex: "),
        ("/config_dump?mask=configs", 400, "mask is not supported"),
        ("/config_dump?resource=nothing", 404, "nothing not found in config dump"),
        ("/config_dump?name_regex=(", 400, "Error while parsing name_regex"),
    ] {
        let reply = get(&mesh.client, path)?;
        assert_eq!(reply.status, status, "{path}: {reply:?}");
        assert!(reply.body.starts_with(says), "{path}: {reply:?}");
    }
    // The log is the whole node's.
    let logging = mesh.client.http(ADMIN).method("POST").path("/logging?level=debug").send()?;
    assert_eq!(logging.status, 403, "{logging:?}");
    assert!(logging.body.contains("ORLOP_LOG"), "{logging:?}");
    Ok(())
}

#[test]
fn a_dump_can_be_limited_to_a_kind_and_to_names() -> Result<()> {
    let mesh = Mesh::plain()?;
    let names = |path: &str, name: &str| -> Result<Vec<String>> {
        let dump = get_json(&mesh.client, path)?;
        let configs = dump["configs"].as_array().context("no configs")?;
        Ok(configs.iter().filter_map(|config| Some(config.pointer(name)?.as_str()?.to_owned())).collect())
    };
    assert_eq!(
        names("/config_dump?resource=dynamic_listeners&name_regex=virtual.*", "/name")?,
        ["virtualInbound", "virtualOutbound"]
    );
    let clusters = "/config_dump?resource=dynamic_active_clusters&name_regex=outbound.*8080.*";
    assert_eq!(names(clusters, "/cluster/name")?, ["outbound|8080||web.default.svc.cluster.local"]);
    // Endpoints are there where they are asked for.
    let kinds = |path| names(path, "/@type");
    let endpoints = "type.googleapis.com/envoy.admin.v3.EndpointsConfigDump".to_owned();
    assert!(!kinds("/config_dump")?.contains(&endpoints));
    assert!(kinds("/config_dump?include_eds")?.contains(&endpoints));
    Ok(())
}

#[test]
fn a_pod_sees_itself_alone_and_nobody_sees_it_from_outside() -> Result<()> {
    let mesh = Mesh::plain()?;
    mesh.agent.set_workloads(&[&mesh.client, &mesh.v1])?;
    mesh.agent
        .wait_for_status("both to be ready", |status| Ok(status.ready && status.workloads.len() == 2))?;

    assert!(who_answers(&mesh.client)?.contains("~client.default~"));
    assert!(who_answers(&mesh.v1)?.contains("~v1.default~"));
    for (from, to) in [(&mesh.v1, &mesh.client), (&mesh.v2, &mesh.client), (&mesh.client, &mesh.client)] {
        let reply = from.http(to.at(ADMIN.port())).path("/ready").send()?;
        assert_ne!(reply.status, 200, "{} of {}: {reply:?}", from.name(), to.name());
    }
    Ok(())
}

#[test]
fn it_says_how_far_the_pod_is_and_what_waits_for_what_is_missing() -> Result<()> {
    let bed = Bed::new()?;
    let client = bed.plain_pod("client")?;
    let given = bed.dir().join("xds");
    fs::create_dir_all(&given)?;
    let give = |pick: fn(&str) -> bool| -> Result<()> {
        for file in fs::read_dir(Path::new(env!("CARGO_MANIFEST_DIR")).join("demo/xds"))? {
            let (name, path) = file.map(|file| (file.file_name(), file.path()))?;
            if name.to_str().is_some_and(pick) {
                fs::copy(path, given.join(name))?;
            }
        }
        Ok(())
    };
    let agent = Agent::described(&bed, ControlPlane::Directory(given.clone()), &[&client])?;
    let _process = Process::spawn("agent", &bed.dir(), &mut agent.command()?)?
        .ready_when(|_| Ok(agent.status()?.workloads.len() == 1))?;
    let says = |status: u16, body: &str| {
        until(&format!("/ready to say {body}"), Duration::from_secs(10), || {
            let reply = get(&client, "/ready")?;
            Ok(((reply.status, reply.body.trim()) == (status, body)).then_some(()))
        })
    };
    says(503, "PRE_INITIALIZING")?;
    give(|name| name.starts_with("cds") || name.starts_with("eds"))?;
    says(503, "INITIALIZING")?;
    give(|name| name == "lds.yaml")?;
    let listener = "/config_dump?resource=dynamic_listeners&name_regex=0.0.0.0_8080";
    until("the listener to wait for its routes", Duration::from_secs(10), || {
        let dump = get_json(&client, listener)?;
        Ok(dump.pointer("/configs/0/warming_state/listener").is_some().then_some(()))
    })?;
    give(|name| name == "rds.yaml")?;
    says(200, "LIVE")?;
    let dump = get_json(&client, listener)?;
    assert!(dump.pointer("/configs/0/active_state/listener").is_some(), "{dump}");
    Ok(())
}

#[test]
fn asking_it_is_no_traffic_of_the_mesh() -> Result<()> {
    let mesh = Mesh::plain()?;
    let (before, proxied_before) = mesh.agent.counters(&mesh.client)?;
    for _ in 0..3 {
        assert_eq!(get(&mesh.client, "/ready")?.status, 200);
    }
    let (after, proxied_after) = mesh.agent.counters(&mesh.client)?;
    assert_eq!((after.kernel_balanced, after.proxied), (before.kernel_balanced, before.proxied));
    assert_eq!(proxied_after.accepted_outbound, proxied_before.accepted_outbound);
    Ok(())
}

#[test]
fn the_port_is_the_pods_again_when_it_is_released() -> Result<()> {
    let mesh = Mesh::plain()?;
    assert_eq!(get(&mesh.client, "/ready")?.status, 200);
    mesh.agent.set_workloads(&[])?;
    mesh.agent.wait_for_status("the pod to be released", |status| Ok(status.workloads.is_empty()))?;

    mesh.client.serve_http(ADMIN.port())?;
    assert_eq!(get(&mesh.client, "/ready")?.server.as_deref(), Some("client"));
    Ok(())
}

#[test]
fn a_port_that_is_taken_is_reported_and_the_pod_is_carried() -> Result<()> {
    let mesh = Mesh::plain()?;
    mesh.agent.set_workloads(&[])?;
    mesh.agent.wait_for_status("the pod to be released", |status| Ok(status.workloads.is_empty()))?;
    mesh.client.serve_http(ADMIN.port())?;
    mesh.agent.set_workloads(&[&mesh.client])?;

    let problem =
        |agent: &Agent| Ok::<_, anyhow::Error>(agent.status()?.workload("client")?.admin_problem.clone());
    mesh.agent
        .wait_for_status("the pod to be ready", |status| Ok(status.ready && !status.workloads.is_empty()))?;
    let says = problem(&mesh.agent)?.context("nothing is reported")?;
    assert!(says.contains("127.0.0.1:15000") && says.contains("taken"), "{says}");
    assert_eq!(mesh.client.http(Mesh::WEB).send()?.status, 200);

    mesh.client.stop_serving(ADMIN.port());
    until("the port to be opened after all", Duration::from_secs(10), || {
        Ok(problem(&mesh.agent)?.is_none().then_some(()))
    })?;
    assert!(who_answers(&mesh.client)?.contains("~client.default~"));
    Ok(())
}

#[test]
fn a_pod_that_holds_its_connections_open_harms_no_other_and_itself_not_for_long() -> Result<()> {
    let mut mesh = Mesh::plain()?;
    mesh.agent.set_workloads(&[&mesh.client, &mesh.v1])?;
    mesh.agent
        .wait_for_status("both to be ready", |status| Ok(status.ready && status.workloads.len() == 2))?;
    // Twelve that say nothing, and twelve that ask for everything and read nothing.
    let idle = "for fd in $(seq 10 21); do eval \"exec $fd<>/dev/tcp/127.0.0.1/15000\"; done";
    let greedy = "for fd in $(seq 30 41); do eval \"exec $fd<>/dev/tcp/127.0.0.1/15000\"; \
                  eval \"printf 'GET /config_dump HTTP/1.1\\r\\nhost: a\\r\\n\\r\\n' >&$fd\"; done";
    let mut command = mesh.client.command("bash")?;
    command.args(["-c", &format!("{idle}; {greedy}; echo open >&2; sleep 60")]);
    let _holder = Process::spawn("holder", &mesh.bed.dir(), &mut command)?
        .ready_when(|holder| Ok(holder.log().contains("open")))?;

    let started = Instant::now();
    assert_eq!(get_json(&mesh.v1, "/config_dump")?["configs"].as_array().map(Vec::is_empty), Some(false));
    assert!(started.elapsed() < Duration::from_secs(5), "the other pod waited {:?}", started.elapsed());
    until("the pod's own tools to be answered", Duration::from_secs(30), || {
        Ok((get(&mesh.client, "/ready")?.status == 200).then_some(()))
    })?;
    mesh.agent.stop()
}

#[test]
fn traffic_is_counted_under_envoys_names() -> Result<()> {
    let mesh = Mesh::start(|web| {
        // A timeout is for the proxy.
        web.http_routes(&json!([{"timeout": "2s", "route": [{"destination": {"host": web.host()}}]}]))
    })?;
    for reply in mesh.client.http(Mesh::WEB).host(&mesh.web.host()).times(3)? {
        assert_eq!(reply.status, 200, "{reply:?}");
    }
    let stats = get(&mesh.client, "/stats?usedonly")?.body;
    let value = |name: &str| stats.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(": "));
    let cluster = "cluster.outbound|8080||web.default.svc.cluster.local;.upstream_rq_total";
    assert_eq!(value(cluster), Some("3"), "{stats}");
    assert_eq!(value("http.outbound_0.0.0.0_8080;.downstream_rq_total"), Some("3"), "{stats}");
    assert_eq!(value("http.outbound_0.0.0.0_8080;.downstream_rq_2xx"), Some("3"), "{stats}");
    assert_eq!(value("control_plane.connected_state"), Some("1"), "{stats}");
    assert_eq!(value("server.live"), Some("1"), "{stats}");
    assert!(value("cluster_manager.cds.update_success").is_some_and(|count| count != "0"), "{stats}");
    assert_eq!(value("cluster_manager.cds.update_rejected"), None, "{stats}");

    let metrics = get(&mesh.client, "/stats/prometheus")?.body;
    let sample = r#"envoy_cluster_upstream_rq_total{envoy_cluster_name="outbound|8080||web.default.svc.cluster.local"} 3"#;
    assert!(metrics.lines().any(|line| line == sample), "{metrics}");
    assert_is_prometheus_text(&metrics);
    Ok(())
}

/// The text format: one `TYPE` for each metric, then all its samples; names, labels and values well-formed; none twice.
fn assert_is_prometheus_text(metrics: &str) {
    let is_name = |name: &str| {
        !name.is_empty() && name.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_' || b == b':')
    };
    let (mut metric, mut is_histogram) = ("", false);
    let (mut types, mut samples) = (std::collections::BTreeSet::new(), std::collections::BTreeSet::new());
    for line in metrics.lines() {
        if let Some(declared) = line.strip_prefix("# TYPE ") {
            let (name, kind) = declared.split_once(' ').unwrap_or_default();
            assert!(is_name(name) && ["counter", "gauge", "histogram"].contains(&kind), "{line}");
            assert!(types.insert(name), "a second time: {line}");
            (metric, is_histogram) = (name, kind == "histogram");
            continue;
        }
        let (series, value) = line.rsplit_once(' ').unwrap_or_default();
        let (name, labels) = series.split_once('{').unwrap_or_default();
        let part = name.strip_prefix(metric);
        let parts: &[_] = if is_histogram { &["_bucket", "_sum", "_count"] } else { &[""] };
        assert!(part.is_some_and(|part| parts.contains(&part)), "{line}");
        assert!(value.parse::<f64>().is_ok(), "{line}");
        assert!(samples.insert(series), "a second time: {line}");
        let labels = labels.strip_suffix('}').unwrap_or("{");
        for label in labels.split("\",").filter(|label| !label.is_empty()) {
            let (name, value) = label.split_once("=\"").unwrap_or_default();
            assert!(is_name(name) && !value.trim_end_matches('"').contains('"'), "{line}");
        }
    }
    assert!(!types.is_empty());
}
