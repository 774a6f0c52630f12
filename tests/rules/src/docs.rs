//! What is public says what it is.

use syn::spanned::Spanned;
use syn::{Attribute, Fields, ImplItem, Item, Meta, TraitItem, Type, Visibility};

use crate::{Findings, Repository};

const FOLDERS: [&str; 2] = ["host", "plugins/sdk"];

/// `pub` items without a doc comment in what others read: types, fields with names, variants, functions, methods, macros.
pub fn findings(repository: &Repository) -> Findings {
    let sources = repository.rust(&FOLDERS).filter(|(path, _)| path.contains("/src/"));
    let begins_with_docs = |path: &str| repository.text(path).is_some_and(|text| text.starts_with("//!"));
    sources.flat_map(|(path, text)| in_file(path, &text, &begins_with_docs)).collect()
}

fn in_file(path: &str, text: &str, begins_with_docs: &dyn Fn(&str) -> bool) -> Findings {
    match syn::parse_file(text) {
        Ok(file) => {
            let mut search = Search { path, begins_with_docs, findings: Findings::new() };
            search.items(&file.items);
            search.findings
        }
        Err(e) => vec![format!("{path}:{}: {e}", e.span().start().line)],
    }
}

struct Search<'a> {
    path: &'a str,
    /// Does the file of a module say at its top what it is?
    begins_with_docs: &'a dyn Fn(&str) -> bool,
    findings: Findings,
}

impl Search<'_> {
    fn items(&mut self, items: &[Item]) {
        let public: Vec<String> = items.iter().filter_map(public_type).collect();
        for item in items {
            self.item(item, &public);
        }
    }

    fn item(&mut self, item: &Item, public: &[String]) {
        match item {
            Item::Const(it) => self.want(&it.vis, &it.attrs, &it.ident),
            Item::Fn(it) => self.want(&it.vis, &it.attrs, &it.sig.ident),
            Item::Static(it) => self.want(&it.vis, &it.attrs, &it.ident),
            Item::Type(it) => self.want(&it.vis, &it.attrs, &it.ident),
            Item::Struct(it) => {
                self.want(&it.vis, &it.attrs, &it.ident);
                if is_public(&it.vis) {
                    self.fields(&it.fields, false);
                }
            }
            Item::Enum(it) if is_public(&it.vis) => {
                self.want(&it.vis, &it.attrs, &it.ident);
                for variant in &it.variants {
                    self.always(&variant.attrs, &variant.ident);
                    self.fields(&variant.fields, true);
                }
            }
            Item::Trait(it) if is_public(&it.vis) => {
                self.want(&it.vis, &it.attrs, &it.ident);
                for member in &it.items {
                    match member {
                        TraitItem::Const(it) => self.always(&it.attrs, &it.ident),
                        TraitItem::Fn(it) => self.always(&it.attrs, &it.sig.ident),
                        TraitItem::Type(it) => self.always(&it.attrs, &it.ident),
                        _ => {}
                    }
                }
            }
            Item::Impl(it)
                if it.trait_.is_none() && type_name(&it.self_ty).is_some_and(|name| public.contains(&name)) =>
            {
                for member in &it.items {
                    match member {
                        ImplItem::Const(it) => self.want(&it.vis, &it.attrs, &it.ident),
                        ImplItem::Fn(it) => self.want(&it.vis, &it.attrs, &it.sig.ident),
                        _ => {}
                    }
                }
            }
            Item::Macro(it) if has(&it.attrs, "macro_export") => {
                if let Some(name) = &it.ident {
                    self.always(&it.attrs, name);
                }
            }
            Item::Mod(it) if !is_test(&it.attrs) => self.module(it),
            _ => {}
        }
    }

    fn module(&mut self, module: &syn::ItemMod) {
        match &module.content {
            Some((_, items)) => {
                self.want(&module.vis, &module.attrs, &module.ident);
                self.items(items);
            }
            None => {
                let folder = module_folder(self.path);
                let files = ["", "/mod"].map(|end| format!("{folder}/{}{end}.rs", module.ident));
                if !files.iter().any(|file| (self.begins_with_docs)(file)) {
                    self.want(&module.vis, &module.attrs, &module.ident);
                }
            }
        }
    }

    /// Fields of variants are public with their enum; those without a name are told about by what they stand in.
    fn fields(&mut self, fields: &Fields, of_variant: bool) {
        for field in fields {
            if let Some(name) = field.ident.as_ref().filter(|_| of_variant || is_public(&field.vis)) {
                self.always(&field.attrs, name);
            }
        }
    }

    fn want(&mut self, visibility: &Visibility, attributes: &[Attribute], name: &syn::Ident) {
        if is_public(visibility) {
            self.always(attributes, name);
        }
    }

    fn always(&mut self, attributes: &[Attribute], name: &syn::Ident) {
        if !has(attributes, "doc") && !is_test(attributes) {
            let line = name.span().start().line;
            self.findings.push(format!("{}:{line}: `{name}` is public and has no doc comment", self.path));
        }
    }
}

fn is_public(visibility: &Visibility) -> bool {
    matches!(visibility, Visibility::Public(_))
}

/// `Some` for a type that other crates may see.
fn public_type(item: &Item) -> Option<String> {
    let (visibility, name) = match item {
        Item::Struct(it) => (&it.vis, &it.ident),
        Item::Enum(it) => (&it.vis, &it.ident),
        Item::Union(it) => (&it.vis, &it.ident),
        _ => return None,
    };
    is_public(visibility).then(|| name.to_string())
}

fn type_name(of: &Type) -> Option<String> {
    match of {
        Type::Path(path) => path.path.segments.last().map(|segment| segment.ident.to_string()),
        _ => None,
    }
}

fn has(attributes: &[Attribute], name: &str) -> bool {
    attributes.iter().any(|attribute| attribute.path().is_ident(name))
}

fn is_test(attributes: &[Attribute]) -> bool {
    let test = |meta: &Meta| matches!(meta, Meta::List(list) if list.path.is_ident("cfg") && list.tokens.to_string() == "test");
    attributes.iter().any(|attribute| test(&attribute.meta))
}

/// Where the modules that a file declares lie: beside a root or `mod.rs`, else in a folder of its name.
fn module_folder(path: &str) -> String {
    let (folder, name) = path.rsplit_once('/').unwrap_or(("", path));
    match name {
        "lib.rs" | "main.rs" | "mod.rs" => folder.to_owned(),
        _ => path.trim_end_matches(".rs").to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn judge(text: &str) -> Findings {
        in_file("host/x/src/lib.rs", text, &|path| path == "host/x/src/told.rs")
    }

    #[test]
    fn each_kind_of_undocumented_item_is_found() {
        for bad in [
            "pub fn a() {}",
            "pub const A: u8 = 1;",
            "pub type A = u8;",
            "pub struct A;",
            "/// A.\npub struct A { pub b: u8 }",
            "pub enum A {}",
            "/// A.\npub enum A { B }",
            "/// A.\npub enum A { /** B. */ B { c: u8 } }",
            "pub trait A {}",
            "/// A.\npub trait A { fn b(); }",
            "/// A.\npub struct A;\nimpl A { pub fn b() {} }",
            "#[macro_export]\nmacro_rules! a { () => {} }",
            "pub mod silent;",
            "/// A.\npub mod a { pub fn b() {} }",
            "mod a { pub fn b() {} }",
        ] {
            assert_eq!(judge(bad).len(), 1, "{bad}");
        }
        assert_eq!(judge("fn broken(").len(), 1);
    }

    #[test]
    fn what_is_documented_private_or_a_test_passes() {
        for good in [
            "/// A.\npub fn a() {}",
            "fn a() {}",
            "pub(crate) fn a() {}",
            "/// A.\npub struct A(pub u8);",
            "/// A.\npub struct A { b: u8 }",
            "struct A { pub b: u8 }\nimpl A { pub fn c() {} }",
            "/// A.\npub struct A;\nimpl Clone for A { fn clone(&self) -> A { A } }",
            "#[cfg(test)]\nmod tests { pub fn a() {} }",
            "pub mod told;",
            "pub use a::B;",
        ] {
            assert!(judge(good).is_empty(), "{good}");
        }
    }
}
