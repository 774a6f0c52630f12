//! What is printed reads back equal.

use std::path::{Path, PathBuf};

use config::{Config, Flags, parse};
use proptest::prelude::*;
use serde_json::{Map, Value, json};

const NAME: &str = "printed.yaml";

fn read(text: &str) -> Result<Config, String> {
    let config = parse(Some((Path::new(NAME), text.as_bytes())), &Flags::default(), &|_| None);
    // Lines of warnings differ, and an old schema is warned of only once.
    let mut config = config.map_err(|mistakes| mistakes.to_string())?;
    config.warnings.clear();
    Ok(config)
}

fn assert_reads_back(text: &str) {
    let config = read(text).unwrap_or_else(|mistakes| panic!("{text}\n{mistakes}"));
    let printed = config.to_yaml();
    let again = read(&printed).unwrap_or_else(|mistakes| panic!("{printed}\n{mistakes}"));
    assert_eq!(again, config, "{printed}");
    assert_eq!(again.to_yaml(), printed);
}

fn files(folder: &str, found: &mut Vec<PathBuf>) {
    for entry in std::fs::read_dir(Path::new(env!("CARGO_MANIFEST_DIR")).join("../..").join(folder)).unwrap() {
        let path = entry.unwrap().path();
        let path = if path.is_dir() { path.join("tbot.yaml") } else { path };
        found.extend(Some(path).filter(|path| path.extension().is_some_and(|end| end == "yaml") && path.is_file()));
    }
}

#[test]
fn every_example_and_every_recorded_configuration() {
    let mut found = Vec::new();
    for folder in ["examples/configs", "tests/recordings/v15/runs", "tests/recordings/v12/runs"] {
        files(folder, &mut found);
    }
    assert!(found.len() >= 20, "{found:?}");
    for path in found {
        assert_reads_back(&std::fs::read_to_string(path).unwrap());
    }
}

/// Text that YAML likes to take for something else, and any other.
fn text() -> impl Strategy<Value = String> {
    const AWKWARD: &[&str] = &[
        "off",
        "yes",
        "null",
        "~",
        "0123",
        "1e3",
        "0x1f",
        "1:30",
        "2001-01-01",
        "- a",
        "a: b",
        "a #b",
        "#a",
        "'",
        "\"",
        "\\",
        "{",
        "*a",
        "&a",
        "!a",
        "%a",
        "@a",
        " a",
        "a ",
        "a\nb",
        "a\n",
        "\n",
        "\ta",
        "<<",
        "=",
        ".inf",
        "---",
        "ü\u{1f600}",
        "\u{feff}",
        "\u{85}",
        "\u{7f}",
    ];
    prop_oneof![proptest::sample::select(AWKWARD).prop_map(str::to_owned), "[a-z]{1,12}", "[^\\x00]{1,40}"]
}

/// Any value that a plugin may be given.
fn value() -> impl Strategy<Value = Value> {
    let leaf = prop_oneof![
        text().prop_map(Value::from),
        any::<bool>().prop_map(Value::from),
        any::<i32>().prop_map(Value::from)
    ];
    leaf.prop_recursive(3, 12, 4, |inner| {
        prop_oneof![
            proptest::collection::vec(inner.clone(), 0..4).prop_map(Value::from),
            proptest::collection::vec(("[a-z_]{1,8}", inner), 0..4)
                .prop_map(|entries| Value::Object(Map::from_iter(entries))),
        ]
    })
}

fn destination() -> impl Strategy<Value = Value> {
    let reader = prop_oneof![
        text().prop_map(|user| json!({ "user": user })),
        text().prop_map(|group| json!({ "group": group }))
    ];
    let modes = (
        proptest::sample::select(&["insecure", "try-secure", "secure"][..]),
        proptest::sample::select(&["off", "try", "required"][..]),
        proptest::sample::select(&["plain", "generations"][..]),
    );
    let directory = (text(), modes, proptest::collection::vec(reader, 0..3));
    let directory = directory.prop_map(|(path, (symlinks, acls, layout), readers)| {
        json!({"type": "directory", "path": path, "symlinks": symlinks, "acls": acls, "layout": layout, "readers": readers})
    });
    prop_oneof![Just(json!({"type": "memory"})), directory]
}

fn service() -> impl Strategy<Value = Value> {
    let hook = prop_oneof![
        Just(Value::Null),
        proptest::collection::vec(text(), 1..3).prop_map(|command| json!({"command": command, "timeout": "1.5s"})),
        Just(json!({"signal": {"pid_file": "/run/a.pid", "signal": "SIGUSR1"}})),
        Just(json!({"systemd_reload": "nginx.service"})),
    ];
    let options = proptest::collection::vec(("x_[a-z]{1,6}", value()), 0..3);
    let output = ("[a-z]{3,8}", destination(), proptest::collection::vec(text(), 0..3), hook, options);
    let output = output.prop_map(|(kind, destination, roles, hook, options)| {
        let mut map = Map::from_iter(options);
        map.extend(
            [("type", kind.into()), ("destination", destination), ("roles", roles.into()), ("on_change", hook)]
                .map(|(key, value)| (key.to_owned(), value)),
        );
        Value::Object(map)
    });
    let tunnel = (text(), 0..u16::MAX, any::<bool>()).prop_map(|(name, port, unix)| {
        let listen = if unix { "unix:///run/a b.sock".to_owned() } else { format!("tcp://[::1]:{port}") };
        json!({"type": "database-tunnel", "listen": listen, "service": name, "username": name, "database": name, "roles": [name]})
    });
    prop_oneof![3 => output, 1 => tunnel, 1 => Just(json!({"type": "noop"}))]
}

/// JSON is YAML where everything unusual is escaped, and was not written by what is tried here.
fn as_yaml(value: &Value) -> String {
    let escaped = |c: char| match c {
        ' '..='~' => c.to_string(),
        _ => format!("\\U{:08x}", u32::from(c)),
    };
    value.to_string().chars().map(escaped).collect()
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]
    #[test]
    fn any_configuration(
        token in text(),
        proxy in any::<bool>(),
        services in proptest::collection::vec((service(), any::<bool>()), 0..4),
        storage in text(),
        (ttl, interval) in (1_u64..100_000_000, 1_u64..100_000_000),
        client in value(),
        switches in any::<(bool, bool, bool)>(),
    ) {
        let services: Vec<Value> = services.into_iter().enumerate().map(|(index, (mut service, named))| {
            if named && service["type"] != "noop" {
                service["name"] = format!("given-{index}").into();
                service["credential_ttl"] = "1h0.5s".into();
                service["renewal_interval"] = "7us".into();
            }
            // No two in one place: that may be refused.
            if let Some(Value::String(path)) = service.pointer_mut("/destination/path") {
                path.push_str(&format!("/{index}"));
            }
            service
        }).collect();
        let mut root = json!({
            "version": "v2",
            "onboarding": {"join_method": "azure", "token": token, "azure": {"client_id": client}},
            "storage": {"type": "directory", "path": storage},
            "services": services,
            "certificate_ttl": format!("{ttl}us"),
            "renewal_interval": format!("{interval}ms"),
            "oneshot": switches.0, "debug": switches.1, "insecure": switches.2,
            "diag_addr": "127.0.0.1:1",
            "plugins": [{"name": storage, "kind": "format", "path": token, "grants": {"http": [client]}}],
        });
        root[if proxy { "proxy_server" } else { "auth_server" }] = "[::1]:443".into();
        assert_reads_back(&as_yaml(&root));
    }
}
