//! The plug-in on the node: the program in the runtime's folder of plug-ins, and its entry in the chain.
//!
//! Both are written beside their place and renamed into it, so that nobody reads half of one. Whoever else writes the chain
//! (the node's network, when it is upgraded) may drop the entry: [`Installation::look_after`] puts it back.

use std::fs::{self, File};
use std::io::{self, Write};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use super::conf::{self, ChainError};
use super::{Entry, NAME};

/// Where the plug-in goes, as the agent sees the node's folders.
#[derive(Debug, Clone)]
pub(crate) struct Installation {
    pub(crate) chains: PathBuf,
    pub(crate) programs: PathBuf,
    pub(crate) entry: Entry,
}

/// Why pods are not held.
#[derive(Debug, thiserror::Error)]
pub(crate) enum InstallError {
    #[error("cannot {what} {path}: {source}", path = path.display())]
    File { what: &'static str, path: PathBuf, source: io::Error },
    #[error("{path} is not a chain that a plug-in can be added to: {source}", path = path.display())]
    Chain { path: PathBuf, source: ChainError },
    #[error("there is no chain in {chains}: the node's network has not been set up", chains = chains.display())]
    NoChain { chains: PathBuf },
}

impl Installation {
    /// Installs the program, which is the agent's own.
    pub(crate) fn install_program(&self) -> Result<(), InstallError> {
        let own = Path::new("/proc/self/exe");
        let mut program = File::open(own).map_err(failed("read", own))?;
        let place = self.programs.join(NAME);
        replace(&place, 0o755, |file| io::copy(&mut program, file).map(drop))
    }

    /// Puts the entry into the chain that the runtime uses, where it is not as it is to be. Returns whether it was not.
    pub(crate) fn look_after(&self) -> Result<bool, InstallError> {
        let path = self.chain()?;
        let text = fs::read_to_string(&path).map_err(failed("read", &path))?;
        let chain = |source| InstallError::Chain { path: path.clone(), source };
        let Some(chained) = conf::with(&text, &self.entry).map_err(chain)? else { return Ok(false) };
        replace(&path, 0o600, |file| file.write_all(chained.as_bytes()))?;
        Ok(true)
    }

    /// Takes the entry out of every chain, and then the program away.
    pub(crate) fn remove(&self) -> Result<(), InstallError> {
        for path in self.files()? {
            let text = fs::read_to_string(&path).map_err(failed("read", &path))?;
            // What is no chain has no entry of ours.
            if let Ok(Some(left)) = conf::without(&text) {
                replace(&path, 0o600, |file| file.write_all(left.as_bytes()))?;
            }
        }
        let program = self.programs.join(NAME);
        match fs::remove_file(&program) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => Err(failed("remove", &program)(error)),
            _ => Ok(()),
        }
    }

    /// The first file by name, which is what runtimes go by.
    fn chain(&self) -> Result<PathBuf, InstallError> {
        self.files()?.into_iter().next().ok_or_else(|| InstallError::NoChain { chains: self.chains.clone() })
    }

    fn files(&self) -> Result<Vec<PathBuf>, InstallError> {
        let entries = fs::read_dir(&self.chains).map_err(failed("read", &self.chains))?;
        let known = |path: &PathBuf| {
            let extension = path.extension().and_then(|extension| extension.to_str());
            matches!(extension, Some("conflist" | "conf" | "json"))
        };
        let mut files: Vec<_> = entries.flatten().map(|entry| entry.path()).filter(known).collect();
        files.sort();
        Ok(files)
    }
}

/// Writes a file beside its place, and puts it there. One that is there keeps its permissions.
fn replace(
    path: &Path,
    mode: u32,
    write: impl FnOnce(&mut File) -> io::Result<()>,
) -> Result<(), InstallError> {
    let mode = fs::metadata(path).map_or(mode, |present| present.permissions().mode());
    // No runtime takes a file with this ending for a chain.
    let mut staged = path.as_os_str().to_owned();
    staged.push(".orlop-staged");
    let staged = PathBuf::from(staged);
    let written = File::create(&staged).and_then(|mut file| {
        write(&mut file)?;
        file.set_permissions(fs::Permissions::from_mode(mode))?;
        file.sync_all()?;
        fs::rename(&staged, path)
    });
    if written.is_err() {
        // What is half written is of no use.
        let _ = fs::remove_file(&staged);
    }
    written.map_err(failed("write", path))
}

fn failed(what: &'static str, path: &Path) -> impl FnOnce(io::Error) -> InstallError {
    let path = path.to_owned();
    move |source| InstallError::File { what, path, source }
}

#[cfg(test)]
mod tests {
    use super::super::WhenAway;
    use super::*;

    const CHAIN: &str = r#"{"name": "pods", "plugins": [{"type": "bridge"}]}"#;

    fn installation(dir: &Path) -> Installation {
        for folder in ["chains", "programs"] {
            fs::create_dir(dir.join(folder)).unwrap();
        }
        let entry = Entry {
            socket: "/run/orlop/node-1/admin.sock".into(),
            when_away: WhenAway::Wait,
            timeout_seconds: 30,
            exclude_namespaces: Vec::new(),
        };
        Installation { chains: dir.join("chains"), programs: dir.join("programs"), entry }
    }

    #[test]
    fn the_first_chain_has_it_also_after_somebody_else_has_written_it() {
        let dir = tempfile::tempdir().unwrap();
        let installation = installation(dir.path());
        let (first, second) =
            (dir.path().join("chains/10-a.conflist"), dir.path().join("chains/20-b.conflist"));
        fs::write(&first, CHAIN).unwrap();
        fs::write(&second, CHAIN).unwrap();

        assert!(installation.look_after().unwrap());
        assert!(!installation.look_after().unwrap());
        assert!(fs::read_to_string(&first).unwrap().contains(NAME));
        assert_eq!(fs::read_to_string(&second).unwrap(), CHAIN);

        fs::write(&first, CHAIN).unwrap();
        assert!(installation.look_after().unwrap());
    }

    #[test]
    fn removed_nothing_is_left() {
        let dir = tempfile::tempdir().unwrap();
        let installation = installation(dir.path());
        let chain = dir.path().join("chains/10-a.conflist");
        fs::write(&chain, CHAIN).unwrap();
        installation.install_program().unwrap();
        installation.look_after().unwrap();
        let program = dir.path().join("programs").join(NAME);
        assert_eq!(fs::metadata(&program).unwrap().permissions().mode() & 0o777, 0o755);

        installation.remove().unwrap();
        assert!(!program.exists());
        assert!(!fs::read_to_string(&chain).unwrap().contains(NAME));
        assert_eq!(fs::read_dir(dir.path().join("chains")).unwrap().count(), 1);
    }

    #[test]
    fn without_a_chain_the_reason_is_said() {
        let dir = tempfile::tempdir().unwrap();
        let error = installation(dir.path()).look_after().unwrap_err().to_string();
        assert!(error.contains("the node's network has not been set up"), "{error}");
    }
}
