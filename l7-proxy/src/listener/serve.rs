//! Finds out who serves an accepted connection, and lets them.

use std::rc::Rc;
use std::sync::Arc;

use bytes::Bytes;
use orlop_plan::chain_match::{ConnectionFacts, select_chain};
use orlop_plan::rbac::{Answer, decide};
use orlop_plan::resource::http_connection_manager::CodecType;
use orlop_plan::resource::listener::{DownstreamTransportSocket, FilterChain, Listener, TerminalFilter};
use tokio::net::TcpStream;

use super::inspect::{Uninspected, detect_codec, inspect};
use super::{Accepted, HttpProtocol, PrefixedStream};
use crate::pod::{ConnectionContext, PodContext};
use crate::proxy::is_own_listener;
use crate::stats::{Direction, Refusal, ResponseFlag};
use crate::{http, tcp};

/// Carries one accepted connection to its end.
pub(crate) async fn serve(accepted: Accepted, pod: Rc<PodContext>) {
    let Accepted { stream, peer, direction } = accepted;
    // Fails when the client has reset the connection already.
    let Ok(local) = stream.local_addr() else { return };
    let cx = Rc::new(ConnectionContext { pod, direction, peer, local });
    let (chain, prefix) = match choose_chain(&stream, &cx).await {
        Ok(chosen) => chosen,
        Err(unserved) => return turn_away(stream, unserved, &cx),
    };
    // Envoy waits for the client's first byte, by which time a server that speaks first has spoken.
    if decide(chain.network_rbac(), &cx.peers()).allowed != Answer::Yes {
        return turn_away(stream, Uninspected::Refused(Refusal::Policy), &cx);
    }
    match &chain.terminal {
        TerminalFilter::TcpProxy(config) => {
            tcp::proxy(PrefixedStream::new(prefix, stream), Arc::clone(config), cx).await;
        }
        TerminalFilter::HttpConnectionManager(hcm) => {
            let hcm = Arc::clone(hcm);
            let detected = match hcm.codec {
                CodecType::Http1 => Ok((HttpProtocol::Http1, prefix)),
                CodecType::Http2 => Ok((HttpProtocol::Http2, prefix)),
                CodecType::Auto => detect_codec(&stream, prefix, hcm.idle_timeout, &cx.pod.drain).await,
            };
            match detected {
                Ok((protocol, prefix)) => {
                    let io = PrefixedStream::new(prefix, stream);
                    // On its own, so that a TCP connection does not take the space of an HTTP one.
                    Box::pin(http::serve_connection(io, protocol, hcm, cx)).await;
                }
                Err(unserved) => turn_away(stream, unserved, &cx),
            }
        }
    }
}

/// The chain that takes the connection, and what was read to choose it.
async fn choose_chain(
    stream: &TcpStream,
    cx: &ConnectionContext,
) -> Result<(Arc<FilterChain>, Bytes), Uninspected> {
    if is_own_listener(cx.local) {
        return Err(Uninspected::Refused(Refusal::OwnListener));
    }
    let listener = choose_listener(cx).ok_or(Uninspected::Refused(Refusal::NoFilterChain))?;
    let findings = inspect(&listener, cx.local, stream, &cx.pod.drain).await?;
    let protocols: Vec<&str> = findings.application_protocols.iter().map(String::as_str).collect();
    let facts = ConnectionFacts {
        destination: cx.local,
        source: cx.peer,
        transport: findings.transport,
        application_protocols: &protocols,
        server_name: findings.server_name.as_deref(),
    };
    let chain = select_chain(&listener, &facts).ok_or(Uninspected::Refused(Refusal::NoFilterChain))?;
    match chain.transport_socket {
        DownstreamTransportSocket::RawBuffer => Ok((Arc::clone(chain), findings.prefix)),
        DownstreamTransportSocket::Tls(_) => Err(Uninspected::Refused(Refusal::DownstreamTls)),
    }
}

/// The listener by the connection's original destination.
fn choose_listener(cx: &ConnectionContext) -> Option<Arc<Listener>> {
    let plan = cx.pod.plan();
    match cx.direction {
        Direction::Outbound => plan.outbound.select(cx.local.ip(), cx.local.port()).cloned(),
        Direction::Inbound => plan.inbound.clone(),
    }
}

/// Ends a connection that nobody serves, and counts why.
fn turn_away(stream: TcpStream, unserved: Uninspected, cx: &ConnectionContext) {
    let counters = &cx.pod.counters;
    match unserved {
        Uninspected::Closed => counters.flag(ResponseFlag::DownstreamConnectionTermination),
        Uninspected::Refused(refusal) => {
            counters.refuse(refusal);
            if refusal == Refusal::NoFilterChain {
                counters.flag(ResponseFlag::NoRouteFound);
            }
            tracing::debug!(pod = %cx.pod.name, peer = %cx.peer, destination = %cx.local, %refusal, "refused");
            reset(stream);
        }
    }
}

/// Ends a connection by a reset: the client sees that it failed, not an empty answer.
pub(crate) fn reset(stream: TcpStream) {
    // Fails on a connection that is gone, which needs no reset.
    let _set = stream.set_zero_linger();
    drop(stream);
}

#[cfg(test)]
mod tests {
    use super::*;

    fn size_of_future<F: Future>(_serve: impl Fn(Accepted, Rc<PodContext>) -> F) -> usize {
        size_of::<F>()
    }

    #[test]
    fn an_idle_tcp_connection_takes_less_than_a_kilobyte() {
        let size = size_of_future(serve);
        assert!(size <= 1024, "{size} bytes");
    }
}
