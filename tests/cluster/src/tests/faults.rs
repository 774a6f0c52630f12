//! Faults on demand reach the client, and end.

use std::time::Duration;

use tonic::Code;

use super::client::{auth_channel, connect, host_root, join};
use crate::{
    AuthorityKind, Fault, Options, RotationPhase, StandIn,
    wire::proto::{GetRoleRequest, PingRequest, auth_service_client::AuthServiceClient},
};

async fn stand_in() -> StandIn {
    let stand_in = StandIn::start(Options::default()).await.unwrap();
    stand_in.control().add_bot_token("once", "robot", &["machine"]);
    stand_in
}

fn role() -> GetRoleRequest {
    GetRoleRequest { name: "bot-robot".to_owned() }
}

#[tokio::test]
async fn a_method_fails_as_often_as_told() {
    let stand_in = stand_in().await;
    let control = stand_in.control();
    control.fault("Ping", Fault::Unavailable, Some(1));
    let mut client = AuthServiceClient::new(auth_channel(&stand_in, None).await);
    assert_eq!(client.ping(PingRequest::default()).await.unwrap_err().code(), Code::Unavailable);
    client.ping(PingRequest::default()).await.unwrap();
    control.fault("Ping", Fault::Cut, Some(1));
    assert!(client.ping(PingRequest::default()).await.is_err());
    assert_eq!(control.calls("Ping"), 3);
    assert_eq!(control.log()[0].port, "auth");
}

#[tokio::test]
async fn a_lock_refuses_every_call() {
    let stand_in = stand_in().await;
    let bot = join(&stand_in, "once").await;
    let mut client = AuthServiceClient::new(auth_channel(&stand_in, Some(&bot)).await);
    stand_in.control().lock_user("bot-robot", "stolen");
    let status = client.get_role(role()).await.unwrap_err();
    assert_eq!(status.code(), Code::PermissionDenied);
    assert_eq!(status.message(), "access denied");
    stand_in.control().unlock_user("bot-robot");
    client.get_role(role()).await.unwrap();
}

#[tokio::test]
async fn an_outage_ends_on_the_same_ports() {
    let stand_in = stand_in().await;
    let control = stand_in.control();
    let mut open = AuthServiceClient::new(auth_channel(&stand_in, None).await);
    open.ping(PingRequest::default()).await.unwrap();
    control.stop_listening();
    assert!(open.ping(PingRequest::default()).await.is_err());
    let (port, root) = (stand_in.auth_addr().port(), host_root(&stand_in));
    let attempt = tokio::time::timeout(Duration::from_secs(5), connect(port, &root, "localhost", &["h2"], None));
    assert!(attempt.await.unwrap().is_err());
    control.start_listening().await.unwrap();
    let mut again = AuthServiceClient::new(auth_channel(&stand_in, None).await);
    again.ping(PingRequest::default()).await.unwrap();
}

#[tokio::test]
async fn a_certificate_that_expired_is_refused_on_a_new_connection() {
    let stand_in = stand_in().await;
    // Long enough for a busy machine to connect in.
    stand_in.control().cap_ttl(Duration::from_secs(5));
    let bot = join(&stand_in, "once").await;
    let mut open = AuthServiceClient::new(auth_channel(&stand_in, Some(&bot)).await);
    open.get_role(role()).await.unwrap();
    tokio::time::sleep(Duration::from_millis(6100)).await;
    open.get_role(role()).await.unwrap();
    let (port, root) = (stand_in.auth_addr().port(), host_root(&stand_in));
    let stream = connect(port, &root, "teleport.cluster.local", &["h2"], Some(&bot)).await;
    // In TLS 1.3 the refusal comes after the client's handshake.
    if let Ok(mut stream) = stream {
        let mut byte = [0];
        let error = tokio::io::AsyncReadExt::read(&mut stream, &mut byte).await.unwrap_err();
        assert!(error.to_string().contains("CertificateExpired"), "{error}");
    }
}

#[tokio::test]
async fn servers_change_their_certificate_in_their_own_phase() {
    let stand_in = stand_in().await;
    let (control, old) = (stand_in.control(), host_root(&stand_in));
    let port = stand_in.auth_addr().port();
    let reaches = |root: Vec<u8>| async move { connect(port, &root, "localhost", &["h2"], None).await.is_ok() };
    control.rotate(AuthorityKind::Host, RotationPhase::UpdateClients).unwrap();
    assert!(reaches(old.clone()).await);
    control.rotate(AuthorityKind::Host, RotationPhase::UpdateServers).unwrap();
    assert!(!reaches(old).await);
    assert!(reaches(host_root(&stand_in)).await);
}
