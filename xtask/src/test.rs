//! `cargo xtask test`: what it needs, then everything.

use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::{Command, Stdio};

use anyhow::{Context, Result, ensure};

use crate::{cargo, plugins, programs};

pub(crate) fn test(root: &Path) -> Result<()> {
    programs(&[
        ("cc", "build-essential"),
        ("openssl", "openssl"),
        ("curl", "curl"),
        ("ssh-keygen", "openssh-client"),
        ("/usr/sbin/sshd", "openssh-server"),
        ("systemd-analyze", "systemd"),
        ("strace", "strace"),
        ("pg_ctlcluster", "postgresql"),
        ("/usr/sbin/mariadbd", "mariadb-server-core"),
        ("mysql", "mariadb-client-core"),
        ("redis-server", "redis-server"),
        ("redis-cli", "redis-tools"),
    ])?;
    plugins::build(root, false)?;
    let mut counts = Counts::default();
    let checks: [(&str, &str, &[&str]); 2] = [
        ("rustfmt", "fmt", &["--all", "--check"]),
        ("clippy", "clippy", &["--quiet", "--workspace", "--all-targets", "--", "--deny", "warnings"]),
    ];
    for (component, command, arguments) in checks {
        if !has_component(component, command) {
            println!("not checked: rustup has no `{component}` here");
            continue;
        }
        match cargo(root, &[[command].as_slice(), arguments].concat()) {
            Ok(()) => counts.passed += 1,
            Err(error) => {
                eprintln!("{component}: {error:#}");
                counts.failed += 1;
            }
        }
    }
    // The end-to-end tests run the programs. With all targets, so that what the tests need is built only once.
    cargo(root, &["build", "--workspace", "--all-targets"])?;
    counts.add(run_tests(root, &["test", "--workspace", "--no-fail-fast"])?);
    for example in std::fs::read_dir(root.join("examples/plugins"))? {
        let folder = example?.path();
        if folder.join("Cargo.toml").is_file() {
            let target = root.join("target").to_string_lossy().into_owned();
            counts.add(run_tests(&folder, &["test", "--target-dir", &target])?);
        }
    }
    let line = format!("{} passed, {} failed", counts.passed, counts.failed);
    std::fs::write(root.join("target/test-counts"), format!("{line}\n"))?;
    println!("{line}");
    ensure!(counts.failed == 0, "{} checks failed", counts.failed);
    Ok(())
}

/// A minimal toolchain lacks it: it is added then, where rustup can.
fn has_component(component: &str, command: &str) -> bool {
    let there = || {
        let mut version = Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
        version.args([command, "--version"]).stdout(Stdio::null()).stderr(Stdio::null());
        version.status().is_ok_and(|status| status.success())
    };
    there() || {
        let _ = Command::new("rustup").args(["component", "add", component]).status();
        there()
    }
}

#[derive(Default)]
struct Counts {
    passed: u64,
    failed: u64,
}

impl Counts {
    fn add(&mut self, other: Self) {
        self.passed += other.passed;
        self.failed += other.failed;
    }
}

/// Runs `cargo test`, shows what it prints, and adds up its `test result:` lines. A run that fails without one counts as one failure.
fn run_tests(folder: &Path, arguments: &[&str]) -> Result<Counts> {
    let program = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    let mut child = Command::new(program).current_dir(folder).args(arguments).stdout(Stdio::piped()).spawn()?;
    let mut counts = Counts::default();
    for line in BufReader::new(child.stdout.take().context("no output")?).lines() {
        let line = line?;
        println!("{line}");
        if let Some(result) = line.strip_prefix("test result:") {
            let number = |word: &str| {
                let at = result.find(word)?;
                result[..at].trim_end().rsplit([' ', '.']).next()?.parse::<u64>().ok()
            };
            counts.passed += number(" passed").unwrap_or(0);
            counts.failed += number(" failed").unwrap_or(0);
        }
    }
    if !child.wait()?.success() && counts.failed == 0 {
        counts.failed = 1;
    }
    Ok(counts)
}
