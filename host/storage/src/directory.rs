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

use crate::access::{Access, Grant, Reader};
use crate::acl::Acl;
use crate::file;
use crate::generations::Generations;
use crate::root::{self, Missing};
use crate::set::{Set, Switched};

/// The file that is locked, the original's own: the two exclude each other (surface §D.1).
const LOCK: &str = "lock";
/// The empty file that proves that writing would succeed, the original's own (surface §C.1).
pub(crate) const WRITE_TEST: &str = ".write-test";
/// How often a write that a signal interrupted begins again.
const INTERRUPTIONS: usize = 3;

/// May the path of the destination lead through symlinks? Those inside are never followed (surface §B.5, §E.7).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Symlinks {
    /// Followed.
    Insecure,
    /// Refused, in parents too, as the original does. It takes no special kernel, so `try-secure` is the same.
    #[default]
    Secure,
}

/// Are access control lists looked at and set? (surface §B.5, §E.6)
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Acls {
    /// No. Those that files have are kept.
    Off,
    /// As far as the file system and this process's rights allow, with a warning where they do not.
    #[default]
    Try,
    /// Nothing is written where they cannot be as they should.
    Required,
}

/// How a set lies in its directory.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Layout {
    /// Files, replaced one after another.
    #[default]
    Plain,
    /// Links into `..data`, itself a link to the present generation, replaced at one stroke.
    Generations,
}

/// What an operator says of a directory besides its path.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Rules {
    /// May its path lead through symlinks?
    pub symlinks: Symlinks,
    /// Are access control lists looked at and set?
    pub acls: Acls,
    /// Who may read what is written, besides the owner: repaired at every write.
    pub readers: Vec<Reader>,
    /// How a set lies in it.
    pub layout: Layout,
}

/// A directory on a local file system.
#[derive(Clone)]
pub struct Directory {
    path: Arc<PathBuf>,
    pub(crate) rules: Arc<Rules>,
    said: Arc<Said>,
}

/// What an operator has been told once.
#[derive(Default)]
struct Said {
    in_place: AtomicBool,
    acls: AtomicBool,
}

impl Directory {
    /// A destination at `path`, which is made absolute. Nothing is touched yet.
    ///
    /// # Errors
    /// [`FailureKind::InvalidConfig`] where `path` is empty, the working directory is gone, or there are readers without ACLs.
    pub fn new(path: &Path, rules: Rules) -> Result<Self, Failure> {
        let invalid = |e: &dyn std::fmt::Display| {
            Failure::new(FailureKind::InvalidConfig, format!("destination path {path:?}: {e}"))
        };
        if rules.acls == Acls::Off && !rules.readers.is_empty() {
            return Err(invalid(&"`readers` are given their rights by ACLs: remove `acls: off`, or `readers`"));
        }
        let path = std::path::absolute(path).map_err(|e| invalid(&e))?;
        Ok(Self { path: Arc::new(path), rules: Arc::new(rules), said: Arc::default() })
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
        done.map_err(|e| self.failure(what, &e))
    }

    pub(crate) fn failure(&self, what: &str, error: &io::Error) -> Failure {
        let message = format!("directory {} cannot be {what}: {error}{}", self.path.display(), remedy(error));
        Failure::new(FailureKind::Storage, message)
    }

    /// The absolute path.
    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    pub(crate) fn open(&self, missing: Missing) -> io::Result<Dir> {
        root::open(&self.path, self.rules.symlinks, missing)
    }

    fn try_lock(&self) -> io::Result<Option<cap_std::fs::File>> {
        let file = file::open_or_create(&self.open(Missing::Create)?, LOCK).map_err(|e| file::named(e, LOCK))?;
        match flock(&file, FlockOperation::NonBlockingLockExclusive) {
            Ok(()) => Ok(Some(file)),
            Err(Errno::WOULDBLOCK) => Ok(None),
            Err(e) => Err(e.into()),
        }
    }

    fn prove_writable(&self) -> io::Result<()> {
        let dir = self.open(Missing::Create)?;
        set(&dir, &Grant::default()).recover()?;
        self.grant(&dir)?;
        file::open_or_create(&dir, WRITE_TEST)
            .and_then(|proof| file::prove_room(&proof))
            .map_err(|e| file::named(e, WRITE_TEST))
    }

    fn replace(&self, files: &[OutputFile]) -> io::Result<()> {
        let dir = self.open(Missing::Refuse)?;
        let grant = self.grant(&dir)?;
        self.check_prepared(&dir, files)?;
        if self.rules.layout == Layout::Generations {
            return Generations(&set(&dir, &grant)).write(files);
        }
        let switched = set(&dir, &grant).write(files)?;
        if switched == Switched::InPlace && !self.said.in_place.swap(true, Ordering::Relaxed) {
            let path = self.path.display();
            warn!(target: "TBOT", "Files in {path} were prepared so that they cannot be replaced: they are rewritten in place, which a reader can see half done.");
        }
        Ok(())
    }

    /// What files are to be given; the directory itself is repaired here. Without readers that is nothing.
    fn grant(&self, dir: &Dir) -> io::Result<Grant> {
        let required = self.rules.acls == Acls::Required;
        let grant = Grant { readers: self.rules.readers.clone(), required };
        let repaired = file::handle(dir).and_then(|dir| match required && grant.readers.is_empty() {
            true => Acl::supported(dir),
            false => grant.repair_directory(dir),
        });
        let Err(e) = repaired else { return Ok(grant) };
        let why = format!("ACLs are not usable for destination {}: {e}", self.description());
        if required {
            return Err(io::Error::other(format!("{why}: {}, or set `acls: try`", acl_remedy(&e))));
        }
        if !self.said.acls.swap(true, Ordering::Relaxed) {
            warn!(target: "TBOT", "{why}; readers are given no rights. Change the destination's ACL mode to `off` and remove `readers` to silence this warning.");
        }
        Ok(Grant::default())
    }

    /// A directory of another was prepared for us: are the rights to its files such that nobody else reads them? (surface §E.6)
    fn check_prepared(&self, dir: &Dir, files: &[OutputFile]) -> io::Result<()> {
        let ours = Access::of(file::handle(dir)?)?.uid == rustix::process::geteuid().as_raw();
        if self.rules.acls == Acls::Off || !self.rules.readers.is_empty() || ours {
            return Ok(());
        }
        let nothing = Grant::default();
        let set = set(dir, &nothing);
        for path in files.iter().map(|file| file.path.as_str()) {
            let Some(file) = file::existing(set.open(path)).map_err(|e| file::named(e, path))? else { continue };
            let acl = Access::of(&file)?.acl;
            let why = format!("Destination {:?} has unexpected ACLs: `{path}` has {acl}", self.path.display());
            match acl.too_open() {
                true if self.rules.acls == Acls::Required => {
                    return Err(io::Error::other(format!("{why}: run `tbot init` again, or set `acls: try`")));
                }
                true if !self.said.acls.swap(true, Ordering::Relaxed) => {
                    warn!(target: "TBOT", "{why}: run `tbot init` again, or set `acls: off`.");
                }
                _ => {}
            }
        }
        Ok(())
    }
}

/// The set in `dir`, without a test's crashes.
fn set<'a>(dir: &'a Dir, grant: &'a Grant) -> Set<'a> {
    Set { dir, grant, step: &|_| Ok(()) }
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
        self.blocking("written", move |this| {
            // A signal is no reason to fail: the set of before is still the set.
            let interrupted = |done: &io::Result<()>| matches!(done, Err(e) if e.kind() == io::ErrorKind::Interrupted);
            let mut tries = std::iter::repeat_with(|| this.replace(&files)).take(INTERRUPTIONS);
            tries.find(|done| !interrupted(done)).unwrap_or_else(|| this.replace(&files))
        })
        .await
    }

    async fn read(&self, path: &str) -> Result<Option<Zeroizing<Vec<u8>>>, Failure> {
        let path = path.to_owned();
        self.blocking("read", move |this| match file::existing(this.open(Missing::Refuse))? {
            Some(dir) => set(&dir, &Grant::default()).read(&path),
            None => Ok(None),
        })
        .await
    }
}

fn remedy(error: &io::Error) -> String {
    match file::errno(error) {
        Some(Errno::ACCESS | Errno::PERM) => format!(
            ": Teleport does not have permission to access it; let the user that runs tbot (uid {}) own it, with `chown` or `tbot init`",
            rustix::process::geteuid().as_raw()
        ),
        Some(Errno::ROFS) => ": mount it writable, or choose another path".into(),
        Some(Errno::NOSPC | Errno::DQUOT | Errno::FBIG) => ": make room, the files of before are still in place".into(),
        Some(Errno::IO) => ": the disk fails, see the kernel's log; no file is half written".into(),
        _ => String::new(),
    }
}

fn acl_remedy(error: &io::Error) -> String {
    match file::errno(error) {
        Some(Errno::NOTSUP) => "choose a file system with ACLs".into(),
        Some(Errno::PERM) => {
            format!("let the user that runs tbot (uid {}) own it", rustix::process::geteuid().as_raw())
        }
        _ => "mend that".into(),
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
        let destination = Directory::new(&path, Rules::default()).unwrap();
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
        let destination = Directory::new(folder.path(), Rules::default()).unwrap();
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
        let secure = Directory::new(&link, Rules::default()).unwrap();
        let refused = secure.prepare().await.unwrap_err();
        assert!(refused.message.contains("symlinks: insecure"), "{refused}");
        assert!(secure.write(one_file()).await.is_err());
        assert_eq!(std::fs::read_dir(&real).unwrap().count(), 0);
        let insecure = Directory::new(&link, Rules { symlinks: Symlinks::Insecure, ..Rules::default() }).unwrap();
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
        let destination = Directory::new(&link.join("a/b"), Rules::default()).unwrap();
        let refused = destination.prepare().await.unwrap_err();
        assert!(refused.message.contains(&format!("{}: it is a symlink", link.display())), "{refused}");
        assert!(!folder.path().join("real/a").exists());
        Directory::new(&link.join("a/b"), Rules { symlinks: Symlinks::Insecure, ..Rules::default() })
            .unwrap()
            .prepare()
            .await
            .unwrap();
        assert!(folder.path().join("real/a/b/.write-test").exists());
    }

    /// Opening a FIFO waits for its other end, and with it would the whole agent.
    #[tokio::test]
    async fn a_fifo_in_place_of_the_hosts_own_files_is_refused_at_once() {
        let folder = tempfile::tempdir().unwrap();
        for name in [LOCK, WRITE_TEST] {
            rustix::fs::mkfifoat(rustix::fs::CWD, folder.path().join(name), rustix::fs::Mode::RUSR).unwrap();
        }
        let destination = Directory::new(folder.path(), Rules::default()).unwrap();
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
        let refused = Directory::new(&path, Rules::default()).unwrap().prepare().await.unwrap_err();
        assert!(refused.message.contains("not a directory"), "{refused}");
    }
}
