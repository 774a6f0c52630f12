//! The auth port: one TLS listener for gRPC and JSON (wire §b.3, §f.1).

use std::{net::SocketAddr, sync::Arc};

use anyhow::{Result, ensure};
use tokio::net::TcpStream;
use tokio_rustls::LazyConfigAcceptor;

use super::{
    serve::{self, Protocol},
    tls::Shown,
};
use crate::state::State;

/// The names below which a cluster's name is encoded (wire §0.1).
pub(crate) const API_DOMAIN: &str = "teleport.cluster.local";

pub(crate) async fn handle(state: Arc<State>, stream: TcpStream, remote: SocketAddr) -> Result<()> {
    let start = LazyConfigAcceptor::new(rustls::server::Acceptor::default(), stream).await?;
    let hello = start.client_hello();
    ensure!(admits(hello.server_name().unwrap_or_default()), "the server name encodes no cluster");
    let offered: Vec<Vec<u8>> = hello.alpn().map(|list| list.map(<[u8]>::to_vec).collect()).unwrap_or_default();
    let offers = |protocol: &str| offered.iter().any(|offer| offer == protocol.as_bytes());
    // Something unknown alone meets the `h2` list and earns the alert `no_application_protocol` (wire §o).
    let (protocols, protocol): (&[&str], _) = if offers("h2") || !(offered.is_empty() || offers("http/1.1")) {
        (&["h2"], Protocol::Grpc)
    } else {
        // As Go answers a client that offers `http/1.1` only.
        (&[], Protocol::Http1)
    };
    let tls = start.into_stream(state.tls().offering(Shown::Host, protocols)).await?;
    serve::serve(state, tls, remote, "auth", protocol).await
}

/// A name below the domain must be hexadecimal; any other name is as good as none (wire §f.1).
fn admits(server_name: &str) -> bool {
    match server_name.strip_suffix(API_DOMAIN).and_then(|name| name.strip_suffix('.')) {
        Some(label) => decode_hex(label).is_some(),
        None => true,
    }
}

/// Text from hexadecimal.
pub(crate) fn decode_hex(text: &str) -> Option<String> {
    let digits: Vec<u8> =
        text.chars().map(|digit| digit.to_digit(16).map(|value| value as u8)).collect::<Option<_>>()?;
    if !digits.len().is_multiple_of(2) {
        return None;
    }
    String::from_utf8(digits.chunks(2).map(|pair| pair[0] << 4 | pair[1]).collect()).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_names_below_the_domain_must_decode() {
        assert!(admits("teleport.cluster.local"));
        assert!(admits(""));
        assert!(admits("localhost"));
        assert!(admits("6c61622e6578616d706c652e636f6d.teleport.cluster.local"));
        assert!(!admits("lab.teleport.cluster.local"));
    }
}
