//! Where connections that come in lead.

use std::sync::Arc;

use super::chain::{ChainAt, behind_tls, chain_finding};
use super::finding::{Finding, Layer, combine, no_chain};
use super::policy::{Guarded, SourceRule};
use super::{Cause, Path, Reason, Scope, Served};
use crate::kernel::{InboundAction, SourceAction};
use crate::neighbours::{Neighbours, SameNode};
use crate::resource::FieldPath;
use crate::resource::cluster::ClusterDiscovery;
use crate::resource::listener::{FilterChain, FilterChainMatch, Listener, TransportProtocol};

/// What `virtualInbound` does with connections to a port; `None` is a port that none of its chains names.
pub(super) fn finding(served: Served<'_>, port: Option<u16>) -> Finding<'_> {
    let served = Served { modes: false, ..served };
    match &served.proxy.inbound {
        Some(listener) => port_finding(served, listener, port),
        None => Finding::new(Path::Kernel, || Reason {
            resource: "workload".to_owned(),
            field: FieldPath::root(),
            cause: Cause::NoInboundListener,
        }),
    }
}

/// A workload without an identity does not say that it accepts mutual TLS, so that peers send plaintext where they may. What
/// comes to a chain that terminates TLS all the same is refused by the application, which understands none of it.
fn port_finding<'a>(served: Served<'a>, listener: &'a Listener, port: Option<u16>) -> Finding<'a> {
    let resource = move || format!("listener `{}`", listener.name);
    let chains = chains(served, listener, port);
    let plaintext =
        |chain: &FilterChain| chain.filter_chain_match.transport_protocol != Some(TransportProtocol::Tls);
    if !served.facts.identity && !chains.iter().any(|at| plaintext(at.chain)) {
        return Finding::new(Path::Blocked, move || Reason {
            resource: resource(),
            field: FieldPath::root().field("filter_chains"),
            cause: Cause::InboundTlsRequired,
        });
    }
    let mut findings: Vec<_> = chains
        .iter()
        .map(|at| (at.layer(), unchanged(served, *at, port, chain_finding(served, *at, Scope::All))))
        .collect();
    if !chains.iter().any(|at| plaintext(at.chain) && takes_all_plaintext(at.chain)) {
        findings.push((Layer::Tcp, no_chain(resource)));
    }
    combine(&findings, resource)
}

/// The chains that connections to a port may match; without an identity, those that terminate no TLS.
fn chains<'a>(served: Served<'_>, listener: &'a Listener, port: Option<u16>) -> Vec<ChainAt<'a>> {
    let own = listener.filter_chains.iter().enumerate().map(|(index, chain)| (Some(index), chain));
    let own = own.filter(|(_, chain)| chain.filter_chain_match.destination_port == port);
    own.chain(listener.default_filter_chain.iter().map(|chain| (None, chain)))
        .map(|(position, chain)| ChainAt { chain, listener, position })
        .filter(|at| served.facts.identity || !at.terminates_tls())
        .collect()
}

/// Whether a chain that leads there passes what comes to the application's own port.
fn unchanged<'a>(
    served: Served<'a>,
    at: ChainAt<'a>,
    port: Option<u16>,
    finding: Finding<'a>,
) -> Finding<'a> {
    let local = match finding.path {
        Path::Passthrough => true,
        Path::Kernel => {
            finding.cluster.and_then(|name| served.proxy.clusters.get(name)).is_some_and(|plan| {
                matches!(plan.cluster.discovery, ClusterDiscovery::Static(_))
                    && finding.backends.as_ref().is_some_and(|set| {
                        set.backends.iter().all(|backend| {
                            served.facts.addresses.contains(&backend.address.ip())
                                && Some(backend.address.port()) == port
                        })
                    })
            })
        }
        Path::TcpProxy | Path::L7Proxy | Path::Blocked => return finding,
    };
    let reason = move |cause| Reason { resource: at.resource(), field: at.field(), cause };
    if !local {
        return Finding::new(at.layer().proxy(), move || {
            let what = "leads to another address or port";
            reason(Cause::FilterChain { chain: at.chain.name.clone(), what })
        });
    }
    Finding::new(Path::Kernel, move || {
        let proofs = vec![
            "no filter but those of the stock installation".to_owned(),
            "no access log or tracing provider".to_owned(),
            "the cluster is the application's own port".to_owned(),
        ];
        reason(Cause::InboundUnchanged { proofs })
    })
}

/// Whether plaintext of any kind matches the chain.
fn takes_all_plaintext(chain: &FilterChain) -> bool {
    let chain_match = &chain.filter_chain_match;
    FilterChainMatch { destination_port: None, transport_protocol: None, ..chain_match.clone() }
        == FilterChainMatch::default()
}

/// What the kernel is told.
pub(super) fn action(served: Served<'_>, finding: &Finding<'_>, port: Option<u16>) -> InboundAction {
    let policy = guarded(served, finding, port).and_then(|guarded| guarded.policy());
    match (policy, finding.path) {
        (Some(policy), _) => InboundAction::BySource(Arc::new(policy)),
        (None, Path::Kernel | Path::Passthrough) => InboundAction::Direct,
        (None, Path::TcpProxy | Path::L7Proxy) => InboundAction::Proxy,
        (None, Path::Blocked) => InboundAction::Drop,
    }
}

/// Who may connect, and why.
pub(super) fn rules(served: Served<'_>, finding: &Finding<'_>, port: Option<u16>) -> Vec<SourceRule> {
    guarded(served, finding, port).map_or_else(Vec::new, |guarded| guarded.rules())
}

/// `None` where nobody may connect, whatever policies say.
fn guarded<'a>(served: Served<'a>, finding: &Finding<'_>, port: Option<u16>) -> Option<Guarded<'a>> {
    let allowed = match finding.path {
        Path::Kernel | Path::Passthrough => SourceAction::Direct,
        Path::TcpProxy | Path::L7Proxy => SourceAction::Proxy,
        Path::Blocked => return None,
    };
    let chains = chains(served, served.proxy.inbound.as_deref()?, port);
    let neighbours = attested(served, &chains, port);
    Some(Guarded { chains, port, addresses: &served.facts.addresses, allowed, neighbours })
}

/// The workloads of the node that need no TLS to show who they are, where all that is behind TLS goes to the application's own
/// port unchanged.
fn attested<'a>(served: Served<'a>, chains: &[ChainAt<'a>], port: Option<u16>) -> Option<&'a Neighbours> {
    let served = Served { modes: false, ..served };
    let SameNode { principal, neighbours } = served.facts.same_node.as_ref()?;
    let goes_on = |at: &ChainAt<'a>| {
        let finding = unchanged(served, *at, port, behind_tls(served, *at, Scope::All));
        at.tls().is_some_and(|context| context.is_mesh_of(principal)) && finding.path == Path::Kernel
    };
    let mut behind = chains.iter().filter(|at| at.terminates_tls()).peekable();
    (behind.peek().is_some() && behind.all(goes_on)).then_some(neighbours)
}
