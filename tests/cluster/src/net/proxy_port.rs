//! The proxy port: looks at the protocols a client offers and sends it on (wire §f.2, §o).

use std::{net::SocketAddr, sync::Arc, time::Duration};

use anyhow::{Context, Result, bail, ensure};
use rustls::server::Acceptor;
use tokio::{io::copy_bidirectional, net::TcpStream};
use tokio_rustls::TlsAcceptor;

use super::{
    auth_port::{API_DOMAIN, decode_hex},
    serve::{self, Protocol},
};
use crate::state::State;

/// More than the largest ClientHello a client sends.
const HELLO_LIMIT: usize = 16 * 1024;

/// How long to wait for more of a ClientHello that came in pieces.
const PIECE: Duration = Duration::from_millis(2);

/// What prefixes the protocol of connections meant for an auth server.
const AUTH_PREFIX: &str = "teleport-auth@";

/// What prefixes the protocols of agents behind a proxy.
const TUNNEL_PREFIX: &str = "teleport-reversetunnel";

pub(crate) async fn handle(state: Arc<State>, stream: TcpStream, remote: SocketAddr) -> Result<()> {
    let hello = peek(&stream).await?;
    let configs = state.tls();
    let known = hello.protocols.iter().find_map(|protocol| match protocol.as_str() {
        "teleport-proxy-grpc" => Some((configs.web_grpc.clone(), Protocol::Grpc)),
        "h2" | "http/1.1" => Some((configs.web.clone(), Protocol::Web)),
        _ => None,
    });
    if let Some(cluster) = hello.protocols.first().and_then(|first| first.strip_prefix(AUTH_PREFIX)) {
        return relay(&state, stream, cluster).await;
    }
    if hello.protocols.iter().any(|protocol| protocol.starts_with(TUNNEL_PREFIX)) {
        // Who asks wants to know whether protocol names arrive (wire §i.6): the handshake is the answer.
        TlsAcceptor::from(configs.web_tunnel.clone()).accept(stream).await?;
        return Ok(());
    }
    let (config, protocol) = match known {
        Some(route) => route,
        None if hello.protocols.is_empty() || hello.server_name != API_DOMAIN => {
            (configs.web_bare.clone(), Protocol::Http1)
        }
        None => bail!("no known protocol among {:?}", hello.protocols),
    };
    let tls = TlsAcceptor::from(config).accept(stream).await?;
    serve::serve(state, tls, remote, "proxy", protocol).await
}

/// Raw bytes to the auth port: TLS is not ended here.
async fn relay(state: &State, mut stream: TcpStream, encoded: &str) -> Result<()> {
    let label = encoded.strip_suffix(API_DOMAIN).and_then(|label| label.strip_suffix('.'));
    let cluster = label.and_then(decode_hex).context("the protocol names no cluster")?;
    ensure!(cluster == state.options.cluster_name, "cluster `{cluster}` is not this one");
    let auth = state.ports.get().context("the auth port is not open")?.auth;
    let mut upstream = TcpStream::connect(auth).await?;
    upstream.set_nodelay(true)?;
    copy_bidirectional(&mut stream, &mut upstream).await?;
    Ok(())
}

struct Hello {
    server_name: String,
    protocols: Vec<String>,
}

/// Reads the ClientHello without consuming it.
async fn peek(stream: &TcpStream) -> Result<Hello> {
    let mut buffer = vec![0; HELLO_LIMIT];
    let mut seen = 0;
    loop {
        let length = stream.peek(&mut buffer).await?;
        ensure!(length > 0, "closed before a ClientHello");
        if length == seen {
            tokio::time::sleep(PIECE).await;
            continue;
        }
        seen = length;
        let mut acceptor = Acceptor::default();
        let mut bytes = &buffer[..length];
        while !bytes.is_empty() {
            acceptor.read_tls(&mut bytes)?;
        }
        match acceptor.accept() {
            Ok(None) => ensure!(length < HELLO_LIMIT, "the ClientHello is too long"),
            Ok(Some(accepted)) => {
                let hello = accepted.client_hello();
                let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
                return Ok(Hello {
                    server_name: hello.server_name().unwrap_or_default().to_owned(),
                    protocols: hello.alpn().map(|list| list.map(text).collect()).unwrap_or_default(),
                });
            }
            Err((error, _)) => return Err(error.into()),
        }
    }
}
