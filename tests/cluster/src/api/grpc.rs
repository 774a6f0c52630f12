//! Sends a gRPC request to its service, past the faults.

use std::sync::Arc;

use http::{Request, Response};
use tokio::sync::Notify;
use tonic::body::Body;
use tower::ServiceExt;

use super::{
    auth_service::AuthApi, bot_instances::BotInstanceApi, join_service::JoinApi, modern::ModernApi, refusal::Refusal,
    transport::TransportApi, trust_service::TrustApi,
};
use crate::{
    faults::{self, Fault},
    options::Release,
    pki::caller::Caller,
    state::State,
    wire::{
        proto::{auth_service_server::AuthServiceServer, join_service_server as legacy},
        teleport::{
            clusterconfig::v1::cluster_config_service_server::ClusterConfigServiceServer,
            join::v1::join_service_server as newest,
            machineid::v1::bot_instance_service_server::BotInstanceServiceServer,
            presence::v1::presence_service_server::PresenceServiceServer,
            transport::v1::transport_service_server::TransportServiceServer,
            trust::v1::trust_service_server::TrustServiceServer,
        },
    },
};

/// One client connection, after its handshake.
pub(crate) struct Connection {
    pub state: Arc<State>,
    /// None for anonymous.
    pub caller: Option<Caller>,
    /// `address:port` of the client.
    pub remote: std::net::SocketAddr,
    /// `auth` or `proxy`.
    pub port: &'static str,
    /// More than one certificate was presented (wire §f.1).
    pub has_intermediaries: bool,
    /// Cuts the connection.
    pub cut: Notify,
}

/// Whether the answer still reaches the client.
#[derive(PartialEq, Eq)]
pub(crate) enum Verdict {
    Answer,
    LoseAnswer,
}

/// What an anonymous client may call (wire §b.3, rust-wire §3).
const ANONYMOUS: &[&str] = &[
    "/proto.AuthService/Ping",
    "/proto.AuthService/GetClusterCACert",
    "/proto.JoinService/",
    "/teleport.join.v1.JoinService/",
    "POST /v2/tokens/register",
];

impl Connection {
    /// Records a request and applies faults, locks and the rule that anonymous clients may do next to nothing.
    pub async fn admit(&self, method: &str, version: Option<String>) -> Result<Verdict, Refusal> {
        let peer = self.caller.as_ref().map(|caller| caller.user.clone()).unwrap_or_default();
        let faults = &self.state.faults;
        faults.record(faults::Request {
            method: method.to_owned(),
            peer: peer.clone(),
            port: self.port,
            version: version.clone(),
        });
        let mut verdict = Verdict::Answer;
        for fault in faults.take(method) {
            match fault {
                Fault::Delay(time) => tokio::time::sleep(time).await,
                Fault::Unavailable => {
                    return Err(Refusal::ConnectionProblem(format!("the stand-in lets `{method}` fail")));
                }
                Fault::Cut => {
                    self.cut.notify_one();
                    return Err(Refusal::Cut);
                }
                Fault::LoseAnswer => verdict = Verdict::LoseAnswer,
                Fault::Hostile(how) => return Err(Refusal::Hostile(how)),
            }
        }
        if self.has_intermediaries {
            return Err(Refusal::AccessDenied("access denied: intermediaries are not supported".to_owned()));
        }
        if self.port == "proxy" {
            return Ok(verdict);
        }
        if self.caller.is_none() && !ANONYMOUS.iter().any(|allowed| method.starts_with(allowed)) {
            return Err(Refusal::AccessDenied(format!("access denied: `{method}` needs a client certificate")));
        }
        if self.caller.is_some() {
            self.authorize(&peer)?;
        }
        Ok(verdict)
    }

    /// Locks and removed users, as the authorizer of a cluster answers: the reason stays in its log (seen of versions 12
    /// and 15).
    fn authorize(&self, user: &str) -> Result<(), Refusal> {
        let denied = match self.state.options.release {
            Release::V12 => "[10] access denied",
            _ => "access denied",
        };
        if !self.state.registry().bots.contains_key(user) {
            return Err(Refusal::NotFound(format!("{denied}\n\tuser {user:?} not found")));
        }
        match self.state.faults.lock_on(user) {
            Some(_) => Err(Refusal::AccessDenied(denied.to_owned())),
            None => Ok(()),
        }
    }

    /// The client certificate's identity; [`Self::admit`] has checked that there is one.
    pub fn caller(&self) -> Result<&Caller, Refusal> {
        self.caller.as_ref().ok_or_else(|| Refusal::AccessDenied("access denied: no client certificate".to_owned()))
    }
}

/// The text of a lock, where a certificate is to be issued or a session to be opened (wire §g.3).
pub(crate) fn locked(user: &str, message: &str) -> Refusal {
    let colon = if message.is_empty() { "" } else { ": " };
    Refusal::AccessDenied(format!("lock targeting User:{user:?} is in force{colon}{message}"))
}

/// Answers one gRPC request.
pub(crate) async fn serve(connection: Arc<Connection>, request: Request<hyper::body::Incoming>) -> Response<Body> {
    let method = request.uri().path().to_owned();
    let version = request.headers().get("version").and_then(|value| value.to_str().ok()).map(str::to_owned);
    match connection.admit(&method, version).await {
        Err(refusal) => refusal.grpc(),
        Ok(verdict) => {
            let response = route(&connection, &method, request.map(Body::new)).await;
            if verdict == Verdict::LoseAnswer {
                connection.cut.notify_one();
                return Refusal::Cut.status().into_http();
            }
            response
        }
    }
}

async fn route(connection: &Arc<Connection>, method: &str, request: Request<Body>) -> Response<Body> {
    let service = method.trim_start_matches('/').split('/').next().unwrap_or_default();
    let on_auth = connection.port == "auth";
    let release = connection.state.options.release;
    let connection = connection.clone();
    let answer = match service {
        "proto.AuthService" if on_auth => AuthServiceServer::new(AuthApi(connection)).oneshot(request).await,
        "teleport.trust.v1.TrustService" if on_auth && release >= Release::V15 => {
            TrustServiceServer::new(TrustApi(connection)).oneshot(request).await
        }
        "teleport.machineid.v1.BotInstanceService" if on_auth && release.is_modern() => {
            BotInstanceServiceServer::new(BotInstanceApi(connection)).oneshot(request).await
        }
        "teleport.clusterconfig.v1.ClusterConfigService" if on_auth && release.is_modern() => {
            ClusterConfigServiceServer::new(ModernApi(connection)).oneshot(request).await
        }
        "teleport.presence.v1.PresenceService" if on_auth && release.is_modern() => {
            PresenceServiceServer::new(ModernApi(connection)).oneshot(request).await
        }
        "teleport.transport.v1.TransportService" if !on_auth && release >= Release::V15 => {
            TransportServiceServer::new(TransportApi(connection)).oneshot(request).await
        }
        "proto.JoinService" if knows(release, last(method)) => {
            legacy::JoinServiceServer::new(JoinApi(connection)).oneshot(request).await
        }
        "teleport.join.v1.JoinService" if release >= Release::Newest => {
            newest::JoinServiceServer::new(JoinApi(connection)).oneshot(request).await
        }
        "proto.JoinService" => return unknown(&format!("unknown method {} for service {service}", last(method))),
        _ => return unknown(&format!("unknown service {service}")),
    };
    let Ok(response) = answer;
    response
}

/// The methods of the legacy join service, by the release they came with (wire §b.4, §l).
fn knows(release: Release, join: &str) -> bool {
    match join {
        "RegisterUsingToken" => release.is_modern(),
        "RegisterUsingAzureMethod" => release >= Release::V15,
        _ => true,
    }
}

fn last(method: &str) -> &str {
    method.rsplit('/').next().unwrap_or_default()
}

fn unknown(message: &str) -> Response<Body> {
    Refusal::NotImplemented(message.to_owned()).status().into_http()
}
