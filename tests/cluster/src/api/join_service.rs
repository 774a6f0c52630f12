//! Joining over gRPC: the legacy service, and the stream of the newest release (wire §b.4, §d).

use std::{pin::Pin, sync::Arc};

use tokio::sync::mpsc;
use tokio_stream::{Stream, wrappers::ReceiverStream};
use tonic::{Request, Response, Status, Streaming};

use super::{
    certificates::{system_time, trusted},
    grpc::Connection,
    join::{self, Admission, Application},
    refusal::Refusal,
};
use crate::{
    AuthorityKind,
    pki::{private_key::pem, public_key::PublicKey},
    wire::{
        proto::{
            Certs, ChallengedCerts, RegisterUsingAzureMethodRequest, RegisterUsingIamMethodRequest,
            join_service_server::JoinService as Legacy,
        },
        teleport::join::v1::{
            BotResult, Certificates, ClientInit, JoinRequest, JoinResponse, Result as JoinResult, ServerInit,
            TokenInit, client_params, join_request, join_response, join_service_server::JoinService as Newest, result,
        },
        types::RegisterUsingTokenRequest,
    },
};

/// Both services for one connection.
pub(crate) struct JoinApi(pub Arc<Connection>);

type Answers<T> = Pin<Box<dyn Stream<Item = Result<T, Status>> + Send>>;

#[tonic::async_trait]
impl Legacy for JoinApi {
    type RegisterUsingIAMMethodStream = Answers<ChallengedCerts>;
    type RegisterUsingAzureMethodStream = Answers<ChallengedCerts>;

    async fn register_using_token(
        &self,
        request: Request<RegisterUsingTokenRequest>,
    ) -> Result<Response<Certs>, Status> {
        Ok(Response::new(register(&self.0, request.get_ref())?))
    }

    async fn register_using_iam_method(
        &self,
        _: Request<Streaming<RegisterUsingIamMethodRequest>>,
    ) -> Result<Response<Self::RegisterUsingIAMMethodStream>, Status> {
        Err(Refusal::BadParameter("the stand-in has tokens of method `token` only".to_owned()).status())
    }

    async fn register_using_azure_method(
        &self,
        _: Request<Streaming<RegisterUsingAzureMethodRequest>>,
    ) -> Result<Response<Self::RegisterUsingAzureMethodStream>, Status> {
        Err(Refusal::BadParameter("the stand-in has tokens of method `token` only".to_owned()).status())
    }
}

#[tonic::async_trait]
impl Newest for JoinApi {
    type JoinStream = Answers<JoinResponse>;

    async fn join(&self, request: Request<Streaming<JoinRequest>>) -> Result<Response<Self::JoinStream>, Status> {
        let version = request.metadata().get("version").and_then(|value| value.to_str().ok()).unwrap_or_default();
        check_version(version, self.0.state.options.release.minimum_client())?;
        let (connection, mut requests) = (self.0.clone(), request.into_inner());
        let (answers, stream) = mpsc::channel(1);
        tokio::spawn(async move {
            if let Err(status) = converse(&connection, &mut requests, &answers).await {
                // A client that has gone needs no reason.
                let _ = answers.send(Err(status)).await;
            }
        });
        Ok(Response::new(Box::pin(ReceiverStream::new(stream))))
    }
}

/// The unary join: keys as PEM and as an `authorized_keys` line. Version 15 signs the SSH key twice (wire §b.1).
pub(crate) fn register(connection: &Connection, request: &RegisterUsingTokenRequest) -> Result<Certs, Refusal> {
    if request.token.is_empty() {
        return Err(Refusal::BadParameter("missing parameter Token".to_owned()));
    }
    if !join::knows(connection, &request.token) {
        // The token is looked at before the keys.
        let (role, node) = (&request.role, &request.node_name);
        let text = format!("{node:?} can not join the cluster with role {role:?}, token expired or not found");
        return Err(Refusal::AccessDenied(text));
    }
    let bad = |error: anyhow::Error| Refusal::BadParameter(format!("{error:#}"));
    let ssh_key = PublicKey::from_authorized_line(&request.public_ssh_key).map_err(bad)?;
    let tls_key = match connection.state.options.release {
        crate::Release::V15 => ssh_key.clone(),
        crate::Release::Newest => PublicKey::from_pem(&request.public_tls_key).map_err(bad)?,
    };
    let expires = system_time(request.expires.as_ref());
    let (role, token) = (request.role.as_str(), request.token.as_str());
    let admission = join::redeem(connection, &Application { role, token, secret: None, ssh_key, tls_key, expires })?;
    let kinds = [AuthorityKind::User, AuthorityKind::Host];
    let (tls_ca_certs, mut ssh_ca_certs) = trusted(&connection.state, &kinds)?;
    ssh_ca_certs.dedup();
    Ok(Certs {
        ssh: admission.ssh.to_line().into_bytes(),
        tls: pem("CERTIFICATE", &admission.tls).into_bytes(),
        tls_ca_certs,
        ssh_ca_certs,
    })
}

async fn converse(
    connection: &Connection,
    requests: &mut Streaming<JoinRequest>,
    answers: &mpsc::Sender<Result<JoinResponse, Status>>,
) -> Result<(), Status> {
    let unexpected = || Refusal::BadParameter("the join messages came in another order".to_owned()).status();
    let Some(join_request::Payload::ClientInit(client)) = next(requests).await? else { return Err(unexpected()) };
    let suite = check_client(connection, &client)?;
    let init = ServerInit { join_method: "token".to_owned(), signature_algorithm_suite: suite.to_owned() };
    send(answers, join_response::Payload::Init(init)).await?;
    let token = match next(requests).await? {
        Some(join_request::Payload::TokenInit(token)) => token,
        Some(join_request::Payload::GivingUp(_)) => return Ok(()),
        _ => return Err(unexpected()),
    };
    let admission = admit(connection, &client, token)?;
    let certificates = certificates(connection, admission)?;
    let result = result::Payload::BotResult(BotResult { certificates: Some(certificates) });
    send(answers, join_response::Payload::Result(JoinResult { payload: Some(result) })).await
}

fn check_client(connection: &Connection, client: &ClientInit) -> Result<&'static str, Refusal> {
    if !join::knows(connection, &client.token_name) {
        return Err(Refusal::AccessDenied("token expired or not found".to_owned()));
    }
    match client.join_method.as_deref() {
        None | Some("" | "token") => Ok(connection.state.options.release.suite().map_or("legacy", |(name, _)| name)),
        Some(other) => Err(Refusal::BadParameter(format!("the token's join method is token, not {other}"))),
    }
}

fn admit(connection: &Connection, client: &ClientInit, token: TokenInit) -> Result<Admission, Refusal> {
    let bad = |error: anyhow::Error| Refusal::BadParameter(format!("{error:#}"));
    let missing = || Refusal::BadParameter("missing parameter ClientParams".to_owned());
    let client_params::Payload::BotParams(bot) =
        token.client_params.and_then(|params| params.payload).ok_or_else(missing)?;
    let keys = bot.public_keys.ok_or_else(missing)?;
    let application = Application {
        role: &client.system_role,
        token: &client.token_name,
        secret: Some(&token.secret),
        ssh_key: PublicKey::from_ssh_wire(&keys.public_ssh_key).map_err(bad)?,
        tls_key: PublicKey::from_der(&keys.public_tls_key).map_err(bad)?,
        expires: system_time(bot.expires.as_ref()),
    };
    join::redeem(connection, &application)
}

/// DER and SSH wire forms: no PEM, no base64 (wire §d.2).
fn certificates(connection: &Connection, admission: Admission) -> Result<Certificates, Refusal> {
    let mut answer = Certificates { tls_cert: admission.tls, ssh_cert: admission.ssh.wire, ..Certificates::default() };
    for kind in [AuthorityKind::User, AuthorityKind::Host] {
        connection.state.authority(kind, |authority| {
            answer.tls_ca_certs.extend(authority.trusted().map(|keys| keys.certificate.clone()));
            let keys = authority.trusted().filter_map(|keys| keys.ssh.as_ref());
            answer.ssh_ca_keys.extend(keys.map(|key| key.public().to_ssh_wire()));
            Ok(())
        })?;
    }
    Ok(answer)
}

/// No version is admitted, an old or unreadable one is not (wire §d.5).
fn check_version(version: &str, minimum: &str) -> Result<(), Refusal> {
    let numbers = |text: &str| -> Option<Vec<u64>> {
        text.split(['-', '+']).next()?.split('.').map(|part| part.parse().ok()).collect()
    };
    if version.is_empty() || numbers(version).is_some_and(|given| Some(given) >= numbers(minimum)) {
        return Ok(());
    }
    Err(Refusal::AccessDenied(format!("client version is unsupported, minimum supported version is {minimum}")))
}

async fn next(requests: &mut Streaming<JoinRequest>) -> Result<Option<join_request::Payload>, Status> {
    Ok(requests.message().await?.and_then(|message| message.payload))
}

async fn send(
    answers: &mpsc::Sender<Result<JoinResponse, Status>>,
    payload: join_response::Payload,
) -> Result<(), Status> {
    let answer = JoinResponse { payload: Some(payload) };
    answers.send(Ok(answer)).await.map_err(|_| Status::cancelled("the client has gone"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn old_and_unreadable_versions_are_refused() {
        for admitted in ["", "17.0.0", "18.2.0-dev", "19.1"] {
            assert!(check_version(admitted, "17.0.0").is_ok(), "{admitted}");
        }
        for refused in ["16.9.9", "v18.0.0", "newest"] {
            assert!(check_version(refused, "17.0.0").is_err(), "{refused}");
        }
    }
}
