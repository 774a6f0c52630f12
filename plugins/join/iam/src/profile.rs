//! The profile of the files below `~/.aws`.

use std::collections::BTreeMap;

use tbot_sdk::Error;
use tbot_sdk::host::input;

use crate::credentials::{Credentials, variable};

/// What one profile holds.
pub(crate) struct Profile {
    name: String,
    /// Was it asked for by name?
    named: bool,
    keys: BTreeMap<String, String>,
    /// Where its requests go, if it says so.
    pub(crate) region: Option<String>,
}

impl Profile {
    /// The one that `AWS_PROFILE` names, else `default`. Files that are not there say nothing.
    pub(crate) fn read() -> Result<Self, Error> {
        let wanted = variable("AWS_PROFILE")?;
        let named = wanted.is_some();
        let name = wanted.unwrap_or_else(|| "default".to_owned());
        let credentials = text("AWS_SHARED_CREDENTIALS_FILE", "credentials")?;
        let config = text("AWS_CONFIG_FILE", "config")?;
        let titled = if name == "default" { name.clone() } else { format!("profile {name}") };
        let mut keys = section(&config, &titled);
        keys.extend(section(&credentials, &name));
        let region = keys.get("region").cloned();
        Ok(Self { name, named, keys, region })
    }

    /// Its access key, where it has one.
    pub(crate) fn credentials(&self) -> Result<Option<Credentials>, Error> {
        let value = |key: &str| self.keys.get(key).cloned().filter(|value| !value.is_empty());
        match (value("aws_access_key_id"), value("aws_secret_access_key")) {
            (Some(id), Some(secret)) => {
                Ok(Some(Credentials { id, secret, session: value("aws_session_token").unwrap_or_default() }))
            }
            (None, None) if !self.named => Ok(None),
            _ => Err(Error::denied(format!(
                "profile `{}` has no `aws_access_key_id` with `aws_secret_access_key`: write both, or unset `AWS_PROFILE`; roles, processes \
                 and single sign-on of a profile are not supported yet",
                self.name
            ))),
        }
    }
}

/// The file that a variable names, else the one of this name in the home directory.
fn text(named_by: &str, name: &str) -> Result<String, Error> {
    let path = match (variable(named_by)?, variable("HOME")?) {
        (Some(path), _) => {
            let unread = |e: Error| Error { message: format!("`{named_by}`: {}", e.message), ..e };
            return input::file(&path).map(|bytes| String::from_utf8_lossy(&bytes).into_owned()).map_err(unread);
        }
        (None, Some(home)) => format!("{home}/.aws/{name}"),
        (None, None) => return Ok(String::new()),
    };
    Ok(input::file(&path).map(|bytes| String::from_utf8_lossy(&bytes).into_owned()).unwrap_or_default())
}

/// The keys of one `[section]`, the last of each.
fn section(text: &str, wanted: &str) -> BTreeMap<String, String> {
    let mut inside = false;
    let mut keys = BTreeMap::new();
    for line in text.lines().map(str::trim).filter(|line| !line.starts_with(['#', ';'])) {
        if let Some(title) = line.strip_prefix('[').and_then(|rest| rest.split_once(']')) {
            inside = title.0.split_whitespace().eq(wanted.split_whitespace());
        } else if let Some((key, value)) = line.split_once('=').filter(|_| inside) {
            keys.insert(key.trim().to_ascii_lowercase(), value.trim().to_owned());
        }
    }
    keys
}
