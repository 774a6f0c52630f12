//! Joining: which protocol, over which transport (wire §b–d).

use std::time::Duration;

use identity::{Certificates, Failure, FailureKind};
use tonic::Code;
use tracing::{info, warn};

use crate::address::{Route, Way};
use crate::channel::{API_DOMAIN, Connection, open, open_channel, speaking};
use crate::connect::ClusterConfig;
use crate::discovery::{answer, find, web_client};
use crate::error::{RouteError, explain, status, with_remedy};
use crate::registration::Registration;
use crate::trust::{Trust, check_pins, client_config};
use crate::version::{Major, client_version};
use crate::wire::proto::auth_service_client::AuthServiceClient;
use crate::wire::proto::{Certs, PingRequest};
use crate::{auth_http, http_join, join_legacy, join_stream};

/// Bound on one conversation, with the plugin's part: servers give it as much (wire §c.1).
const CONVERSATION: Duration = Duration::from_secs(60);

/// Why a conversation ended without certificates.
pub(crate) enum Stop {
    /// The cluster, or the way to it.
    Status(tonic::Status),
    /// This machine cannot prove itself.
    Failure(Failure),
}

impl From<tonic::Status> for Stop {
    fn from(status: tonic::Status) -> Self {
        Self::Status(status)
    }
}

/// Joins at a proxy: its web certificate is verified like any other.
pub(crate) async fn at_proxy(
    config: &ClusterConfig,
    route: &Route,
    registration: &Registration<'_>,
) -> Result<Certificates, RouteError> {
    info!(target: "AUTH", "Attempting registration via proxy server.");
    if config.insecure {
        warn!(target: "AUTH", "Joining cluster without validating the identity of the Proxy Service, because `insecure` is set.");
    }
    let web = web_client(route, config.insecure)?;
    let found = find(route, &web).await?;
    if Major::parse(&found.version).grpc_join() || registration.is_challenged() {
        let trust = match route.way {
            // What an upgraded connection ends at shows a certificate of the cluster, which nobody knows yet; what was upgraded is verified.
            Way::Upgraded { .. } => Trust::Cluster,
            Way::Direct if config.insecure => Trust::Blind,
            Way::Direct => Trust::System,
        };
        let tls = client_config(&trust, None, &["teleport-proxy-grpc", "h2"]).map_err(RouteError::answer)?;
        let connection = open(route, &route.host, tls, Some(&client_version(&found.version))).await?;
        if let Some(certificates) = grpc(&connection, route, &found.version, registration).await? {
            info!(target: "AUTH", "Successfully registered via proxy server.");
            return Ok(certificates);
        }
    }
    let url = format!("https://{route}/v1/webapi/host/credentials");
    let request = http_join::request(registration, &url).map_err(RouteError::connection)?;
    let request = request.try_into().map_err(RouteError::connection)?;
    let (status, body) = answer(route, web.execute(request).await).await?;
    let certificates = http_join::outcome(route, status, &body)?;
    info!(target: "AUTH", "Successfully registered via proxy server.");
    Ok(certificates)
}

/// Joins at an auth server: trust comes from pins or a file, or the operator is told that there is none.
pub(crate) async fn at_auth(
    config: &ClusterConfig,
    route: &Route,
    registration: &Registration<'_>,
) -> Result<Certificates, RouteError> {
    info!(target: "AUTH", "Attempting registration with auth server.");
    let trust = establish_trust(config, route).await?;
    let tls = client_config(&trust, None, &["h2"]).map_err(RouteError::answer)?;
    let channel = open_channel(route, API_DOMAIN, tls).await?;
    // Also tells an auth server from whatever else may listen here.
    let ping = AuthServiceClient::new(speaking(channel.clone(), None)).ping(PingRequest {}).await;
    let version = ping.map_err(|e| not_an_auth_server(route, &e))?.into_inner().server_version;
    if matches!(trust, Trust::Blind) && !config.insecure {
        warn!(target: "AUTH", "Joining cluster without validating the identity of the Auth Server. This may open you up to a Man-In-The-Middle (MITM) attack. Set `ca_pins` to the pin that was shown when the token was created, or `ca_path`.");
    }
    let certificates = match Major::parse(&version).grpc_join() || registration.is_challenged() {
        true => {
            let connection = speaking(channel, Some(&client_version(&version)));
            grpc(&connection, route, &version, registration).await?
        }
        false => None,
    };
    let certificates = match certificates {
        Some(certificates) => certificates,
        None => over_http(route, &trust, registration).await?,
    };
    info!(target: "AUTH", "Successfully registered with auth server.");
    Ok(certificates)
}

fn not_an_auth_server(route: &Route, error: &tonic::Status) -> RouteError {
    let failure = status(route, error);
    match failure.kind {
        FailureKind::Unavailable => RouteError { connection: true, failure },
        _ => RouteError::connection("it does not answer as a Teleport auth server: is it the address of a proxy?"),
    }
}

async fn establish_trust(config: &ClusterConfig, route: &Route) -> Result<Trust, RouteError> {
    if config.insecure {
        warn!(target: "AUTH", "Joining cluster without validating the identity of the Auth Server, because `insecure` is set.");
        return Ok(Trust::Blind);
    }
    if !config.ca_pins.is_empty() {
        let tls = client_config(&Trust::Blind, None, &["h2"]).map_err(RouteError::answer)?;
        let connection = open(route, API_DOMAIN, tls, None).await?;
        let answer = AuthServiceClient::new(connection).get_cluster_ca_cert(()).await;
        let pem = answer.map_err(|e| not_an_auth_server(route, &e))?.into_inner().tls_ca;
        let pem = String::from_utf8_lossy(&pem).into_owned();
        check_pins(&pem, &config.ca_pins)?;
        info!(target: "AUTH", "Joining remote cluster with CA pin.");
        return Ok(Trust::Only(vec![pem]));
    }
    if let Some(pem) = &config.authority_pem {
        return Ok(Trust::Only(vec![pem.clone()]));
    }
    // Existing files rely on it; said aloud once it is clear that an auth server answers.
    Ok(Trust::Blind)
}

async fn over_http(route: &Route, trust: &Trust, registration: &Registration<'_>) -> Result<Certificates, RouteError> {
    let tls = client_config(trust, None, &["http/1.1"]).map_err(RouteError::answer)?;
    let request = http_join::request(registration, "/v2/tokens/register").map_err(RouteError::connection)?;
    let exchange = tokio::time::timeout(auth_http::TIMEOUT, auth_http::exchange(route, tls, request));
    let late = |_| RouteError::connection(format_args!("no answer within {} s", auth_http::TIMEOUT.as_secs()));
    let (status, body) = exchange.await.map_err(late)?.map_err(|e| RouteError::connection(explain(route, &e)))?;
    http_join::outcome(route, status, &body)
}

/// Joins over gRPC, by the newest protocol that the cluster knows. `None` where it knows none for this method.
pub(crate) async fn grpc(
    connection: &Connection,
    route: &Route,
    version: &str,
    registration: &Registration<'_>,
) -> Result<Option<Certificates>, RouteError> {
    let unanswered =
        |_| RouteError::connection(format_args!("the join did not end within {} s", CONVERSATION.as_secs()));
    if Major::parse(version).join_stream() {
        let joined = tokio::time::timeout(CONVERSATION, join_stream::join(connection, registration));
        match joined.await.map_err(unanswered)? {
            Err(stop) if stop.may_be_legacy() => {}
            ended => return ended.map(Some).map_err(|stop| stop.explained(route)),
        }
    }
    let joined = async {
        match registration.is_challenged() {
            true => join_legacy::challenged(connection, registration).await,
            false => join_legacy::at_once(connection, registration).await,
        }
    };
    match tokio::time::timeout(CONVERSATION, joined).await.map_err(unanswered)? {
        Err(Stop::Status(status)) if status.code() == Code::Unimplemented && !registration.is_challenged() => Ok(None),
        Err(Stop::Status(status)) if status.code() == Code::Unimplemented => {
            let message =
                format!("the cluster (version {version}) does not know join method `{}`", registration.method());
            Err(RouteError::answer(Failure::new(FailureKind::Unsupported, message)))
        }
        ended => ended.map(Some).map_err(|stop| stop.explained(route)),
    }
}

impl Stop {
    /// The legacy service may still take what the stream did not (wire §d.6).
    fn may_be_legacy(&self) -> bool {
        match self {
            Self::Status(status) => status.code() == Code::Unimplemented,
            Self::Failure(failure) => failure.kind == FailureKind::Unsupported,
        }
    }

    fn explained(self, route: &Route) -> RouteError {
        match self {
            Self::Status(status) => refused(route, &status),
            Self::Failure(failure) => RouteError::answer(failure),
        }
    }
}

fn refused(route: &Route, error: &tonic::Status) -> RouteError {
    let failure = with_remedy(status(route, error));
    RouteError { connection: failure.kind == FailureKind::Unavailable, failure }
}

/// `proto.Certs` as text (wire §b.1).
pub(crate) fn certificates(certs: Certs) -> Result<Certificates, Failure> {
    let text = |bytes: Vec<u8>| {
        let wrong = |_| Failure::new(FailureKind::Denied, "the cluster's certificates are not text");
        String::from_utf8(bytes).map_err(wrong)
    };
    Ok(Certificates {
        ssh: text(certs.ssh)?,
        tls: text(certs.tls)?,
        tls_authorities: certs.tls_ca_certs.into_iter().map(text).collect::<Result<_, _>>()?,
        ssh_authorities: certs.ssh_ca_certs.into_iter().map(text).collect::<Result<_, _>>()?,
    })
}
