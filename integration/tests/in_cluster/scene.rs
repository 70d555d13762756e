//! A namespace that Orlop carries, and the pods of a topic in it.

use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use orlop_integration::cluster::objects;
use orlop_integration::dns::{Answer, Over, Question};
use orlop_integration::traffic::outcome;
use orlop_integration::{Call, Cluster, Reply, until};
use serde_json::{Value, json};

pub(crate) use orlop_integration::cluster::objects::{STRICT, container, pod, service};

/// How long an edit may take beside everything else that goes on.
pub(crate) const PATIENCE: Duration = Duration::from_mins(2);
const RESOLVER: &str = "10.96.0.10:53";

/// One namespace.
#[derive(Clone, Copy)]
pub(crate) struct Scene<'a> {
    pub(crate) cluster: &'a Cluster,
    pub(crate) namespace: &'a str,
}

impl<'a> Scene<'a> {
    /// Makes a namespace whose pods Orlop carries.
    pub(crate) fn enrolled(cluster: &'a Cluster, namespace: &'a str) -> Result<Self> {
        Self::labelled(cluster, namespace, &json!({"istio.io/dataplane-mode": "orlop"}))
    }

    /// Makes one with whom the mesh has nothing to do.
    pub(crate) fn plain(cluster: &'a Cluster, namespace: &'a str) -> Result<Self> {
        Self::labelled(cluster, namespace, &json!({}))
    }

    fn labelled(cluster: &'a Cluster, namespace: &'a str, labels: &Value) -> Result<Self> {
        cluster.apply(&objects::namespace(namespace, labels).to_string())?;
        let this = Self { cluster, namespace };
        until("the service account of the namespace", PATIENCE, || {
            Ok(cluster.kubectl(&["-n", namespace, "get", "serviceaccount", "default"]).is_ok().then_some(()))
        })?;
        Ok(this)
    }

    /// Applies what is written down, in this namespace.
    pub(crate) fn apply(&self, yaml: &str) -> Result<()> {
        self.cluster.apply_in(self.namespace, yaml)
    }

    /// Applies objects that [`pod()`] and its like have made.
    pub(crate) fn add(&self, objects: &[Value]) -> Result<()> {
        self.apply(&objects::list(objects))
    }

    /// Adds a client on the first node and the service `web` with one server of that name on the second, and waits for them.
    pub(crate) fn with_web(self) -> Result<Self> {
        self.add(&[
            client("client", 1),
            server("web", "web", "v1", 2),
            service("web", &json!({"app": "web"})),
        ])?;
        self.ready()?;
        Ok(self)
    }

    /// Deletes everything of these kinds.
    pub(crate) fn clear(&self, kinds: &str) -> Result<()> {
        self.kubectl(&["delete", kinds, "--all"]).map(drop)
    }

    pub(crate) fn kubectl(&self, arguments: &[&str]) -> Result<String> {
        self.cluster.kubectl(&[&["-n", self.namespace], arguments].concat())
    }

    /// Waits until all pods are ready, and those that are enrolled are carried and known as such.
    pub(crate) fn ready(&self) -> Result<()> {
        self.kubectl(&["wait", "--for=condition=Ready", "pod", "--all", "--timeout=180s"])
            .with_context(|| self.kubectl(&["get", "pods,events", "-o", "wide"]).unwrap_or_default())
            .map(drop)
    }

    /// The address that the service has in the cluster, with a port of it.
    pub(crate) fn service(&self, name: &str, port: u16) -> Result<SocketAddr> {
        self.address("service", name, "/spec/clusterIP", port)
    }

    /// The pod's own address, with a port.
    pub(crate) fn pod(&self, name: &str, port: u16) -> Result<SocketAddr> {
        self.address("pod", name, "/status/podIP", port)
    }

    fn address(&self, kind: &str, name: &str, field: &str, port: u16) -> Result<SocketAddr> {
        let object = self.cluster.get(&["-n", self.namespace, kind, name])?;
        let address = object.pointer(field).and_then(Value::as_str);
        let address: IpAddr = address.with_context(|| format!("{kind} {name} has no address"))?.parse()?;
        Ok(SocketAddr::new(address, port))
    }

    /// A request for the service by its name.
    pub(crate) fn to(&self, service: &str) -> Result<Call> {
        Ok(self.host(service, Call::new(self.service(service, 80)?)))
    }

    /// The request with another name for whom it is for.
    pub(crate) fn host(&self, service: &str, mut call: Call) -> Call {
        let host = format!("{service}.{}.svc.cluster.local", self.namespace);
        call.headers.insert("host".to_owned(), host);
        Call { timeout_ms: 5000, ..call }
    }

    /// Sends it from a pod.
    pub(crate) fn http(&self, pod: &str, call: &Call) -> Result<Vec<Reply>> {
        self.cluster.http(&format!("{}/{pod}", self.namespace), call)
    }

    /// Sends several from a pod, and waits until `expected` says that what came of them is as it is to be; its error says what
    /// is wrong.
    pub(crate) fn eventually_all(
        &self,
        what: &str,
        pod: &str,
        calls: &[Call],
        expected: impl Fn(&[Reply]) -> Result<()>,
    ) -> Result<()> {
        until(what, PATIENCE, || {
            let replies = self.cluster.http_all(&format!("{}/{pod}", self.namespace), calls)?;
            let outcomes = || replies.iter().map(outcome).collect::<Vec<_>>().join(", ");
            expected(&replies).with_context(|| format!("{}; the last: {:?}", outcomes(), replies.last()))?;
            Ok(Some(()))
        })
    }

    /// Sends one until that many times in a row all its replies are as `expected`.
    pub(crate) fn eventually(
        &self,
        what: &str,
        pod: &str,
        call: &Call,
        expected: impl Fn(&Reply) -> bool,
    ) -> Result<()> {
        self.eventually_all(what, pod, std::slice::from_ref(call), |replies| {
            ensure!(replies.iter().all(&expected), "{what}: not yet");
            Ok(())
        })
    }

    /// What the cluster's DNS answers a pod.
    pub(crate) fn resolve(&self, pod: &str, name: &str) -> Result<Answer> {
        let name = format!("{name}.{}.svc.cluster.local", self.namespace);
        let question = Question::new(RESOLVER.parse()?, Over::ConnectedUdp, &name);
        let question = serde_json::to_string(&question)?;
        Ok(serde_json::from_str(&self.kubectl(&["exec", pod, "--", "bed-pod", "dns", &question])?)?)
    }
}

/// A pod that sends what the topic wants sent.
pub(crate) fn client(name: &str, node: u8) -> Value {
    pod(name, &json!({"app": name}), node, &["pause"])
}

/// A pod that answers at port 8080 with its name, of the service `app` and of a version.
pub(crate) fn server(name: &str, app: &str, version: &str, node: u8) -> Value {
    let labels = json!({"app": app, "version": version});
    pod(name, &labels, node, &["echo-http", "--name", name, "--port", "8080"])
}

/// The request with a header.
pub(crate) fn with_header(mut call: Call, name: &str, value: &str) -> Call {
    call.headers.insert(name.to_owned(), value.to_owned());
    call
}

/// The request for a path.
pub(crate) fn with_path(call: Call, path: &str) -> Call {
    Call { path: path.to_owned(), ..call }
}

/// Whether it is that server's answer.
pub(crate) fn is_from(reply: &Reply, server: &str) -> bool {
    reply.status == 200 && reply.server.as_deref() == Some(server)
}
