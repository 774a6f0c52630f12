//! Servers that answer nonsense, or without end: an error in bounded memory and time, and the client is none the worse.

use std::net::Ipv4Addr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use crate::routes::facing;
use crate::{Door, Method, join};
use cluster::AddressKind;
use identity::{Cluster, FailureKind};
use rustls_pki_types::{CertificateDer, PrivatePkcs8KeyDer};
use stand_in::{Options, StandIn};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpListener;
use tokio_rustls::TlsAcceptor;

/// More than any answer that is read, and less than would be noticed in memory.
const ENDLESS: usize = 4 << 20;
/// Far less than the bound on a call, far more than a slow machine needs.
const SOON: Duration = Duration::from_secs(20);

/// What a hostile server says after the request's head, whatever was asked.
#[derive(Clone)]
enum Says {
    Once(Vec<u8>),
    /// The first, then the second again and again.
    Endless(Vec<u8>, Vec<u8>),
}

async fn server(protocols: &[&str], says: Says) -> u16 {
    let made =
        rcgen::generate_simple_self_signed(["localhost".to_owned(), "teleport.cluster.local".to_owned()]).unwrap();
    let key = PrivatePkcs8KeyDer::from(made.signing_key.serialize_der());
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let mut config = rustls::ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(vec![CertificateDer::from(made.cert.der().to_vec())], key.into())
        .unwrap();
    config.alpn_protocols = protocols.iter().map(|protocol| protocol.as_bytes().to_vec()).collect();
    let acceptor = TlsAcceptor::from(Arc::new(config));
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
    let port = listener.local_addr().unwrap().port();
    tokio::spawn(async move {
        while let Ok((tcp, _)) = listener.accept().await {
            let (acceptor, says) = (acceptor.clone(), says.clone());
            tokio::spawn(async move {
                let Ok(mut tls) = acceptor.accept(tcp).await else { return };
                let _ = tls.read(&mut [0; 4096]).await;
                let sent = match says {
                    Says::Once(bytes) => tls.write_all(&bytes).await,
                    Says::Endless(first, again) => {
                        let mut sent = tls.write_all(&first).await;
                        let mut length = 0;
                        while sent.is_ok() && length < ENDLESS {
                            length += again.len();
                            sent = tls.write_all(&again).await;
                        }
                        sent
                    }
                };
                // A client that has seen enough breaks off.
                let _ = sent;
                let _ = tls.shutdown().await;
            });
        }
    });
    port
}

fn http(status: &str, body: &str) -> Says {
    let length = body.len();
    Says::Once(format!("HTTP/1.1 {status}\r\ncontent-length: {length}\r\nconnection: close\r\n\r\n{body}").into_bytes())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_proxy_that_answers_nonsense() {
    let endless_body = Says::Endless(b"HTTP/1.1 200 OK\r\n\r\n".to_vec(), vec![b'x'; 1 << 16]);
    let endless_head = Says::Endless(b"HTTP/1.1 200 OK\r\n".to_vec(), b"x-more: and more\r\n".repeat(1000));
    for says in [
        http("200 OK", "<html>"),
        http("200 OK", "{\"server_version\":7}"),
        http("200 OK", &"[".repeat(100_000)),
        http("500 Oh", "no"),
        http("302 Found", ""),
        Says::Once(b"SSH-2.0-OpenSSH\r\n".to_vec()),
        Says::Once(vec![]),
        endless_body,
        endless_head,
    ] {
        let port = server(&["teleport-reversetunnel", "http/1.1"], says).await;
        let client = facing(port, AddressKind::Proxy);
        let started = Instant::now();
        let failure = join(&client, &Method::secret(), "secret-token").await.err().unwrap();
        assert_eq!(failure.kind, FailureKind::Unavailable, "{failure}");
        assert!(failure.message.starts_with("the cluster cannot be joined: localhost:"), "{failure}");
        assert!(failure.message.len() < 500 && !failure.message.contains("secret-token"), "{failure}");
        assert!(started.elapsed() < SOON, "{failure}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_cluster_that_answers_a_join_with_nonsense() {
    let found = r#"{"server_version":"15.0.0","cluster_name":"x"}"#;
    for body in ["{}", r#"{"ssh":7}"#, r#"{"ssh":"AA==","tls":"!"}"#, r#"{"ssh":"","tls":"","tls_ca_certs":null}"#] {
        // Both requests get the same text: what `find` reads, and what the join cannot.
        let both = format!("{},{}", found.trim_end_matches('}'), body.trim_start_matches('{')).replace(",}", "}");
        let port = server(&["teleport-reversetunnel", "http/1.1"], http("200 OK", &both)).await;
        let failure = join(&facing(port, AddressKind::Proxy), &Method::secret(), "t").await.err().unwrap();
        assert!(failure.message.contains("cannot be read"), "{body}: {failure}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_auth_server_that_is_none() {
    let settings = b"\0\0\0\x04\0\0\0\0\0".to_vec();
    let cases = [
        Says::Once(b"HTTP/1.1 400 Bad Request\r\n\r\n".to_vec()),
        Says::Endless(settings.clone(), b"\0\0\x08\x06\0\0\0\0\0pingping".repeat(1000)),
        Says::Endless(settings.clone(), vec![0xff; 1 << 16]),
        Says::Once(settings),
        Says::Once(vec![]),
    ];
    for (case, says) in cases.into_iter().enumerate() {
        let port = server(&["h2"], says).await;
        let started = Instant::now();
        let failure = join(&facing(port, AddressKind::Auth), &Method::secret(), "t").await.err().unwrap();
        assert_eq!(failure.kind, FailureKind::Unavailable, "{case}: {failure}");
        assert!(started.elapsed() < SOON, "{case}: {failure}");
    }
}

/// An identity of one cluster at another one: refused, and nothing is told to it.
#[tokio::test(flavor = "multi_thread")]
async fn another_cluster_at_the_same_address() {
    let ours = StandIn::start(Options::default()).await.unwrap();
    let theirs = StandIn::start(Options { cluster_name: "theirs".into(), ..Options::default() }).await.unwrap();
    ours.control().add_bot_token("once", "robot", &["machine"]);
    for door in [Door::Auth, Door::Proxy] {
        ours.control().add_bot_token("once", "robot", &["machine"]);
        ours.control().set_generation("robot", 0);
        let identity = join(&crate::client(&ours, door), &Method::secret(), "once").await.unwrap();
        let failure = crate::client(&theirs, door).connect(identity).await.err().unwrap();
        assert_eq!(failure.kind, FailureKind::Unavailable, "{failure}");
        assert!(theirs.control().log().iter().all(|request| request.peer.is_empty()), "{door:?}");
    }
}
