//! One HTTP/2 connection over TLS that is ours: ALPN and SNI by hand, no delay, refusals seen at connect time.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use http_body_util::Limited;
use hyper_util::rt::TokioIo;
use rustls::ClientConfig;
use rustls_pki_types::ServerName;
use tokio::io::{AsyncBufReadExt, BufReader};
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;
use tonic::body::Body;
use tonic::metadata::{Ascii, MetadataValue};
use tonic::service::Interceptor;
use tonic::service::interceptor::InterceptedService;
use tonic::transport::{Channel, Endpoint, Uri};
use tower::util::MapResponse;

use crate::address::Route;
use crate::dialer::Stream;
use crate::error::{RouteError, explain};
use crate::reach::reach;

/// The name that every auth and proxy host certificate carries (wire §0.1).
pub(crate) const API_DOMAIN: &str = "teleport.cluster.local";
/// Bound on connecting and on any one call (wire §0.1).
pub(crate) const CALL_TIMEOUT: Duration = Duration::from_secs(30);
/// Servers allow one ping a minute, also without a stream (wire §f.1).
const PING_INTERVAL: Duration = Duration::from_secs(61);
/// A server's settings arrive in a millisecond; a refused certificate as an alert in their place (rust-wire §3).
pub(crate) const PEEK: Duration = Duration::from_secs(2);
/// The largest answer that is read: a thousand resources of a few KiB, and room.
pub(crate) const ANSWER_BYTES: usize = 32 << 20;
/// All messages of one call: what follows a whole answer is read on, and a cluster that never ends would never let go. A watch that
/// has brought so much is opened again.
const STREAM_BYTES: usize = ANSWER_BYTES + (1 << 20);

/// TLS over whatever carries it.
pub(crate) type Tls = TlsStream<Box<dyn Stream>>;

/// A connection that says which version it speaks, and whose answers end.
pub(crate) type Connection = InterceptedService<MapResponse<Channel, fn(Answer) -> Answer>, SpeaksVersion>;
type Answer = http::Response<Body>;

/// The same connection, saying that it speaks `version`.
pub(crate) fn speaking(channel: Channel, version: Option<&str>) -> Connection {
    let bounded: fn(Answer) -> Answer = |answer| answer.map(|body| Body::new(Limited::new(body, STREAM_BYTES)));
    let version = SpeaksVersion(version.and_then(|version| version.parse().ok()));
    InterceptedService::new(MapResponse::new(channel, bounded), version)
}

/// Adds the metadata key `version` (wire §f.3), once it is known which one the cluster lets in; without one it lets everybody in (wire §d.5).
#[derive(Clone)]
pub(crate) struct SpeaksVersion(pub(crate) Option<MetadataValue<Ascii>>);

impl Interceptor for SpeaksVersion {
    fn call(&mut self, mut request: tonic::Request<()>) -> Result<tonic::Request<()>, tonic::Status> {
        if let Some(version) = &self.0 {
            request.metadata_mut().insert("version", version.clone());
        }
        Ok(request)
    }
}

/// Opens a connection and keeps it: it is opened again, by the same rules, where it breaks.
pub(crate) async fn open(
    route: &Route,
    server_name: &str,
    config: Arc<ClientConfig>,
    version: Option<&str>,
) -> Result<Connection, RouteError> {
    Ok(speaking(open_channel(route, server_name, config).await?, version))
}

/// The connection alone.
pub(crate) async fn open_channel(
    route: &Route,
    server_name: &str,
    config: Arc<ClientConfig>,
) -> Result<Channel, RouteError> {
    let name = self::server_name(server_name).map_err(RouteError::connection)?;
    let to = route.clone();
    let shows_certificate = config.client_auth_cert_resolver.has_certs();
    let connector = tower::service_fn(move |_: Uri| {
        let (to, name, config) = (to.clone(), name.clone(), config.clone());
        async move {
            let stream = dial(&to, name, config).await?;
            let mut stream = BufReader::new(stream);
            if shows_certificate && let Ok(seen) = tokio::time::timeout(PEEK, stream.fill_buf()).await {
                seen?;
            }
            Ok::<_, io::Error>(TokioIo::new(stream))
        }
    });
    let endpoint = Endpoint::from_static("https://teleport.cluster.local")
        .timeout(CALL_TIMEOUT)
        .connect_timeout(CALL_TIMEOUT)
        .http2_keep_alive_interval(PING_INTERVAL)
        .keep_alive_timeout(CALL_TIMEOUT)
        .keep_alive_while_idle(true);
    let channel = endpoint.connect_with_connector(connector).await;
    channel.map_err(|e| RouteError::connection(explain(route, &e)))
}

/// TLS to a route: connected, by its way, and shaken hands, within the bound.
pub(crate) async fn dial(route: &Route, name: ServerName<'static>, config: Arc<ClientConfig>) -> io::Result<Tls> {
    let connecting = async { handshake(config, name, reach(route).await?).await };
    match tokio::time::timeout(CALL_TIMEOUT, connecting).await {
        Ok(connected) => connected,
        Err(_) => {
            Err(io::Error::new(io::ErrorKind::TimedOut, format!("no answer within {} s", CALL_TIMEOUT.as_secs())))
        }
    }
}

pub(crate) async fn handshake(
    config: Arc<ClientConfig>,
    name: ServerName<'static>,
    stream: Box<dyn Stream>,
) -> io::Result<Tls> {
    TlsConnector::from(config).connect(name, stream).await
}

/// A host name or address as certificates name it.
pub(crate) fn server_name(host: &str) -> io::Result<ServerName<'static>> {
    let wrong = |_| io::Error::new(io::ErrorKind::InvalidInput, format!("`{host}` is not a server name"));
    ServerName::try_from(host.to_owned()).map_err(wrong)
}

/// The protocol name that makes a proxy hand a connection to the auth server of `cluster` (wire §f.2.A).
pub(crate) fn auth_protocol(cluster: &str) -> String {
    let hex: String = cluster.bytes().map(|byte| format!("{byte:02x}")).collect();
    format!("teleport-auth@{hex}.{API_DOMAIN}")
}
