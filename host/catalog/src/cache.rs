//! Machine code of third parties' plugins, kept in the bot's private directory: it is run, so nobody else may write it.

use std::io::Write;
use std::os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use identity::{Failure, FailureKind};
use sha2::{Digest, Sha256};

/// Where the code of one component for one engine lies. A temporary folder is removed with it.
pub(crate) struct Place {
    folder: PathBuf,
    file: PathBuf,
    temporary: bool,
}

impl Place {
    /// `plugins/` below the bot's private directory; a temporary folder where there is none.
    pub(crate) fn open(private: Option<&Path>, name: &str) -> Result<Self, Failure> {
        let folder = match private {
            Some(private) => private.join("plugins"),
            None => std::env::temp_dir().join(format!("tbot-plugins-{}-{name}", std::process::id())),
        };
        let storage =
            |reason: String| Failure::new(FailureKind::Storage, format!("plugin cache {}: {reason}", folder.display()));
        let mut builder = std::fs::DirBuilder::new();
        builder.recursive(private.is_some()).mode(0o700);
        builder.create(&folder).map_err(|e| storage(e.to_string()))?;
        let metadata = folder.symlink_metadata().map_err(|e| storage(e.to_string()))?;
        let own = metadata.uid() == rustix::process::geteuid().as_raw();
        if !metadata.is_dir() || !own || metadata.mode() & 0o022 != 0 {
            return Err(storage("it must be a directory that belongs to the user that runs tbot, and that nobody else may write: remove it".into()));
        }
        Ok(Self { file: folder.join(format!("{name}.cwasm")), folder, temporary: private.is_none() })
    }

    pub(crate) fn folder(&self) -> &Path {
        &self.folder
    }

    /// The code, if it is here and whole: it ends with its own digest.
    pub(crate) fn load(&self) -> Option<Vec<u8>> {
        if !self.file.symlink_metadata().ok()?.is_file() {
            return None;
        }
        let mut code = std::fs::read(&self.file).ok()?;
        let digest = code.split_off(code.len().checked_sub(32)?);
        (Sha256::digest(&code)[..] == digest[..]).then_some(code)
    }

    pub(crate) fn store(&self, code: &[u8]) -> Result<(), Failure> {
        let staged = self.file.with_extension("staged");
        let write = || {
            let _ = std::fs::remove_file(&staged);
            let mut file = std::fs::OpenOptions::new().write(true).create_new(true).mode(0o600).open(&staged)?;
            file.write_all(code)?;
            file.write_all(&Sha256::digest(code))?;
            file.sync_all()?;
            std::fs::rename(&staged, &self.file)
        };
        write().map_err(|e: std::io::Error| {
            Failure::new(FailureKind::Storage, format!("plugin cache {}: {e}", self.file.display()))
        })
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        if self.temporary {
            let _ = std::fs::remove_dir_all(&self.folder);
        }
    }
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
