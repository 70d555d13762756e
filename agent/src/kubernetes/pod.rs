//! A pod as the node knows its workloads.

use std::collections::BTreeMap;
use std::net::IpAddr;

use k8s_openapi::api::core::v1::Pod;
use kube::ResourceExt;

use super::owner;
use super::probes;
use super::runtime::Sandbox;
use crate::canonical;
use crate::config::{Annotations, Workload, WorkloadId};

/// What says that peers are to speak mutual TLS to a pod.
pub(super) const TLS_MODE: &str = "security.istio.io/tlsMode";

/// By what the node knows the pod.
pub(super) fn id(pod: &Pod) -> WorkloadId {
    WorkloadId { namespace: pod.namespace().unwrap_or_default(), name: pod.name_any() }
}

/// The pod's addresses as its status has them; none before its network is there.
pub(super) fn addresses(pod: &Pod) -> Vec<IpAddr> {
    let listed = pod.status.iter().flat_map(|status| status.pod_ips.iter().flatten());
    listed.filter_map(|address| address.ip.parse().ok()).collect()
}

/// What a sidecar's injector would put on the pod; what is there already stays as it is.
pub(super) fn mesh_labels(pod: &Pod) -> BTreeMap<&'static str, String> {
    let labels = pod.labels();
    let name = canonical::service(labels).unwrap_or_else(|| owner::deployment(pod));
    let revision = canonical::revision(labels);
    BTreeMap::from([(TLS_MODE, "istio".to_owned()), (canonical::NAME, name), (canonical::REVISION, revision)])
}

/// The sandbox, if it is the one that the pod's status tells of.
pub(super) fn checked(pod: &Pod, sandbox: Sandbox) -> Result<Sandbox, String> {
    let (known, addresses) = (addresses(pod), &sandbox.addresses);
    if known.iter().all(|address| addresses.contains(address)) {
        return Ok(sandbox);
    }
    Err(format!(
        "the runtime's sandbox has the addresses {addresses:?}, the pod {known:?}: waiting until they agree"
    ))
}

/// The pod as node.yaml would have it.
pub(super) fn workload(pod: &Pod, sandbox: Sandbox) -> Result<Workload, String> {
    let Sandbox { netns, cgroup, addresses } = sandbox;
    let WorkloadId { namespace, name } = id(pod);
    let mut labels = pod.labels().clone();
    labels.extend(mesh_labels(pod).into_iter().map(|(key, value)| (key.to_owned(), value)));
    let service_account = pod.spec.as_ref().and_then(|spec| spec.service_account_name.clone());
    Ok(Workload {
        name,
        namespace,
        service_account: service_account.unwrap_or_else(|| "default".to_owned()),
        netns,
        cgroup,
        addresses,
        labels,
        owner: Some(owner::owner(pod)),
        credentials: None,
        fail_open: None,
        annotations: Annotations::try_from(pod.annotations().clone())?.with_probes(probes::ports(pod)),
    })
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn pod(metadata: &Value) -> Pod {
        serde_json::from_value(json!({
            "metadata": metadata,
            "spec": {"serviceAccountName": "web", "containers": []},
            "status": {"podIPs": [{"ip": "10.244.1.7"}]},
        }))
        .unwrap()
    }

    fn sandbox(address: &str) -> Sandbox {
        Sandbox {
            netns: "/run/netns/1".into(),
            cgroup: "/cgroup/pod1".into(),
            addresses: vec![address.parse().unwrap()],
        }
    }

    fn of_a_deployment() -> Value {
        json!({
            "name": "web-5d7f-x1", "generateName": "web-5d7f-", "namespace": "shop",
            "labels": {"pod-template-hash": "5d7f", "version": "v2"},
            "ownerReferences": [
                {"apiVersion": "apps/v1", "kind": "ReplicaSet", "name": "web-5d7f", "uid": "1", "controller": true}
            ],
        })
    }

    #[test]
    fn the_canonical_service_is_the_deployment_where_no_label_says_otherwise() {
        let labels = mesh_labels(&pod(&of_a_deployment()));
        assert_eq!(labels[canonical::NAME], "web");
        assert_eq!(labels[canonical::REVISION], "v2");
        let labelled = mesh_labels(&pod(&json!({"name": "web-0", "labels": {"app": "shop"}})));
        assert_eq!(labelled[canonical::NAME], "shop");
        assert_eq!(labelled[canonical::REVISION], "latest");
    }

    #[test]
    fn a_workload_is_known_as_its_sidecar_would_be() {
        let workload = workload(&pod(&of_a_deployment()), sandbox("10.244.1.7")).unwrap();
        assert_eq!(workload.id().to_string(), "shop/web-5d7f-x1");
        assert_eq!(workload.service_account, "web");
        assert_eq!(workload.labels[TLS_MODE], "istio");
    }

    #[test]
    fn a_sandbox_with_another_address_is_not_the_pods() {
        let error = checked(&pod(&of_a_deployment()), sandbox("10.244.1.8")).unwrap_err();
        assert!(error.contains("waiting until they agree"), "{error}");
    }

    #[test]
    fn a_mistake_in_an_annotation_is_named() {
        let mut metadata = of_a_deployment();
        metadata["annotations"] = json!({"traffic.sidecar.istio.io/excludeOutboundPorts": "mysql"});
        let error = workload(&pod(&metadata), sandbox("10.244.1.7")).unwrap_err();
        assert!(error.contains("\"mysql\" is not a port"), "{error}");
    }
}
