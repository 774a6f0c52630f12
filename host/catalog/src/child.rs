//! Compiling in a process of its own: a large component takes seconds and hundreds of MiB, and there is no other way to bound that.

use std::ffi::OsString;
use std::os::unix::process::ExitStatusExt;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

use identity::{Failure, FailureKind};
use rustix::process::{Resource, Rlimit, setrlimit};
use sandbox::Engine;

/// Address space of the compiling process: twice what an 18 MB component needs.
const ADDRESS_SPACE: u64 = 2 << 30;
/// CPU time of the compiling process, seconds: six times what an 18 MB component needs.
const CPU_SECONDS: u64 = 60;
/// Wall-clock bound.
const PATIENCE: Duration = Duration::from_secs(120);

/// What compiles, called as `<program> <first> <in> <out>`.
pub(crate) struct Compiler {
    pub(crate) program: PathBuf,
    pub(crate) first: OsString,
}

impl Compiler {
    /// This program itself, as `plugin-compile`.
    pub(crate) fn own() -> Result<Self, Failure> {
        let program = std::env::current_exe()
            .map_err(|e| Failure::new(FailureKind::Internal, format!("where this program lies: {e}")))?;
        Ok(Self { program, first: "plugin-compile".into() })
    }
}

/// Compiles `wasm`. The files between lie in a folder of this call's own below `folder`: another agent may compile there too.
pub(crate) async fn compile(compiler: &Compiler, wasm: &[u8], folder: &Path) -> Result<Vec<u8>, Failure> {
    let storage =
        |e: std::io::Error| Failure::new(FailureKind::Storage, format!("plugin cache {}: {e}", folder.display()));
    let between = tempfile::Builder::new().prefix("compiling-").tempdir_in(folder).map_err(storage)?;
    let (input, output) = (between.path().join("input.wasm"), between.path().join("output.cwasm"));
    std::fs::write(&input, wasm).map_err(storage)?;
    let mut child = tokio::process::Command::new(&compiler.program);
    child
        .arg(&compiler.first)
        .arg(&input)
        .arg(&output)
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::piped());
    let ended = tokio::time::timeout(PATIENCE, child.kill_on_drop(true).output()).await;
    match ended {
        Ok(Ok(ended)) if ended.status.success() => std::fs::read(&output).map_err(storage),
        Ok(Ok(ended)) => {
            let said = String::from_utf8_lossy(&ended.stderr).trim().trim_start_matches("ERROR: ").to_owned();
            let reason = match ended.status.signal() {
                // By a limit, or on the way into one: what it said then is about itself.
                Some(signal) => format!(
                    "it takes more than {} GiB or {CPU_SECONDS} s to compile (signal {signal}): simplify it",
                    ADDRESS_SPACE >> 30
                ),
                None if said.is_empty() => format!("the compiler ended with {}", ended.status),
                None => said,
            };
            Err(Failure::new(FailureKind::InvalidConfig, reason))
        }
        Ok(Err(e)) => Err(storage(e)),
        Err(_) => Err(Failure::new(
            FailureKind::InvalidConfig,
            format!("it takes longer than {} s to compile: simplify it", PATIENCE.as_secs()),
        )),
    }
}

/// The whole life of the compiling process: limits first, then the work.
///
/// # Errors
/// What [`Engine::compile`] says, or a file that cannot be read or written.
pub fn compile_child(input: &Path, output: &Path) -> Result<(), Failure> {
    for (resource, most) in [(Resource::As, ADDRESS_SPACE), (Resource::Cpu, CPU_SECONDS), (Resource::Core, 0)] {
        let limit = Rlimit { current: Some(most), maximum: Some(most) };
        setrlimit(resource, limit)
            .map_err(|e| Failure::new(FailureKind::Internal, format!("limits cannot be set: {e}")))?;
    }
    let storage = |e: std::io::Error| Failure::new(FailureKind::Storage, e.to_string());
    let code = Engine::new()?.compile(&std::fs::read(input).map_err(storage)?)?;
    std::fs::write(output, code).map_err(storage)
}
