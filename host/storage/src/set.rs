//! The switch of a set of files inside one directory, against a handle of that directory.
//!
//! 1. every file is written into `.tbot-staged/`, with the owner, mode and ACL of the file it replaces, and made durable;
//! 2. `.tbot-staged` is renamed to `.tbot-commit`: from here on the new set is the set;
//! 3. each file is moved into its place, and the empty folder removed.
//!
//! What a crash leaves behind says how to go on: a `.tbot-staged` is removed, a `.tbot-commit` is completed ([`Set::recover`]).
//! The directory itself is locked meanwhile, so that two processes, or two outputs, do not take each other's work for a crash.

use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::time::{Duration, Instant};

use cap_fs_ext::DirExt;
use cap_std::fs::{Dir, File, MetadataExt};
use identity::OutputFile;
use rustix::fs::{FlockOperation, flock, renameat};
use rustix::io::Errno;
use zeroize::Zeroizing;

use crate::access::{Access, Grant};
use crate::acl::{Acl, READ, WRITE};
use crate::file::{self, descend, descend_or_create, existing, handle, named, split, sync};
use crate::generations::Generations;

const STAGED: &str = ".tbot-staged";
const COMMIT: &str = ".tbot-commit";
/// How long another switch in the same directory may take: 32 files on a slow disk.
const LOCK_WAIT: Duration = Duration::from_secs(10);
/// How often is looked whether it is over.
const LOCK_POLL: Duration = Duration::from_millis(20);

/// A directory, what its files are given, and what happens between the steps of a switch: nothing, or a test's crash.
pub(crate) struct Set<'a> {
    pub(crate) dir: &'a Dir,
    pub(crate) grant: &'a Grant,
    pub(crate) step: &'a dyn Fn(&str) -> io::Result<()>,
}

/// How a set was replaced.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Switched {
    /// Every file by a new one.
    Whole,
    /// At least one file by rewriting it, since it cannot be replaced by one that the same people may read.
    InPlace,
}

impl Set<'_> {
    /// Replaces the set. On an error before the commit the old set is untouched and the staging folder removed; after it, the next
    /// start, read or write completes the new set.
    pub(crate) fn write(&self, files: &[OutputFile]) -> io::Result<Switched> {
        let _lock = self.lock()?;
        self.clean_up()?;
        Generations(self).settle()?;
        let staged = match file::create_private(self.dir, STAGED) {
            Err(e) if e.kind() == io::ErrorKind::PermissionDenied => {
                return self.write_in_place(files).map(|()| Switched::InPlace);
            }
            created => created.map_err(|e| named(e, STAGED))?,
        };
        self.stage(&staged, files).inspect_err(|_| drop(self.dir.remove_dir_all(STAGED)))?;
        self.complete(files)
    }

    /// Completes or clears what a crash left behind.
    pub(crate) fn recover(&self) -> io::Result<()> {
        match self.dir.symlink_metadata(STAGED).is_ok() || self.dir.symlink_metadata(COMMIT).is_ok() {
            true => {
                let _lock = self.lock()?;
                self.clean_up()
            }
            false => Ok(()),
        }
    }

    /// What a reader sees at `path`, once a switch that was committed is complete.
    pub(crate) fn read(&self, path: &str) -> io::Result<Option<Zeroizing<Vec<u8>>>> {
        if self.dir.symlink_metadata(COMMIT).is_ok() {
            self.recover()?;
        }
        let opened = existing(self.open(path)).map_err(|e| named(e, path))?;
        opened.map(|opened| file::contents(opened).map_err(|e| named(e, path))).transpose()
    }

    /// Opens a file of the set to read it, in whichever layout it lies.
    pub(crate) fn open(&self, path: &str) -> io::Result<File> {
        let (parents, name) = split(path);
        match Generations(self).of(parents.first().copied().unwrap_or(name))? {
            Some(generation) => file::open_read(&descend(&generation, &parents)?, name),
            None => file::open_read(&descend(self.dir, &parents)?, name),
        }
    }

    /// Waits for other switches in this directory; `None` where the file system locks no directories.
    pub(crate) fn lock(&self) -> io::Result<Option<OwnedFd>> {
        let handle = handle(self.dir)?;
        let end = Instant::now() + LOCK_WAIT;
        loop {
            match flock(&handle, FlockOperation::NonBlockingLockExclusive) {
                Ok(()) => return Ok(Some(handle)),
                Err(Errno::WOULDBLOCK | Errno::INTR) if Instant::now() < end => std::thread::sleep(LOCK_POLL),
                Err(Errno::WOULDBLOCK | Errno::INTR) => {
                    let words = "another process holds it locked: give each tbot its own destination";
                    return Err(io::Error::new(io::ErrorKind::ResourceBusy, words));
                }
                // Some network file systems lock no directories.
                Err(_) => return Ok(None),
            }
        }
    }

    /// As [`Set::recover`], with the lock held.
    pub(crate) fn clean_up(&self) -> io::Result<()> {
        file::remove(self.dir, STAGED)?;
        match self.dir.symlink_metadata(COMMIT) {
            Ok(_) => self.complete(&[]).map(drop),
            Err(_) => Ok(()),
        }
    }

    /// Writes a new file durably, with the rights that `old` has, or that the folder `place` gives, or that readers are to have.
    /// `false` where it cannot have the owner of `old`: then `old` has to be rewritten.
    pub(crate) fn create(
        &self,
        folder: &Dir,
        name: &str,
        contents: &[u8],
        old: Option<&Access>,
        place: &Dir,
    ) -> io::Result<bool> {
        let new = file::create(folder, name)?;
        file::reserve(&new, contents.len())?;
        match old {
            Some(old) => old.give(&new)?,
            None => Acl::inherited(handle(place)?, READ | WRITE)?.map_or(Ok(()), |acl| acl.give(&new))?,
        }
        if let Some(acl) = self.grant.file(Access::of(&new)?.uid) {
            acl.give(&new)?;
        }
        file::rewrite(&new, contents)?;
        sync(folder)?;
        // By its name, as a reader would, and before it takes anybody's place.
        if **file::contents(file::open_read(folder, name)?)? != *contents {
            return Err(io::Error::other(
                "it does not hold what was written: the disk fails, or somebody else writes here",
            ));
        }
        old.map_or(Ok(true), |old| old.owns(&new))
    }

    fn stage(&self, staged: &Dir, files: &[OutputFile]) -> io::Result<()> {
        for file in files {
            (self.step)("stage")?;
            self.stage_file(staged, file).map_err(|e| named(e, file.path.as_str()))?;
        }
        sync(staged)?;
        (self.step)("commit")?;
        self.dir.rename(STAGED, self.dir, COMMIT)?;
        (self.step)("sync")?;
        sync(self.dir)
    }

    fn stage_file(&self, staged: &Dir, file: &OutputFile) -> io::Result<()> {
        let (parents, name) = split(file.path.as_str());
        let folder = descend_or_create(staged, &parents, &Grant::default())?;
        // Here, not after the commit: it may fail.
        let target = descend_or_create(self.dir, &parents, self.grant)?;
        let old = existing(file::open_read(&target, name))?.map(Access::of).transpose()?;
        if !self.create(&folder, name, &file.contents, old.as_ref(), &target)? {
            file::reserve(&file::open_write(&target, name)?, file.contents.len())?;
        }
        Ok(())
    }

    /// Moves what was committed into place, in the order of `files`, back to back.
    fn complete(&self, files: &[OutputFile]) -> io::Result<Switched> {
        let commit = self.own(COMMIT).map_err(|e| named(e, COMMIT))?;
        let mut paths = Vec::new();
        file::list(&commit, "", &mut paths)?;
        paths.sort_by_key(|path| files.iter().position(|file| file.path.as_str() == path));
        let moves: io::Result<Vec<_>> =
            paths.iter().map(|path| self.plan(&commit, path).map_err(|e| named(e, path))).collect();
        let moves = moves?;
        let mut switched = Switched::Whole;
        for (one, path) in moves.iter().zip(&paths) {
            (self.step)("place")?;
            if self.perform(one).map_err(|e| named(e, path))? == Switched::InPlace {
                switched = Switched::InPlace;
            }
        }
        for one in &moves {
            sync(&one.to)?;
        }
        (self.step)("remove")?;
        self.dir.remove_dir_all(COMMIT)?;
        sync(self.dir)?;
        Ok(switched)
    }

    /// A folder of ours, if it is one that we, or the owner of the directory, have made.
    pub(crate) fn own(&self, name: &str) -> io::Result<Dir> {
        let folder = self.dir.open_dir_nofollow(name)?;
        let (found, around) = (folder.dir_metadata()?, self.dir.dir_metadata()?);
        let trusted = [rustix::process::geteuid().as_raw(), around.uid()].contains(&found.uid());
        match trusted && found.mode() & 0o022 == 0 {
            true => Ok(folder),
            false => Err(io::Error::other(format!("not made by this user but by uid {}: remove it", found.uid()))),
        }
    }

    fn plan(&self, commit: &Dir, path: &str) -> io::Result<Move> {
        let (parents, name) = split(path);
        let (from, to) = (descend(commit, &parents)?, descend_or_create(self.dir, &parents, self.grant)?);
        let how = match existing(file::open_read(&to, name))? {
            Some(old) if !Access::of(&old)?.owns(&file::open_read(&from, name)?)? => Switched::InPlace,
            _ => Switched::Whole,
        };
        Ok(Move { from, to, name: name.to_owned(), how })
    }

    fn perform(&self, Move { from, to, name, how }: &Move) -> io::Result<Switched> {
        if *how == Switched::Whole {
            match renameat(from.as_fd(), name, to.as_fd(), name) {
                // A file that is itself a mount, or another's in a sticky directory, can be rewritten only.
                Err(Errno::PERM | Errno::ACCESS | Errno::BUSY) => {}
                done => return Ok(done.map(|()| Switched::Whole)?),
            }
        }
        let contents = file::contents(file::open_read(from, name)?)?;
        self.rewrite(&file::open_write(to, name)?, &contents)?;
        from.remove_file(name)?;
        Ok(Switched::InPlace)
    }

    /// Rewrites files in their places: for a directory that is not ours, holding files that are. Not safe against a crash.
    fn write_in_place(&self, files: &[OutputFile]) -> io::Result<()> {
        let open = |file: &OutputFile| {
            let (parents, name) = split(file.path.as_str());
            let target = descend(self.dir, &parents).and_then(|folder| file::open_write(&folder, name))?;
            file::reserve(&target, file.contents.len())?;
            Ok(target)
        };
        let targets: io::Result<Vec<File>> =
            files.iter().map(|file| open(file).map_err(|e: io::Error| named(e, file.path.as_str()))).collect();
        // All could be opened and have room: only now the first is touched.
        for (target, file) in targets?.iter().zip(files) {
            self.rewrite(target, &file.contents).map_err(|e| named(e, file.path.as_str()))?;
        }
        Ok(())
    }

    fn rewrite(&self, target: &File, contents: &[u8]) -> io::Result<()> {
        self.grant.repair_file(target)?;
        file::reserve(target, contents.len())?;
        file::rewrite(target, contents)
    }
}

/// One file on its way from the committed folder into its place.
struct Move {
    from: Dir,
    to: Dir,
    name: String,
    how: Switched,
}

#[cfg(test)]
mod tests {
    use std::cell::Cell;
    use std::os::unix::fs::{PermissionsExt, symlink};

    use cap_std::ambient_authority;
    use identity::RelativePath;

    use super::*;

    const NONE: Grant = Grant { readers: Vec::new(), required: false };

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
            let calm = Set { dir: &dir, grant: &NONE, step: &|_| Ok(()) };
            calm.write(&files("one")).unwrap();
            let left = Cell::new(crash);
            let step = |_: &str| {
                left.set(left.get() - 1);
                if left.get() < 0 { Err(io::Error::other("crash")) } else { Ok(()) }
            };
            let doomed = Set { dir: &dir, grant: &NONE, step: &step };
            // Not `write`: a process that is killed cleans nothing up.
            let staged = file::create_private(&dir, STAGED).unwrap();
            let wanted = files("two");
            let crashed = doomed.stage(&staged, &wanted).and_then(|()| doomed.complete(&wanted)).is_err();
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
        let calm = Set { dir: &dir, grant: &NONE, step: &|_| Ok(()) };
        calm.write(&files("one")).unwrap();
        let full = Set {
            dir: &dir,
            grant: &NONE,
            step: &|step| if step == "commit" { Err(io::ErrorKind::StorageFull.into()) } else { Ok(()) },
        };
        assert_eq!(full.write(&files("two")).unwrap_err().kind(), io::ErrorKind::StorageFull);
        assert_eq!(generation(&calm), ["one"]);
        let names: Vec<_> = std::fs::read_dir(keep.path()).unwrap().map(|entry| entry.unwrap().file_name()).collect();
        assert_eq!(names.len(), 3, "{names:?}");
    }

    #[test]
    fn files_change_in_the_order_of_the_output() {
        for kept in 0..4 {
            let (_keep, dir) = folder();
            Set { dir: &dir, grant: &NONE, step: &|_| Ok(()) }.write(&files("one")).unwrap();
            let left = Cell::new(kept);
            let step = |step: &str| match step {
                "place" if left.replace(left.get() - 1) == 0 => Err(io::Error::other("crash")),
                _ => Ok(()),
            };
            Set { dir: &dir, grant: &NONE, step: &step }.write(&files("two")).unwrap_err();
            let words = |(at, file): (usize, &OutputFile)| {
                let text = dir.read_to_string(file.path.as_str()).unwrap();
                assert_eq!(text.ends_with("two"), (at as i32) < kept, "{kept}: {text}");
            };
            files("").iter().enumerate().for_each(words);
            // A reader that asks us never sees the mixture.
            assert_eq!(generation(&Set { dir: &dir, grant: &NONE, step: &|_| Ok(()) }), ["two"]);
        }
    }

    #[test]
    fn another_switch_is_waited_for_and_what_it_staged_is_not_touched() {
        let (keep, dir) = folder();
        let other = std::fs::File::open(keep.path()).unwrap();
        flock(&other, FlockOperation::NonBlockingLockExclusive).unwrap();
        std::fs::create_dir(keep.path().join(STAGED)).unwrap();
        std::thread::scope(|scope| {
            let writer = scope.spawn(|| {
                let dir = Dir::open_ambient_dir(keep.path(), ambient_authority()).unwrap();
                Set { dir: &dir, grant: &NONE, step: &|_| Ok(()) }.write(&files("one")).unwrap()
            });
            std::thread::sleep(LOCK_POLL * 5);
            assert!(!writer.is_finished() && dir.symlink_metadata(STAGED).is_ok());
            drop(other);
            assert_eq!(writer.join().unwrap(), Switched::Whole);
        });
        assert_eq!(generation(&Set { dir: &dir, grant: &NONE, step: &|_| Ok(()) }), ["one"]);
    }

    #[test]
    fn a_commit_that_is_not_ours_is_refused() {
        for hostile in ["symlink", "writable", "file"] {
            let (keep, dir) = folder();
            let set = Set { dir: &dir, grant: &NONE, step: &|_| Ok(()) };
            set.write(&files("one")).unwrap();
            let outside = tempfile::tempdir().unwrap();
            std::fs::write(outside.path().join("key"), "planted").unwrap();
            let commit = keep.path().join(COMMIT);
            match hostile {
                "symlink" => symlink(outside.path(), &commit).unwrap(),
                "file" => std::fs::write(&commit, "planted").unwrap(),
                _ => {
                    std::fs::create_dir(&commit).unwrap();
                    std::fs::write(commit.join("key"), "planted").unwrap();
                    std::fs::set_permissions(&commit, PermissionsExt::from_mode(0o777)).unwrap();
                }
            }
            let refused = set.recover().unwrap_err().to_string();
            assert!(refused.contains(COMMIT), "{refused}");
            assert_eq!(std::fs::read(keep.path().join("key")).unwrap(), b"key one", "{hostile}");
        }
    }

    #[test]
    fn what_lies_in_the_way_of_staging_is_removed() {
        let (keep, dir) = folder();
        rustix::fs::mkfifoat(rustix::fs::CWD, keep.path().join(STAGED), rustix::fs::Mode::RUSR).unwrap();
        let set = Set { dir: &dir, grant: &NONE, step: &|_| Ok(()) };
        set.write(&files("one")).unwrap();
        assert_eq!(generation(&set), ["one"]);
    }

    #[test]
    fn what_an_operator_prepared_keeps_its_mode() {
        let (keep, dir) = folder();
        let set = Set { dir: &dir, grant: &NONE, step: &|_| Ok(()) };
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
            let set = Set { dir: &dir, grant: &NONE, step: &|_| Ok(()) };
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
                "fifo" => rustix::fs::mkfifoat(rustix::fs::CWD, &key, rustix::fs::Mode::RUSR).unwrap(),
                "folder" => std::fs::create_dir(&key).unwrap(),
                _ => {}
            }
            assert!(set.write(&files("two")).is_err(), "{hostile}");
            assert!(set.read(if hostile == "parent" { "cockroach/ca.crt" } else { "key" }).is_err(), "{hostile}");
            assert_eq!(set.read("tlscert").unwrap().unwrap().as_slice(), b"tlscert one", "{hostile}");
            assert_eq!(std::fs::read(&victim).unwrap(), b"precious");
            assert_eq!(std::fs::read_dir(outside.path()).unwrap().count(), 1, "{hostile} wrote outside");
        }
    }
}
