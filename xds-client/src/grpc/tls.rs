//! TLS to the control plane: a connection is made with roots that vouch for the server and, where the workload has one, the
//! certificate that it shows.
//!
//! tonic's own would have keys in PEM, and copies of them that nobody wipes.

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use http::Uri;
use hyper_util::rt::TokioIo;
use rustls::client::{ClientConfig, WebPkiServerVerifier};
use rustls::crypto::CryptoProvider;
use rustls::crypto::ring::{default_provider, sign::any_supported_type};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use rustls::sign::{CertifiedKey, SingleCertAndKey};
use rustls::{InconsistentKeys, RootCertStore};
use thiserror::Error;
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;
use tower_service::Service;
use zeroize::Zeroizing;

/// What is in files that should hold certificates and a key.
#[derive(Debug, Error)]
pub(super) enum TlsError {
    #[error("no certificates in PEM")]
    NoCertificates,
    #[error("no private key in PEM")]
    NoKey,
    #[error(transparent)]
    Rustls(#[from] rustls::Error),
    #[error("no server can be verified")]
    Roots(#[from] rustls::client::VerifierBuilderError),
}

/// Connects to one server.
#[derive(Clone)]
pub(super) struct Connector {
    tls: TlsConnector,
    server_name: ServerName<'static>,
}

impl Connector {
    pub(super) fn new(
        server_name: ServerName<'static>,
        roots: &[u8],
        certificate: Option<Arc<CertifiedKey>>,
    ) -> Result<Self, TlsError> {
        let provider = Arc::new(default_provider());
        let config = ClientConfig::builder_with_provider(Arc::clone(&provider))
            .with_safe_default_protocol_versions()?
            .with_webpki_verifier(verifier(roots, provider)?);
        let mut config = match certificate {
            Some(certificate) => {
                config.with_client_cert_resolver(Arc::new(SingleCertAndKey::from(certificate)))
            }
            None => config.with_no_client_auth(),
        };
        config.alpn_protocols = vec![b"h2".to_vec()];
        Ok(Self { tls: TlsConnector::from(Arc::new(config)), server_name })
    }
}

fn verifier(roots: &[u8], provider: Arc<CryptoProvider>) -> Result<Arc<WebPkiServerVerifier>, TlsError> {
    let mut store = RootCertStore::empty();
    for root in certificates(roots)? {
        store.add(root)?;
    }
    Ok(WebPkiServerVerifier::builder_with_provider(Arc::new(store), provider).build()?)
}

/// A certificate and its key, each in PEM.
pub(super) fn certified(chain: &[u8], key: &Zeroizing<Vec<u8>>) -> Result<CertifiedKey, TlsError> {
    // The error would tell of what was read.
    let key = PrivateKeyDer::from_pem_slice(key).map_err(|_| TlsError::NoKey)?;
    let certified = CertifiedKey::new(certificates(chain)?, any_supported_type(&Zeroizing::new(key))?);
    match certified.keys_match() {
        Ok(()) | Err(rustls::Error::InconsistentKeys(InconsistentKeys::Unknown)) => Ok(certified),
        Err(error) => Err(error.into()),
    }
}

fn certificates(pem: &[u8]) -> Result<Vec<CertificateDer<'static>>, TlsError> {
    let found = CertificateDer::pem_slice_iter(pem).collect::<Result<Vec<_>, _>>();
    found.ok().filter(|found| !found.is_empty()).ok_or(TlsError::NoCertificates)
}

impl Service<Uri> for Connector {
    type Response = TokioIo<TlsStream<TcpStream>>;
    type Error = io::Error;
    type Future = Pin<Box<dyn Future<Output = io::Result<Self::Response>> + Send>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, server: Uri) -> Self::Future {
        let Self { tls, server_name } = self.clone();
        Box::pin(async move {
            let host = server.host().unwrap_or_default().trim_matches(['[', ']']);
            let connection = TcpStream::connect((host, server.port_u16().unwrap_or_default())).await?;
            connection.set_nodelay(true)?;
            Ok(TokioIo::new(tls.connect(server_name, connection).await?))
        })
    }
}
