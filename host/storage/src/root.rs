//! The way to the destination itself: component by component, each beneath a handle of the one before, so that nobody can put a
//! symlink in the way between a check and its use. It needs no system call that a kernel or a container may refuse.

use std::ffi::OsStr;
use std::io;
use std::os::fd::OwnedFd;
use std::path::{Component, Path, PathBuf};

use cap_std::fs::Dir;
use rustix::fs::{AtFlags, FileType, Mode, OFlags, fchmod, mkdirat, openat, statat};
use rustix::io::Errno;
use tracing::info;

use crate::{Symlinks, file};

/// What is done about a missing directory.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Missing {
    /// An error of kind `NotFound`.
    Refuse,
    /// It is created, 0700, parents too.
    Create,
}

const PRIVATE: Mode = Mode::RWXU;
const LOOK: OFlags = OFlags::PATH.union(OFlags::DIRECTORY).union(OFlags::CLOEXEC);
const READ: OFlags = OFlags::RDONLY.union(OFlags::DIRECTORY).union(OFlags::CLOEXEC);

/// A handle of the directory at the absolute `path`. Errors name the component that is in the way.
pub(crate) fn open(path: &Path, symlinks: Symlinks, missing: Missing) -> io::Result<Dir> {
    let mut so_far = PathBuf::from("/");
    let mut folder = rustix::fs::open("/", LOOK, Mode::empty())?;
    for component in path.components() {
        let name = match component {
            Component::RootDir | Component::CurDir | Component::Prefix(_) => continue,
            Component::ParentDir => OsStr::new(".."),
            Component::Normal(name) => name,
        };
        so_far.push(name);
        folder = step(&folder, name, symlinks, missing, &so_far).map_err(|e| {
            if so_far == path { e } else { io::Error::new(e.kind(), format!("{}: {e}", so_far.display())) }
        })?;
    }
    Ok(Dir::from_std_file(openat(&folder, ".", READ, Mode::empty())?.into()))
}

fn step(folder: &OwnedFd, name: &OsStr, symlinks: Symlinks, missing: Missing, path: &Path) -> io::Result<OwnedFd> {
    let follow = if symlinks == Symlinks::Insecure { OFlags::empty() } else { OFlags::NOFOLLOW };
    let look = || openat(folder, name, LOOK | follow, Mode::empty());
    let found = match look() {
        Err(Errno::NOENT) if missing == Missing::Create => {
            create(folder, name, path)?;
            look()
        }
        found => found,
    };
    found.map_err(|e| match (e, statat(folder, name, AtFlags::SYMLINK_NOFOLLOW).map(|found| found.st_mode)) {
        (Errno::LOOP | Errno::NOTDIR, Ok(mode)) if FileType::from_raw_mode(mode) == FileType::Symlink => {
            io::Error::other("it is a symlink: name the directory behind it, or set `symlinks: insecure`")
        }
        (Errno::LOOP | Errno::NOTDIR, _) => io::Error::other("it exists and is not a directory: choose another path"),
        (other, _) => other.into(),
    })
}

fn create(folder: &OwnedFd, name: &OsStr, path: &Path) -> io::Result<()> {
    match mkdirat(folder, name, PRIVATE) {
        Err(Errno::EXIST) => return Ok(()),
        done => done?,
    }
    let new = openat(folder, name, READ | OFlags::NOFOLLOW, Mode::empty())?;
    fchmod(&new, PRIVATE)?;
    // A parent that may be searched but not read cannot be synced; its owner's file system decides then.
    if let Ok(parent) = openat(folder, ".", READ, Mode::empty()) {
        file::sync(&Dir::from_std_file(parent.into()))?;
    }
    info!(target: "TBOT", "Created directory {path:?}");
    Ok(())
}
