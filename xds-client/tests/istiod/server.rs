//! A real istiod on free ports of the loopback, with a directory of Istio YAML for its cluster.

use std::env;
use std::fs;
use std::iter;
use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::process::{self, Stdio};
use std::sync::atomic::{AtomicU16, Ordering};

use orlop_xds_client::{ControlPlane, Protocol};
use serde_json::Value;
use tempfile::TempDir;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::process::{Child, Command};

use crate::consumer::eventually;

/// What a stock installation says, as far as it matters here.
const MESH: &str = "trustDomain: cluster.local
rootNamespace: istio-system
defaultProviders: {metrics: [prometheus]}
";

/// CDS, EDS, LDS and RDS; others as the configuration wants them.
const MIN_TYPES: usize = 4;

/// Killed when dropped.
pub(crate) struct Istiod {
    process: Child,
    dir: TempDir,
    grpc: SocketAddr,
    http: SocketAddr,
    monitoring: SocketAddr,
}

impl Istiod {
    /// Starts with the given files and waits until it is ready.
    pub(crate) async fn start(files: &[(&str, &str)]) -> Self {
        let dir = tempfile::tempdir().unwrap();
        fs::create_dir(dir.path().join("istio")).unwrap();
        fs::write(dir.path().join("mesh.yaml"), MESH).unwrap();
        for (name, yaml) in files {
            fs::write(dir.path().join("istio").join(name), yaml).unwrap();
        }
        let [grpc, http, monitoring] = free_ports();
        let process = run(&dir, grpc, http, monitoring);
        let istiod = Self { process, dir, grpc, http, monitoring };
        istiod.ready().await;
        istiod
    }

    pub(crate) fn control_plane(&self, protocol: Protocol) -> ControlPlane {
        ControlPlane::Grpc { address: self.grpc.to_string(), protocol, root_certificate: None }
    }

    /// Ends it at once, without a word to its clients.
    pub(crate) async fn kill(&mut self) {
        self.process.kill().await.unwrap();
    }

    /// Starts it again at the same addresses.
    pub(crate) async fn restart(&mut self) {
        self.process = run(&self.dir, self.grpc, self.http, self.monitoring);
        self.ready().await;
    }

    /// Replaces one file of its configuration.
    /// At once: istiod takes a file that is being written for one without services.
    pub(crate) fn write(&self, name: &str, yaml: &str) {
        let staged = self.dir.path().join("staged.yaml");
        fs::write(&staged, yaml).unwrap();
        fs::rename(staged, self.dir.path().join("istio").join(name)).unwrap();
    }

    pub(crate) fn remove(&self, name: &str) {
        fs::remove_file(self.dir.path().join("istio").join(name)).unwrap();
    }

    /// Whether every type that was sent to this proxy is acknowledged.
    pub(crate) async fn is_synced(&self, proxy: &str) -> bool {
        let syncz: Value = serde_json::from_str(&self.debug("/debug/syncz").await).unwrap();
        let found = syncz.as_array().into_iter().flatten().find(|entry| entry["proxy"] == proxy);
        let synced = |state: &Value| state["sent"] == state["acked"];
        let types = found.and_then(|entry| entry["resources"].as_object());
        types.is_some_and(|types| types.len() >= MIN_TYPES && types.values().all(synced))
    }

    /// The body of a page for debugging; empty where there is none.
    pub(crate) async fn debug(&self, path: &str) -> String {
        get(self.monitoring, path).await.unwrap_or_default()
    }

    async fn ready(&self) {
        eventually("istiod is ready", async || get(self.http, "/ready").await.is_some()).await;
    }
}

fn run(dir: &TempDir, grpc: SocketAddr, http: SocketAddr, monitoring: SocketAddr) -> Child {
    let Some(istiod) = env::var_os("ORLOP_ISTIOD") else {
        panic!(
            "ORLOP_ISTIOD is not set: run the tests with `cargo xtask test`, which prepares what they need"
        );
    };
    let log = fs::File::create(dir.path().join("istiod.log")).unwrap();
    Command::new(istiod)
        .arg("-config-dir")
        .arg(dir.path().join("istio"))
        .arg("-mesh-config")
        .arg(dir.path().join("mesh.yaml"))
        .args(["-grpc", &grpc.to_string()])
        .args(["-http", &http.to_string()])
        .args(["-monitoring", &monitoring.to_string()])
        .stdout(Stdio::from(log.try_clone().unwrap()))
        .stderr(Stdio::from(log))
        .kill_on_drop(true)
        .spawn()
        .expect("ORLOP_ISTIOD names an istiod that can be run")
}

/// Ports that nobody has, below those that the kernel gives to clients, each handed out once: nobody else takes them
/// before the server that they are for, nor while it is down.
pub(crate) fn free_ports<const N: usize>() -> [SocketAddr; N] {
    static NEXT: AtomicU16 = AtomicU16::new(0);
    const FIRST: u16 = 10_000;
    const COUNT: u32 = 10_000;
    let next = || {
        let place = process::id().wrapping_mul(64) + u32::from(NEXT.fetch_add(1, Ordering::Relaxed));
        SocketAddr::from((Ipv4Addr::LOCALHOST, FIRST + u16::try_from(place % COUNT).unwrap()))
    };
    std::array::from_fn(|_| {
        iter::repeat_with(next).find(|address| TcpListener::bind(address).is_ok()).unwrap()
    })
}

/// The body of a successful answer.
pub(crate) async fn get(address: SocketAddr, path: &str) -> Option<String> {
    let mut connection = TcpStream::connect(address).await.ok()?;
    let request = format!("GET {path} HTTP/1.0\r\nHost: istiod\r\n\r\n");
    connection.write_all(request.as_bytes()).await.ok()?;
    let mut answer = String::new();
    connection.read_to_string(&mut answer).await.ok()?;
    let (head, body) = answer.split_once("\r\n\r\n")?;
    head.contains(" 200 ").then(|| body.to_owned())
}
