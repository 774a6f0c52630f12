use std::fmt;

use crate::{Failure, FailureKind};

/// A path inside a destination: relative, `/`-separated, at most 4 components of at most 64 bytes, nothing hidden, nothing that climbs.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct RelativePath(String);

impl RelativePath {
    /// Checks `text`.
    ///
    /// # Errors
    /// [`FailureKind::Plugin`] with the rule that is broken: such names come from plugins.
    pub fn parse(text: &str) -> Result<Self, Failure> {
        let broken = |rule: &str| Err(Failure::new(FailureKind::Plugin, format!("file name {text:?} {rule}")));
        if text.is_empty() || text.split('/').any(str::is_empty) {
            return broken("is absolute or has an empty component");
        }
        if text.split('/').count() > 4 || text.split('/').any(|part| part.len() > 64) {
            return broken("has more than 4 components or one of more than 64 bytes");
        }
        if text.split('/').any(|part| part.starts_with('.')) {
            return broken("has a component that begins with a dot");
        }
        if text.chars().any(|c| c.is_control() || c == '\\') {
            return broken("has a control character or a backslash");
        }
        Ok(Self(text.to_owned()))
    }

    /// For names that the host itself writes, such as those of the bot's own storage: a literal, not checked.
    pub(crate) fn literal(text: &'static str) -> Self {
        Self(text.to_owned())
    }

    /// The text as it was given.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for RelativePath {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn refuses_what_could_leave_or_hide() {
        for bad in
            ["", "/etc/passwd", "../key", "a/../b", "a//b", ".lock", "a/.b", "a\0b", "a\nb", "a\\b", "a/", "a/b/c/d/e"]
        {
            assert!(RelativePath::parse(bad).is_err(), "{bad:?}");
        }
        for good in ["key", "cockroach/ca.crt", "teleport-host-ca.crt"] {
            assert!(RelativePath::parse(good).is_ok(), "{good:?}");
        }
    }
}
