//! The JSON interface that auth servers up to version 13 have for what later ones offer over gRPC (wire §f.4, §l).

use std::io;
use std::sync::Arc;
use std::time::Duration;

use base64::Engine;
use base64::engine::general_purpose::STANDARD as BASE64;
use http_body_util::{BodyExt, Full, Limited};
use hyper::body::Bytes;
use hyper_util::rt::TokioIo;
use identity::{Authority, Failure, FailureKind, Identity};
use rustls::ClientConfig;
use serde::Deserialize;

use crate::address::Route;
use crate::channel::{API_DOMAIN, auth_protocol, dial, server_name};
use crate::error::{explain, http};
use crate::trust::{ClientCertificate, Trust, client_config};
use crate::wire::teleport::trust::v1::GenerateHostCertRequest;

/// The largest answer that is read: authorities of many leaf clusters, and room.
const BODY_BYTES: usize = 4 << 20;
/// Bound on one exchange (wire §0.1).
pub(crate) const TIMEOUT: Duration = Duration::from_secs(30);

#[derive(Deserialize)]
struct Resource {
    spec: Spec,
}

#[derive(Deserialize)]
struct Spec {
    cluster_name: String,
    #[serde(default)]
    active_keys: KeySet,
    #[serde(default)]
    additional_trusted_keys: KeySet,
}

#[derive(Deserialize, Default)]
#[serde(default)]
struct KeySet {
    ssh: Option<Vec<Pair>>,
    tls: Option<Vec<Pair>>,
}

/// `SSHKeyPair` and `TLSKeyPair`, without what is private.
#[derive(Deserialize)]
struct Pair {
    #[serde(alias = "public_key")]
    cert: String,
}

/// All authorities of a kind.
pub(crate) async fn authorities(route: &Route, identity: &Identity, kind: &str) -> Result<Vec<Authority>, Failure> {
    let path = format!("/v2/authorities/{kind}?load_keys=false");
    let request = http::Request::get(path).body(Bytes::new());
    let client = ClientCertificate { der: &identity.tls.der, pkcs8: identity.key.pkcs8_der() };
    read(&ask(route, identity, client, request).await?).ok_or_else(unreadable)
}

/// An SSH host certificate, as the line of a file. `client` is who asks, of the cluster of `identity`.
pub(crate) async fn host_certificate(
    route: &Route,
    identity: &Identity,
    client: ClientCertificate<'_>,
    wanted: &GenerateHostCertRequest,
) -> Result<String, Failure> {
    let nanoseconds = wanted.ttl.map_or(0, |ttl| ttl.seconds.saturating_mul(1_000_000_000));
    let body = serde_json::json!({
        "key": BASE64.encode(&wanted.key),
        "hostname": wanted.host_id,
        "node_name": wanted.node_name,
        "principals": wanted.principals,
        "auth_domain": wanted.cluster_name,
        "roles": [wanted.role],
        "ttl": nanoseconds,
    });
    let request = http::Request::post("/v2/ca/host/certs").header(http::header::CONTENT_TYPE, "application/json");
    let answer = ask(route, identity, client, request.body(body.to_string().into())).await?;
    serde_json::from_slice(&answer).map_err(|_| unreadable())
}

/// What is answered with status 200.
async fn ask(
    route: &Route,
    identity: &Identity,
    client: ClientCertificate<'_>,
    request: http::Result<http::Request<Bytes>>,
) -> Result<Bytes, Failure> {
    let unavailable = |words: String| Failure::new(FailureKind::Unavailable, words);
    let routed = auth_protocol(identity.cluster());
    let alpn: &[&str] = if route.proxy { &[&routed, "http/1.1"] } else { &["http/1.1"] };
    let config = client_config(&Trust::Only(identity.tls_authorities.clone()), Some(client), alpn)?;
    let request = request.map_err(|e| Failure::new(FailureKind::Internal, e.to_string()))?;
    let exchange = tokio::time::timeout(TIMEOUT, exchange(route, config, request));
    let late = |_| unavailable(format!("{route}: no answer within {} s", TIMEOUT.as_secs()));
    let (status, body) = exchange.await.map_err(late)?.map_err(|e| unavailable(explain(route, &e)))?;
    if status != 200 {
        return Err(http(status, &body));
    }
    Ok(body)
}

fn unreadable() -> Failure {
    Failure::new(FailureKind::Denied, "the cluster's answer cannot be read")
}

/// One request to an auth server over a connection of its own: status and bounded body.
pub(crate) async fn exchange(
    route: &Route,
    config: Arc<ClientConfig>,
    mut request: http::Request<Bytes>,
) -> io::Result<(u16, Bytes)> {
    let stream = dial(route, server_name(API_DOMAIN)?, config).await?;
    let (mut sender, connection) =
        hyper::client::conn::http1::handshake(TokioIo::new(stream)).await.map_err(io::Error::other)?;
    // Ends with the sender.
    tokio::spawn(connection);
    request.headers_mut().insert(http::header::HOST, http::HeaderValue::from_static(API_DOMAIN));
    let answer = sender.send_request(request.map(Full::new)).await.map_err(io::Error::other)?;
    let status = answer.status().as_u16();
    let body = Limited::new(answer.into_body(), BODY_BYTES).collect().await.map_err(io::Error::other)?;
    Ok((status, body.to_bytes()))
}

pub(crate) fn read(body: &[u8]) -> Option<Vec<Authority>> {
    let text = |pair: Pair| String::from_utf8(BASE64.decode(pair.cert).ok()?).ok();
    let resources: Vec<Resource> = serde_json::from_slice(body).ok()?;
    let authority = |resource: Resource| {
        let mut authority =
            Authority { cluster: resource.spec.cluster_name, tls_certificates: vec![], ssh_keys: vec![] };
        // During a rotation both are to be trusted (wire §f.5).
        for keys in [resource.spec.active_keys, resource.spec.additional_trusted_keys] {
            for pair in keys.tls.into_iter().flatten() {
                authority.tls_certificates.push(text(pair)?);
            }
            for pair in keys.ssh.into_iter().flatten() {
                authority.ssh_keys.push(text(pair)?.trim().to_owned());
            }
        }
        Some(authority)
    };
    resources.into_iter().map(authority).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_key_sets_are_trusted_and_nonsense_is_refused() {
        let body = br#"[{"kind":"cert_authority","sub_kind":"host","version":"v2","metadata":{"name":"old"},"spec":{
            "type":"host","cluster_name":"old","checking_keys":null,
            "active_keys":{"ssh":[{"public_key":"c3NoLXJzYSBBCg=="}],"tls":[{"cert":"UEVN"}]},
            "additional_trusted_keys":{"tls":[{"cert":"T0xE"}],"ssh":null}}}]"#;
        let [authority] = read(body).unwrap().try_into().unwrap();
        assert_eq!((authority.cluster.as_str(), authority.ssh_keys), ("old", vec!["ssh-rsa A".to_owned()]));
        assert_eq!(authority.tls_certificates, ["PEM", "OLD"]);
        for nonsense in [
            &b""[..],
            b"{}",
            b"[{}]",
            br#"[{"spec":{"cluster_name":7}}]"#,
            br#"[{"spec":{"cluster_name":"a","active_keys":{"tls":[{"cert":"="}]}}}]"#,
        ] {
            assert!(read(nonsense).is_none());
        }
    }
}
