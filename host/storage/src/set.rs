//! The switch of a set of files inside one directory, against a handle of that directory.
//!
//! 1. every file is written into `.tbot-staged/`, with the owner, mode and ACL of the file it replaces, and made durable;
//! 2. `.tbot-staged` is renamed to `.tbot-commit`: from here on the new set is the set;
//! 3. each file is moved into its place, and the empty folder removed.
//!
//! What a crash leaves behind says how to go on: a `.tbot-staged` is removed, a `.tbot-commit` is completed ([`Set::recover`]).

use std::io::{self, Read, Write};
use std::os::fd::AsFd;

use cap_fs_ext::{DirExt, FollowSymlinks, OpenOptionsFollowExt};
use cap_std::fs::{Dir, DirBuilder, DirBuilderExt, File, MetadataExt, OpenOptions, OpenOptionsExt};
use identity::OutputFile;
use rustix::fs::{Gid, Mode, Uid, XattrFlags, fchmod, fchown, fgetxattr, fsetxattr};
use zeroize::Zeroizing;

const STAGED: &str = ".tbot-staged";
const COMMIT: &str = ".tbot-commit";
/// Where Linux keeps the ACL of a file.
const ACL: &str = "system.posix_acl_access";
/// The largest file that is read back: what a plugin may write at most.
const READ_BYTES: u64 = 1 << 20;
const SECRET: Mode = Mode::RUSR.union(Mode::WUSR);
const PRIVATE: Mode = Mode::RWXU;

/// A directory, and what happens between the steps of a switch: nothing, or a test's crash.
pub(crate) struct Set<'a> {
    pub(crate) dir: &'a Dir,
    pub(crate) step: &'a dyn Fn(&str) -> io::Result<()>,
}

impl Set<'_> {
    /// Replaces the set. On an error before the commit the old set is untouched and the staging folder removed.
    pub(crate) fn write(&self, files: &[OutputFile]) -> io::Result<()> {
        self.recover()?;
        self.stage(files).inspect_err(|_| drop(self.dir.remove_dir_all(STAGED)))?;
        self.complete()
    }

    /// Completes or clears what a crash left behind.
    pub(crate) fn recover(&self) -> io::Result<()> {
        if self.dir.symlink_metadata(STAGED).is_ok() {
            self.dir.remove_dir_all(STAGED)?;
        }
        match self.dir.symlink_metadata(COMMIT) {
            Ok(_) => self.complete(),
            Err(_) => Ok(()),
        }
    }

    fn stage(&self, files: &[OutputFile]) -> io::Result<()> {
        self.dir.create_dir_with(STAGED, DirBuilder::new().mode(PRIVATE.as_raw_mode()))?;
        let staged = self.dir.open_dir_nofollow(STAGED)?;
        fchmod(handle(&staged)?, PRIVATE)?;
        for file in files {
            (self.step)("stage")?;
            let (parents, name) = split(file.path.as_str());
            let folder = descend(&staged, &parents, true)?;
            let mut options = OpenOptions::new();
            options.write(true).create_new(true).mode(SECRET.as_raw_mode());
            let mut target = folder.open_with(name, &options)?;
            target.write_all(&file.contents)?;
            fchmod(&target, SECRET)?;
            self.inherit(&parents, name, &target).map_err(|e| named(&e, file.path.as_str()))?;
            target.sync_all()?;
            sync(&folder)?;
        }
        sync(&staged)?;
        (self.step)("commit")?;
        self.dir.rename(STAGED, self.dir, COMMIT)?;
        sync(self.dir)
    }

    /// Gives `new` the owner, mode and ACL of the file that it will replace: an operator may have prepared it.
    fn inherit(&self, parents: &[&str], name: &str, new: &File) -> io::Result<()> {
        let old = match descend(self.dir, parents, false).and_then(|folder| open_file(&folder, name)) {
            Ok(old) => old,
            Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(()),
            Err(e) => return Err(e),
        };
        let (had, has) = (old.metadata()?, new.metadata()?);
        if (had.uid(), had.gid()) != (has.uid(), has.gid()) {
            // Only root may give a file away; where we cannot, the reader's ACL still holds.
            let _ = fchown(new, Some(Uid::from_raw(had.uid())), Some(Gid::from_raw(had.gid())));
        }
        fchmod(new, Mode::from_raw_mode(had.mode() & 0o777))?;
        let mut acl = vec![0; 4096];
        if let Ok(length) = fgetxattr(&old, ACL, &mut acl) {
            fsetxattr(new, ACL, acl.get(..length).unwrap_or_default(), XattrFlags::empty())?;
        }
        Ok(())
    }

    fn complete(&self) -> io::Result<()> {
        let commit = self.dir.open_dir_nofollow(COMMIT)?;
        self.place(&commit, self.dir)?;
        (self.step)("remove")?;
        self.dir.remove_dir_all(COMMIT)?;
        sync(self.dir)
    }

    fn place(&self, from: &Dir, to: &Dir) -> io::Result<()> {
        for entry in from.entries()? {
            let entry = entry?;
            let name = entry.file_name();
            if entry.file_type()?.is_dir() {
                let text = name.to_string_lossy();
                self.place(&from.open_dir_nofollow(&name)?, &descend(to, &[&text], true)?)?;
            } else {
                (self.step)("place")?;
                from.rename(&name, to, &name).map_err(|e| named(&e, &name.to_string_lossy()))?;
            }
        }
        sync(to)
    }

    /// Rewrites files in their places: for a directory that is not ours, holding files that are. Not safe against a crash.
    pub(crate) fn write_in_place(&self, files: &[OutputFile]) -> io::Result<()> {
        let mut open = Vec::new();
        for file in files {
            let (parents, name) = split(file.path.as_str());
            let mut options = OpenOptions::new();
            options.write(true).follow(FollowSymlinks::No);
            let target = descend(self.dir, &parents, false).and_then(|folder| folder.open_with(name, &options));
            let target = target.and_then(regular).map_err(|e| named(&e, file.path.as_str()))?;
            open.push((target, file));
        }
        // All could be opened: only now the first is touched.
        for (mut target, file) in open {
            target.set_len(0)?;
            target.write_all(&file.contents)?;
            target.sync_all()?;
        }
        Ok(())
    }

    /// What a reader sees at `path`.
    pub(crate) fn read(&self, path: &str) -> io::Result<Option<Zeroizing<Vec<u8>>>> {
        let (parents, name) = split(path);
        let file = match descend(self.dir, &parents, false).and_then(|folder| open_file(&folder, name)) {
            Ok(file) => file,
            Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(e) => return Err(named(&e, path)),
        };
        let mut contents = Zeroizing::new(Vec::new());
        file.take(READ_BYTES + 1).read_to_end(&mut contents)?;
        if contents.len() as u64 > READ_BYTES {
            return Err(named(&io::Error::other(format!("larger than {READ_BYTES} bytes")), path));
        }
        Ok(Some(contents))
    }
}

/// Opens a regular file for reading; whatever else has its name is refused without being touched.
pub(crate) fn open_file(folder: &Dir, name: &str) -> io::Result<File> {
    let mut options = OpenOptions::new();
    // A FIFO must not hold us up.
    options.read(true).follow(FollowSymlinks::No).custom_flags(rustix::fs::OFlags::NONBLOCK.bits().cast_signed());
    regular(folder.open_with(name, &options)?)
}

/// Hands a regular file through.
pub(crate) fn regular(file: File) -> io::Result<File> {
    match file.metadata()?.is_file() {
        true => Ok(file),
        false => Err(io::Error::other("not a regular file: remove what has its name")),
    }
}

fn split(path: &str) -> (Vec<&str>, &str) {
    let mut parts: Vec<_> = path.split('/').collect();
    let name = parts.pop().unwrap_or_default();
    (parts, name)
}

/// Walks down, following no symlink; creates what is missing, 0700, where `create` says so.
fn descend(dir: &Dir, parents: &[&str], create: bool) -> io::Result<Dir> {
    let mut folder = dir.try_clone()?;
    for name in parents {
        if create && folder.symlink_metadata(name).is_err() {
            folder.create_dir_with(name, DirBuilder::new().mode(PRIVATE.as_raw_mode()))?;
            folder = folder.open_dir_nofollow(name)?;
            fchmod(handle(&folder)?, PRIVATE)?;
        } else {
            folder = folder.open_dir_nofollow(name)?;
        }
    }
    Ok(folder)
}

pub(crate) fn sync(dir: &Dir) -> io::Result<()> {
    Ok(rustix::fs::fsync(handle(dir)?)?)
}

/// A handle of the directory itself: those of cap-std may be path handles, which can be neither synced nor changed.
fn handle(dir: &Dir) -> io::Result<std::os::fd::OwnedFd> {
    let flags = rustix::fs::OFlags::RDONLY | rustix::fs::OFlags::DIRECTORY | rustix::fs::OFlags::CLOEXEC;
    Ok(rustix::fs::openat(dir.as_fd(), ".", flags, Mode::empty())?)
}

fn named(error: &io::Error, path: &str) -> io::Error {
    io::Error::new(error.kind(), format!("`{path}`: {error}"))
}

#[cfg(test)]
mod tests {
    use std::cell::Cell;
    use std::os::unix::fs::{PermissionsExt, symlink};

    use cap_std::ambient_authority;
    use identity::RelativePath;

    use super::*;

    fn files(generation: &str) -> Vec<OutputFile> {
        let file = |path: &str| OutputFile {
            path: RelativePath::parse(path).unwrap(),
            contents: Zeroizing::new(format!("{path} {generation}").into_bytes()),
        };
        ["tlscert", "key", "cockroach/ca.crt", "cockroach/node.key"].map(file).to_vec()
    }

    fn generation(set: &Set<'_>) -> Vec<String> {
        let word = |file: &OutputFile| {
            let bytes = set.read(file.path.as_str()).unwrap().unwrap();
            String::from_utf8(bytes.to_vec()).unwrap().rsplit(' ').next().unwrap().to_owned()
        };
        let mut all: Vec<_> = files("").iter().map(word).collect();
        all.dedup();
        all
    }

    fn folder() -> (tempfile::TempDir, Dir) {
        let folder = tempfile::tempdir().unwrap();
        let dir = Dir::open_ambient_dir(folder.path(), ambient_authority()).unwrap();
        (folder, dir)
    }

    /// Ends the switch at every step in turn, as a kill would, and starts again.
    #[test]
    fn a_crash_at_any_step_leaves_the_whole_old_or_the_whole_new_set() {
        let (mut old, mut new) = (0, 0);
        for crash in 0..64 {
            let (_keep, dir) = folder();
            let calm = Set { dir: &dir, step: &|_| Ok(()) };
            calm.write(&files("one")).unwrap();
            let left = Cell::new(crash);
            let step = |_: &str| {
                left.set(left.get() - 1);
                if left.get() < 0 { Err(io::Error::other("crash")) } else { Ok(()) }
            };
            let doomed = Set { dir: &dir, step: &step };
            // Not `write`: a process that is killed cleans nothing up.
            let crashed =
                doomed.recover().and_then(|()| doomed.stage(&files("two"))).and_then(|()| doomed.complete()).is_err();
            calm.recover().unwrap();
            match generation(&calm).as_slice() {
                [one] if one == "one" => old += 1,
                [two] if two == "two" => new += 1,
                mixed => panic!("crash at step {crash} leaves {mixed:?}"),
            }
            assert!(dir.symlink_metadata(STAGED).is_err() && dir.symlink_metadata(COMMIT).is_err());
            if !crashed {
                assert!(old >= 5 && new >= 5, "{old} {new}");
                return;
            }
        }
        panic!("the switch never ended");
    }

    #[test]
    fn a_failure_before_the_commit_leaves_no_trace() {
        let (keep, dir) = folder();
        let calm = Set { dir: &dir, step: &|_| Ok(()) };
        calm.write(&files("one")).unwrap();
        let full = Set {
            dir: &dir,
            step: &|step| if step == "commit" { Err(io::ErrorKind::StorageFull.into()) } else { Ok(()) },
        };
        assert_eq!(full.write(&files("two")).unwrap_err().kind(), io::ErrorKind::StorageFull);
        assert_eq!(generation(&calm), ["one"]);
        let names: Vec<_> = std::fs::read_dir(keep.path()).unwrap().map(|entry| entry.unwrap().file_name()).collect();
        assert_eq!(names.len(), 3, "{names:?}");
    }

    #[test]
    fn what_an_operator_prepared_keeps_its_mode() {
        let (keep, dir) = folder();
        let set = Set { dir: &dir, step: &|_| Ok(()) };
        std::fs::write(keep.path().join("key"), "").unwrap();
        std::fs::set_permissions(keep.path().join("key"), PermissionsExt::from_mode(0o640)).unwrap();
        set.write(&files("one")).unwrap();
        let mode = |name: &str| std::fs::metadata(keep.path().join(name)).unwrap().permissions().mode() & 0o777;
        assert_eq!((mode("key"), mode("tlscert"), mode("cockroach")), (0o640, 0o600, 0o700));
    }

    #[test]
    fn symlinks_fifos_and_folders_in_place_of_a_file_are_refused_and_the_rest_stays() {
        for hostile in ["symlink", "fifo", "folder", "parent"] {
            let (keep, dir) = folder();
            let outside = tempfile::tempdir().unwrap();
            let victim = outside.path().join("victim");
            std::fs::write(&victim, "precious").unwrap();
            let set = Set { dir: &dir, step: &|_| Ok(()) };
            set.write(&files("one")).unwrap();
            let key = keep.path().join("key");
            match hostile {
                "parent" => {
                    std::fs::remove_dir_all(keep.path().join("cockroach")).unwrap();
                    symlink(outside.path(), keep.path().join("cockroach")).unwrap();
                }
                _ => std::fs::remove_file(&key).unwrap(),
            }
            match hostile {
                "symlink" => symlink(&victim, &key).unwrap(),
                "fifo" => rustix::fs::mkfifoat(rustix::fs::CWD, &key, SECRET).unwrap(),
                "folder" => std::fs::create_dir(&key).unwrap(),
                _ => {}
            }
            assert!(set.write(&files("two")).is_err(), "{hostile}");
            assert_eq!(set.read("tlscert").unwrap().unwrap().as_slice(), b"tlscert one", "{hostile}");
            assert_eq!(std::fs::read(&victim).unwrap(), b"precious");
            assert_eq!(std::fs::read_dir(outside.path()).unwrap().count(), 1, "{hostile} wrote outside");
        }
    }
}
