//! The host's log: at most 200 lines of 1 KiB a call. In a native test the lines go to standard error.

use crate::bindings::output::tbot::host::log::Level;

/// For whoever debugs the plugin.
pub fn debug(message: &str) {
    write(Level::Debug, message);
}

/// What happened.
pub fn info(message: &str) {
    write(Level::Info, message);
}

/// What the operator should look at.
pub fn warn(message: &str) {
    write(Level::Warn, message);
}

/// What went wrong; return an [`crate::Error`] as well.
pub fn error(message: &str) {
    write(Level::Error, message);
}

#[cfg(target_arch = "wasm32")]
fn write(level: Level, message: &str) {
    crate::bindings::output::tbot::host::log::write(level, message);
}

#[cfg(not(target_arch = "wasm32"))]
fn write(level: Level, message: &str) {
    eprintln!("{level:?}: {message}");
}
