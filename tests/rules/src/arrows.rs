//! Who may name whom: the manifests are the arrows.

use std::collections::{BTreeMap, BTreeSet};

use toml::{Table, Value};

use crate::{Findings, Repository};

/// What a folder may name of ours.
enum Allowed {
    Everything,
    Only(&'static [&'static str]),
}

/// The first folder that a package lies in decides. An arrow that is not here needs a decision, not an entry.
const ARROWS: [(&str, Allowed); 13] = [
    ("host/agent", Allowed::Everything),
    ("host/catalog", Allowed::Only(&["identity", "sandbox"])),
    ("host/cluster", Allowed::Only(&["identity"])),
    ("host/config", Allowed::Only(&["identity"])),
    ("host/identity", Allowed::Only(&[])),
    ("host/renewal", Allowed::Only(&["identity"])),
    ("host/sandbox", Allowed::Only(&["identity"])),
    ("host/storage", Allowed::Only(&["identity"])),
    ("host/telemetry", Allowed::Only(&[])),
    ("plugins/sdk", Allowed::Only(&[])),
    ("plugins", Allowed::Only(&["tbot-sdk"])),
    ("tests", Allowed::Everything),
    ("xtask", Allowed::Only(&[])),
];
/// A third party's plugin knows what is published.
const EXAMPLES: (&str, Allowed) = ("examples", Allowed::Only(&["tbot-sdk"]));
/// Crates that only one room of the host knows: the beginning of their names, and the room.
const ROOMS: [(&str, &str); 6] = [
    ("wasmtime", "host/sandbox"),
    ("tonic", "host/cluster"),
    ("prost", "host/cluster"),
    ("serde-saphyr", "host/config"),
    ("cap-std", "host/storage"),
    ("clap", "host/agent"),
];

/// Dependencies, of any kind, that the architecture does not allow.
pub fn findings(repository: &Repository) -> Findings {
    let manifests = repository.files().filter(|path| path.ends_with("/Cargo.toml"));
    let manifests: Vec<_> = manifests.filter_map(|path| Some((path, repository.text(path)?))).collect();
    let manifests: Vec<_> = manifests.iter().map(|(path, text)| (*path, text.as_str())).collect();
    judge(&manifests)
}

fn judge(manifests: &[(&str, &str)]) -> Findings {
    let mut findings = Findings::new();
    let mut packages: BTreeMap<String, (&str, Table)> = BTreeMap::new();
    for (path, text) in manifests {
        let folder = path.strip_suffix("/Cargo.toml").unwrap_or(path);
        match text.parse::<Table>() {
            Ok(manifest) => match name(&manifest) {
                Some(name) => drop(packages.insert(name.to_owned(), (folder, manifest))),
                None => findings.push(format!("{path}: names no package")),
            },
            Err(e) => findings.push(format!("{path}: {e}")),
        }
    }
    for (name, (folder, manifest)) in &packages {
        let dependencies = dependencies(manifest);
        let ours = dependencies.iter().filter(|dependency| packages.contains_key(*dependency) && *dependency != name);
        match ARROWS.iter().chain([&EXAMPLES]).find(|(below, _)| is_below(folder, below)) {
            None => findings.push(format!("{folder}: no rule says what it may name: decide, and add it to the arrows")),
            Some((_, Allowed::Everything)) => {}
            Some((_, Allowed::Only(allowed))) => {
                let forbidden = ours.filter(|dependency| !allowed.contains(&dependency.as_str()));
                findings.extend(forbidden.map(|to| format!("{folder}/Cargo.toml: `{name}` may not name `{to}`")));
            }
        }
        for (crates, room) in ROOMS.iter().filter(|(_, room)| folder.starts_with("host/") && folder != room) {
            let foreign = dependencies.iter().filter(|dependency| dependency.starts_with(crates));
            findings.extend(foreign.map(|to| format!("{folder}/Cargo.toml: only `{room}` may know `{to}`")));
        }
    }
    findings
}

fn name(manifest: &Table) -> Option<&str> {
    manifest.get("package")?.get("name")?.as_str()
}

/// The packages behind all dependency tables, those of single platforms too.
fn dependencies(manifest: &Table) -> BTreeSet<String> {
    let platforms = manifest.get("target").and_then(Value::as_table);
    let platforms = platforms.into_iter().flat_map(|targets| targets.values().filter_map(Value::as_table));
    let tables = [manifest].into_iter().chain(platforms).flat_map(|table| {
        let kinds = ["dependencies", "dev-dependencies", "build-dependencies"];
        kinds.into_iter().filter_map(|kind| table.get(kind)?.as_table())
    });
    let package =
        |(key, value): (&String, &Value)| value.get("package").and_then(Value::as_str).unwrap_or(key).to_owned();
    tables.flat_map(|table| table.iter().map(package).collect::<Vec<_>>()).collect()
}

fn is_below(folder: &str, ancestor: &str) -> bool {
    folder.strip_prefix(ancestor).is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn package(name: &str, dependencies: &str) -> String {
        format!("[package]\nname = \"{name}\"\n{dependencies}")
    }

    /// The findings on one package at `folder`, beside `identity`, `storage` and the SDK.
    fn one(folder: &str, dependencies: &str) -> Findings {
        let path = format!("{folder}/Cargo.toml");
        let [identity, storage, sdk] = ["identity", "storage", "tbot-sdk"].map(|name| package(name, ""));
        let mut manifests = vec![
            ("host/identity/Cargo.toml", identity.as_str()),
            ("host/storage/Cargo.toml", &storage),
            ("plugins/sdk/Cargo.toml", &sdk),
        ];
        let subject = package("subject", dependencies);
        manifests.push((&path, &subject));
        judge(&manifests)
    }

    #[test]
    fn a_forbidden_arrow_is_found() {
        assert!(one("host/cluster", "[dependencies]\nidentity.workspace = true").is_empty());
        assert!(one("host/agent", "[dependencies]\nstorage.workspace = true").is_empty());
        assert!(one("plugins/join/token", "[dependencies]\ntbot-sdk.workspace = true").is_empty());
        for (folder, dependencies) in [
            ("host/cluster", "[dependencies]\nstorage.workspace = true"),
            ("host/cluster", "[dev-dependencies]\nstorage.workspace = true"),
            ("host/cluster", "[target.'cfg(unix)'.dependencies]\nstorage.workspace = true"),
            ("host/cluster", "[dependencies]\nrenamed = { package = \"storage\", path = \"../storage\" }"),
            ("host/telemetry", "[dependencies]\nidentity.workspace = true"),
            ("plugins/output/x", "[dependencies]\nidentity.workspace = true"),
            ("examples/plugins/x", "[dependencies]\nidentity = { path = \"../../../host/identity\" }"),
            ("xtask", "[build-dependencies]\nidentity.workspace = true"),
        ] {
            assert_eq!(one(folder, dependencies).len(), 1, "{folder}: {dependencies}");
        }
    }

    #[test]
    fn a_room_keeps_its_crates_and_a_new_room_needs_a_rule() {
        assert!(one("host/sandbox", "[dependencies]\nwasmtime-wasi.workspace = true").is_empty());
        assert_eq!(one("host/catalog", "[dependencies]\nwasmtime-wasi.workspace = true").len(), 1);
        assert_eq!(one("host/kitchen", "").len(), 1);
    }
}
