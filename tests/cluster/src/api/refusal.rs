//! Refusals, as a gRPC status and as HTTP (wire §j).

use http::{Response, StatusCode};
use tonic::{Code, Status, body::Body};

use super::hostile;
use crate::faults::Hostile;

/// Why a request is refused, with the text for the client.
#[derive(Debug, Clone)]
pub(crate) enum Refusal {
    NotFound(String),
    AccessDenied(String),
    BadParameter(String),
    ConnectionProblem(String),
    NotImplemented(String),
    /// The connection must end without an answer.
    Cut,
    Internal(String),
    /// No refusal: harm.
    Hostile(Hostile),
}

impl std::fmt::Display for Refusal {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.write_str(self.status().message())
    }
}

impl std::error::Error for Refusal {}

impl Refusal {
    pub fn status(&self) -> Status {
        let (code, message) = match self {
            Self::NotFound(message) => (Code::NotFound, message.as_str()),
            Self::AccessDenied(message) => (Code::PermissionDenied, message.as_str()),
            Self::BadParameter(message) => (Code::InvalidArgument, message.as_str()),
            Self::ConnectionProblem(message) => (Code::Unavailable, message.as_str()),
            Self::NotImplemented(message) => (Code::Unimplemented, message.as_str()),
            Self::Cut => (Code::Unavailable, "the connection is cut"),
            Self::Internal(message) => (Code::Unknown, message.as_str()),
            Self::Hostile(_) => (Code::Unknown, "harm"),
        };
        Status::new(code, message)
    }

    /// The whole answer to a gRPC request.
    pub fn grpc(&self) -> Response<Body> {
        match self {
            Self::Hostile(how) => hostile::grpc(*how),
            refusal => refusal.status().into_http(),
        }
    }

    pub fn response(&self) -> Response<Body> {
        let (code, message) = match self {
            Self::NotFound(message) => (StatusCode::NOT_FOUND, message.as_str()),
            Self::AccessDenied(message) => (StatusCode::FORBIDDEN, message.as_str()),
            Self::BadParameter(message) => (StatusCode::BAD_REQUEST, message.as_str()),
            Self::ConnectionProblem(message) => (StatusCode::GATEWAY_TIMEOUT, message.as_str()),
            Self::NotImplemented(message) => (StatusCode::NOT_IMPLEMENTED, message.as_str()),
            Self::Cut => (StatusCode::GATEWAY_TIMEOUT, "the connection is cut"),
            Self::Internal(message) => (StatusCode::INTERNAL_SERVER_ERROR, message.as_str()),
            Self::Hostile(how) => return hostile::http(*how),
        };
        super::json::indented(code, &serde_json::json!({ "error": { "message": message } }))
    }
}

impl From<anyhow::Error> for Refusal {
    fn from(error: anyhow::Error) -> Self {
        Self::Internal(format!("{error:#}"))
    }
}

impl From<Refusal> for Status {
    fn from(refusal: Refusal) -> Self {
        refusal.status()
    }
}
