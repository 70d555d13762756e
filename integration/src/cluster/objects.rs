//! What tests and bench apply to a cluster, as Kubernetes takes it.

use serde_json::{Value, json};

use super::POD_IMAGE;

/// Nobody of the namespace is spoken to without mutual TLS.
pub const STRICT: &str = "
apiVersion: security.istio.io/v1
kind: PeerAuthentication
metadata: {name: default}
spec: {mtls: {mode: STRICT}}
";

/// A namespace.
#[must_use]
pub fn namespace(name: &str, labels: &Value) -> Value {
    json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name, "labels": labels}})
}

/// A pod with one container, on a node where the scheduler does not choose.
#[must_use]
pub fn pod(name: &str, labels: &Value, node: u8, arguments: &[&str]) -> Value {
    json!({
        "apiVersion": "v1", "kind": "Pod",
        "metadata": {"name": name, "labels": labels},
        "spec": {
            "nodeName": format!("node{node}"), "terminationGracePeriodSeconds": 1,
            "containers": [container("app", arguments)],
        },
    })
}

/// A container of the bed's image.
#[must_use]
pub fn container(name: &str, arguments: &[&str]) -> Value {
    json!({"name": name, "image": POD_IMAGE, "imagePullPolicy": "Never", "args": arguments})
}

/// A service of the pods with these labels: port 80, spoken HTTP, which they serve at 8080.
#[must_use]
pub fn service(name: &str, selector: &Value) -> Value {
    json!({
        "apiVersion": "v1", "kind": "Service",
        "metadata": {"name": name},
        "spec": {"selector": selector, "ports": [{"name": "http", "port": 80, "targetPort": 8080}]},
    })
}

/// All of them in one go.
#[must_use]
pub fn list(objects: &[Value]) -> String {
    json!({"apiVersion": "v1", "kind": "List", "items": objects}).to_string()
}
