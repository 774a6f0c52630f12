//! Joining over gRPC: the legacy service, and the entrance to the stream of the newest release (wire §b.4, §c, §d).

use std::{pin::Pin, sync::Arc, time::Duration};

use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD};
use tokio::sync::mpsc;
use tokio_stream::{Stream, wrappers::ReceiverStream};
use tonic::{Request, Response, Status, Streaming};

use super::{
    certificates::{system_time, trusted},
    grpc::Connection,
    join::{self, Application, Proof},
    join_stream,
    refusal::Refusal,
};
use crate::{
    AuthorityKind, Release,
    pki::{private_key::pem, public_key::PublicKey},
    wire::{
        proto::{
            Certs, ChallengedCerts, RegisterUsingAzureMethodRequest, RegisterUsingIamMethodRequest,
            join_service_server::JoinService as Legacy,
        },
        teleport::join::v1::{JoinRequest, JoinResponse, join_service_server::JoinService as Newest},
        types::RegisterUsingTokenRequest,
    },
};

/// How long a client may take to answer a challenge.
const EXCHANGE: Duration = Duration::from_secs(60);

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
        requests: Request<Streaming<RegisterUsingIamMethodRequest>>,
    ) -> Result<Response<Self::RegisterUsingIAMMethodStream>, Status> {
        let connection = self.0.clone();
        Ok(Response::new(challenged(requests.into_inner(), move |challenge, request| {
            let proof = Proof::Iam { challenge, request: &request.sts_identity_request };
            let admitted = admit(&connection, &request.register_using_token_request.unwrap_or_default(), proof);
            admitted.map_err(|refusal| relayed(&connection, refusal))
        })))
    }

    async fn register_using_azure_method(
        &self,
        requests: Request<Streaming<RegisterUsingAzureMethodRequest>>,
    ) -> Result<Response<Self::RegisterUsingAzureMethodStream>, Status> {
        let connection = self.0.clone();
        Ok(Response::new(challenged(requests.into_inner(), move |challenge, request| {
            let RegisterUsingAzureMethodRequest { attested_data, access_token, .. } = &request;
            let proof = Proof::Azure { challenge, attested_data, intermediate: None, access_token };
            admit(&connection, &request.register_using_token_request.clone().unwrap_or_default(), proof)
        })))
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
            if let Err(status) = join_stream::converse(&connection, &mut requests, &answers).await {
                // A client that has gone needs no reason.
                let _ = answers.send(Err(status)).await;
            }
        });
        Ok(Response::new(Box::pin(ReceiverStream::new(stream))))
    }
}

/// The unary join: evidence, where the token asks for any, is a platform's token.
pub(crate) fn register(connection: &Connection, request: &RegisterUsingTokenRequest) -> Result<Certs, Refusal> {
    let proof = match join::method(connection, &request.token).as_deref() {
        None | Some("token") => Proof::Secret(None),
        Some(_) => Proof::IdToken(&request.id_token),
    };
    admit(connection, request, proof)
}

/// Keys as PEM and as an `authorized_keys` line. Releases with one key sign the SSH key twice (wire §b.1).
fn admit(connection: &Connection, request: &RegisterUsingTokenRequest, proof: Proof<'_>) -> Result<Certs, Refusal> {
    if request.token.is_empty() {
        return Err(Refusal::BadParameter("missing parameter Token".to_owned()));
    }
    if request.role != "Bot" && request.host_id.is_empty() {
        return Err(Refusal::BadParameter("missing parameter HostID".to_owned()));
    }
    if !join::knows(connection, &request.token) {
        // The token is looked at before the keys.
        let (role, node) = (&request.role, &request.node_name);
        let text = format!("{node:?} can not join the cluster with role {role:?}, token expired or not found");
        return Err(Refusal::AccessDenied(text));
    }
    let bad = |error: anyhow::Error| Refusal::BadParameter(format!("{error:#}"));
    let ssh_key = PublicKey::from_authorized_line(&request.public_ssh_key).map_err(bad)?;
    let tls_key = match connection.state.options.release.is_modern() {
        false => ssh_key.clone(),
        true => PublicKey::from_pem(&request.public_tls_key).map_err(bad)?,
    };
    let expires = system_time(request.expires.as_ref());
    let (role, token) = (request.role.as_str(), request.token.as_str());
    let admission = join::redeem(connection, &Application { role, token, proof, ssh_key, tls_key, expires })?;
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

/// A proxy of version 12 hides what auth said in a text (seen).
fn relayed(connection: &Connection, refusal: Refusal) -> Refusal {
    match (connection.port, connection.state.options.release) {
        ("proxy", Release::V12) => {
            let status = refusal.status();
            Refusal::Internal(format!("rpc error: code = {:?} desc = {}", status.code(), status.message()))
        }
        _ => refusal,
    }
}

/// Challenge, one request, certificates: within a minute (wire §c.1).
fn challenged<R: Send + 'static>(
    mut requests: Streaming<R>,
    admit: impl FnOnce(&str, R) -> Result<Certs, Refusal> + Send + 'static,
) -> Answers<ChallengedCerts> {
    let (answers, stream) = mpsc::channel(1);
    tokio::spawn(async move {
        let challenge = challenge();
        let asked = ChallengedCerts { challenge: challenge.clone(), certs: None };
        // A client that has gone needs no answer, here and below.
        let _ = answers.send(Ok(asked)).await;
        let answer = match tokio::time::timeout(EXCHANGE, requests.message()).await {
            Err(_) => Err(Status::deadline_exceeded("the join took too long")),
            Ok(Err(status)) => Err(status),
            Ok(Ok(None)) => Err(Refusal::BadParameter("the challenge was not answered".to_owned()).status()),
            Ok(Ok(Some(request))) => admit(&challenge, request)
                .map(|certs| ChallengedCerts { challenge: String::new(), certs: Some(certs) })
                .map_err(|refusal| refusal.status()),
        };
        let _ = answers.send(answer).await;
    });
    Box::pin(ReceiverStream::new(stream))
}

/// 24 random bytes, so that the text fits the nonce of Azure: 32 characters (wire §c.1).
pub(crate) fn challenge() -> String {
    URL_SAFE_NO_PAD.encode(rand::random::<[u8; 24]>())
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
