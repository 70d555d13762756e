//! Why a handshake came to nothing, by kind.

use std::io;

use rustls::{CertificateError, Error};

use super::verifier::UnexpectedName;

/// A handshake that came to nothing.
#[derive(Debug, thiserror::Error)]
pub(crate) enum TlsFailure {
    /// The peer has to show a certificate, and did not.
    #[error("the peer shows no certificate")]
    NoCertificate,
    /// Its certificate is not what it has to be: expired, not yet valid, of no authority that is trusted.
    #[error("the peer's certificate is refused: {0}")]
    Certificate(Error),
    /// Its certificate is good, and for somebody else.
    #[error("the peer is somebody else: {0}")]
    Name(Error),
    /// A message that is none, or nothing in common; or an alert of the peer.
    #[error("{0}")]
    Protocol(Error),
    /// The connection broke off.
    #[error("the connection broke off: {0}")]
    Connection(io::Error),
    /// `require_sni`.
    #[error("the client names no server")]
    NoServerName,
}

impl From<io::Error> for TlsFailure {
    /// `rustls`' own errors come inside of others.
    fn from(error: io::Error) -> Self {
        match error.downcast::<Error>() {
            Ok(Error::NoCertificatesPresented) => Self::NoCertificate,
            Ok(
                error @ Error::InvalidCertificate(
                    CertificateError::NotValidForName | CertificateError::NotValidForNameContext { .. },
                ),
            ) => Self::Name(error),
            Ok(Error::InvalidCertificate(CertificateError::Other(other))) => {
                let is_name = other.0.is::<UnexpectedName>();
                let error = Error::InvalidCertificate(CertificateError::Other(other));
                if is_name { Self::Name(error) } else { Self::Certificate(error) }
            }
            Ok(error @ Error::InvalidCertificate(_)) => Self::Certificate(error),
            Ok(error) => Self::Protocol(error),
            Err(error) => Self::Connection(error),
        }
    }
}
