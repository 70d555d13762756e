//! The mesh of tests with mutual TLS: a real istiod, the certificates of its authority, and the workloads of one agent.

use std::fs;

use anyhow::Result;
use serde_json::json;

use crate::istio::document;
use crate::istiod::NODE_TOKEN;
use crate::{Agent, Authority, Bed, Istiod, Mesh, Pod, Service};

/// A client and a server that says that it takes mutual TLS, both carried by the agent, and a pod that nobody carries.
pub struct SecureMesh {
    /// With certificates for the client and the server.
    pub agent: Agent,
    /// Whose authority they come from.
    pub istiod: Istiod,
    /// Of the account `client`.
    pub client: Pod,
    /// Of the account `server`; the only endpoint of [`Mesh::describe_web`]'s service.
    pub server: Pod,
    /// Carried by nobody.
    pub outsider: Pod,
    /// The service.
    pub web: Service,
    _bed: Bed,
}

impl SecureMesh {
    /// With a `PeerAuthentication` of this mode for the whole namespace.
    pub fn new(mode: &str) -> Result<Self> {
        Self::with(mode, "tls")
    }

    /// The same, where the kernel attests who connects in the place of mutual TLS.
    pub fn attested(mode: &str) -> Result<Self> {
        Self::with(mode, "attested")
    }

    fn with(mode: &str, same_node: &str) -> Result<Self> {
        let (bed, authority) = (Bed::new()?, Authority::new()?);
        let client = bed.pod("client").label("app", "client").account("client").start()?;
        let outsider = bed.pod("outsider").start()?;
        let server = bed.pod("server").label("app", "web").label("security.istio.io/tlsMode", "istio");
        let server = server.account("server").start()?;
        server.serve_http(8080)?;
        server.serve_tcp(9000)?;
        let web = Mesh::describe_web().endpoint(&server);
        let istiod = Istiod::start_with_pods(&bed, &authority, &[&client, &server])?;
        istiod.apply("mesh.yaml", &(web.yaml() + &peer_authentication(mode)))?;
        let mut agent = Agent::described(&bed, &istiod, &[])?;
        let file = |name: &str, text: &str| -> Result<_> {
            let path = bed.dir().join(name);
            fs::write(&path, text)?;
            Ok(path)
        };
        agent.set_identity(json!({
            "certificateAuthority": istiod.secure_address().to_string(),
            "rootCertificate": file("root.pem", authority.certificate())?,
            "token": file("node.token", NODE_TOKEN)?,
            "sameNode": same_node,
        }));
        agent.set_workloads(&[&client, &server])?;
        agent.restart()?;
        Ok(Self { agent, istiod, client, server, outsider, web, _bed: bed })
    }

    /// The `x-forwarded-client-cert` that a request of the client to the service arrives with.
    pub fn shown(&self) -> Result<Option<String>> {
        let echo = self.client.http(Mesh::WEB).host(&self.web.host()).send()?.echo()?;
        Ok(echo.headers.get("x-forwarded-client-cert").cloned())
    }
}

/// A `PeerAuthentication` for the namespace `default`.
pub fn peer_authentication(mode: &str) -> String {
    document(&json!({
        "apiVersion": "security.istio.io/v1",
        "kind": "PeerAuthentication",
        "metadata": {"name": "default", "namespace": "default"},
        "spec": {"mtls": {"mode": mode}},
    }))
}
