use identity::{Failure, FailureKind};

use crate::limits::TEXT_BYTES;

/// A call that failed. The guest's fault, unless it says otherwise; each names plugin, function and remedy.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum CallError {
    /// The guest hit an instruction that cannot be carried out.
    #[error("plugin `{plugin}` crashed in `{function}` ({trap}): report it to its author")]
    Trapped {
        /// Name of the plugin.
        plugin: String,
        /// The function called.
        function: &'static str,
        /// What wasmtime says.
        trap: String,
    },
    /// The guest ran longer than it may.
    #[error("plugin `{plugin}` did not finish `{function}` within {seconds} s: report it to its author")]
    Deadline {
        /// Name of the plugin.
        plugin: String,
        /// The function called.
        function: &'static str,
        /// The limit, seconds.
        seconds: u64,
    },
    /// The guest wanted more memory than it may have.
    #[error("plugin `{plugin}` wanted more than {mebibytes} MiB of memory in `{function}`: report it to its author")]
    OutOfMemory {
        /// Name of the plugin.
        plugin: String,
        /// The function called.
        function: &'static str,
        /// The limit, MiB.
        mebibytes: usize,
    },
    /// The guest handed over more than it may.
    #[error("plugin `{plugin}` returned more than {mebibytes} MiB from `{function}`: report it to its author")]
    ResultTooLarge {
        /// Name of the plugin.
        plugin: String,
        /// The function called.
        function: &'static str,
        /// The limit, MiB.
        mebibytes: usize,
    },
    /// The component is not what it claims to be, or was made for another host.
    #[error("plugin `{plugin}` cannot be used: {reason}")]
    BadResult {
        /// Name of the plugin.
        plugin: String,
        /// What does not fit, and the remedy.
        reason: String,
    },
    /// The component imports something that this host does not give.
    #[error(
        "plugin `{plugin}` imports `{import}`, which {kind} plugin does not get: build it against the published WIT"
    )]
    RefusedCapability {
        /// Name of the plugin.
        plugin: String,
        /// The import.
        import: String,
        /// The kind of plugin, with its article.
        kind: &'static str,
    },
    /// The guest reported an error of its own.
    #[error("{message}")]
    Guest {
        /// What the guest says, escaped and cut.
        message: String,
        /// Decides about retry.
        kind: FailureKind,
    },
}

impl From<CallError> for Failure {
    fn from(error: CallError) -> Self {
        let kind = match &error {
            CallError::Guest { kind, .. } => *kind,
            _ => FailureKind::Plugin,
        };
        Failure::new(kind, error.to_string())
    }
}

/// A guest's text, fit for a log line: no control characters, none that turn the direction of what follows, not long.
pub(crate) fn escaped(text: &str) -> String {
    let mut out = String::new();
    for c in text.chars() {
        if out.len() >= TEXT_BYTES {
            out.push('…');
            break;
        }
        let unseen = matches!(c, '\u{200e}' | '\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2066}'..='\u{2069}');
        if c.is_control() || unseen { out.extend(c.escape_default()) } else { out.push(c) }
    }
    out
}
