//! A plain control plane on go-control-plane, with the resources of one file.

use std::env;
use std::fs;
use std::net::SocketAddr;
use std::process::Stdio;

use orlop_xds_client::{ControlPlane, Protocol};
use serde_json::Value;
use tempfile::TempDir;
use tokio::process::{Child, Command};

use crate::consumer::eventually;
use crate::server::{free_ports, get};

/// Killed when dropped.
pub(crate) struct Adsd {
    process: Child,
    dir: TempDir,
    grpc: SocketAddr,
    http: SocketAddr,
}

impl Adsd {
    pub(crate) async fn start(content: &str) -> Self {
        let dir = tempfile::tempdir().unwrap();
        fs::write(dir.path().join("xds.yaml"), content).unwrap();
        let [grpc, http] = free_ports();
        let mut adsd = Self { process: run(&dir, grpc, http), dir, grpc, http };
        adsd.ready().await;
        adsd
    }

    pub(crate) fn control_plane(&self, protocol: Protocol) -> ControlPlane {
        ControlPlane::Grpc { address: self.grpc.to_string(), protocol, root_certificate: None }
    }

    pub(crate) async fn restart(&mut self) {
        self.process.kill().await.unwrap();
        self.process = run(&self.dir, self.grpc, self.http);
        self.ready().await;
    }

    pub(crate) fn write(&self, content: &str) {
        let staged = self.dir.path().join("staged");
        fs::write(&staged, content).unwrap();
        fs::rename(staged, self.dir.path().join("xds.yaml")).unwrap();
    }

    /// What clients have told it.
    pub(crate) async fn status(&self) -> Value {
        let body = get(self.http, "/status").await.unwrap_or_default();
        serde_json::from_str(&body).unwrap_or_default()
    }

    async fn ready(&mut self) {
        eventually("adsd is ready", async || self.status().await.is_object()).await;
    }
}

fn run(dir: &TempDir, grpc: SocketAddr, http: SocketAddr) -> Child {
    let adsd = env::var_os("ORLOP_ADSD")
        .expect("ORLOP_ADSD is set: run the tests with `cargo xtask test`, which prepares what they need");
    Command::new(adsd)
        .arg("-file")
        .arg(dir.path().join("xds.yaml"))
        .args(["-grpc", &grpc.to_string(), "-http", &http.to_string()])
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .kill_on_drop(true)
        .spawn()
        .expect("ORLOP_ADSD names a program that can be run")
}
