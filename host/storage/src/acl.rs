//! POSIX access control lists, as Linux keeps them in extended attributes (`linux/posix_acl_xattr.h`): no libacl.

use std::collections::BTreeMap;
use std::fmt;
use std::io;
use std::os::fd::AsFd;

use rustix::fs::{Mode, XattrFlags, fchmod, fgetxattr, fremovexattr, fsetxattr, fstat};
use rustix::io::Errno;

/// Rights of one entry, as in a mode.
pub(crate) const READ: u16 = 4;
pub(crate) const WRITE: u16 = 2;
pub(crate) const SEARCH: u16 = 1;

/// Where Linux keeps the ACL of a file or directory, and that which a directory gives to what is created in it.
const ACCESS: &str = "system.posix_acl_access";
const DEFAULT: &str = "system.posix_acl_default";
/// The longest value that Linux keeps there (`XATTR_SIZE_MAX`), in bytes.
const LONGEST: usize = 64 << 10;
/// `POSIX_ACL_XATTR_VERSION`.
const VERSION: u32 = 2;
/// Entries that name nobody carry this id (`ACL_UNDEFINED_ID`).
const NOBODY: u32 = u32::MAX;

/// Whom an entry is about (`ACL_USER_OBJ` and so on), in the order in which the kernel wants them.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Tag {
    Owner = 0x01,
    User = 0x02,
    OwningGroup = 0x04,
    Group = 0x08,
    Mask = 0x10,
    Other = 0x20,
}

const TAGS: [Tag; 6] = [Tag::Owner, Tag::User, Tag::OwningGroup, Tag::Group, Tag::Mask, Tag::Other];

/// Who may do what with a file or directory. One without named users and groups says what a mode says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Acl(BTreeMap<(Tag, u32), u16>);

impl Acl {
    /// The owner, those who are named (`User` or `Group`), and nobody else.
    pub(crate) fn only(owner: u16, named: impl IntoIterator<Item = (Tag, u32, u16)>) -> Self {
        let mut entries: BTreeMap<_, _> = named.into_iter().map(|(tag, id, rights)| ((tag, id), rights)).collect();
        if let Some(mask) = entries.values().copied().reduce(|all, one| all | one) {
            entries.insert((Tag::Mask, NOBODY), mask);
        }
        entries
            .extend([(Tag::Owner, owner), (Tag::OwningGroup, 0), (Tag::Other, 0)].map(|(tag, of)| ((tag, NOBODY), of)));
        Self(entries)
    }

    /// What a mode says.
    pub(crate) fn of_mode(mode: u32) -> Self {
        let rights = |shift: u32| (mode >> shift & 7) as u16;
        let entries = [(Tag::Owner, rights(6)), (Tag::OwningGroup, rights(3)), (Tag::Other, rights(0))];
        Self(entries.map(|(tag, rights)| ((tag, NOBODY), rights)).into())
    }

    /// That of an open file or directory; where it has none, or the file system knows none, what its mode says.
    pub(crate) fn of(fd: impl AsFd) -> io::Result<Self> {
        match read(&fd, ACCESS)? {
            Some(acl) => Ok(acl),
            None => Ok(Self::of_mode(fstat(fd)?.st_mode)),
        }
    }

    /// Does the file system of an open file or directory know ACLs?
    pub(crate) fn supported(fd: impl AsFd) -> io::Result<()> {
        match fgetxattr(fd, ACCESS, &mut [0; LONGEST]) {
            Ok(_) | Err(Errno::NODATA) => Ok(()),
            Err(e) => Err(e.into()),
        }
    }

    /// What a directory's default ACL gives to a new file or directory in it, where it has one. Never anything to everybody, and the
    /// owner can always go on.
    pub(crate) fn inherited(folder: impl AsFd, owner: u16) -> io::Result<Option<Self>> {
        let Some(Self(mut entries)) = read(folder, DEFAULT)? else { return Ok(None) };
        entries.values_mut().for_each(|rights| *rights &= owner);
        entries.extend([((Tag::Owner, NOBODY), owner), ((Tag::Other, NOBODY), 0)]);
        Ok(Some(Self(entries)))
    }

    /// Gives it to an open file or directory.
    pub(crate) fn give(&self, fd: impl AsFd) -> io::Result<()> {
        match self.mode() {
            Some(mode) => {
                match fremovexattr(&fd, ACCESS) {
                    Ok(()) | Err(Errno::NODATA | Errno::NOTSUP) => {}
                    Err(e) => return Err(e.into()),
                }
                Ok(fchmod(fd, Mode::from_raw_mode(mode))?)
            }
            None => Ok(fsetxattr(fd, ACCESS, &self.encode(), XattrFlags::empty())?),
        }
    }

    /// What is wrong for a file with a secret: rights for more than its owner and users by name (surface §E.5).
    pub(crate) fn too_open(&self) -> bool {
        self.0
            .iter()
            .any(|((tag, _), rights)| matches!(tag, Tag::OwningGroup | Tag::Group | Tag::Other) && *rights != 0)
    }

    /// The same as a mode, where it names nobody.
    pub(crate) fn mode(&self) -> Option<u32> {
        let rights = |tag| self.0.get(&(tag, NOBODY)).map(|rights| u32::from(*rights));
        match self.0.len() {
            3 => Some(rights(Tag::Owner)? << 6 | rights(Tag::OwningGroup)? << 3 | rights(Tag::Other)?),
            _ => None,
        }
    }

    fn encode(&self) -> Vec<u8> {
        let mut bytes = VERSION.to_le_bytes().to_vec();
        for ((tag, id), rights) in &self.0 {
            bytes.extend((*tag as u16).to_le_bytes());
            bytes.extend(rights.to_le_bytes());
            bytes.extend(id.to_le_bytes());
        }
        bytes
    }

    fn parse(bytes: &[u8]) -> Option<Self> {
        let (version, entries) = bytes.split_first_chunk()?;
        let (entries, rest) = entries.as_chunks::<8>();
        let entry = |bytes: &[u8; 8]| {
            let [tag, more, rights, other, id @ ..] = *bytes;
            let tag = u16::from_le_bytes([tag, more]);
            let tag = TAGS.into_iter().find(|known| *known as u16 == tag)?;
            Some(((tag, u32::from_le_bytes(id)), u16::from_le_bytes([rights, other])))
        };
        let entries = entries.iter().map(entry).collect::<Option<_>>()?;
        (u32::from_le_bytes(*version) == VERSION && rest.is_empty()).then_some(Self(entries))
    }
}

/// As `getfacl` shows it, on one line.
impl fmt::Display for Acl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (at, ((tag, id), rights)) in self.0.iter().enumerate() {
            let word = match tag {
                Tag::Owner | Tag::User => "user",
                Tag::OwningGroup | Tag::Group => "group",
                Tag::Mask => "mask",
                Tag::Other => "other",
            };
            let id = if *id == NOBODY { String::new() } else { id.to_string() };
            let letters = [(READ, 'r'), (WRITE, 'w'), (SEARCH, 'x')];
            let letters = letters.map(|(right, letter)| if rights & right == 0 { '-' } else { letter });
            write!(f, "{}{word}:{id}:{}", if at == 0 { "" } else { "," }, String::from_iter(letters))?;
        }
        Ok(())
    }
}

fn read(fd: impl AsFd, name: &str) -> io::Result<Option<Acl>> {
    let mut bytes = vec![0; LONGEST];
    match fgetxattr(fd, name, &mut bytes) {
        Ok(length) => match Acl::parse(bytes.get(..length).unwrap_or_default()) {
            Some(acl) => Ok(Some(acl)),
            None => Err(io::Error::other("its ACL is of an unknown form: remove it with `setfacl --remove-all`")),
        },
        Err(Errno::NODATA | Errno::NOTSUP) => Ok(None),
        Err(e) => Err(e.into()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_form_is_the_kernels() {
        let acl =
            Acl::only(READ | WRITE, [(Tag::Group, 7, READ), (Tag::User, 4243, READ), (Tag::User, 4242, READ | WRITE)]);
        assert_eq!(
            acl.to_string(),
            "user::rw-,user:4242:rw-,user:4243:r--,group::---,group:7:r--,mask::rw-,other::---"
        );
        let mut bytes = vec![2, 0, 0, 0, 1, 0, 6, 0, 255, 255, 255, 255, 2, 0, 6, 0, 0x92, 0x10, 0, 0];
        bytes.extend([2, 0, 4, 0, 0x93, 0x10, 0, 0, 4, 0, 0, 0, 255, 255, 255, 255, 8, 0, 4, 0, 7, 0, 0, 0]);
        bytes.extend([16, 0, 6, 0, 255, 255, 255, 255, 32, 0, 0, 0, 255, 255, 255, 255]);
        assert_eq!(acl.encode(), bytes);
        assert_eq!(Acl::parse(&bytes), Some(acl));
        for broken in [&bytes[..bytes.len() - 1], &[], &[3, 0, 0, 0], &[2, 0, 0, 0, 3, 0, 0, 0, 0, 0, 0, 0]] {
            assert_eq!(Acl::parse(broken), None);
        }
    }

    #[test]
    fn without_names_it_is_a_mode_and_on_no_file_an_attribute() {
        assert_eq!(Acl::of_mode(0o100640).mode(), Some(0o640));
        assert_eq!(Acl::only(READ | WRITE, []).mode(), Some(0o600));
        assert!(Acl::of_mode(0o640).too_open() && Acl::of_mode(0o604).too_open() && !Acl::of_mode(0o700).too_open());
        let file = tempfile::tempfile().unwrap();
        Acl::of_mode(0o640).give(&file).unwrap();
        assert_eq!(Acl::of(&file).unwrap(), Acl::of_mode(0o640));
        let named = Acl::only(READ | WRITE, [(Tag::User, 4242, READ)]);
        match named.give(&file) {
            Ok(()) => assert_eq!(Acl::of(&file).unwrap(), named),
            Err(e) => assert_eq!(e.raw_os_error(), Some(Errno::NOTSUP.raw_os_error()), "{e}"),
        }
        Acl::of_mode(0o600).give(&file).unwrap();
        assert_eq!(Acl::of(&file).unwrap().mode(), Some(0o600));
    }
}
