//! A load balancer in front of the proxy that ends TLS and knows nothing but HTTP: protocol names are lost (wire §i.6).

use std::{net::SocketAddr, sync::Arc};

use anyhow::Result;
use rustls::{ClientConfig, RootCertStore};
use rustls_pki_types::{CertificateDer, ServerName, pem::PemObject};
use tokio::{
    io::{copy_bidirectional, duplex},
    net::TcpStream,
};
use tokio_rustls::{TlsAcceptor, TlsConnector};

use super::{proxy_port, tls::Shown, tls::provider};
use crate::state::State;

/// Bytes in flight between the two connections.
const BUFFER: usize = 64 * 1024;

/// Client certificates end here too: the connection to the proxy is the load balancer's own.
pub(crate) async fn handle(state: Arc<State>, stream: TcpStream, remote: SocketAddr) -> Result<()> {
    let mut outer = TlsAcceptor::from(state.tls().offering(Shown::Balancer, &["http/1.1"; 0])).accept(stream).await?;
    let (near, far) = duplex(BUFFER);
    let connector = TlsConnector::from(Arc::new(client(&state)?));
    let work = async {
        let mut inner = connector.connect(ServerName::try_from("localhost")?, near).await?;
        copy_bidirectional(&mut outer, &mut inner).await?;
        Ok(())
    };
    let (carried, served) = tokio::join!(work, proxy_port::route(state.clone(), Box::new(far), remote, Shown::Web));
    served.and(carried)
}

fn client(state: &State) -> Result<ClientConfig> {
    let mut roots = RootCertStore::empty();
    roots.add(CertificateDer::from_pem_slice(state.web.pem.as_bytes())?)?;
    let builder = ClientConfig::builder_with_provider(provider()).with_safe_default_protocol_versions()?;
    let mut config = builder.with_root_certificates(roots).with_no_client_auth();
    config.alpn_protocols = vec![b"http/1.1".to_vec()];
    Ok(config)
}
