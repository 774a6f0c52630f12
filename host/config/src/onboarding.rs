use std::fmt;
use std::io::Read;
use std::path::{Path, PathBuf};

use identity::{Failure, FailureKind};
use zeroize::Zeroizing;

use crate::mistake::{Mistake, Place, Report};
use crate::places::Places;
use crate::section::{Section, Unknown};

/// Most bytes of a token file: tokens are short, JWTs a few KiB.
const TOKEN_BYTES: u64 = 64 * 1024;
/// The keys under which join methods keep their own settings (surface §B.3).
const METHOD_KEYS: [&str; 4] = ["azure", "gitlab", "terraform", "bound_keypair"];

/// A join token: a secret, or for delegated methods a name.
#[derive(Clone, PartialEq, Eq)]
pub enum Token {
    /// As it stands in the file or on the command line.
    Literal(Zeroizing<String>),
    /// An absolute path: read whenever it is needed.
    File(PathBuf),
}

impl Token {
    /// An absolute path means the file there, everything else is the token itself; nothing is none (surface §B.3).
    pub(crate) fn new(text: Zeroizing<String>) -> Option<Self> {
        if text.is_empty() {
            return None;
        }
        Some(if Path::new(text.as_str()).is_absolute() {
            Self::File(text.as_str().into())
        } else {
            Self::Literal(text)
        })
    }

    /// The token itself, of a file without the white space around it.
    ///
    /// # Errors
    /// [`FailureKind::InvalidConfig`] where the file cannot be read, is empty, larger than 64 KiB or not UTF-8.
    pub fn value(&self) -> Result<Zeroizing<String>, Failure> {
        let path = match self {
            Self::Literal(text) => return Ok(text.clone()),
            Self::File(path) => path,
        };
        let failure = |what: &dyn fmt::Display| {
            let message = format!("token file `{}` {what}: correct it or `onboarding.token`", path.display());
            Failure::new(FailureKind::InvalidConfig, message)
        };
        let unreadable = |e: std::io::Error| failure(&format!("cannot be read: {e}"));
        let mut bytes = Zeroizing::new(Vec::new());
        let file = std::fs::File::open(path).map_err(unreadable)?;
        file.take(TOKEN_BYTES + 1).read_to_end(&mut bytes).map_err(unreadable)?;
        if bytes.len() as u64 > TOKEN_BYTES {
            return Err(failure(&"is larger than 64 KiB"));
        }
        let text = std::str::from_utf8(&bytes).map_err(|_| failure(&"is not UTF-8"))?.trim();
        if text.is_empty() {
            return Err(failure(&"is empty (Empty config value file)"));
        }
        Ok(Zeroizing::new(text.to_owned()))
    }
}

impl fmt::Debug for Token {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Literal(_) => f.write_str("Literal(…)"),
            Self::File(path) => f.debug_tuple("File").field(path).finish(),
        }
    }
}

/// How the bot joins (surface §B.3).
#[derive(Clone, PartialEq)]
pub struct Onboarding {
    /// Name of the join method, any: the catalog decides which there are.
    pub join_method: String,
    /// The token, or for delegated methods its name. May be missing where the bot has joined before.
    pub token: Option<Token>,
    /// `sha256:` and 64 hex digits each, lower case; any one of them is enough. What is none matches nothing, and was warned of.
    pub ca_pins: Vec<String>,
    /// A PEM file with the authority to trust.
    pub ca_path: Option<PathBuf>,
    /// The map under the key that is named like the method, such as `azure: {client_id: …}`, for its plugin; an empty map where there is none.
    pub method_config: serde_json::Value,
    places: Places,
}

impl Onboarding {
    /// A mistake at one of the keys of the section, such as `join_method` or `azure.client_id`. `message` quotes no secret.
    pub fn mistake(&self, key: &str, message: impl Into<String>) -> Mistake {
        self.places.mistake(key, message)
    }

    pub(crate) fn read(mut section: Section, unknown: Unknown, report: &mut Report) -> Self {
        let mut this = Self { places: Places::of(&section), ..Self::default() };
        this.join_method = section.field("join_method").and_then(|field| field.text(report)).unwrap_or_default();
        this.token = section.field("token").and_then(|field| field.secret(report)).and_then(Token::new);
        let pins = section.field("ca_pins").map(|field| field.texts(report)).unwrap_or_default();
        this.ca_pins = pins.into_iter().map(|(place, text)| pin(&place, &text, report)).collect();
        let path = section.field("ca_path").and_then(|field| field.text(report)).filter(|text| !text.is_empty());
        this.ca_path = path.map(PathBuf::from);
        for key in METHOD_KEYS {
            // Known, whichever method is in use; those of another method are let pass, as in the original.
            section.field(key);
        }
        let key = method_key(&this.join_method);
        if let Some(field) = section.named(key)
            && !["join_method", "token", "ca_pins", "ca_path"].contains(&key)
            && field.section(report).is_some()
        {
            this.method_config = field.json();
        }
        section.close(unknown, key, report);
        this
    }

    /// Of the flags, which replace the section as a whole (surface §A.6).
    pub(crate) fn of_flags(method: &str, token: Option<&str>, pins: &[String], report: &mut Report) -> Self {
        let token = token.and_then(|text| Token::new(Zeroizing::new(text.to_owned())));
        let ca_pins = pins.iter().map(|text| pin(&Place::flag("--ca-pin"), text, report)).collect();
        Self {
            join_method: method.to_owned(),
            token,
            ca_pins,
            places: Places::flag("--join-method"),
            ..Self::default()
        }
    }

    pub(crate) fn place(&self, key: &str) -> Place {
        self.places.at(key)
    }

    pub(crate) fn written(&self) -> bool {
        !self.join_method.is_empty() || self.token.is_some() || !self.ca_pins.is_empty() || self.ca_path.is_some()
    }
}

impl Default for Onboarding {
    fn default() -> Self {
        Self {
            join_method: String::new(),
            token: None,
            ca_pins: Vec::new(),
            ca_path: None,
            method_config: serde_json::Value::Object(serde_json::Map::new()),
            places: Places::default(),
        }
    }
}

impl fmt::Debug for Onboarding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // The method's own settings may hold a secret, too.
        f.debug_struct("Onboarding")
            .field("join_method", &self.join_method)
            .field("token", &self.token)
            .field("ca_pins", &self.ca_pins)
            .field("ca_path", &self.ca_path)
            .finish_non_exhaustive()
    }
}

/// The key of `onboarding` for a method's own settings: its name, but for `terraform_cloud` (surface §B.3).
pub fn method_key(method: &str) -> &str {
    if method == "terraform_cloud" { "terraform" } else { method }
}

/// One that is none stays, so that it trusts nobody: only a join at an auth server looks at it.
fn pin(place: &Place, text: &str, report: &mut Report) -> String {
    if !crate::is_sha256(text) {
        let message = format!(
            "`{text}` is no pin, and no auth server can match it: write `sha256:` and 64 hex digits, as `tctl status` shows them"
        );
        report.warning(place, message);
    }
    text.to_ascii_lowercase()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn token(text: &str) -> Option<Token> {
        Token::new(Zeroizing::new(text.to_owned()))
    }

    #[test]
    fn only_an_absolute_path_is_a_file() {
        assert_eq!(token(""), None);
        assert_eq!(token("tokens/a").unwrap().value().unwrap().as_str(), "tokens/a");
        assert_eq!(token("/etc/token"), Some(Token::File("/etc/token".into())));
        assert_eq!(format!("{:?}", token("hunter2").unwrap()), "Literal(…)");
    }

    #[test]
    fn a_token_file_is_read_at_each_use_and_trimmed() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("token");
        let token = token(path.to_str().unwrap()).unwrap();
        let refused = |token: &Token| token.value().unwrap_err();
        assert!(refused(&token).message.contains("cannot be read"));
        std::fs::write(&path, " one\n").unwrap();
        assert_eq!(token.value().unwrap().as_str(), "one");
        std::fs::write(&path, "two").unwrap();
        assert_eq!(token.value().unwrap().as_str(), "two");
        std::fs::write(&path, "\n").unwrap();
        assert!(refused(&token).message.contains("Empty config value file"));
        std::fs::write(&path, vec![b'x'; 70_000]).unwrap();
        assert_eq!(refused(&token).kind, FailureKind::InvalidConfig);
        std::fs::write(&path, [0xff, 0xfe]).unwrap();
        assert!(refused(&token).message.contains("not UTF-8"));
    }
}
