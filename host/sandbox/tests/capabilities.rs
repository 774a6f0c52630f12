//! What a join plugin may ask of the machine: what is granted to it by name, whole, and nothing else.

mod guest;

use std::collections::BTreeSet;
use std::path::Path;
use std::time::Duration;

use guest::{MEMORY, join};
use identity::{Attempt, Failure, FailureKind, JoinMethod, JoinProof};
use sandbox::{Engine, Grants, JoinPlugin, Kind, Rights};

/// Calls `prove` of a guest with this body, beside imports and the text `name` at address 1024.
async fn prove(import: &str, name: &str, body: &str, grants: Grants) -> Result<JoinProof, Failure> {
    let head = format!(r#"{import} {MEMORY} (data (i32.const 1024) "{name}")"#);
    let engine = Engine::new().unwrap();
    let code = engine.compile(&join(&head, body)).unwrap();
    let plugin = JoinPlugin::new(engine.load_own_code("curious", Kind::Join, &code, grants).unwrap()).await.unwrap();
    plugin.prove("{}", Attempt { token_name: String::new(), challenge: None }).await
}

/// The guest asks for an environment variable and hands it on as its token: both results have the same layout.
async fn environment(name: &str, grants: Grants) -> Result<JoinProof, Failure> {
    let import = r#"(import "tbot:host/input@0.1.0" "environment" (func $environment (param i32 i32 i32)))"#;
    let body =
        format!("(call $environment (i32.const 1024) (i32.const {}) (i32.const 512)) (i32.const 512)", name.len());
    prove(import, name, &body, grants).await
}

/// The guest reads a file and hands its text on as its token, an error as it is.
async fn file(path: &Path, grants: Grants) -> Result<JoinProof, Failure> {
    let path = path.to_str().unwrap();
    let import = r#"(import "tbot:host/input@0.1.0" "file" (func $file (param i32 i32 i32)))"#;
    let body = format!(
        "(call $file (i32.const 1024) (i32.const {}) (i32.const 512))
         (if (i32.load8_u (i32.const 512)) (then (return (i32.const 512))))
         (i32.store8 (i32.const 644) (i32.const 1))
         (i32.store (i32.const 648) (i32.load (i32.const 516)))
         (i32.store (i32.const 652) (i32.load (i32.const 520)))
         (i32.const 640)",
        path.len()
    );
    tokio::time::timeout(Duration::from_secs(20), prove(import, path, &body, grants)).await.expect("the host hangs")
}

fn may_read(path: &Path) -> Grants {
    let files = BTreeSet::from([path.to_str().unwrap().to_owned()]);
    Grants { asks: Rights { files, ..Rights::default() }, operator: None }
}

#[tokio::test]
async fn an_environment_variable_is_given_by_grant_only() {
    let refused = environment("CARGO_PKG_NAME", Grants::default()).await.unwrap_err();
    assert_eq!(refused.kind, FailureKind::Denied);
    assert!(
        refused.message.contains("`CARGO_PKG_NAME` is not asked for: add `CARGO_PKG_NAME` to `environment`"),
        "{refused}"
    );
    let names = ["CARGO_PKG_NAME", "NO_SUCH"].map(str::to_owned);
    let granted = Grants { asks: Rights { environment: names.into(), ..Rights::default() }, operator: None };
    let token = environment("CARGO_PKG_NAME", granted.clone()).await.unwrap();
    assert!(token == JoinProof::IdToken("sandbox".into()));
    assert!(environment("NO_SUCH", granted).await.unwrap() == JoinProof::Secret, "absent is not an error");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_file_is_given_whole_or_not_at_all() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("token");
    std::fs::write(&path, "x".repeat(64 << 10)).unwrap();
    let refused = file(&path, Grants::default()).await.unwrap_err();
    assert_eq!(refused.kind, FailureKind::Denied);
    assert!(refused.message.contains("is not asked for"), "{refused}");
    assert!(file(&path, may_read(&path)).await.unwrap() == JoinProof::IdToken("x".repeat(64 << 10)));

    std::fs::write(&path, "x".repeat((64 << 10) + 1)).unwrap();
    let refused = file(&path, may_read(&path)).await.unwrap_err();
    assert!(refused.message.contains("larger than 65536 bytes"), "cut instead of refused: {refused}");
    let refused = file(folder.path(), may_read(folder.path())).await.unwrap_err();
    assert!(refused.message.contains("not a regular file"), "{refused}");
    let absent = folder.path().join("absent");
    assert_eq!(file(&absent, may_read(&absent)).await.unwrap_err().kind, FailureKind::Unavailable);
}

/// Opening one without a writer waits for ever, out of reach of every deadline.
#[tokio::test(flavor = "multi_thread")]
async fn a_named_pipe_does_not_stop_the_host() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("pipe");
    rustix::fs::mknodat(rustix::fs::CWD, &path, rustix::fs::FileType::Fifo, 0o600.into(), 0).unwrap();
    let refused = file(&path, may_read(&path)).await.unwrap_err();
    assert!(refused.message.contains("not a regular file"), "{refused}");
}

/// The key is a piece that the host puts in place; asking for its bytes ends in a refusal, in every kind of plugin.
#[tokio::test]
async fn the_private_key_is_refused() {
    use identity::Format;
    let import = r#"(import "tbot:host/private-key@0.1.0" "pkcs8-der" (func $key (param i32)))"#;
    // An error of the import and one of `files` have the same layout.
    let body = "(call $key (i32.const 512)) (i32.const 512)";
    let guest = guest::format(&format!("{import} {MEMORY}"), body);
    let engine = Engine::new().unwrap();
    let refused = guest::plugin(&engine, "greedy", &guest).await.unwrap().files("{}", None).await.unwrap_err();
    assert_eq!(refused.kind, FailureKind::Denied);
    assert!(refused.message.contains("private key is not revealed"), "{refused}");
}
