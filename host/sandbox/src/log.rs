//! What a guest says, by the log's own function or by printing: one budget of lines for both.

use std::io;
use std::pin::Pin;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll};

use tokio::io::AsyncWrite;
use tracing::{debug, error, info, warn};
use wasmtime_wasi::cli::{IsTerminal, StdoutStream};

use crate::bindings::output::tbot::host::log::Level;
use crate::error::escaped;
use crate::limits::{LOG_LINES, TEXT_BYTES};

/// The lines of one call.
pub(crate) struct Lines {
    plugin: Arc<str>,
    written: AtomicUsize,
}

impl Lines {
    pub(crate) fn new(plugin: Arc<str>) -> Arc<Self> {
        Arc::new(Self { plugin, written: AtomicUsize::new(0) })
    }

    pub(crate) fn write(&self, level: Level, message: &str) {
        let (before, plugin) = (self.written.fetch_add(1, Ordering::Relaxed), &self.plugin);
        if before == LOG_LINES {
            warn!(target: "PLUGIN", plugin = %plugin, "More than {LOG_LINES} lines in one call, the rest is dropped.");
        }
        if before >= LOG_LINES {
            return;
        }
        let message = escaped(message);
        match level {
            Level::Debug => debug!(target: "PLUGIN", plugin = %plugin, "{message}"),
            Level::Info => info!(target: "PLUGIN", plugin = %plugin, "{message}"),
            Level::Warn => warn!(target: "PLUGIN", plugin = %plugin, "{message}"),
            Level::Error => error!(target: "PLUGIN", plugin = %plugin, "{message}"),
        }
    }
}

/// WASI's standard output or standard error: complete lines go to the log at once, an unfinished one when the call is over.
#[derive(Clone)]
pub(crate) struct Console {
    lines: Arc<Lines>,
    level: Level,
    unfinished: Arc<Mutex<Vec<u8>>>,
}

impl Console {
    pub(crate) fn new(lines: Arc<Lines>, level: Level) -> Self {
        Self { lines, level, unfinished: Arc::default() }
    }

    /// Writes what has no end of line. Not left to `drop`: WASI's own task holds a stream for a moment longer than the call lasts.
    pub(crate) fn finish(&self) {
        let text = std::mem::take(&mut *self.unfinished.lock().unwrap_or_else(PoisonError::into_inner));
        if !text.is_empty() {
            self.lines.write(self.level, &String::from_utf8_lossy(&text));
        }
    }

    fn append(&self, bytes: &[u8]) {
        let mut text = self.unfinished.lock().unwrap_or_else(PoisonError::into_inner);
        for part in bytes.split_inclusive(|byte| *byte == b'\n') {
            // A line is cut when it is written: what is behind the cut need not be kept.
            let room = (TEXT_BYTES + 1).saturating_sub(text.len());
            let (part, ended) = part.strip_suffix(b"\n").map_or((part, false), |part| (part, true));
            text.extend_from_slice(&part[..part.len().min(room)]);
            if ended {
                self.lines.write(self.level, &String::from_utf8_lossy(&std::mem::take(&mut *text)));
            }
        }
    }
}

impl IsTerminal for Console {
    fn is_terminal(&self) -> bool {
        false
    }
}

impl StdoutStream for Console {
    fn async_stream(&self) -> Box<dyn AsyncWrite + Send + Sync> {
        Box::new(self.clone())
    }
}

impl AsyncWrite for Console {
    fn poll_write(self: Pin<&mut Self>, _: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        self.append(bytes);
        Poll::Ready(Ok(bytes.len()))
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }
}
