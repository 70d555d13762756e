//! By what a stream shows whose it is.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use rustls::sign::CertifiedKey;
use tokio::sync::watch;
use tonic::metadata::{Ascii, MetadataValue};

use super::error::OpenError;

/// By what a workload shows the control plane who it is. Files are read whenever they are needed, so a new one takes
/// effect without a restart.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub enum Credentials {
    /// By nothing, as istiod's plaintext port asks for nothing.
    #[default]
    None,
    /// By a service account's token, which each stream carries; such streams share a connection.
    Token {
        /// Holds the token, as the kubelet projects it.
        file: PathBuf,
    },
    /// By a certificate, which the connection carries; the streams of one certificate share it.
    Certificate {
        /// PEM file: the chain, the workload's own certificate first.
        certificate: PathBuf,
        /// PEM file: its key.
        key: PathBuf,
    },
    /// By a certificate that somebody keeps for it in memory; the streams of one certificate share a connection.
    Kept(KeptCertificate),
}

/// A certificate that somebody keeps and replaces, once there is one.
#[derive(Debug, Clone)]
pub struct KeptCertificate(pub watch::Receiver<Option<Arc<CertifiedKey>>>);

impl KeptCertificate {
    pub(super) fn current(&self) -> Result<Arc<CertifiedKey>, OpenError> {
        self.0.borrow().clone().ok_or(OpenError::NoCertificate)
    }
}

impl PartialEq for KeptCertificate {
    fn eq(&self, other: &Self) -> bool {
        self.0.same_channel(&other.0)
    }
}

impl Eq for KeptCertificate {}

impl Credentials {
    /// Waits for what there is nothing to show without.
    pub(super) async fn ready(&self) {
        if let Self::Kept(KeptCertificate(certificate)) = self {
            // Nobody keeps it any more: then opening says so.
            let _ = certificate.clone().wait_for(Option::is_some).await;
        }
    }

    /// The header `authorization` of a stream.
    pub(super) fn authorization(&self) -> Result<Option<MetadataValue<Ascii>>, OpenError> {
        let Self::Token { file } = self else { return Ok(None) };
        let text = read(file)?;
        let token = std::str::from_utf8(&text).map(str::trim).unwrap_or_default();
        let mut value: MetadataValue<Ascii> = format!("Bearer {token}")
            .parse()
            .ok()
            .filter(|_| !token.is_empty())
            .ok_or_else(|| OpenError::NoToken { file: file.clone() })?;
        value.set_sensitive(true);
        Ok(Some(value))
    }
}

pub(super) fn read(file: &Path) -> Result<Vec<u8>, OpenError> {
    fs::read(file).map_err(|source| OpenError::File { file: file.to_owned(), source })
}
