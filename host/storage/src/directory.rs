use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use async_trait::async_trait;
use cap_fs_ext::{FollowSymlinks, OpenOptionsFollowExt};
use cap_std::fs::{Dir, OpenOptions, OpenOptionsExt};
use identity::{Destination, Failure, FailureKind, OutputFile};
use rustix::fs::{FlockOperation, Mode, OFlags, flock};
use tracing::{info, warn};
use zeroize::Zeroizing;

use crate::set::{Set, regular};

/// May the destination itself be a symlink? What is inside is never followed (surface §B.5).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Symlinks {
    /// Followed.
    Insecure,
    /// Refused: every kernel that this program runs on can.
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

    /// Runs `work` on a blocking thread, against a handle of the directory.
    async fn blocking<T: Send + 'static>(
        &self,
        what: &'static str,
        work: impl FnOnce(&Self) -> io::Result<T> + Send + 'static,
    ) -> Result<T, Failure> {
        let this = self.clone();
        let done = tokio::task::spawn_blocking(move || work(&this)).await;
        let done = done.map_err(|e| Failure::new(FailureKind::Internal, e.to_string()))?;
        done.map_err(|e| {
            let remedy = match e.kind() {
                io::ErrorKind::PermissionDenied => {
                    ": Teleport does not have permission to access it; let the user that runs tbot own it (`chown`, or `tbot init`)"
                }
                io::ErrorKind::ReadOnlyFilesystem => ": mount it writable, or choose another path",
                io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => ": make room, the old files are still in place",
                _ => "",
            };
            Failure::new(FailureKind::Storage, format!("directory {} cannot be {what}: {e}{remedy}", self.path.display()))
        })
    }

    fn open(&self) -> io::Result<Dir> {
        let follow = if self.symlinks == Symlinks::Insecure { OFlags::empty() } else { OFlags::NOFOLLOW };
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC | follow;
        let handle = rustix::fs::open(self.path.as_path(), flags, Mode::empty()).map_err(|e| match e {
            rustix::io::Errno::LOOP | rustix::io::Errno::NOTDIR => match self.path.symlink_metadata() {
                Ok(metadata) if metadata.is_symlink() => {
                    io::Error::other("it is a symlink: name the directory itself, or set `symlinks: insecure`")
                }
                _ => io::Error::other("it exists and is not a directory"),
            },
            other => other.into(),
        })?;
        Ok(Dir::from_std_file(handle.into()))
    }

    /// Creates what is missing, parents too, each 0700 whatever the umask.
    fn create(&self) -> io::Result<()> {
        let missing: Vec<_> = self
            .path
            .ancestors()
            .take_while(|path| path.symlink_metadata().is_err_and(|e| e.kind() == io::ErrorKind::NotFound))
            .collect();
        for path in missing.into_iter().rev() {
            use std::os::unix::fs::{DirBuilderExt, PermissionsExt};
            match std::fs::DirBuilder::new().mode(0o700).create(path) {
                Ok(()) => {
                    std::fs::set_permissions(path, PermissionsExt::from_mode(0o700))?;
                    info!(target: "TBOT", "Created directory {path:?}");
                }
                Err(e) if e.kind() == io::ErrorKind::AlreadyExists => {}
                Err(e) => return Err(io::Error::new(e.kind(), format!("{}: {e}", path.display()))),
            }
        }
        Ok(())
    }

    fn try_lock(&self) -> io::Result<Option<cap_std::fs::File>> {
        self.create()?;
        let mut options = OpenOptions::new();
        options.write(true).create(true).mode(0o600).follow(FollowSymlinks::No);
        let file = regular(self.open()?.open_with("lock", &options)?)?;
        match flock(&file, FlockOperation::NonBlockingLockExclusive) {
            Ok(()) => Ok(Some(file)),
            Err(rustix::io::Errno::WOULDBLOCK) => Ok(None),
            Err(e) => Err(e.into()),
        }
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
        self.blocking("prepared", |this| {
            this.create()?;
            let dir = this.open()?;
            let mut options = OpenOptions::new();
            options.write(true).create(true).truncate(true).mode(0o600).follow(FollowSymlinks::No);
            // The name that the original uses to prove the same.
            regular(dir.open_with(".write-test", &options)?)?;
            Set { dir: &dir, step: &|_| Ok(()) }.recover()
        })
        .await
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
        self.blocking("written", move |this| {
            let dir = this.open()?;
            let set = Set { dir: &dir, step: &|_| Ok(()) };
            match set.write(&files) {
                Err(e) if e.kind() == io::ErrorKind::PermissionDenied => {
                    set.write_in_place(&files)?;
                    if !this.said.swap(true, Ordering::Relaxed) {
                        warn!(target: "TBOT", "The directory {} is not writable, the files in it are: they are rewritten in place, which a reader can see half done.", this.path.display());
                    }
                    Ok(())
                }
                done => done,
            }
        })
        .await
    }

    async fn read(&self, path: &str) -> Result<Option<Zeroizing<Vec<u8>>>, Failure> {
        let path = path.to_owned();
        self.blocking("read", move |this| match this.open() {
            Ok(dir) => Set { dir: &dir, step: &|_| Ok(()) }.read(&path),
            Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(e) => Err(e),
        })
        .await
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
    async fn a_file_in_place_of_the_directory_is_named() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("file");
        std::fs::write(&path, "").unwrap();
        let refused = Directory::new(&path, Symlinks::Secure).unwrap().prepare().await.unwrap_err();
        assert!(refused.message.contains("not a directory"), "{refused}");
    }
}
