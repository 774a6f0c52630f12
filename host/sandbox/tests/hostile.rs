//! Guests that loop, trap, allocate, recurse, flood and lie. Each costs its own call, and the next one works.

mod guest;

use std::sync::Arc;

use guest::{FINE, MEMORY, format as component, plugin};
use identity::{Failure, FailureKind, Format};
use sandbox::{CallError, Engine, Grants, Kind};

async fn files(engine: &Engine, head: &str, body: &str) -> Failure {
    plugin(engine, "hostile", &component(head, body)).await.unwrap().files("{}", None).await.unwrap_err()
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
    let recurse = "(call $files (local.get 0) (local.get 1) (local.get 2) (local.get 3) (local.get 4))";
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
        assert!(good.files("{}", None).await.unwrap().is_empty(), "after one that {what}");
    }
}

/// What runs before and behind an exported function is in the same bounds.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_guest_that_misbehaves_around_its_functions_costs_its_own_call_only() {
    let engine = Engine::new().unwrap();
    let good = plugin(&engine, "good", &component(MEMORY, FINE)).await.unwrap();
    let forever = "(loop $again (br $again))";
    let start = format!("{MEMORY} (func $start {forever}) (start $start)");
    let refused = plugin(&engine, "hostile", &component(&start, FINE)).await.err().unwrap();
    assert!(refused.to_string().contains("did not finish `describe` within 2 s"), "{refused}");
    let behind = |body: &str| {
        format!(r#"{MEMORY} (func (export "cabi_post_tbot:format/format@0.1.0#files") (param i32) {body})"#)
    };
    // Two strings, the second of which is no UTF-8.
    let text = r#"(memory (export "memory") 4) (data (i32.const 64) "\80\00\00\00\01\00\00\00\80\00\00\00\02\00\00\00") (data (i32.const 128) "a\ff")"#;
    let list = "(i32.store (i32.const 36) (i32.const 64)) (i32.store (i32.const 40) (i32.const 2)) (i32.const 32)";
    let tail = "(return_call $files (local.get 0) (local.get 1) (local.get 2) (local.get 3) (local.get 4))";
    for (what, head, body, words) in [
        ("traps behind the result", behind("unreachable"), FINE, "crashed in `files`"),
        ("loops behind the result", behind(forever), FINE, "did not finish `files`"),
        ("calls itself without a stack", MEMORY.into(), tail, "did not finish `files`"),
        ("says what is no text", text.into(), list, "crashed in `files`"),
    ] {
        let failure = files(&engine, &head, body).await;
        assert!(failure.message.contains(words) && failure.message.contains("plugin `hostile`"), "{what}: {failure}");
        assert!(good.files("{}", None).await.unwrap().is_empty(), "after one that {what}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn guests_that_loop_do_not_hold_up_another() {
    let engine = Engine::new().unwrap();
    let good = plugin(&engine, "good", &component(MEMORY, FINE)).await.unwrap();
    let looping = component(MEMORY, "(loop $again (br $again)) (unreachable)");
    let mut hostile = Vec::new();
    for _ in 0..4 {
        hostile.push(Arc::new(plugin(&engine, "hostile", &looping).await.unwrap()));
    }
    // A machine with other work may take two seconds for nothing: once in five rounds is enough, where a loop that holds up another does in all.
    for round in 1.. {
        let looped = hostile.iter().cloned().map(|one| async move { one.files("{}", None).await.unwrap_err() });
        let loops: Vec<_> = looped.map(tokio::spawn).collect();
        tokio::time::sleep(std::time::Duration::from_millis(50)).await;
        good.files("{}", None).await.unwrap();
        let meanwhile = loops.iter().all(|one| !one.is_finished());
        for one in loops {
            assert!(one.await.unwrap().message.contains("did not finish"));
        }
        if meanwhile {
            break;
        }
        assert!(round < 5, "a call has to wait until one of four that loop is stopped");
    }
}

#[tokio::test]
async fn too_much_initial_memory_is_refused_when_the_guest_is_first_run() {
    let engine = Engine::new().unwrap();
    for (what, head) in [
        ("one memory", r#"(memory (export "memory") 2000)"#),
        ("two memories, each within the limit", r#"(memory (export "memory") 640) (memory 640)"#),
        (
            "two tables, each within the limit",
            r#"(memory (export "memory") 4) (table 15000 funcref) (table 15000 funcref)"#,
        ),
    ] {
        let refused = plugin(&engine, "greedy", &component(head, FINE)).await.err();
        assert!(matches!(refused, Some(CallError::OutOfMemory { .. })), "{what}: {refused:?}");
    }
}

#[tokio::test]
async fn memory_that_grows_in_many_places_is_counted_as_one() {
    let engine = Engine::new().unwrap();
    let head = r#"(memory (export "memory") 4) (memory $second 1)"#;
    let grow = "(loop $more (drop (memory.grow (i32.const 16))) (drop (memory.grow $second (i32.const 16)))
        (br_if $more (i32.lt_u (memory.size) (i32.const 600)))) (i32.const 16)";
    let failure = files(&engine, head, grow).await;
    assert!(failure.message.contains("wanted more than 64 MiB"), "{failure}");
}

/// A guest may find out that its own maximum is reached: that is no fault.
#[tokio::test]
async fn growing_past_the_guests_own_maximum_fails_inside_the_guest() {
    let engine = Engine::new().unwrap();
    let modest = component(
        r#"(memory (export "memory") 4 8)"#,
        "(if (i32.ne (memory.grow (i32.const 16)) (i32.const -1)) (then unreachable)) (i32.const 16)",
    );
    let modest = plugin(&engine, "modest", &modest).await.unwrap();
    assert!(modest.files("{}", None).await.unwrap().is_empty());
}

#[tokio::test]
async fn what_is_not_a_plugin_of_this_world_is_refused_with_a_reason() {
    let engine = Engine::new().unwrap();
    for (what, bytes) in [
        ("nothing", Vec::new()),
        ("garbage", b"not wasm at all".to_vec()),
        ("machine code", engine.compile(&component(MEMORY, FINE)).unwrap()),
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
    for (export, words) in [
        ("tbot:join/method@0.1.0", "it is a join plugin: set `kind: join`"),
        (
            "tbot:format/format@0.2.0",
            "it exports `tbot:format/format@0.2.0`, and this program knows `tbot:format/format@0.1.0`",
        ),
    ] {
        let other = format!("(component (instance $i) (export \"{export}\" (instance $i)))");
        let refused = plugin(&engine, "other", &wat::parse_str(&other).unwrap()).await.err().unwrap();
        assert!(refused.to_string().contains(words), "{refused}");
    }
    let code = engine.compile(&component(MEMORY, FINE)).unwrap();
    assert!(engine.load_own_code("cut", Kind::Format, &code[..code.len() / 2], Grants::default()).is_err());
}
