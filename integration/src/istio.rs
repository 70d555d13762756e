//! Istio configuration, as far as the tests write the same thing over and over: a service with its endpoints.

use std::collections::BTreeMap;

use serde_json::{Value, json};

use crate::pod::Pod;

/// A service of the mesh in the namespace `default`, written as a `ServiceEntry`.
#[derive(Debug, Clone)]
pub struct Service {
    name: String,
    vip: String,
    ports: Vec<Value>,
    endpoints: Vec<Value>,
}

impl Service {
    /// A service reached as `<name>.default.svc.cluster.local` or by its virtual address.
    pub fn new(name: &str, vip: &str) -> Self {
        Self { name: name.to_owned(), vip: vip.to_owned(), ports: Vec::new(), endpoints: Vec::new() }
    }

    /// Adds a port that is known to carry HTTP.
    #[must_use]
    pub fn http(self, port: u16, target: u16) -> Self {
        self.port(port, target, "HTTP")
    }

    /// Adds a port that carries anything.
    #[must_use]
    pub fn tcp(self, port: u16, target: u16) -> Self {
        self.port(port, target, "TCP")
    }

    fn port(mut self, number: u16, target: u16, protocol: &str) -> Self {
        let name = format!("{}-{number}", protocol.to_lowercase());
        self.ports.push(json!({"number": number, "name": name, "protocol": protocol, "targetPort": target}));
        self
    }

    /// Adds a pod, with the pod's labels.
    #[must_use]
    pub fn endpoint(self, pod: &Pod) -> Self {
        self.weighted(pod, 1)
    }

    /// Adds a pod with a weight among the endpoints.
    #[must_use]
    pub fn weighted(mut self, pod: &Pod, weight: u32) -> Self {
        let labels: &BTreeMap<_, _> = pod.labels();
        self.endpoints.push(json!({"address": pod.ip(), "labels": labels, "weight": weight}));
        self
    }

    /// The host name.
    pub fn host(&self) -> String {
        format!("{}.default.svc.cluster.local", self.name)
    }

    /// The document, separator included, so that several make one file.
    pub fn yaml(&self) -> String {
        let entry = json!({
            "apiVersion": "networking.istio.io/v1",
            "kind": "ServiceEntry",
            "metadata": {"name": self.name, "namespace": "default"},
            "spec": {
                "hosts": [self.host()],
                "addresses": [self.vip],
                "location": "MESH_INTERNAL",
                "resolution": "STATIC",
                "ports": self.ports,
                "endpoints": self.endpoints,
            },
        });
        // JSON is YAML.
        format!("---\n{entry}\n")
    }
}
