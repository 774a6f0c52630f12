//! Every recorded answer has the same populated fields as ours, among those our protobuf files know.

use std::{collections::BTreeSet, sync::Arc};

use prost::Message;
use prost_types::{FileDescriptorSet, field_descriptor_proto::Type};
use serde_json::Value;
use tokio_stream::StreamExt;
use tonic::Request;

use super::recorded::{bytes, call, calls, cluster, impersonated, message, replay_certificates};
use crate::{
    AuthorityKind, RotationPhase,
    api::{auth_service::AuthApi, grpc::Connection, trust_service::TrustApi},
    wire::{proto::auth_service_server::AuthService, teleport::trust::v1::trust_service_server::TrustService},
};

/// Paths of all populated leaves, such as `spec.active_keys.tls.cert`.
fn populated(type_name: &str, bytes: &[u8]) -> BTreeSet<String> {
    let set = FileDescriptorSet::decode(&include_bytes!(concat!(env!("OUT_DIR"), "/descriptors.bin"))[..]).unwrap();
    let mut paths = BTreeSet::new();
    walk(&set, type_name, bytes, "", &mut paths);
    paths
}

fn walk(set: &FileDescriptorSet, type_name: &str, mut bytes: &[u8], prefix: &str, paths: &mut BTreeSet<String>) {
    let described = set.file.iter().flat_map(|file| {
        let package = file.package();
        file.message_type.iter().map(move |message| (format!(".{package}.{}", message.name()), message))
    });
    let nested = |name: &str| name.ends_with("Entry").then_some(());
    let Some((_, fields)) = described.into_iter().find(|(name, _)| name == type_name) else {
        // The entry of a map: its key and value are leaves.
        nested(type_name).unwrap_or_else(|| panic!("{type_name} is not described"));
        paths.insert(prefix.to_owned());
        return;
    };
    while !bytes.is_empty() {
        let (number, wire_type) = prost::encoding::decode_key(&mut bytes).unwrap();
        let value: &[u8] = match wire_type {
            prost::encoding::WireType::LengthDelimited => {
                let length = prost::encoding::decode_varint(&mut bytes).unwrap() as usize;
                let (value, rest) = bytes.split_at(length);
                bytes = rest;
                value
            }
            other => {
                prost::encoding::skip_field(other, number, &mut bytes, Default::default()).unwrap();
                &[]
            }
        };
        let Some(field) = fields.field.iter().find(|field| field.number() == number as i32) else { continue };
        let path = format!("{prefix}{}", field.name());
        match field.r#type() {
            Type::Message => walk(set, field.type_name(), value, &format!("{path}."), paths),
            // A time on the full second has none.
            _ if field.name() == "nanos" => {}
            _ => _ = paths.insert(path),
        }
    }
}

/// Compares with the recorded answer of type `types.X` or `trustv1.X`.
fn assert_same(ours: &impl Message, recording: &Value) {
    let name = recording["response"]["type"].as_str().unwrap().replace("trustv1.", "teleport.trust.v1.");
    let name =
        format!(".{}", name.replace("CACertResponse", "CaCertResponse").replace("CreateAppSessionR", "AppSessionR"));
    assert_eq!(
        populated(&name, &ours.encode_to_vec()),
        populated(&name, &bytes(recording, "response")),
        "{}",
        recording["method"]
    );
}

fn services(connection: &Arc<Connection>) -> (AuthApi, TrustApi) {
    (AuthApi(connection.clone()), TrustApi(connection.clone()))
}

/// Plays every call of the direct run.
#[tokio::test]
async fn answers_have_the_recorded_fields() {
    let (control, bot) = cluster("robot3");
    let output = impersonated(&control, &bot);
    let ((auth, trust), (output, _)) = (services(&bot), services(&output));
    let mut compared = 0;
    for recording in calls("oneshot-direct") {
        if recording["kind"] != "unary" || !recording["code"].is_null() {
            continue;
        }
        compared += 1;
        let method = recording["method"].as_str().unwrap();
        macro_rules! play {
            ($service:expr, $call:ident) => {{
                let request = Request::new(message(&recording, "request"));
                assert_same($service.$call(request).await.unwrap().get_ref(), &recording)
            }};
        }
        match method.rsplit('/').next().unwrap() {
            "Ping" => play!(auth, ping),
            "GetRole" => play!(auth, get_role),
            "GetClusterCACert" => play!(auth, get_cluster_ca_cert),
            "ListResources" if recording["request"]["text"].as_str().unwrap().contains("tcp-example") => compared -= 1,
            "ListResources" => play!(output, list_resources),
            "CreateAppSession" => play!(output, create_app_session),
            "GetCertAuthorities" => play!(trust, get_cert_authorities),
            "GetCertAuthority" => play!(trust, get_cert_authority),
            "GenerateHostCert" => play!(trust, generate_host_cert),
            "GenerateUserCerts" => assert_same(&replay_certificates(&bot, &recording), &recording),
            other => panic!("{other} is not played"),
        }
    }
    assert!(compared > 50, "{compared} calls compared");
}

#[tokio::test]
async fn a_missing_application_and_session_are_refused_as_recorded() {
    let (control, bot) = cluster("robot3");
    let (output, _) = services(&impersonated(&control, &bot));
    let empty = call("err-app-missing", 269);
    let list = output.list_resources(Request::new(message(&empty, "request"))).await.unwrap();
    assert_same(list.get_ref(), &empty);
    let missing = call("oneshot-direct", 99);
    let status = output.get_app_session(Request::new(message(&missing, "request"))).await.unwrap_err();
    assert_eq!((status.code(), status.message()), (tonic::Code::NotFound, missing["message"].as_str().unwrap()));
}

#[tokio::test]
async fn an_old_generation_is_refused_as_recorded() {
    let (_, bot) = cluster("genm");
    replay_certificates(&bot, &call("gen-mismatch", 348));
    let recording = call("gen-mismatch", 362);
    let mut request: crate::wire::proto::UserCertsRequest = message(&recording, "request");
    request.expires = Some((std::time::SystemTime::now() + std::time::Duration::from_secs(60)).into());
    let refusal = crate::api::certificates::generate(&bot, &request).unwrap_err();
    assert_eq!(refusal.status().code(), tonic::Code::PermissionDenied);
    assert_eq!(refusal.status().message(), recording["message"].as_str().unwrap());
}

#[tokio::test]
async fn watches_tell_as_recorded() {
    let (control, bot) = cluster("robot3");
    let (auth, _) = services(&bot);
    let watch = Request::new(message(&call("oneshot-direct", 101), "request"));
    let mut sessions = auth.watch_events(watch).await.unwrap().into_inner();
    assert_same(&sessions.next().await.unwrap().unwrap(), &call("oneshot-direct", 102));
    let (output, _) = services(&impersonated(&control, &bot));
    let create = Request::new(message(&call("oneshot-direct", 98), "request"));
    output.create_app_session(create).await.unwrap();
    assert_same(&sessions.next().await.unwrap().unwrap(), &call("oneshot-direct", 103));

    let watch = Request::new(message(&call("ca-rotation", 369), "request"));
    let mut authorities = auth.watch_events(watch).await.unwrap().into_inner();
    assert_same(&authorities.next().await.unwrap().unwrap(), &call("ca-rotation", 370));
    control.rotate(AuthorityKind::Db, RotationPhase::Init).unwrap();
    assert_same(&authorities.next().await.unwrap().unwrap(), &call("ca-rotation", 382));
    control.rotate(AuthorityKind::Db, RotationPhase::UpdateClients).unwrap();
    assert_same(&authorities.next().await.unwrap().unwrap(), &call("ca-rotation", 383));
    control.rotate(AuthorityKind::Db, RotationPhase::Standby).unwrap();
    authorities.next().await.unwrap().unwrap();
    assert_eq!(control.0.authority(AuthorityKind::Db, |db| Ok(db.trusted().count())).unwrap(), 1);
}
