//! A client of the ports: TLS with any protocols, names and certificates; gRPC and HTTP on top.

use std::sync::Arc;

use base64::{Engine, engine::general_purpose::STANDARD};
use hyper_util::rt::TokioIo;
use rustls::{ClientConfig, RootCertStore};
use rustls_pki_types::{CertificateDer, PrivateKeyDer, PrivatePkcs8KeyDer, ServerName};
use serde_json::{Value, json};
use tokio::{
    io::{AsyncRead, AsyncWrite},
    net::TcpStream,
};
use tokio_rustls::{TlsConnector, client::TlsStream};
use tonic::transport::{Channel, Endpoint};

use super::recorded::der;
use crate::{AuthorityKind, StandIn, pki::private_key::PrivateKey, pki::private_key::pem};

/// A key with the certificate over it, both DER.
pub(super) struct Identity {
    pub certificate: Vec<u8>,
    pub key: Vec<u8>,
}

/// One TLS handshake over TCP.
pub(super) async fn connect(
    port: u16,
    roots: &[u8],
    server_name: &str,
    protocols: &[&str],
    identity: Option<&Identity>,
) -> anyhow::Result<TlsStream<TcpStream>> {
    let stream = TcpStream::connect(("127.0.0.1", port)).await?;
    handshake(stream, roots, server_name, protocols, identity).await
}

/// One TLS handshake over anything.
pub(super) async fn handshake<S: AsyncRead + AsyncWrite + Unpin>(
    stream: S,
    roots: &[u8],
    server_name: &str,
    protocols: &[&str],
    identity: Option<&Identity>,
) -> anyhow::Result<TlsStream<S>> {
    let mut store = RootCertStore::empty();
    store.add(CertificateDer::from(roots.to_vec()))?;
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let builder = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()?
        .with_root_certificates(store);
    let mut config = match identity {
        Some(identity) => builder.with_client_auth_cert(
            vec![CertificateDer::from(identity.certificate.clone())],
            PrivateKeyDer::from(PrivatePkcs8KeyDer::from(identity.key.clone())),
        )?,
        None => builder.with_no_client_auth(),
    };
    config.alpn_protocols = protocols.iter().map(|protocol| protocol.as_bytes().to_vec()).collect();
    let name = ServerName::try_from(server_name.to_owned())?;
    Ok(TlsConnector::from(Arc::new(config)).connect(name, stream).await?)
}

/// The host authority's certificate, DER.
pub(super) fn host_root(stand_in: &StandIn) -> Vec<u8> {
    stand_in.state.authority(AuthorityKind::Host, |host| Ok(host.serving.certificate.clone())).unwrap()
}

/// The web authority's certificate, DER.
pub(super) fn web_root(stand_in: &StandIn) -> Vec<u8> {
    der(stand_in.web_ca_pem().as_bytes())
}

/// A gRPC channel over one connection.
pub(super) async fn channel<S: AsyncRead + AsyncWrite + Send + Unpin + 'static>(stream: TlsStream<S>) -> Channel {
    let mut once = Some(TokioIo::new(stream));
    let connector = tower::service_fn(move |_| {
        let stream = once.take().ok_or_else(|| std::io::Error::other("one connection only"));
        async move { stream }
    });
    Endpoint::from_static("https://teleport.cluster.local").connect_with_connector(connector).await.unwrap()
}

/// A gRPC channel straight to auth.
pub(super) async fn auth_channel(stand_in: &StandIn, identity: Option<&Identity>) -> Channel {
    let (port, root) = (stand_in.auth_addr().port(), host_root(stand_in));
    channel(connect(port, &root, "teleport.cluster.local", &["h2"], identity).await.unwrap()).await
}

/// A fresh key and the JSON that joins with it.
pub(super) fn join_body(token: &str) -> (PrivateKey, Value) {
    let key = PrivateKey::p256().unwrap();
    let spki = der::Encode::to_der(&key.public().to_spki().unwrap()).unwrap();
    let body = json!({
        "hostID": "", "node_name": "", "role": "Bot", "token": token, "additional_principals": null,
        "dns_names": null, "public_tls_key": STANDARD.encode(pem("PUBLIC KEY", &spki)),
        "public_ssh_key": STANDARD.encode(key.public().to_authorized_line()),
        "remote_addr": "", "ec2_id": null, "id_token": "",
    });
    (key, body)
}

/// An HTTP client that trusts a root, DER, and sends `name` to a port.
pub(super) fn http(root: &[u8], name: &str, port: u16) -> reqwest::Client {
    reqwest::Client::builder()
        .tls_certs_only([reqwest::Certificate::from_der(root).unwrap()])
        .resolve(name, ([127, 0, 0, 1], port).into())
        .redirect(reqwest::redirect::Policy::none())
        .http1_only()
        .build()
        .unwrap()
}

/// Joins through the proxy's web API.
pub(super) async fn join(stand_in: &StandIn, token: &str) -> Identity {
    let port = stand_in.proxy_addr().port();
    let (key, body) = join_body(token);
    let url = format!("https://localhost:{port}/v1/webapi/host/credentials");
    let response = http(&web_root(stand_in), "localhost", port).post(url).json(&body).send().await.unwrap();
    assert_eq!(response.status(), 200);
    let answer: Value = response.json().await.unwrap();
    let certificate = der(&STANDARD.decode(answer["tls"].as_str().unwrap()).unwrap());
    Identity { certificate, key: key.to_pkcs8().unwrap() }
}
