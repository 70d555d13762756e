//! A real istiod, with a directory of Istio YAML for its cluster.

use std::fs;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use anyhow::{Context, Result};
use serde_json::json;

use crate::authority::Authority;
use crate::bed::Bed;
use crate::http_get::http_get;
use crate::pod::Pod;
use crate::process::Process;
use crate::tools::{ISTIOD_ENV, prepared, workspace_binary};
use crate::wait::until;

/// What a stock installation says about the mesh, as far as it matters here.
const MESH: &str = "trustDomain: cluster.local\nrootNamespace: istio-system\n";
/// Adds `istio.stats` to every filter chain, as a stock installation does.
const STOCK_METRICS: &str = "defaultProviders: {metrics: [prometheus]}\n";

/// What the agent of a node shows, where [`Istiod::start_with_pods`] has one.
pub const NODE_TOKEN: &str = "fake:istio-system:orlop:orlop-1:uid-of-orlop-1";
const NODE_NAMESPACE: &str = "istio-system";
const NODE_ACCOUNT: &str = "orlop";
const OBJECTS_FILE: &str = "cluster.yaml";

/// An istiod that runs on the node's loopback. Ends with this handle.
#[derive(Debug)]
pub struct Istiod {
    process: Option<Process>,
    program: PathBuf,
    dir: PathBuf,
    cgroup: PathBuf,
    ports: Ports,
    for_stock_envoy: bool,
    serves_tls: bool,
    cluster: Option<Cluster>,
}

/// What it has besides its configuration.
#[derive(Default)]
struct Extras<'a> {
    /// A port for TLS.
    tls: Option<&'a Authority>,
    cluster: Option<Cluster>,
}

impl<'a> Extras<'a> {
    fn tls(authority: &'a Authority) -> Self {
        Self { tls: Some(authority), cluster: None }
    }
}

/// Objects of Kubernetes, in YAML.
#[derive(Debug, Clone)]
enum Cluster {
    /// Its authority knows the pods.
    Pods(String),
    /// The services are the mesh's.
    Services(String),
}

#[derive(Debug, Clone, Copy)]
struct Ports {
    grpc: SocketAddr,
    secure_grpc: SocketAddr,
    http: SocketAddr,
    monitoring: SocketAddr,
}

impl Istiod {
    /// Starts istiod with the given files of Istio YAML.
    pub fn start(bed: &Bed, files: &[(&str, &str)]) -> Result<Self> {
        Self::start_program(bed, prepared(ISTIOD_ENV)?, files)
    }

    /// The same, with an istiod that the environment does not name.
    pub fn start_program(bed: &Bed, program: PathBuf, files: &[(&str, &str)]) -> Result<Self> {
        Self::start_as(bed, program, &format!("{MESH}{STOCK_METRICS}"), files, false, Extras::default())
    }

    /// The same, with a mesh configuration of one's own.
    pub fn start_with_mesh(bed: &Bed, mesh: &str, files: &[(&str, &str)]) -> Result<Self> {
        Self::start_as(bed, prepared(ISTIOD_ENV)?, mesh, files, false, Extras::default())
    }

    /// The same, without the filters that exist in Istio's build of Envoy only.
    pub fn start_for_stock_envoy(bed: &Bed, files: &[(&str, &str)]) -> Result<Self> {
        Self::start_as(bed, prepared(ISTIOD_ENV)?, MESH, files, true, Extras::default())
    }

    /// The same, with more in the mesh's configuration.
    pub fn start_for_stock_envoy_with(bed: &Bed, mesh: &str, files: &[(&str, &str)]) -> Result<Self> {
        let mesh = format!("{MESH}{mesh}");
        Self::start_as(bed, prepared(ISTIOD_ENV)?, &mesh, files, true, Extras::default())
    }

    /// The same, with a port for TLS, whose certificate is this authority's.
    pub fn start_secure(bed: &Bed, authority: &Authority, files: &[(&str, &str)]) -> Result<Self> {
        Self::start_as(bed, prepared(ISTIOD_ENV)?, MESH, files, false, Extras::tls(authority))
    }

    /// The same, without the filters that exist in Istio's build of Envoy only.
    pub fn start_secure_for_stock_envoy(
        bed: &Bed,
        authority: &Authority,
        files: &[(&str, &str)],
    ) -> Result<Self> {
        Self::start_as(bed, prepared(ISTIOD_ENV)?, MESH, files, true, Extras::tls(authority))
    }

    /// The same, in a mesh that trusts another authority as well.
    pub fn start_with_roots(bed: &Bed, authority: &Authority, other: &Authority) -> Result<Self> {
        let mesh = json!({
            "trustDomain": "cluster.local",
            "rootNamespace": "istio-system",
            "caCertificates": [{ "pem": other.certificate() }],
        });
        Self::start_as(bed, prepared(ISTIOD_ENV)?, &mesh.to_string(), &[], false, Extras::tls(authority))
    }

    /// The same, with a cluster that has these pods, all on one node, and beside them the node's agent: its token, which
    /// [`NODE_TOKEN`] is, is good for certificates of their accounts.
    pub fn start_with_pods(bed: &Bed, authority: &Authority, pods: &[&Pod]) -> Result<Self> {
        let extras = Extras { tls: Some(authority), cluster: Some(Cluster::Pods(describe(pods)?)) };
        let mesh = format!("{MESH}{STOCK_METRICS}");
        Self::start_as(bed, prepared(ISTIOD_ENV)?, &mesh, &[], false, extras)
    }

    /// The same, with a cluster whose objects these are, and with the services among them.
    pub fn start_with_services(bed: &Bed, objects: &str, files: &[(&str, &str)]) -> Result<Self> {
        let extras = Extras { tls: None, cluster: Some(Cluster::Services(objects.to_owned())) };
        let mesh = format!("{MESH}{STOCK_METRICS}");
        Self::start_as(bed, prepared(ISTIOD_ENV)?, &mesh, files, false, extras)
    }

    fn start_as(
        bed: &Bed,
        program: PathBuf,
        mesh: &str,
        files: &[(&str, &str)],
        for_stock_envoy: bool,
        extras: Extras<'_>,
    ) -> Result<Self> {
        let dir = bed.dir();
        fs::create_dir_all(dir.join("istio"))?;
        let Extras { tls, cluster } = extras;
        if let Some(authority) = tls {
            authority.write(&dir.join("ca"))?;
        }
        if let Some(Cluster::Pods(objects) | Cluster::Services(objects)) = &cluster {
            fs::write(dir.join(OBJECTS_FILE), objects)?;
        }
        fs::write(dir.join("mesh.yaml"), mesh)?;
        for (name, yaml) in files {
            fs::write(dir.join("istio").join(name), yaml)?;
        }
        let mut istiod = Self {
            process: None,
            program,
            dir,
            cgroup: bed.node_cgroup()?,
            ports: Ports::free(bed)?,
            for_stock_envoy,
            serves_tls: tls.is_some(),
            cluster,
        };
        // Somebody else may take a port between the moment when it was found free and istiod's own bind.
        for _ in 0..3 {
            match istiod.restart() {
                Err(_) if istiod.log().contains("address already in use") => istiod.ports = Ports::free(bed)?,
                outcome => return outcome.map(|()| istiod),
            }
        }
        istiod.restart().map(|()| istiod)
    }

    /// Starts it again after [`Istiod::kill`], at the same addresses, and waits until it is ready.
    pub fn restart(&mut self) -> Result<()> {
        let mut command = Command::new(workspace_binary("bed-pod")?);
        command.arg("enter").arg("--cgroup").arg(&self.cgroup).arg("--").arg(&self.program);
        command.arg("-config-dir").arg(self.config_dir()).arg("-mesh-config").arg(self.dir.join("mesh.yaml"));
        command.arg("-grpc").arg(self.ports.grpc.to_string());
        command.arg("-http").arg(self.ports.http.to_string());
        command.arg("-monitoring").arg(self.ports.monitoring.to_string());
        // The defaults wait for more edits to come; the tests make one at a time.
        command.env("PILOT_DEBOUNCE_AFTER", "10ms");
        // The newer way keeps allocated addresses in the status of objects, which a directory of files has no place for.
        command.env("PILOT_ENABLE_IP_AUTOALLOCATE", "false");
        // `istioctl proxy-status` asks at the port that has no authentication.
        command.env("ENABLE_DEBUG_ENDPOINT_AUTH", "false");
        if self.for_stock_envoy {
            command.env("PILOT_ENABLE_METADATA_EXCHANGE", "false").env("PILOT_ENABLE_ALPN_FILTER", "false");
        }
        if self.serves_tls {
            command.arg("-secure-grpc").arg(self.ports.secure_grpc.to_string());
            command.env("ROOT_CA_DIR", self.dir.join("ca"));
            // The mesh's further roots are told by PCDS.
            command.env("ISTIO_MULTIROOT_MESH", "true");
        }
        if self.cluster.is_some() {
            command.arg("-cluster").arg(self.dir.join(OBJECTS_FILE));
            command.env("CA_TRUSTED_NODE_ACCOUNTS", format!("{NODE_NAMESPACE}/{NODE_ACCOUNT}"));
        }
        if let Some(Cluster::Services(_)) = &self.cluster {
            command.arg("-cluster-services");
        }
        let process = Process::spawn("istiod", &self.dir, &mut command)?;
        self.process = Some(process.ready_when(|_| http_get(self.ports.http, "/ready").map(|_| true))?);
        Ok(())
    }

    /// Kills it as `kill -9` does.
    pub fn kill(&mut self) {
        self.process = None;
    }

    /// Where it serves xDS, in plain text.
    pub fn address(&self) -> SocketAddr {
        self.ports.grpc
    }

    /// Where it serves xDS in TLS, if it does.
    pub fn secure_address(&self) -> SocketAddr {
        self.ports.secure_grpc
    }

    fn config_dir(&self) -> PathBuf {
        self.dir.join("istio")
    }

    /// Writes a file of Istio YAML at once and returns when istiod has read it. Its push to the agents follows: wait
    /// for the effect.
    ///
    /// Fails when istiod takes nothing in: one invalid document keeps it from reading the whole directory, silently.
    pub fn apply(&self, name: &str, yaml: &str) -> Result<()> {
        let staged = self.dir.join("staged.yaml");
        fs::write(&staged, yaml)?;
        self.edit(|dir| Ok(fs::rename(&staged, dir.join(name))?))
    }

    /// Removes a file and returns when istiod has noticed.
    pub fn delete(&self, name: &str) -> Result<()> {
        self.edit(|dir| Ok(fs::remove_file(dir.join(name))?))
    }

    /// Removes a file while istiod does not run.
    pub fn delete_while_away(&self, name: &str) -> Result<()> {
        Ok(fs::remove_file(self.config_dir().join(name))?)
    }

    fn edit(&self, change: impl FnOnce(&Path) -> Result<()>) -> Result<()> {
        let before = self.updates_taken_in()?;
        change(&self.config_dir())?;
        until("istiod to take in the configuration (is a document invalid?)", Duration::from_secs(5), || {
            Ok((self.updates_taken_in()? > before).then_some(()))
        })
    }

    fn updates_taken_in(&self) -> Result<u64> {
        let metrics = http_get(self.ports.monitoring, "/metrics")?;
        let counts = metrics.lines().filter(|line| line.starts_with("pilot_inbound_updates{"));
        counts
            .map(|line| Ok(line.rsplit(' ').next().context("a metric without a value")?.parse::<u64>()?))
            .sum()
    }

    /// One of istiod's debug pages (`/debug/syncz`, `/debug/configz`, …), as JSON.
    pub fn debug(&self, page: &str) -> Result<serde_json::Value> {
        Ok(serde_json::from_str(&http_get(self.ports.http, page)?)?)
    }

    /// What istiod has printed.
    pub fn log(&self) -> String {
        fs::read_to_string(self.dir.join("istiod.log")).unwrap_or_default()
    }
}

/// Pods as Kubernetes has them, and the agent's own.
fn describe(pods: &[&Pod]) -> Result<String> {
    let of_bed = pods.iter().map(|pod| ("default", pod.name(), pod.account()));
    let mut documents = Vec::new();
    for (namespace, name, account) in of_bed.chain([(NODE_NAMESPACE, "orlop-1", NODE_ACCOUNT)]) {
        documents.push(serde_norway::to_string(&json!({
            "apiVersion": "v1",
            "kind": "Pod",
            "metadata": { "name": name, "namespace": namespace, "uid": format!("uid-of-{name}") },
            "spec": { "nodeName": "node-1", "serviceAccountName": account },
            "status": { "phase": "Running" },
        }))?);
    }
    Ok(documents.join("---\n"))
}

impl Ports {
    /// Ports that are free now, below those that the kernel gives to clients: while istiod is down, none of the
    /// agent's attempts to reach it can occupy its port. Every bed begins to look elsewhere.
    fn free(bed: &Bed) -> Result<Self> {
        const RANGE: std::ops::Range<u16> = 20_000..32_000;
        let mut hash = DefaultHasher::new();
        bed.node_name().hash(&mut hash);
        let offset = usize::try_from(hash.finish() % u64::try_from(RANGE.len())?)?;
        let mut free = RANGE.cycle().skip(offset).take(RANGE.len()).filter_map(|port| {
            let address = SocketAddr::from((Ipv4Addr::LOCALHOST, port));
            TcpListener::bind(address).is_ok().then_some(address)
        });
        let mut next = || free.next().context("no port is free");
        Ok(Self { grpc: next()?, secure_grpc: next()?, http: next()?, monitoring: next()? })
    }
}
