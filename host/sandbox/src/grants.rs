//! What manifest and operator let a plugin do beyond computing and logging.

use std::collections::BTreeSet;

use identity::{Failure, FailureKind};
use serde_json::Value;

use crate::error::escaped;
use crate::prefix::{Prefix, target};

/// Rights as a manifest asks for them, or an operator grants them. None by default.
///
/// In each, `$NAME` stands for the value of that environment variable, and `{key}` for that key of the plugin's own configuration.
/// Where there is no such value, there is no such right.
#[derive(Debug, Clone, PartialEq, Eq, Default, serde::Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Rights {
    /// Names of environment variables that may be read.
    pub environment: BTreeSet<String>,
    /// Absolute paths of files that may be read.
    pub files: BTreeSet<String>,
    /// `[METHOD ]URL[ at private]`: requests that the host performs, GET where no method is named. A path that ends with `/` means
    /// everything below it, another one itself; a query means those that begin with it. Without `at private` a name must not lead
    /// into a private network; loopback, link-local and metadata addresses have to be written as addresses, always.
    pub http: BTreeSet<String>,
    /// The private key itself, while a file is rendered.
    #[serde(alias = "private-key")]
    pub private_key: Option<Reveal>,
}

/// The only thing that can be said of a private key.
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Reveal {
    /// The plugin sees it.
    Reveal,
}

impl Rights {
    /// The same with every `$NAME` and `{key}` replaced, what has no value left out.
    pub fn filled(&self, config: &Value) -> Self {
        let filled = |texts: &BTreeSet<String>| texts.iter().filter_map(|text| fill(text, config)).collect();
        Self {
            environment: filled(&self.environment),
            files: filled(&self.files),
            http: filled(&self.http),
            private_key: self.private_key,
        }
    }

    /// # Errors
    /// [`FailureKind::InvalidConfig`]: what is no name, no absolute path or no URL.
    pub fn check(&self) -> Result<(), Failure> {
        let wrong = |message: String| Err(Failure::new(FailureKind::InvalidConfig, message));
        if let Some(name) = self.environment.iter().find(|name| name.is_empty() || name.contains(['$', '=', '\0'])) {
            return wrong(format!("`environment` holds names of variables, not `{}`", escaped(name)));
        }
        if let Some(path) = self.files.iter().find(|path| !path.starts_with(['/', '$', '{'])) {
            return wrong(format!("`files` holds absolute paths, not `{}`", escaped(path)));
        }
        for text in self.http.iter().filter(|text| !text.contains(['$', '{'])) {
            if let Err(reason) = Prefix::parse(text) {
                return wrong(format!("`http` holds `[METHOD ]URL[ at private]`, not `{}`: {reason}", escaped(text)));
            }
        }
        Ok(())
    }
}

/// Both lists that have to say yes.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Grants {
    /// What the plugin's manifest asks for.
    pub asks: Rights,
    /// What the operator grants. `None` for a plugin that comes with the program: it gets what it asks for, but never the private key.
    pub operator: Option<Rights>,
}

impl Grants {
    /// Does it ask for the private key, and the operator has not granted it?
    pub fn withhold_the_key(&self) -> bool {
        let granted = self.operator.as_ref().is_some_and(|rights| rights.private_key.is_some());
        self.asks.private_key.is_some() && !granted
    }

    /// What holds for a call with this configuration (JSON).
    pub(crate) fn for_call(&self, config: &str) -> Allowed {
        let config = serde_json::from_str(config).unwrap_or(Value::Null);
        let one = |rights: &Rights, whose| Filled { rights: rights.filled(&config), whose };
        let operator = self.operator.as_ref().map(|rights| one(rights, Whose::Operator));
        Allowed { lists: [one(&self.asks, Whose::Manifest)].into_iter().chain(operator).collect() }
    }
}

/// The rights of one call. Nothing by default.
#[derive(Debug, Default)]
pub(crate) struct Allowed {
    lists: Vec<Filled>,
}

#[derive(Debug)]
struct Filled {
    rights: Rights,
    whose: Whose,
}

#[derive(Debug, Clone, Copy)]
enum Whose {
    Manifest,
    Operator,
}

impl Allowed {
    /// # Errors
    /// For a person: which list lacks it, and the line to add.
    pub(crate) fn environment(&self, name: &str) -> Result<(), String> {
        let what = format!("environment variable `{}`", escaped(name));
        self.every("environment", &what, name, |rights| rights.environment.contains(name).then_some(())).map(drop)
    }

    /// # Errors
    /// As [`Self::environment`].
    pub(crate) fn file(&self, path: &str) -> Result<(), String> {
        let what = format!("file `{}`", escaped(path));
        self.every("files", &what, path, |rights| rights.files.contains(path).then_some(())).map(drop)
    }

    pub(crate) fn private_key(&self) -> bool {
        // One list is a plugin's own: for the key the operator has to have said something.
        self.lists.len() > 1 && self.lists.iter().all(|list| list.rights.private_key.is_some())
    }

    /// The URL in its normal form, and for each list the entries that cover it: they decide about addresses.
    ///
    /// # Errors
    /// As [`Self::environment`].
    pub(crate) fn request(
        &self,
        method: &reqwest::Method,
        url: &str,
    ) -> Result<(reqwest::Url, Vec<Vec<Prefix>>), String> {
        let url = target(url)?;
        // The line to add names no query: there may be a secret in it.
        let mut plain = url.clone();
        plain.set_query(None);
        let line = if method == reqwest::Method::GET { plain.to_string() } else { format!("{method} {plain}") };
        let covering = self.every("http", &format!("`{method} {plain}`"), &line, |rights| {
            let prefixes = rights.http.iter().filter_map(|text| Prefix::parse(text).ok());
            let covering: Vec<_> = prefixes.filter(|prefix| prefix.covers(method, &url)).collect();
            (!covering.is_empty()).then_some(covering)
        })?;
        Ok((url, covering))
    }

    fn every<T>(
        &self,
        key: &str,
        what: &str,
        line: &str,
        has: impl Fn(&Rights) -> Option<T>,
    ) -> Result<Vec<T>, String> {
        if self.lists.is_empty() {
            return Err(format!("{what} is not for this function: only `prove` and `render` are granted anything"));
        }
        let line = escaped(line);
        let check = |list: &Filled| {
            has(&list.rights).ok_or_else(|| match list.whose {
                Whose::Manifest => format!("{what} is not asked for: add `{line}` to `{key}` of the plugin's manifest"),
                Whose::Operator => format!("{what} is not granted: add `{line}` to `grants.{key}` of the plugin"),
            })
        };
        self.lists.iter().map(check).collect()
    }
}

/// `text` with every `$NAME` and `{key}` replaced; `None` where one has no value.
fn fill(text: &str, config: &Value) -> Option<String> {
    let mut out = String::new();
    let mut rest = text;
    while let Some(at) = rest.find(['$', '{']) {
        out.push_str(&rest[..at]);
        let variable = rest[at..].starts_with('$');
        let behind = &rest[at + 1..];
        let end = match variable {
            true => behind.find(|c: char| !c.is_ascii_alphanumeric() && c != '_').unwrap_or(behind.len()),
            false => behind.find('}')?,
        };
        let name = &behind[..end];
        let value = match variable {
            true => std::env::var(name).ok()?,
            false => config.get(name)?.as_str()?.to_owned(),
        };
        if value.is_empty() {
            return None;
        }
        out.push_str(&value);
        rest = &behind[if variable { end } else { end + 1 }..];
    }
    out.push_str(rest);
    Some(out)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rights(environment: &[&str], http: &[&str]) -> Rights {
        let owned = |texts: &[&str]| texts.iter().map(ToString::to_string).collect();
        Rights { environment: owned(environment), http: owned(http), ..Rights::default() }
    }

    #[test]
    fn values_are_put_in_and_what_has_none_is_no_right() {
        let config = serde_json::json!({"tag": "BLUE", "empty": "", "number": 7});
        for (text, filled) in [
            ("TOKEN_{tag}", Some("TOKEN_BLUE")),
            ("{tag}{tag}", Some("BLUEBLUE")),
            ("/x/$CARGO_PKG_NAME/y", Some("/x/sandbox/y")),
            ("$CARGO_PKG_NAME", Some("sandbox")),
            ("$NO_SUCH_VARIABLE/y", None),
            ("{empty}", None),
            ("{number}", None),
            ("{absent}", None),
            ("{open", None),
            ("$", None),
            ("plain", Some("plain")),
        ] {
            assert_eq!(fill(text, &config).as_deref(), filled, "{text}");
        }
    }

    #[test]
    fn both_lists_have_to_say_yes() {
        let get = reqwest::Method::GET;
        let (asks, more) =
            (rights(&["A"], &["http://a.example/"]), rights(&["A", "B"], &["http://a.example/", "http://b.example/"]));
        let grants = Grants { asks: asks.clone(), operator: Some(more) };
        let allowed = grants.for_call("{}");
        assert!(allowed.environment("A").is_ok() && allowed.request(&get, "http://a.example/x").is_ok());
        let refused = allowed.environment("B").unwrap_err();
        assert!(refused.ends_with("add `B` to `environment` of the plugin's manifest"), "{refused}");
        let refused = allowed.request(&get, "http://b.example/?key=secret").unwrap_err();
        assert!(refused.ends_with("add `http://b.example/` to `http` of the plugin's manifest"), "{refused}");

        let allowed = Grants { asks: asks.clone(), operator: Some(Rights::default()) }.for_call("{}");
        let refused = allowed.request(&get, "http://a.example/x").unwrap_err();
        assert!(refused.ends_with("add `http://a.example/x` to `grants.http` of the plugin"), "{refused}");
        assert!(allowed.file("/etc/shadow").is_err());
        assert!(Grants { asks, operator: None }.for_call("{}").environment("A").is_ok());
        assert!(Allowed::default().environment("A").is_err());
    }

    #[test]
    fn nobody_gets_the_key_without_the_operators_word() {
        let (none, key) = (Rights::default(), Rights { private_key: Some(Reveal::Reveal), ..Rights::default() });
        for (asks, operator, seen, withheld) in [
            (&key, Some(&key), true, false),
            (&key, Some(&none), false, true),
            (&key, None, false, true),
            (&none, Some(&key), false, false),
            (&none, None, false, false),
        ] {
            let grants = Grants { asks: asks.clone(), operator: operator.cloned() };
            assert_eq!(
                (grants.for_call("{}").private_key(), grants.withhold_the_key()),
                (seen, withheld),
                "{grants:?}"
            );
        }
    }

    #[test]
    fn rights_that_cannot_be_meant_are_refused_at_once() {
        for wrong in
            [rights(&["$A"], &[]), rights(&[""], &[]), rights(&[], &["example.com"]), rights(&[], &["http://"])]
        {
            assert_eq!(wrong.check().unwrap_err().kind, FailureKind::InvalidConfig, "{wrong:?}");
        }
        let relative = Rights { files: BTreeSet::from(["etc/passwd".to_owned()]), ..Rights::default() };
        assert!(relative.check().is_err());
        rights(&["A_{b}"], &["POST https://a.example/x at private", "$URL", "{url}/v1/"]).check().unwrap();
    }
}
