//! The rules that keep the rooms apart and the code readable. Each is a function from text to complaints, tried on a bad sample first.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::Command;

use syn::visit::Visit;

/// No file is longer: it would hold more than one idea.
const LINES: usize = 600;

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).ancestors().nth(2).unwrap().to_owned()
}

/// Tracked files, and untracked ones that git does not ignore.
fn files(extension: &str) -> Vec<(String, String)> {
    let arguments = ["ls-files", "--cached", "--others", "--exclude-standard"];
    let out = Command::new("git").current_dir(root()).args(arguments).output().unwrap();
    let names = String::from_utf8(out.stdout).unwrap();
    let wanted = names.lines().filter(|name| name.ends_with(extension) && root().join(name).is_file());
    let all: Vec<_> =
        wanted.filter_map(|name| Some((name.to_owned(), std::fs::read_to_string(root().join(name)).ok()?))).collect();
    assert!(!all.is_empty(), "no {extension} file found");
    all
}

fn nothing(complaints: Vec<String>) {
    assert!(complaints.is_empty(), "\n{}", complaints.join("\n"));
}

/// What a folder may name of ours (architecture §2), the first that a package lies in; `None` is everything. A new room needs a decision.
type Arrow = (&'static str, Option<&'static [&'static str]>);
const ARROWS: [Arrow; 15] = [
    ("host/agent", None),
    ("host/catalog", Some(&["identity", "sandbox"])),
    ("host/cluster", Some(&["identity"])),
    ("host/config", Some(&["identity"])),
    ("host/identity", Some(&[])),
    ("host/renewal", Some(&["identity"])),
    ("host/sandbox", Some(&["identity"])),
    ("host/storage", Some(&["identity"])),
    ("host/telemetry", Some(&["identity"])),
    ("host/tunnel", Some(&["cluster", "identity"])),
    ("plugins/sdk", Some(&[])),
    ("plugins", Some(&["tbot-sdk"])),
    ("examples", Some(&["tbot-sdk"])),
    ("tests", None),
    ("xtask", Some(&[])),
];
/// Crates that one room of the host keeps to itself.
const KEPT: [(&str, &str); 4] = [
    ("wasmtime", "host/sandbox"),
    ("tonic", "host/cluster"),
    ("serde-saphyr", "host/config"),
    ("cap-std", "host/storage"),
];

fn arrows(manifests: &[(String, String)]) -> Vec<String> {
    let parsed: Vec<(&str, toml::Table)> =
        manifests.iter().map(|(path, text)| (path.trim_end_matches("/Cargo.toml"), text.parse().unwrap())).collect();
    let name = |table: &toml::Table| Some(table.get("package")?.get("name")?.as_str()?.to_owned());
    let packages: BTreeMap<String, (&str, &toml::Table)> =
        parsed.iter().filter_map(|(folder, table)| Some((name(table)?, (*folder, table)))).collect();
    let mut complaints = Vec::new();
    for (package, (folder, table)) in packages.iter() {
        let arrow = ARROWS.iter().find(|(below, _)| Path::new(folder).starts_with(below));
        if arrow.is_none() {
            complaints.push(format!("{folder}: nothing says what it may name: decide, and add it to the arrows"));
        }
        let allowed = arrow.and_then(|(_, allowed)| *allowed);
        for named in dependencies(table).filter(|named| named != package) {
            let forbidden = allowed.is_some_and(|allowed| !allowed.contains(&named.as_str()));
            if packages.contains_key(&named) && forbidden {
                complaints.push(format!("{folder}: `{package}` may not name `{named}`"));
            }
            let keeper = KEPT.iter().find(|(kept, _)| named.starts_with(kept));
            if let Some((_, keeper)) = keeper.filter(|(_, keeper)| folder.starts_with("host/") && folder != keeper) {
                complaints.push(format!("{folder}: only {keeper} may name `{named}`"));
            }
        }
    }
    complaints
}

/// The packages that a manifest names, of every kind and for every platform, by their own names.
fn dependencies(manifest: &toml::Table) -> impl Iterator<Item = String> {
    let platforms = manifest.get("target").and_then(toml::Value::as_table).into_iter().flat_map(toml::Table::values);
    let tables = platforms.filter_map(toml::Value::as_table).chain([manifest]).flat_map(|table| {
        ["dependencies", "build-dependencies", "dev-dependencies"].map(|kind| table.get(kind)?.as_table())
    });
    tables
        .flatten()
        .flatten()
        .map(|(key, value)| value.get("package").and_then(toml::Value::as_str).unwrap_or(key).to_owned())
}

#[test]
fn arrows_point_where_the_architecture_lets_them() {
    let one = |folder: &str, dependencies: &str| {
        let storage = ("host/storage/Cargo.toml".to_owned(), "[package]\nname = \"storage\"".to_owned());
        let bad = (format!("{folder}/Cargo.toml"), format!("[package]\nname = \"subject\"\n{dependencies}"));
        arrows(&[storage, bad])
    };
    assert_eq!(
        one("host/cluster", "[dependencies]\nstorage.workspace = true"),
        ["host/cluster: `subject` may not name `storage`"]
    );
    for (folder, bad) in [
        ("host/cluster", "[dev-dependencies]\nstorage.workspace = true"),
        ("host/cluster", "[target.'cfg(unix)'.dependencies]\nstorage.workspace = true"),
        ("host/cluster", "[dependencies]\nother = { package = \"storage\", path = \"../storage\" }"),
        ("host/catalog", "[dependencies]\nwasmtime-wasi.workspace = true"),
        ("examples/plugins/x", "[dependencies]\nstorage.path = \"../../../host/storage\""),
        ("host/kitchen", ""),
    ] {
        assert_eq!(one(folder, bad).len(), 1, "{folder}: {bad}");
    }
    assert!(one("host/agent", "[dependencies]\nstorage.workspace = true").is_empty());
    nothing(arrows(&files("Cargo.toml")));
}

fn too_long(sources: &[(String, String)]) -> Vec<String> {
    let long = sources.iter().filter(|(_, text)| text.lines().count() > LINES);
    long.map(|(name, text)| format!("{name} has {} lines, at most {LINES} are allowed", text.lines().count())).collect()
}

#[test]
fn no_source_file_is_too_long() {
    assert_eq!(too_long(&[("x.rs".into(), "\n".repeat(LINES + 1))]).len(), 1);
    nothing(too_long(&files(".rs")));
    nothing(too_long(&files(".wit")));
}

/// What `syn` sees of one file: `unsafe`, and public items without a word.
#[derive(Default)]
struct Finder {
    undocumented: Vec<String>,
    unsafety: bool,
}

impl Finder {
    fn read(text: &str) -> Self {
        let mut finder = Self::default();
        finder.visit_file(&syn::parse_file(text).unwrap());
        finder
    }

    fn item(&mut self, visibility: &syn::Visibility, attributes: &[syn::Attribute], name: &dyn std::fmt::Display) {
        let public = matches!(visibility, syn::Visibility::Public(_));
        if public && !attributes.iter().any(|attribute| attribute.path().is_ident("doc")) {
            self.undocumented.push(name.to_string());
        }
    }
}

impl<'a> Visit<'a> for Finder {
    fn visit_item_mod(&mut self, item: &'a syn::ItemMod) {
        let test = item.attrs.iter().any(|attribute| attribute.path().is_ident("cfg"));
        if !test {
            syn::visit::visit_item_mod(self, item);
        }
    }

    fn visit_item_struct(&mut self, item: &'a syn::ItemStruct) {
        self.item(&item.vis, &item.attrs, &item.ident);
        if matches!(item.vis, syn::Visibility::Public(_)) {
            for field in &item.fields {
                if let Some(name) = &field.ident {
                    self.item(&field.vis, &field.attrs, name);
                }
            }
        }
    }

    fn visit_item_enum(&mut self, item: &'a syn::ItemEnum) {
        self.item(&item.vis, &item.attrs, &item.ident);
        for variant in &item.variants {
            self.item(&item.vis, &variant.attrs, &variant.ident);
        }
    }

    fn visit_item_trait(&mut self, item: &'a syn::ItemTrait) {
        self.item(&item.vis, &item.attrs, &item.ident);
        for member in &item.items {
            if let syn::TraitItem::Fn(function) = member {
                self.item(&item.vis, &function.attrs, &function.sig.ident);
            }
        }
        syn::visit::visit_item_trait(self, item);
    }

    fn visit_item_fn(&mut self, item: &'a syn::ItemFn) {
        self.item(&item.vis, &item.attrs, &item.sig.ident);
        self.unsafety |= item.sig.unsafety.is_some();
        syn::visit::visit_item_fn(self, item);
    }

    fn visit_impl_item_fn(&mut self, item: &'a syn::ImplItemFn) {
        self.item(&item.vis, &item.attrs, &item.sig.ident);
        self.unsafety |= item.sig.unsafety.is_some();
        syn::visit::visit_impl_item_fn(self, item);
    }

    fn visit_expr_unsafe(&mut self, item: &'a syn::ExprUnsafe) {
        self.unsafety = true;
        syn::visit::visit_expr_unsafe(self, item);
    }

    fn visit_item_impl(&mut self, item: &'a syn::ItemImpl) {
        self.unsafety |= item.unsafety.is_some();
        syn::visit::visit_item_impl(self, item);
    }
}

#[test]
fn every_public_item_has_a_doc_comment() {
    let bad = "pub struct A { pub b: u8 } /// d\npub enum C { D } impl A { pub fn e() {} } #[cfg(test)] mod t { pub fn f() {} }";
    assert_eq!(Finder::read(bad).undocumented, ["A", "b", "D", "e"]);
    let ours = files(".rs").into_iter().filter(|(name, _)| {
        (name.starts_with("host/") || name.starts_with("plugins/sdk/"))
            && !name.contains("/tests/")
            && !name.ends_with("build.rs")
    });
    nothing(
        ours.flat_map(|(name, text)| {
            Finder::read(&text).undocumented.into_iter().map(move |item| format!("{name}: {item}"))
        })
        .collect(),
    );
}

#[test]
fn unsafe_stays_in_the_sandbox() {
    assert!(Finder::read("fn a() { unsafe {} }").unsafety && Finder::read("unsafe fn a() {}").unsafety);
    let outside = files(".rs").into_iter().filter(|(name, _)| !name.starts_with("host/sandbox/"));
    nothing(
        outside.filter(|(_, text)| Finder::read(text).unsafety).map(|(name, _)| format!("{name} is unsafe")).collect(),
    );
}

/// The lines outside fenced code.
fn prose(text: &str) -> impl Iterator<Item = &str> {
    let mut code = false;
    text.lines().filter(move |line| {
        let fence = line.trim_start().starts_with("```");
        code ^= fence;
        !code && !fence
    })
}

/// The anchors of a text's headings, as they are shown on the web.
fn anchors(text: &str) -> Vec<String> {
    let titles = prose(text).filter_map(|line| line.strip_prefix('#')?.trim_start_matches('#').strip_prefix(' '));
    let kept = |c: &char| c.is_alphanumeric() || " -_".contains(*c);
    titles.map(|title| title.trim().chars().filter(kept).collect::<String>().to_lowercase().replace(' ', "-")).collect()
}

fn dead_links(name: &str, text: &str, read: &dyn Fn(&Path) -> Option<String>) -> Vec<String> {
    let folder = Path::new(name).parent().unwrap_or(Path::new(""));
    let plain = prose(text).map(|line| line.split('`').step_by(2).collect::<String>());
    let targets = plain.flat_map(|line| {
        let targets = line.split("](").skip(1).filter_map(|rest| rest.split([')', ' ']).next());
        targets.filter(|target| !target.contains("://")).map(str::to_owned).collect::<Vec<_>>()
    });
    let dead = targets.filter(|target| {
        let (path, anchor) = target.split_once('#').unwrap_or((target, ""));
        let path = if path.is_empty() { Path::new(name).to_owned() } else { folder.join(path) };
        let found = read(&path);
        !found.is_some_and(|text| anchor.is_empty() || anchors(&text).iter().any(|known| known == anchor))
    });
    dead.map(|target| format!("{name}: {target} leads nowhere")).collect()
}

#[test]
fn every_link_in_a_text_leads_somewhere() {
    let read = |path: &Path| (path == Path::new("a/../c")).then(|| "# One `thing`".to_owned());
    let links =
        "[x](y.md) [z](../c \"title\") [w](https://x) [v](../c#one-thing) [u](../c#two) `[t](s)`\n```\n[r](q)\n```";
    assert_eq!(dead_links("a/b.md", links, &read), ["a/b.md: y.md leads nowhere", "a/b.md: ../c#two leads nowhere"]);
    let read = |path: &Path| {
        let path = root().join(path);
        path.exists().then(|| std::fs::read_to_string(path).unwrap_or_default())
    };
    nothing(files(".md").iter().flat_map(|(name, text)| dead_links(name, text, &read)).collect());
}

fn out_of_place(names: &[&str]) -> Vec<String> {
    let entries = ["Cargo.toml", "Cargo.lock", "README.md", "LICENSE", "deny.toml", "rustfmt.toml", ".gitignore"];
    let folders = ["host", "plugins", "wit", "tests", "examples", "xtask", ".cargo", ".ci"];
    let odd = names.iter().filter(|name| match name.split_once('/') {
        Some((folder, _)) => !folders.contains(&folder),
        None => !entries.contains(name),
    });
    odd.map(|name| format!("{name} is out of place")).collect()
}

#[test]
fn the_top_level_holds_what_the_architecture_says() {
    assert_eq!(out_of_place(&["host/x.rs", "notes.md", ".env"]), ["notes.md is out of place", ".env is out of place"]);
    let files = files("");
    nothing(out_of_place(&files.iter().map(|(name, _)| name.as_str()).collect::<Vec<_>>()));
}

fn local_words(text: &str) -> Vec<String> {
    // Written apart, so that this file does not complain of itself.
    let words = [
        ["/wo", "rk/"],
        ["/tm", "p/lab"],
        ["/ro", "ot/"],
        ["static.rust", "-lang.org"],
        ["index.crates", ".io"],
        ["deb.debian", ".org"],
    ];
    words.map(|halves| halves.concat()).into_iter().filter(|word| text.contains(word.as_str())).collect()
}

/// Lines of a lock file that name another source than cargo's default registry, under the name it has wherever it is mirrored.
fn foreign_sources(lock: &str) -> Vec<String> {
    let default = "source = \"registry+https://github.com/rust-lang/crates.io-index\"";
    lock.lines().filter(|line| line.starts_with("source = ") && *line != default).map(str::to_owned).collect()
}

#[test]
fn packages_come_from_the_default_registry() {
    assert_eq!(foreign_sources("source = \"registry+https://mirror.example.com/index\"\nname = \"x\"").len(), 1);
    nothing(files("Cargo.lock").iter().flat_map(|(_, text)| foreign_sources(text)).collect());
}

#[test]
fn no_text_names_a_machine_or_a_registry_host() {
    assert_eq!(local_words(&["see /wo", "rk/x"].concat()).len(), 1);
    let ours = files("")
        .into_iter()
        .filter(|(name, _)| !name.starts_with("tests/recordings/") && !name.ends_with("Cargo.lock"));
    nothing(
        ours.flat_map(|(name, text)| local_words(&text).into_iter().map(move |word| format!("{name}: {word}")))
            .collect(),
    );
}
