//! Guests written as WAT, wrapped as components of their world.
#![allow(dead_code, reason = "each test file is a program of its own and uses a part")]

use sandbox::{CallError, Engine, FormatPlugin, Grants, Kind};
use wit_component::{ComponentEncoder, StringEncoding, embed_component_metadata};
use wit_parser::Resolve;

/// The memory that most guests need: what the host hands in lies from 64 KiB on.
pub const MEMORY: &str = r#"(memory (export "memory") 4)"#;
/// The body of `files` that returns an empty list.
pub const FINE: &str = "(i32.const 16)";

/// A format plugin whose `files` has this body; `describe` and `render` return nothing.
pub fn format(head: &str, files: &str) -> Vec<u8> {
    let exports = format!(
        r#"(func (export "tbot:format/format@0.1.0#describe") (result i32) (i32.const 16))
           (func $files (export "tbot:format/format@0.1.0#files") (param i32 i32 i32 i32 i32) (result i32) {files})
           (func (export "tbot:format/format@0.1.0#render") (param i32) (result i32) (i32.const 32))"#
    );
    component("format", "world guest { include tbot:format/format-plugin@0.1.0; }", head, &exports)
}

/// A join plugin whose `prove` has this body; `describe` returns empty values.
pub fn join(head: &str, prove: &str) -> Vec<u8> {
    let exports = format!(
        r#"(func (export "tbot:join/method@0.1.0#describe") (param i32 i32) (result i32) (i32.const 16))
           (func (export "tbot:join/method@0.1.0#prove") (param i32 i32 i32 i32 i32 i32 i32 i32 i32) (result i32) {prove})"#
    );
    component("join", "world guest { include tbot:join/join-plugin@0.1.0; }", head, &exports)
}

/// A component of the world `guest` that `wit` spells out, `package` being the newest of ours that it names.
pub fn component(package: &str, wit: &str, head: &str, exports: &str) -> Vec<u8> {
    let realloc = r#"(func (export "cabi_realloc") (param i32 i32 i32 i32) (result i32) (i32.const 65536))"#;
    let mut module = wat::parse_str(format!("(module {head} {realloc} {exports})")).unwrap();
    let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/../../wit/deps");
    let mut resolve = Resolve::default();
    for package in ["types", "host", package] {
        resolve.push_path(format!("{folder}/{package}@0.1.0")).unwrap();
    }
    let own = resolve.push_str("guest.wit", &format!("package test:guest;\n{wit}")).unwrap();
    let world = resolve.select_world(&[own], Some("guest")).unwrap();
    embed_component_metadata(&mut module, &resolve, world, StringEncoding::UTF8).unwrap();
    ComponentEncoder::default().validate(true).module(&module).unwrap().encode().unwrap()
}

/// Compiles and loads a format plugin that is granted nothing.
pub async fn plugin(engine: &Engine, name: &str, wasm: &[u8]) -> Result<FormatPlugin, CallError> {
    let code = engine.compile(wasm).unwrap();
    FormatPlugin::new(engine.load_own_code(name, Kind::Format, &code, Grants::default())?).await
}
