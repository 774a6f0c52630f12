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

/// What each room may name (architecture §2). Tests may name everything.
fn allowed(package: &str) -> Option<&'static [&'static str]> {
    Some(match package {
        "identity" | "telemetry" | "tbot-sdk" | "xtask" => &[],
        "config" | "cluster" | "storage" | "sandbox" | "renewal" => &["identity"],
        "catalog" => &["identity", "sandbox"],
        plugin if plugin.starts_with("plugin-") || plugin.ends_with("-properties") => &["tbot-sdk"],
        _ => return None,
    })
}

fn arrows(manifests: &[(String, String)]) -> Vec<String> {
    let parsed: BTreeMap<String, toml::Table> = manifests
        .iter()
        .filter_map(|(_, text)| {
            let table: toml::Table = text.parse().unwrap();
            Some((table.get("package")?.get("name")?.as_str()?.to_owned(), table))
        })
        .collect();
    let mut complaints = Vec::new();
    for (package, table) in &parsed {
        let Some(allowed) = allowed(package) else { continue };
        for section in ["dependencies", "build-dependencies", "dev-dependencies"] {
            for name in
                table.get(section).and_then(|section| section.as_table()).into_iter().flat_map(|section| section.keys())
            {
                if parsed.contains_key(name) && !allowed.contains(&name.as_str()) {
                    complaints.push(format!("`{package}` may not name `{name}` ({section})"));
                }
            }
        }
    }
    complaints
}

#[test]
fn arrows_point_where_the_architecture_lets_them() {
    let bad = [("cluster", "storage"), ("storage", "")].map(|(name, on)| {
        let dependency = if on.is_empty() { String::new() } else { format!("[dependencies]\n{on}.workspace = true\n") };
        (String::new(), format!("[package]\nname = \"{name}\"\n{dependency}"))
    });
    assert_eq!(arrows(&bad), ["`cluster` may not name `storage` (dependencies)"]);
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

fn dead_links(name: &str, text: &str, exists: &dyn Fn(&Path) -> bool) -> Vec<String> {
    let folder = Path::new(name).parent().unwrap_or(Path::new(""));
    let targets = text.split("](").skip(1).filter_map(|rest| rest.split(')').next());
    let local = targets.filter(|target| !target.contains("://") && !target.starts_with('#') && !target.is_empty());
    let path = |target: &str| folder.join(target.split('#').next().unwrap_or_default());
    local.filter(|target| !exists(&path(target))).map(|target| format!("{name}: {target} leads nowhere")).collect()
}

#[test]
fn every_link_in_a_text_leads_somewhere() {
    assert_eq!(
        dead_links("a/b.md", "[x](y.md) [z](../c) [w](https://x)", &|path| path == Path::new("a/../c")).len(),
        1
    );
    nothing(
        files(".md")
            .iter()
            .flat_map(|(name, text)| dead_links(name, text, &|path| root().join(path).exists()))
            .collect(),
    );
}

#[test]
fn the_top_level_holds_what_the_architecture_says() {
    let entries = ["Cargo.toml", "Cargo.lock", "README.md", "LICENSE", "deny.toml", "rustfmt.toml", "clippy.toml"];
    let folders = ["host", "plugins", "wit", "tests", "examples", "xtask"];
    let names = files("").into_iter().map(|(name, _)| name.split('/').next().unwrap().to_owned());
    let odd = names.filter(|name| {
        !name.starts_with('.') && !entries.contains(&name.as_str()) && !folders.contains(&name.as_str())
    });
    nothing(odd.collect());
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
