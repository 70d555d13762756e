//! Verdicts for connections that come in.

use std::collections::BTreeSet;

use super::chain::{ChainAt, all_hosts, chain_finding};
use super::finding::{Finding, Layer, combine};
use super::{Cause, Classified, Path};
use crate::compile::WorkloadFacts;
use crate::kernel::InboundAction;
use crate::proxy::ProxyPlan;
use crate::resource::FieldPath;
use crate::resource::cluster::ClusterDiscovery;
use crate::resource::listener::{
    DownstreamTransportSocket, FilterChain, FilterChainMatch, Listener, TransportProtocol,
};

/// Verdicts of `virtualInbound`, by port.
pub(super) fn inbound(proxy: &ProxyPlan, facts: &WorkloadFacts, classified: &mut Classified) {
    let Some(listener) = &proxy.inbound else {
        let cause = Cause::NoInboundListener;
        classified.inbound_elsewhere(&Finding::new(Path::Kernel, "workload", FieldPath::root(), cause));
        return;
    };
    let ports: BTreeSet<u16> =
        listener.filter_chains.iter().filter_map(|chain| chain.filter_chain_match.destination_port).collect();
    for port in ports {
        classified.inbound(port, &port_finding(proxy, facts, listener, Some(port)));
    }
    classified.inbound_elsewhere(&port_finding(proxy, facts, listener, None));
}

/// The workload does not say that it accepts mutual TLS, so that peers send plaintext where they may. What comes to a
/// chain that terminates TLS all the same is refused by the application, which understands none of it.
fn port_finding(proxy: &ProxyPlan, facts: &WorkloadFacts, listener: &Listener, port: Option<u16>) -> Finding {
    let resource = format!("listener `{}`", listener.name);
    let chains: Vec<_> = listener
        .filter_chains
        .iter()
        .enumerate()
        .filter(|(_, chain)| chain.filter_chain_match.destination_port == port)
        .map(|(index, chain)| (FieldPath::root().field("filter_chains").index(index), chain.as_ref()))
        .chain(
            listener
                .default_filter_chain
                .iter()
                .map(|chain| (FieldPath::root().field("default_filter_chain"), chain.as_ref())),
        )
        .filter(|(_, chain)| chain.transport_socket == DownstreamTransportSocket::RawBuffer)
        .collect();
    let plaintext =
        |chain: &FilterChain| chain.filter_chain_match.transport_protocol != Some(TransportProtocol::Tls);
    if !chains.iter().any(|(_, chain)| plaintext(chain)) {
        let field = FieldPath::root().field("filter_chains");
        return Finding::new(Path::Blocked, &resource, field, Cause::InboundTlsRequired);
    }
    let mut findings: Vec<_> = chains
        .iter()
        .map(|(field, chain)| {
            let at = ChainAt { chain, resource: &resource, field };
            (at.layer(), unchanged(proxy, facts, at, port))
        })
        .collect();
    if !chains.iter().any(|(_, chain)| plaintext(chain) && takes_all_plaintext(chain)) {
        let finding = Finding::new(Path::Blocked, &resource, FieldPath::root(), Cause::NoChain);
        findings.push((Layer::Tcp, finding));
    }
    combine(&findings, &resource)
        .unwrap_or_else(|| Finding::new(Path::Blocked, &resource, FieldPath::root(), Cause::NoChain))
}

/// Whether a chain passes what comes to the application's own port.
fn unchanged(proxy: &ProxyPlan, facts: &WorkloadFacts, at: ChainAt<'_>, port: Option<u16>) -> Finding {
    let finding = chain_finding(proxy, at, all_hosts);
    let local = match finding.path {
        Path::Passthrough => true,
        Path::Kernel => {
            finding.cluster.as_ref().and_then(|name| proxy.clusters.get(name)).is_some_and(|plan| {
                matches!(plan.cluster.discovery, ClusterDiscovery::Static(_))
                    && finding.backends.as_ref().is_some_and(|set| {
                        set.backends.iter().all(|backend| {
                            facts.addresses.contains(&backend.address.ip())
                                && Some(backend.address.port()) == port
                        })
                    })
            })
        }
        Path::TcpProxy | Path::L7Proxy | Path::Blocked => return finding,
    };
    if !local {
        let cause =
            Cause::FilterChain { chain: at.chain.name.clone(), what: "leads to another address or port" };
        return Finding::new(at.layer().proxy(), at.resource, at.field.clone(), cause);
    }
    let proofs = vec![
        "no filter but those of the stock installation".to_owned(),
        "no access log or tracing provider".to_owned(),
        "the cluster is the application's own port".to_owned(),
    ];
    Finding::new(Path::Kernel, at.resource, at.field.clone(), Cause::InboundUnchanged { proofs })
}

/// Whether plaintext of any kind matches the chain.
fn takes_all_plaintext(chain: &FilterChain) -> bool {
    let chain_match = &chain.filter_chain_match;
    FilterChainMatch { destination_port: None, transport_protocol: None, ..chain_match.clone() }
        == FilterChainMatch::default()
}

/// What the kernel is told.
pub(super) fn action(finding: &Finding) -> InboundAction {
    match finding.path {
        Path::Kernel | Path::Passthrough => InboundAction::Direct,
        Path::TcpProxy | Path::L7Proxy => InboundAction::Proxy,
        Path::Blocked => InboundAction::Drop,
    }
}
