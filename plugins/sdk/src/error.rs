use crate::{Error, ErrorKind};

/// Messages are for the operator: lower case, no full stop, literal values in backticks, what to change last; never a secret.
impl Error {
    /// The operator has to change the configuration; the host shows file and line.
    pub fn invalid_config(message: impl Into<String>) -> Self {
        Self { kind: ErrorKind::InvalidConfig, message: message.into() }
    }

    /// Not there yet: the host tries again, with growing pauses.
    pub fn unavailable(message: impl Into<String>) -> Self {
        Self { kind: ErrorKind::Unavailable, message: message.into() }
    }

    /// The environment refused: the host tries again at the next renewal.
    pub fn denied(message: impl Into<String>) -> Self {
        Self { kind: ErrorKind::Denied, message: message.into() }
    }

    /// This cluster or host cannot do what was asked.
    pub fn unsupported(message: impl Into<String>) -> Self {
        Self { kind: ErrorKind::Unsupported, message: message.into() }
    }

    /// The plugin itself is at fault.
    pub fn internal(message: impl Into<String>) -> Self {
        Self { kind: ErrorKind::Internal, message: message.into() }
    }
}
