//! What every plugin has to keep, whoever wrote it. A failure names the plugin, and the seed where chance was in play.

use std::time::{Duration, Instant};

use identity::{FailureKind, Material, PrivateKey, RelativePath, assemble};
use sandbox::Kind;
use tests_contract::{Loaded, Random, Subject, built_plugins, recorded_material};

/// A component of ours or of the Rust starter: serde and the SDK take about 120 KB of it, the ciphers of `pkcs12` as much again.
const COMPONENT_BYTES: usize = 288 << 10;
/// One rendering, with a new store: 0.1 ms measured, and a debug host on a busy machine takes longer.
const RENDER_TIME: Duration = Duration::from_millis(20);
/// Random configurations and materials for each plugin.
const ROUNDS: u64 = 50;

/// A configuration that each plugin of this tree accepts.
fn valid(subject: &Subject) -> &'static str {
    match subject.name.as_str() {
        "application" => r#"{"app_name": "grafana"}"#,
        "database" => r#"{"service": "example-server"}"#,
        "ssh_host" => r#"{"principals": ["node.example.com"]}"#,
        "pkcs12" => r#"{"password_variable": "KEY_STORE_PASSWORD"}"#,
        _ => "{}",
    }
}

fn key() -> PrivateKey {
    PrivateKey::generate(identity::KeyAlgorithm::EcdsaP256).unwrap()
}

async fn subjects() -> Vec<Subject> {
    built_plugins().await.unwrap_or_else(|e| panic!("{e:#}"))
}

#[tokio::test]
async fn the_built_in_plugins_and_the_starter_are_there() {
    let names: Vec<_> = subjects().await.into_iter().map(|subject| (subject.kind, subject.name)).collect();
    for wanted in [
        (Kind::Join, "token"),
        (Kind::Join, "azure"),
        (Kind::Join, "github"),
        (Kind::Output, "application"),
        (Kind::Output, "identity"),
        (Kind::Output, "database"),
        (Kind::Output, "ssh_host"),
        (Kind::Format, "tls"),
        (Kind::Format, "mongo"),
        (Kind::Format, "cockroach"),
        (Kind::Format, "ssh-client"),
        (Kind::Format, "pem-bundle"),
        (Kind::Format, "pkcs12"),
        (Kind::Format, "rust-properties"),
    ] {
        assert!(names.iter().any(|(kind, name)| (*kind, name.as_str()) == wanted), "{wanted:?} is not among {names:?}");
    }
}

#[tokio::test]
async fn a_manifest_names_its_plugin() {
    for subject in subjects().await {
        let full = format!("{}-{}", subject.kind.name(), subject.name);
        let package = subject.name.replace('-', "_");
        let one_of_several = !subject.manifest.contains_key("name");
        let named = [full, package].contains(&subject.stem) || one_of_several;
        assert!(named, "`{}` is the file of `{}`", subject.stem, subject.name);
        if let Loaded::Join(join) = &subject.loaded {
            assert_eq!(join.description().method, subject.name);
        }
    }
}

/// Does it need anything but computing? Then nothing can be had of it here, where nothing is granted.
fn asks(subject: &Subject) -> bool {
    subject.manifest.keys().any(|key| !["name", "kind"].contains(&key.as_str()))
}

/// Only join methods ask for anything of the machine, and one format for a password: it alone asks for the key itself.
#[tokio::test]
async fn imports_are_what_the_manifest_asks_for() {
    const FREE: [&str; 3] = ["tbot:types/types@0.1.0", "tbot:host/log@0.1.0", "tbot:format/material@0.1.0"];
    for subject in subjects().await {
        let asked: &[&str] = match (asks(&subject), subject.kind, subject.name.as_str()) {
            (false, ..) => &[],
            (true, Kind::Join, _) => &["tbot:host/clock@0.1.0", "tbot:host/input@0.1.0", "tbot:host/http@0.1.0"],
            (true, _, "pkcs12") => &["tbot:host/input@0.1.0", "tbot:host/private-key@0.1.0"],
            _ => panic!("`{}` asks for more than nothing", subject.name),
        };
        let wit_component::DecodedWasm::Component(resolve, world) = wit_component::decode(&subject.wasm).unwrap()
        else {
            panic!("`{}` is no component", subject.name);
        };
        for (import, _) in &resolve.worlds[world].imports {
            let import = resolve.name_world_key(import);
            let may = [&FREE, asked].concat().contains(&import.as_str());
            assert!(may, "`{}` imports `{import}`", subject.name);
        }
    }
}

#[tokio::test]
async fn what_is_planned_is_what_is_rendered_and_always_the_same() {
    let recorded = recorded_material().unwrap();
    let key = key();
    for subject in subjects().await.into_iter().filter(|subject| !asks(subject)) {
        for directory in [None, Some("/opt/machine-id/out")] {
            let material = Material { directory: directory.map(str::to_owned), ..recorded.clone() };
            let (name, config) = (&subject.name, valid(&subject));
            let planned = subject.loaded.plan(config, directory).await.unwrap();
            let rendered = subject.loaded.render(config, &material, &key).await.unwrap();
            assert_eq!(planned, rendered.iter().map(|file| file.path.clone()).collect::<Vec<_>>(), "{name}");
            assert!(planned.iter().all(|path| RelativePath::parse(path).is_ok()), "{name}: {planned:?}");
            assert_eq!(planned, subject.loaded.plan(config, directory).await.unwrap(), "{name}");
            assert_eq!(rendered, subject.loaded.render(config, &material, &key).await.unwrap(), "{name}");
            let pieces = rendered.iter().flat_map(|file| &file.pieces);
            let has_key = pieces.clone().any(|piece| matches!(piece, identity::Piece::PrivateKey(_)));
            assert!(has_key == (subject.kind == Kind::Output) || subject.kind == Kind::Format, "{name}");
            assemble(&planned, rendered, &key).unwrap();
        }
    }
}

#[tokio::test]
async fn garbage_for_a_configuration_is_the_operators_mistake() {
    let (material, private) = (recorded_material().unwrap(), key());
    for subject in subjects().await {
        for garbage in ["", "null", "[]", "7", "{", "\"x\"", "{\"a\":}", "\u{0}", "{} {}"] {
            let error = subject.loaded.render(garbage, &material, &private).await.unwrap_err();
            assert_eq!(error.kind, FailureKind::InvalidConfig, "{}: {garbage}: {error}", subject.name);
            if subject.kind != Kind::Join {
                let error = subject.loaded.plan(garbage, None).await.unwrap_err();
                assert_eq!(error.kind, FailureKind::InvalidConfig, "{}: {garbage}: {error}", subject.name);
            }
        }
        for key in subject.loaded.keys() {
            let config = format!(r#"{{"{key}": [["hunter2"]]}}"#);
            let error = match subject.kind {
                Kind::Join => subject.loaded.render(&config, &material, &private).await.unwrap_err(),
                _ => subject.loaded.plan(&config, None).await.unwrap_err(),
            };
            assert_eq!(error.kind, FailureKind::InvalidConfig, "{}: {error}", subject.name);
            assert!(error.message.contains(&format!("`{key}`")), "{}: {error} does not name `{key}`", subject.name);
            assert!(!error.message.contains("hunter2"), "{}: {error} quotes a value", subject.name);
        }
    }
}

/// Keys that a plugin does not know are the host's to report: it tolerates them where the original does.
#[tokio::test]
async fn an_unknown_key_changes_nothing() {
    for subject in subjects().await {
        let config = valid(&subject);
        let more = format!(r#"{{"{}": 1, {}"#, "no-such-key", &config[1..]).replace(", }", "}");
        let (plain, with) = (subject.loaded.plan(config, None).await, subject.loaded.plan(&more, None).await);
        assert_eq!(plain, with, "{}", subject.name);
    }
}

#[tokio::test]
async fn nothing_makes_it_trap() {
    let recorded = recorded_material().unwrap();
    for subject in subjects().await {
        let mut fitting = 0;
        for seed in 0..ROUNDS {
            let mut random = Random::new(seed);
            let config = random.config(subject.loaded.keys(), valid(&subject));
            let material = random.material(&recorded);
            let planned = subject.loaded.plan(&config, material.directory.as_deref()).await;
            let rendered = subject.loaded.render(&config, &material, &key()).await;
            let whose = format!("{}, seed {seed}", subject.name);
            for error in [planned.as_ref().err(), rendered.as_ref().err()].into_iter().flatten() {
                assert_ne!(error.kind, FailureKind::Plugin, "{whose}: {error}");
                assert!(!error.message.is_empty() && error.message.lines().count() == 1, "{whose}: {error}");
            }
            if let (Ok(planned), Ok(rendered)) = (planned, rendered) {
                fitting += 1;
                assert!(rendered.iter().map(|file| &file.path).eq(&planned), "{whose}: {planned:?}");
                assert!(planned.iter().all(|path| RelativePath::parse(path).is_ok()), "{whose}: {planned:?}");
            }
        }
        assert!(
            (1..ROUNDS).contains(&fitting) || asks(&subject) || subject.kind == Kind::Join,
            "`{}`: {fitting} fit",
            subject.name
        );
    }
}

#[tokio::test]
async fn it_is_small_and_fast() {
    let (material, key) = (recorded_material().unwrap(), key());
    for subject in subjects().await {
        assert!(subject.wasm.len() <= COMPONENT_BYTES, "`{}` has {} bytes", subject.name, subject.wasm.len());
        if asks(&subject) {
            continue;
        }
        let mut best = Duration::MAX;
        for _ in 0..10 {
            let start = Instant::now();
            subject.loaded.render(valid(&subject), &material, &key).await.unwrap();
            best = best.min(start.elapsed());
        }
        assert!(best <= RENDER_TIME, "`{}` took {best:?}", subject.name);
    }
}
