use std::path::PathBuf;

use percent_encoding::percent_decode_str;

use crate::mistake::Report;
use crate::section::{Field, Section, Unknown, key_name, one_of};

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

/// Who may read a directory's files beside their owner (surface §B.5): a name or a numeric id.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum Reader {
    /// A user.
    User(String),
    /// A group.
    Group(String),
}

/// How a directory's files are arranged: an extension of ours to the original's file.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Layout {
    /// As the original does: each file under its name.
    #[default]
    Plain,
    /// Each set in a folder of its own, and one link that is switched.
    Generations,
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
        /// Who may read beside the owner.
        readers: Vec<Reader>,
        /// How the files are arranged.
        layout: Layout,
    },
    /// Memory: gone with the process.
    Memory,
}

impl DestinationConfig {
    /// A directory with the defaults.
    pub fn directory(path: impl Into<PathBuf>) -> Self {
        Self::Directory {
            path: path.into(),
            symlinks: Symlinks::default(),
            acls: Acls::default(),
            readers: Vec::new(),
            layout: Layout::default(),
        }
    }

    /// Reads the URI form of flags: a path, `file:///path` or `memory://` (surface §B.5).
    ///
    /// # Errors
    /// What is wrong and how to mend it.
    pub fn parse_uri(text: &str) -> Result<Self, String> {
        if text.is_empty() {
            return Err("destination path must not be empty".to_owned());
        }
        let (scheme, host, path) = uri(text);
        match scheme.as_str() {
            "" | "file" if !host.is_empty() => {
                Err(format!("file-backed data storage must be on the local host: write `file:///{host}{path}`"))
            }
            "" | "file" => {
                let decoded = percent_decode_str(path).decode_utf8().map_err(|_| "the path is not UTF-8".to_owned())?;
                match decoded.is_empty() {
                    true => Err("destination path must not be empty: write `file:///path`".to_owned()),
                    false => Ok(Self::directory(decoded.as_ref())),
                }
            }
            "memory" if !host.is_empty() || !path.is_empty() => {
                Err("memory-backed data storage should not have host or path specified: write `memory://`".to_owned())
            }
            "memory" => Ok(Self::Memory),
            "kubernetes-secret" => {
                Err("`kubernetes-secret` storage is not supported yet: use a directory or `memory://`".to_owned())
            }
            _ => Err(format!(
                "unrecognized data storage scheme: use a path, `file:///path` or `memory://` in place of `{}://`",
                key_name(&scheme)
            )),
        }
    }

    pub(crate) fn default_storage() -> Self {
        Self::directory(DEFAULT_STORAGE)
    }

    /// Reads `type` and the keys that go with it.
    pub(crate) fn read(mut section: Section, report: &mut Report) -> Option<Self> {
        let place = section.place.clone();
        let Some(field) = section.field("type") else {
            report.mistake(&place, "unrecognized destination type (): add `type: directory` or `type: memory`");
            return None;
        };
        let this = match field.text(report)?.as_str() {
            "directory" => Self::read_directory(&mut section, report),
            "memory" => Some(Self::Memory),
            "kubernetes_secret" => {
                report.curable(&field.place, "`kubernetes_secret` is not supported yet: use `directory` or `memory`");
                return None;
            }
            other => {
                let remedy = one_of(other, &["directory", "memory"]);
                report.mistake(&field.place, format!("unrecognized destination type ({}): {remedy}", key_name(other)));
                return None;
            }
        };
        section.close(Unknown::Warning, "", report);
        this
    }

    /// Reads the keys of a directory.
    pub(crate) fn read_directory(section: &mut Section, report: &mut Report) -> Option<Self> {
        let path = match section.field("path") {
            Some(field) => field.text(report).map(|path| (field.place, path)),
            None => Some((section.place.clone(), String::new())),
        };
        let symlinks = section.field("symlinks").and_then(|field| symlinks(&field, report)).unwrap_or_default();
        let acls = section.field("acls").and_then(|field| acls(&field, report)).unwrap_or_default();
        let readers = section.field("readers").map(|field| field.list(report)).unwrap_or_default();
        let readers = readers.iter().filter_map(|entry| Reader::read(entry, report)).collect();
        let layout = section.field("layout").and_then(|field| layout(&field, report)).unwrap_or_default();
        let (place, path) = path?;
        if path.is_empty() {
            report.mistake(&place, "destination path must not be empty: add `path: /some/directory`");
            return None;
        }
        Some(Self::Directory { path: path.into(), symlinks, acls, readers, layout })
    }
}

/// Scheme in lower case, host and path of a URI or of a path; what stands behind `?` or `#` has no meaning.
fn uri(text: &str) -> (String, &str, &str) {
    let text = text.split(['?', '#']).next().unwrap_or(text);
    let named = |scheme: &str| {
        scheme.starts_with(|c: char| c.is_ascii_alphabetic())
            && scheme.bytes().all(|c| c.is_ascii_alphanumeric() || b"+-.".contains(&c))
    };
    let (scheme, rest) = text.split_once(':').filter(|(scheme, _)| named(scheme)).unwrap_or(("", text));
    let (host, path) = match rest.strip_prefix("//") {
        Some(rest) => rest.split_at(rest.find('/').unwrap_or(rest.len())),
        None if scheme.is_empty() || rest.starts_with('/') => ("", rest),
        None => ("", ""),
    };
    (scheme.to_ascii_lowercase(), host, path)
}

impl Reader {
    fn read(field: &Field, report: &mut Report) -> Option<Self> {
        let mut section = field.section(report)?;
        let mut text = |key| section.field(key).and_then(|field| field.text(report)).filter(|text| !text.is_empty());
        let (user, group) = (text("user"), text("group"));
        section.close(Unknown::Warning, "", report);
        match (user, group) {
            (Some(user), None) => Some(Self::User(user)),
            (None, Some(group)) => Some(Self::Group(group)),
            _ => {
                report.mistake(&field.place, "a reader has exactly one key: write `user: <name>` or `group: <name>`");
                None
            }
        }
    }
}

fn symlinks(field: &Field, report: &mut Report) -> Option<Symlinks> {
    match field.text(report)?.as_str() {
        "" => None,
        "try-secure" => Some(Symlinks::TrySecure),
        "insecure" => Some(Symlinks::Insecure),
        "secure" if cfg!(target_os = "linux") => Some(Symlinks::Secure),
        "secure" => {
            report.mistake(&field.place, "symlink mode \"secure\" not supported on this system: use `try-secure`");
            None
        }
        other => {
            let remedy = one_of(other, &["insecure", "try-secure", "secure"]);
            report.mistake(&field.place, format!("invalid symlinks mode: {other:?}: {remedy}"));
            None
        }
    }
}

fn acls(field: &Field, report: &mut Report) -> Option<Acls> {
    match field.text(report)?.as_str() {
        "" => None,
        // Unquoted, it may have come out of a YAML 1.1 writer as a truth value.
        "off" | "false" => Some(Acls::Off),
        "try" => Some(Acls::Try),
        "required" if cfg!(target_os = "linux") => Some(Acls::Required),
        "required" => {
            report.mistake(&field.place, "acls mode \"required\" not supported on this system: use `try`");
            None
        }
        other => {
            let remedy = one_of(other, &["off", "try", "required"]);
            report.mistake(&field.place, format!("invalid acls mode: {other:?}: {remedy}"));
            None
        }
    }
}

fn layout(field: &Field, report: &mut Report) -> Option<Layout> {
    match field.text(report)?.as_str() {
        "plain" => Some(Layout::Plain),
        "generations" => Some(Layout::Generations),
        other => {
            let remedy = one_of(other, &["plain", "generations"]);
            report.mistake(&field.place, format!("invalid layout: {other:?}: {remedy}"));
            None
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_the_uri_forms() {
        for (text, path) in [
            ("/a/b", "/a/b"),
            ("rel/b", "rel/b"),
            ("./a:b", "./a:b"),
            ("file:///a/b", "/a/b"),
            ("FILE:///a", "/a"),
            ("file:/a", "/a"),
            ("file:///a%20b", "/a b"),
            ("/a%20b", "/a b"),
            ("file:///a?mode=x#y", "/a"),
            ("/a+b", "/a+b"),
        ] {
            assert_eq!(DestinationConfig::parse_uri(text), Ok(DestinationConfig::directory(path)));
        }
        for text in ["memory://", "memory:", "MEMORY://?x"] {
            assert_eq!(DestinationConfig::parse_uri(text), Ok(DestinationConfig::Memory));
        }
        for (text, wanted) in [
            ("file://host/a", "must be on the local host"),
            ("memory://host", "should not have host or path specified"),
            ("memory:///a", "should not have host or path specified"),
            ("kubernetes-secret://a", "not supported yet"),
            ("s3://a", "unrecognized data storage scheme"),
            ("a:b", "unrecognized data storage scheme"),
            ("//host/a", "must be on the local host"),
            ("file:a", "must not be empty"),
            ("file://", "must not be empty"),
            ("", "must not be empty"),
        ] {
            assert!(DestinationConfig::parse_uri(text).is_err_and(|e| e.contains(wanted)), "{text}");
        }
    }
}
