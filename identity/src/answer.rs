//! What an authority answers: certificates in PEM, the workload's own first and the root last.

use rustls_pki_types::CertificateDer;
use rustls_pki_types::pem::PemObject;

use crate::certificate::{Flaw, MAX_CERTIFICATES};

/// A chain, and the roots it leads to.
#[derive(Debug, PartialEq)]
pub(crate) struct Answer {
    pub(crate) chain: Vec<CertificateDer<'static>>,
    pub(crate) roots: Vec<CertificateDer<'static>>,
}

impl Answer {
    /// Every element holds certificates, the last one the roots: istiod's own, or all that its file has while they are
    /// exchanged.
    pub(crate) fn parse(elements: &[String]) -> Result<Self, Flaw> {
        if elements.len() > MAX_CERTIFICATES {
            return Err(Flaw::TooMany { found: elements.len() });
        }
        let parse = |(element, pem): (usize, &String)| match certificates(pem.as_bytes()) {
            Some(certificates) => Ok(certificates),
            None => Err(Flaw::NotPem { element }),
        };
        let mut parsed = elements.iter().enumerate().map(parse).collect::<Result<Vec<_>, _>>()?;
        let roots = parsed.pop().unwrap_or_default();
        let chain: Vec<_> = parsed.into_iter().flatten().collect();
        if chain.is_empty() { Err(Flaw::Empty) } else { Ok(Self { chain, roots }) }
    }
}

/// `None` where there is none, or something is broken.
pub(crate) fn certificates(pem: &[u8]) -> Option<Vec<CertificateDer<'static>>> {
    let found = CertificateDer::pem_slice_iter(pem).collect::<Result<Vec<_>, _>>().ok()?;
    (!found.is_empty()).then_some(found)
}
