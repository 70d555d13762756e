//! `x-forwarded-client-cert`: what upstreams are told of the client's certificate, as Envoy's `forward_client_cert_details`
//! says.

use http::HeaderValue;
use http::header::{HeaderMap, HeaderName};
use orlop_plan::resource::http_connection_manager::{ForwardClientCert, HttpConnectionManager};

use crate::pod::ConnectionContext;
use crate::tls::Certificate;

const X_FORWARDED_CLIENT_CERT: HeaderName = HeaderName::from_static("x-forwarded-client-cert");

/// Removes, keeps, or adds. Only a mutually authenticated peer may hand on certificates.
pub(super) fn forward(
    headers: &mut HeaderMap,
    config: &HttpConnectionManager,
    connection: &ConnectionContext,
) {
    if config.forward_client_cert == ForwardClientCert::AlwaysForwardOnly {
        return;
    }
    let shown = connection.tls.get().and_then(|tls| Some((tls.peer.as_ref()?, &*tls.own)));
    let Some((peer, own)) = shown else {
        headers.remove(X_FORWARDED_CLIENT_CERT);
        return;
    };
    let before = match config.forward_client_cert {
        ForwardClientCert::ForwardOnly | ForwardClientCert::AlwaysForwardOnly => return,
        ForwardClientCert::Sanitize => {
            headers.remove(X_FORWARDED_CLIENT_CERT);
            return;
        }
        ForwardClientCert::SanitizeSet => Vec::new(),
        ForwardClientCert::AppendForward => {
            let values = headers.get_all(X_FORWARDED_CLIENT_CERT);
            values.iter().map(|value| value.as_bytes().to_vec()).collect()
        }
    };
    let mut elements: Vec<Vec<u8>> = before.into_iter().filter(|value| !value.is_empty()).collect();
    elements.push(element(peer, own, config).into_bytes());
    match HeaderValue::try_from(elements.join(&b","[..])) {
        Ok(value) => drop(headers.insert(X_FORWARDED_CLIENT_CERT, value)),
        // A certificate with control characters in its names; nothing is better than another's.
        Err(_) => drop(headers.remove(X_FORWARDED_CLIENT_CERT)),
    }
}

/// In Envoy's order.
fn element(peer: &Certificate, own: &Certificate, config: &HttpConnectionManager) -> String {
    let details = config.client_cert_details;
    let mut parts: Vec<String> = own.uris.iter().map(|uri| format!("By={uri}")).collect();
    parts.push(format!("Hash={}", peer.sha256));
    if details.subject {
        parts.push(format!("Subject=\"{}\"", peer.subject));
    }
    if details.uri {
        // There even where it is empty.
        let uris: &[_] = if peer.uris.is_empty() { &[String::new()] } else { &peer.uris };
        parts.extend(uris.iter().map(|uri| format!("URI={uri}")));
    }
    if details.dns {
        parts.extend(peer.dns.iter().map(|name| format!("DNS={name}")));
    }
    parts.join(";")
}
