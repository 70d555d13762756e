//! A pod's questions to resolvers: the node answers for the mesh's names, the rest goes to whom the pod asked, and the pod
//! sees no difference.

use std::net::SocketAddr;
use std::time::Duration;

use anyhow::Result;
use orlop_integration::dns::{Answer, FOREIGN, Over, Question};
use orlop_integration::istio::document;
use orlop_integration::{Agent, Bed, Istiod, Pod, Service, fixture, until};
use serde_json::json;

const ALL_WAYS: [Over; 3] = [Over::ConnectedUdp, Over::UnconnectedUdp, Over::Tcp];
const NO_ERROR: &str = "No Error";
const CAPTURE: &str =
    r#"{"proxyMetadata": {"ISTIO_META_DNS_CAPTURE": "true", "ISTIO_META_DNS_AUTO_ALLOCATE": "true"}}"#;

/// A client whose DNS is captured, a resolver, and a service. Fields are dropped in order.
struct Names {
    agent: Agent,
    istiod: Istiod,
    client: Pod,
    web: Pod,
    resolver: Pod,
    bed: Bed,
}

impl Names {
    fn start() -> Result<Self> {
        let bed = Bed::new()?;
        let client = bed.pod("client").annotation("proxy.istio.io/config", CAPTURE).start()?;
        let web = fixture::server(&bed, "v1")?;
        let resolver = bed.plain_pod("resolver")?;
        resolver.serve_dns()?;
        let services = [
            Service::new("web", "10.96.0.20").tcp(9000, 9000).endpoint(&web).yaml(),
            external("api.shop.example", &web),
            external("*.wild.example", &web),
        ];
        let istiod = Istiod::start(&bed, &[("services.yaml", &services.concat())])?;
        let agent = Agent::start(&bed, &istiod, &[&client])?;
        let this = Self { agent, istiod, client, web, resolver, bed };
        until("the node to answer", Duration::from_secs(15), || {
            Ok((this.ask(Over::ConnectedUdp, "web.default.svc.cluster.local")?.code == NO_ERROR)
                .then_some(()))
        })?;
        Ok(this)
    }

    fn resolver(&self) -> SocketAddr {
        self.resolver.at(53)
    }

    fn question(&self, over: Over, name: &str) -> Question {
        Question::new(self.resolver(), over, name)
    }

    fn ask(&self, over: Over, name: &str) -> Result<Answer> {
        self.client.dns(&self.question(over, name))
    }
}

/// A service outside of the mesh's clusters, without an address of its own.
fn external(host: &str, pod: &Pod) -> String {
    document(&json!({
        "apiVersion": "networking.istio.io/v1",
        "kind": "ServiceEntry",
        "metadata": {"name": host.replace(['*', '.'], "x"), "namespace": "default"},
        "spec": {
            "hosts": [host],
            "location": "MESH_EXTERNAL",
            "resolution": if host.starts_with('*') { "NONE" } else { "STATIC" },
            "ports": [{"number": 9000, "name": "tcp", "protocol": "TCP"}],
            "endpoints": if host.starts_with('*') { json!([]) } else { json!([{"address": pod.ip()}]) },
        },
    }))
}

#[test]
fn a_name_of_the_mesh_is_answered_whichever_way_it_is_asked_for() -> Result<()> {
    let names = Names::start()?;
    for over in ALL_WAYS {
        for name in ["web.default.svc.cluster.local", "WEB.Default.svc.cluster.local"] {
            let answer = names.ask(over, name)?;
            assert_eq!(answer.data(), ["10.96.0.20"], "{over:?} {name}: {answer:?}");
            assert_eq!(answer.from, Some(names.resolver()), "{over:?}: as if the resolver had answered");
            assert!(answer.authoritative && !answer.truncated && !answer.edns, "{answer:?}");
        }
    }
    let local = names.ask(Over::ConnectedUdp, "web.default.svc.cluster.local")?.local;
    assert_eq!(local.map(|local| local.ip()), Some(names.client.ip()), "the socket has the pod's address");
    let dns = names.agent.status()?.workload("client")?.dns.unwrap_or_default();
    assert!(dns.answered >= 7 && dns.malformed == 0, "{dns:?}");
    Ok(())
}

#[test]
fn other_names_go_to_whom_the_pod_asked_from_the_pods_own_address() -> Result<()> {
    let names = Names::start()?;
    for over in ALL_WAYS {
        let answer = names.ask(over, "foreign.test")?;
        assert_eq!(answer.data(), [FOREIGN.to_string()], "{over:?}: {answer:?}");
        assert_eq!(answer.from, Some(names.resolver()));
        assert!(!answer.authoritative, "it is the resolver's answer: {answer:?}");
        assert_eq!(names.ask(over, "nowhere.example")?.code, "Non-Existent Domain");
        let seen = names.client.dns(&names.question(over, "web.default.svc.cluster.local").kind("TXT"))?;
        let [record] = seen.records.as_slice() else { panic!("{over:?}: {seen:?}") };
        assert!(record.contains(&names.client.ip().to_string()), "{over:?}: asked from {record}");
    }
    Ok(())
}

#[test]
fn a_name_without_an_address_of_the_family_exists_all_the_same() -> Result<()> {
    let names = Names::start()?;
    for over in ALL_WAYS {
        let question = names.question(over, "web.default.svc.cluster.local").kind("AAAA");
        let answer = names.client.dns(&question)?;
        assert_eq!((answer.code.as_str(), answer.records.len()), (NO_ERROR, 0), "{answer:?}");
    }
    Ok(())
}

#[test]
fn a_service_without_an_address_gets_one_and_connections_to_it_reach_its_endpoint() -> Result<()> {
    let names = Names::start()?;
    let answer = names.ask(Over::UnconnectedUdp, "api.shop.example")?;
    let [address] = answer.data()[..] else { panic!("{answer:?}") };
    assert!(address.starts_with("240.240."), "an allocated address: {answer:?}");
    let vip = SocketAddr::new(address.parse()?, 9000);
    assert_eq!(names.client.tcp(vip).connect()?.greeting()?.server, "v1");
    Ok(())
}

#[test]
fn the_systems_own_resolver_library_finds_names_by_its_search_domains() -> Result<()> {
    let names = Names::start()?;
    let config = names.bed.dir().join("resolv.conf");
    std::fs::write(
        &config,
        format!("nameserver {}\nsearch default.svc.cluster.local\noptions ndots:5\n", names.resolver().ip()),
    )?;
    for (name, address) in
        [("web", "10.96.0.20"), ("foreign.test", "192.0.2.53"), ("api.shop.example", "240.240.")]
    {
        let script = format!("mount --bind {} /etc/resolv.conf && getent ahostsv4 {name}", config.display());
        let output = names.client.command("unshare")?.args(["-m", "sh", "-c", &script]).output()?;
        let printed = String::from_utf8_lossy(&output.stdout);
        assert!(printed.starts_with(address), "{name}: {printed}{}", String::from_utf8_lossy(&output.stderr));
    }
    Ok(())
}

#[test]
fn an_answer_that_is_too_long_is_truncated_and_whole_over_tcp_or_with_room() -> Result<()> {
    let names = Names::start()?;
    let plain = names.ask(Over::ConnectedUdp, "many.test")?;
    assert!(plain.truncated, "{plain:?}");
    let roomy = names.client.dns(&names.question(Over::UnconnectedUdp, "many.test").payload(4096))?;
    assert_eq!((roomy.truncated, roomy.records.len()), (false, 40));
    assert_eq!(names.ask(Over::Tcp, "many.test")?.records.len(), 40);
    Ok(())
}

#[test]
fn what_is_no_query_is_dropped_and_counted() -> Result<()> {
    let names = Names::start()?;
    let looping = [&[0, 1, 1, 0, 0, 1, 0, 0, 0, 0, 0, 0][..], &[0xc0, 12, 0, 1, 0, 1]].concat();
    let huge = vec![0; 8000];
    for bytes in [&b"x"[..], &looping, &huge] {
        let question = names.question(Over::ConnectedUdp, "web").bytes(bytes);
        assert_eq!(
            names.client.dns(&question)?.error.as_deref(),
            Some("timed out"),
            "{} octets",
            bytes.len()
        );
    }
    let dns = names.agent.status()?.workload("client")?.dns.unwrap_or_default();
    assert_eq!(dns.malformed, 3, "{dns:?}");
    assert_eq!(names.ask(Over::ConnectedUdp, "foreign.test")?.code, NO_ERROR, "and the next one is answered");
    Ok(())
}

#[test]
fn a_resolver_that_says_nothing_fails_the_question_in_the_end() -> Result<()> {
    let names = Names::start()?;
    let answer = names.ask(Over::ConnectedUdp, "silent.test")?;
    assert_eq!(answer.code, "Server Failure", "{answer:?}");
    let dns = names.agent.status()?.workload("client")?.dns.unwrap_or_default();
    assert_eq!(dns.failed, 1, "{dns:?}");
    Ok(())
}

#[test]
fn without_the_agent_questions_go_directly_and_with_it_again_they_are_answered() -> Result<()> {
    let mut names = Names::start()?;
    names.agent.kill();
    for over in ALL_WAYS {
        assert_eq!(names.ask(over, "foreign.test")?.data(), [FOREIGN.to_string()], "{over:?}");
        let answer = names.ask(over, "web.default.svc.cluster.local")?;
        assert_eq!(answer.code, "Non-Existent Domain", "{over:?}: the resolver does not know it: {answer:?}");
    }
    names.agent.restart()?;
    until("the node to answer again", Duration::from_secs(15), || {
        let answer = names.ask(Over::ConnectedUdp, "web.default.svc.cluster.local")?;
        Ok((answer.data() == ["10.96.0.20"]).then_some(()))
    })
}

#[test]
fn a_new_service_has_its_name_and_a_deleted_one_has_none() -> Result<()> {
    let names = Names::start()?;
    names.istiod.apply("late.yaml", &external("late.shop.example", &names.web))?;
    until("the new name", Duration::from_secs(15), || {
        Ok((names.ask(Over::ConnectedUdp, "late.shop.example")?.records.len() == 1).then_some(()))
    })?;
    names.istiod.delete("late.yaml")?;
    until("the name to be gone", Duration::from_secs(15), || {
        let answer = names.ask(Over::ConnectedUdp, "late.shop.example")?;
        Ok((answer.code == "Non-Existent Domain").then_some(()))
    })
}

#[test]
fn a_pod_that_does_not_ask_for_it_has_its_questions_left_alone() -> Result<()> {
    let names = Names::start()?;
    let plain = names.bed.plain_pod("plain")?;
    names.agent.set_workloads(&[&names.client, &plain])?;
    names.agent.wait_for_status("the pod", |status| Ok(status.ready && status.workloads.len() == 2))?;
    for over in ALL_WAYS {
        let question = names.question(over, "web.default.svc.cluster.local");
        assert_eq!(plain.dns(&question)?.code, "Non-Existent Domain", "{over:?}");
    }
    let status = names.agent.status()?;
    assert_eq!(status.workload("plain")?.dns, None);
    assert_eq!(status.workload("plain")?.kernel.unwrap_or_default().dns_captured, 0);
    Ok(())
}
