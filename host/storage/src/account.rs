//! Users and groups of this machine, by name or by number.

use identity::{Failure, FailureKind};
use nix::unistd::{Gid, Group as Entry, Uid, User as Account};

/// A user.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct User {
    /// As in the user database, or the number.
    pub name: String,
    /// Its number.
    pub uid: u32,
    /// The number of its primary group; `None` for a number that the user database does not know.
    pub gid: Option<u32>,
}

impl User {
    /// The user of that name, or of that number whether it is known or not.
    ///
    /// # Errors
    /// [`FailureKind::InvalidConfig`] where there is no such name.
    pub fn find(name: &str) -> Result<Self, Failure> {
        let found = Account::from_name(name).map_err(|e| unreadable("user", name, e))?;
        match (found, name.parse()) {
            (Some(found), _) => Ok(Self::known(found)),
            (None, Ok(uid)) => Self::of(uid),
            (None, Err(_)) => Err(unknown("user", name)),
        }
    }

    /// The user of that number.
    ///
    /// # Errors
    /// [`FailureKind::InvalidConfig`] where the user database cannot be read.
    pub fn of(uid: u32) -> Result<Self, Failure> {
        let found = Account::from_uid(Uid::from_raw(uid)).map_err(|e| unreadable("uid", &uid.to_string(), e))?;
        Ok(found.map_or(Self { name: uid.to_string(), uid, gid: None }, Self::known))
    }

    /// The user that this process runs as.
    ///
    /// # Errors
    /// As [`User::of`].
    pub fn current() -> Result<Self, Failure> {
        let gid = Some(rustix::process::getegid().as_raw());
        Ok(Self { gid, ..Self::of(rustix::process::geteuid().as_raw())? })
    }

    fn known(account: Account) -> Self {
        Self { name: account.name, uid: account.uid.as_raw(), gid: Some(account.gid.as_raw()) }
    }
}

/// The number of the group of that name, or that number itself.
///
/// # Errors
/// [`FailureKind::InvalidConfig`] where there is no such name.
pub fn group(name: &str) -> Result<u32, Failure> {
    let found = Entry::from_name(name).map_err(|e| unreadable("group", name, e))?;
    let id = found.map(|found| found.gid).or_else(|| name.parse().ok().map(Gid::from_raw));
    id.map(Gid::as_raw).ok_or_else(|| unknown("group", name))
}

fn unknown(what: &str, name: &str) -> Failure {
    let message = format!("{what}: unknown {what} {name}: create it, or give its number");
    Failure::new(FailureKind::InvalidConfig, message)
}

fn unreadable(what: &str, name: &str, error: nix::Error) -> Failure {
    Failure::new(FailureKind::InvalidConfig, format!("{what} `{name}` cannot be looked up: {error}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_and_numbers_mean_the_same() {
        let root = User { name: "root".into(), uid: 0, gid: Some(0) };
        assert_eq!((User::find("root").unwrap(), User::find("0").unwrap()), (root.clone(), root));
        assert_eq!((group("root").unwrap(), group("0").unwrap()), (0, 0));
        let unknown = User { name: "4294967001".into(), uid: 4294967001, gid: None };
        assert_eq!(User::find("4294967001").unwrap(), unknown);
        assert!(User::find("no-such-user").unwrap_err().message.starts_with("user: unknown user no-such-user"));
        assert!(group("no-such-group").is_err() && User::find("-1").is_err());
        assert_eq!(User::current().unwrap().uid, rustix::process::geteuid().as_raw());
    }
}
