//! The pods of the demo and their control plane: the hand-written files of `integration/demo/xds`, or an istiod that
//! says the same.

use std::fs;
use std::path::PathBuf;

use anyhow::{Context, Result};
use orlop_integration::istio::document;
use orlop_integration::{Agent, Bed, ControlPlane, Istiod, Pod, Service};
use serde_json::json;

use crate::setup;

/// Everything that is up. Fields are dropped in order: whoever uses something ends before it.
pub(super) struct Scene {
    pub(super) agent: Agent,
    pub(super) istiod: Option<Istiod>,
    /// Where the configuration can be edited.
    pub(super) config: PathBuf,
    /// The pod that the agent carries.
    pub(super) client: Pod,
    /// A pod like it outside the mesh, for the direct connections.
    pub(super) bystander: Pod,
    pub(super) servers: Vec<Pod>,
    pub(super) bed: Bed,
}

impl Scene {
    /// Starts pods, control plane and agent.
    pub(super) fn open(istiod: Option<PathBuf>) -> Result<Self> {
        let bed = Bed::new()?;
        // In this order they get 10.77.0.1 and so on, which the files of the demo name.
        let client = bed.pod("client").label("app", "client").start()?;
        let mut servers = Vec::new();
        for (name, app, version) in [
            ("db-1", "db", "v1"),
            ("db-2", "db", "v1"),
            ("web-v1", "web", "v1"),
            ("web-v2", "web", "v2"),
            ("cache-v1", "cache", "v1"),
            ("cache-v2", "cache", "v2"),
            ("legacy", "legacy", "v1"),
        ] {
            let pod = bed.pod(name).label("app", app).label("version", version).start()?;
            match app {
                "web" => pod.serve_http(8080)?,
                "db" => pod.serve_tcp(5432)?,
                "cache" => pod.serve_tcp(6379)?,
                _ => pod.serve_tcp(7000)?,
            }
            servers.push(pod);
        }
        let bystander = bed.plain_pod("bystander")?;
        bystander.serve_tcp(7000)?;
        let (istiod, config, control_plane) = if let Some(program) = istiod {
            let istiod = Istiod::start_program(&bed, program, &[("demo.yaml", &istio_config(&servers)?)])?;
            let control_plane = ControlPlane::from(&istiod);
            (Some(istiod), bed.dir().join("istio"), control_plane)
        } else {
            let directory = copy_files(&bed)?;
            (None, directory.clone(), ControlPlane::Directory(directory))
        };
        let agent = Agent::start(&bed, control_plane, &[&client])?;
        Ok(Self { agent, istiod, config, client, bystander, servers, bed })
    }

    /// The pod with that name.
    pub(super) fn server(&self, name: &str) -> Result<&Pod> {
        self.servers.iter().find(|pod| pod.name() == name).with_context(|| format!("no pod {name}"))
    }
}

/// A copy, so that whoever explores the demo may edit it.
fn copy_files(bed: &Bed) -> Result<PathBuf> {
    let to = bed.dir().join("xds");
    fs::create_dir(&to)?;
    for entry in fs::read_dir(setup::workspace()?.join("integration/demo/xds"))? {
        let entry = entry?;
        fs::copy(entry.path(), to.join(entry.file_name()))?;
    }
    Ok(to)
}

/// The files of `integration/demo/xds` in Istio's words.
fn istio_config(servers: &[Pod]) -> Result<String> {
    let with_pods = |app: &str, service: Service| {
        let pods = servers.iter().filter(|pod| pod.labels().get("app").is_some_and(|label| label == app));
        pods.fold(service, Service::endpoint)
    };
    let db = with_pods("db", Service::new("db", "10.96.0.10").tcp(5432, 5432));
    let web = with_pods("web", Service::new("web", "10.96.0.20").http(8080, 8080));
    let cache = with_pods("cache", Service::new("cache", "10.96.0.30").tcp(6379, 6379));
    let legacy = servers.last().context("the last of the servers is outside the mesh")?;
    let cache_share = |subset: &str, weight: u32| json!({"destination": {"host": cache.host(), "subset": subset, "port": {"number": 6379}}, "weight": weight});
    Ok([
        db.yaml(),
        cache.yaml(),
        cache.subsets_by_version(&["v1", "v2"]),
        cache.tcp_routes(&json!([
            {"match": [{"port": 6379}], "route": [cache_share("v1", 90), cache_share("v2", 10)]},
        ])),
        web.yaml(),
        web.subsets_by_version(&["v1", "v2"]),
        web.http_routes(&json!([
            {"match": [{"uri": {"exact": "/teapot"}}],
             "directResponse": {"status": 418, "body": {"string": "short and stout"}}},
            {"match": [{"headers": {"x-canary": {"exact": "true"}}}], "route": [web.subset("v2")]},
            {"route": [web.weighted_subset("v1", 70), web.weighted_subset("v2", 30)]},
        ])),
        document(&json!({
            "apiVersion": "networking.istio.io/v1",
            "kind": "ServiceEntry",
            "metadata": {"name": "legacy", "namespace": "default"},
            "spec": {
                "hosts": ["legacy.example"],
                "addresses": [legacy.ip()],
                "resolution": "NONE",
                "ports": [{"number": 7000, "name": "tcp", "protocol": "TCP"}],
            },
        })),
        document(&json!({
            "apiVersion": "networking.istio.io/v1",
            "kind": "Sidecar",
            "metadata": {"name": "default", "namespace": "default"},
            "spec": {"outboundTrafficPolicy": {"mode": "REGISTRY_ONLY"}},
        })),
    ]
    .concat())
}
