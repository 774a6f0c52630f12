//! Guests that loop, trap, allocate, recurse, flood and lie. Each costs its own call, and the next one works.

use identity::{Failure, FailureKind, Format};
use sandbox::{CallError, Engine, FormatPlugin, Grants, Kind};
use wit_component::{ComponentEncoder, StringEncoding, embed_component_metadata};
use wit_parser::Resolve;

/// A format plugin whose `files` has this body; `describe` and `render` return nothing.
fn component(head: &str, files: &str) -> Vec<u8> {
    let text = format!(
        r#"(module
            {head}
            (func (export "cabi_realloc") (param i32 i32 i32 i32) (result i32) (i32.const 65536))
            (func (export "tbot:format/format@0.1.0#describe") (result i32) (i32.const 16))
            (func $files (export "tbot:format/format@0.1.0#files") (param i32 i32) (result i32) {files})
            (func (export "tbot:format/format@0.1.0#render") (param i32) (result i32) (i32.const 32)))"#
    );
    let mut module = wat::parse_str(text).unwrap();
    let wit = concat!(env!("CARGO_MANIFEST_DIR"), "/../../wit/deps");
    let mut resolve = Resolve::default();
    let mut world = None;
    for package in ["types", "host", "format"] {
        world = Some(resolve.push_path(format!("{wit}/{package}@0.1.0")).unwrap().0);
    }
    let world = resolve.select_world(&[world.unwrap()], Some("format-plugin")).unwrap();
    embed_component_metadata(&mut module, &resolve, world, StringEncoding::UTF8).unwrap();
    ComponentEncoder::default().validate(true).module(&module).unwrap().encode().unwrap()
}

const MEMORY: &str = r#"(memory (export "memory") 4)"#;
const FINE: &str = "(i32.const 16)";

async fn plugin(engine: &Engine, name: &str, wasm: &[u8]) -> Result<FormatPlugin, CallError> {
    let code = engine.compile(wasm).unwrap();
    FormatPlugin::new(engine.load_own_code(name, Kind::Format, &code, Grants::default())?).await
}

async fn files(engine: &Engine, head: &str, body: &str) -> Failure {
    plugin(engine, "hostile", &component(head, body)).await.unwrap().files("{}").await.unwrap_err()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn whatever_a_guest_does_costs_its_own_call_only() {
    let engine = Engine::new().unwrap();
    let good = plugin(&engine, "good", &component(MEMORY, FINE)).await.unwrap();
    let many = r#"(memory (export "memory") 1000)"#;
    // A list of six million strings that all lie in the same bytes: 48 MiB to look at, more to copy.
    let aliasing =
        "(i32.store (i32.const 36) (i32.const 0)) (i32.store (i32.const 40) (i32.const 6000000)) (i32.const 32)";
    // One string of 100 MiB, which the memory does not even hold.
    let huge = "(i32.store (i32.const 36) (i32.const 64)) (i32.store (i32.const 40) (i32.const 1))
        (i32.store (i32.const 64) (i32.const 0)) (i32.store (i32.const 68) (i32.const 104857600)) (i32.const 32)";
    let grow = "(loop $more (drop (memory.grow (i32.const 64))) (br $more)) (unreachable)";
    let recurse = "(call $files (local.get 0) (local.get 1))";
    for (what, head, body, words) in [
        ("loops", MEMORY, "(loop $again (br $again)) (unreachable)", "did not finish `files` within 2 s"),
        ("traps", MEMORY, "(unreachable)", "crashed in `files`"),
        ("allocates", MEMORY, grow, "wanted more than 64 MiB"),
        ("recurses", MEMORY, recurse, "crashed in `files`"),
        ("returns too much", many, aliasing, "returned more than 4 MiB"),
        ("returns 100 MiB", MEMORY, huge, "crashed in `files`"),
        ("lies about its result", MEMORY, "(i32.const -4)", "crashed in `files`"),
    ] {
        let failure = files(&engine, head, body).await;
        assert_eq!(failure.kind, FailureKind::Plugin, "{what}: {failure}");
        assert!(failure.message.contains(words) && failure.message.contains("plugin `hostile`"), "{what}: {failure}");
        assert!(good.files("{}").await.unwrap().is_empty(), "after one that {what}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn guests_that_loop_do_not_hold_up_another() {
    let engine = Engine::new().unwrap();
    let good = plugin(&engine, "good", &component(MEMORY, FINE)).await.unwrap();
    let looping = component(MEMORY, "(loop $again (br $again)) (unreachable)");
    let mut loops = Vec::new();
    for _ in 0..4 {
        let one = plugin(&engine, "hostile", &looping).await.unwrap();
        loops.push(tokio::spawn(async move { one.files("{}").await.unwrap_err() }));
    }
    tokio::time::sleep(std::time::Duration::from_millis(50)).await;
    let started = std::time::Instant::now();
    for _ in 0..10 {
        good.files("{}").await.unwrap();
    }
    assert!(started.elapsed().as_millis() < 1900, "ten calls took {:?} beside four that loop", started.elapsed());
    for one in loops {
        assert!(one.await.unwrap().message.contains("did not finish"));
    }
}

#[tokio::test]
async fn too_much_initial_memory_is_refused_when_the_guest_is_first_run() {
    let engine = Engine::new().unwrap();
    let greedy = component(r#"(memory (export "memory") 2000)"#, FINE);
    let refused = plugin(&engine, "greedy", &greedy).await.err().unwrap();
    assert!(matches!(refused, CallError::OutOfMemory { .. }), "{refused}");
}

#[tokio::test]
async fn a_flood_of_log_lines_is_cut_and_the_call_goes_on() {
    let engine = Engine::new().unwrap();
    let import = r#"(import "tbot:host/log@0.1.0" "write" (func $log (param i32 i32 i32)))"#;
    let body = "(local $n i32)
        (loop $more
            (call $log (i32.const 1) (i32.const 64) (i32.const 100))
            (br_if $more (i32.lt_u (local.tee $n (i32.add (local.get $n) (i32.const 1))) (i32.const 10000))))
        (i32.const 16)";
    let flooding = plugin(&engine, "flooding", &component(&format!("{import} {MEMORY}"), body)).await.unwrap();
    assert!(flooding.files("{}").await.unwrap().is_empty());
}

#[tokio::test]
async fn what_is_not_a_plugin_of_this_world_is_refused_with_a_reason() {
    let engine = Engine::new().unwrap();
    for (what, bytes) in [
        ("nothing", Vec::new()),
        ("garbage", b"\x7fELF not wasm".to_vec()),
        ("a core module", wat::parse_str("(module)").unwrap()),
        ("half a component", component(MEMORY, FINE)[..200].to_vec()),
    ] {
        let refused = engine.compile(&bytes).unwrap_err();
        assert_eq!(refused.kind, FailureKind::InvalidConfig, "{what}: {refused}");
    }
    let greedy = wat::parse_str(r#"(component (import "evil:sockets/raw@1.0.0" (instance)))"#).unwrap();
    let refused = plugin(&engine, "greedy", &greedy).await.err().unwrap();
    assert!(
        matches!(&refused, CallError::RefusedCapability { import, .. } if import == "evil:sockets/raw@1.0.0"),
        "{refused}"
    );
    let empty = wat::parse_str("(component)").unwrap();
    let refused = plugin(&engine, "empty", &empty).await.err().unwrap();
    assert!(refused.to_string().contains("does not export what a format plugin must"), "{refused}");
    let code = engine.compile(&component(MEMORY, FINE)).unwrap();
    assert!(engine.load_own_code("cut", Kind::Format, &code[..code.len() / 2], Grants::default()).is_err());
}
