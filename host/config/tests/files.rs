//! Files that have to load: the examples, the configurations of the recorded runs, and those of the published guides.

use std::path::{Path, PathBuf};
use std::time::Duration;

use config::{
    Acls, Action, Config, DestinationConfig, Flags, Layout, OnChange, PluginKind, Reader, ServerKind, Signal, Symlinks,
    Token, TunnelKind, load, parse,
};

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../..")
}

fn loaded(path: &Path) -> Config {
    load(Some(path), &Flags::default(), &|_| None).unwrap_or_else(|mistakes| panic!("{mistakes}"))
}

fn example(name: &str) -> Config {
    loaded(&root().join("examples/configs").join(name))
}

fn parsed(text: &str) -> Config {
    let source = Some((Path::new("tbot.yaml"), text.as_bytes()));
    parse(source, &Flags::default(), &|_| None).unwrap_or_else(|mistakes| panic!("{mistakes}"))
}

#[test]
fn every_example_loads_without_a_warning() {
    let mut count = 0;
    for entry in std::fs::read_dir(root().join("examples/configs")).unwrap() {
        let path = entry.unwrap().path();
        if path.extension().is_some_and(|extension| extension == "yaml") {
            let config = loaded(&path);
            let old = usize::from(path.ends_with("v1-legacy.yaml"));
            assert_eq!(config.warnings.len(), old, "{}: {:?}", path.display(), config.warnings);
            assert_eq!(config.source.as_deref(), Some(path.as_path()));
            count += 1;
        }
    }
    assert!(count >= 18, "{count} examples");
}

#[test]
fn the_examples_mean_what_they_say() {
    let config = example("application-through-proxy.yaml");
    assert_eq!(config.address.kind, ServerKind::Either);
    assert_eq!((config.address.host.as_str(), config.address.port), ("example.teleport.sh", Some(443)));
    let output = &config.outputs[0];
    assert_eq!((output.name.as_str(), output.kind.as_str()), ("application-1", "application"));
    let options = serde_json::json!({"app_name": "grafana-example", "specific_tls_naming": true});
    assert_eq!(serde_json::Value::Object(output.options.clone()), options);
    assert_eq!(output.destination, DestinationConfig::directory("/opt/machine-id"));

    let config = example("application-direct.yaml");
    assert_eq!(config.onboarding.ca_pins, [format!("sha256:{}", "1".repeat(64))]);

    let config = example("services.yaml");
    assert_eq!(config.address.kind, ServerKind::Proxy);
    assert_eq!(config.onboarding.token, Some(Token::File("/etc/tbot/token".into())));
    assert_eq!(config.outputs[0].name, "grafana");
    assert_eq!(config.outputs[0].ttl, Some(Duration::from_secs(1800)));
    assert_eq!(config.outputs[0].renewal_interval, Some(Duration::from_secs(600)));
    assert_eq!(config.outputs[0].options.keys().collect::<Vec<_>>(), ["app_name"]);
    assert_eq!(config.outputs[1].ttl, None);

    let config = example("identity.yaml");
    assert_eq!(config.outputs[0].roles, ["deployer"]);
    assert_eq!(config.outputs[1].name, "identity-2");
    assert_eq!(config.outputs[1].options["cluster"], "leaf.example.com");

    let config = example("memory-oneshot.yaml");
    assert!(config.oneshot);
    assert_eq!(config.storage, DestinationConfig::Memory);

    let config = example("join-uri.yaml");
    assert_eq!(config.address.kind, ServerKind::Proxy);
    assert_eq!(config.onboarding.join_method, "github");

    let config = example("tunnels.yaml");
    assert_eq!(config.outputs, []);
    assert_eq!(
        (config.tunnels[0].name.as_str(), config.tunnels[0].listen.uri().as_str()),
        ("grafana", "tcp://127.0.0.1:8080")
    );
    let (service, username, database) = ("example-server".to_owned(), "alice".to_owned(), "example".to_owned());
    assert_eq!(config.tunnels[1].kind, TunnelKind::Database { service, username, database });

    let config = example("hooks.yaml");
    let (pid_file, signal) = ("/run/nginx.pid".into(), Signal::Hup);
    let timeout = Duration::from_secs(30);
    assert_eq!(config.outputs[0].on_change, Some(OnChange { action: Action::Signal { pid_file, signal }, timeout }));

    let config = example("readers.yaml");
    let DestinationConfig::Directory { readers, .. } = &config.outputs[0].destination else { panic!("no directory") };
    assert_eq!(readers, &[Reader::User("app".to_owned()), Reader::Group("33".to_owned())]);

    let config = example("third-party-template.yaml");
    assert_eq!(config.plugins[0].kind, PluginKind::Format);
    assert_eq!(config.outputs[0].options["format"]["name"], config.plugins[0].name);
    assert_eq!(config.plugins[0].digest, Some(format!("sha256:{}", "0".repeat(64))));
    assert_eq!(config.plugins[0].grants, serde_json::json!({}));
}

/// What the original ran with on a real cluster, outputs of later sessions included.
#[test]
fn every_recorded_configuration_loads() {
    let mut count = 0;
    for entry in std::fs::read_dir(root().join("tests/recordings/v15/runs")).unwrap() {
        let path = entry.unwrap().path().join("tbot.yaml");
        if !path.exists() {
            continue;
        }
        let config = loaded(&path);
        assert_eq!(config.warnings, [], "{}", path.display());
        assert_eq!(config.onboarding.join_method, "token");
        assert!(matches!(config.onboarding.token, Some(Token::Literal(_))), "{}", path.display());
        assert_eq!(config.storage, DestinationConfig::directory("/opt/machine-id/store"));
        count += 1;
    }
    assert!(count >= 9, "{count} recordings");
    let config = loaded(&root().join("tests/recordings/v15/runs/oneshot-direct/tbot.yaml"));
    let kinds: Vec<_> = config.outputs.iter().map(|output| output.name.as_str()).collect();
    let wanted = [
        "identity-1",
        "application-1",
        "application-2",
        "application-3",
        "database-1",
        "database-2",
        "database-3",
        "database-4",
        "ssh_host-1",
    ];
    assert_eq!(kinds, wanted);
    assert_eq!(config.outputs[8].options["principals"], serde_json::json!(["node.example.com", "10.0.0.1"]));
    assert_eq!((config.ttl, config.renewal_interval), (Duration::from_secs(3600), Duration::from_secs(1200)));
}

/// The file of the application access guide for Teleport 14, its address filled in.
#[test]
fn the_application_guides_file_loads() {
    let config = parsed(
        r#"version: v2
auth_server: "teleport.example.com:443"
onboarding:
  join_method: "token"
  token: "00000000000000000000000000000000"
  ca_pins:
  - "sha256:1111111111111111111111111111111111111111111111111111111111111111"
storage:
  type: directory
  path: /var/lib/teleport/bot
outputs:
  - type: application
    destination:
      type: directory
      path: /opt/machine-id
    app_name: grafana-example
"#,
    );
    assert_eq!(config.warnings, []);
    assert_eq!(config.outputs[0].options["app_name"], "grafana-example");
}

/// The file of the Azure guide for Teleport 17 to 19.
#[test]
fn the_azure_guides_file_loads() {
    let config = parsed(
        "version: v2\nproxy_server: example.teleport.sh:443\nonboarding:\n  join_method: azure\n  token: example-bot\n  azure:\n    \
         client_id: 22222222-2222-2222-2222-222222222222\nstorage:\n  type: memory\noutputs: []\n",
    );
    assert_eq!(config.outputs, []);
    let method = serde_json::json!({"client_id": "22222222-2222-2222-2222-222222222222"});
    assert_eq!(config.onboarding.method_config, method);
}

/// What the original's `configure` prints, with every default spelled out.
#[test]
fn a_file_with_every_default_written_out_loads() {
    let config = parsed(
        "version: v2\nonboarding:\n  join_method: token\nstorage:\n  type: directory\n  path: /a\n  symlinks: secure\n  acls: \"off\"\n\
         debug: false\nauth_server: a:1\ncertificate_ttl: 1h0m0s\nrenewal_interval: 20m0s\noneshot: false\nfips: false\n",
    );
    let DestinationConfig::Directory { path, symlinks, acls, readers, layout } = config.storage else {
        panic!("no directory")
    };
    assert_eq!((path, symlinks, acls), ("/a".into(), Symlinks::Secure, Acls::Off));
    assert_eq!((readers, layout), (Vec::new(), Layout::Plain));
    assert!(!config.oneshot && !config.debug && !config.insecure && config.onboarding.token.is_none());
}

#[test]
fn unquoted_values_are_what_is_written() {
    let config = parsed(
        "version: v2\nauth_server: a:1\nonboarding: {join_method: token, token: 00123}\noneshot: yes\n\
         storage: {type: directory, path: /a, acls: off}\n\
         outputs: [{type: application, app_name: 0777, retries: 3, destination: {type: directory, path: 12}}]\n",
    );
    let Some(Token::Literal(token)) = &config.onboarding.token else { panic!("no literal") };
    assert_eq!(token.as_str(), "00123");
    assert!(config.oneshot);
    assert_eq!(config.outputs[0].options["app_name"], "0777");
    assert_eq!(config.outputs[0].options["retries"], 3);
    assert_eq!(config.outputs[0].destination, DestinationConfig::directory("12"));
}
