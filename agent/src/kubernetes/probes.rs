//! Where the kubelet probes a pod, as its specification says.
//!
//! Those that a sidecar's injector leads past the sidecar: the probes of its containers, and what is asked over HTTP when a
//! container has started or is to stop (`pkg/kube/inject/app_probe.go` in Istio).

use std::collections::BTreeSet;

use k8s_openapi::api::core::v1::{Container, LifecycleHandler, Pod, Probe};
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;

/// The ports of the pod's own addresses that the kubelet connects to.
pub(super) fn ports(pod: &Pod) -> BTreeSet<u16> {
    let spec = pod.spec.iter();
    let containers =
        spec.flat_map(|spec| spec.containers.iter().chain(spec.init_containers.iter().flatten()));
    containers.flat_map(of_container).collect()
}

fn of_container(container: &Container) -> Vec<u16> {
    let probes = [&container.liveness_probe, &container.readiness_probe, &container.startup_probe];
    let probes = probes.into_iter().flatten().flat_map(of_probe);
    let lifecycle = container.lifecycle.iter();
    let handlers = lifecycle.flat_map(|lifecycle| lifecycle.post_start.iter().chain(&lifecycle.pre_stop));
    let asked = probes.chain(handlers.flat_map(of_handler));
    asked.filter_map(|port| number(container, &port)).collect()
}

fn of_probe(probe: &Probe) -> Vec<IntOrString> {
    // With a host, it is that one which is asked.
    let http = probe.http_get.iter().filter(|get| is_the_pod(get.host.as_ref())).map(|get| get.port.clone());
    let tcp = probe.tcp_socket.iter().filter(|tcp| is_the_pod(tcp.host.as_ref())).map(|tcp| tcp.port.clone());
    let grpc = probe.grpc.iter().map(|grpc| IntOrString::Int(grpc.port));
    http.chain(tcp).chain(grpc).collect()
}

fn of_handler(handler: &LifecycleHandler) -> Vec<IntOrString> {
    let http = handler.http_get.iter().filter(|get| is_the_pod(get.host.as_ref()));
    http.map(|get| get.port.clone()).collect()
}

fn is_the_pod(host: Option<&String>) -> bool {
    host.is_none_or(String::is_empty)
}

/// A port by its number, or by the name that the container gives it.
fn number(container: &Container, port: &IntOrString) -> Option<u16> {
    let number = match port {
        IntOrString::Int(number) => *number,
        IntOrString::String(name) => {
            let named = container.ports.iter().flatten().find(|port| port.name.as_ref() == Some(name));
            named.map(|port| port.container_port).or_else(|| name.parse().ok())?
        }
    };
    u16::try_from(number).ok().filter(|number| *number != 0)
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn probed(containers: &Value) -> Vec<u16> {
        let pod = json!({"metadata": {"name": "web"}, "spec": {"containers": containers}});
        ports(&serde_json::from_value(pod).unwrap()).into_iter().collect()
    }

    #[test]
    fn every_kind_of_probe_has_a_port_by_number_or_name() {
        let containers = json!([
            {
                "name": "app",
                "ports": [{"name": "health", "containerPort": 8081}],
                "livenessProbe": {"httpGet": {"port": "health", "path": "/"}},
                "readinessProbe": {"tcpSocket": {"port": 8080}},
                "startupProbe": {"grpc": {"port": 9000}},
                "lifecycle": {"preStop": {"httpGet": {"port": 8082}}},
            },
            {"name": "beside", "livenessProbe": {"exec": {"command": ["true"]}}},
        ]);
        assert_eq!(probed(&containers), [8080, 8081, 8082, 9000]);
    }

    #[test]
    fn what_is_asked_of_another_host_or_has_no_such_port_is_no_probe_of_the_pod() {
        let containers = json!([{
            "name": "app",
            "livenessProbe": {"httpGet": {"port": 8080, "host": "192.0.2.1"}},
            "readinessProbe": {"tcpSocket": {"port": "nameless"}},
            "startupProbe": {"grpc": {"port": 70000}},
        }]);
        assert!(probed(&containers).is_empty());
    }
}
