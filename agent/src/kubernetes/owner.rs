//! What a pod belongs to, by the rule of Istio's injector (`GetDeployMetaFromPod` in its `pkg/kube/util.go`): by the pod alone,
//! nothing is looked up.

use k8s_openapi::api::core::v1::Pod;
use kube::ResourceExt;

use crate::config::Owner;

/// Overrides the workload's name, not whose it is.
const WORKLOAD_NAME: &str = "service.istio.io/workload-name";

/// What is told of the pod as `WORKLOAD_NAME` and `OWNER`.
pub(super) fn owner(pod: &Pod) -> Owner {
    let Controller { api_version, kind, name } = controller(pod);
    let namespace = pod.namespace().unwrap_or_else(|| "default".to_owned());
    let reference =
        format!("kubernetes://apis/{api_version}/namespaces/{namespace}/{}s/{name}", kind.to_lowercase());
    Owner { workload_name: pod.labels().get(WORKLOAD_NAME).cloned().unwrap_or(name), reference }
}

/// The name of the pod's Deployment or whatever else has made it, or its own.
pub(super) fn deployment(pod: &Pod) -> String {
    controller(pod).name
}

struct Controller {
    api_version: String,
    kind: String,
    name: String,
}

fn controller(pod: &Pod) -> Controller {
    let of = |api_version: &str, kind: &str, name: &str| Controller {
        api_version: api_version.to_owned(),
        kind: kind.to_owned(),
        name: name.to_owned(),
    };
    let made = pod.metadata.generate_name.as_deref().is_some_and(|prefix| !prefix.is_empty());
    let controller = pod.owner_references().iter().find(|owner| owner.controller == Some(true));
    let Some(owner) = controller.filter(|_| made) else { return of("v1", "Pod", &pod.name_any()) };
    let without_hash = |label: &str| {
        let hash = pod.labels().get(label).filter(|hash| !hash.is_empty())?;
        owner.name.strip_suffix(hash.as_str())?.strip_suffix('-')
    };
    match owner.kind.as_str() {
        "ReplicaSet" => {
            if let Some(name) = without_hash("pod-template-hash") {
                return of(&owner.api_version, "Deployment", name);
            }
            if let Some(name) = without_hash("rollouts-pod-template-hash") {
                return of("v1alpha1", "Rollout", name);
            }
        }
        "ReplicationController" => {
            if let Some(name) = pod.labels().get("deploymentconfig").filter(|name| !name.is_empty()) {
                return of(&owner.api_version, "DeploymentConfig", name);
            }
        }
        "Job" => {
            if let Some(name) = without_time(&owner.name) {
                return of("batch/v1", "CronJob", name);
            }
        }
        _ => {}
    }
    of(&owner.api_version, &owner.kind, &owner.name)
}

/// A job that a `CronJob` has made ends in the time of its run, in eight to ten digits.
fn without_time(job: &str) -> Option<&str> {
    let (name, time) = job.rsplit_once('-')?;
    let is_time = (8..=10).contains(&time.len()) && time.bytes().all(|byte| byte.is_ascii_digit());
    (is_time && !name.is_empty()).then_some(name)
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    #[expect(clippy::needless_pass_by_value, reason = "reads as what it describes")]
    fn made_by(api_version: &str, kind: &str, name: &str, labels: Value) -> Owner {
        let by =
            json!({"apiVersion": api_version, "kind": kind, "name": name, "uid": "1", "controller": true});
        let pod = json!({"metadata": {
            "name": "web-5d7f-x1", "generateName": "web-", "namespace": "shop", "labels": labels,
            "ownerReferences": [by],
        }});
        owner(&serde_json::from_value(pod).unwrap())
    }

    fn expect(workload: &str, reference: &str) -> Owner {
        Owner { workload_name: workload.to_owned(), reference: format!("kubernetes://apis/{reference}") }
    }

    #[test]
    fn a_pod_of_a_replica_set_is_of_the_deployment() {
        assert_eq!(
            made_by("apps/v1", "ReplicaSet", "web-5d7f", json!({"pod-template-hash": "5d7f"})),
            expect("web", "apps/v1/namespaces/shop/deployments/web")
        );
        assert_eq!(
            made_by("apps/v1", "ReplicaSet", "web-5d7f", json!({"rollouts-pod-template-hash": "5d7f"})),
            expect("web", "v1alpha1/namespaces/shop/rollouts/web")
        );
        assert_eq!(
            made_by("apps/v1", "ReplicaSet", "by-hand", json!({})),
            expect("by-hand", "apps/v1/namespaces/shop/replicasets/by-hand")
        );
    }

    #[test]
    fn a_job_of_a_cron_job_is_the_cron_jobs() {
        assert_eq!(
            made_by("batch/v1", "Job", "report-29384756", json!({})),
            expect("report", "batch/v1/namespaces/shop/cronjobs/report")
        );
        assert_eq!(
            made_by("batch/v1", "Job", "report-2938", json!({})),
            expect("report-2938", "batch/v1/namespaces/shop/jobs/report-2938")
        );
    }

    #[test]
    fn a_pod_that_nobody_has_made_is_its_own() {
        let pod = json!({"metadata": {"name": "client", "namespace": "shop"}});
        assert_eq!(
            owner(&serde_json::from_value(pod).unwrap()),
            expect("client", "v1/namespaces/shop/pods/client")
        );
    }

    #[test]
    fn a_label_names_the_workload() {
        assert_eq!(
            made_by("apps/v1", "StatefulSet", "web", json!({WORKLOAD_NAME: "shopfront"})),
            expect("shopfront", "apps/v1/namespaces/shop/statefulsets/web")
        );
    }
}
