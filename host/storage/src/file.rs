//! Single files beneath a handle of their directory: no symlink is followed, and what is not a regular file is not touched.

use std::fmt;
use std::io::{self, Read};
use std::os::fd::{AsFd, OwnedFd};

use cap_fs_ext::{DirExt, FollowSymlinks, OpenOptionsFollowExt};
use cap_std::fs::{Dir, DirBuilder, DirBuilderExt, File, FileExt, MetadataExt, OpenOptions, OpenOptionsExt};
use rustix::fs::{FallocateFlags, Mode, OFlags, fallocate, fchmod};
use rustix::io::Errno;
use zeroize::Zeroizing;

use crate::access::Grant;
use crate::acl::{Acl, READ, SEARCH, WRITE};

/// The largest file that is read back: what a plugin may write at most.
pub(crate) const READ_BYTES: u64 = 1 << 20;
/// What a large set takes: a dozen files and their folder, in whole blocks.
const ROOM_BYTES: usize = 64 << 10;
const SECRET: Mode = Mode::RUSR.union(Mode::WUSR);
const PRIVATE: Mode = Mode::RWXU;

/// Opens a file to read it.
pub(crate) fn open_read(folder: &Dir, name: &str) -> io::Result<File> {
    open(folder, name, OpenOptions::new().read(true))
}

/// Opens an existing file to write it; its contents stay for now.
pub(crate) fn open_write(folder: &Dir, name: &str) -> io::Result<File> {
    open(folder, name, OpenOptions::new().write(true)).and_then(sole)
}

/// The file, unless it has a second name: then it could be anything on the file system, put here for us to change.
pub(crate) fn sole(file: File) -> io::Result<File> {
    match file.metadata()?.nlink() {
        0 | 1 => Ok(file),
        names => Err(io::Error::other(format!("it has {names} names (hard links): remove this one"))),
    }
}

/// Creates a file, 0600 whatever the umask; it must not exist.
pub(crate) fn create(folder: &Dir, name: &str) -> io::Result<File> {
    let mut options = OpenOptions::new();
    options.read(true).write(true).create_new(true).mode(SECRET.as_raw_mode());
    let file = folder.open_with(name, &options)?;
    fchmod(&file, SECRET)?;
    Ok(file)
}

/// Opens a file to write it and creates it where it is missing.
pub(crate) fn open_or_create(folder: &Dir, name: &str) -> io::Result<File> {
    match open_write(folder, name) {
        Err(e) if e.kind() == io::ErrorKind::NotFound => match create(folder, name) {
            Err(e) if e.kind() == io::ErrorKind::AlreadyExists => open_write(folder, name),
            created => created,
        },
        opened => opened,
    }
}

/// `None` instead of an error that says that there is no such file.
pub(crate) fn existing<T>(opened: io::Result<T>) -> io::Result<Option<T>> {
    match opened {
        Ok(found) => Ok(Some(found)),
        Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(e) => Err(e),
    }
}

/// The whole file, at most [`READ_BYTES`].
pub(crate) fn contents(file: File) -> io::Result<Zeroizing<Vec<u8>>> {
    let mut contents =
        Zeroizing::new(Vec::with_capacity(usize::try_from(file.metadata()?.len().min(READ_BYTES)).unwrap_or(0)));
    file.take(READ_BYTES + 1).read_to_end(&mut contents)?;
    if contents.len() as u64 > READ_BYTES {
        return Err(io::Error::other(format!("larger than {READ_BYTES} bytes")));
    }
    Ok(contents)
}

/// Makes room for `bytes` bytes without changing what the file holds, so that rewriting it does not end on a full disk half-way.
pub(crate) fn reserve(file: &File, bytes: usize) -> io::Result<()> {
    if bytes == 0 {
        return Ok(());
    }
    match fallocate(file, FallocateFlags::KEEP_SIZE, 0, bytes as u64) {
        Err(e @ (Errno::NOSPC | Errno::DQUOT)) => Err(e.into()),
        // Not every file system can.
        _ => Ok(()),
    }
}

/// Proves that there is room for a set, by taking it and giving it back. The file is empty afterwards.
pub(crate) fn prove_room(file: &File) -> io::Result<()> {
    let taken = file.write_all_at(&vec![0; ROOM_BYTES], 0);
    taken.and(file.set_len(0))
}

/// Replaces what the file holds, in place and durably.
pub(crate) fn rewrite(file: &File, contents: &[u8]) -> io::Result<()> {
    file.write_all_at(contents, 0)?;
    file.set_len(contents.len() as u64)?;
    file.sync_all()
}

/// Directory and name of a path inside a destination.
pub(crate) fn split(path: &str) -> (Vec<&str>, &str) {
    let mut parts: Vec<_> = path.split('/').collect();
    let name = parts.pop().unwrap_or_default();
    (parts, name)
}

/// Walks down, following no symlink.
pub(crate) fn descend(dir: &Dir, parents: &[&str]) -> io::Result<Dir> {
    let mut folder = dir.try_clone()?;
    for name in parents {
        folder = folder.open_dir_nofollow(name).map_err(|e| named(e, name))?;
    }
    Ok(folder)
}

/// As [`descend`]; what is missing is created, 0700 or as the default ACL says, and its name made durable. All get `grant`.
pub(crate) fn descend_or_create(dir: &Dir, parents: &[&str], grant: &Grant) -> io::Result<Dir> {
    let mut folder = dir.try_clone()?;
    for name in parents {
        folder = match existing(folder.open_dir_nofollow(name)).map_err(|e| named(e, name))? {
            Some(found) => found,
            None => create_folder(&folder, name)?,
        };
        grant.repair_directory(handle(&folder)?)?;
    }
    Ok(folder)
}

/// Creates a directory, 0700 or as the default ACL says, and makes its name durable; it must not exist.
pub(crate) fn create_folder(folder: &Dir, name: &str) -> io::Result<Dir> {
    let new = create_private(folder, name)?;
    if let Some(acl) = Acl::inherited(handle(folder)?, READ | WRITE | SEARCH)? {
        acl.give(handle(&new)?)?;
    }
    sync(folder)?;
    Ok(new)
}

/// Creates a directory, 0700 whatever the umask; it must not exist.
pub(crate) fn create_private(folder: &Dir, name: &str) -> io::Result<Dir> {
    folder.create_dir_with(name, DirBuilder::new().mode(PRIVATE.as_raw_mode()))?;
    let new = folder.open_dir_nofollow(name)?;
    fchmod(handle(&new)?, PRIVATE)?;
    Ok(new)
}

/// Removes what has that name, if anything: a folder with all that is in it.
pub(crate) fn remove(folder: &Dir, name: &str) -> io::Result<()> {
    let removed = match existing(folder.symlink_metadata(name))? {
        Some(found) if found.is_dir() => folder.remove_dir_all(name),
        Some(_) => folder.remove_file(name),
        None => Ok(()),
    };
    removed.map_err(|e| named(e, name))
}

/// Adds the paths of all files below `folder`, each behind `prefix`.
pub(crate) fn list(folder: &Dir, prefix: &str, paths: &mut Vec<String>) -> io::Result<()> {
    for entry in folder.entries()? {
        let entry = entry?;
        let path = format!("{prefix}{}", entry.file_name().to_string_lossy());
        match entry.file_type()?.is_dir() {
            true => list(&folder.open_dir_nofollow(entry.file_name())?, &format!("{path}/"), paths)?,
            false => paths.push(path),
        }
    }
    Ok(())
}

/// Makes names in `dir` durable, where the file system can do that to a directory: folders shared with a virtual machine's host cannot.
pub(crate) fn sync(dir: &Dir) -> io::Result<()> {
    match rustix::fs::fsync(handle(dir)?) {
        Err(Errno::INVAL) => Ok(()),
        done => Ok(done?),
    }
}

/// A new handle of the directory itself: those of cap-std may be path handles, which can be neither synced nor locked nor changed.
pub(crate) fn handle(dir: &Dir) -> io::Result<OwnedFd> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
    Ok(rustix::fs::openat(dir.as_fd(), ".", flags, Mode::empty())?)
}

/// The error with the path in front.
pub(crate) fn named(error: io::Error, path: &str) -> io::Error {
    io::Error::new(error.kind(), At { path: path.to_owned(), error })
}

/// What the system said, below all paths in front of it.
pub(crate) fn errno(error: &io::Error) -> Option<Errno> {
    match error.get_ref().and_then(|inner| inner.downcast_ref::<At>()) {
        Some(at) => errno(&at.error),
        None => error.raw_os_error().map(Errno::from_raw_os_error),
    }
}

#[derive(Debug)]
struct At {
    path: String,
    error: io::Error,
}

impl fmt::Display for At {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "`{}`: {}", self.path, self.error)
    }
}

impl std::error::Error for At {}

fn open(folder: &Dir, name: &str, options: &mut OpenOptions) -> io::Result<File> {
    let regular = |metadata: cap_std::fs::Metadata| match metadata.is_file() {
        true => Ok(()),
        false => Err(io::Error::other("not a regular file: remove what has its name")),
    };
    // Looked at before it is opened, since opening alone can move a device; and after, since it may have been exchanged.
    regular(folder.symlink_metadata(name)?)?;
    // Opening a FIFO would wait for its other end.
    options.follow(FollowSymlinks::No).custom_flags(OFlags::NONBLOCK.bits().cast_signed());
    let file = folder.open_with(name, options)?;
    regular(file.metadata()?)?;
    Ok(file)
}
