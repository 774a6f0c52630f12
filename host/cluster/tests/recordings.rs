//! Our protobuf files against the recordings of a real cluster.

use base64::Engine;
use base64::engine::general_purpose::STANDARD as BASE64;
use cluster::wire::proto::*;
use cluster::wire::teleport::trust::v1::*;
use cluster::wire::types::*;
use identity::{SshCertificate, TlsCertificate};
use prost::Message;
use serde_json::Value;

/// Every recorded message: its type, its bytes, whether a client sent it, and where it stands.
fn messages() -> Vec<(String, Vec<u8>, bool, String)> {
    let runs = concat!(env!("CARGO_MANIFEST_DIR"), "/../../tests/recordings/v15/runs");
    let mut all = Vec::new();
    for run in std::fs::read_dir(runs).unwrap() {
        let Ok(calls) = std::fs::read_dir(run.unwrap().path().join("rpc")) else { continue };
        for call in calls {
            let path = call.unwrap().path();
            let json: Value = serde_json::from_slice(&std::fs::read(&path).unwrap()).unwrap();
            for side in ["request", "response"] {
                let (Some(kind), Some(bytes)) = (json[side]["type"].as_str(), json[side]["bytes_base64"].as_str())
                else {
                    continue;
                };
                let kind = kind.rsplit('.').next().unwrap().to_owned();
                all.push((kind, BASE64.decode(bytes).unwrap(), side == "request", path.display().to_string()));
            }
        }
    }
    assert!(all.len() > 400, "only {} recorded messages found", all.len());
    all
}

fn same<M: Message + Default>(bytes: &[u8]) -> bool {
    M::decode(bytes).unwrap().encode_to_vec() == bytes
}

#[test]
fn every_recorded_request_decodes_and_encodes_byte_for_byte() {
    let mut seen = std::collections::BTreeMap::new();
    for (kind, bytes, request, place) in messages() {
        if !request {
            continue;
        }
        let equal = match kind.as_str() {
            "PingRequest" => same::<PingRequest>(&bytes),
            "Empty" => bytes.is_empty(),
            "UserCertsRequest" => same::<UserCertsRequest>(&bytes),
            "GetRoleRequest" => same::<GetRoleRequest>(&bytes),
            "ListResourcesRequest" => same::<ListResourcesRequest>(&bytes),
            "CreateAppSessionRequest" => same::<CreateAppSessionRequest>(&bytes),
            "GetAppSessionRequest" => same::<GetAppSessionRequest>(&bytes),
            "Watch" => same::<Watch>(&bytes),
            "GetCertAuthoritiesRequest" => same::<GetCertAuthoritiesRequest>(&bytes),
            "GetCertAuthorityRequest" => same::<GetCertAuthorityRequest>(&bytes),
            "GenerateHostCertRequest" => same::<GenerateHostCertRequest>(&bytes),
            "RegisterUsingAzureMethodRequest" => same::<RegisterUsingAzureMethodRequest>(&bytes),
            other => panic!("{other} is not known: {place}"),
        };
        assert!(equal, "{kind} loses something: {place}");
        *seen.entry(kind).or_insert(0) += 1;
    }
    assert!(seen.len() >= 10 && seen["RegisterUsingAzureMethodRequest"] == 3, "{seen:?}");
}

#[test]
fn every_recorded_response_holds_what_we_read() {
    let (mut certs, mut servers, mut authorities, mut roles, mut sessions) = (0, 0, 0, 0, 0);
    for (kind, bytes, request, place) in messages() {
        if request {
            continue;
        }
        match kind.as_str() {
            "PingResponse" => {
                let ping = PingResponse::decode(&*bytes).unwrap();
                assert_eq!(
                    (ping.cluster_name.as_str(), ping.server_version.as_str()),
                    ("lab.example.com", "15.0.0-dev")
                );
                assert_eq!(ping.proxy_public_addr, "localhost:3080");
                assert!(ping.server_features.unwrap().desktop);
            }
            "Certs" => {
                let answer = Certs::decode(&*bytes).unwrap();
                assert_eq!(answer.encode_to_vec(), bytes, "{place}");
                let tls = TlsCertificate::parse(&answer.tls).unwrap();
                assert_eq!(tls.cluster, "lab.example.com", "{place}");
                assert_eq!(tls.pem.as_bytes(), answer.tls, "{place}");
                assert!(tls.subject.renewable() != tls.subject.disallow_reissue(), "{place}");
                assert_eq!(tls.subject.attribute("2.7").is_some(), tls.subject.disallow_reissue(), "{place}");
                assert!(tls.subject.roles.iter().any(|role| role == "machine" || *role == tls.subject.user), "{place}");
                SshCertificate::parse(std::str::from_utf8(&answer.ssh).unwrap()).unwrap();
                certs += 1;
            }
            "RegisterUsingAzureMethodResponse" => {
                let answer = ChallengedCerts::decode(&*bytes).unwrap();
                assert_eq!(answer.encode_to_vec(), bytes, "{place}");
                match answer.certs {
                    Some(certs) => {
                        let tls = TlsCertificate::parse(&certs.tls).unwrap();
                        assert!(!tls.subject.renewable() && tls.subject.user == "bot-azbot", "{place}");
                    }
                    None => assert_eq!(answer.challenge.len(), 32, "{place}"),
                }
            }
            "ListResourcesResponse" => {
                for resource in ListResourcesResponse::decode(&*bytes).unwrap().resources {
                    match resource.resource.unwrap() {
                        paginated_resource::Resource::AppServer(server) => {
                            let app = server.spec.unwrap().app.unwrap();
                            assert!(app.metadata.unwrap().name.ends_with("-example"), "{place}");
                            assert!(app.spec.unwrap().public_addr.ends_with(".localhost"), "{place}");
                        }
                        paginated_resource::Resource::DatabaseServer(server) => {
                            let database = server.spec.unwrap().database.unwrap();
                            assert_eq!(database.spec.unwrap().protocol, "postgres", "{place}");
                        }
                    }
                    servers += 1;
                }
            }
            "GetCertAuthoritiesResponse" => {
                for authority in GetCertAuthoritiesResponse::decode(&*bytes).unwrap().cert_authorities_v2 {
                    let spec = authority.spec.unwrap();
                    assert_eq!(spec.cluster_name, "lab.example.com");
                    let keys = spec.active_keys.unwrap();
                    assert!(!keys.tls.is_empty() && keys.tls.iter().all(|pair| pair.key.is_empty()), "{place}");
                    assert_eq!(keys.ssh.is_empty(), spec.r#type == "db", "{place}");
                    authorities += 1;
                }
            }
            "RoleV6" => {
                let role = RoleV6::decode(&*bytes).unwrap();
                assert_eq!(role.spec.unwrap().allow.unwrap().impersonate.unwrap().roles, ["machine"], "{place}");
                roles += 1;
            }
            "CreateAppSessionResponse" => {
                let session = AppSessionResponse::decode(&*bytes).unwrap().session.unwrap();
                assert_eq!((session.sub_kind.as_str(), session.metadata.unwrap().name.len()), ("app_session", 64));
                sessions += 1;
            }
            _ => {}
        }
    }
    assert!(certs > 20 && servers > 5 && authorities > 10 && roles > 2 && sessions > 2, "too few of some kind");
}
