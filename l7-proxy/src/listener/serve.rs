//! Finds out who serves an accepted connection, and lets them.

use std::cell::OnceCell;
use std::rc::Rc;
use std::sync::Arc;

use bytes::Bytes;
use orlop_plan::rbac::{Answer, decide};
use orlop_plan::resource::http_connection_manager::{CodecType, HttpConnectionManager};
use orlop_plan::resource::listener::{DownstreamTransportSocket, FilterChain, Listener, TerminalFilter};
use orlop_plan::resource::tls::DownstreamTlsContext;
use tokio::net::TcpStream;
use tokio::time::timeout;

use super::inspect::{Uninspected, detect_codec, inspect};
use super::{HttpProtocol, PrefixedStream};
use crate::pod::{ConnectionContext, PodContext, TlsInfo};
use crate::proxy::is_own_listener;
use crate::stats::{Direction, Refusal, ResponseFlag};
use crate::tls::{Accepted, Stream, TlsFailure, accept};
use crate::{http, tcp};

/// Carries one accepted connection to its end.
pub(crate) async fn serve(accepted: super::Accepted, pod: Rc<PodContext>) {
    let super::Accepted { stream, peer, direction } = accepted;
    // Fails when the client has reset the connection already.
    let Ok(local) = stream.local_addr() else { return };
    let cx = Rc::new(ConnectionContext {
        pod,
        direction,
        peer,
        local,
        inspected: OnceCell::new(),
        tls: OnceCell::new(),
    });
    // On its own: its space is free again once the chain is known.
    let Some((chain, stream, prefix)) = Box::pin(establish(stream, &cx)).await else { return };
    let io = PrefixedStream::new(prefix, stream);
    match chain.terminal.clone() {
        TerminalFilter::TcpProxy(config) => {
            let stats = chain.stats().cloned();
            drop(chain);
            tcp::proxy(io, config, stats, cx).await;
        }
        // On its own, so that a TCP connection does not take the space of an HTTP one.
        TerminalFilter::HttpConnectionManager(hcm) => Box::pin(serve_http(io, hcm, cx)).await,
    }
}

/// Serves a connection in the protocol that it is spoken to in.
async fn serve_http(io: PrefixedStream<Stream>, hcm: Arc<HttpConnectionManager>, cx: Rc<ConnectionContext>) {
    let (prefix, mut stream) = io.into_parts();
    let detected = match hcm.codec {
        CodecType::Http1 => Ok((HttpProtocol::Http1, prefix)),
        CodecType::Http2 => Ok((HttpProtocol::Http2, prefix)),
        CodecType::Auto => detect_codec(&mut stream, prefix, hcm.idle_timeout, &cx.pod.drain).await,
    };
    match detected {
        Ok((protocol, prefix)) => {
            http::serve_connection(PrefixedStream::new(prefix, stream), protocol, hcm, cx).await;
        }
        Err(unserved) => turn_away(stream.tcp(), unserved, &cx),
    }
}

/// Finds the connection's filter chain, terminates TLS where it is to be, and lets in whom the chain lets in. `None` is a
/// connection that was turned away.
async fn establish(stream: TcpStream, cx: &ConnectionContext) -> Option<(Arc<FilterChain>, Stream, Bytes)> {
    let (chain, prefix) = match choose_chain(&stream, cx).await {
        Ok(chosen) => chosen,
        Err(unserved) => {
            turn_away(&stream, unserved, cx);
            return None;
        }
    };
    let (stream, prefix) = match &chain.transport_socket {
        DownstreamTransportSocket::RawBuffer => (Stream::Plain(stream), prefix),
        DownstreamTransportSocket::Tls(context) => {
            // On its own, so that plaintext does not take the space of a handshake.
            (Box::pin(terminate(&chain, context, prefix, stream, cx)).await?, Bytes::new())
        }
    };
    // Envoy waits for the client's first byte, by which time a server that speaks first has spoken.
    let facts = cx.facts();
    let decision = decide(chain.network_rbac(), &facts);
    if decision.allowed != Answer::Yes {
        if let TerminalFilter::TcpProxy(config) = &chain.terminal {
            let details = http::denied_by(decision.policy);
            tcp::turned_away(&config.access_logs, cx, &[], ("", &details));
        }
        turn_away(stream.tcp(), Uninspected::Refused(Refusal::Policy), cx);
        return None;
    }
    Some((chain, stream, prefix))
}

/// Terminates TLS. A client that is refused for its handshake has been told by an alert.
async fn terminate(
    chain: &FilterChain,
    context: &Arc<DownstreamTlsContext>,
    prefix: Bytes,
    stream: TcpStream,
    cx: &ConnectionContext,
) -> Option<Stream> {
    let Some(tls) = cx.pod.server_contexts.get(context, &cx.pod.plan().secrets) else {
        turn_away(&stream, Uninspected::Refused(Refusal::DownstreamTls), cx);
        return None;
    };
    let accepting = accept(tls, prefix, stream);
    let accepted = match chain.transport_socket_connect_timeout {
        None => Ok(accepting.await),
        Some(limit) => timeout(limit, accepting).await,
    };
    match accepted {
        Ok(Ok(Accepted { stream, peer, own })) => {
            // This is the only handshake.
            let _new = cx.tls.set(Box::new(TlsInfo { peer, own }));
            Some(stream)
        }
        Ok(Err(failure)) => {
            tracing::debug!(pod = %cx.pod.name, peer = %cx.peer, %failure, "no TLS");
            count(handshake_refusal(&failure), cx);
            None
        }
        Err(_elapsed) => {
            count(Refusal::DownstreamTlsTimeout, cx);
            None
        }
    }
}

fn handshake_refusal(failure: &TlsFailure) -> Refusal {
    match failure {
        TlsFailure::NoCertificate => Refusal::NoClientCertificate,
        TlsFailure::Certificate(_) => Refusal::ClientCertificate,
        TlsFailure::Name(_) => Refusal::ClientName,
        TlsFailure::Protocol(_) | TlsFailure::Connection(_) | TlsFailure::NoServerName => {
            Refusal::DownstreamTlsHandshake
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
    let (inspected, prefix) = inspect(&listener, cx.local, stream, &cx.pod.drain).await?;
    // This is the only inspection.
    let _new = cx.inspected.set(inspected);
    let Some(chain) = cx.select_chain(&listener) else {
        let details = ("filter_chain_not_found", "");
        tcp::turned_away(&listener.unmatched_logs, cx, &[ResponseFlag::NoRouteFound], details);
        return Err(Uninspected::Refused(Refusal::NoFilterChain));
    };
    Ok((Arc::clone(chain), prefix))
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
fn turn_away(stream: &TcpStream, unserved: Uninspected, cx: &ConnectionContext) {
    match unserved {
        Uninspected::Closed => cx.pod.counters.flag(ResponseFlag::DownstreamConnectionTermination),
        Uninspected::Refused(refusal) => {
            count(refusal, cx);
            will_reset(stream);
        }
    }
}

fn count(refusal: Refusal, cx: &ConnectionContext) {
    let counters = &cx.pod.counters;
    counters.refuse(refusal);
    if refusal == Refusal::NoFilterChain {
        counters.flag(ResponseFlag::NoRouteFound);
    }
    tracing::debug!(pod = %cx.pod.name, peer = %cx.peer, destination = %cx.local, %refusal, "refused");
}

/// The connection will end by a reset: the client sees that it failed, not an empty answer.
pub(crate) fn will_reset(stream: &TcpStream) {
    // Fails on a connection that is gone, which needs no reset.
    let _set = stream.set_zero_linger();
}

#[cfg(test)]
mod tests {
    use super::*;

    fn size_of_future<F: Future>(_serve: impl Fn(crate::listener::Accepted, Rc<PodContext>) -> F) -> usize {
        size_of::<F>()
    }

    #[test]
    fn an_idle_tcp_connection_takes_less_than_a_kilobyte() {
        let size = size_of_future(serve);
        assert!(size <= 1024, "{size} bytes");
    }
}
