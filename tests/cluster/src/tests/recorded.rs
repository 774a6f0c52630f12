//! Reads recordings, and plays them at services without a network.

use std::{fs, path::PathBuf, sync::Arc, time::SystemTime};

use base64::{Engine, engine::general_purpose::STANDARD};
use prost::Message;
use serde_json::Value;
use tokio::sync::Notify;

use crate::{
    Control, Options, Release, Token,
    api::grpc::Connection,
    api::resources::stamp,
    pki::caller::Caller,
    state::State,
    wire::proto::{Certs, UserCertsRequest},
};

/// The cluster that was recorded.
pub(super) const CLUSTER: &str = "lab.example.com";

pub(crate) fn folder() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../recordings/v15")
}

pub(super) fn json(path: &str) -> Value {
    serde_json::from_slice(&fs::read(folder().join(path)).unwrap()).unwrap()
}

/// Every recorded call of a run, in order.
pub(crate) fn calls(run: &str) -> Vec<Value> {
    let mut files: Vec<_> =
        fs::read_dir(folder().join("runs").join(run).join("rpc")).unwrap().map(|entry| entry.unwrap().path()).collect();
    files.sort();
    files.iter().map(|file| serde_json::from_slice(&fs::read(file).unwrap()).unwrap()).collect()
}

/// The call with this number.
pub(super) fn call(run: &str, number: u64) -> Value {
    calls(run).into_iter().find(|call| call["seq"] == number).unwrap()
}

/// `request` or `response` of a call, decoded.
pub(crate) fn message<M: Message + Default>(call: &Value, side: &str) -> M {
    M::decode(bytes(call, side).as_slice()).unwrap()
}

pub(super) fn bytes(call: &Value, side: &str) -> Vec<u8> {
    STANDARD.decode(call[side]["bytes_base64"].as_str().unwrap()).unwrap()
}

/// A cluster of the recorded name with the recorded resources, and a bot that has joined.
pub(super) fn cluster(bot: &str) -> (Control, Arc<Connection>) {
    cluster_of(Release::V15, CLUSTER, bot)
}

pub(super) fn cluster_of(release: Release, name: &str, bot: &str) -> (Control, Arc<Connection>) {
    let options = Options { cluster_name: name.to_owned(), release, ..Options::default() };
    let control = Control(Arc::new(State::new(options).unwrap()));
    control.add_app("grafana-example", "grafana-example.localhost", "http://127.0.0.1:9300");
    control.add_database("example-server", "postgres", "localhost:5433");
    control.add_token(Token {
        name: "recorded".to_owned(),
        bot: bot.to_owned(),
        roles: vec!["machine".to_owned()],
        ..Token::default()
    });
    let anonymous = connection(&control, None);
    let request: crate::wire::types::RegisterUsingTokenRequest = crate::wire::types::RegisterUsingTokenRequest {
        token: "recorded".to_owned(),
        role: "Bot".to_owned(),
        public_ssh_key: STANDARD
            .decode(json("join-http/rsa.json")["request"]["public_ssh_key"].as_str().unwrap())
            .unwrap(),
        ..Default::default()
    };
    let certs = crate::api::join_service::register(&anonymous, &request).unwrap();
    let caller = caller(&certs);
    let joined = connection(&control, Some(caller));
    (control, joined)
}

pub(super) fn connection(control: &Control, caller: Option<Caller>) -> Arc<Connection> {
    Arc::new(Connection {
        state: control.0.clone(),
        caller,
        remote: ([127, 0, 0, 1], 60_502).into(),
        port: "auth",
        has_intermediaries: false,
        cut: Notify::new(),
    })
}

pub(super) fn caller(certs: &Certs) -> Caller {
    Caller::from_certificate(&der(&certs.tls)).unwrap()
}

/// Plays a recorded GenerateUserCerts, with an end in the future instead of the recorded one.
pub(super) fn replay_certificates(connection: &Arc<Connection>, call: &Value) -> Certs {
    let mut request: UserCertsRequest = message(call, "request");
    request.expires = Some(stamp(SystemTime::now() + std::time::Duration::from_secs(3600)));
    crate::api::certificates::generate(connection, &request).unwrap()
}

/// The same bot with the identity made by impersonation that sees its resources.
pub(super) fn impersonated(control: &Control, bot: &Arc<Connection>) -> Arc<Connection> {
    let certs = replay_certificates(bot, &call("oneshot-direct", 86));
    connection(control, Some(caller(&certs)))
}

pub(super) fn der(pem: &[u8]) -> Vec<u8> {
    let text = std::str::from_utf8(pem).unwrap();
    let body: String = text.lines().filter(|line| !line.starts_with("-----")).collect();
    STANDARD.decode(body).unwrap()
}
