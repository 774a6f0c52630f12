//! The one conversation of the newest release, for every way of joining (wire §d).

use std::sync::Arc;

use tokio::sync::mpsc;
use tonic::{Status, Streaming};

use super::{
    certificates::system_time,
    grpc::Connection,
    join::{self, Admission, Application, Proof},
    join_service::challenge,
    refusal::Refusal,
};
use crate::{
    AuthorityKind, Suite,
    pki::public_key::PublicKey,
    wire::teleport::join::v1::{
        AzureChallenge, AzureChallengeSolution, BotResult, Certificates, Challenge, ClientInit, ClientParams,
        IamChallenge, IamChallengeSolution, JoinRequest, JoinResponse, Result as JoinResult, ServerInit,
        challenge::Payload as Ask, challenge_solution::Payload as Solution, client_params,
        join_request::Payload as Heard, join_response::Payload as Say, result,
    },
};

/// Where answers go.
pub(crate) type Answers = mpsc::Sender<Result<JoinResponse, Status>>;

/// Goes through one conversation.
pub(crate) async fn converse(
    connection: &Arc<Connection>,
    requests: &mut Streaming<JoinRequest>,
    answers: &Answers,
) -> Result<(), Status> {
    let unexpected = || Refusal::BadParameter("the join messages came in another order".to_owned()).status();
    let Some(Heard::ClientInit(client)) = next(requests).await? else { return Err(unexpected()) };
    let method = check_client(connection, &client)?;
    let suite = connection.state.options.suite().map_or("legacy", Suite::name);
    let init = ServerInit { join_method: method, signature_algorithm_suite: suite.to_owned() };
    send(answers, Say::Init(init)).await?;
    let admission = match next(requests).await? {
        Some(Heard::TokenInit(token)) => {
            admit(connection, &client, token.client_params, Proof::Secret(Some(&token.secret)))?
        }
        Some(Heard::OidcInit(oidc)) => {
            let jwt = String::from_utf8_lossy(&oidc.id_token);
            admit(connection, &client, oidc.client_params, Proof::IdToken(&jwt))?
        }
        Some(Heard::AzureInit(azure)) => {
            let challenge = challenge();
            let asked = Ask::AzureChallenge(AzureChallenge { challenge: challenge.clone() });
            let solution = ask(requests, answers, asked).await?;
            let Some(Solution::AzureChallengeSolution(solution)) = solution else { return Err(unexpected()) };
            let AzureChallengeSolution { attested_data, intermediate, access_token } = &solution;
            let (challenge, intermediate) = (challenge.as_str(), Some(intermediate.as_slice()));
            let proof = Proof::Azure { challenge, attested_data, intermediate, access_token };
            admit(connection, &client, azure.client_params, proof)?
        }
        Some(Heard::IamInit(iam)) => {
            let challenge = challenge();
            let asked = Ask::IamChallenge(IamChallenge { challenge: challenge.clone() });
            let solution = ask(requests, answers, asked).await?;
            let Some(Solution::IamChallengeSolution(solution)) = solution else { return Err(unexpected()) };
            let IamChallengeSolution { sts_identity_request } = &solution;
            let proof = Proof::Iam { challenge: &challenge, request: sts_identity_request };
            admit(connection, &client, iam.client_params, proof)?
        }
        Some(Heard::GivingUp(_)) => return Ok(()),
        _ => return Err(unexpected()),
    };
    let certificates = certificates(connection, admission)?;
    let result = result::Payload::BotResult(BotResult { certificates: Some(certificates) });
    send(answers, Say::Result(JoinResult { payload: Some(result) })).await
}

/// The token's join method, unless the client wants another one.
fn check_client(connection: &Connection, client: &ClientInit) -> Result<String, Refusal> {
    let method = join::method(connection, &client.token_name).filter(|_| join::knows(connection, &client.token_name));
    let method = method.ok_or_else(|| Refusal::AccessDenied("token expired or not found".to_owned()))?;
    match client.join_method.as_deref() {
        None | Some("") => Ok(method),
        Some(wanted) if wanted == method => Ok(method),
        Some(other) => Err(Refusal::BadParameter(format!("the token's join method is {method}, not {other}"))),
    }
}

fn admit(
    connection: &Connection,
    client: &ClientInit,
    params: Option<ClientParams>,
    proof: Proof<'_>,
) -> Result<Admission, Refusal> {
    let bad = |error: anyhow::Error| Refusal::BadParameter(format!("{error:#}"));
    let missing = || Refusal::BadParameter("missing parameter ClientParams".to_owned());
    let client_params::Payload::BotParams(bot) = params.and_then(|params| params.payload).ok_or_else(missing)?;
    let keys = bot.public_keys.ok_or_else(missing)?;
    let application = Application {
        role: &client.system_role,
        token: &client.token_name,
        proof,
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

/// A client that gives up instead of solving leaves nothing to say.
async fn ask(requests: &mut Streaming<JoinRequest>, answers: &Answers, asked: Ask) -> Result<Option<Solution>, Status> {
    send(answers, Say::Challenge(Challenge { payload: Some(asked) })).await?;
    match next(requests).await? {
        Some(Heard::Solution(solution)) => Ok(solution.payload),
        Some(Heard::GivingUp(_)) => Err(Status::cancelled("the client gave up")),
        _ => Ok(None),
    }
}

async fn next(requests: &mut Streaming<JoinRequest>) -> Result<Option<Heard>, Status> {
    Ok(requests.message().await?.and_then(|message| message.payload))
}

async fn send(answers: &Answers, payload: Say) -> Result<(), Status> {
    let answer = JoinResponse { payload: Some(payload) };
    answers.send(Ok(answer)).await.map_err(|_| Status::cancelled("the client has gone"))
}
