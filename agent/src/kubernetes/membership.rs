//! Which pods are to be carried.

use std::collections::BTreeMap;

use k8s_openapi::api::core::v1::{Pod, PodSpec};

/// Of a namespace or a pod: by whom its traffic is carried. Istio's own label, with a value of ours.
pub(super) const MODE: &str = "istio.io/dataplane-mode";
/// The value that enrols.
const ORLOP: &str = "orlop";
/// The value that opts out.
const NONE: &str = "none";
/// The value that asks Istio's own node agent.
const AMBIENT: &str = "ambient";
/// The container of a sidecar, be it among the containers or the init containers.
const SIDECAR: &str = "istio-proxy";
/// What Istio's own node agent writes to a pod that it has captured.
const REDIRECTION: &str = "ambient.istio.io/redirection";

/// What is to become of a pod.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Membership {
    /// Nobody asked for it.
    None,
    /// It will not run again.
    Ended,
    /// Somebody asked, and it is not possible. In words.
    LeftAlone(String),
    /// It is to be carried.
    Member,
}

/// Decides by the pod and the labels of its namespace; the pod's own count first.
pub(super) fn membership(pod: &Pod, namespace: Option<&BTreeMap<String, String>>) -> Membership {
    let phase = pod.status.as_ref().and_then(|status| status.phase.as_deref());
    if matches!(phase, Some("Succeeded" | "Failed")) {
        return Membership::Ended;
    }
    let own = pod.metadata.labels.as_ref().and_then(|labels| labels.get(MODE));
    match own.or_else(|| namespace?.get(MODE)).map(String::as_str) {
        None | Some(NONE | AMBIENT) => return Membership::None,
        Some(ORLOP) => {}
        Some(other) => {
            return Membership::LeftAlone(format!(
                "label {MODE}: {other:?} is not known here; set {ORLOP:?} or {NONE:?}"
            ));
        }
    }
    let spec = pod.spec.as_ref();
    if spec.is_some_and(|spec| spec.host_network == Some(true)) {
        return Membership::LeftAlone("it is in the node's own network (hostNetwork)".to_owned());
    }
    if spec.is_some_and(has_sidecar) {
        return Membership::LeftAlone(format!(
            "it has a sidecar; restart it without injection (container {SIDECAR:?})"
        ));
    }
    let annotations = pod.metadata.annotations.as_ref();
    if annotations.and_then(|annotations| annotations.get(REDIRECTION)).is_some_and(|v| v == "enabled") {
        return Membership::LeftAlone(format!(
            "Istio's ambient mode has captured it (annotation {REDIRECTION}); take it out of that first"
        ));
    }
    Membership::Member
}

fn has_sidecar(spec: &PodSpec) -> bool {
    let init = spec.init_containers.iter().flatten();
    spec.containers.iter().chain(init).any(|container| container.name == SIDECAR)
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    #[expect(clippy::needless_pass_by_value, reason = "reads as what it describes")]
    fn pod(labels: Value, mut spec: Value) -> Pod {
        spec.as_object_mut().unwrap().entry("containers").or_insert_with(|| json!([{"name": "app"}]));
        serde_json::from_value(json!({
            "metadata": {"name": "web", "labels": labels},
            "spec": spec,
            "status": {"phase": "Running"},
        }))
        .unwrap()
    }

    fn namespace(mode: &str) -> BTreeMap<String, String> {
        BTreeMap::from([(MODE.to_owned(), mode.to_owned())])
    }

    fn left_alone(pod: &Pod) -> String {
        match membership(pod, Some(&namespace("orlop"))) {
            Membership::LeftAlone(reason) => reason,
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn the_namespaces_label_enrols_and_the_pods_own_counts_first() {
        let plain = pod(json!({}), json!({}));
        let opted_out = pod(json!({MODE: "none"}), json!({}));
        let opted_in = pod(json!({MODE: "orlop"}), json!({}));

        assert_eq!(membership(&plain, Some(&namespace("orlop"))), Membership::Member);
        assert_eq!(membership(&plain, Some(&BTreeMap::new())), Membership::None);
        assert_eq!(membership(&plain, None), Membership::None);
        assert_eq!(membership(&opted_out, Some(&namespace("orlop"))), Membership::None);
        assert_eq!(membership(&opted_in, Some(&namespace("none"))), Membership::Member);
    }

    #[test]
    fn ambient_is_anothers_and_a_value_that_nobody_knows_is_said() {
        let ambient = pod(json!({MODE: "ambient"}), json!({}));
        assert_eq!(membership(&ambient, Some(&namespace("orlop"))), Membership::None);
        let unknown = pod(json!({MODE: "orlob"}), json!({}));
        assert!(left_alone(&unknown).contains("istio.io/dataplane-mode: \"orlob\" is not known"));
    }

    #[test]
    fn a_pod_with_a_sidecar_is_left_alone_until_it_is_gone() {
        let injected = pod(json!({}), json!({"containers": [{"name": "app"}, {"name": "istio-proxy"}]}));
        assert!(left_alone(&injected).contains("sidecar"));
        let native = pod(json!({}), json!({"initContainers": [{"name": "istio-proxy"}]}));
        assert!(left_alone(&native).contains("sidecar"));
    }

    #[test]
    fn what_cannot_be_captured_is_left_alone_with_the_reason() {
        assert!(left_alone(&pod(json!({}), json!({"hostNetwork": true}))).contains("hostNetwork"));
        let mut captured = pod(json!({}), json!({}));
        captured.metadata.annotations =
            Some(BTreeMap::from([(REDIRECTION.to_owned(), "enabled".to_owned())]));
        assert!(left_alone(&captured).contains("ambient"));
    }

    #[test]
    fn a_pod_that_has_ended_is_let_go() {
        let mut ended = pod(json!({}), json!({}));
        ended.status.as_mut().unwrap().phase = Some("Succeeded".to_owned());
        assert_eq!(membership(&ended, Some(&namespace("orlop"))), Membership::Ended);
    }
}
