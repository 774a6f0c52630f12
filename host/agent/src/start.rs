//! `tbot start`: configuration in, a running bot out.

use std::path::Path;
use std::sync::Arc;

use config::Config;
use identity::SystemClock;
use renewal::Reload;
use tokio::runtime::Runtime;
use tracing::{info, warn};

use crate::flags::{Flags, Start};
use crate::signals::Signals;
use crate::wiring;

/// Runs until a signal, or in one-shot mode until everything was renewed once.
pub(crate) fn start(flags: &Flags, start: &Start) -> Result<(), String> {
    let config = wiring::configuration(flags, start)?;
    telemetry::init(flags.log_format.into(), config.debug);
    runtime()?.block_on(run(config))
}

/// Where everything asynchronous runs.
pub(crate) fn runtime() -> Result<Runtime, String> {
    // Two threads are enough for sockets; what takes CPU (keys, files) runs on blocking threads.
    let built = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build();
    built.map_err(|e| format!("the runtime cannot be started: {e}"))
}

async fn run(config: Config) -> Result<(), String> {
    let signals = Signals::install().map_err(|e| format!("signals cannot be handled: {e}"))?;
    let reload = Reload::new();
    let shutdown = signals.shutdown(reload.clone());
    for warning in &config.warnings {
        warn!(target: "TBOT", "{warning}");
    }
    if config.diag_addr.is_some() {
        warn!(target: "TBOT", "`diag_addr` is not supported yet: no diagnostics are served.");
    }
    if std::env::var_os("TELEPORT_ANONYMOUS_TELEMETRY").is_some() {
        info!(target: "TBOT", "TELEPORT_ANONYMOUS_TELEMETRY is recognised; this build reports nothing anywhere.");
    }
    info!(target: "TBOT", "Initializing bot identity.");
    let oneshot = config.oneshot;
    let (bot, _lock) = wiring::bot(config, Arc::new(SystemClock)).await.map_err(|all| list(&all))?;
    if oneshot {
        return bot.oneshot(shutdown).await.map_err(|all| list(&all));
    }
    bot.run(reload, shutdown).await.map_err(|failure| failure.to_string())
}

/// The body of the process that compiles one plugin for a running agent.
pub(crate) fn compile(input: &Path, output: &Path) -> Result<(), String> {
    catalog::compile_child(input, output).map_err(|failure| failure.to_string())
}

pub(crate) fn list(failures: &[identity::Failure]) -> String {
    failures.iter().map(ToString::to_string).collect::<Vec<_>>().join("\n\t")
}
