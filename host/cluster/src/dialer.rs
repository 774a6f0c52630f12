//! Connections that a proxy hands on by protocol name: what local tunnels are made of (wire §i).

use std::sync::Arc;
use std::time::Duration;

use identity::{Failure, FailureKind, PrivateKey, TlsCertificate};
use rustls::ClientConfig;
use rustls_pki_types::ServerName;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite};
use tokio::time::Instant;

use crate::address::{Route, Way};
use crate::channel::{PEEK, Tls, dial, server_name};
use crate::error::explain;
use crate::ping::PingStream;
use crate::trust::{ClientCertificate, Trust, client_config};

/// How often [`ProxyClient::probe`] looks whether the proxy has answered.
const LOOK: Duration = Duration::from_millis(10);

/// A stream of bytes, both ways.
pub trait Stream: AsyncRead + AsyncWrite + Send + Unpin {}
impl<T: AsyncRead + AsyncWrite + Send + Unpin> Stream for T {}

/// Opens connections to one proxy (wire §i.2).
#[derive(Debug, Clone)]
pub struct ProxyDialer {
    pub(crate) route: Route,
    /// Verify nothing.
    pub(crate) insecure: bool,
}

impl ProxyDialer {
    /// The proxy's host name or address.
    pub fn host(&self) -> &str {
        &self.route.host
    }

    /// Settings for many connections that offer `protocols`, most wanted first, and show `client`. The proxy is verified against the
    /// machine's roots; inside an upgraded connection against `authorities`, those of the cluster's hosts, PEM. Connections made with one
    /// value resume each other's TLS sessions; make a new one when the certificate changes.
    ///
    /// # Errors
    /// No usable roots, or a key that does not fit.
    pub fn client(
        &self,
        protocols: &[&str],
        client: Option<(&TlsCertificate, &PrivateKey)>,
        authorities: Vec<String>,
    ) -> Result<ProxyClient, Failure> {
        let trust = match self.route.way {
            _ if self.insecure => Trust::Blind,
            Way::Direct => Trust::System,
            Way::Upgraded { .. } => Trust::Only(authorities),
        };
        let client = client.map(|(tls, key)| ClientCertificate { der: &tls.der, pkcs8: key.pkcs8_der() });
        let config = client_config(&trust, client, protocols)?;
        let name =
            server_name(&self.route.host).map_err(|e| Failure::new(FailureKind::InvalidConfig, e.to_string()))?;
        Ok(ProxyClient { route: self.route.clone(), name, config })
    }

    /// What an error of a connection to this proxy means: [`FailureKind::Denied`] or [`FailureKind::Expired`] where it is about the certificate
    /// shown, otherwise [`FailureKind::Unavailable`].
    pub fn failure(&self, error: &std::io::Error) -> Failure {
        failure(&self.route, error)
    }
}

/// Opens connections with one set of protocols and one certificate.
#[derive(Debug, Clone)]
pub struct ProxyClient {
    route: Route,
    name: ServerName<'static>,
    config: Arc<ClientConfig>,
}

impl ProxyClient {
    /// The same with other protocols.
    #[must_use]
    pub fn offering(&self, protocols: &[&str]) -> Self {
        let mut config = ClientConfig::clone(&self.config);
        config.alpn_protocols = protocols.iter().map(|protocol| protocol.as_bytes().to_vec()).collect();
        Self { config: Arc::new(config), ..self.clone() }
    }

    /// Connects: a stream of what goes to and comes from the service. Whether the proxy accepts the certificate shows with the first byte.
    ///
    /// # Errors
    /// [`FailureKind::Unavailable`] with the address and the reason.
    pub async fn dial(&self) -> Result<Box<dyn Stream>, Failure> {
        let stream = self.connect().await?;
        let framed = stream.get_ref().1.alpn_protocol().is_some_and(|name| name.ends_with(b"-ping"));
        Ok(if framed { Box::new(PingStream::new(stream)) } else { Box::new(stream) })
    }

    /// Connects and waits until the proxy has judged the certificate: it then sends a session ticket, or refuses. The connection is closed.
    ///
    /// # Errors
    /// As [`ProxyClient::dial`], and a refused certificate.
    pub async fn probe(&self) -> Result<(), Failure> {
        let mut stream = self.connect().await?;
        if stream.get_ref().1.protocol_version() == Some(rustls::ProtocolVersion::TLSv1_2) {
            // There the certificate is judged before the handshake ends.
            return Ok(());
        }
        let started = Instant::now();
        let mut byte = [0; 1];
        // A proxy that sends no tickets is believed after a while.
        while stream.get_ref().1.tls13_tickets_received() == 0 && started.elapsed() < PEEK {
            match tokio::time::timeout(LOOK, stream.read(&mut byte)).await {
                Err(_) => {}
                // Let in, and then the service was not there: that is between it and its clients.
                Ok(_) if stream.get_ref().1.tls13_tickets_received() > 0 => break,
                Ok(Ok(0)) => {
                    let message = format!("{} closed the connection", self.route);
                    return Err(Failure::new(FailureKind::Unavailable, message));
                }
                Ok(Ok(_)) => break,
                Ok(Err(e)) => return Err(failure(&self.route, &e)),
            }
        }
        Ok(())
    }

    async fn connect(&self) -> Result<Tls, Failure> {
        dial(&self.route, self.name.clone(), self.config.clone()).await.map_err(|e| failure(&self.route, &e))
    }
}

fn failure(route: &Route, error: &std::io::Error) -> Failure {
    use rustls::AlertDescription::{AccessDenied, BadCertificate, CertificateExpired, CertificateUnknown, UnknownCA};
    let alert = match error.get_ref().and_then(|inner| inner.downcast_ref()) {
        Some(rustls::Error::AlertReceived(alert)) => Some(*alert),
        _ => None,
    };
    let kind = match alert {
        Some(CertificateExpired) => FailureKind::Expired,
        Some(AccessDenied | BadCertificate | CertificateUnknown | UnknownCA) => FailureKind::Denied,
        _ => FailureKind::Unavailable,
    };
    let words = explain(route, error);
    let named = words.contains(&route.to_string());
    Failure::new(kind, if named { words } else { format!("proxy {route}: {words}") })
}
