//! The proxy port: looks at the protocols a client offers and sends it on (wire §f.2, §i, §o).

use std::{future::Future, net::SocketAddr, pin::Pin, sync::Arc};

use anyhow::{Context, Result, bail, ensure};
use tokio::{io::copy_bidirectional, net::TcpStream};
use tokio_rustls::TlsAcceptor;

use super::{
    admission,
    auth_port::{API_DOMAIN, decode_hex},
    database, framing,
    serve::{self, Protocol, caller},
    stream::{Stream, read_hello},
    tcp_app,
    tls::Shown,
};
use crate::{Release, ssh, state::State};

/// What prefixes the protocol of connections meant for an auth server.
const AUTH_PREFIX: &str = "teleport-auth@";

/// The protocols of SSH tunnels, in our order of preference.
const TUNNEL: [&str; 2] = ["teleport-reversetunnelv2", "teleport-reversetunnel"];

/// The protocol of the proxy's own SSH server: it shows the host certificate, and its name is never answered (seen of version 15).
const SSH: &str = "teleport-proxy-ssh";

/// The protocol under which SSH is a call, for clients that need no second handshake; there is no older one that 12 knows.
const SSH_BY_GRPC: &str = "teleport-proxy-ssh-grpc";

/// The protocol of applications that are not HTTP.
const TCP_APP: &str = "teleport-tcp";

/// What ends the name of a protocol whose bytes come in frames (wire §i.1).
const FRAMED: &str = "-ping";

pub(crate) async fn handle(state: Arc<State>, stream: TcpStream, remote: SocketAddr) -> Result<()> {
    route(state, Box::new(stream), remote, Shown::Web).await
}

/// Where a connection goes.
enum Route<'a> {
    Tunnel,
    Ssh,
    JoinByGrpc,
    SshByGrpc,
    Web,
    /// The protocol without the suffix of frames.
    Connection(&'a str),
}

/// Serves a connection: one that came in at the port, or one inside an upgraded connection (wire §i.6), which is shown
/// another certificate.
pub(crate) fn route(
    state: Arc<State>,
    stream: Stream,
    remote: SocketAddr,
    shown: Shown,
) -> Pin<Box<dyn Future<Output = Result<()>> + Send>> {
    // Boxed because an upgraded connection comes back here.
    Box::pin(async move {
        let (hello, stream) = read_hello(stream).await?;
        if let Some(cluster) = hello.protocols.first().and_then(|first| first.strip_prefix(AUTH_PREFIX)) {
            return relay(&state, stream, cluster).await;
        }
        let found = hello.protocols.iter().find_map(|offer| match offer.as_str() {
            "teleport-proxy-grpc" => Some(Route::JoinByGrpc),
            SSH_BY_GRPC if state.options.release >= Release::V15 => Some(Route::SshByGrpc),
            "h2" | "http/1.1" => Some(Route::Web),
            SSH => Some(Route::Ssh),
            tunnel if TUNNEL.contains(&tunnel) => Some(Route::Tunnel),
            other => {
                let base = other.strip_suffix(FRAMED).unwrap_or(other);
                (base == TCP_APP || database::speaks(base)).then_some(Route::Connection(base))
            }
        });
        if found.is_none() && !hello.protocols.is_empty() && hello.server_name == API_DOMAIN {
            bail!("no known protocol among {:?}", hello.protocols);
        }
        let framed = |base: &str| format!("{base}{FRAMED}");
        let protocols: Vec<String> = match found {
            Some(Route::Tunnel) => TUNNEL.map(str::to_owned).to_vec(),
            Some(Route::JoinByGrpc) => vec!["h2".to_owned(), "teleport-proxy-grpc".to_owned()],
            Some(Route::Web) => vec!["h2".to_owned(), "http/1.1".to_owned()],
            Some(Route::SshByGrpc) => vec!["h2".to_owned()],
            Some(Route::Connection(base)) => vec![framed(base), base.to_owned()],
            // As if the client had offered none (wire §o).
            Some(Route::Ssh) | None => Vec::new(),
        };
        let shown = if matches!(found, Some(Route::Ssh | Route::SshByGrpc)) { Shown::Host } else { shown };
        let tls = TlsAcceptor::from(state.tls().offering(shown, &protocols)).accept(stream).await?;
        match found {
            Some(Route::Tunnel) => ssh::serve(state, Box::new(tls), ssh::Door::Tunnel).await,
            Some(Route::Ssh) => ssh::serve(state, Box::new(tls), ssh::Door::Proxy).await,
            Some(Route::JoinByGrpc | Route::SshByGrpc) => {
                serve::serve(state, tls, remote, "proxy", Protocol::Grpc).await
            }
            Some(Route::Web) => serve::serve(state, tls, remote, "proxy", Protocol::Web).await,
            None => serve::serve(state, tls, remote, "proxy", Protocol::Http1).await,
            Some(Route::Connection(base)) => {
                let caller = caller(tls.get_ref().1)?;
                let in_frames = tls.get_ref().1.alpn_protocol() == Some(framed(base).as_bytes());
                let base = base.to_owned();
                let work = |stream: Stream| async move {
                    match base.as_str() {
                        TCP_APP => tcp_app::serve(&state, stream, caller).await,
                        database => database::serve(&state, stream, caller, database).await,
                    }
                };
                if in_frames { framing::pinged(Box::new(tls), work).await } else { work(Box::new(tls)).await }
            }
        }
    })
}

/// Raw bytes to the auth port: TLS is not ended here.
async fn relay(state: &Arc<State>, mut stream: Stream, encoded: &str) -> Result<()> {
    let label = encoded.strip_suffix(API_DOMAIN).and_then(|label| label.strip_suffix('.'));
    let cluster = label.and_then(decode_hex).context("the protocol names no cluster")?;
    ensure!(cluster == state.options.cluster_name, "cluster `{cluster}` is not this one");
    admission::admit(state, "teleport-auth", "").await?;
    let auth = state.ports.get().context("the auth port is not open")?.auth;
    let mut upstream = TcpStream::connect(auth).await?;
    upstream.set_nodelay(true)?;
    copy_bidirectional(&mut stream, &mut upstream).await?;
    Ok(())
}
