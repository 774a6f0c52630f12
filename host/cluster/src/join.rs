//! Joining: which protocol, over which transport (wire §b–d).

use std::time::Duration;

use identity::{Attempt, Certificates, Failure, FailureKind, JoinProof, Joining, Opening, PublicKey, Timestamp};
use prost_types::Timestamp as ProtoTimestamp;
use tokio_stream::wrappers::ReceiverStream;
use tracing::{info, warn};
use zeroize::Zeroizing;

use crate::address::Route;
use crate::channel::{API_DOMAIN, Connection, open, open_channel, speaking};
use crate::connect::ClusterConfig;
use crate::discovery::{find, web_client};
use crate::error::{RouteError, status};
use crate::http_join;
use crate::trust::{Trust, check_pins, client_config};
use crate::version::{Major, client_version};
use crate::wire::proto::auth_service_client::AuthServiceClient;
use crate::wire::proto::join_service_client::JoinServiceClient;
use crate::wire::proto::{Certs, PingRequest};
use crate::wire::teleport::join::v1;
use crate::wire::types::RegisterUsingTokenRequest;

/// What the cluster gets to see, whatever the protocol.
pub(crate) struct Registration {
    pub(crate) method: String,
    pub(crate) token: Zeroizing<String>,
    pub(crate) id_token: Zeroizing<String>,
    pub(crate) key: PublicKey,
    pub(crate) expires: Timestamp,
}

impl Registration {
    /// Asks the plugin for its proof.
    pub(crate) async fn new(joining: Joining<'_>, now: Timestamp) -> Result<Self, Failure> {
        let description = joining.method.description();
        let unsupported = || {
            let message = format!("join method `{}` is not supported yet", description.method);
            Failure::new(FailureKind::Unsupported, message)
        };
        if description.opening == Opening::Challenge {
            return Err(unsupported());
        }
        // A plugin never sees a secret: the name goes in only where the token is not one (wire §c.3).
        let token_name = if description.method == "token" { String::new() } else { joining.token.to_string() };
        let proof = joining.method.prove(joining.config, Attempt { token_name, challenge: None }).await?;
        let id_token = match proof {
            JoinProof::Secret => Zeroizing::default(),
            JoinProof::IdToken(jwt) => Zeroizing::new(jwt),
            _ => return Err(unsupported()),
        };
        let (method, key) = (description.method.clone(), joining.key.clone());
        Ok(Self { method, token: joining.token, id_token, key, expires: now.plus(joining.ttl) })
    }

    fn expires(&self) -> ProtoTimestamp {
        ProtoTimestamp { seconds: self.expires.0, nanos: 0 }
    }
}

/// Joins at a proxy: its web certificate is verified like any other.
pub(crate) async fn at_proxy(
    config: &ClusterConfig,
    route: &Route,
    registration: &Registration,
) -> Result<Certificates, RouteError> {
    info!(target: "AUTH", "Attempting registration via proxy server.");
    let web = web_client(config.insecure)?;
    let found = find(route, &web).await?;
    let major = Major::parse(&found.version);
    if major.grpc_join() {
        let trust = if config.insecure { Trust::Blind } else { Trust::System };
        let tls = client_config(&trust, None, &["teleport-proxy-grpc", "h2"]).map_err(RouteError::answer)?;
        let connection = open(route, &route.host, tls, Some(&client_version(&found.version))).await?;
        if let Some(certificates) = grpc(&connection, route, registration).await? {
            info!(target: "AUTH", "Successfully registered via proxy server.");
            return Ok(certificates);
        }
    }
    let url = format!("https://{route}/v1/webapi/host/credentials");
    let certificates = http_join::register(&web, &url, route, registration).await?;
    info!(target: "AUTH", "Successfully registered via proxy server.");
    Ok(certificates)
}

/// Joins at an auth server: trust comes from pins or a file, or the operator is told that there is none.
pub(crate) async fn at_auth(
    config: &ClusterConfig,
    route: &Route,
    registration: &Registration,
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
    let certificates = match Major::parse(&version).grpc_join() {
        true => grpc(&speaking(channel, Some(&client_version(&version))), route, registration).await?,
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

async fn over_http(route: &Route, trust: &Trust, registration: &Registration) -> Result<Certificates, RouteError> {
    let failed = |e: &dyn std::fmt::Display| RouteError::connection(format_args!("{e}"));
    let addresses: Vec<_> =
        tokio::net::lookup_host((route.host.as_str(), route.port)).await.map_err(|e| failed(&e))?.collect();
    let tls = client_config(trust, None, &["http/1.1"]).map_err(RouteError::answer)?;
    let client = reqwest::Client::builder()
        .timeout(Duration::from_secs(30))
        .no_proxy()
        .redirect(reqwest::redirect::Policy::none())
        .tls_backend_preconfigured((*tls).clone())
        .resolve_to_addrs(API_DOMAIN, &addresses)
        .build()
        .map_err(|e| failed(&e))?;
    let url = format!("https://{API_DOMAIN}:{}/v2/tokens/register", route.port);
    http_join::register(&client, &url, route, registration).await
}

/// Joins over gRPC. `None` where the cluster knows neither of the two services.
async fn grpc(
    connection: &Connection,
    route: &Route,
    registration: &Registration,
) -> Result<Option<Certificates>, RouteError> {
    match join_v1(connection, registration).await {
        Ok(certificates) => return Ok(Some(certificates)),
        Err(e) if e.code() == tonic::Code::Unimplemented => {}
        Err(e) => return Err(refused(route, &e)),
    }
    match register_using_token(connection, registration).await {
        Ok(certificates) => Ok(Some(certificates)),
        Err(e) if e.code() == tonic::Code::Unimplemented => Ok(None),
        Err(e) => Err(refused(route, &e)),
    }
}

fn refused(route: &Route, error: &tonic::Status) -> RouteError {
    let mut failure = status(route, error);
    if failure.message.contains("token expired or not found") {
        failure
            .message
            .push_str("; the token is wrong, expired or already used: create a new one and set `onboarding.token`");
    }
    RouteError { connection: failure.kind == FailureKind::Unavailable, failure }
}

async fn register_using_token(
    connection: &Connection,
    registration: &Registration,
) -> Result<Certificates, tonic::Status> {
    let request = RegisterUsingTokenRequest {
        role: "Bot".into(),
        token: registration.token.to_string(),
        public_tls_key: registration.key.pem().into_bytes(),
        public_ssh_key: format!("{}\n", registration.key.ssh_line()).into_bytes(),
        id_token: registration.id_token.to_string(),
        expires: Some(registration.expires()),
        ..RegisterUsingTokenRequest::default()
    };
    let answer = JoinServiceClient::new(connection.clone()).register_using_token(request).await?;
    certificates(answer.into_inner()).map_err(|e| tonic::Status::invalid_argument(e.message))
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

/// The conversation of version 18 and later for methods without a challenge (wire §d.3).
async fn join_v1(connection: &Connection, registration: &Registration) -> Result<Certificates, tonic::Status> {
    use v1::join_request::Payload as Say;
    use v1::join_response::Payload as Hear;
    // Two messages are said in all.
    let (say, said) = tokio::sync::mpsc::channel(2);
    let gone = |_| tonic::Status::unavailable("the join stream ended");
    let speak = async |payload| say.send(v1::JoinRequest { payload: Some(payload) }).await.map_err(gone);
    speak(Say::ClientInit(v1::ClientInit {
        join_method: Some(registration.method.clone()),
        token_name: registration.token.to_string(),
        system_role: "Bot".into(),
        forwarded_by_proxy: false,
    }))
    .await?;
    let mut client = v1::join_service_client::JoinServiceClient::new(connection.clone());
    let mut heard = client.join(ReceiverStream::new(said)).await?.into_inner();
    // One answer to each message; anything newer in between is passed over, within reason.
    for _ in 0..8 {
        match heard.message().await?.and_then(|message| message.payload) {
            Some(Hear::Init(_)) => {
                let public_keys = v1::PublicKeys {
                    public_tls_key: registration.key.spki_der().to_vec(),
                    public_ssh_key: registration.key.ssh_wire(),
                };
                let bot = v1::BotParams { public_keys: Some(public_keys), expires: Some(registration.expires()) };
                let client_params =
                    Some(v1::ClientParams { payload: Some(v1::client_params::Payload::BotParams(bot)) });
                speak(match registration.id_token.is_empty() {
                    true => Say::TokenInit(v1::TokenInit { client_params, secret: String::new() }),
                    false => {
                        let id_token = registration.id_token.as_bytes().to_vec();
                        Say::OidcInit(v1::OidcInit { client_params, id_token })
                    }
                })
                .await?;
            }
            Some(Hear::Result(result)) => {
                let Some(v1::result::Payload::BotResult(bot)) = result.payload else { break };
                return bot.certificates.and_then(v1_certificates).ok_or_else(unreadable);
            }
            Some(Hear::Challenge(_)) | None => break,
        }
    }
    Err(unreadable())
}

fn unreadable() -> tonic::Status {
    tonic::Status::invalid_argument("the cluster's answer to the join cannot be read")
}

/// DER and SSH wire format into the text forms that everything else uses.
fn v1_certificates(certificates: v1::Certificates) -> Option<Certificates> {
    let pem = |der: Vec<u8>| Some(identity::TlsCertificate::from_der(der).ok()?.pem);
    Some(Certificates {
        ssh: ssh_line(&certificates.ssh_cert)?,
        tls: pem(certificates.tls_cert)?,
        tls_authorities: certificates.tls_ca_certs.into_iter().map(pem).collect::<Option<_>>()?,
        ssh_authorities: certificates.ssh_ca_keys.iter().map(|key| ssh_line(key)).collect::<Option<_>>()?,
    })
}

/// `<type> <base64>` and a newline: SSH wire format begins with its type.
fn ssh_line(wire: &[u8]) -> Option<String> {
    use base64::Engine;
    let length = usize::try_from(u32::from_be_bytes(wire.get(..4)?.try_into().ok()?)).ok()?;
    let kind = std::str::from_utf8(wire.get(4..4usize.checked_add(length)?)?).ok()?;
    Some(format!("{kind} {}\n", base64::engine::general_purpose::STANDARD.encode(wire)))
}
