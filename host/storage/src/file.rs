//! Single files beneath a handle of their directory: no symlink is followed, and what is not a regular file is not touched.

use std::io::{self, Read, Seek, Write};
use std::os::fd::{AsFd, OwnedFd};

use cap_fs_ext::{DirExt, FollowSymlinks, OpenOptionsFollowExt};
use cap_std::fs::{Dir, DirBuilder, DirBuilderExt, File, MetadataExt, OpenOptions, OpenOptionsExt};
use rustix::fs::{FallocateFlags, Gid, Mode, OFlags, Uid, XattrFlags};
use rustix::fs::{fallocate, fchmod, fchown, fgetxattr, fremovexattr, fsetxattr};
use rustix::io::Errno;
use zeroize::Zeroizing;

/// The largest file that is read back: what a plugin may write at most.
pub(crate) const READ_BYTES: u64 = 1 << 20;
/// Where Linux keeps the ACL of a file.
const ACL: &str = "system.posix_acl_access";
/// The longest value that Linux keeps there (`XATTR_SIZE_MAX`).
const ACL_BYTES: usize = 64 << 10;
const SECRET: Mode = Mode::RUSR.union(Mode::WUSR);
const PRIVATE: Mode = Mode::RWXU;

/// Opens a file to read it.
pub(crate) fn open_read(folder: &Dir, name: &str) -> io::Result<File> {
    open(folder, name, OpenOptions::new().read(true))
}

/// Opens an existing file to write it; its contents stay for now.
pub(crate) fn open_write(folder: &Dir, name: &str) -> io::Result<File> {
    open(folder, name, OpenOptions::new().write(true))
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

/// Replaces what the file holds, in place and durably.
pub(crate) fn rewrite(mut file: &File, contents: &[u8]) -> io::Result<()> {
    file.rewind()?;
    file.write_all(contents)?;
    file.set_len(contents.len() as u64)?;
    file.sync_all()
}

/// Gives `new` the owner, mode and ACL of `old`, as far as this process may: [`alike`] tells.
pub(crate) fn inherit(old: &File, new: &File) -> io::Result<()> {
    let had = old.metadata()?;
    let acl = acl(old)?;
    // A default ACL of the directory must not add to what was there.
    let _ = fremovexattr(new, ACL);
    let _ = fchown(new, Some(Uid::from_raw(had.uid())), Some(Gid::from_raw(had.gid())));
    fchmod(new, Mode::from_raw_mode(had.mode() & 0o777))?;
    if let Some(acl) = acl {
        let _ = fsetxattr(new, ACL, &acl, XattrFlags::empty());
    }
    Ok(())
}

/// Do the same people have the same rights to both files?
pub(crate) fn alike(one: &File, other: &File) -> io::Result<bool> {
    let (left, right) = (one.metadata()?, other.metadata()?);
    let rights = |of: &cap_std::fs::Metadata| (of.uid(), of.gid(), of.mode() & 0o777);
    Ok(rights(&left) == rights(&right) && acl(one)? == acl(other)?)
}

/// Directory and name of a path inside a destination.
pub(crate) fn split(path: &str) -> (Vec<&str>, &str) {
    let mut parts: Vec<_> = path.split('/').collect();
    let name = parts.pop().unwrap_or_default();
    (parts, name)
}

/// Walks down, following no symlink. Where `create` says so, what is missing is created, 0700, and its name made durable.
pub(crate) fn descend(dir: &Dir, parents: &[&str], create: bool) -> io::Result<Dir> {
    let mut folder = dir.try_clone()?;
    for name in parents {
        folder = match existing(folder.open_dir_nofollow(name)).map_err(|e| named(&e, name))? {
            Some(found) => found,
            None if create => {
                let new = create_private(&folder, name)?;
                sync(&folder)?;
                new
            }
            None => return Err(io::ErrorKind::NotFound.into()),
        };
    }
    Ok(folder)
}

/// Creates a directory, 0700 whatever the umask; it must not exist.
pub(crate) fn create_private(folder: &Dir, name: &str) -> io::Result<Dir> {
    folder.create_dir_with(name, DirBuilder::new().mode(PRIVATE.as_raw_mode()))?;
    let new = folder.open_dir_nofollow(name)?;
    fchmod(handle(&new)?, PRIVATE)?;
    Ok(new)
}

/// Makes names in `dir` durable.
pub(crate) fn sync(dir: &Dir) -> io::Result<()> {
    Ok(rustix::fs::fsync(handle(dir)?)?)
}

/// A new handle of the directory itself: those of cap-std may be path handles, which can be neither synced nor locked nor changed.
pub(crate) fn handle(dir: &Dir) -> io::Result<OwnedFd> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
    Ok(rustix::fs::openat(dir.as_fd(), ".", flags, Mode::empty())?)
}

/// The error with the path in front.
pub(crate) fn named(error: &io::Error, path: &str) -> io::Error {
    io::Error::new(error.kind(), format!("`{path}`: {error}"))
}

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

fn acl(file: &File) -> io::Result<Option<Vec<u8>>> {
    let mut acl = vec![0; ACL_BYTES];
    match fgetxattr(file, ACL, &mut acl) {
        Ok(length) => {
            acl.truncate(length);
            Ok(Some(acl))
        }
        Err(Errno::NODATA | Errno::NOTSUP) => Ok(None),
        Err(e) => Err(e.into()),
    }
}
