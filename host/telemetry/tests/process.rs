//! What a whole process writes, and where. The process is this test binary again.

use std::process::Command;

use telemetry::Format;

const FORMAT: &str = "TBOT_TEST_FORMAT";

#[test]
#[ignore = "the body of another process"]
fn logs_and_panics() {
    let format = if std::env::var(FORMAT).unwrap() == "json" { Format::Json } else { Format::Text };
    telemetry::init(format, false);
    telemetry::secret("very-secret-token");
    tracing::info!(target: "TBOT", token = "very-secret-token", "Under way.");
    let payload = "line one\nline two very-secret-token -----BEGIN PRIVATE KEY-----\nMIIB".to_owned();
    std::thread::spawn(move || std::panic::panic_any(payload)).join().unwrap_err();
}

#[test]
fn a_panic_is_one_line_on_stderr_without_secrets() {
    for format in ["text", "json"] {
        let mut command = Command::new(std::env::current_exe().unwrap());
        command.args(["--exact", "logs_and_panics", "--ignored", "--nocapture"]).env(FORMAT, format);
        let output = command.output().unwrap();
        let (out, err) = (String::from_utf8(output.stdout).unwrap(), String::from_utf8(output.stderr).unwrap());
        assert!(output.status.success(), "{out}{err}");
        assert!(!out.contains("Under way") && !out.contains("defect"), "{out}");
        let lines: Vec<_> = err.lines().collect();
        let [info, defect] = lines[..] else { panic!("{err}") };
        assert!(info.contains("Under way.") && defect.contains("line one\\nline two ••••"), "{err}");
        assert!(defect.contains("a defect of tbot at ") && defect.contains("process.rs:"), "{err}");
        assert!(!err.contains("very-secret") && !err.contains("MIIB") && !err.contains('\x1b'), "{err}");
        match format {
            "text" => assert!(info == "INFO [TBOT]      Under way. token:••••" && defect.starts_with("ERRO [TBOT]  ")),
            _ => assert_eq!(serde_json::from_str::<serde_json::Value>(defect).unwrap()["level"], "error"),
        }
    }
}
