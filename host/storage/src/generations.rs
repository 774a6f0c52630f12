//! The layout `generations`, that of a Kubernetes volume: files lie in `..gen-<n>/`, `..data` is a symlink to the present generation, and
//! each name in the directory is a symlink through it, `key -> ..data/key`. One rename of `..data` switches the whole set.
//!
//! The two newest generations are kept, so that a reader that resolved `..data` once reads on in peace. A change of layout is a step of
//! its own, in which every name keeps its contents: first the old set in the new layout, then the new set.

use std::collections::BTreeSet;
use std::io;
use std::os::fd::AsFd;

use cap_fs_ext::DirExt;
use cap_std::fs::Dir;
use identity::OutputFile;
use rustix::fs::{RenameFlags, readlinkat, renameat, renameat_with, symlinkat};
use rustix::io::Errno;

use crate::access::Access;
use crate::file::{self, descend, existing, handle, named, split, sync};
use crate::set::Set;

const DATA: &str = "..data";
const GENERATION: &str = "..gen-";
/// A folder for what is about to take the place of something: as a leftover it means nothing.
const FRESH: &str = "..fresh";

/// The set of a directory, seen as generations.
pub(crate) struct Generations<'a, 'b>(pub(crate) &'a Set<'b>);

impl Generations<'_, '_> {
    /// Replaces the set. Whatever ends it, `..data` shows the whole old or the whole new one, and the next call removes what is left over.
    pub(crate) fn write(&self, files: &[OutputFile]) -> io::Result<()> {
        let _lock = self.0.lock()?;
        self.0.clean_up()?;
        let names: BTreeSet<&str> = files.iter().map(|file| top(file.path.as_str())).collect();
        for name in &names {
            self.check(name, files).map_err(|e| named(e, name))?;
        }
        let before = match self.present()? {
            Some(number) => number,
            None => self.adopt(files)?,
        };
        self.sweep(before)?;
        self.link(&names)?;
        let wanted = files.iter().map(|file| (file.path.as_str(), &**file.contents));
        let number = before + 1;
        self.stage(number, wanted).inspect_err(|_| drop(file::remove(self.0.dir, &folder(number))))?;
        self.switch(number)?;
        self.link(&names)?;
        self.unlink(&names)?;
        self.sweep(number)
    }

    /// The present generation, if `name` is a link into it.
    pub(crate) fn of(&self, name: &str) -> io::Result<Option<Dir>> {
        match (self.is_link(name)?, self.present()?) {
            (true, Some(number)) => self.open(number).map(Some),
            _ => Ok(None),
        }
    }

    /// Back to the plain layout, where there are generations: every link becomes the file or folder behind it.
    pub(crate) fn settle(&self) -> io::Result<()> {
        let Some(number) = self.present()? else { return Ok(()) };
        let generation = self.open(number)?;
        let mut paths = Vec::new();
        file::list(&generation, "", &mut paths)?;
        let fresh = self.fresh()?;
        for path in &paths {
            let contents =
                file::open_read(&descend(&generation, &split(path).0)?, split(path).1).and_then(file::contents);
            contents.and_then(|contents| self.stage_file(&fresh, path, &contents)).map_err(|e| named(e, path))?;
        }
        sync(&fresh)?;
        for name in self.links()? {
            (self.0.step)("settle")?;
            match existing(fresh.symlink_metadata(&name))? {
                Some(_) => self.take(&fresh, &name).map_err(|e| named(e, &name))?,
                None => self.0.dir.remove_file(&name)?,
            }
        }
        sync(self.0.dir)?;
        self.0.dir.remove_file(DATA)?;
        sync(self.0.dir)?;
        file::remove(self.0.dir, FRESH)?;
        self.remove(|_| true)
    }

    /// Names in the directory that are links into a generation.
    pub(crate) fn links(&self) -> io::Result<Vec<String>> {
        let mut links = Vec::new();
        for entry in self.0.dir.entries()? {
            let name = entry?.file_name().to_string_lossy().into_owned();
            if self.is_link(&name)? {
                links.push(name);
            }
        }
        Ok(links)
    }

    /// Is `name` one that this layout needs besides the links?
    pub(crate) fn is_inner(name: &str) -> bool {
        name == DATA || name == FRESH || name.starts_with(GENERATION)
    }

    /// The number of the present generation.
    fn present(&self) -> io::Result<Option<u64>> {
        let Some(target) = self.target(DATA)? else { return Ok(None) };
        match target.strip_prefix(GENERATION).map(str::parse) {
            Some(Ok(number)) => Ok(Some(number)),
            _ => Err(named(io::Error::other("not a link of tbot: remove it, or choose another path"), DATA)),
        }
    }

    fn open(&self, number: u64) -> io::Result<Dir> {
        self.0.own(&folder(number)).map_err(|e| named(e, &folder(number)))
    }

    /// Can `name` become a link without losing anything? It may be one already, or missing, a file, or a folder with files of this set.
    fn check(&self, name: &str, files: &[OutputFile]) -> io::Result<()> {
        let Some(found) = existing(self.0.dir.symlink_metadata(name))? else { return Ok(()) };
        if found.is_dir() {
            let mut inside = Vec::new();
            file::list(&self.0.dir.open_dir_nofollow(name)?, &format!("{name}/"), &mut inside)?;
            return match inside.iter().find(|path| files.iter().all(|file| file.path.as_str() != path.as_str())) {
                Some(other) => {
                    Err(io::Error::other(format!("holds `{other}`, which is not of this output: move it away")))
                }
                None => Ok(()),
            };
        }
        match found.is_file() || self.is_link(name)? {
            true => Ok(()),
            false => Err(io::Error::other("not a regular file: remove what has its name")),
        }
    }

    /// Makes the files that lie here in the plain layout the first generation, and returns its number; 0 also where there are none.
    fn adopt(&self, files: &[OutputFile]) -> io::Result<u64> {
        self.remove(|_| true)?;
        let mut found = Vec::new();
        for path in files.iter().map(|file| file.path.as_str()) {
            if let Some(opened) = existing(self.0.open(path)).map_err(|e| named(e, path))? {
                found.push((path, file::contents(opened).map_err(|e| named(e, path))?));
            }
        }
        if !found.is_empty() {
            self.stage(0, found.iter().map(|(path, contents)| (*path, &***contents)))?;
            self.switch(0)?;
        }
        Ok(0)
    }

    fn stage<'f>(&self, number: u64, files: impl Iterator<Item = (&'f str, &'f [u8])>) -> io::Result<()> {
        let generation = file::create_private(self.0.dir, &folder(number)).map_err(|e| named(e, &folder(number)))?;
        self.like(self.0.dir, &generation)?;
        for (path, contents) in files {
            (self.0.step)("stage")?;
            self.stage_file(&generation, path, contents).map_err(|e| named(e, path))?;
        }
        sync(&generation)?;
        sync(self.0.dir)
    }

    fn stage_file(&self, generation: &Dir, path: &str, contents: &[u8]) -> io::Result<()> {
        let (parents, name) = split(path);
        let mut before = Some(self.of(top(path))?.map_or_else(|| self.0.dir.try_clone(), Ok)?);
        let mut folder = generation.try_clone()?;
        for parent in parents {
            before = before.and_then(|before| existing(before.open_dir_nofollow(parent)).transpose()).transpose()?;
            folder = match existing(folder.open_dir_nofollow(parent))? {
                Some(found) => found,
                None => {
                    let new = file::create_folder(&folder, parent)?;
                    self.like(before.as_ref().unwrap_or(&new), &new)?;
                    new
                }
            };
        }
        let old = before.and_then(|before| existing(file::open_read(&before, name)).transpose()).transpose()?;
        let old = old.map(Access::of).transpose()?;
        match self.0.create(&folder, name, contents, old.as_ref(), &folder)? {
            true => Ok(()),
            false => Err(io::Error::other(not_ours(old.map_or(0, |old| old.uid)))),
        }
    }

    /// Gives the folder `new` the rights of another, and readers theirs.
    fn like(&self, folder: &Dir, new: &Dir) -> io::Result<()> {
        let (access, new) = (Access::of(handle(folder)?)?, handle(new)?);
        access.give(&new)?;
        match access.owns(&new)? {
            true => self.0.grant.repair_directory(&new),
            false => Err(io::Error::other(not_ours(access.uid))),
        }
    }

    fn switch(&self, number: u64) -> io::Result<()> {
        (self.0.step)("commit")?;
        let fresh = self.fresh()?;
        symlinkat(folder(number), fresh.as_fd(), DATA)?;
        renameat(fresh.as_fd(), DATA, self.0.dir.as_fd(), DATA)?;
        (self.0.step)("sync")?;
        sync(self.0.dir)
    }

    /// Makes each name that the present generation has a link to it.
    fn link(&self, names: &BTreeSet<&str>) -> io::Result<()> {
        let Some(number) = self.present()? else { return Ok(()) };
        let generation = self.open(number)?;
        let fresh = self.fresh()?;
        for name in names.iter().filter(|name| generation.symlink_metadata(name).is_ok()) {
            (self.0.step)("link")?;
            if !self.is_link(name)? {
                symlinkat(format!("{DATA}/{name}"), fresh.as_fd(), *name)?;
                self.take(&fresh, name).map_err(|e| named(e, name))?;
            }
        }
        sync(self.0.dir)
    }

    fn fresh(&self) -> io::Result<Dir> {
        file::remove(self.0.dir, FRESH)?;
        file::create_private(self.0.dir, FRESH).map_err(|e| named(e, FRESH))
    }

    /// Puts what has that name in `fresh` in the place of what has it here, at one stroke.
    fn take(&self, fresh: &Dir, name: &str) -> io::Result<()> {
        let (fresh, dir) = (fresh.as_fd(), self.0.dir.as_fd());
        match renameat(fresh, name, dir, name) {
            // A folder and something else take each other's place only like this.
            Err(Errno::ISDIR | Errno::NOTDIR | Errno::NOTEMPTY | Errno::EXIST) => {
                Ok(renameat_with(fresh, name, dir, name, RenameFlags::EXCHANGE)?)
            }
            done => Ok(done?),
        }
    }

    /// Removes links to what the present generation no longer has.
    fn unlink(&self, names: &BTreeSet<&str>) -> io::Result<()> {
        for name in self.links()?.iter().filter(|name| !names.contains(name.as_str())) {
            self.0.dir.remove_file(name)?;
        }
        Ok(())
    }

    /// Removes what a crash left behind, and all generations but the present one and that before it.
    fn sweep(&self, present: u64) -> io::Result<()> {
        file::remove(self.0.dir, FRESH)?;
        self.remove(|number| number != present && number + 1 != present)
    }

    fn remove(&self, which: impl Fn(u64) -> bool) -> io::Result<()> {
        for entry in self.0.dir.entries()? {
            let name = entry?.file_name().to_string_lossy().into_owned();
            let number = name.strip_prefix(GENERATION).and_then(|number| number.parse().ok());
            if number.is_some_and(&which) {
                file::remove(self.0.dir, &name)?;
            }
        }
        Ok(())
    }

    fn is_link(&self, name: &str) -> io::Result<bool> {
        let target = self.target(name)?;
        Ok(target.is_some_and(|target| target.strip_prefix(DATA).and_then(|rest| rest.strip_prefix('/')) == Some(name)))
    }

    /// Where the symlink of that name leads; `None` where it is none.
    fn target(&self, name: &str) -> io::Result<Option<String>> {
        match readlinkat(self.0.dir.as_fd(), name, Vec::new()) {
            Ok(target) => Ok(Some(target.to_string_lossy().into_owned())),
            Err(Errno::INVAL | Errno::NOENT) => Ok(None),
            Err(e) => Err(e.into()),
        }
    }
}

fn folder(number: u64) -> String {
    format!("{GENERATION}{number}")
}

fn top(path: &str) -> &str {
    path.split('/').next().unwrap_or(path)
}

fn not_ours(uid: u32) -> String {
    format!("it belongs to uid {uid}: let the user that runs tbot own all of it, or set `layout: plain`")
}
