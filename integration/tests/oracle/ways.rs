//! The client's two ways to the same service: through Orlop and through Envoy.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};

use anyhow::Result;
use orlop_integration::fixture::server;
use orlop_integration::traffic::Headers;
use orlop_integration::{Agent, Bed, Call, Envoy, Istiod, Mesh, Pod, Reply, Service};
use serde_json::Value;

/// One pod behind each, of one kind: istiod gives both the same configuration.
pub(crate) struct Ways {
    pub(crate) agent: Agent,
    pub(crate) sidecar: Envoy,
    _istiod: Istiod,
    pub(crate) orlop: Pod,
    pub(crate) envoy: Pod,
    pub(crate) servers: [Pod; 2],
    _resolver: Option<Pod>,
    pub(crate) web: Service,
    _bed: Bed,
}

/// What is compared of an answer.
#[derive(Debug, PartialEq)]
pub(crate) struct Answer {
    status: u16,
    error: bool,
    server: Option<String>,
    /// Headers that the configuration or HTTP itself gives a meaning to.
    headers: Vec<(String, String)>,
    /// The body, when the proxy itself has answered.
    body: Option<String>,
    /// What the server saw.
    seen: Option<Seen>,
}

/// What is compared of a request as it reached the server.
#[derive(Debug, PartialEq)]
struct Seen {
    method: String,
    path: String,
    authority: String,
    headers: Vec<(String, String)>,
    body_bytes: usize,
}

/// Different by design: Orlop keeps the pod's own connection visible to the server, and says neither `server: envoy`
/// nor how long the upstream took. `date` differs in any case. These are never compared.
const COMPARED_RESPONSE_HEADERS: [&str; 14] = [
    "location",
    "content-type",
    "x-resp",
    "x-echo-server",
    "allow",
    "grpc-status",
    "grpc-message",
    "vary",
    "access-control-allow-origin",
    "access-control-allow-credentials",
    "access-control-allow-methods",
    "access-control-allow-headers",
    "access-control-expose-headers",
    "access-control-max-age",
];
const COMPARED_REQUEST_HEADERS: [&str; 5] = ["x-set", "x-add", "x-rm", "x-kept", "x-absent"];

impl Ways {
    /// With these routes, and a subset for each of the two versions.
    pub(crate) fn open(routes: impl FnOnce(&Service) -> Value) -> Result<Self> {
        Self::with(|web| web.subsets_by_version(&["v1", "v2"]) + &web.http_routes(&routes(web)))
    }

    /// With this configuration beside the service.
    pub(crate) fn with(config: impl FnOnce(&Service) -> String) -> Result<Self> {
        Self::with_mesh("", |web, _| config(web))
    }

    /// The same, with more in the mesh's configuration.
    pub(crate) fn with_mesh(mesh: &str, config: impl FnOnce(&Service, &[Pod; 2]) -> String) -> Result<Self> {
        Self::in_bed(Bed::new()?, None, mesh, config)
    }

    /// With this configuration of the two servers beside the service, and a resolver that both ways ask for names.
    pub(crate) fn with_resolver(config: impl FnOnce(&[Pod; 2]) -> String) -> Result<Self> {
        let bed = Bed::new()?;
        let resolver = bed.resolver("resolver")?;
        Self::in_bed(bed, Some(resolver), "", |_, servers| config(servers))
    }

    fn in_bed(
        bed: Bed,
        resolver: Option<Pod>,
        mesh: &str,
        config: impl FnOnce(&Service, &[Pod; 2]) -> String,
    ) -> Result<Self> {
        let orlop = bed.pod("orlop").label("app", "client").account("client").start()?;
        let envoy = bed.pod("envoy").label("app", "client").account("client").start()?;
        let servers = [server(&bed, "v1")?, server(&bed, "v2")?];
        let web = servers.iter().fold(Mesh::describe_web(), Service::endpoint);
        let config = web.yaml() + &config(&web, &servers);
        let istiod = Istiod::start_for_stock_envoy_with(&bed, mesh, &[("mesh.yaml", &config)])?;
        let sidecar = Envoy::start(&bed, &envoy, &istiod)?;
        let agent = Agent::start(&bed, &istiod, &[&orlop])?;
        Ok(Self {
            agent,
            sidecar,
            _istiod: istiod,
            orlop,
            envoy,
            servers,
            _resolver: resolver,
            web,
            _bed: bed,
        })
    }

    /// `GET /` to the service by its name.
    pub(crate) fn request(&self) -> Call {
        self.orlop.http(Mesh::WEB).host(&self.web.host()).into_call()
    }

    /// Sends every request both ways and fails with all the differences.
    pub(crate) fn compare(&self, requests: &[(&str, Call)]) -> Result<()> {
        let mut differences = Vec::new();
        for (name, call) in requests {
            let by_orlop = Answer::of(&self.orlop.http(call.to).call(call.clone()).send()?);
            let by_envoy = Answer::of(&self.envoy.http(call.to).call(call.clone()).send()?);
            if by_orlop != by_envoy {
                differences.push(format!("{name}\n  Orlop: {by_orlop:?}\n  Envoy: {by_envoy:?}"));
            }
        }
        assert_none(&differences);
        Ok(())
    }

    /// What each proxy counted under names that contain `filter`.
    pub(crate) fn counted(&self, filter: &str) -> Result<[String; 2]> {
        Ok([counted(&self.orlop, filter)?, counted(&self.envoy, filter)?])
    }
}

/// What a pod's proxy counted under names that contain `filter`, but what is zero.
pub(crate) fn counted(pod: &Pod, filter: &str) -> Result<String> {
    const ADMIN: SocketAddr = SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), 15000);
    let stats = pod.http(ADMIN).path(&format!("/stats?filter={filter}")).send()?.body;
    let mut lines: Vec<_> = stats.lines().filter(|line| !line.ends_with(": 0")).collect();
    lines.sort_unstable();
    Ok(lines.join("\n"))
}

impl Answer {
    /// What matters of a reply.
    pub(crate) fn of(reply: &Reply) -> Self {
        let seen = reply.echo().ok();
        Self {
            status: reply.status,
            error: reply.error.is_some(),
            server: reply.server.clone(),
            headers: pick(&COMPARED_RESPONSE_HEADERS, &reply.headers),
            body: seen.is_none().then(|| reply.body.clone()),
            seen: seen.map(|echo| Seen {
                method: echo.method,
                path: echo.path,
                authority: echo.authority,
                headers: pick(&COMPARED_REQUEST_HEADERS, &echo.headers),
                body_bytes: echo.body_bytes,
            }),
        }
    }
}

fn pick(names: &[&str], headers: &Headers) -> Vec<(String, String)> {
    let picked = headers.iter().filter(|(name, _)| names.contains(&name.as_str()));
    picked.map(|(name, value)| (name.clone(), value.clone())).collect()
}

/// Fails with all of them at once.
pub(crate) fn assert_none(differences: &[String]) {
    assert!(differences.is_empty(), "{} differ:\n{}", differences.len(), differences.join("\n"));
}
