//! The roots that the node's workloads trust.
//!
//! A root comes with a certificate and is trusted as long as that one is valid: while the mesh goes from one root to the
//! next, peers that were not given a new certificate yet are still known, and nobody has to say when the old root is over.

use std::sync::Arc;
use std::time::SystemTime;

use rustls_pki_types::CertificateDer;

/// Roots, and until when each is trusted.
#[derive(Debug, Default)]
pub(crate) struct TrustBundle(Vec<(CertificateDer<'static>, SystemTime)>);

impl TrustBundle {
    /// Takes the roots of a certificate that is valid until then. Returns whether there is a new one.
    pub(crate) fn add(&mut self, roots: &[CertificateDer<'static>], until: SystemTime) -> bool {
        let before = self.0.len();
        for root in roots {
            match self.0.iter_mut().find(|(known, _)| known == root) {
                Some((_, known_until)) => *known_until = until.max(*known_until),
                None => self.0.push((root.clone(), until)),
            }
        }
        self.0.len() > before
    }

    /// Drops what is over, but never the newest: without any, nobody could be known. Returns whether something went.
    pub(crate) fn expire(&mut self, now: SystemTime) -> bool {
        let before = self.0.len();
        let newest = self.0.iter().map(|(_, until)| *until).max();
        self.0.retain(|(_, until)| *until > now || Some(*until) == newest);
        self.0.len() < before
    }

    pub(crate) fn roots(&self) -> Arc<[CertificateDer<'static>]> {
        self.0.iter().map(|(root, _)| root.clone()).collect()
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    fn root(name: u8) -> CertificateDer<'static> {
        vec![name].into()
    }

    fn at(second: u64) -> SystemTime {
        SystemTime::UNIX_EPOCH + Duration::from_secs(second)
    }

    #[test]
    fn an_old_root_is_trusted_as_long_as_a_certificate_of_it_may_be_valid() {
        let mut bundle = TrustBundle::default();
        assert!(bundle.add(&[root(1)], at(100)));
        assert!(bundle.add(&[root(2)], at(150)));
        assert!(!bundle.add(&[root(2)], at(200)));

        assert!(!bundle.expire(at(99)));
        assert_eq!(bundle.roots().len(), 2);
        assert!(bundle.expire(at(100)));
        assert_eq!(*bundle.roots(), [root(2)]);
    }

    #[test]
    fn the_newest_roots_stay_while_the_authority_is_away() {
        let mut bundle = TrustBundle::default();
        bundle.add(&[root(1)], at(100));

        assert!(!bundle.expire(at(1000)));
        assert_eq!(*bundle.roots(), [root(1)]);
    }
}
