//! Traffic that a pod's annotations keep from being taken goes on as if there were no mesh, in both directions; all other
//! traffic of the pod is carried.

use anyhow::Result;
use orlop_integration::istio::document;
use orlop_integration::{Agent, Bed, Istiod, Mesh, Pod, fixture};
use serde_json::json;

/// A client with one annotation, two servers of one service of which the first has one as well, and what is asked of
/// arriving requests: a header more. Fields are dropped in order.
struct Excluding {
    agent: Agent,
    _istiod: Istiod,
    client: Pod,
    v1: Pod,
    v2: Pod,
    _bed: Bed,
}

impl Excluding {
    fn start(client: (&str, &str), server: (&str, &str)) -> Result<Self> {
        let bed = Bed::new()?;
        let client = bed.pod("client").annotation(&named(client.0), client.1).start()?;
        let v1 = bed.pod("v1").label("app", "web").annotation(&named(server.0), server.1).start()?;
        v1.serve_http(8080)?;
        v1.serve_tcp(9000)?;
        let v2 = fixture::server(&bed, "v2")?;
        let web = Mesh::describe_web().endpoint(&v1).endpoint(&v2).yaml();
        let istiod = Istiod::start(&bed, &[("services.yaml", &(web + &header_on_arrival()))])?;
        let agent = Agent::start(&bed, &istiod, &[&client, &v1, &v2])?;
        Ok(Self { agent, _istiod: istiod, client, v1, v2, _bed: bed })
    }

    /// A connection from the client to a server's own address is taken, or it is not.
    fn assert_server_is_excluded(&self, annotation: &str) -> Result<()> {
        let before = self.agent.counters(&self.client)?.0;
        assert_eq!(self.client.tcp(self.v2.at(9000)).connect()?.greeting()?.server, "v2");
        let after = self.agent.counters(&self.client)?.0;
        assert_eq!(after.excluded, before.excluded + 1, "{after:?}");
        let explanation = self.agent.explain(&self.client, &self.v2.at(9000).to_string())?;
        assert_eq!(explanation.path, "passthrough");
        assert_eq!(explanation.reason, format!("excluded by annotation {}", named(annotation)));
        Ok(())
    }

    fn assert_service_is_taken(&self) -> Result<()> {
        let before = self.agent.counters(&self.client)?.0;
        self.client.http(Mesh::WEB).fresh_connections().send()?.echo()?;
        let after = self.agent.counters(&self.client)?.0;
        let taken =
            |counters: orlop_integration::agent::KernelCounters| counters.kernel_balanced + counters.proxied;
        assert_eq!((taken(after), after.excluded), (taken(before) + 1, before.excluded), "{after:?}");
        let explanation = self.agent.explain(&self.client, &Mesh::WEB.to_string())?;
        assert!(!explanation.reason.contains("annotation"), "{explanation:?}");
        Ok(())
    }

    fn header_at(&self, server: &Pod) -> Result<bool> {
        let reply = self.v2_or_client(server).http(server.at(8080)).fresh_connections().send()?;
        Ok(reply.echo()?.headers.contains_key("x-arrived"))
    }

    /// Whoever is not the server itself.
    fn v2_or_client(&self, server: &Pod) -> &Pod {
        if server.name() == self.v2.name() { &self.client } else { &self.v2 }
    }
}

fn named(annotation: &str) -> String {
    format!("traffic.sidecar.istio.io/{annotation}")
}

fn header_on_arrival() -> String {
    document(&json!({
        "apiVersion": "networking.istio.io/v1alpha3",
        "kind": "EnvoyFilter",
        "metadata": {"name": "arrival", "namespace": "default"},
        "spec": {"configPatches": [{
            "applyTo": "VIRTUAL_HOST",
            "match": {"context": "SIDECAR_INBOUND"},
            "patch": {"operation": "MERGE", "value": {
                "request_headers_to_add": [{"header": {"key": "x-arrived", "value": "1"}}],
            }},
        }]},
    }))
}

#[test]
fn an_excluded_port_is_not_taken_either_way() -> Result<()> {
    let node = Excluding::start(("excludeOutboundPorts", "9000"), ("excludeInboundPorts", "8080"))?;
    node.assert_server_is_excluded("excludeOutboundPorts")?;
    node.assert_service_is_taken()?;
    assert!(!node.header_at(&node.v1)?, "nothing is done for the excluded port");
    assert!(node.agent.counters(&node.v1)?.0.inbound_excluded > 0);
    assert!(node.header_at(&node.v2)?, "but for another pod's");
    assert_eq!(node.agent.counters(&node.v2)?.0.inbound_excluded, 0);
    Ok(())
}

#[test]
fn an_excluded_range_is_not_taken() -> Result<()> {
    let node =
        Excluding::start(("excludeOutboundIPRanges", "10.77.0.0/16"), ("includeInboundPorts", "9000"))?;
    node.assert_server_is_excluded("excludeOutboundIPRanges")?;
    node.assert_service_is_taken()?;
    assert!(!node.header_at(&node.v1)?, "only another port is included");
    Ok(())
}

#[test]
fn where_ranges_are_included_nothing_else_is_taken() -> Result<()> {
    let node =
        Excluding::start(("includeOutboundIPRanges", "10.96.0.0/16"), ("includeInboundPorts", "8080"))?;
    node.assert_server_is_excluded("includeOutboundIPRanges")?;
    node.assert_service_is_taken()?;
    assert!(node.header_at(&node.v1)?, "the port is included");
    Ok(())
}

#[test]
fn an_annotation_that_cannot_be_read_is_refused_by_name_and_the_pod_stays_as_it_is() -> Result<()> {
    let mesh = Mesh::plain()?;
    let wrong = mesh.bed.pod("wrong").annotation(&named("excludeOutboundPorts"), "mysql").start()?;
    mesh.agent.set_workloads(&[&mesh.client, &wrong])?;
    let status = mesh
        .agent
        .wait_for_status("the mistake to be reported", |status| Ok(status.config_error.is_some()))?;
    let error = status.config_error.clone().unwrap_or_default();
    for part in ["workloads[1]", &named("excludeOutboundPorts"), "\"mysql\" is not a port"] {
        assert!(error.contains(part), "{part} is not in {error}");
    }
    assert!(status.workload("client")?.ready);
    Ok(())
}
