//! The commands of a developer: `cargo xtask <command>`.

mod demo;
mod dist;
mod plugins;
mod test;

use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode, Stdio};

use anyhow::{Context, Result, bail, ensure};

const HELP: &str = "\
cargo xtask <command>

  demo      start a stand-in cluster, join it, write credentials, use them
  test      format, lints and every test
  plugins   build the plugins and compile them for the engine
  build     plugins and the release build of tbot
  dist      the release build, manual pages, completions and examples in one archive
  bench     measure the release build (see tests/bench)
";

fn main() -> ExitCode {
    let command = std::env::args().nth(1).unwrap_or_default();
    match run(&command) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn run(command: &str) -> Result<()> {
    let root = root()?;
    match command {
        "demo" => demo::demo(&root),
        "test" => test::test(&root),
        "plugins" => plugins::build(&root, false),
        "build" => build(&root),
        "dist" => {
            build(&root)?;
            dist::dist(&root)
        }
        "bench" => {
            build(&root)?;
            cargo(&root, &["build", "--quiet", "--release", "--package", "stand-in"])?;
            cargo(&root, &["run", "--quiet", "--release", "--package", "tests-bench"])
        }
        "" | "help" | "--help" | "-h" => {
            print!("{HELP}");
            Ok(())
        }
        other => bail!("unknown command `{other}`\n\n{HELP}"),
    }
}

fn build(root: &Path) -> Result<()> {
    plugins::build(root, true)?;
    cargo(root, &["build", "--release", "--package", "tbot"])?;
    println!("built target/release/tbot");
    Ok(())
}

fn root() -> Result<PathBuf> {
    let here = PathBuf::from(env!("CARGO_MANIFEST_DIR"));
    here.parent().map(Path::to_owned).context("xtask has no parent folder")
}

/// Runs cargo in the workspace, its output passed through.
fn cargo(root: &Path, arguments: &[&str]) -> Result<()> {
    let program = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    let status = Command::new(program).current_dir(root).args(arguments).status()?;
    ensure!(status.success(), "`cargo {}` failed", arguments.join(" "));
    Ok(())
}

/// Makes sure of programs, from Debian's packages where this is Debian and we are root.
fn programs(wanted: &[(&str, &str)]) -> Result<()> {
    let there = |program: &str| {
        let found = Command::new("sh").args(["-c", &format!("command -v {program}")]).stdout(Stdio::null()).status();
        found.is_ok_and(|status| status.success())
    };
    let missing: Vec<_> = wanted.iter().filter(|(program, _)| !there(program)).map(|(_, package)| *package).collect();
    if missing.is_empty() {
        return Ok(());
    }
    println!("installing {}", missing.join(" "));
    let apt = |arguments: &[&str]| Command::new("apt-get").args(arguments).stdout(Stdio::null()).status();
    let _ = apt(&["update", "--quiet"]);
    let _ = apt(&[["install", "--yes", "--quiet", "--no-install-recommends"].as_slice(), &missing].concat());
    let still: Vec<_> = wanted.iter().filter(|(program, _)| !there(program)).map(|(_, package)| *package).collect();
    ensure!(still.is_empty(), "these programs are needed: apt-get install {}", still.join(" "));
    Ok(())
}
