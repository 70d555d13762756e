//! Istio configuration, as far as the tests write the same thing over and over: a service, its subsets, its routes.

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

    /// Adds a port that is known to carry gRPC-Web.
    #[must_use]
    pub fn grpc_web(self, port: u16, target: u16) -> Self {
        self.port(port, target, "GRPC-Web")
    }

    /// Adds a port that carries anything.
    #[must_use]
    pub fn tcp(self, port: u16, target: u16) -> Self {
        self.port(port, target, "TCP")
    }

    /// Adds a port of this protocol.
    #[must_use]
    pub fn port(mut self, number: u16, target: u16, protocol: &str) -> Self {
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
        document(&entry)
    }

    /// A `DestinationRule` with one subset for each value of the label `version`.
    pub fn subsets_by_version(&self, versions: &[&str]) -> String {
        let subset = |version: &&str| json!({"name": version, "labels": {"version": version}});
        self.subsets(&versions.iter().map(subset).collect())
    }

    /// A `DestinationRule` with these subsets.
    pub fn subsets(&self, subsets: &Value) -> String {
        document(&json!({
            "apiVersion": "networking.istio.io/v1",
            "kind": "DestinationRule",
            "metadata": {"name": self.name, "namespace": "default"},
            "spec": {"host": self.host(), "subsets": subsets},
        }))
    }

    /// A `VirtualService` with these HTTP routes.
    pub fn http_routes(&self, routes: &Value) -> String {
        self.virtual_service("http", routes)
    }

    /// A `VirtualService` with these TCP routes.
    pub fn tcp_routes(&self, routes: &Value) -> String {
        self.virtual_service("tcp", routes)
    }

    /// Requests with the header `x-canary: true` to version `v2`, the others to `v1`; the subsets with it.
    pub fn canary_routing(&self) -> String {
        let canary =
            json!({"match": [{"headers": {"x-canary": {"exact": "true"}}}], "route": [self.subset("v2")]});
        let routes = json!([canary, {"route": [self.subset("v1")]}]);
        self.subsets_by_version(&["v1", "v2"]) + &self.http_routes(&routes)
    }

    fn virtual_service(&self, kind: &str, routes: &Value) -> String {
        document(&json!({
            "apiVersion": "networking.istio.io/v1",
            "kind": "VirtualService",
            "metadata": {"name": format!("{}-{kind}", self.name), "namespace": "default"},
            "spec": {"hosts": [self.host()], kind: routes},
        }))
    }

    /// The destination of a route: a subset of this service.
    pub fn subset(&self, subset: &str) -> Value {
        json!({"destination": {"host": self.host(), "subset": subset}})
    }

    /// The same with a share in per cent.
    pub fn weighted_subset(&self, subset: &str, weight: u32) -> Value {
        json!({"destination": {"host": self.host(), "subset": subset}, "weight": weight})
    }
}

/// One document of a file. JSON is YAML.
pub fn document(resource: &Value) -> String {
    format!("---\n{resource}\n")
}
