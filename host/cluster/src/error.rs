//! What went wrong on the wire, in words that say what to do (wire §j, rust-wire §8).

use std::error::Error;
use std::fmt;

use identity::{Failure, FailureKind};
use tonic::Code;

use crate::address::Route;

/// Most characters of a cluster's message that are shown: real ones are a sentence or two.
const WORDS: usize = 1000;

/// Why one route did not work, and whether another may.
#[derive(Debug)]
pub(crate) struct RouteError {
    /// The connection itself failed: another route may work.
    pub(crate) connection: bool,
    pub(crate) failure: Failure,
}

impl RouteError {
    pub(crate) fn connection(message: impl fmt::Display) -> Self {
        Self { connection: true, failure: Failure::new(FailureKind::Unavailable, message.to_string()) }
    }

    pub(crate) fn answer(failure: Failure) -> Self {
        Self { connection: false, failure }
    }
}

/// One failure for everything that was tried.
pub(crate) fn none_worked(what: &str, tried: Vec<(Route, RouteError)>) -> Failure {
    let kind = tried.last().map_or(FailureKind::Unavailable, |(_, error)| error.failure.kind);
    let each: Vec<_> = tried
        .iter()
        .map(|(route, error)| format!("{route} as {}: {}", route.service(), error.failure.message))
        .collect();
    Failure::new(kind, format!("{what}: {}", each.join("; ")))
}

/// Why a connection or TLS handshake to `route` failed.
pub(crate) fn explain(route: &Route, error: &(dyn Error + 'static)) -> String {
    let mut source = Some(error);
    while let Some(current) = source {
        if let Some(tls) = current.downcast_ref::<rustls::Error>() {
            return explain_tls(route, tls);
        }
        source = current.source();
        if let Some(io) = current.downcast_ref::<std::io::Error>() {
            if io.kind() == std::io::ErrorKind::UnexpectedEof {
                return format!("{route} closed the connection during TLS: wrong port or cluster name");
            }
            match io.get_ref() {
                // Its `source` would skip what it wraps.
                Some(wrapped) => source = Some(wrapped),
                None => return io.to_string(),
            }
        }
    }
    root(error).to_string()
}

fn explain_tls(route: &Route, error: &rustls::Error) -> String {
    use rustls::{AlertDescription, CertificateError, Error as Tls};
    match error {
        Tls::InvalidCertificate(CertificateError::UnknownIssuer) => format!(
            "the certificate of {route} is not signed by a trusted authority: check `ca_pins`, `ca_path` or SSL_CERT_FILE, and whether the address is a proxy or an auth server"
        ),
        Tls::InvalidCertificate(
            CertificateError::NotValidForName | CertificateError::NotValidForNameContext { .. },
        ) => {
            format!("the certificate of {route} is for another name: use the name that the certificate holds")
        }
        Tls::InvalidCertificate(CertificateError::Expired | CertificateError::ExpiredContext { .. }) => {
            format!("the certificate of {route} has expired, or this machine's clock is wrong")
        }
        Tls::InvalidCertificate(CertificateError::NotValidYet | CertificateError::NotValidYetContext { .. }) => {
            format!("the certificate of {route} is not valid yet: this machine's clock is behind, set it")
        }
        Tls::InvalidMessage(_) => format!("{route} does not speak TLS"),
        Tls::AlertReceived(AlertDescription::CertificateExpired) => {
            "the cluster says that the bot's certificate has expired".into()
        }
        Tls::AlertReceived(AlertDescription::UnknownCA | AlertDescription::BadCertificate) => {
            "the cluster does not accept the bot's certificate: is it of this cluster, and not expired?".into()
        }
        other => other.to_string(),
    }
}

fn root<'a>(error: &'a (dyn Error + 'static)) -> &'a (dyn Error + 'static) {
    let mut current = error;
    while let Some(next) = current.source() {
        current = next;
    }
    current
}

/// A gRPC status as a failure (wire §j.1, §j.3).
pub(crate) fn status(route: &Route, status: &tonic::Status) -> Failure {
    let message = &said(status.message());
    let kind = match status.code() {
        Code::Unavailable
        | Code::DeadlineExceeded
        | Code::ResourceExhausted
        | Code::Aborted
        | Code::FailedPrecondition => FailureKind::Unavailable,
        // The client's own timeout and cut connections arrive under these.
        Code::Cancelled => FailureKind::Unavailable,
        Code::Unknown | Code::Internal if status.source().is_some() || message.contains("transport error") => {
            FailureKind::Unavailable
        }
        Code::PermissionDenied | Code::NotFound if let Some(why) = turned_away(message) => {
            return Failure::new(FailureKind::Revoked, format!("{message}: {why}"));
        }
        // Clusters do not answer so: it is how what they sent reads.
        Code::Internal | Code::OutOfRange | Code::DataLoss => {
            let words = format!("{route} answered what cannot be read: {message}");
            return Failure::new(FailureKind::Unavailable, words);
        }
        Code::Unimplemented => FailureKind::Unsupported,
        _ => FailureKind::Denied,
    };
    if message.contains("client version is unsupported") {
        return Failure::new(
            FailureKind::Unsupported,
            format!(
                "{message}: set {} to a version that the cluster admits, its own for instance",
                crate::version::OVERRIDE
            ),
        );
    }
    let words = match status.source() {
        Some(source) if kind == FailureKind::Unavailable => format!("{route}: {}", explain(route, source)),
        _ if message.is_empty() => format!("{route} answered {:?}", status.code()),
        _ => message.to_owned(),
    };
    Failure::new(kind, words)
}

/// What to do where a cluster refuses the bot itself. After a lock or the removal of a bot its authorizer says no more than
/// that access is denied, to every call (seen of versions 12 and 15).
fn turned_away(message: &str) -> Option<&'static str> {
    let is_bare =
        |words| message.strip_prefix(words).is_some_and(|rest| rest.is_empty() || rest.starts_with(": user "));
    if message.contains("generation mismatch") {
        Some(
            "another copy of this identity was used, or the answer to a renewal was lost; remove the lock (`tctl get locks`), make the bot again (`tctl bots rm`, `tctl bots add`) and set `onboarding.token` to its new token",
        )
    } else if message.contains("lock targeting") {
        Some(
            "an operator has locked the bot, or another copy of its identity was used; remove the lock (`tctl get locks`)",
        )
    } else if is_bare("access denied") || is_bare("[10] access denied") {
        Some(
            "the cluster turns this bot away whatever it asks, so it is locked or was removed; remove the lock (`tctl get locks`), or make the bot again (`tctl bots rm`, `tctl bots add`) and set `onboarding.token` to its new token",
        )
    } else {
        None
    }
}

/// A cluster's own words, fit for a terminal and a log: not long, and no control characters but line ends. What wraps an error
/// comes on a line of its own above it; here it becomes one line.
fn said(words: &str) -> String {
    let words = &words.replace("\n\t", ": ");
    let fit = |c: char| if c.is_control() && c != '\n' { ' ' } else { c };
    let mut kept: String = words.chars().take(WORDS).map(fit).collect();
    if kept.len() < words.len() && words.chars().nth(WORDS).is_some() {
        kept.push('…');
    }
    kept
}

/// An HTTP answer other than 200 as a failure (wire §j.2).
pub(crate) fn http(code: u16, body: &[u8]) -> Failure {
    let json: serde_json::Value = serde_json::from_slice(body).unwrap_or_default();
    let message = json.pointer("/error/message").or_else(|| json.get("message")).and_then(|text| text.as_str());
    let words = message.map_or_else(|| format!("HTTP status {code}"), said);
    let kind = match code {
        404 | 501 => FailureKind::Unsupported,
        429 | 500..=599 => FailureKind::Unavailable,
        _ => FailureKind::Denied,
    };
    with_remedy(Failure::new(kind, words))
}

/// What to do where a join was refused: the cluster's words stay, the remedy follows.
pub(crate) fn with_remedy(mut failure: Failure) -> Failure {
    let says = |text| failure.message.contains(text);
    let remedy = if says("token expired or not found") || says("token is not valid") {
        "the token is wrong, expired or already used: create a new one and set `onboarding.token`"
    } else if says("match any allow rules") {
        "the token is known, and its `spec` allows other machines than this one: compare it (`tctl get token/NAME`) with what this machine is"
    } else if ["has expired", "have expired", "is expired", "not valid yet", "in the future"].into_iter().any(says) {
        "what proves this machine is good for minutes: compare its clock (`date -u`) with the cluster's"
    } else if ["connected to the wrong endpoint", "join method is", "this token does not support", "not provided for"]
        .into_iter()
        .any(says)
    {
        "set `onboarding.join_method` to the method of the token"
    } else if let Some(why) = turned_away(&failure.message) {
        why
    } else {
        return failure;
    };
    failure.message = format!("{}; {remedy}", failure.message);
    failure
}

#[cfg(test)]
mod tests {
    use super::*;

    fn route() -> Route {
        Route { proxy: true, host: "localhost".into(), port: 3080, way: crate::address::Way::Direct }
    }

    #[test]
    fn the_recorded_refusal_of_a_token_keeps_its_words_and_gets_a_remedy() {
        let text = std::fs::read_to_string(concat!(
            env!("CARGO_MANIFEST_DIR"),
            "/../../tests/recordings/v15/join-http/wrong.json"
        ))
        .unwrap();
        let recorded: serde_json::Value = serde_json::from_str(&text).unwrap();
        let failure = http(403, recorded["response"].as_str().unwrap().as_bytes());
        assert_eq!(failure.kind, FailureKind::Denied);
        assert!(
            failure.message.starts_with("\"\" can not join the cluster with role \"Bot\", token expired or not found")
        );
        assert!(failure.message.contains("create a new one"));
    }

    #[test]
    fn a_lock_and_a_generation_mismatch_are_told_apart_from_a_refusal() {
        for (message, kind) in [
            ("renewable cert generation mismatch: stored=2, presented=1", FailureKind::Revoked),
            ("lock targeting User:\"bot-x\" is in force: gone", FailureKind::Revoked),
            ("access denied", FailureKind::Revoked),
            ("[10] access denied", FailureKind::Revoked),
            ("access denied\n\tuser \"bot-x\" not found", FailureKind::Revoked),
            ("access denied to perform action \"read\" on \"role\"", FailureKind::Denied),
            ("access denied: identity is not allowed to reissue certificates", FailureKind::Denied),
            ("user \"bot-x\" has requested role impersonation for [\"x\"]", FailureKind::Denied),
        ] {
            assert_eq!(status(&route(), &tonic::Status::permission_denied(message)).kind, kind, "{message}");
        }
        assert_eq!(status(&route(), &tonic::Status::unavailable("x")).kind, FailureKind::Unavailable);
        assert_eq!(status(&route(), &tonic::Status::unimplemented("x")).kind, FailureKind::Unsupported);
    }

    #[test]
    fn what_cannot_be_read_is_no_refusal() {
        let failure = status(&route(), &tonic::Status::internal("failed to decode"));
        assert_eq!(failure.kind, FailureKind::Unavailable);
        assert_eq!(failure.message, "localhost:3080 answered what cannot be read: failed to decode");
    }

    #[test]
    fn a_version_that_is_not_admitted_says_what_to_set() {
        let gate = "client version is unsupported, minimum supported version is 19.0.0";
        let failure = status(&route(), &tonic::Status::permission_denied(gate));
        assert_eq!(failure.kind, FailureKind::Unsupported);
        assert!(failure.message.starts_with(gate) && failure.message.contains("TBOT_CLIENT_VERSION"), "{failure}");
    }

    #[test]
    fn a_wrong_clock_is_named() {
        use rustls::CertificateError::{Expired, NotValidYet};
        for error in [Expired, NotValidYet] {
            let words = explain(&route(), &rustls::Error::InvalidCertificate(error));
            assert!(words.starts_with("the certificate of localhost:3080 ") && words.contains("clock"), "{words}");
        }
        for message in [
            "client credentials have expired",
            "the attested document has expired",
            "square/go-jose/jwt: validation failed, token is expired (exp)",
            "square/go-jose/jwt: validation failed, token not valid yet (nbf)",
        ] {
            let failure = with_remedy(Failure::new(FailureKind::Denied, message));
            assert!(failure.message.starts_with(message) && failure.message.contains("`date -u`"), "{failure}");
        }
    }

    #[test]
    fn one_message_names_every_address_and_its_reason() {
        let auth = Route { proxy: false, ..route() };
        let tried = vec![(route(), RouteError::connection("refused")), (auth, RouteError::connection("no TLS"))];
        let failure = none_worked("the cluster cannot be reached", tried);
        assert_eq!(
            failure.message,
            "the cluster cannot be reached: localhost:3080 as proxy: refused; localhost:3080 as auth server: no TLS"
        );
    }

    #[test]
    fn a_page_of_html_is_not_shown_as_a_message() {
        assert_eq!(http(502, b"<html>").message, "HTTP status 502");
    }
}
