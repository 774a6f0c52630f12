use std::time::Duration;

use zeroize::Zeroizing;

use crate::mistake::{Mistake, Place, Report};
use crate::node::{Key, Node, Value};
use crate::parse_duration;

/// A map of the file being read: every key that was asked for is known, the others are the writer's slips.
pub(crate) struct Section<'n> {
    pub(crate) place: Place,
    entries: &'n [(Key, Node)],
    known: Vec<&'static str>,
}

/// What a key means that nobody asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Unknown {
    /// The original refuses it.
    Mistake,
    /// The original lets it pass.
    Warning,
}

impl<'n> Section<'n> {
    /// The map at `node`; nothing at all counts as an empty one, as in the original.
    pub(crate) fn of(node: &'n Node, place: Place, report: &mut Report) -> Option<Self> {
        let entries: &[(Key, Node)] = match &node.value {
            Value::Map(entries) => entries,
            Value::Null => &[],
            _ => {
                Field { place, node }.mistyped("must be a map of keys and values", report);
                return None;
            }
        };
        Some(Self { place, entries, known: Vec::new() })
    }

    /// The value under `key`, `None` where it is absent or empty (null).
    pub(crate) fn field(&mut self, key: &'static str) -> Option<Field<'n>> {
        self.known.push(key);
        self.named(key)
    }

    /// As [`Section::field`] for a name that is not known beforehand.
    pub(crate) fn named(&self, key: &str) -> Option<Field<'n>> {
        let (key, node) = self.entries.iter().find(|(entry, _)| entry.name == key)?;
        (!matches!(node.value, Value::Null)).then(|| self.entry(key, node))
    }

    pub(crate) fn has(&self, key: &str) -> bool {
        self.named(key).is_some()
    }

    /// Whether there is anything in the list, or the map, under `key`.
    pub(crate) fn has_entries(&self, key: &str) -> bool {
        self.named(key).is_some_and(|field| match &field.node.value {
            Value::List(entries) => !entries.is_empty(),
            Value::Map(entries) => !entries.is_empty(),
            _ => true,
        })
    }

    /// Every entry, known or not.
    pub(crate) fn fields(&self) -> impl Iterator<Item = (&'n str, Field<'n>)> + use<'n, '_> {
        self.entries.iter().map(|(key, node)| (key.name.as_str(), self.entry(key, node)))
    }

    /// The entries that nobody asked for.
    pub(crate) fn rest(&self) -> impl Iterator<Item = (&'n str, Field<'n>)> + use<'n, '_> {
        self.fields().filter(|(key, _)| !self.known.contains(key))
    }

    /// Reports the entries that nobody asked for; `except` is let pass.
    pub(crate) fn close(&self, unknown: Unknown, except: &str, report: &mut Report) {
        for (key, node) in self.entries.iter().filter(|(key, _)| !self.known.contains(&key.name.as_str())) {
            if key.name == except {
                continue;
            }
            // The key is at fault here, not its value.
            let place = Place { line: key.line, column: key.column, ..self.entry(key, node).place };
            let remedy = match did_you_mean(&key.name, &self.known) {
                Some(near) => format!("did you mean `{near}`?"),
                None if key.name.contains(':') => "is a space missing after the colon?".to_owned(),
                None => "remove it".to_owned(),
            };
            let message = format!("unknown key `{}`: {remedy}", key_name(&key.name));
            match unknown {
                Unknown::Mistake => report.mistake(&place, message),
                Unknown::Warning => report.warning(&place, format!("{message} (it is ignored)")),
            }
        }
    }

    fn entry(&self, key: &Key, node: &'n Node) -> Field<'n> {
        // An empty value has no place of its own.
        let (line, column) = if node.line == 0 { (key.line, key.column) } else { (node.line, node.column) };
        Field { place: self.place.key(&key_name(&key.name), line, column), node }
    }
}

/// A value of the file and its place.
#[derive(Clone)]
pub(crate) struct Field<'n> {
    pub(crate) place: Place,
    node: &'n Node,
}

impl<'n> Field<'n> {
    /// Text; unquoted numbers and truth values count as what is written, as in the original.
    pub(crate) fn text(&self, report: &mut Report) -> Option<String> {
        self.secret(report).map(|text| text.to_string())
    }

    /// As [`Field::text`], wiped when dropped.
    pub(crate) fn secret(&self, report: &mut Report) -> Option<Zeroizing<String>> {
        match &self.node.value {
            Value::Text(text) => Some(text.clone()),
            Value::Bool(_, text) | Value::Number(_, text) => Some(Zeroizing::new(text.clone())),
            _ => {
                self.mistyped("must be text", report);
                None
            }
        }
    }

    /// A truth value, in each spelling of YAML 1.1.
    pub(crate) fn boolean(&self, report: &mut Report) -> Option<bool> {
        match &self.node.value {
            Value::Bool(value, _) => return Some(*value),
            Value::Text(text) => match text.to_ascii_lowercase().as_str() {
                "y" | "yes" | "on" => return Some(true),
                "n" | "no" | "off" => return Some(false),
                _ => {}
            },
            _ => {}
        }
        self.mistyped("must be `true` or `false`", report);
        None
    }

    /// A duration in Go's form.
    pub(crate) fn duration(&self, report: &mut Report) -> Option<Duration> {
        let text = self.text(report)?;
        match parse_duration(&text) {
            Ok(duration) => Some(duration),
            Err(message) => {
                report.mistakes.push(Mistake { mistyped: self.go_value(), ..self.place.mistake(message) });
                None
            }
        }
    }

    /// The entries of a list.
    pub(crate) fn list(&self, report: &mut Report) -> Vec<Field<'n>> {
        let Value::List(entries) = &self.node.value else {
            self.mistyped("must be a list", report);
            return Vec::new();
        };
        let field = |(index, node): (usize, &'n Node)| {
            let (line, column) =
                if node.line == 0 { (self.place.line, self.place.column) } else { (node.line, node.column) };
            Field { place: self.place.index(index, line, column), node }
        };
        entries.iter().enumerate().map(field).collect()
    }

    /// The entries of a list of texts.
    pub(crate) fn texts(&self, report: &mut Report) -> Vec<(Place, String)> {
        let entries = self.list(report);
        entries.into_iter().filter_map(|entry| Some((entry.place.clone(), entry.text(report)?))).collect()
    }

    /// A map.
    pub(crate) fn section(&self, report: &mut Report) -> Option<Section<'n>> {
        Section::of(self.node, self.place.clone(), report)
    }

    pub(crate) fn is_null(&self) -> bool {
        matches!(self.node.value, Value::Null)
    }

    pub(crate) fn is_map(&self) -> bool {
        matches!(self.node.value, Value::Map(_))
    }

    fn mistyped(&self, wanted: &str, report: &mut Report) {
        let message = format!("{wanted}, and is {}", kind(&self.node.value));
        report.mistakes.push(Mistake { mistyped: self.go_value(), ..self.place.mistake(message) });
    }

    /// A value as the original's parser names it, such as ``!!int `60` ``; long ones are cut there, too.
    fn go_value(&self) -> Option<String> {
        let (tag, text) = match &self.node.value {
            Value::Bool(_, text) => ("bool", text.as_str()),
            Value::Number(number, text) => (if number.is_f64() { "float" } else { "int" }, text.as_str()),
            Value::Text(text) => ("str", text.as_str()),
            Value::List(_) => return Some("!!seq".to_owned()),
            Value::Map(_) => return Some("!!map".to_owned()),
            Value::Null => return None,
        };
        let cut: String = text.chars().take(7).collect();
        Some(if text.chars().count() > 10 { format!("!!{tag} `{cut}...`") } else { format!("!!{tag} `{text}`") })
    }

    /// The value as JSON, for a plugin.
    pub(crate) fn json(&self) -> serde_json::Value {
        json(self.node)
    }
}

/// The one of `known` that `key` was probably meant to be.
pub fn did_you_mean<'k>(key: &str, known: &[&'k str]) -> Option<&'k str> {
    // One slip in three letters, at most three; longer input cannot be near.
    let limit = (key.chars().count() / 3).clamp(1, 3);
    let near = known.iter().map(|name| (strsim::damerau_levenshtein(&key_name(key), name), *name));
    near.filter(|(distance, _)| *distance <= limit).min().map(|(_, name)| name)
}

/// The remedy for a value that is none of `known`.
pub(crate) fn one_of(value: &str, known: &[&str]) -> String {
    if let Some(near) = did_you_mean(value, known) {
        return format!("did you mean `{near}`?");
    }
    let (last, others) = known.split_last().unwrap_or((&"", &[]));
    let others: Vec<_> = others.iter().map(|name| format!("`{name}`")).collect();
    format!("use {} or `{last}`", others.join(", "))
}

/// A key as messages show it: cut at the first character that no key has, because a missing space can make a secret part of it.
pub(crate) fn key_name(key: &str) -> String {
    let plain = |c: char| c.is_ascii_alphanumeric() || matches!(c, '_' | '-' | '.' | '/' | '[' | ']');
    let end = key.char_indices().find(|(at, c)| !plain(*c) || *at >= 64).map_or(key.len(), |(at, _)| at);
    if end == key.len() { key.to_owned() } else { format!("{}…", &key[..end]) }
}

fn kind(value: &Value) -> &'static str {
    match value {
        Value::Null => "empty",
        Value::Bool(..) => "a truth value",
        Value::Number(..) => "a number",
        Value::Text(_) => "text",
        Value::List(_) => "a list",
        Value::Map(_) => "a map",
    }
}

fn json(node: &Node) -> serde_json::Value {
    match &node.value {
        Value::Null => serde_json::Value::Null,
        // `0123`, `1e3` and `True` are names, more likely than not: a number or a truth value would lose their spelling.
        Value::Bool(value, text) if value.to_string() != *text => text.as_str().into(),
        Value::Bool(value, _) => serde_json::Value::Bool(*value),
        Value::Number(number, text) if number.to_string() != *text => text.as_str().into(),
        Value::Number(number, _) => serde_json::Value::Number(number.clone()),
        Value::Text(text) => text.as_str().into(),
        Value::List(entries) => entries.iter().map(json).collect(),
        Value::Map(entries) => entries.iter().map(|(key, node)| (key.name.clone(), json(node))).collect(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_that_swallowed_its_value_is_cut() {
        assert_eq!(key_name("token:abc"), "token…");
        assert_eq!(key_name("kubernetes/v2"), "kubernetes/v2");
        assert_eq!(key_name(&"x".repeat(80)), format!("{}…", "x".repeat(64)));
    }

    #[test]
    fn only_near_names_are_suggested() {
        let known = ["auth_server", "storage", "oneshot", "token"];
        assert_eq!(did_you_mean("auth_sever", &known), Some("auth_server"));
        assert_eq!(did_you_mean("authserver", &known), Some("auth_server"));
        assert_eq!(did_you_mean("one_shot", &known), Some("oneshot"));
        assert_eq!(did_you_mean("colour", &known), None);
        assert_eq!(did_you_mean(&"x".repeat(100_000), &known), None);
    }
}
