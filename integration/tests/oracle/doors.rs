//! Two servers of the same kind, one behind Orlop and one behind Envoy: istiod gives both the same configuration.

use anyhow::Result;
use orlop_integration::fixture::server;
use orlop_integration::{Agent, Bed, Call, Envoy, Istiod, Mesh, Pod, Reply};

use crate::ways::{assert_none, counted};

pub(crate) struct Doors {
    pub(crate) agent: Agent,
    pub(crate) sidecar: Envoy,
    _istiod: Istiod,
    /// Who knocks: a pod that nobody carries.
    pub(crate) client: Pod,
    pub(crate) orlop: Pod,
    pub(crate) envoy: Pod,
    _others: Vec<Pod>,
    _bed: Bed,
}

/// A request by name, and whether it is to be let in.
pub(crate) struct Knock {
    pub(crate) name: String,
    pub(crate) call: Call,
    pub(crate) is_let_in: bool,
}

impl Doors {
    /// `config` says who is let in, with the client known.
    pub(crate) fn open(config: impl FnOnce(&Pod) -> String) -> Result<Self> {
        Self::with_mesh("", |_, client| Ok((Vec::new(), config(client))))
    }

    /// The same, with more in the mesh's configuration and more pods.
    pub(crate) fn with_mesh(
        mesh: &str,
        config: impl FnOnce(&Bed, &Pod) -> Result<(Vec<Pod>, String)>,
    ) -> Result<Self> {
        let bed = Bed::new()?;
        let client = bed.pod("client").start()?;
        let (orlop, envoy) = (server(&bed, "orlop")?, server(&bed, "envoy")?);
        let web = Mesh::describe_web().endpoint(&orlop).endpoint(&envoy);
        let (others, config) = config(&bed, &client)?;
        let config = web.yaml() + &config;
        let istiod = Istiod::start_for_stock_envoy_with(&bed, mesh, &[("mesh.yaml", &config)])?;
        let sidecar = Envoy::start_with_inbound(&bed, &envoy, &istiod)?;
        let agent = Agent::start(&bed, &istiod, &[&orlop])?;
        Ok(Self { agent, sidecar, _istiod: istiod, client, orlop, envoy, _others: others, _bed: bed })
    }

    /// `GET /` as if to the service.
    pub(crate) fn request(&self) -> Call {
        self.client.http(self.orlop.at(8080)).host("web.default.svc.cluster.local").into_call()
    }

    /// The answer of each door to a request.
    pub(crate) fn ask(&self, call: &Call) -> Result<[Reply; 2]> {
        let ask =
            |pod: &Pod| self.client.http(pod.at(8080)).call(Call { to: pod.at(8080), ..call.clone() }).send();
        Ok([ask(&self.orlop)?, ask(&self.envoy)?])
    }

    /// Knocks at both doors and fails with all that is not let in or turned away as it should be, and alike.
    pub(crate) fn compare(&self, knocks: &[Knock]) -> Result<()> {
        let mut differences = Vec::new();
        for Knock { name, call, is_let_in } in knocks {
            let [by_orlop, by_envoy] = self.ask(call)?.map(|reply| {
                let own_words = reply.server.is_none().then_some(reply.body);
                (reply.status, own_words)
            });
            let expected = if *is_let_in { 200 } else { 403 };
            if by_orlop != by_envoy || by_orlop.0 != expected {
                differences.push(format!("{name}: {expected}\n  Orlop: {by_orlop:?}\n  Envoy: {by_envoy:?}"));
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
