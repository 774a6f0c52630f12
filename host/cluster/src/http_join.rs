//! Joining over HTTP: what clusters up to version 15 understand, and later ones keep for old clients (wire §b.2, §b.3).

use base64::Engine;
use base64::engine::general_purpose::STANDARD as BASE64;
use hyper::body::Bytes;
use identity::{Certificates, Failure, FailureKind};
use serde::{Deserialize, Serialize};
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;

use crate::address::Route;
use crate::error::{RouteError, http};
use crate::registration::Registration;

/// `types.RegisterUsingTokenRequest` in its JSON form (wire §b.1).
#[derive(Serialize)]
struct Request<'a> {
    #[serde(rename = "hostID")]
    host_id: &'a str,
    node_name: &'a str,
    role: &'a str,
    token: &'a str,
    additional_principals: Option<Vec<String>>,
    dns_names: Option<Vec<String>>,
    public_tls_key: String,
    public_ssh_key: String,
    remote_addr: &'a str,
    ec2_id: Option<String>,
    id_token: &'a str,
    expires: String,
}

#[derive(Deserialize)]
struct Certs {
    ssh: String,
    tls: String,
    #[serde(default)]
    tls_ca_certs: Vec<String>,
    #[serde(default)]
    ssh_ca_certs: Vec<String>,
}

/// The registration as a POST to `to`.
pub(crate) fn request(registration: &Registration<'_>, to: &str) -> http::Result<http::Request<Bytes>> {
    let expires =
        OffsetDateTime::from_unix_timestamp(registration.expires().0).ok().and_then(|at| at.format(&Rfc3339).ok());
    let request = Request {
        host_id: "",
        node_name: "",
        role: "Bot",
        token: registration.token(),
        additional_principals: None,
        dns_names: None,
        public_tls_key: BASE64.encode(registration.key().pem()),
        public_ssh_key: BASE64.encode(format!("{}\n", registration.key().ssh_line())),
        remote_addr: "",
        ec2_id: None,
        id_token: registration.id_token(),
        expires: expires.unwrap_or_default(),
    };
    // Nothing in it can fail to be JSON.
    let body = serde_json::to_vec(&request).unwrap_or_default();
    http::Request::post(to).header(http::header::CONTENT_TYPE, "application/json").body(body.into())
}

/// Reads the certificates. An answer that is not Teleport's counts as no connection.
pub(crate) fn outcome(route: &Route, status: u16, body: &[u8]) -> Result<Certificates, RouteError> {
    let teleport = serde_json::from_slice::<serde_json::Value>(body).is_ok_and(|json| json.is_object());
    match status {
        200 => read(body).ok_or_else(|| {
            RouteError::answer(Failure::new(FailureKind::Denied, "the cluster's answer to the join cannot be read"))
        }),
        _ if !teleport => Err(RouteError::connection(format_args!(
            "it does not answer as a Teleport {}: HTTP status {status}",
            route.service()
        ))),
        _ => Err(RouteError::answer(http(status, body))),
    }
}

fn read(body: &[u8]) -> Option<Certificates> {
    let certs: Certs = serde_json::from_slice(body).ok()?;
    let text = |encoded: &String| String::from_utf8(BASE64.decode(encoded).ok()?).ok();
    Some(Certificates {
        ssh: text(&certs.ssh)?,
        tls: text(&certs.tls)?,
        tls_authorities: certs.tls_ca_certs.iter().map(text).collect::<Option<_>>()?,
        ssh_authorities: certs.ssh_ca_certs.iter().map(text).collect::<Option<_>>()?,
    })
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use identity::{Identity, PrivateKey, TlsCertificate};

    use super::*;

    /// Every recorded join, by both routes and with every kind of key, becomes an identity.
    #[test]
    fn every_recorded_answer_becomes_an_identity() {
        for name in ["rsa", "ec", "ed", "auth-rsa", "auth-ec"] {
            let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/../../tests/recordings/v15/join-http");
            let text = std::fs::read_to_string(format!("{folder}/{name}.json")).unwrap();
            let recorded: serde_json::Value = serde_json::from_str(&text).unwrap();
            let certificates = read(recorded["response"].as_str().unwrap().as_bytes()).unwrap();
            let key = PrivateKey::from_pem(&std::fs::read(format!("{folder}/{name}.key")).unwrap()).unwrap();
            let at = TlsCertificate::parse(certificates.tls.as_bytes()).unwrap().after;
            let identity = Identity::new(Arc::new(key), certificates, at).unwrap_or_else(|e| panic!("{name}: {e}"));
            assert!(identity.tls.subject.renewable() && identity.tls.subject.generation() == 1, "{name}");
            assert_eq!(identity.cluster(), "lab.example.com");
        }
    }
}
