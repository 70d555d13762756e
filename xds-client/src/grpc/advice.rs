//! What an operator can do about a stream that does not open: in terms of the node's configuration.

use std::error::Error;
use std::io;

use rustls::CertificateError;
use tonic::Code;

use super::connections::Tls;
use super::credentials::Credentials;
use super::error::OpenError;

/// `None` where the error says it all.
pub(super) fn advice(error: &OpenError, credentials: &Credentials, tls: Option<&Tls>) -> Option<String> {
    match (tls_error(error), tls) {
        (Some(error), Some(tls)) => of_tls(error, tls),
        _ => of_status(error, credentials, tls.is_some()),
    }
}

fn of_tls(error: &rustls::Error, tls: &Tls) -> Option<String> {
    let roots = tls.roots.display();
    match error {
        rustls::Error::InvalidCertificate(reason) => match reason {
            CertificateError::UnknownIssuer | CertificateError::BadSignature => Some(format!(
                "none of the authorities in {roots} (controlPlane.rootCertificate) has signed the control plane's certificate"
            )),
            CertificateError::NotValidForName | CertificateError::NotValidForNameContext { .. } => {
                Some(format!(
                    "the control plane's certificate is not for {}: let controlPlane.address be a name that it is for",
                    tls.server_name.to_str()
                ))
            }
            CertificateError::Expired
            | CertificateError::ExpiredContext { .. }
            | CertificateError::NotValidYet
            | CertificateError::NotValidYetContext { .. } => Some(
                "the control plane's certificate is not valid now: compare the clocks, or renew it"
                    .to_owned(),
            ),
            _ => None,
        },
        rustls::Error::InvalidMessage(_) => Some(
            "controlPlane.address is not a port for TLS; istiod's is 15012, and 15010 is plaintext, without \
             controlPlane.rootCertificate"
                .to_owned(),
        ),
        _ => None,
    }
}

fn of_status(error: &OpenError, credentials: &Credentials, tls: bool) -> Option<String> {
    let OpenError::Stream(status) = error else { return None };
    let shown = match credentials {
        Credentials::None => None,
        Credentials::Token { file } => Some(format!("the token in {}", file.display())),
        Credentials::Certificate { certificate, .. } => {
            Some(format!("the certificate {}", certificate.display()))
        }
        Credentials::Kept(_) => Some("the certificate that the node keeps".to_owned()),
    };
    match (status.code(), shown) {
        (Code::Unauthenticated, None) => {
            Some("the workload has no credentials: set them in node.yaml".to_owned())
        }
        (Code::Unauthenticated, Some(shown)) => Some(format!(
            "{shown} has expired, or is not for this control plane (a token's audience has to be istio-ca)"
        )),
        (Code::PermissionDenied, Some(shown)) => {
            Some(format!("{shown} is not of the workload's namespace and service account"))
        }
        // TLS 1.3 tells it after the handshake, and h2 keeps no more of an error than its text.
        (Code::Unknown, Some(shown)) if error.describe().contains("received fatal alert") => {
            Some(format!("the control plane does not accept {shown}: is it signed by the mesh's authority?"))
        }
        // The end of a connection that stood.
        (Code::Unknown, _) if !tls => {
            Some("if it is a port for TLS, set controlPlane.rootCertificate".to_owned())
        }
        _ => None,
    }
}

/// The error of TLS behind another; an I/O error does not name what it holds as its source.
fn tls_error(error: &OpenError) -> Option<&rustls::Error> {
    let mut next: Option<&(dyn Error + 'static)> = Some(error);
    while let Some(error) = next {
        let held = error.downcast_ref::<io::Error>().and_then(io::Error::get_ref);
        let found = error
            .downcast_ref::<rustls::Error>()
            .or_else(|| held.and_then(|held| held.downcast_ref::<rustls::Error>()));
        if found.is_some() {
            return found;
        }
        next = error.source();
    }
    None
}
