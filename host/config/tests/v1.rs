//! Files of Teleport 12 and 13: what they wrote there, they write here (surface §B.2, §C.2).

use std::path::Path;

use config::{Acls, Config, DestinationConfig, Flags, Mistakes, OutputConfig, Symlinks, load, parse};
use serde_json::{Value, json};

fn read(more: &str) -> Result<Config, Mistakes> {
    let text = format!("auth_server: a:1\nonboarding: {{join_method: token, token: hunter2}}\n{more}");
    parse(Some((Path::new("t.yaml"), text.as_bytes())), &Flags::default(), &|_| None)
}

fn destinations(entries: &str) -> Config {
    read(&format!("destinations:\n{entries}")).unwrap_or_else(|mistakes| panic!("{mistakes}"))
}

fn refused(entries: &str) -> String {
    let message = read(&format!("destinations:\n{entries}")).expect_err("must be refused").to_string();
    assert!(!message.contains("hunter2"), "{message}");
    message
}

fn warnings(config: &Config) -> Vec<String> {
    // The first is always that the schema is old.
    config.warnings.iter().skip(1).map(ToString::to_string).collect()
}

fn options(output: &OutputConfig) -> Value {
    Value::Object(output.options.clone())
}

fn recorded(run: &str) -> Config {
    let path =
        Path::new(env!("CARGO_MANIFEST_DIR")).join("../../tests/recordings/v12/runs").join(run).join("tbot.yaml");
    load(Some(&path), &Flags::default(), &|_| None).unwrap_or_else(|mistakes| panic!("{mistakes}"))
}

/// The directories of this run hold `known_hosts` and `ssh_config` each, whatever the destination is for.
#[test]
fn the_recorded_run_of_the_database_guide() {
    let config = recorded("seed-database");
    assert!(config.oneshot);
    assert_eq!(config.storage, DestinationConfig::directory("/opt/machine-id/store"));
    assert_eq!(config.onboarding.join_method, "token");
    assert_eq!(warnings(&config), [""; 0]);
    assert!(config.warnings[0].message.starts_with("deprecated config version V1 detected"));
    let database = |format: &str| json!({"service": "example-server", "database": "example", "username": "alice", "format": [format, "ssh-client"]});
    let wanted = [
        ("database", "a", database("mongo")),
        ("database", "b", database("cockroach")),
        ("database", "c", database("tls")),
        ("application", "d", json!({"app_name": "grafana-example", "format": ["ssh-client"]})),
        ("identity", "e", json!({"ssh_config": "v12"})),
    ];
    assert_eq!(config.outputs.len(), wanted.len());
    for (output, (kind, directory, wanted)) in config.outputs.iter().zip(wanted) {
        assert_eq!((output.kind.as_str(), options(output)), (kind, wanted));
        assert_eq!(output.destination, DestinationConfig::directory(format!("/opt/machine-id/{directory}")));
    }
    assert_eq!(recorded("direct").outputs[0].options["format"], json!(["mongo", "ssh-client"]));
}

#[test]
fn every_option_of_every_template_is_kept() {
    let config = destinations(
        "- directory: {path: /a, symlinks: secure, acls: off}
  roles: [x]
  database: {service: s}
  configs:
  - identity: {file_name: me}
  - tls_cas: {host_ca_path: h, user_ca_path: u, database_ca_path: d}
  - ssh_client: {proxy_port: 3023}
  - tls: {prefix: t, ca_cert_type: db}
  - mongo: {prefix: m}
  - cockroach: {dir_name: c}
  - mongo
- memory: true
  cluster: leaf
  configs: [ssh_client, tls]
- directory: /c
  configs: [{ssh_host_cert: {principals: [a, b], prefix: p}}]
",
    );
    let wanted = json!({
        "service": "s",
        "identity_file": "me", "host_ca_path": "h", "user_ca_path": "u", "database_ca_path": "d",
        "format": [
            {"name": "tls", "prefix": "t", "ca_cert_type": "db"}, {"name": "mongo", "prefix": "m"},
            {"name": "cockroach", "dir_name": "c"}, "mongo", "ssh-client"
        ],
    });
    assert_eq!(options(&config.outputs[0]), wanted);
    assert_eq!(config.outputs[0].roles, ["x"]);
    let DestinationConfig::Directory { symlinks, acls, .. } = &config.outputs[0].destination else { panic!() };
    assert_eq!((symlinks, acls), (&Symlinks::Secure, &Acls::Off));
    assert_eq!(
        (config.outputs[1].kind.as_str(), options(&config.outputs[1])),
        ("identity", json!({"cluster": "leaf", "ssh_config": "v12", "format": ["tls"]}))
    );
    assert_eq!(config.outputs[1].destination, DestinationConfig::Memory);
    let user = (config.outputs[2].kind.as_str(), options(&config.outputs[2]));
    assert_eq!(user, ("identity", json!({"ssh_config": "v12"})), "the user's files stand beside the host's");
    let host = (config.outputs[3].kind.as_str(), options(&config.outputs[3]));
    assert_eq!(host, ("ssh_host", json!({"principals": ["a", "b"], "prefix": "p"})));
    assert_eq!(config.outputs[2].destination, config.outputs[3].destination);
    let warnings = warnings(&config);
    assert!(
        warnings[0].starts_with("t.yaml:10:30: destinations[0].configs[2].ssh_client.proxy_port: "),
        "{warnings:?}"
    );
    assert_eq!(warnings.len(), 1, "{warnings:?}");
    assert_eq!(config.outputs[0].mistake("service", "x").to_string(), "t.yaml:6:13: destinations[0].database: x");
}

#[test]
fn what_later_versions_let_pass_is_warned_of() {
    let config = read(
        "colour: red\ndestinations: [{directory: /a, kinds: [ssh], databse: {}, app: x, cluster: leaf}]\nstorage: {}\noutputs: []\n",
    )
    .unwrap();
    let warnings = warnings(&config).join("\n");
    for wanted in [
        "t.yaml:3:1: colour: unknown key `colour`",
        "destinations[0].kinds: `kinds` is deprecated",
        "destinations[0].databse: unknown key `databse`: did you mean `database`?",
        "destinations[0].cluster: the cluster option can only be used with ssh certificates",
    ] {
        assert!(warnings.contains(wanted), "{wanted}\nis not in\n{warnings}");
    }
    let text = "auth_server: a:1\nonboarding: {token: hunter2}\n";
    let config = parse(Some((Path::new("t.yaml"), text.as_bytes())), &Flags::default(), &|_| None).unwrap();
    assert_eq!(config.onboarding.join_method, "token");
    assert!(config.warnings[1].message.contains("as in Teleport 12"));
}

#[test]
fn a_single_mistake_is_named() {
    for (entry, wanted) in [
        ("roles: [a]", "t.yaml:4:3: destinations[0]: at least one of `memory' and 'directory' must be specified"),
        ("directory: /a, memory: true", "destinations[0].memory: both 'memory' and 'directory' cannot be specified"),
        ("memory: false", "destinations[0].memory: memory must not be false"),
        ("directory: ''", "destinations[0].directory: destination path must not be empty"),
        (
            "directory: /a, app: x, kubernetes_cluster: y",
            "destinations[0].kubernetes_cluster: a destination can make at most one",
        ),
        (
            "directory: /a, kubernetes_cluster: y",
            "destinations[0].kubernetes_cluster: `kubernetes_cluster` is not supported yet",
        ),
        (
            "directory: /a, configs: [mongoo]",
            "destinations[0].configs[0]: unrecognized config template \"mongoo\": did you mean `mongo`?",
        ),
        ("directory: /a, configs: [{}]", "destinations[0].configs[0]: config template must not be empty"),
        (
            "directory: /a, configs: [{tls: {}, mongo: {}}]",
            "configs[0]: config template must have exactly one configuration",
        ),
        (
            "directory: {path: /a, layout: generations}, configs: [{ssh_host_cert: {principals: [a]}}]",
            "`layout: generations` needs one of its own",
        ),
    ] {
        let message = refused(&format!("- {{{entry}}}\n"));
        assert!(message.contains(wanted), "{entry}: {message}");
        assert_eq!(message.lines().count(), 1, "{entry}: {message}");
    }
}

/// Where it was meant to be could be anywhere: an identity in the default directory is not what was asked for.
#[test]
fn a_storage_that_says_no_place_is_refused() {
    for storage in ["{type: directory, path: /srv/bot}", "{directry: /srv/bot}", "{memory: false}"] {
        let message = read(&format!("storage: {storage}\n")).expect_err(storage).to_string();
        assert!(message.contains("must be specified") || message.contains("memory must not be false"), "{message}");
    }
    for storage in ["", "{}", "{directory: }"] {
        let config = read(&format!("storage: {storage}\n")).unwrap_or_else(|mistakes| panic!("{mistakes}"));
        assert_eq!(config.storage, DestinationConfig::directory("/var/lib/teleport/bot"), "{storage}");
    }
}

#[test]
fn pins_win_over_a_file_of_authorities_as_they_did() {
    let pin = format!("sha256:{}", "a".repeat(64));
    let text =
        format!("auth_server: a:1\nonboarding: {{join_method: token, token: t, ca_path: /ca, ca_pins: [\"{pin}\"]}}\n");
    let config = parse(Some((Path::new("t.yaml"), text.as_bytes())), &Flags::default(), &|_| None).unwrap();
    assert_eq!((config.onboarding.ca_pins.as_slice(), &config.onboarding.ca_path), ([pin].as_slice(), &None));
    assert!(
        warnings(&config)[0].contains("onboarding.ca_path: `ca_pins` is given, too, and wins"),
        "{:?}",
        config.warnings
    );
}
