use std::fmt;

/// Who has to act, and with that: when the host tries again (architecture §8).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum FailureKind {
    /// Not there yet, or not reachable: retried with back-off.
    Unavailable,
    /// The cluster or the environment refused: retried at the interval.
    Denied,
    /// The identity itself is refused (locked, generation mismatch): loud, retried slowly, an operator has to act.
    Revoked,
    /// The request left and its answer was lost: must not be repeated blindly (wire §g.3).
    AnswerLost,
    /// The operator has to change the configuration.
    InvalidConfig,
    /// This cluster or this host cannot do what was asked.
    Unsupported,
    /// A plugin trapped, ran too long or answered nonsense.
    Plugin,
    /// A destination cannot be read or written.
    Storage,
    /// The identity is past its end and cannot be renewed.
    Expired,
    /// A defect of the host.
    Internal,
}

/// What went wrong, for a person, and its kind, for the loops. The message is lower case, without a full stop, remedy last,
/// and never holds a secret.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Failure {
    /// Decides about retry and health.
    pub kind: FailureKind,
    /// For a person: what, where, and how to mend it.
    pub message: String,
}

impl Failure {
    /// A failure of `kind`; `message` is for a person.
    pub fn new(kind: FailureKind, message: impl Into<String>) -> Self {
        Self { kind, message: message.into() }
    }

    /// The same failure with `what` and a colon in front of its message.
    #[must_use]
    pub fn context(mut self, what: impl fmt::Display) -> Self {
        self.message = format!("{what}: {}", self.message);
        self
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)
    }
}

impl std::error::Error for Failure {}
