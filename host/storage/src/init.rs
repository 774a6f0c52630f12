//! `tbot init`: a directory and empty files, owned and readable as the bot and its readers need them (surface §E). May be repeated.

use std::collections::BTreeSet;
use std::io;
use std::os::fd::AsFd;

use cap_fs_ext::DirExt;
use cap_std::fs::{Dir, MetadataExt};
use identity::{Destination, Failure, RelativePath};
use rustix::fs::{Gid, Uid, fchown};
use rustix::io::Errno;
use tracing::{info, warn};

use crate::access::{Access, Grant, Reader};
use crate::acl::{Acl, READ, SEARCH, Tag, WRITE};
use crate::directory::{Acls, WRITE_TEST};
use crate::file::{self, existing, handle, named, split};
use crate::generations::Generations;
use crate::root::Missing;
use crate::set::Set;
use crate::{Directory, User};

/// What the original prepares whatever the output (surface §E.3).
const BASE: [&str; 5] = ["key-cert.pub", "tlscert", "key", "key.pub", WRITE_TEST];
/// Removed at once: whether ACLs can be set is tried on it.
const PROBE: &str = ".tbot-probe";
const OUR_PREFIX: &str = ".tbot-";

/// What `tbot init` is to do in a directory.
pub struct Preparation {
    /// Who is to own all, uid and gid, where that is said.
    pub owner: Option<(u32, u32)>,
    /// The user that writes and the one that reads, or what is missing to know.
    pub users: Result<(User, Option<User>), String>,
    /// Remove what does not belong there.
    pub clean: bool,
    /// The paths of all files that will be written.
    pub files: Vec<RelativePath>,
}

impl Directory {
    /// Prepares the directory, and says in the log what it does.
    ///
    /// # Errors
    /// [`identity::FailureKind::Storage`]: what cannot be as it should, and why.
    pub fn initialize(&self, wanted: &Preparation) -> Result<(), Failure> {
        let description = self.description();
        info!(target: "TBOT", "Initializing destination: {description}");
        self.prepare_files(wanted).map_err(|e| self.failure("initialized", &e))?;
        info!(target: "TBOT", "destination {description} has been initialized. Note that these files will be empty and invalid until the bot issues certificates.");
        Ok(())
    }

    fn prepare_files(&self, wanted: &Preparation) -> io::Result<()> {
        let dir = self.open(Missing::Create)?;
        let grant = Grant::default();
        let set = Set { dir: &dir, grant: &grant, step: &|_| Ok(()) };
        let _lock = set.lock()?;
        set.clean_up()?;
        let table = self.table(&dir, wanted)?;
        let paths: BTreeSet<&str> = BASE.into_iter().chain(wanted.files.iter().map(RelativePath::as_str)).collect();
        let place = Place { directory: self, set: &set, table: &table };
        let created = place.create(&paths)?;
        place.remove(&paths, &created, wanted.clean)?;
        place.repair(&paths, &created)
    }

    /// Who gets which rights, once it is known whether ACLs can be used.
    fn table(&self, dir: &Dir, wanted: &Preparation) -> io::Result<Table> {
        let fallback = || -> io::Result<Table> {
            // What somebody prepared keeps its owner: taking it away would stop a bot that works.
            let found = Access::of(handle(dir)?)?;
            Ok(Table { owner: wanted.owner.unwrap_or((found.uid, found.gid)), names: None })
        };
        if self.rules.acls == Acls::Off {
            info!(target: "TBOT", "ACLs disabled for this destination.");
            return fallback();
        }
        let table = wanted
            .users
            .as_ref()
            .map_err(Clone::clone)
            .and_then(|(bot, reader)| self.with_acls(bot, reader.as_ref(), wanted.owner));
        let table = table.and_then(|table| match probe(dir, &table) {
            Ok(()) => Ok(table),
            Err(e) => Err(match file::errno(&e) {
                Some(Errno::ACCESS | Errno::PERM | Errno::ROFS) => {
                    format!("The destination {:?} does not appear to be writable: {e}", self.path())
                }
                _ => format!("{e}: ACL support may need to be enabled for the filesystem"),
            }),
        });
        match table {
            Ok(table) => Ok(table),
            Err(why) if self.rules.acls == Acls::Required => Err(io::Error::other(format!(
                "{why}; ACLs are required for this destination: mend that, or set `acls: try`"
            ))),
            Err(why) => {
                warn!(target: "TBOT", "ACLs are not usable for destination {}; Change the destination's ACL mode to `off` to silence this warning. error: {why}", self.description());
                fallback()
            }
        }
    }

    fn with_acls(&self, bot: &User, reader: Option<&User>, owner: Option<(u32, u32)>) -> Result<Table, String> {
        let owner = match (owner, bot.gid) {
            (Some(owner), _) => owner,
            (None, Some(gid)) => (bot.uid, gid),
            (None, None) => return Err(format!("user `{}` has no primary group: give `--owner user:group`", bot.name)),
        };
        if reader.is_some_and(|reader| reader.uid == owner.0) {
            let more =
                if bot.uid == owner.0 { "; owner, bot and reader are one user, so `acls: off` is enough" } else { "" };
            warn!(target: "TBOT", "The reader owns the files: OpenSSH refuses keys of one's own that have an ACL{more}.");
        }
        let mut readers: Vec<Reader> = reader.map(|reader| Reader::User(reader.uid)).into_iter().collect();
        readers.extend(&self.rules.readers);
        match readers.is_empty() {
            true => Err("--reader-user must be set".to_owned()),
            false => Ok(Table { owner, names: Some((bot.uid, readers)) }),
        }
    }
}

/// Owner and rights of everything (surface §E.5), but that readers only read.
struct Table {
    owner: (u32, u32),
    /// The bot and its readers, where ACLs are used.
    names: Option<(u32, Vec<Reader>)>,
}

impl Table {
    fn file(&self) -> Acl {
        self.acl(READ | WRITE, READ | WRITE, READ)
    }

    fn directory(&self) -> Acl {
        self.acl(READ | WRITE | SEARCH, READ | SEARCH, READ | SEARCH)
    }

    fn acl(&self, owner: u16, bot: u16, reader: u16) -> Acl {
        let Some((uid, readers)) = &self.names else { return Acl::only(owner, []) };
        let named = readers.iter().map(|one| match *one {
            Reader::User(uid) => (Tag::User, uid, reader),
            Reader::Group(gid) => (Tag::Group, gid, reader),
        });
        // The bot last: it may be one of its readers.
        Acl::only(
            owner,
            named.chain([(Tag::User, *uid, bot)]).filter(|(tag, id, _)| (*tag, *id) != (Tag::User, self.owner.0)),
        )
    }
}

fn probe(dir: &Dir, table: &Table) -> io::Result<()> {
    file::remove(dir, PROBE)?;
    let given = file::create(dir, PROBE).and_then(|file| table.file().give(&file));
    file::remove(dir, PROBE)?;
    given
}

/// The directory while it is being prepared.
struct Place<'a> {
    directory: &'a Directory,
    set: &'a Set<'a>,
    table: &'a Table,
}

impl Place<'_> {
    /// Creates what is missing, and returns it.
    fn create(&self, paths: &BTreeSet<&str>) -> io::Result<BTreeSet<String>> {
        let mut missing = BTreeSet::new();
        for path in paths {
            let folder = self.folder(path).map_err(|e| named(e, path))?;
            let (_, name) = split(path);
            if existing(folder.symlink_metadata(name))?.is_none() {
                missing.insert((*path).to_owned());
            }
        }
        if missing.is_empty() {
            info!(target: "TBOT", "Nothing to create.");
            return Ok(missing);
        }
        info!(target: "TBOT", "Attempting to create: {}", missing.iter().map(String::as_str).collect::<Vec<_>>().join(", "));
        for path in &missing {
            file::create(&self.folder(path)?, split(path).1).map_err(|e| named(e, path))?;
            info!(target: "TBOT", "Created: {}", self.show(path));
        }
        Ok(missing)
    }

    /// Removes what does not belong here, or warns of it.
    fn remove(&self, paths: &BTreeSet<&str>, created: &BTreeSet<String>, clean: bool) -> io::Result<()> {
        let tops: BTreeSet<&str> = paths.iter().filter_map(|path| path.split('/').next()).collect();
        let mut surplus = BTreeSet::new();
        for entry in self.set.dir.entries()? {
            let name = entry?.file_name().to_string_lossy().into_owned();
            if !tops.contains(name.as_str()) && !name.starts_with(OUR_PREFIX) && !Generations::is_inner(&name) {
                surplus.insert(name);
            }
        }
        match (surplus.is_empty(), clean) {
            (true, _) => info!(target: "TBOT", "Nothing to remove."),
            (false, false) => {
                warn!(target: "TBOT", "Unexpected files found in destination directory, consider removing it manually or rerunning `tbot init` with the `--clean` flag.")
            }
            (false, true) if created.len() == paths.len() => {
                let words = "`--clean` removes nothing here, since nothing was from tbot: is it the right directory? Then empty it first";
                return Err(io::Error::other(words));
            }
            (false, true) => {
                info!(target: "TBOT", "Attempting to remove: {}", surplus.iter().map(String::as_str).collect::<Vec<_>>().join(", "));
                for name in &surplus {
                    file::remove(self.set.dir, name)?;
                    info!(target: "TBOT", "Removed: {}", self.show(name));
                }
            }
        }
        Ok(())
    }

    /// Gives all the owner and the rights that it should have; warns of what was otherwise, but of what was created just now.
    fn repair(&self, paths: &BTreeSet<&str>, created: &BTreeSet<String>) -> io::Result<()> {
        self.repair_one("", handle(self.set.dir)?, &self.table.directory(), false)?;
        let mut folders = BTreeSet::new();
        for path in paths {
            let (parents, name) = split(path);
            let mut folder = self.start(path)?;
            for depth in 0..=parents.len() {
                if let Some(name) = depth.checked_sub(1).and_then(|at| parents.get(at)) {
                    folder = folder.open_dir_nofollow(name).map_err(|e| named(e, path))?;
                }
                let shown = parents.get(..depth).unwrap_or_default().join("/");
                if folders.insert(folder.dir_metadata()?.ino()) {
                    self.repair_one(&shown, handle(&folder)?, &self.table.directory(), depth > 0)?;
                }
            }
            let file = file::open_read(&folder, name).and_then(file::sole).map_err(|e| named(e, path))?;
            let repaired = self.repair_one(path, file, &self.table.file(), !created.contains(*path));
            repaired.map_err(|e| named(e, path))?;
        }
        Ok(())
    }

    fn repair_one(&self, path: &str, fd: impl AsFd, wanted: &Acl, loud: bool) -> io::Result<()> {
        let (uid, gid) = self.table.owner;
        let shown = self.show(path);
        if Access::of(&fd)?.uid != uid {
            if loud {
                let name = User::of(uid).map_or_else(|_| uid.to_string(), |user| user.name);
                warn!(target: "TBOT", "Ownership of {shown:?} is incorrect and will be corrected to {name}");
            }
            if !rustix::process::geteuid().is_root() {
                warn!(target: "TBOT", "Not running as root, ownership change is likely to fail.");
            }
            fchown(&fd, Some(Uid::from_raw(uid)), Some(Gid::from_raw(gid)))?;
        }
        let has = Access::of(&fd)?.acl;
        if has == *wanted {
            return Ok(());
        }
        wanted.give(&fd)?;
        match (wanted.mode(), loud) {
            (None, true) => {
                warn!(target: "TBOT", "ACL for {shown:?} is not correct and will be corrected: it was {has}")
            }
            (Some(mode), true) => {
                let before = has.mode().map_or_else(|| has.to_string(), |mode| format!("{mode:04o}"));
                info!(target: "TBOT", "Corrected permissions on {shown:?} from {before} to {mode:04o}");
            }
            _ => {}
        }
        Ok(())
    }

    /// The folder that a path is in, created where it is missing.
    fn folder(&self, path: &str) -> io::Result<Dir> {
        let mut folder = self.start(path)?;
        let (parents, _) = split(path);
        for (at, name) in parents.iter().enumerate() {
            if existing(folder.symlink_metadata(name))?.is_none() {
                file::create_private(&folder, name)?;
                let shown = self.show(&parents.get(..=at).unwrap_or_default().join("/"));
                info!(target: "TBOT", "Created directory {shown:?}");
            }
            folder = folder.open_dir_nofollow(name)?;
        }
        Ok(folder)
    }

    /// Where the first component of a path is looked up: in the present generation, if it leads there.
    fn start(&self, path: &str) -> io::Result<Dir> {
        let generation = Generations(self.set).of(split(path).0.first().copied().unwrap_or(path))?;
        generation.map_or_else(|| self.set.dir.try_clone(), Ok)
    }

    fn show(&self, path: &str) -> String {
        self.directory.path().join(path).display().to_string().trim_end_matches('/').to_owned()
    }
}
