//! Machine code of third parties' plugins, kept in the bot's private directory: it is run, so nobody else may write it.

use std::io::{Read, Write};
use std::os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use identity::{Failure, FailureKind};
use rustix::fs::OFlags;
use sha2::{Digest, Sha256};
use tempfile::TempDir;

/// Where the code of one component for one engine lies. A temporary folder is removed with it.
pub(crate) struct Place {
    folder: PathBuf,
    file: PathBuf,
    _temporary: Option<TempDir>,
}

impl Place {
    /// `plugins/` below the bot's private directory; a temporary folder where there is none.
    pub(crate) fn open(private: Option<&Path>, name: &str) -> Result<Self, Failure> {
        let broken = |folder: &Path, reason: &dyn std::fmt::Display| {
            Failure::new(FailureKind::Storage, format!("plugin cache {}: {reason}", folder.display()))
        };
        let Some(private) = private else {
            let temporary = tempfile::Builder::new().prefix("tbot-plugins-").tempdir();
            let temporary = temporary.map_err(|e| broken(&std::env::temp_dir(), &e))?;
            let folder = temporary.path().to_owned();
            return Ok(Self { file: folder.join(format!("{name}.cwasm")), folder, _temporary: Some(temporary) });
        };
        let folder = private.join("plugins");
        let created = std::fs::DirBuilder::new().recursive(true).mode(0o700).create(&folder);
        let metadata = created.and_then(|()| folder.symlink_metadata()).map_err(|e| broken(&folder, &e))?;
        if !metadata.is_dir() || !ours(&metadata) {
            return Err(broken(
                &folder,
                &"it must be a directory that belongs to the user that runs tbot, and that nobody else may write: remove it",
            ));
        }
        Ok(Self { file: folder.join(format!("{name}.cwasm")), folder, _temporary: None })
    }

    pub(crate) fn folder(&self) -> &Path {
        &self.folder
    }

    /// The code, if it is here, of our own writing, and whole: it ends with its own digest.
    pub(crate) fn load(&self) -> Option<Vec<u8>> {
        let flags = (OFlags::NOFOLLOW | OFlags::NONBLOCK).bits().cast_signed();
        let mut file = std::fs::OpenOptions::new().read(true).custom_flags(flags).open(&self.file).ok()?;
        // What was opened is looked at, not what the path leads to now.
        let metadata = file.metadata().ok()?;
        if !metadata.is_file() || !ours(&metadata) {
            return None;
        }
        let mut code = Vec::new();
        file.read_to_end(&mut code).ok()?;
        let digest = code.split_off(code.len().checked_sub(32)?);
        (Sha256::digest(&code)[..] == digest[..]).then_some(code)
    }

    pub(crate) fn store(&self, code: &[u8]) -> Result<(), Failure> {
        // A name of its own and 0600: another agent may store the same code now.
        let write = || {
            let mut staged = tempfile::Builder::new().prefix("storing-").tempfile_in(&self.folder)?;
            staged.write_all(code)?;
            staged.write_all(&Sha256::digest(code))?;
            staged.as_file().sync_all()?;
            staged.persist(&self.file).map_err(|e| e.error)
        };
        write().map(drop).map_err(|e: std::io::Error| {
            Failure::new(FailureKind::Storage, format!("plugin cache {}: {e}", self.file.display()))
        })
    }
}

/// Does it belong to the user that runs this program, and may nobody else write it?
fn ours(metadata: &std::fs::Metadata) -> bool {
    metadata.uid() == rustix::process::geteuid().as_raw() && metadata.mode() & 0o022 == 0
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    #[test]
    fn damaged_or_foreign_code_is_not_run() {
        let private = tempfile::tempdir().unwrap();
        let place = Place::open(Some(private.path()), "a").unwrap();
        assert_eq!(place.load(), None);
        place.store(b"machine code").unwrap();
        assert_eq!(place.load().unwrap(), b"machine code");
        let file = private.path().join("plugins/a.cwasm");
        let mut bytes = std::fs::read(&file).unwrap();
        bytes[3] ^= 1;
        std::fs::write(&file, &bytes).unwrap();
        assert_eq!(place.load(), None);
        std::fs::write(&file, b"short").unwrap();
        assert_eq!(place.load(), None);
        place.store(b"machine code").unwrap();
        assert_eq!(std::fs::metadata(&file).unwrap().permissions().mode() & 0o777, 0o600);
        std::fs::set_permissions(&file, PermissionsExt::from_mode(0o666)).unwrap();
        assert_eq!(place.load(), None, "others may write it");
        place.store(b"machine code").unwrap();
        let elsewhere = private.path().join("elsewhere");
        std::fs::rename(&file, &elsewhere).unwrap();
        std::os::unix::fs::symlink(&elsewhere, &file).unwrap();
        assert_eq!(place.load(), None, "a link is followed");
        place.store(b"machine code").unwrap();
        assert_eq!(place.load().unwrap(), b"machine code");
        assert_eq!(std::fs::read_dir(place.folder()).unwrap().count(), 1, "something is left over");
        std::fs::set_permissions(private.path().join("plugins"), PermissionsExt::from_mode(0o777)).unwrap();
        assert!(Place::open(Some(private.path()), "a").is_err());
    }

    #[test]
    fn a_temporary_place_leaves_nothing() {
        let place = Place::open(None, "test").unwrap();
        let folder = place.folder().to_owned();
        place.store(b"code").unwrap();
        drop(place);
        assert!(!folder.exists());
    }
}
