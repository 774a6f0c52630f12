//! What flags and environment replace (surface §A.3, §A.6).

use std::path::Path;
use std::time::Duration;

use config::{
    Config, DestinationConfig, DestinationFlags, Flags, Mistakes, Reader, ServerKind, ServiceFlags, Token, configure,
    parse,
};
use zeroize::Zeroizing;

const FILE: &str = "\
version: v2
auth_server: file:1
onboarding: {join_method: azure, token: name, ca_path: /ca, azure: {client_id: x}}
storage: {type: directory, path: /store}
outputs:
  - {type: application, app_name: a, destination: {type: directory, path: /a}}
  - {type: identity, destination: {type: directory, path: /b}}
certificate_ttl: 2h
renewal_interval: 30m
diag_addr: 127.0.0.1:1
";

fn merged(text: Option<&str>, flags: &Flags) -> Result<Config, Mistakes> {
    parse(text.map(|text| (Path::new("t.yaml"), text.as_bytes())), flags, &|_| None)
}

fn over_file(flags: Flags) -> (Config, Vec<String>) {
    let config = merged(Some(FILE), &flags).unwrap_or_else(|mistakes| panic!("{mistakes}"));
    let warnings = config.warnings.iter().map(ToString::to_string).collect();
    (config, warnings)
}

fn some(text: &str) -> Option<String> {
    Some(text.to_owned())
}

fn secret(text: &str) -> Option<Zeroizing<String>> {
    Some(Zeroizing::new(text.to_owned()))
}

#[test]
fn without_a_file_the_flags_make_a_configuration() {
    let flags = Flags {
        auth_server: some("a:1"),
        token: secret("hunter2"),
        join_method: some("token"),
        destination_dir: Some("/out".into()),
        data_dir: some("memory://"),
        oneshot: Some(true),
        ..Flags::default()
    };
    let config = merged(None, &flags).unwrap();
    assert_eq!(config.source, None);
    assert_eq!(config.storage, DestinationConfig::Memory);
    assert_eq!(config.outputs.len(), 1);
    assert_eq!((config.outputs[0].name.as_str(), config.outputs[0].kind.as_str()), ("identity-1", "identity"));
    assert_eq!(config.outputs[0].destination, DestinationConfig::directory("/out"));
    assert_eq!(config.outputs[0].mistake("type", "x").to_string(), "--destination-dir: x");
    assert!(config.oneshot && config.warnings.is_empty());
    assert!(!format!("{config:?}{flags:?}").contains("hunter2"));
}

#[test]
fn without_anything_every_missing_thing_is_told() {
    let message = merged(None, &Flags::default()).unwrap_err().to_string();
    let lines: Vec<&str> = message.lines().collect();
    assert_eq!(lines[0], "an auth or proxy server must be set via --auth-server, --proxy-server or configuration");
    assert!(lines[1].starts_with("join method must be provided"), "{message}");
}

#[test]
fn single_values_are_replaced_with_a_warning() {
    let (config, warnings) = over_file(Flags {
        proxy_server: some("proxy:443"),
        certificate_ttl: some("3h"),
        renewal_interval: some("10m"),
        diag_addr: some("127.0.0.1:2"),
        data_dir: some("/elsewhere"),
        ..Flags::default()
    });
    assert_eq!((config.address.text.as_str(), config.address.kind), ("proxy:443", ServerKind::Proxy));
    assert_eq!((config.ttl, config.renewal_interval), (Duration::from_secs(10_800), Duration::from_secs(600)));
    assert_eq!(config.diag_addr.as_deref(), Some("127.0.0.1:2"));
    assert_eq!(config.storage, DestinationConfig::directory("/elsewhere"));
    assert_eq!(config.outputs.len(), 2);
    for what in ["auth server", "certificate TTL", "renewal interval", "diagnostics address", "storage"] {
        let start = format!("CLI parameters are overriding {what} configured in t.yaml");
        assert!(warnings.iter().any(|warning| warning.starts_with(&start)), "{start}: {warnings:?}");
    }
    assert_eq!(warnings.len(), 5);
}

#[test]
fn one_destination_directory_replaces_all_outputs() {
    let (config, warnings) = over_file(Flags { destination_dir: Some("/only".into()), ..Flags::default() });
    assert_eq!(config.outputs.len(), 1);
    assert_eq!(config.outputs[0].kind, "identity");
    assert!(warnings[0].starts_with("CLI parameters are overriding all outputs"), "{warnings:?}");
}

#[test]
fn any_join_flag_replaces_the_whole_onboarding() {
    let flags = Flags { token: secret("hunter2"), join_method: some("token"), ..Flags::default() };
    let (config, warnings) = over_file(flags);
    assert_eq!(config.onboarding.join_method, "token");
    assert_eq!(config.onboarding.token, Some(Token::Literal(Zeroizing::new("hunter2".to_owned()))));
    assert_eq!((config.onboarding.ca_path, config.onboarding.method_config), (None, serde_json::json!({})));
    assert!(warnings[0].starts_with("CLI parameters are overriding onboarding config"), "{warnings:?}");
    assert!(!warnings[0].contains("hunter2"));
    let message = merged(Some(FILE), &Flags { token: secret("hunter2"), ..Flags::default() }).unwrap_err().to_string();
    assert!(message.contains("join method must be provided") && !message.contains("hunter2"), "{message}");
}

#[test]
fn switches_say_nothing_on_or_off() {
    let (config, _) =
        over_file(Flags { oneshot: Some(true), debug: Some(true), insecure: Some(true), ..Flags::default() });
    assert!(config.oneshot && config.debug && config.insecure);
    let text = format!("{FILE}oneshot: true\ndebug: true\n");
    let config = merged(Some(&text), &Flags::default()).unwrap();
    assert!(config.oneshot && config.debug && !config.insecure);
    let off = Flags { oneshot: Some(false), debug: Some(false), insecure: Some(false), ..Flags::default() };
    let config = merged(Some(&format!("{text}insecure: true\n")), &off);
    let config = config.expect("a key that the command line switched off excludes nothing");
    assert!(!config.oneshot && !config.debug && !config.insecure);
}

/// The flag comes after the checks, the file's key does not.
#[test]
fn the_insecure_flag_is_let_pass_beside_pins() {
    let pin = format!("sha256:{}", "A".repeat(64));
    let flags = Flags {
        auth_server: some("a"),
        join_method: some("token"),
        ca_pins: vec![pin.clone()],
        insecure: Some(true),
        ..Flags::default()
    };
    let config = merged(None, &flags).unwrap();
    assert!(config.insecure);
    assert_eq!(config.onboarding.ca_pins, [pin.to_ascii_lowercase()]);
}

#[test]
fn wrong_flags_are_all_named() {
    let flags = Flags {
        auth_server: some("a:b"),
        join_method: some("token"),
        data_dir: some("s3://x"),
        certificate_ttl: some("1"),
        renewal_interval: some("x"),
        ..Flags::default()
    };
    let message = merged(None, &flags).unwrap_err().to_string();
    for flag in ["--auth-server: ", "--data-dir: ", "--certificate-ttl: ", "--renewal-interval: "] {
        assert!(message.lines().any(|line| line.starts_with(flag)), "{flag}: {message}");
    }
    assert_eq!(message.lines().count(), 4, "{message}");
}

#[test]
fn the_environment_stands_in_for_flags_that_say_nothing() {
    let variables = |name: &str| match name {
        "TELEPORT_AUTH_SERVER" => some("env:1"),
        "TELEPORT_BOT_TOKEN" => some("hunter2"),
        "TELEPORT_PROXY" => some(""),
        _ => None,
    };
    let flags = Flags { join_method: some("token"), ..Flags::default() };
    let config = parse(None, &flags, &variables).unwrap();
    assert_eq!(config.address.text, "env:1");
    assert_eq!(config.onboarding.token, Some(Token::Literal(Zeroizing::new("hunter2".to_owned()))));
    let flags = Flags { proxy_server: some("flag:1"), token: secret("/etc/token"), ..flags };
    let config = parse(None, &flags, &variables).unwrap();
    assert_eq!((config.address.text.as_str(), config.address.kind), ("flag:1", ServerKind::Proxy));
    assert_eq!(config.onboarding.token, Some(Token::File("/etc/token".into())));
}

fn directory(uri: &str) -> DestinationFlags {
    DestinationFlags { destination: uri.to_owned(), ..DestinationFlags::default() }
}

#[test]
fn a_service_comes_to_those_of_the_file() {
    let destination = DestinationFlags { reader_groups: vec!["33".to_owned()], ..directory("file:///only") };
    let service = ServiceFlags::Database {
        destination,
        service: "s".to_owned(),
        username: "u".to_owned(),
        database: "d".to_owned(),
        format: some("mongo"),
    };
    let (config, warnings) = over_file(Flags { service: Some(service), ..Flags::default() });
    let (of_file, none) = over_file(Flags::default());
    assert_eq!(config.outputs.len(), of_file.outputs.len() + 1);
    assert_eq!((&config.outputs[..of_file.outputs.len()], warnings), (&of_file.outputs[..], none));
    let output = config.outputs.last().unwrap();
    assert_eq!((output.name.as_str(), output.kind.as_str()), ("database-1", "database"));
    let options = serde_json::json!({"format": "mongo", "service": "s", "database": "d", "username": "u"});
    assert_eq!(serde_json::Value::Object(output.options.clone()), options);
    let DestinationConfig::Directory { path, readers, .. } = &output.destination else { panic!("no directory") };
    assert_eq!((path.to_str(), readers), (Some("/only"), &vec![Reader::Group("33".to_owned())]));

    let tunnel = ServiceFlags::ApplicationTunnel { listen: "tcp://127.0.0.1:80".to_owned(), app: "a".to_owned() };
    let (config, _) = over_file(Flags { service: Some(tunnel), ..Flags::default() });
    assert_eq!((config.outputs, config.tunnels[0].name.as_str()), (of_file.outputs.clone(), "application-tunnel-1"));
    let (config, _) = over_file(Flags { service: Some(ServiceFlags::Noop), ..Flags::default() });
    assert_eq!((config.outputs, config.tunnels), (of_file.outputs, of_file.tunnels));
}

#[test]
fn wrong_services_are_named_by_their_flags() {
    let identity = |destination| ServiceFlags::Identity { destination, cluster: None, allow_reissue: true };
    let reader = DestinationFlags { reader_users: vec!["app".to_owned()], ..directory("memory://") };
    let tunnel = |listen: &str| ServiceFlags::DatabaseTunnel {
        listen: listen.to_owned(),
        service: "s".to_owned(),
        username: String::new(),
        database: "d".to_owned(),
    };
    let application = |app: &str| ServiceFlags::Application {
        destination: directory("/a"),
        app: app.to_owned(),
        specific_tls_extensions: false,
    };
    for (service, wanted) in [
        (identity(directory("")), "--destination: destination path must not be empty"),
        (identity(directory("s3://a")), "--destination: unrecognized data storage scheme"),
        (
            identity(reader),
            "--destination: --reader-user and --reader-group are only compatible with file destinations",
        ),
        (application(""), "--app: must not be empty"),
        (tunnel("tcp://127.0.0.1:1"), "--username: must not be empty"),
        (tunnel("127.0.0.1:1"), "--listen: `127.0.0.1:1` is nothing to listen at"),
    ] {
        let message =
            merged(Some(FILE), &Flags { service: Some(service), ..Flags::default() }).unwrap_err().to_string();
        assert!(message.contains(wanted), "{wanted}: {message}");
    }
}

#[test]
fn a_join_uri_replaces_address_and_onboarding() {
    let flags =
        Flags { join_uri: secret("tbot+proxy+gitlab://hunter2:VARIABLE@p.example.com:443"), ..Flags::default() };
    let (config, warnings) = over_file(flags);
    assert_eq!((config.address.text.as_str(), config.address.kind), ("p.example.com:443", ServerKind::Proxy));
    assert_eq!((config.onboarding.join_method.as_str(), config.onboarding.ca_path), ("gitlab", None));
    assert_eq!(config.onboarding.method_config, serde_json::json!({"token_env_var_name": "VARIABLE"}));
    assert!(warnings[0].starts_with("CLI parameters are overriding join configuration"), "{warnings:?}");
    assert!(!warnings[0].contains("hunter2"));
}

/// Nothing is written that `start` refuses, though the flags alone would be let pass.
#[test]
fn configure_writes_only_what_start_takes() {
    let flags = Flags { auth_server: some("a:1"), join_method: some("token"), token: secret("t"), ..Flags::default() };
    let (yaml, config) = configure(&flags, &|_| None).unwrap();
    assert!(yaml.starts_with("# tbot config file generated by `configure` command\nversion: v2\n"), "{yaml}");
    assert_eq!(config.address.text, "a:1");
    let pinned = Flags { ca_pins: vec![format!("sha256:{}", "a".repeat(64))], insecure: Some(true), ..flags.clone() };
    let message = configure(&pinned, &|_| None).unwrap_err().to_string();
    assert!(message.starts_with("insecure: the option ca-pin is mutually exclusive with --insecure"), "{message}");
    assert!(configure(&Flags { auth_server: None, ..flags }, &|_| None).is_err());
}

#[test]
fn what_is_empty_is_not_given() {
    let read = |flags: &Flags, variables: &[(&str, &str)]| {
        let value = |name: &str| variables.iter().find(|(key, _)| *key == name).map(|(_, value)| (*value).to_owned());
        parse(Some((Path::new("t.yaml"), FILE.as_bytes())), flags, &value).unwrap_or_else(|all| panic!("{all}"))
    };
    let empty = Flags {
        auth_server: some(""),
        proxy_server: some(""),
        token: secret(""),
        join_method: some(""),
        certificate_ttl: some(""),
        ..Flags::default()
    };
    let config = read(&empty, &[("TELEPORT_AUTH_SERVER", ""), ("TELEPORT_PROXY", ""), ("TELEPORT_BOT_TOKEN", "")]);
    assert_eq!((config.address.text.as_str(), config.onboarding.join_method.as_str()), ("file:1", "azure"));
    assert_eq!(config.warnings, []);
    let config = read(&empty, &[("TELEPORT_AUTH_SERVER", "variable:1"), ("TELEPORT_PROXY", "proxy:1")]);
    assert_eq!((config.address.text.as_str(), config.address.kind), ("variable:1", ServerKind::Either));
    let config = read(&Flags { auth_server: some("flag:1"), ..Flags::default() }, &[("TELEPORT_PROXY", "proxy:1")]);
    assert_eq!(config.address.text, "flag:1");
}

#[test]
fn outputs_can_be_looked_at_without_a_word_on_joining() {
    let file = "version: v2\noutputs:\n- {type: identity, destination: {type: memory}}\n";
    assert!(merged(Some(file), &Flags::default()).is_err());
    let config = merged(Some(file), &Flags { outputs_only: true, ..Flags::default() }).unwrap();
    assert_eq!((config.outputs.len(), config.address.text.as_str()), (1, ""));
    let wrong = file.replace("memory", "memry");
    assert!(merged(Some(&wrong), &Flags { outputs_only: true, ..Flags::default() }).is_err());
}
