//! `plugin.toml`: what a plugin is called, and what it asks for.

use std::path::Path;

use identity::{Failure, FailureKind};
use sandbox::Rights;
use toml::{Table, Value};

/// What the manifest asks for where the plugin is used as `name`: a table of `methods` of that name, or what stands at the top.
///
/// # Errors
/// [`FailureKind::InvalidConfig`]: what is no manifest.
pub(crate) fn asks(text: &str, name: &str) -> Result<Rights, Failure> {
    let invalid = |e: &dyn std::fmt::Display| {
        Failure::new(FailureKind::InvalidConfig, format!("the plugin's manifest: {}", e.to_string().trim()))
    };
    let mut manifest: Table = text.parse().map_err(|e| invalid(&e))?;
    let mut methods =
        manifest.remove("methods").and_then(|methods| methods.try_into::<Table>().ok()).unwrap_or_default();
    let method = methods.remove(name).and_then(|method| method.try_into::<Table>().ok());
    let mut rights = method.unwrap_or(manifest);
    rights.retain(|key, _| !["name", "kind"].contains(&key));
    let rights: Rights = Value::Table(rights).try_into().map_err(|e: toml::de::Error| invalid(&e.message()))?;
    rights.check().map_err(|e| e.context("the plugin's manifest"))?;
    Ok(rights)
}

/// The manifest that lies beside a component, under its name with `.toml`. Without one a plugin asks for nothing.
///
/// # Errors
/// As [`asks`], and what cannot be read.
pub(crate) fn beside(component: &Path, name: &str) -> Result<Option<Rights>, Failure> {
    let path = component.with_extension("toml");
    match std::fs::read_to_string(&path) {
        Ok(text) => asks(&text, name).map(Some),
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => Ok(None),
        Err(e) => Err(Failure::new(FailureKind::InvalidConfig, format!("{}: {e}", path.display()))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_method_of_several_asks_for_its_own() {
        let text = "name = \"x\"\nkind = \"join\"\nfiles = [\"/a\"]\n[methods.one]\nenvironment = [\"ONE\"]\n";
        let one = asks(text, "one").unwrap();
        assert!(one.environment.contains("ONE") && one.files.is_empty());
        assert!(asks(text, "x").unwrap().files.contains("/a"));
        for wrong in ["name", "sockets = true", "http = [\"nonsense\"]", "[methods.one]\nsockets = true"] {
            assert_eq!(asks(wrong, "one").unwrap_err().kind, FailureKind::InvalidConfig, "{wrong}");
        }
    }
}
