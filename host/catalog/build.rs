//! Embeds what `cargo xtask plugins` has built: the table of bundled plugins is what lies in the folder.

use std::fmt::Write as _;
use std::path::PathBuf;
use std::{env, fs};

fn main() {
    let root = PathBuf::from(env::var_os("CARGO_MANIFEST_DIR").unwrap_or_default()).join("../..");
    let folder = env::var_os("TBOT_PLUGINS_DIR").map_or_else(|| root.join("target/plugins"), PathBuf::from);
    println!("cargo:rerun-if-env-changed=TBOT_PLUGINS_DIR");
    println!("cargo:rerun-if-changed={}", folder.display());
    let mut names: Vec<_> = fs::read_dir(&folder)
        .into_iter()
        .flatten()
        .filter_map(|entry| entry.ok()?.file_name().into_string().ok()?.strip_suffix(".cwasm").map(str::to_owned))
        .collect();
    names.sort();
    let mut table = String::from("&[\n");
    let mut statics = String::new();
    for stem in &names {
        let file = folder.join(format!("{stem}.cwasm"));
        println!("cargo:rerun-if-changed={}", file.display());
        let Some((kind, name)) = stem.split_once('-') else { continue };
        let kind = match kind {
            "join" => "Join",
            "output" => "Output",
            "format" => "Format",
            _ => continue,
        };
        let manifest = folder.join(format!("{stem}.toml"));
        println!("cargo:rerun-if-changed={}", manifest.display());
        let text = fs::read_to_string(&manifest).unwrap_or_default();
        let parsed: toml::Table = text.parse().unwrap_or_default();
        let methods = parsed.get("methods").and_then(toml::Value::as_table);
        let methods = methods.map_or_else(|| vec![name], |methods| methods.keys().map(String::as_str).collect());
        let path = file.canonicalize().unwrap_or(file);
        let code = format!("CODE_{}", stem.replace('-', "_").to_uppercase());
        let _ = writeln!(statics, "static {code}: &[u8] = include_bytes!({path:?});");
        for name in methods {
            let _ = writeln!(table, "(Kind::{kind}, {name:?}, {code}, {text:?}),");
        }
    }
    table.push(']');
    let table = format!("{{ {statics} {table} }}");
    if names.is_empty() {
        eprintln!("error: there are no bundled plugins to embed\nrun `cargo xtask plugins` first: it builds them");
        std::process::exit(1);
    }
    let out = PathBuf::from(env::var_os("OUT_DIR").unwrap_or_default()).join("bundled.rs");
    fs::write(out, table).unwrap_or_else(|e| panic!("the table of plugins cannot be written: {e}"));
}
