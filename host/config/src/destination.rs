use std::path::PathBuf;

use crate::mistake::{Place, Report};
use crate::section::{Section, Unknown, did_you_mean, key_name};

/// Where the bot keeps its own identity unless told otherwise (surface §B.4).
const DEFAULT_STORAGE: &str = "/var/lib/teleport/bot";

/// How symbolic links in a destination's path are met (surface §B.5, §E.7).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Symlinks {
    /// Followed.
    Insecure,
    /// Refused where the system can, followed where it cannot.
    #[default]
    TrySecure,
    /// Refused.
    Secure,
}

/// Whether access control lists are checked and set (surface §B.5, §E.6).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Acls {
    /// Not touched.
    Off,
    /// Where the file system has them.
    Try,
    /// Without them the destination is refused.
    Required,
}

impl Default for Acls {
    fn default() -> Self {
        if cfg!(target_os = "linux") { Self::Try } else { Self::Off }
    }
}

/// Where a set of files goes (surface §B.5).
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum DestinationConfig {
    /// A directory.
    Directory {
        /// As written: a relative one counts from the working directory.
        path: PathBuf,
        /// How symbolic links are met.
        symlinks: Symlinks,
        /// Whether access control lists are set.
        acls: Acls,
    },
    /// Memory: gone with the process.
    Memory,
}

impl DestinationConfig {
    /// A directory with the defaults.
    pub fn directory(path: impl Into<PathBuf>) -> Self {
        Self::Directory { path: path.into(), symlinks: Symlinks::default(), acls: Acls::default() }
    }

    /// Reads the URI form of flags: a path, `file:///path` or `memory://` (surface §B.5).
    ///
    /// # Errors
    /// What is wrong and how to mend it.
    pub fn parse_uri(text: &str) -> Result<Self, String> {
        if text.is_empty() {
            return Err("destination path must not be empty".to_owned());
        }
        let Some((scheme, rest)) = text.split_once("://") else {
            return Ok(Self::directory(text));
        };
        match scheme {
            "file" if !rest.starts_with('/') => {
                Err(format!("file-backed data storage must be on the local host: write `file:///{rest}`"))
            }
            "file" => Ok(Self::directory(rest)),
            "memory" if !rest.is_empty() => {
                Err("memory-backed data storage should not have host or path specified: write `memory://`".to_owned())
            }
            "memory" => Ok(Self::Memory),
            "kubernetes-secret" => {
                Err("`kubernetes-secret` storage is not supported yet: use a directory or `memory://`".to_owned())
            }
            _ => Err(format!(
                "unrecognized data storage scheme `{}`: use a path, `file:///path` or `memory://`",
                key_name(scheme)
            )),
        }
    }

    pub(crate) fn default_storage() -> Self {
        Self::directory(DEFAULT_STORAGE)
    }

    pub(crate) fn read(mut section: Section, report: &mut Report) -> Option<Self> {
        let place = section.place.clone();
        let Some(field) = section.field("type") else {
            report.mistake(&place, "unrecognized destination type (): add `type: directory` or `type: memory`");
            return None;
        };
        let this = match field.text(report)?.as_str() {
            "directory" => directory(&mut section, &place, report),
            "memory" => Some(Self::Memory),
            "kubernetes_secret" => {
                report.mistake(&field.place, "`kubernetes_secret` is not supported yet: use `directory` or `memory`");
                return None;
            }
            other => {
                let known = ["directory", "memory"];
                let remedy = match did_you_mean(other, &known) {
                    Some(near) => format!("did you mean `{near}`?"),
                    None => "use `directory` or `memory`".to_owned(),
                };
                report.mistake(&field.place, format!("unrecognized destination type ({}): {remedy}", key_name(other)));
                return None;
            }
        };
        section.close(Unknown::Warning, "", report);
        this
    }
}

fn directory(section: &mut Section, place: &Place, report: &mut Report) -> Option<DestinationConfig> {
    let path = match section.field("path") {
        Some(field) => field.text(report).map(|path| (field.place, path)),
        None => Some((place.clone(), String::new())),
    };
    if let Some(field) = section.field("readers") {
        report
            .mistake(&field.place, "`readers` is not supported yet: remove it and grant access with file system ACLs");
    }
    let symlinks = match section.field("symlinks").map(|field| (field.text(report), field.place)) {
        None => Symlinks::default(),
        Some((Some(text), place)) => match text.as_str() {
            "" | "try-secure" => Symlinks::TrySecure,
            "insecure" => Symlinks::Insecure,
            "secure" if cfg!(target_os = "linux") => Symlinks::Secure,
            "secure" => {
                report.mistake(&place, "symlink mode \"secure\" not supported on this system: use `try-secure`");
                Symlinks::default()
            }
            other => {
                let wrong = format!("invalid symlinks mode: {other:?}: use `insecure`, `try-secure` or `secure`");
                report.mistake(&place, wrong);
                Symlinks::default()
            }
        },
        Some((None, _)) => Symlinks::default(),
    };
    let acls = match section.field("acls").map(|field| (field.text(report), field.place)) {
        None => Acls::default(),
        Some((Some(text), place)) => match text.as_str() {
            "" => Acls::default(),
            // Unquoted, it may have come out of a YAML 1.1 writer as a truth value.
            "off" | "false" => Acls::Off,
            "try" => Acls::Try,
            "required" if cfg!(target_os = "linux") => Acls::Required,
            "required" => {
                report.mistake(&place, "acls mode \"required\" not supported on this system: use `try`");
                Acls::default()
            }
            other => {
                report.mistake(&place, format!("invalid acls mode: {other:?}: use `off`, `try` or `required`"));
                Acls::default()
            }
        },
        Some((None, _)) => Acls::default(),
    };
    let (place, path) = path?;
    if path.is_empty() {
        report.mistake(&place, "destination path must not be empty: add `path: /some/directory`");
        return None;
    }
    Some(DestinationConfig::Directory { path: path.into(), symlinks, acls })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_the_uri_forms() {
        for (text, path) in [("/a/b", "/a/b"), ("rel/b", "rel/b"), ("file:///a/b", "/a/b")] {
            assert_eq!(DestinationConfig::parse_uri(text), Ok(DestinationConfig::directory(path)));
        }
        assert_eq!(DestinationConfig::parse_uri("memory://"), Ok(DestinationConfig::Memory));
        for (text, wanted) in [
            ("file://host/a", "must be on the local host"),
            ("memory://host", "should not have host or path specified"),
            ("memory:///a", "should not have host or path specified"),
            ("kubernetes-secret://a", "not supported yet"),
            ("s3://a", "unrecognized data storage scheme"),
            ("", "must not be empty"),
        ] {
            assert!(DestinationConfig::parse_uri(text).is_err_and(|e| e.contains(wanted)), "{text}");
        }
    }
}
