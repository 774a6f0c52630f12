use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use async_trait::async_trait;
use cap_std::fs::Dir;
use identity::{Destination, Failure, FailureKind, OutputFile};
use rustix::fs::{FlockOperation, flock};
use rustix::io::Errno;
use tracing::warn;
use zeroize::Zeroizing;

use crate::file;
use crate::root::{self, Missing};
use crate::set::{Set, Switched};

/// The file that is locked, the original's own: the two exclude each other (surface §D.1).
const LOCK: &str = "lock";
/// The empty file that proves that writing would succeed, the original's own (surface §C.1).
const WRITE_TEST: &str = ".write-test";

/// May the path of the destination lead through symlinks? Those inside are never followed (surface §B.5, §E.7).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Symlinks {
    /// Followed.
    Insecure,
    /// Refused, in parents too, as the original does. It takes no special kernel, so `try-secure` is the same.
    #[default]
    Secure,
}

/// A directory on a local file system.
#[derive(Clone)]
pub struct Directory {
    path: Arc<PathBuf>,
    symlinks: Symlinks,
    said: Arc<AtomicBool>,
}

impl Directory {
    /// A destination at `path`, which is made absolute. Nothing is touched yet.
    ///
    /// # Errors
    /// [`FailureKind::InvalidConfig`] where `path` is empty or the working directory is gone.
    pub fn new(path: &Path, symlinks: Symlinks) -> Result<Self, Failure> {
        let absolute = std::path::absolute(path);
        let path = absolute
            .map_err(|e| Failure::new(FailureKind::InvalidConfig, format!("destination path {path:?}: {e}")))?;
        Ok(Self { path: Arc::new(path), symlinks, said: Arc::default() })
    }

    /// Runs `work` on a blocking thread.
    async fn blocking<T: Send + 'static>(
        &self,
        what: &'static str,
        work: impl FnOnce(&Self) -> io::Result<T> + Send + 'static,
    ) -> Result<T, Failure> {
        let this = self.clone();
        let done = tokio::task::spawn_blocking(move || work(&this)).await;
        let done = done.map_err(|e| Failure::new(FailureKind::Internal, e.to_string()))?;
        done.map_err(|e| {
            let message = format!("directory {} cannot be {what}: {e}{}", self.path.display(), remedy(e.kind()));
            Failure::new(FailureKind::Storage, message)
        })
    }

    fn open(&self, missing: Missing) -> io::Result<Dir> {
        root::open(&self.path, self.symlinks, missing)
    }

    fn try_lock(&self) -> io::Result<Option<cap_std::fs::File>> {
        let file = file::open_or_create(&self.open(Missing::Create)?, LOCK).map_err(|e| file::named(&e, LOCK))?;
        match flock(&file, FlockOperation::NonBlockingLockExclusive) {
            Ok(()) => Ok(Some(file)),
            Err(Errno::WOULDBLOCK) => Ok(None),
            Err(e) => Err(e.into()),
        }
    }

    fn prove_writable(&self) -> io::Result<()> {
        let dir = self.open(Missing::Create)?;
        let set = Set { dir: &dir, step: &|_| Ok(()) };
        set.recover()?;
        let proof = file::open_or_create(&dir, WRITE_TEST).map_err(|e| file::named(&e, WRITE_TEST))?;
        match proof.metadata()?.len() {
            0 => Ok(()),
            _ => proof.set_len(0),
        }
    }

    fn replace(&self, files: &[OutputFile]) -> io::Result<()> {
        let dir = self.open(Missing::Refuse)?;
        let switched = Set { dir: &dir, step: &|_| Ok(()) }.write(files)?;
        if switched == Switched::InPlace && !self.said.swap(true, Ordering::Relaxed) {
            let path = self.path.display();
            warn!(target: "TBOT", "Files in {path} were prepared so that they cannot be replaced: they are rewritten in place, which a reader can see half done.");
        }
        Ok(())
    }
}

#[async_trait]
impl Destination for Directory {
    fn description(&self) -> String {
        format!("directory: {}", self.path.display())
    }

    fn directory(&self) -> Option<&Path> {
        Some(&self.path)
    }

    async fn prepare(&self) -> Result<(), Failure> {
        self.blocking("prepared", Self::prove_writable).await
    }

    async fn lock(&self) -> Result<Box<dyn Send + Sync>, Failure> {
        match self.blocking("locked", Self::try_lock).await? {
            Some(held) => Ok(Box::new(held)),
            None => {
                let words =
                    "Failed to acquire exclusive lock for tbot destination directory - is tbot already running?";
                Err(Failure::new(FailureKind::Storage, format!("{words} ({})", self.path.display())))
            }
        }
    }

    async fn write(&self, files: Vec<OutputFile>) -> Result<(), Failure> {
        self.blocking("written", move |this| this.replace(&files)).await
    }

    async fn read(&self, path: &str) -> Result<Option<Zeroizing<Vec<u8>>>, Failure> {
        let path = path.to_owned();
        self.blocking("read", move |this| match file::existing(this.open(Missing::Refuse))? {
            Some(dir) => Set { dir: &dir, step: &|_| Ok(()) }.read(&path),
            None => Ok(None),
        })
        .await
    }
}

fn remedy(kind: io::ErrorKind) -> String {
    match kind {
        io::ErrorKind::PermissionDenied => format!(
            ": Teleport does not have permission to access it; let the user that runs tbot (uid {}) own it, with `chown` or `tbot init`",
            rustix::process::geteuid().as_raw()
        ),
        io::ErrorKind::ReadOnlyFilesystem => ": mount it writable, or choose another path".into(),
        io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => {
            ": make room, the files of before are still in place".into()
        }
        _ => String::new(),
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::{PermissionsExt, symlink};

    use identity::RelativePath;

    use super::*;

    fn one_file() -> Vec<OutputFile> {
        vec![OutputFile { path: RelativePath::parse("key").unwrap(), contents: Zeroizing::new(b"secret".to_vec()) }]
    }

    #[tokio::test]
    async fn creates_parents_privately_and_reads_back() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("a/b/c");
        let destination = Directory::new(&path, Symlinks::Secure).unwrap();
        assert_eq!(destination.read("key").await.unwrap(), None);
        destination.prepare().await.unwrap();
        destination.write(one_file()).await.unwrap();
        assert_eq!(destination.read("key").await.unwrap().unwrap().as_slice(), b"secret");
        for (path, mode) in [(path.join(".."), 0o700), (path.join("key"), 0o600), (path.join(".write-test"), 0o600)] {
            assert_eq!(std::fs::metadata(&path).unwrap().permissions().mode() & 0o777, mode, "{}", path.display());
        }
    }

    #[tokio::test]
    async fn a_second_holder_of_the_lock_is_refused_until_the_first_is_gone() {
        let folder = tempfile::tempdir().unwrap();
        let destination = Directory::new(folder.path(), Symlinks::Secure).unwrap();
        let held = destination.lock().await.unwrap();
        let refused = destination.lock().await.err().unwrap();
        assert!(refused.message.starts_with("Failed to acquire exclusive lock"), "{refused}");
        drop(held);
        destination.lock().await.unwrap();
    }

    #[tokio::test]
    async fn a_symlink_elsewhere_is_followed_only_when_told_so() {
        let folder = tempfile::tempdir().unwrap();
        let (real, link) = (folder.path().join("real"), folder.path().join("link"));
        std::fs::create_dir(&real).unwrap();
        symlink(&real, &link).unwrap();
        let secure = Directory::new(&link, Symlinks::Secure).unwrap();
        let refused = secure.prepare().await.unwrap_err();
        assert!(refused.message.contains("symlinks: insecure"), "{refused}");
        assert!(secure.write(one_file()).await.is_err());
        assert_eq!(std::fs::read_dir(&real).unwrap().count(), 0);
        let insecure = Directory::new(&link, Symlinks::Insecure).unwrap();
        insecure.prepare().await.unwrap();
        insecure.write(one_file()).await.unwrap();
        assert!(real.join("key").exists());
    }

    #[tokio::test]
    async fn a_symlink_among_the_parents_is_named() {
        let folder = tempfile::tempdir().unwrap();
        let link = folder.path().join("link");
        std::fs::create_dir(folder.path().join("real")).unwrap();
        symlink(folder.path().join("real"), &link).unwrap();
        let destination = Directory::new(&link.join("a/b"), Symlinks::Secure).unwrap();
        let refused = destination.prepare().await.unwrap_err();
        assert!(refused.message.contains(&format!("{}: it is a symlink", link.display())), "{refused}");
        assert!(!folder.path().join("real/a").exists());
        Directory::new(&link.join("a/b"), Symlinks::Insecure).unwrap().prepare().await.unwrap();
        assert!(folder.path().join("real/a/b/.write-test").exists());
    }

    /// Opening a FIFO waits for its other end, and with it would the whole agent.
    #[tokio::test]
    async fn a_fifo_in_place_of_the_hosts_own_files_is_refused_at_once() {
        let folder = tempfile::tempdir().unwrap();
        for name in [LOCK, WRITE_TEST] {
            rustix::fs::mkfifoat(rustix::fs::CWD, folder.path().join(name), rustix::fs::Mode::RUSR).unwrap();
        }
        let destination = Directory::new(folder.path(), Symlinks::Secure).unwrap();
        for refused in [destination.prepare().await.unwrap_err(), destination.lock().await.err().unwrap()] {
            assert!(refused.message.contains("not a regular file"), "{refused}");
            assert_eq!(refused.kind, FailureKind::Storage);
        }
    }

    #[tokio::test]
    async fn a_file_in_place_of_the_directory_is_named() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("file");
        std::fs::write(&path, "").unwrap();
        let refused = Directory::new(&path, Symlinks::Secure).unwrap().prepare().await.unwrap_err();
        assert!(refused.message.contains("not a directory"), "{refused}");
    }
}
