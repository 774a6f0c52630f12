//! Everything that a cluster, or what stands before it, may send: given any bytes. For `tests/fuzz`, and in small for every run of the tests.

use std::sync::Arc;

use identity::{Identity, KeyAlgorithm, PrivateKey, SshCertificate, TlsCertificate, pem_certificates, spki_pin};
use prost::Message;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWriteExt, BufReader, DuplexStream, duplex};

use crate::address::{Route, Way};
use crate::ping::PingStream;
use crate::wire::proto::{Certs, Event, ListResourcesResponse, PingResponse};
use crate::wire::teleport::join::v1;
use crate::wire::teleport::trust::v1::GetCertAuthoritiesResponse;
use crate::wire::types::RoleV6;
use crate::{auth_http, discovery, error, http_join, join, join_stream, reach, session, websocket};

/// Most bytes of one input: larger answers are cut off before they are read.
const INPUT_BYTES: usize = 64 << 10;

/// As an answer: JSON, protobuf messages, certificates.
pub fn answer(bytes: &[u8]) {
    let route = Route { proxy: true, host: "fuzz.example.com".into(), port: 443, way: Way::Direct };
    let _ = discovery::read(bytes);
    let _ = auth_http::read(bytes);
    for status in [200, 403, 500] {
        if let Ok(certificates) = http_join::outcome(&route, status, bytes) {
            entered(certificates);
        }
        let failure = error::http(status, bytes);
        assert!(failure.message.len() < 16 << 10, "a message of {} bytes", failure.message.len());
    }
    let text = String::from_utf8_lossy(bytes);
    for code in 0..17 {
        let failure = error::status(&route, &tonic::Status::new(code.into(), text.as_ref()));
        assert!(failure.message.len() < 16 << 10, "a message of {} bytes", failure.message.len());
    }
    if let Ok(certificates) = Certs::decode(bytes) {
        let _ = join::certificates(certificates).map(entered);
    }
    if let Ok(certificates) = v1::Certificates::decode(bytes) {
        let _ = join_stream::certificates(certificates).map(entered);
    }
    let _ = v1::JoinResponse::decode(bytes);
    let _ = PingResponse::decode(bytes);
    let _ = ListResourcesResponse::decode(bytes);
    let _ = RoleV6::decode(bytes).map(session::impersonated_roles);
    let _ = Event::decode(bytes).map(|event| session::rotation_step(&event, "fuzz"));
    let listed = GetCertAuthoritiesResponse::decode(bytes);
    let _ = listed.map(|all| all.cert_authorities_v2.into_iter().filter_map(session::authority).count());
    let _ = TlsCertificate::parse(bytes);
    let _ = TlsCertificate::from_der(bytes.to_vec());
    let _ = pem_certificates(bytes);
    let _ = spki_pin(bytes);
    if let Ok(certificate) = SshCertificate::parse(&text) {
        assert_eq!(SshCertificate::parse(&certificate.line), Ok(certificate));
    }
}

/// As bytes inside a connection: keep-alive frames, WebSocket frames, the head of an HTTP answer.
///
/// # Panics
/// Where no runtime can be made, or something does not end.
pub fn stream(bytes: &[u8]) {
    let bytes = &bytes[..bytes.len().min(INPUT_BYTES)];
    let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap_or_else(|e| panic!("{e}"));
    runtime.block_on(async {
        let _ = drained(PingStream::new(peer(bytes).await)).await;
        let _ = drained(websocket::tunnel(peer(bytes).await)).await;
        let _ = reach::head(&mut BufReader::new(peer(bytes).await)).await;
    });
}

/// The near end of a connection whose far end sends `bytes` and goes on listening.
async fn peer(bytes: &[u8]) -> DuplexStream {
    let (near, mut far) = duplex(INPUT_BYTES);
    let _ = far.write_all(bytes).await;
    let _ = far.shutdown().await;
    tokio::spawn(async move { tokio::io::copy(&mut far, &mut tokio::io::sink()).await });
    near
}

/// What arrives is never more than what was sent.
async fn drained(from: impl AsyncRead + Unpin) -> std::io::Result<()> {
    let mut all = Vec::new();
    from.take(INPUT_BYTES as u64 + 1).read_to_end(&mut all).await?;
    assert!(all.len() <= INPUT_BYTES);
    Ok(())
}

fn entered(certificates: identity::Certificates) {
    if let Ok(key) = PrivateKey::generate(KeyAlgorithm::Ed25519) {
        let _ = Identity::unverified(Arc::new(key), certificates);
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// Answers of real clusters to start from.
    fn recorded() -> Vec<Vec<u8>> {
        let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/../../tests/recordings/v15");
        let read = |name: &str| std::fs::read(format!("{folder}/{name}")).unwrap();
        let mut all = vec![read("http/find.json"), read("http/ping.json")];
        for name in ["rsa", "ec", "ed", "auth-rsa", "auth-wrong", "wrong"] {
            let join: serde_json::Value = serde_json::from_slice(&read(&format!("join-http/{name}.json"))).unwrap();
            all.push(join["response"].as_str().unwrap().as_bytes().to_vec());
        }
        all.push(b"\x82\x05hello\x89\x02hi\x82\x7e\x01\x00x\x88\x00".to_vec());
        all.push(b"\0\0\0\x05hello\0\0\0\0\0\0\0\x02hi".to_vec());
        all.push(b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\n\r\n".to_vec());
        all
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(300))]

        #[test]
        fn nothing_that_is_sent_makes_it_panic(
            which in any::<prop::sample::Index>(),
            at in any::<prop::sample::Index>(),
            cut in 0..64_usize,
            put in prop::collection::vec(any::<u8>(), 0..64),
        ) {
            let all = recorded();
            let mut bytes = all[which.index(all.len())].clone();
            let at = at.index(bytes.len());
            bytes.splice(at..bytes.len().min(at + cut), put);
            answer(&bytes);
            stream(&bytes);
        }
    }
}
