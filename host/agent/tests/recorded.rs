//! `tbot migrate` and `tbot configure` against recordings of the original: the same stdout, exit status and last line of stderr.

use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use serde_json::Value;

fn tbot(arguments: &[&str], folder: &Path) -> Output {
    tbot_command(arguments, folder).output().unwrap()
}

fn tbot_command(arguments: &[&str], folder: &Path) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_tbot"));
    // Variables of whoever runs the tests would be flags.
    for variable in ["TELEPORT_AUTH_SERVER", "TELEPORT_PROXY", "TELEPORT_BOT_TOKEN", "TBOT_DEBUG", "TBOT_CONFIG_PATH"] {
        command.env_remove(variable);
    }
    command.args(arguments).current_dir(folder);
    command
}

/// Variables that shells export empty, or for `tsh`, mean what they meant.
#[test]
fn variables_count_as_in_the_original() {
    let folder = tempfile::tempdir().unwrap();
    let run = |variable: (&str, &str), more: &[&str]| {
        let mut command =
            tbot_command(&[&["configure", "--join-method=token", "--token=t"], more].concat(), folder.path());
        let output = command.env(variable.0, variable.1).output().unwrap();
        assert!(output.status.success(), "{variable:?} {more:?}: {}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8(output.stdout).unwrap()
    };
    let flag: [&str; 1] = ["-a=a:1"];
    for variable in
        [("TELEPORT_AUTH_SERVER", ""), ("TELEPORT_PROXY", "p:1"), ("TBOT_CONFIG_PATH", ""), ("TBOT_CONFIG", "")]
    {
        assert!(run(variable, &flag).contains("auth_server: a:1\n"), "{variable:?}");
    }
    assert!(run(("TELEPORT_AUTH_SERVER", "v:1"), &["--auth-server="]).contains("auth_server: v:1\n"));
    assert!(run(("TELEPORT_PROXY", "p:1"), &[]).contains("proxy_server: p:1\n"));
    assert!(run(("TELEPORT_BOT_TOKEN", "v"), &["-a=a:1", "-o="]).contains("token: t\n"));
}

fn last_line(stderr: &[u8]) -> String {
    let text = String::from_utf8_lossy(stderr).into_owned();
    text.lines().rfind(|line| !line.trim().is_empty()).unwrap_or_default().to_owned()
}

/// Runs every case below `folder`; `arguments` come out of its record.
fn compare(folder: &str, wanted: usize, arguments: impl Fn(&Value) -> Vec<String>) {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../tests/recordings/v15/cli").join(folder);
    let mut different = Vec::new();
    let mut count = 0;
    for entry in std::fs::read_dir(root).unwrap() {
        let case: PathBuf = entry.unwrap().path();
        let record: Value = serde_json::from_slice(&std::fs::read(case.join("run.json")).unwrap()).unwrap();
        let arguments = arguments(&record);
        let output = tbot(&arguments.iter().map(String::as_str).collect::<Vec<_>>(), &case);
        let read = |name: &str| std::fs::read(case.join(name)).unwrap();
        let mut compare = |what: &str, ours: &str, recorded: &str| {
            if ours != recorded {
                different.push(format!("{}: {what}\nours:\n{ours}\nrecorded:\n{recorded}", case.display()));
            }
        };
        compare("stdout", &String::from_utf8_lossy(&output.stdout), &String::from_utf8_lossy(&read("stdout")));
        compare(
            "exit",
            &format!("{:?}", output.status.code()),
            &format!("{:?}", record["exit"].as_i64().map(|code| code as i32)),
        );
        let recorded = last_line(&read("stderr"));
        // Of a wrong join method only that the usage was printed is recorded.
        if record["exit"] != 0 && recorded != "(usage text)" {
            compare("last line", &last_line(&output.stderr), &recorded);
        }
        count += 1;
    }
    assert_eq!(count, wanted, "{folder}");
    assert!(different.is_empty(), "{}", different.join("\n\n"));
}

#[test]
fn every_recorded_migration() {
    compare("migrate", 43, |record| {
        let words = record["command"].as_str().unwrap().split(' ').skip(1);
        words.map(str::to_owned).collect()
    });
}

#[test]
fn every_recorded_configure() {
    compare("configure", 13, |record| {
        let words = record["args"].as_array().unwrap().iter();
        words.map(|word| word.as_str().unwrap().to_owned()).collect()
    });
}

#[test]
fn the_target_is_written_only_with_what_is_right() {
    let folder = tempfile::tempdir().unwrap();
    let target = folder.path().join("out.yaml");
    std::fs::write(&target, "precious").unwrap();
    let precious = || assert_eq!(std::fs::read_to_string(&target).unwrap(), "precious");
    let good = ["--auth-server=a:1", "--token=t", "--join-method=token", "-o", "out.yaml"];
    let configure = |more: &[&str]| tbot(&[&["configure"], more, &good[..]].concat(), folder.path());
    let pin = format!("--ca-pin=sha256:{}", "a".repeat(64));
    let wrong: [&[&str]; 3] = [&["--data-dir=s3://x"], &["--insecure", &pin], &["--certificate-ttl=1"]];
    for wrong in wrong {
        let output = configure(wrong);
        assert_eq!(output.status.code(), Some(1), "{wrong:?}");
        precious();
    }
    let source = folder.path().join("in.yaml");
    for wrong in ["version: v2\n", "destinations: [{directory: /a, app: x, configs: [mongo]}]\n", "a: [\n", ""] {
        std::fs::write(&source, wrong).unwrap();
        assert_eq!(
            tbot(&["migrate", "-c", "in.yaml", "-o", "out.yaml"], folder.path()).status.code(),
            Some(1),
            "{wrong}"
        );
        precious();
    }
    std::fs::write(
        &source,
        "auth_server: a:1\nonboarding: {join_method: token, token: t}\ndestinations: [{directory: /a}]\n",
    )
    .unwrap();
    for same in ["in.yaml", "./in.yaml"] {
        assert_eq!(tbot(&["migrate", "-c", "in.yaml", "-o", same], folder.path()).status.code(), Some(1));
    }
    assert!(tbot(&["migrate", "-c", "in.yaml", "-o", "out.yaml"], folder.path()).status.success());
    assert!(std::fs::read_to_string(&target).unwrap().contains("type: identity"));
    let output = configure(&[]);
    assert!(output.status.success() && output.stdout.is_empty());
    assert!(String::from_utf8_lossy(&output.stderr).contains("Generated config file written to file: out.yaml"));
    assert!(
        std::fs::read_to_string(&target).unwrap().starts_with("# tbot config file generated by `configure` command\n")
    );
}

#[test]
fn a_service_of_the_command_line_is_written_out() {
    let folder = tempfile::tempdir().unwrap();
    let run = |line: &str| {
        let output = tbot(&line.split(' ').collect::<Vec<_>>(), folder.path());
        assert!(output.status.success(), "{line}: {}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8(output.stdout).unwrap()
    };
    let shared = "--proxy-server=p:443 --join-method=token --token=t";
    let yaml = run(&format!(
        "configure database {shared} --destination=file:///d --service=s --username=u --database=x --format=mongo"
    ));
    for wanted in
        ["services:\n  - type: database\n", "    format: mongo\n    service: s\n    database: x\n    username: u\n"]
    {
        assert!(yaml.contains(wanted), "{yaml}");
    }
    let yaml =
        run(&format!("configure {shared} ssh --destination /d --reader-user app --reader-group 33 --cluster leaf"));
    for wanted in
        ["readers:\n        - user: app\n        - group: \"33\"\n", "    cluster: leaf\n", "proxy_server: p:443\n"]
    {
        assert!(yaml.contains(wanted), "{wanted}: {yaml}");
    }
    let yaml = run(&format!("configure application-tunnel {shared} --listen tcp://127.0.0.1:80 --app a"));
    assert!(yaml.contains("  - type: application-tunnel\n    listen: tcp://127.0.0.1:80\n    app_name: a\n"), "{yaml}");
    let yaml = run("configure noop --join-uri tbot+auth+iam://bot@a.example.com:3025 --storage memory://");
    assert!(
        yaml.contains("  token: bot\n  join_method: iam\n") && yaml.contains("storage:\n  type: memory\n"),
        "{yaml}"
    );
    let refused = tbot(&["configure", "identity", "--token=t"], folder.path());
    assert_eq!(refused.status.code(), Some(1));
}
