//! The legacy join service: one call, or a stream for methods with a challenge (wire §b.4, §c).

use identity::Certificates;
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Status, Streaming};

use crate::channel::Connection;
use crate::join::{Stop, certificates};
use crate::registration::{AzureProof, Registration};
use crate::wire::proto::join_service_client::JoinServiceClient;
use crate::wire::proto::{Certs, ChallengedCerts, RegisterUsingAzureMethodRequest, RegisterUsingIamMethodRequest};

/// Joins with a method that needs no challenge; since version 16.
pub(crate) async fn at_once(connection: &Connection, registration: &Registration<'_>) -> Result<Certificates, Stop> {
    let answer = JoinServiceClient::new(connection.clone()).register_using_token(registration.legacy()).await?;
    certificates(answer.into_inner()).map_err(Stop::Failure)
}

/// Joins with a method whose challenge comes first: the client opens the stream and says nothing.
pub(crate) async fn challenged(connection: &Connection, registration: &Registration<'_>) -> Result<Certificates, Stop> {
    let mut client = JoinServiceClient::new(connection.clone());
    let certs = match registration.method() {
        "iam" => {
            let (say, said) = mpsc::channel(1);
            let mut heard = client.register_using_iam_method(ReceiverStream::new(said)).await?.into_inner();
            let sts_identity_request = registration.iam(challenge(&mut heard).await?).await.map_err(Stop::Failure)?;
            let register_using_token_request = Some(registration.legacy());
            let request = RegisterUsingIamMethodRequest { register_using_token_request, sts_identity_request };
            // A stream that has ended says why when it is read.
            let _ = say.send(request).await;
            result(&mut heard).await?
        }
        _ => {
            let (say, said) = mpsc::channel(1);
            let mut heard = client.register_using_azure_method(ReceiverStream::new(said)).await?.into_inner();
            let proof = registration.azure(challenge(&mut heard).await?).await;
            let AzureProof { attested_data, access_token, .. } = proof.map_err(Stop::Failure)?;
            let register_using_token_request = Some(registration.legacy());
            let request = RegisterUsingAzureMethodRequest { register_using_token_request, attested_data, access_token };
            let _ = say.send(request).await;
            result(&mut heard).await?
        }
    };
    certificates(certs).map_err(Stop::Failure)
}

async fn challenge(heard: &mut Streaming<ChallengedCerts>) -> Result<String, Stop> {
    let challenge = heard.message().await?.map(|answer| answer.challenge).unwrap_or_default();
    if challenge.is_empty() {
        return Err(Stop::Status(Status::invalid_argument("the cluster sent no challenge")));
    }
    Ok(challenge)
}

async fn result(heard: &mut Streaming<ChallengedCerts>) -> Result<Certs, Stop> {
    let certs = heard.message().await?.and_then(|answer| answer.certs);
    certs.ok_or_else(|| Stop::Status(Status::invalid_argument("the cluster's answer to the join cannot be read")))
}
