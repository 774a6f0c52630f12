//! `tbot start`: configuration in, a running bot out.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use config::{Config, Mistakes};
use identity::{IDENTITY_SERVICE, SystemClock, Unmonitored};
use renewal::Reload;
use telemetry::{Diagnostics, Services};
use tokio::runtime::Runtime;
use tracing::{info, warn};

use crate::flags::{Flags, Start};
use crate::signals::Signals;
use crate::wiring;

/// What is being written when the agent ends has this long: a set is a dozen files on a slow disk.
const LAST_SWITCH: Duration = Duration::from_secs(5);

/// Runs until a signal, or in one-shot mode until everything was renewed once.
pub(crate) fn start(flags: &Flags, start: &Start) -> Result<(), String> {
    let config = wiring::configuration(flags, start).map_err(|mistakes| mistakes.to_string())?;
    telemetry::init(flags.log_format.into(), config.debug);
    for flag in flags.traces.given() {
        warn!(target: "TBOT", "{flag} has no effect in this build.");
    }
    let runtime = runtime()?;
    let ended = runtime.block_on(run(config, start.pid_file.as_deref()));
    // A switch of files goes on to its end, but a file system that hangs does not keep the process.
    runtime.shutdown_timeout(LAST_SWITCH);
    ended
}

/// Where everything asynchronous runs.
pub(crate) fn runtime() -> Result<Runtime, String> {
    // Two threads are enough for sockets; what takes CPU (keys, files) runs on blocking threads.
    let built = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build();
    built.map_err(|e| format!("the runtime cannot be started: {e}"))
}

async fn run(config: Config, pid_file: Option<&Path>) -> Result<(), String> {
    let signals = Signals::install().map_err(|e| format!("signals cannot be handled: {e}"))?;
    let reload = Reload::new();
    let shutdown = signals.shutdown(reload.clone());
    if std::env::var_os("TELEPORT_ANONYMOUS_TELEMETRY").is_some() {
        info!(target: "TBOT", "TELEPORT_ANONYMOUS_TELEMETRY is recognised; this build reports nothing anywhere.");
    }
    info!(target: "TBOT", "Initializing bot identity.");
    let clock = Arc::new(SystemClock);
    let parts = wiring::parts(&config).await.map_err(|all| Mistakes(all).to_string())?;
    for warning in config.warnings.iter().chain(&parts.warnings) {
        warn!(target: "TBOT", "{warning}");
    }
    for ((kind, name), grants) in &parts.plugins {
        if grants.asks.private_key.is_some() {
            info!(target: "TBOT", "The {} plugin `{name}` is shown private keys, as `plugins` allows.", kind.name());
        }
    }
    if config.oneshot {
        let (bot, _lock) = wiring::bot(config, parts, clock, Arc::new(Unmonitored)).await?;
        let _pid_file = pid_file.map(PidFile::write).transpose()?;
        return bot.oneshot(shutdown).await.map_err(|all| list(&all));
    }
    let outputs = parts.outputs.iter().map(|output| (output.name().to_owned(), output.settings().kind.clone()));
    let own = (IDENTITY_SERVICE.to_owned(), IDENTITY_SERVICE.to_owned());
    let services = Services::new(outputs.chain([own]), clock.clone());
    let diagnostics = config.diag_addr.clone();
    let (bot, _lock) = wiring::bot(config, parts, clock, Arc::new(services.clone())).await?;
    // Only now: without the lock it may be that of another agent.
    let _pid_file = pid_file.map(PidFile::write).transpose()?;
    if let Some(address) = diagnostics {
        info!(target: "TBOT", "diag_addr configured, diagnostics service will be started.");
        let bound = Diagnostics::bind(&address, services).await;
        tokio::spawn(bound.map_err(|e| format!("diag_addr {address} cannot be listened on: {e}"))?.serve());
    }
    bot.run(reload, shutdown).await.map_err(|failure| failure.to_string())
}

/// The body of the process that compiles one plugin for a running agent.
pub(crate) fn compile(input: &Path, output: &Path) -> Result<(), String> {
    catalog::compile_child(input, output).map_err(|failure| failure.to_string())
}

/// Holds the process id as long as the agent runs.
struct PidFile(PathBuf);

impl PidFile {
    fn write(path: &Path) -> Result<Self, String> {
        std::fs::write(path, format!("{}\n", std::process::id()))
            .map_err(|e| format!("--pid-file {} cannot be written: {e}", path.display()))?;
        Ok(Self(path.to_owned()))
    }
}

impl Drop for PidFile {
    fn drop(&mut self) {
        let _ = std::fs::remove_file(&self.0);
    }
}

pub(crate) fn list(failures: &[identity::Failure]) -> String {
    failures.iter().map(ToString::to_string).collect::<Vec<_>>().join("\n\t")
}
