//! The container runtime, asked over its own socket where a pod lives (CRI, `runtime.v1`).

use std::collections::BTreeMap;
use std::io;
use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use orlop_proto::cri::{
    ListPodSandboxRequest, ListPodSandboxResponse, PodSandboxFilter, PodSandboxState, PodSandboxStateValue,
    PodSandboxStatusRequest, PodSandboxStatusResponse,
};
use prost::Message;
use serde::Deserialize;
use tonic::Request;
use tonic::client::Grpc;
use tonic::transport::{Channel, Endpoint};
use tonic_prost::ProstCodec;

use super::cgroup;
use crate::admin::Starting;

/// For a whole call: it runs on this machine.
const TIMEOUT: Duration = Duration::from_secs(5);

/// The runtime of this node. Connects when it is first asked.
#[derive(Debug)]
pub(super) struct Runtime {
    socket: PathBuf,
    cgroups: PathBuf,
    channel: Channel,
}

/// Where a pod lives.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Sandbox {
    pub(super) netns: PathBuf,
    pub(super) cgroup: PathBuf,
    pub(super) addresses: Vec<IpAddr>,
}

/// Why it is not known where a pod lives.
#[derive(Debug, thiserror::Error)]
pub(super) enum RuntimeError {
    /// The path of the socket is none.
    #[error("kubernetes.runtimeSocket: {socket} is not a path that can be connected to", socket = socket.display())]
    Socket { socket: PathBuf },
    /// The runtime does not answer.
    #[error("the container runtime at {socket} does not say where pods live: {status}", socket = socket.display())]
    Call { socket: PathBuf, status: Box<tonic::Status> },
    /// What it says is not what containerd and CRI-O say.
    #[error("the container runtime describes the pod's sandbox in a way that is not known: {0}")]
    Unknown(String),
}

impl Runtime {
    /// The one at `socket`; the host's cgroups are found at `cgroups`.
    pub(super) fn new(socket: &Path, cgroups: &Path) -> Result<Self, RuntimeError> {
        let endpoint = Endpoint::from_shared(format!("unix://{}", socket.display()))
            .map_err(|_| RuntimeError::Socket { socket: socket.to_owned() })?;
        let channel = endpoint.timeout(TIMEOUT).connect_lazy();
        Ok(Self { socket: socket.to_owned(), cgroups: cgroups.to_owned(), channel })
    }

    /// Where a pod will live that has its network and no sandbox yet.
    pub(super) fn starting(&self, pod: &Starting) -> io::Result<Sandbox> {
        Ok(Sandbox {
            netns: pod.netns.clone(),
            cgroup: cgroup::of_starting(&self.cgroups, &pod.uid)?,
            addresses: pod.addresses.clone(),
        })
    }

    /// The ready sandboxes: their ids by the uid of the pod.
    pub(super) async fn sandboxes(&self) -> Result<BTreeMap<String, String>, RuntimeError> {
        let state = Some(PodSandboxStateValue { state: PodSandboxState::SandboxReady.into() });
        let request = ListPodSandboxRequest { filter: Some(PodSandboxFilter { state }) };
        let answer: ListPodSandboxResponse = self.call("ListPodSandbox", request).await?;
        Ok(answer.items.into_iter().filter_map(|item| Some((item.metadata?.uid, item.id))).collect())
    }

    /// Where the sandbox's pod lives.
    pub(super) async fn sandbox(&self, id: &str) -> Result<Sandbox, RuntimeError> {
        let request = PodSandboxStatusRequest { pod_sandbox_id: id.to_owned(), verbose: true };
        let answer: PodSandboxStatusResponse = self.call("PodSandboxStatus", request).await?;
        self.read(&answer).map_err(RuntimeError::Unknown)
    }

    fn read(&self, answer: &PodSandboxStatusResponse) -> Result<Sandbox, String> {
        let network = answer.status.as_ref().and_then(|status| status.network.as_ref());
        let network = network.ok_or("it has no network")?;
        let further = network.additional_ips.iter().map(|address| &address.ip);
        let addresses = std::iter::once(&network.ip)
            .chain(further)
            .map(|address| address.parse().map_err(|_| format!("{address:?} is not an address")));
        let info = answer.info.get("info").ok_or("it says nothing beyond the interface")?;
        let Info { runtime_type, runtime_spec: RuntimeSpec { linux } } =
            serde_json::from_str(info).map_err(|error| error.to_string())?;
        // Its processes are not in a cgroup of this kernel, or do not ask it for connections.
        if let Some(other) = runtime_type.filter(|kind| !kind.starts_with("io.containerd.runc.")) {
            return Err(format!(
                "it runs in a sandbox of its own ({other}), which its connections do not leave as the node's kernel sees them; label it istio.io/dataplane-mode: none"
            ));
        }
        let netns = linux.namespaces.into_iter().find(|namespace| namespace.kind == "network");
        let netns =
            netns.and_then(|namespace| namespace.path).ok_or("it has no network namespace of its own")?;
        let path = &linux.cgroups_path;
        let cgroup = cgroup::of_pod(path).ok_or_else(|| format!("its cgroup {path:?} lies in no pod's"))?;
        Ok(Sandbox {
            netns,
            cgroup: cgroup::root(&self.cgroups).join(cgroup),
            addresses: addresses.collect::<Result<_, _>>()?,
        })
    }

    async fn call<Q, A>(&self, method: &str, question: Q) -> Result<A, RuntimeError>
    where
        Q: Message + Send + Sync + 'static,
        A: Message + Default + Send + Sync + 'static,
    {
        let failed = |status| RuntimeError::Call { socket: self.socket.clone(), status: Box::new(status) };
        let path = format!("/runtime.v1.RuntimeService/{method}");
        let path = path.parse().map_err(|_| failed(tonic::Status::internal("no such method")))?;
        let mut grpc = Grpc::new(self.channel.clone());
        let unreachable = |error: tonic::transport::Error| {
            let reason = format!("{:#}", anyhow::Error::from(error));
            failed(tonic::Status::unavailable(reason))
        };
        grpc.ready().await.map_err(unreachable)?;
        let answer = grpc.unary(Request::new(question), path, ProstCodec::default()).await;
        answer.map(tonic::Response::into_inner).map_err(failed)
    }
}

/// What containerd and CRI-O say beyond the interface, as far as it is of use: a part of the OCI specification.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Info {
    /// containerd's shim.
    runtime_type: Option<String>,
    runtime_spec: RuntimeSpec,
}

#[derive(Deserialize)]
struct RuntimeSpec {
    linux: Linux,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Linux {
    cgroups_path: String,
    namespaces: Vec<Namespace>,
}

#[derive(Deserialize)]
struct Namespace {
    #[serde(rename = "type")]
    kind: String,
    path: Option<PathBuf>,
}

#[cfg(test)]
mod tests {
    use orlop_proto::cri::{PodIp, PodSandboxNetworkStatus, PodSandboxStatus};
    use serde_json::{Value, json};

    use super::*;

    fn answer(info: &Value) -> PodSandboxStatusResponse {
        let network = PodSandboxNetworkStatus {
            ip: "10.244.1.7".into(),
            additional_ips: vec![PodIp { ip: "fd00::7".into() }],
        };
        PodSandboxStatusResponse {
            status: Some(PodSandboxStatus { id: "0a1b".into(), network: Some(network) }),
            info: BTreeMap::from([("info".into(), info.to_string())]),
        }
    }

    fn read(info: &Value) -> Result<Sandbox, String> {
        let runtime = Runtime::new(Path::new("/run/containerd.sock"), Path::new("/host/cgroup")).unwrap();
        runtime.read(&answer(info))
    }

    fn described(namespaces: &Value) -> Value {
        let linux = json!({"cgroupsPath": "/kubepods/pod1/0a1b", "namespaces": namespaces});
        json!({"pid": 42, "runtimeType": "io.containerd.runc.v2", "runtimeSpec": {"linux": linux}})
    }

    #[tokio::test]
    async fn namespace_cgroup_and_addresses_are_found() {
        let namespaces = json!([{"type": "pid"}, {"type": "network", "path": "/var/run/netns/cni-1"}]);
        let expected = Sandbox {
            netns: "/var/run/netns/cni-1".into(),
            cgroup: "/host/cgroup/unified/kubepods/pod1".into(),
            addresses: vec!["10.244.1.7".parse().unwrap(), "fd00::7".parse().unwrap()],
        };
        assert_eq!(read(&described(&namespaces)), Ok(expected));
    }

    #[tokio::test]
    async fn a_sandbox_of_another_kind_is_refused_with_the_reason() {
        let error = read(&described(&json!([{"type": "pid"}]))).unwrap_err();
        assert_eq!(error, "it has no network namespace of its own");
        let error = read(&json!({"pid": 42})).unwrap_err();
        assert!(error.contains("missing field `runtimeSpec`"), "{error}");
    }

    #[tokio::test]
    async fn a_sandbox_with_a_kernel_of_its_own_is_refused() {
        let mut info = described(&json!([{"type": "network", "path": "/var/run/netns/cni-1"}]));
        info["runtimeType"] = json!("io.containerd.runsc.v1");
        assert!(read(&info).unwrap_err().contains("a sandbox of its own (io.containerd.runsc.v1)"));
    }

    #[tokio::test]
    async fn a_runtime_that_is_not_there_is_named() {
        let runtime = Runtime::new(Path::new("/run/nobody.sock"), Path::new("/sys/fs/cgroup")).unwrap();
        let error = runtime.sandboxes().await.unwrap_err().to_string();
        assert!(error.starts_with("the container runtime at /run/nobody.sock does not say"), "{error}");
    }
}
