//! One call: a store, a deadline by epoch and by wall clock, and words for how it ended.

use std::time::Duration;

use identity::FailureKind;
use wasmtime::{Store, Trap, UpdateDeadline};

use crate::bindings::output::tbot::types::types;
use crate::engine::Plugin;
use crate::error::{CallError, escaped};
use crate::host::State;
use crate::limits::{MEMORY_BYTES, RESULT_BYTES, TICK};

/// Runs `body` in a fresh store of `plugin`.
pub(crate) async fn call<T>(
    plugin: &Plugin,
    function: &'static str,
    deadline: Duration,
    body: impl AsyncFnOnce(&mut Store<State>) -> wasmtime::Result<T>,
) -> Result<T, CallError> {
    let late = || CallError::Deadline { plugin: plugin.name.to_string(), function, seconds: deadline.as_secs() };
    let mut store = plugin.store();
    let mut left = ticks(deadline);
    store.set_epoch_deadline(1);
    store.epoch_deadline_callback(move |_| {
        left = left.saturating_sub(1);
        // Others on this thread get their turn at every tick.
        if left == 0 { Ok(UpdateDeadline::Interrupt) } else { Ok(UpdateDeadline::Yield(1)) }
    });
    let _running = plugin.running();
    // Twice: a guest that only waits burns no ticks.
    match tokio::time::timeout(deadline, body(&mut store)).await {
        Err(_) => Err(late()),
        Ok(Ok(value)) => Ok(value),
        Ok(Err(error)) => Err(explain(plugin, function, &error, &store, late)),
    }
}

fn explain(
    plugin: &Plugin,
    function: &'static str,
    error: &wasmtime::Error,
    store: &Store<State>,
    late: impl Fn() -> CallError,
) -> CallError {
    let plugin = plugin.name.to_string();
    let cause = error.root_cause().to_string();
    if store.data().out_of_memory {
        return CallError::OutOfMemory { plugin, function, mebibytes: MEMORY_BYTES >> 20 };
    }
    match error.downcast_ref::<Trap>() {
        Some(Trap::Interrupt) => late(),
        Some(trap) => CallError::Trapped { plugin, function, trap: escaped(&trap.to_string()) },
        None if cause.contains("too much data is being copied") => {
            CallError::ResultTooLarge { plugin, function, mebibytes: RESULT_BYTES >> 20 }
        }
        None => CallError::Trapped { plugin, function, trap: escaped(&cause) },
    }
}

/// Ticks of the epoch in `deadline`.
pub(crate) const fn ticks(deadline: Duration) -> u64 {
    (deadline.as_millis() / TICK.as_millis()) as u64
}

/// What the guest itself reported.
pub(crate) fn reported(plugin: &Plugin, error: types::Error) -> CallError {
    let kind = match error.kind {
        types::ErrorKind::InvalidConfig => FailureKind::InvalidConfig,
        types::ErrorKind::Unavailable => FailureKind::Unavailable,
        types::ErrorKind::Denied => FailureKind::Denied,
        types::ErrorKind::Unsupported => FailureKind::Unsupported,
        types::ErrorKind::Internal => FailureKind::Plugin,
    };
    let message = escaped(&error.message);
    let message = if kind == FailureKind::Plugin { format!("plugin `{}`: {message}", plugin.name) } else { message };
    CallError::Guest { message, kind }
}
