//! The one conversation of version 18 and later, for every method (wire §d).

use identity::{Certificates, Failure, FailureKind, TlsCertificate};
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::Status;

use crate::channel::Connection;
use crate::join::Stop;
use crate::registration::{AzureProof, Registration};
use crate::wire::teleport::join::v1;
use crate::wire::teleport::join::v1::challenge::Payload as Challenge;
use crate::wire::teleport::join::v1::challenge_solution::Payload as Solution;
use crate::wire::teleport::join::v1::join_request::Payload as Say;
use crate::wire::teleport::join::v1::join_response::Payload as Hear;

/// A join takes four answers at most; more are passed over, within reason.
const ANSWERS: usize = 8;
/// Of our own messages none waits for another.
const SAID: usize = 4;

/// Joins over `connection`.
pub(crate) async fn join(connection: &Connection, registration: &Registration<'_>) -> Result<Certificates, Stop> {
    let (say, said) = mpsc::channel(SAID);
    let speak = async |payload| {
        let message = v1::JoinRequest { payload: Some(payload) };
        say.send(message).await.map_err(|_| Stop::Status(Status::unavailable("the join stream ended")))
    };
    speak(Say::ClientInit(v1::ClientInit {
        join_method: Some(registration.method().to_owned()),
        token_name: registration.token().to_owned(),
        system_role: "Bot".into(),
        forwarded_by_proxy: false,
    }))
    .await?;
    let mut client = v1::join_service_client::JoinServiceClient::new(connection.clone());
    let mut heard = client.join(ReceiverStream::new(said)).await?.into_inner();
    for _ in 0..ANSWERS {
        let Some(message) = heard.message().await? else { break };
        match message.payload {
            Some(Hear::Init(_)) => speak(opening(registration)).await?,
            Some(Hear::Challenge(challenge)) => match solve(challenge, registration).await {
                Ok(solution) => {
                    speak(Say::Solution(v1::ChallengeSolution { payload: Some(solution) })).await?;
                }
                Err(failure) => {
                    // The reason is for the operator of this machine; the cluster learns that there is one.
                    let reason = v1::giving_up::Reason::ChallengeSolutionFailed.into();
                    speak(Say::GivingUp(v1::GivingUp { reason, msg: String::new() })).await?;
                    return Err(Stop::Failure(failure));
                }
            },
            Some(Hear::Result(result)) => {
                let Some(v1::result::Payload::BotResult(bot)) = result.payload else { break };
                return bot.certificates.and_then(certificates).ok_or_else(unreadable);
            }
            // Newer than we are.
            None => {}
        }
    }
    Err(unreadable())
}

/// Our keys, in the message that the method wants.
fn opening(registration: &Registration<'_>) -> Say {
    let public_keys = v1::PublicKeys {
        public_tls_key: registration.key().spki_der().to_vec(),
        public_ssh_key: registration.key().ssh_wire(),
    };
    let bot = v1::BotParams { public_keys: Some(public_keys), expires: Some(registration.expires_proto()) };
    let client_params = Some(v1::ClientParams { payload: Some(v1::client_params::Payload::BotParams(bot)) });
    match registration.method() {
        "azure" => Say::AzureInit(v1::AzureInit { client_params }),
        "iam" => Say::IamInit(v1::IamInit { client_params }),
        _ if registration.id_token().is_empty() => {
            Say::TokenInit(v1::TokenInit { client_params, secret: String::new() })
        }
        _ => Say::OidcInit(v1::OidcInit { client_params, id_token: registration.id_token().as_bytes().to_vec() }),
    }
}

async fn solve(challenge: v1::Challenge, registration: &Registration<'_>) -> Result<Solution, Failure> {
    match challenge.payload {
        Some(Challenge::AzureChallenge(asked)) => {
            let AzureProof { attested_data, access_token, intermediate } = registration.azure(asked.challenge).await?;
            if intermediate.is_empty() && !attested_data.is_empty() {
                let message = "this cluster wants the issuers of the attested document, which the plugin does not send";
                return Err(Failure::new(FailureKind::Unsupported, message));
            }
            Ok(Solution::AzureChallengeSolution(v1::AzureChallengeSolution {
                attested_data,
                intermediate,
                access_token,
            }))
        }
        Some(Challenge::IamChallenge(asked)) => {
            let sts_identity_request = registration.iam(asked.challenge).await?;
            Ok(Solution::IamChallengeSolution(v1::IamChallengeSolution { sts_identity_request }))
        }
        None => {
            let message = "the cluster sent a challenge of a kind that this version does not know";
            Err(Failure::new(FailureKind::Unsupported, message))
        }
    }
}

fn unreadable() -> Stop {
    Stop::Status(Status::invalid_argument("the cluster's answer to the join cannot be read"))
}

/// DER and SSH wire format into the text forms that everything else uses.
pub(crate) fn certificates(certificates: v1::Certificates) -> Option<Certificates> {
    let pem = |der: Vec<u8>| Some(TlsCertificate::from_der(der).ok()?.pem);
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
