//! The file itself: replaced as a whole or not at all, and set aside when it cannot be read.

use std::fs::{self, File, OpenOptions};
use std::io::{self, BufWriter};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use thiserror::Error;

use super::format::{Contents, FormatError, Writer};

/// What is read and what it was found to be.
#[derive(Debug)]
pub(super) enum Found {
    /// No file.
    Nothing,
    /// What was saved last.
    Saved(Contents),
    /// A file that is of no use, and where it lies now.
    SetAside {
        /// Its new name.
        path: PathBuf,
        /// What is wrong with it.
        reason: FormatError,
    },
}

/// The file cannot be read, written or moved.
#[derive(Debug, Error)]
#[error("cannot {what} {path}: {source}", path = path.display())]
pub struct FileError {
    what: &'static str,
    path: PathBuf,
    source: io::Error,
}

fn failed<'a>(what: &'static str, path: &'a Path) -> impl FnOnce(io::Error) -> FileError + 'a {
    move |source| FileError { what, path: path.to_owned(), source }
}

/// Reads the file. One that is damaged is renamed, so that the next save does not destroy what somebody may want to look at.
pub(super) fn load(path: &Path) -> Result<Found, FileError> {
    let bytes = match fs::read(path) {
        Ok(bytes) => bytes,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Found::Nothing),
        Err(error) => return Err(failed("read", path)(error)),
    };
    match Contents::parse(&bytes) {
        Ok(contents) => Ok(Found::Saved(contents)),
        Err(reason) => {
            let aside = path.with_extension("damaged");
            fs::rename(path, &aside).map_err(failed("set aside", path))?;
            Ok(Found::SetAside { path: aside, reason })
        }
    }
}

/// Replaces the file by what `collect` writes. A crash at any moment leaves the old one or the new one. Readable by its
/// owner alone: it says which services there are.
pub(super) fn save(
    path: &Path,
    control_plane: &str,
    collect: impl FnOnce(&mut Writer<BufWriter<File>>),
) -> Result<(), FileError> {
    let staged = path.with_extension("new");
    let folder = path.parent().unwrap_or(Path::new("/"));
    fs::create_dir_all(folder).map_err(failed("make the folder", folder))?;
    let write = || {
        let file = OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(&staged)?;
        let mut writer = Writer::new(BufWriter::new(file), control_plane);
        collect(&mut writer);
        writer.finish()?.into_inner()?.sync_all()
    };
    write().map_err(failed("write", &staged))?;
    fs::rename(&staged, path).map_err(failed("replace", path))?;
    File::open(folder).and_then(|folder| folder.sync_all()).map_err(failed("sync", folder))
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    #[test]
    fn what_was_saved_is_found_and_nobody_else_can_read_it() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("node").join("last-good");
        save(&path, "a", |_| ()).unwrap();
        save(&path, "b", |_| ()).unwrap();

        let Found::Saved(contents) = load(&path).unwrap() else { panic!("not found") };
        assert_eq!(contents.control_plane(), "b");
        assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
    }

    #[test]
    fn no_file_is_nothing_to_complain_about() {
        let dir = tempfile::tempdir().unwrap();
        assert!(matches!(load(&dir.path().join("last-good")).unwrap(), Found::Nothing));
    }

    #[test]
    fn a_damaged_file_is_set_aside_as_it_was() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("last-good");
        fs::write(&path, b"half a file").unwrap();

        let Found::SetAside { path: aside, reason } = load(&path).unwrap() else { panic!("taken") };
        assert_eq!(reason, FormatError::Foreign);
        assert_eq!(fs::read(aside).unwrap(), b"half a file");
        assert!(matches!(load(&path).unwrap(), Found::Nothing));
    }
}
