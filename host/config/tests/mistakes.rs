//! Every mistake in one run, each at its place, and no secret in any of them.

use std::path::Path;

use config::{Config, Flags, Mistakes, load, parse};

/// A file that is right; each test spoils it.
const GOOD: &str = "version: v2\nauth_server: a:1\nonboarding: {join_method: token, token: hunter2}\n";

fn read(text: &[u8]) -> Result<Config, Mistakes> {
    parse(Some((Path::new("t.yaml"), text)), &Flags::default(), &|_| None)
}

fn refused(text: &str) -> String {
    let message = read(text.as_bytes()).expect_err("must be refused").to_string();
    assert!(!message.contains("hunter2"), "{message}");
    message
}

fn warned(text: &str) -> String {
    let config = read(text.as_bytes()).unwrap_or_else(|mistakes| panic!("{mistakes}"));
    assert!(!format!("{config:?}").contains("hunter2"), "the token is in Debug");
    config.warnings.iter().map(|warning| format!("{warning}\n")).collect()
}

#[test]
fn all_mistakes_are_told_at_once_in_the_order_of_the_file() {
    let text = "\
version: v2
auth_sever: a:1
onboarding:
  join_metod: token
  token: [hunter2]
  ca_pins: [sha256:12, md5:hunter]
storage:
  type: directory
outputs:
  - type: identity
  - type: application
    destination: {type: directory, path: '', symlinks: never}
certificate_ttl: 60
renewal_interval: soon
oneshot: maybe
";
    let message = refused(text);
    let wanted = [
        "t.yaml: an auth or proxy server must be set via --auth-server, --proxy-server or configuration",
        "t.yaml:2:1: auth_sever: unknown key `auth_sever`: did you mean `auth_server`?",
        "t.yaml:4:3: onboarding.join_metod: unknown key `join_metod`: did you mean `join_method`?",
        "t.yaml:4:3: onboarding.join_method: join method must be provided",
        "t.yaml:5:10: onboarding.token: must be text, and is a list",
        "t.yaml:8:3: storage: destination path must not be empty",
        "t.yaml:10:5: outputs[0]: no destination configured for output",
        "t.yaml:12:42: outputs[1].destination.path: destination path must not be empty",
        "t.yaml:12:56: outputs[1].destination.symlinks: invalid symlinks mode: \"never\"",
        "t.yaml:13:18: certificate_ttl: `60` lacks a unit",
        "t.yaml:14:19: renewal_interval: `soon` is no duration",
        "t.yaml:15:10: oneshot: must be `true` or `false`, and is text",
    ];
    let lines: Vec<&str> = message.lines().collect();
    assert_eq!(lines.len(), wanted.len(), "{message}");
    for wanted in wanted {
        assert!(lines.iter().any(|line| line.starts_with(wanted)), "{wanted}\nis not in\n{message}");
    }
}

#[test]
fn a_single_mistake_is_named() {
    for (more, wanted) in [
        ("proxy_server: b:1\n", "an auth and a proxy server are given"),
        ("proxy_server: 'b:x'\n", "t.yaml:4:15: proxy_server: `b:x` has no valid port"),
        ("fips: true\n", "`fips` is not supported yet"),
        (
            "join_uri: tbot+proxy+token://hunter2@a:1\n",
            "t.yaml:4:11: join_uri: `join_uri` is address and onboarding in one",
        ),
        (
            "services: [{type: ssh-multiplexer}]\n",
            "t.yaml:4:19: services[0].type: `ssh-multiplexer` is not supported yet",
        ),
        ("services: [{type: login-agent}]\n", "`login-agent` is not supported yet"),
        (
            "services: [{type: noop, delegation_session_id: x}]\n",
            "services[0].delegation_session_id: `delegation_session_id` is not supported yet",
        ),
        ("outputs: [{destination: {type: memory}}]\n", "unrecognized output type ()"),
        ("outputs: [{type: identity, destination: /opt/a}]\n", "outputs[0].destination: must be a map"),
        ("outputs: {type: identity}\n", "outputs: must be a list, and is a map"),
        ("outputs: [identity]\n", "outputs[0]: must be a map of keys and values, and is text"),
        (
            "outputs: [{type: a, destination: {type: kubernetes_secret, name: x}}]\n",
            "`kubernetes_secret` is not supported yet",
        ),
        ("outputs: [{type: a, destination: {type: directroy, path: x}}]\n", "(directroy): did you mean `directory`?"),
        ("outputs: [{type: a, destination: {path: x}}]\n", "unrecognized destination type ()"),
        (
            "outputs: [{type: a, destination: {type: directory, path: x, readers: [{user: x, group: y}]}}]\n",
            "outputs[0].destination.readers[0]: a reader has exactly one key",
        ),
        (
            "outputs: [{type: a, destination: {type: directory, path: x, layout: generation}}]\n",
            "outputs[0].destination.layout: invalid layout: \"generation\": did you mean `generations`?",
        ),
        ("storage: {type: directory, path: x, layout: generations}\n", "storage: `layout: generations` is for outputs"),
        (
            "services: [{type: application-tunnel, app_name: a, listen: '127.0.0.1:1'}]\n",
            "services[0].listen: `127.0.0.1:1`",
        ),
        (
            "services: [{type: database-tunnel, service: a, username: b, listen: 'tcp://a:1'}]\n",
            "services[0]: database must not be empty",
        ),
        (
            "outputs: [{type: a, destination: {type: memory}, on_change: {}}]\n",
            "outputs[0].on_change: `on_change` has exactly one",
        ),
        (
            "outputs: [{type: a, destination: {type: memory}, on_change: {command: [a], systemd_reload: b}}]\n",
            "outputs[0].on_change: `on_change` has exactly one",
        ),
        (
            "outputs: [{type: a, destination: {type: memory}, on_change: {command: []}}]\n",
            "outputs[0].on_change.command: no command",
        ),
        (
            "outputs: [{type: a, destination: {type: memory}, on_change: {signal: {pid_file: /a, signal: USR3}}}]\n",
            "outputs[0].on_change.signal.signal: unknown signal: did you mean `USR1`?",
        ),
        (
            "outputs: [{type: a, destination: {type: memory}, on_change: {signal: {pid_file: a}}}]\n",
            "outputs[0].on_change.signal: `pid_file` must be an absolute path",
        ),
        (
            "outputs: [{type: a, destination: {type: memory}, on_change: {systemd_reload: '--now'}}]\n",
            "outputs[0].on_change.systemd_reload: no name of a unit",
        ),
        ("outputs: [{type: a, destination: {type: directory, path: x, acls: all}}]\n", "invalid acls mode: \"all\""),
        ("storage: /var/lib/teleport\n", "t.yaml:4:10: storage: must be a map"),
        ("plugins: [{kind: output, path: a}]\n", "plugins[0]: `name` is missing"),
        ("plugins: [{name: a, kind: outputs, path: a}]\n", "plugins[0].kind: unknown kind"),
        ("plugins: [{name: a, kind: output, path: a, digest: 12}]\n", "plugins[0].digest: `12` is no digest"),
        ("plugins: [{name: a, kind: output, path: a, grant: {}}]\n", "did you mean `grants`?"),
        (
            "plugins: [{name: a, kind: output, path: a}, {name: a, kind: output, path: b}]\n",
            "plugins[1].name: `a` is the name",
        ),
        ("colour: red\n", "t.yaml:4:1: colour: unknown key `colour`: remove it"),
    ] {
        let message = refused(&format!("{GOOD}{more}"));
        assert!(message.contains(wanted), "{more}: {message}");
        assert_eq!(message.lines().count(), 1, "{more}: {message}");
    }
}

/// Files with the guides' example of a pin, or with a variable that was empty, work through a proxy; at an auth server they trust nobody.
#[test]
fn what_is_no_pin_stays_and_is_warned_of() {
    let text = "version: v2\nauth_server: a:1\nonboarding: {join_method: token, ca_pins: ['', 'sha256:12']}\n";
    let config = read(text.as_bytes()).unwrap_or_else(|all| panic!("{all}"));
    assert_eq!(config.onboarding.ca_pins, ["", "sha256:12"]);
    let wanted = "t.yaml:3:48: onboarding.ca_pins[1]: `sha256:12` is no pin, and no auth server can match it";
    assert!(warned(text).contains(wanted), "{}", warned(text));
}

#[test]
fn versions_are_told_apart() {
    for (text, wanted) in [
        ("outputs: [{type: identity}]\n", "potentially v1, but includes the v2 outputs field"),
        ("version: v1\noutputs: [{type: identity}]\n", "potentially v1, but includes the v2 outputs field"),
        ("version: v3\n", "unrecognized config version \"v3\""),
        ("version: 2\n", "unrecognized config version \"2\""),
    ] {
        let message = refused(text);
        assert!(message.contains(wanted) && message.lines().count() == 1, "{text}: {message}");
    }
    for v1 in ["", "version: v1\n", "outputs: []\n"] {
        let text = format!("{v1}auth_server: a:1\nonboarding: {{join_method: token}}\n");
        assert!(warned(&text).contains("deprecated config version V1 detected"), "{text}");
    }
    let newest = "proxy_server: a:1\nonboarding: {join_method: token}\n";
    assert!(warned(newest).contains("add `version: v2`"));
}

#[test]
fn the_newest_schema_only_warns_of_unknown_keys() {
    let text =
        "version: v2\nproxy_server: a:1\nservices: []\nservces: []\nonboarding: {join_method: token, tokn: hunter2}\n";
    let warnings = warned(text);
    assert!(warnings.contains("t.yaml:4:1: servces: unknown key `servces`: did you mean `services`?"), "{warnings}");
    assert!(warnings.contains("did you mean `token`?"), "{warnings}");
}

#[test]
fn destinations_and_storage_only_warn_of_unknown_keys_and_outputs_leave_them_to_the_plugin() {
    let text = format!(
        "{GOOD}storage: {{type: directory, path: /s, pth: x}}\n\
         outputs: [{{type: a, mispelt: 1, destination: {{type: memory, path: x}}}}]\n"
    );
    let warnings = warned(&text);
    assert!(warnings.contains("storage.pth: unknown key `pth`: did you mean `path`? (it is ignored)"), "{warnings}");
    assert!(warnings.contains("outputs[0].destination.path: unknown key `path`"), "{warnings}");
    let config = read(text.as_bytes()).unwrap();
    let unknown = config.outputs[0].mistake("mispelt", "unknown");
    assert_eq!(unknown.to_string(), "t.yaml:5:30: outputs[0].mispelt: unknown");
    assert_eq!(config.outputs[0].mistake("type", "x").to_string(), "t.yaml:5:18: outputs[0].type: x");
    assert_eq!(config.outputs[0].mistake("app_name", "x").to_string(), "t.yaml:5:11: outputs[0].app_name: x");
    assert_eq!(config.outputs[0].mistake("mispelt.a", "x").to_string(), "t.yaml:5:30: outputs[0].mispelt.a: x");
    let entry = config.outputs[0].mistake("mispelt[1]", "x").to_string();
    assert_eq!(entry, "t.yaml:5:30: outputs[0].mispelt[1]: x");
    assert_eq!(config.onboarding.mistake("join_method", "x").line, 3);
}

#[test]
fn exclusions() {
    let pins = format!("ca_pins: ['sha256:{}']", "a".repeat(64));
    let file = |more: &str| format!("version: v2\nauth_server: a:1\nonboarding: {{join_method: token, {more}}}\n");
    assert!(refused(&file(&format!("{pins}, ca_path: /ca"))).contains("ca-pin and ca-path are mutually exclusive"));
    let insecure = |more: &str| refused(&format!("{}insecure: true\n", file(more)));
    assert!(insecure(&pins).contains("the option ca-pin is mutually exclusive with --insecure"));
    assert!(insecure("ca_path: /ca").contains("the option ca-path is mutually exclusive with --insecure"));
}

#[test]
fn lifetimes() {
    let late = "This is likely an invalid configuration";
    assert!(warned(&format!("{GOOD}certificate_ttl: 10m\n")).contains(late));
    assert!(
        warned(&format!("{GOOD}certificate_ttl: 10m\n"))
            .contains("TTL (10m0s) is shorter than the renewal interval (20m0s)")
    );
    assert!(warned(&format!("{GOOD}certificate_ttl: 20m\n")).contains("TTL (20m0s) is no longer than"));
    assert!(!warned(&format!("{GOOD}certificate_ttl: 10m\noneshot: true\n")).contains(late));
    assert!(warned(&format!("{GOOD}certificate_ttl: 30h\n")).contains("longer than 24h"));
    assert_eq!(warned(&format!("{GOOD}certificate_ttl: 0s\nrenewal_interval: 0\n")), "");
    let both = warned(&format!("{GOOD}certificate_ttl: 10m\ncredential_ttl: 2h\n"));
    assert!(both.contains("wins") && !both.contains(late), "{both}");
    let service = |more: &str| format!("{GOOD}services: [{{type: a, destination: {{type: memory}}, {more}}}]\n");
    for (more, wanted) in [
        ("credential_ttl: 1h", "must be given together: add `renewal_interval`"),
        ("renewal_interval: 1h", "must be given together: add `credential_ttl`"),
        ("credential_ttl: 1h, renewal_interval: 1h", "1h0m0s is not shorter than `credential_ttl` (1h0m0s)"),
        ("credential_ttl: 25h, renewal_interval: 1h", "25h0m0s is longer than the 24h"),
        ("credential_ttl: 1h, renewal_interval: 0s", "services[0].renewal_interval: must be longer than zero"),
        ("credential_ttl: -1h, renewal_interval: 1m", "is negative"),
    ] {
        assert!(refused(&service(more)).contains(wanted), "{more}: {}", refused(&service(more)));
    }
    assert_eq!(warned(&format!("{}oneshot: true\n", service("credential_ttl: 1h, renewal_interval: 2h"))), "");
}

#[test]
fn names() {
    let services = |names: [&str; 2]| {
        let entry = |name: &str| format!("{{type: ssh_Host/v2, {name}destination: {{type: memory}}}}");
        format!("{GOOD}services: [{}, {}]\n", entry(names[0]), entry(names[1]))
    };
    for (name, wanted) in [
        ("name: Upper, ", "lowercase letters"),
        ("name: a b, ", "lowercase letters"),
        ("name: heartbeat, ", "`heartbeat` is reserved"),
        ("name: twice, ", "services[1].name: `twice` is the name of another output"),
    ] {
        let message = refused(&services(["name: twice, ", name]));
        assert!(message.contains(wanted), "{message}");
    }
    // A given name goes before a made one.
    let config = read(services(["", "name: ssh_-ost-v2-1, "]).as_bytes()).unwrap();
    assert_eq!(config.outputs[0].name, "ssh_-ost-v2-2");
}

#[test]
fn equal_destinations_are_warned_of() {
    let outputs = "outputs: [{type: a, destination: {type: directory, path: /d}}, {type: a, destination: {type: directory, path: /d}},\
                   {type: a, destination: {type: directory, path: /var/lib/teleport/bot}}, {type: a, destination: {type: memory}},\
                   {type: a, destination: {type: memory}}]\n";
    let warnings = warned(&format!("{GOOD}{outputs}"));
    assert_eq!(warnings.lines().count(), 2, "{warnings}");
    assert!(warnings.contains("outputs[1].destination: Identical destinations used within config"), "{warnings}");
    assert!(
        warnings.contains("outputs[2].destination: Identical destinations used within config: `/var/lib/teleport/bot`")
    );
}

#[test]
fn generations_have_their_directory_to_themselves() {
    let output = |path: &str, layout: &str| {
        format!("{{type: a, destination: {{type: directory, path: {path}, layout: {layout}}}}}")
    };
    for (one, two) in [("generations", "generations"), ("plain", "generations"), ("generations", "plain")] {
        let text = format!("{GOOD}outputs: [{}, {}]\n", output("/d", one), output("/d/", two));
        let refused = refused(&text);
        assert!(refused.contains("outputs[1].destination: Identical destinations"), "{one}, {two}: {refused}");
        assert!(refused.contains("needs one of its own"), "{one}, {two}: {refused}");
    }
    let here = std::env::current_dir().unwrap().join("out").display().to_string();
    let spelt = format!("{GOOD}outputs: [{}, {}]\n", output(&here, "generations"), output("./out", "plain"));
    assert!(refused(&spelt).contains("needs one of its own"));
    let storage = format!("{GOOD}outputs: [{}]\n", output("/var/lib/teleport/bot", "generations"));
    assert!(refused(&storage).contains("of the bot's own `storage`, too"));
}

#[test]
fn what_is_no_configuration_is_refused() {
    for (text, wanted) in [
        (&b""[..], "EOF"),
        (b"# only a comment\n", "EOF"),
        (b"---\n", "EOF"),
        (b"just text\n", "must be a map"),
        (b"- a\n", "must be a map"),
        (b"version: v2\nauth_server: \"\xff\"\n", "t.yaml:2:15: failed parsing config file: not UTF-8"),
        (b"version: v2\nonboarding:\n\ttoken: hunter2\n", "t.yaml:3:"),
        (b"version: v2\nversion: v2\n", "key `version` is given twice"),
        (b"version: v2\nonboarding: {token:hunter2}\n", "unknown key"),
        (b"version: v2\nonboarding:\n  token:hunter2\n  join_method: token\n", "t.yaml:"),
        (b"version: v2\nonboarding: {token: *hunter2}\n", "t.yaml:2:"),
        (b"version: v2\nonboarding: !hunter2 {token: a}\nx: 1\n", "unknown key"),
        (b"\0\0\0\0", "t.yaml"),
    ] {
        let message = read(text).expect_err("must be refused").to_string();
        assert!(message.contains(wanted), "{}: {message}", String::from_utf8_lossy(text));
        assert!(!message.contains("hunter2"), "{message}");
    }
    let large = vec![b'#'; 10 << 20];
    assert!(read(&large).is_err_and(|e| e.to_string().contains("larger than 1 MiB")));
    let secret_bomb = format!("{GOOD}a: &a [{}]\nb: [{}]\n", "hunter2, ".repeat(1000), "*a, ".repeat(1000));
    assert!(refused(&secret_bomb).contains("more than 100000 values"));
}

#[test]
fn documents_after_the_first_are_not_used() {
    let warnings = warned(&format!("{GOOD}---\nauth_server: [\n"));
    assert!(warnings.contains("only the first one"), "{warnings}");
}

#[test]
fn a_byte_order_mark_and_windows_lines_are_let_pass() {
    let text = format!("\u{feff}{GOOD}").replace('\n', "\r\n");
    assert_eq!(warned(&text), "");
}

#[test]
fn a_file_that_cannot_be_read_is_named() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("none.yaml");
    let load = |path: &Path| load(Some(path), &Flags::default(), &|_| None).unwrap_err().to_string();
    assert!(load(&path).contains("none.yaml: loading bot config: failed to open file"));
    assert!(load(folder.path()).contains("failed to open file"));
    std::fs::write(&path, vec![b'#'; 10 << 20]).unwrap();
    assert!(load(&path).contains("larger than 1 MiB"));
}
