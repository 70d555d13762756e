//! Certificates from files, as somebody else issues and renews them: read again when they change.

use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use rustls_pki_types::PrivateKeyDer;
use rustls_pki_types::pem::PemObject;
use zeroize::Zeroizing;

use crate::answer::certificates;
use crate::authority::Issued;
use crate::certificate::Identity;
use crate::error::Error;
use crate::spiffe::SpiffeId;

/// A workload's certificate and key, and the roots that vouch for it.
#[derive(Debug)]
pub(crate) struct Files {
    paths: Paths,
    /// As the files were when they were last read; `None` for one that is not there.
    seen: Option<[Option<Stamp>; 3]>,
}

/// Three PEM files.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Paths {
    pub(crate) certificate: PathBuf,
    pub(crate) key: PathBuf,
    pub(crate) roots: PathBuf,
}

/// Tells one content of a file from the next, also where a symlink is swapped.
#[derive(Debug, PartialEq, Eq)]
struct Stamp {
    device: u64,
    inode: u64,
    bytes: u64,
    changed: (i64, i64),
}

impl Files {
    pub(crate) fn new(paths: Paths) -> Self {
        Self { paths, seen: None }
    }

    /// What they hold, if it is not what they held. Of files that are replaced one by one, the first makes an error, and the
    /// last one mends it.
    pub(crate) fn changed(&mut self, id: &SpiffeId, now: SystemTime) -> Option<Result<Issued, Error>> {
        let Paths { certificate, key, roots } = &self.paths;
        let stamps = [certificate, key, roots].map(|file| Stamp::of(file));
        if self.seen.as_ref() == Some(&stamps) {
            return None;
        }
        self.seen = Some(stamps);
        Some(self.read(id, now))
    }

    fn read(&self, id: &SpiffeId, now: SystemTime) -> Result<Issued, Error> {
        let all = |file: &Path| {
            certificates(&read(file)?).ok_or_else(|| Error::NoCertificates { file: file.to_owned() })
        };
        let Paths { certificate, key, roots } = &self.paths;
        let (chain, roots) = (all(certificate)?, all(roots)?);
        // The error would tell of what was read.
        let key = PrivateKeyDer::from_pem_slice(&read_secret(key)?)
            .map_err(|_| Error::NoKey { file: key.clone() })?;
        let identity = Identity::check(id, chain, key, &roots, now)
            .map_err(|flaw| Error::Files { file: certificate.clone(), flaw })?;
        Ok(Issued { identity, shown: None, roots })
    }
}

impl Stamp {
    fn of(file: &Path) -> Option<Self> {
        let metadata = fs::metadata(file).ok()?;
        Some(Self {
            device: metadata.dev(),
            inode: metadata.ino(),
            bytes: metadata.len(),
            changed: (metadata.ctime(), metadata.ctime_nsec()),
        })
    }
}

pub(crate) fn read(file: &Path) -> Result<Vec<u8>, Error> {
    fs::read(file).map_err(|source| Error::File { file: file.to_owned(), source })
}

/// What is wiped when it was used.
pub(crate) fn read_secret(file: &Path) -> Result<Zeroizing<Vec<u8>>, Error> {
    read(file).map(Zeroizing::new)
}
