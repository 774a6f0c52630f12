use std::path::PathBuf;

use crate::mistake::{Mistake, Report};
use crate::places::Places;
use crate::section::{Field, Section, Unknown};

/// What a plugin is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum PluginKind {
    /// Proves who the machine is.
    Join,
    /// Says what certificate to ask for, and which files to make of it.
    Output,
    /// Says how additional files look.
    Format,
}

/// An entry of `plugins`, an extension of ours to the original's file: a third party's plugin, or grants for one that comes with the program.
#[derive(Debug, Clone, PartialEq)]
pub struct PluginConfig {
    /// Under which name outputs, formats or `onboarding.join_method` use it.
    pub name: String,
    /// What it is for.
    pub kind: PluginKind,
    /// The component; a relative path counts from the working directory. `None` for a plugin that comes with the program.
    pub path: Option<PathBuf>,
    /// `sha256:` and 64 hex digits, lower case. The catalog loads nothing without it, and tells the real one.
    pub digest: Option<String>,
    /// What the operator grants, as written; an empty map where nothing is.
    pub grants: serde_json::Value,
    places: Places,
}

impl PluginConfig {
    /// A mistake at one of its keys, such as `digest` or `grants.http`; the empty key means the plugin as a whole.
    pub fn mistake(&self, key: &str, message: impl Into<String>) -> Mistake {
        self.places.mistake(key, message)
    }

    /// Reads an entry; reports and leaves out what cannot be one.
    pub(crate) fn read(field: &Field, report: &mut Report) -> Option<Self> {
        let mut section = field.section(report)?;
        let places = Places::of(&section);
        let name = required(&mut section, "name", "the name under which it is used", report);
        let kind = required(&mut section, "kind", "`join`, `output` or `format`", report);
        let kind = kind.and_then(|kind| match kind.as_str() {
            "join" => Some(PluginKind::Join),
            "output" => Some(PluginKind::Output),
            "format" => Some(PluginKind::Format),
            _ => {
                report.mistakes.push(places.mistake("kind", "unknown kind: use `join`, `output` or `format`"));
                None
            }
        });
        let path = match section.has("path") {
            true => Some(PathBuf::from(required(&mut section, "path", "the path of its `.wasm` file", report)?)),
            false => None,
        };
        let mut digest = section.field("digest").and_then(|field| field.text(report));
        if let Some(text) = digest.take_if(|text| !crate::is_sha256(text)) {
            let message = format!("`{text}` is no digest: write `sha256:` and 64 hex digits");
            report.mistakes.push(places.mistake("digest", message));
        }
        let mut grants = serde_json::Value::Object(serde_json::Map::new());
        if let Some(field) = section.field("grants")
            && field.section(report).is_some()
        {
            grants = field.json();
        }
        section.close(Unknown::Mistake, "", report);
        let digest = digest.map(|text| text.to_ascii_lowercase());
        Some(Self { name: name?, kind: kind?, path, digest, grants, places })
    }
}

/// Reports every name that a plugin of the same kind has already.
pub(crate) fn check_names(plugins: &[PluginConfig], report: &mut Report) {
    for (index, plugin) in plugins.iter().enumerate() {
        if plugins[..index].iter().any(|other| other.name == plugin.name && other.kind == plugin.kind) {
            let message = format!("`{}` is the name of another plugin of this kind, too: choose another", plugin.name);
            report.mistakes.push(plugin.mistake("name", message));
        }
    }
}

fn required(section: &mut Section, key: &'static str, what: &str, report: &mut Report) -> Option<String> {
    match section.field(key) {
        Some(field) => {
            let text = field.text(report)?;
            if text.is_empty() {
                report.mistake(&field.place, format!("must not be empty: write {what}"));
                return None;
            }
            Some(text)
        }
        None => {
            report.mistake(&section.place, format!("`{key}` is missing: add {what}"));
            None
        }
    }
}
