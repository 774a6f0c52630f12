//! SIGTERM and SIGINT end, SIGHUP and SIGUSR1 renew now (surface §F.2).

use renewal::Reload;
use tokio::signal::unix::{Signal, SignalKind, signal};
use tracing::info;

/// The handlers, installed before anything else happens: a signal is never lost to the default action.
pub(crate) struct Signals {
    terminate: Signal,
    interrupt: Signal,
    hangup: Signal,
    user: Signal,
}

impl Signals {
    pub(crate) fn install() -> std::io::Result<Self> {
        Ok(Self {
            terminate: signal(SignalKind::terminate())?,
            interrupt: signal(SignalKind::interrupt())?,
            hangup: signal(SignalKind::hangup())?,
            user: signal(SignalKind::user_defined1())?,
        })
    }

    /// Completes when the process is asked to end; asks for a reload on the way, as often as it is told to.
    pub(crate) async fn shutdown(mut self, reload: Reload) {
        loop {
            tokio::select! {
                _ = self.terminate.recv() => break,
                _ = self.interrupt.recv() => break,
                _ = self.hangup.recv() => {}
                _ = self.user.recv() => {}
            }
            info!(target: "TBOT", "Received reload signal, queueing reload.");
            reload.trigger();
        }
        info!(target: "TBOT", "Received interrupt, triggering shutdown.");
    }
}
