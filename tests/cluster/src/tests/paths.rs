//! The ways past a load balancer and to databases, from outside.

use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
};

use super::client::{channel, connect, handshake, host_root, join, web_root};
use crate::{
    Fault, Options, Release, StandIn,
    state::hex,
    wire::proto::{PingRequest, auth_service_client::AuthServiceClient},
};

#[tokio::test]
async fn tunnels_are_told_by_their_protocol_unless_a_load_balancer_hides_it() {
    for (strip_alpn, negotiated) in [(false, Some(&b"teleport-reversetunnel"[..])), (true, None)] {
        let stand_in = StandIn::start(Options { strip_alpn, ..Options::default() }).await.unwrap();
        let port = stand_in.proxy_addr().port();
        let tls = connect(port, &web_root(&stand_in), "localhost", &["teleport-reversetunnel"], None).await.unwrap();
        assert_eq!(tls.get_ref().1.alpn_protocol(), negotiated);
    }
}

#[tokio::test]
async fn the_tunnel_and_the_proxy_speak_ssh_and_the_proxy_under_its_cluster_certificate() {
    let stand_in = StandIn::start(Options::default()).await.unwrap();
    let (port, web, host) = (stand_in.proxy_addr().port(), web_root(&stand_in), host_root(&stand_in));
    let name = format!("{}.teleport.cluster.local", hex(stand_in.cluster_name().as_bytes()));
    for (protocol, root, name, negotiated) in [
        ("teleport-reversetunnel", &web, "localhost", Some(&b"teleport-reversetunnel"[..])),
        ("teleport-proxy-ssh", &host, name.as_str(), None),
        ("teleport-proxy-ssh", &host, "localhost", None),
    ] {
        let mut tls = connect(port, root, name, &[protocol], None).await.unwrap();
        assert_eq!(tls.get_ref().1.alpn_protocol(), negotiated, "{protocol}");
        let mut line = [0; 18];
        tls.read_exact(&mut line).await.unwrap();
        assert_eq!(&line, b"SSH-2.0-Teleport\r\n");
    }
}

#[tokio::test]
async fn an_upgraded_connection_reaches_auth() {
    let stand_in = StandIn::start(Options { strip_alpn: true, ..Options::default() }).await.unwrap();
    stand_in.control().add_bot_token("once", "robot", &[]);
    let bot = join(&stand_in, "once").await;
    let route = format!("teleport-auth@{}.teleport.cluster.local", hex(stand_in.cluster_name().as_bytes()));
    let (port, web, host) = (stand_in.proxy_addr().port(), web_root(&stand_in), host_root(&stand_in));
    let mut outer = connect(port, &web, "localhost", &["http/1.1"], None).await.unwrap();
    let head = upgrade(&mut outer, "Upgrade: alpn\r\nX-Teleport-Upgrade: alpn\r\n").await;
    assert!(head.starts_with("HTTP/1.1 101 "), "{head}");
    assert!(head.to_ascii_lowercase().contains("x-teleport-upgrade: alpn\r\n"), "{head}");
    let inner = handshake(outer, &host, "teleport.cluster.local", &[&route, "h2"], Some(&bot)).await.unwrap();
    AuthServiceClient::new(channel(inner).await).ping(PingRequest::default()).await.unwrap();
}

#[tokio::test]
async fn each_release_takes_its_own_form_of_upgrade_only() {
    const LEGACY: &str = "Upgrade: alpn-ping\r\nX-Teleport-Upgrade: alpn-ping\r\n";
    // The key and its answer are those of RFC 6455 §1.3.
    const WEBSOCKET: &str = "Upgrade: websocket\r\nSec-WebSocket-Version: 13\r\nSec-WebSocket-Protocol: alpn-ping\r\n\
        Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n";
    const OLDEST: &str = "Upgrade: alpn\r\n";
    for (release, accepted, refused) in
        [(Release::V12, OLDEST, LEGACY), (Release::V15, LEGACY, WEBSOCKET), (Release::V17, WEBSOCKET, LEGACY)]
    {
        let stand_in = StandIn::start(Options { release, ..Options::default() }).await.unwrap();
        let (port, web) = (stand_in.proxy_addr().port(), web_root(&stand_in));
        let mut tls = connect(port, &web, "localhost", &["http/1.1"], None).await.unwrap();
        let head = upgrade(&mut tls, accepted).await;
        assert!(head.starts_with("HTTP/1.1 101 "), "{release:?}: {head}");
        assert_eq!(release == Release::V17, head.contains("s3pPLMBiTxaQ9kYGzzhZRbK+xOo="), "{head}");
        let mut tls = connect(port, &web, "localhost", &["http/1.1"], None).await.unwrap();
        let head = upgrade(&mut tls, refused).await;
        let status = if release == Release::V12 { 400 } else { 404 };
        assert!(head.starts_with(&format!("HTTP/1.1 {status} ")), "{release:?}: {head}");
    }
}

#[tokio::test]
async fn the_path_to_auth_can_be_cut_and_comes_back() {
    let stand_in = StandIn::start(Options::default()).await.unwrap();
    let route = format!("teleport-auth@{}.teleport.cluster.local", hex(stand_in.cluster_name().as_bytes()));
    let (port, host, name) = (stand_in.proxy_addr().port(), host_root(&stand_in), "teleport.cluster.local");
    stand_in.control().fault("teleport-auth", Fault::Cut, None);
    assert!(connect(port, &host, name, &[&route, "h2"], None).await.is_err());
    stand_in.control().clear_faults();
    connect(port, &host, name, &[&route, "h2"], None).await.unwrap();
    assert_eq!(stand_in.control().calls("teleport-auth"), 2);
}

/// Asks for an upgrade and reads the head of the answer, not one byte more.
async fn upgrade(stream: &mut tokio_rustls::client::TlsStream<TcpStream>, headers: &str) -> String {
    let request =
        format!("GET /webapi/connectionupgrade HTTP/1.1\r\nHost: localhost\r\nConnection: Upgrade\r\n{headers}\r\n");
    stream.write_all(request.as_bytes()).await.unwrap();
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        head.push(stream.read_u8().await.unwrap());
    }
    String::from_utf8(head).unwrap()
}
