//! A certificate that was checked: it is the workload's own, with its key, in force, and the mesh's roots vouch for it.

use std::fmt;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use orlop_plan::resource::secret::Secret;
use rustls::crypto::ring::sign::any_supported_type;
use rustls::sign::CertifiedKey;
use rustls_pki_types::{CertificateDer, PrivateKeyDer, UnixTime};
use thiserror::Error;
use webpki::{ALL_VERIFICATION_ALGS, EndEntityCert, KeyUsage, anchor_from_trusted_cert};

use crate::details::CertificateDetails;
use crate::spiffe::SpiffeId;

/// The name that Istio's proxies know their own certificate by.
const SECRET: &str = "default";
/// Certificates in a chain, and roots. An authority below an authority below a root needs three.
pub(crate) const MAX_CERTIFICATES: usize = 16;

/// By what a workload shows who it is.
#[derive(Debug)]
pub struct Identity {
    /// Who it is.
    pub id: SpiffeId,
    /// The chain and the key, as the secret `default`.
    pub secret: Arc<Secret>,
    /// The same, as TLS takes it.
    pub certified: Arc<CertifiedKey>,
    /// In hexadecimal.
    pub serial_number: String,
    /// Not valid before.
    pub not_before: SystemTime,
    /// Not valid after.
    pub not_after: SystemTime,
}

impl Identity {
    /// How long it is still valid; nothing once it has expired.
    pub fn remaining(&self, now: SystemTime) -> Duration {
        self.not_after.duration_since(now).unwrap_or_default()
    }

    /// Checks what an authority answered or a file holds: `chain` has the workload's own certificate first.
    pub(crate) fn check(
        id: &SpiffeId,
        chain: Vec<CertificateDer<'static>>,
        key: PrivateKeyDer<'static>,
        roots: &[CertificateDer<'static>],
        now: SystemTime,
    ) -> Result<Self, Flaw> {
        if chain.len().max(roots.len()) > MAX_CERTIFICATES {
            return Err(Flaw::TooMany { found: chain.len().max(roots.len()) });
        }
        let details = chain.iter().enumerate().map(|(position, certificate)| {
            CertificateDetails::of(certificate).ok_or(Flaw::NoCertificate { position })
        });
        let details = details.collect::<Result<Vec<_>, _>>()?;
        let (Some(leaf), Some(own)) = (chain.first(), details.first()) else { return Err(Flaw::Empty) };
        let signer = any_supported_type(&key).map_err(|_| Flaw::OtherKey)?;
        let certified = CertifiedKey::new(chain.clone(), signer);
        certified.keys_match().map_err(|_| Flaw::OtherKey)?;
        if own.uris != [id.as_str()] {
            return Err(Flaw::OtherIdentity { expected: id.clone(), found: own.uris.clone() });
        }
        if own.not_after <= now {
            return Err(Flaw::Expired { ago: now.duration_since(own.not_after).unwrap_or_default() });
        }
        if own.not_before > now {
            return Err(Flaw::NotYetValid { ahead: own.not_before.duration_since(now).unwrap_or_default() });
        }
        for (position, pair) in details.windows(2).enumerate() {
            if let [certificate, issuer] = pair
                && certificate.issuer != issuer.subject
            {
                return Err(Flaw::Order { position });
            }
        }
        vouched(leaf, chain.get(1..).unwrap_or_default(), roots, now)?;
        Ok(Self {
            id: id.clone(),
            serial_number: own.serial_number.clone(),
            not_before: own.not_before,
            not_after: own.not_after,
            secret: Arc::new(Secret::certificate(SECRET, chain, key)),
            certified: Arc::new(certified),
        })
    }
}

/// Whether one of the roots vouches for the certificate, for either side of a connection.
pub(crate) fn vouched(
    leaf: &CertificateDer<'_>,
    intermediates: &[CertificateDer<'_>],
    roots: &[CertificateDer<'_>],
    now: SystemTime,
) -> Result<(), Flaw> {
    let anchors = roots.iter().map(anchor_from_trusted_cert).collect::<Result<Vec<_>, _>>();
    let anchors = anchors.map_err(Flaw::Root)?;
    let now = UnixTime::since_unix_epoch(now.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default());
    let leaf = EndEntityCert::try_from(leaf).map_err(Flaw::Untrusted)?;
    for usage in [KeyUsage::client_auth(), KeyUsage::server_auth()] {
        leaf.verify_for_usage(ALL_VERIFICATION_ALGS, &anchors, intermediates, now, usage, None, None)
            .map_err(Flaw::Untrusted)?;
    }
    Ok(())
}

/// What is wrong with a certificate.
#[derive(Debug, Error, PartialEq)]
pub enum Flaw {
    /// Nothing is there.
    #[error("no certificate")]
    Empty,
    /// It is not in PEM, or PEM of something else.
    #[error("element {element} is not certificates in PEM")]
    NotPem {
        /// From 0.
        element: usize,
    },
    /// More than anybody needs.
    #[error("{found} certificates, and at most {MAX_CERTIFICATES} are taken")]
    TooMany {
        /// How many.
        found: usize,
    },
    /// The bytes are not X.509.
    #[error("certificate {position} is not X.509")]
    NoCertificate {
        /// From 0, the workload's own.
        position: usize,
    },
    /// It was made for another key, or the key is none that TLS knows.
    #[error("it is not for the key that it was asked for")]
    OtherKey,
    /// It is somebody else's.
    #[error("it is for {}, not for {expected}", list(found))]
    OtherIdentity {
        /// Whose it should be.
        expected: SpiffeId,
        /// The URIs in it.
        found: Vec<String>,
    },
    /// It is too late for it.
    #[error("it expired {} s ago by this node's clock", ago.as_secs())]
    Expired {
        /// How long ago.
        ago: Duration,
    },
    /// It is too early for it.
    #[error("it is valid in {} s only, by this node's clock", ahead.as_secs())]
    NotYetValid {
        /// How far ahead.
        ahead: Duration,
    },
    /// The next certificate is not its issuer's.
    #[error("certificate {} of the chain is not the issuer of the one before it", position + 1)]
    Order {
        /// From 0, the workload's own.
        position: usize,
    },
    /// What should be a root is none.
    #[error("a root is not a certificate of an authority ({0:?})")]
    Root(webpki::Error),
    /// The roots do not vouch for it.
    #[error("the roots that came with it do not vouch for it ({0:?})")]
    Untrusted(webpki::Error),
}

fn list(uris: &[String]) -> impl fmt::Display {
    if uris.is_empty() { "nobody".to_owned() } else { uris.join(", ") }
}
