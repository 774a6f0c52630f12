//! Who owns a file or directory and who may do what with it: taken from what was prepared, or given to `readers`.

use std::io;
use std::os::fd::AsFd;

use rustix::fs::{Gid, Uid, fchown, fstat};

use crate::acl::{Acl, READ, SEARCH, Tag, WRITE};

/// Owner and rights.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Access {
    pub(crate) uid: u32,
    pub(crate) gid: u32,
    pub(crate) acl: Acl,
}

impl Access {
    /// Those of an open file or directory.
    pub(crate) fn of(fd: impl AsFd) -> io::Result<Self> {
        let found = fstat(&fd)?;
        Ok(Self { uid: found.st_uid, gid: found.st_gid, acl: Acl::of(fd)? })
    }

    /// Gives owner and rights to what this process has just created. Where the owner cannot be given, nothing is: [`Access::owns`] tells.
    pub(crate) fn give(&self, fd: impl AsFd) -> io::Result<()> {
        if !self.owns(&fd)? {
            let _ = fchown(&fd, Some(Uid::from_raw(self.uid)), Some(Gid::from_raw(self.gid)));
        }
        if self.owns(&fd)? { self.acl.give(fd) } else { Ok(()) }
    }

    /// Has `fd` the same owner and group? If not, replacing the one by the other would take it from somebody.
    pub(crate) fn owns(&self, fd: impl AsFd) -> io::Result<bool> {
        let found = fstat(fd)?;
        Ok((found.st_uid, found.st_gid) == (self.uid, self.gid))
    }
}

/// One who may read what is written, and nothing else (`readers`, surface §B.5).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Reader {
    /// A user, by number.
    User(u32),
    /// A group, by number.
    Group(u32),
}

/// What all files and directories of a destination are given at every write. Without readers: nothing, they keep what they have.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Grant {
    pub(crate) readers: Vec<Reader>,
    /// Is it an error where they cannot be given their rights?
    pub(crate) required: bool,
}

impl Grant {
    /// The ACL of a file of this owner.
    pub(crate) fn file(&self, owner: u32) -> Option<Acl> {
        self.acl(owner, READ | WRITE, READ)
    }

    /// Repairs the ACL of a file that cannot be replaced, as far as this process may.
    pub(crate) fn repair_file(&self, fd: impl AsFd) -> io::Result<()> {
        let has = Access::of(&fd)?;
        match self.file(has.uid).filter(|wanted| *wanted != has.acl).map(|wanted| wanted.give(fd)) {
            Some(Err(e)) if self.required => Err(e),
            _ => Ok(()),
        }
    }

    /// Repairs the ACL of a directory.
    pub(crate) fn repair_directory(&self, fd: impl AsFd) -> io::Result<()> {
        let has = Access::of(&fd)?;
        match self.acl(has.uid, READ | WRITE | SEARCH, READ | SEARCH) {
            Some(wanted) if wanted != has.acl => wanted.give(fd),
            _ => Ok(()),
        }
    }

    fn acl(&self, owner: u32, rights: u16, readers: u16) -> Option<Acl> {
        let named = self.readers.iter().filter(|reader| **reader != Reader::User(owner)).map(|reader| match *reader {
            Reader::User(uid) => (Tag::User, uid, readers),
            Reader::Group(gid) => (Tag::Group, gid, readers),
        });
        (!self.readers.is_empty()).then(|| Acl::only(rights, named))
    }
}
