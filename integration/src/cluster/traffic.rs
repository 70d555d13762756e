//! Traffic from inside a cluster's pods, by `kubectl exec`.

use anyhow::{Context, Result};

use super::Cluster;
use crate::traffic::{Call, Load, Reply};

impl Cluster {
    /// Sends requests from inside a pod, `NAMESPACE/NAME`, whose image is [`super::POD_IMAGE`].
    pub fn http(&self, pod: &str, call: &Call) -> Result<Vec<Reply>> {
        self.http_all(pod, std::slice::from_ref(call))
    }

    /// Sends several requests from inside a pod, each once at least, and says what came of them in order.
    pub fn http_all(&self, pod: &str, calls: &[Call]) -> Result<Vec<Reply>> {
        self.send("http", pod, calls)
    }

    /// Makes TCP connections from inside a pod in the same way, on each of which the client speaks first.
    pub fn raw_all(&self, pod: &str, calls: &[Call]) -> Result<Vec<Reply>> {
        self.send("raw", pod, calls)
    }

    /// Traffic from inside a pod that goes on until it is stopped: `load-http`, `load-tcp`.
    pub fn load(&self, way: &str, pod: &str, call: &Call) -> Result<Load> {
        let (namespace, name) = pod.split_once('/').context("a pod is NAMESPACE/NAME")?;
        let mut command = self.in_node(1, &["-n"])?;
        command
            .args(self.kubectl_program())
            .args(["-n", namespace, "exec", "-i", name, "--", "bed-pod", way]);
        command.arg(serde_json::to_string(call)?);
        Load::spawn(&format!("{name}-{way}"), &self.dir, &mut command)
    }

    fn send(&self, way: &str, pod: &str, calls: &[Call]) -> Result<Vec<Reply>> {
        let (namespace, name) = pod.split_once('/').context("a pod is NAMESPACE/NAME")?;
        let calls = calls.iter().map(serde_json::to_string).collect::<Result<Vec<_>, _>>()?;
        let mut arguments = vec!["-n", namespace, "exec", name, "--", "bed-pod", way];
        arguments.extend(calls.iter().map(String::as_str));
        Ok(serde_json::from_str(&self.kubectl(&arguments)?)?)
    }
}
