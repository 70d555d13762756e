//! Two pods of one kind, one carried by Orlop and one by a real Envoy, and what `istioctl` says of their dumps.

use std::fs;
use std::net::{Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Result, ensure};
use orlop_integration::fixture::server;
use orlop_integration::istio::document;
use orlop_integration::tools::{ISTIOCTL_ENV, prepared};
use orlop_integration::{Agent, Bed, Envoy, Istiod, Mesh, Pod, Service};
use serde_json::{Value, json};

/// Where the admin interface is, of a sidecar and of Orlop.
const ADMIN: SocketAddr = SocketAddr::new(std::net::IpAddr::V4(Ipv4Addr::LOCALHOST), 15000);
/// `istioctl` wants to know of a cluster even where it asks none.
const NO_CLUSTER: &str = r#"{
    "apiVersion": "v1", "kind": "Config", "current-context": "none",
    "clusters": [{"name": "none", "cluster": {"server": "http://127.0.0.1:1"}}],
    "contexts": [{"name": "none", "context": {"cluster": "none", "user": "none"}}],
    "users": [{"name": "none", "user": {}}]
}"#;

/// Fields are dropped in order: whoever uses something ends before it.
pub(crate) struct Sidecars {
    _agent: Agent,
    _envoy: Envoy,
    pub(crate) istiod: Istiod,
    pub(crate) orlop: Pod,
    pub(crate) envoy: Pod,
    _servers: [Pod; 2],
    bed: Bed,
}

impl Sidecars {
    pub(crate) fn start() -> Result<Self> {
        let bed = Bed::new()?;
        let orlop = bed.pod("orlop").label("app", "shop").account("shop").start()?;
        let envoy = bed.pod("envoy").label("app", "shop").account("shop").start()?;
        let servers = [server(&bed, "v1")?, server(&bed, "v2")?];
        let istiod = Istiod::start_for_stock_envoy(
            &bed,
            &[("mesh.yaml", &config([&orlop, &envoy], [&servers[0], &servers[1]]))],
        )?;
        let sidecar = Envoy::start(&bed, &envoy, &istiod)?;
        let agent = Agent::start(&bed, &istiod, &[&orlop])?;
        Ok(Self { _agent: agent, _envoy: sidecar, istiod, orlop, envoy, _servers: servers, bed })
    }

    /// What the admin interface of a pod answers, in a file for `istioctl`.
    pub(crate) fn dump(&self, pod: &Pod, path: &str, file: &str) -> Result<PathBuf> {
        let reply = pod.http(ADMIN).path(path).send()?;
        ensure!(reply.status == 200, "{path} of {}: {reply:?}", pod.name());
        let file = self.bed.dir().join(format!("{}-{file}", pod.name()));
        fs::write(&file, &reply.body)?;
        Ok(file)
    }

    /// What `istioctl proxy-config <arguments> --file <dump>` prints.
    pub(crate) fn proxy_config(&self, arguments: &str, dump: &Path) -> Result<String> {
        self.istioctl(&format!("proxy-config {arguments} --file {}", dump.display()))
    }

    /// What `istioctl proxy-status` prints, asked of istiod itself.
    pub(crate) fn proxy_status(&self) -> Result<String> {
        // Named by hand, the revision is not looked for in the cluster.
        let istiod = self.istiod.address();
        self.istioctl(&format!("proxy-status --plaintext --xds-address {istiod} --revision default"))
    }

    fn istioctl(&self, arguments: &str) -> Result<String> {
        let dir = self.bed.dir();
        let kubeconfig = dir.join("no-cluster.yaml");
        fs::write(&kubeconfig, NO_CLUSTER)?;
        // It waits for ever for what it does not get.
        let mut command = Command::new("timeout");
        command.arg("20").arg(prepared(ISTIOCTL_ENV)?);
        command.args(arguments.split(' ')).env("HOME", dir).env("KUBECONFIG", kubeconfig);
        let output = command.output()?;
        let (stdout, stderr) = (String::from_utf8(output.stdout)?, String::from_utf8_lossy(&output.stderr));
        ensure!(output.status.success() && stderr.is_empty(), "istioctl {arguments}: {stderr}{stdout}");
        Ok(stdout)
    }
}

/// A shop: plain HTTP with versions, routes of every kind, gRPC, TCP, and the pods' own service for the inbound side.
fn config(shop: [&Pod; 2], versions: [&Pod; 2]) -> String {
    let web = versions.into_iter().fold(Mesh::describe_web(), Service::endpoint);
    let cart =
        versions.into_iter().fold(Service::new("cart", "10.96.0.21").http(7070, 8080), Service::endpoint);
    let own = Service::new("shop", "10.96.0.22").http(8080, 8080).tcp(9000, 9000);
    let own = shop.into_iter().fold(own, Service::endpoint);
    let routes = json!([
        {"name": "canary", "match": [{"uri": {"prefix": "/v2"}, "headers": {"x-canary": {"exact": "1"}}}],
         "rewrite": {"uri": "/"}, "timeout": "2s", "route": [web.subset("v2")]},
        {"match": [{"uri": {"exact": "/old"}}], "redirect": {"uri": "/new", "redirectCode": 302}},
        {"match": [{"uri": {"exact": "/teapot"}}], "directResponse": {"status": 418, "body": {"string": "teapot"}}},
        {"retries": {"attempts": 3, "perTryTimeout": "1s", "retryOn": "5xx"},
         "route": [web.weighted_subset("v1", 90), web.weighted_subset("v2", 10)]},
    ]);
    let limits: Value = json!({
        "apiVersion": "networking.istio.io/v1",
        "kind": "DestinationRule",
        "metadata": {"name": "cart", "namespace": "default"},
        "spec": {"host": cart.host(), "trafficPolicy": {
            "connectionPool": {"tcp": {"maxConnections": 100, "connectTimeout": "2s"},
                               "http": {"http1MaxPendingRequests": 10, "maxRetries": 7}},
            "loadBalancer": {"simple": "ROUND_ROBIN"},
            "outlierDetection": {"consecutive5xxErrors": 5, "interval": "10s", "baseEjectionTime": "30s"},
        }},
    });
    web.yaml()
        + &cart.yaml()
        + &own.yaml()
        + &web.subsets_by_version(&["v1", "v2"])
        + &web.http_routes(&routes)
        + &document(&limits)
}
