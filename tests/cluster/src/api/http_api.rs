//! The HTTP interfaces: JSON on the auth port, the web API and applications on the proxy port (wire §a, §b.2, §b.3).

use std::sync::Arc;

use base64::{Engine, engine::general_purpose::STANDARD};
use http::{Method, Request, Response, StatusCode, header};
use http_body_util::BodyExt;
use hyper::body::Incoming;
use serde::Deserialize;
use serde_json::{Value, json};
use tonic::body::Body;

use super::{
    grpc::{Connection, Verdict},
    join_service,
    json::{self, compact},
    refusal::Refusal,
    resources,
    sessions::{self, Access},
    trust_service,
};
use crate::{
    Release,
    net::{backend, upgrade},
    wire::{teleport::trust::v1::GenerateHostCertRequest, types::RegisterUsingTokenRequest},
};

/// Answers one HTTP request, on either port.
pub(crate) async fn serve(connection: Arc<Connection>, request: Request<Incoming>) -> Response<Body> {
    let path = request.uri().path().to_owned();
    let method = format!("{} {path}", request.method());
    let verdict = match connection.admit(&method, None).await {
        Ok(verdict) => verdict,
        Err(refusal) => return refusal.response(),
    };
    let answer = match connection.port {
        "auth" => auth(&connection, &path, request).await,
        _ => proxy(&connection, &path, request).await,
    };
    if verdict == Verdict::LoseAnswer {
        connection.cut.notify_one();
    }
    answer.unwrap_or_else(|refusal| refusal.response())
}

async fn auth(connection: &Connection, path: &str, request: Request<Incoming>) -> Result<Response<Body>, Refusal> {
    let name = &connection.state.options.cluster_name;
    match (request.method(), path) {
        (&Method::POST, "/v1/tokens/register" | "/v2/tokens/register") => join(connection, request).await,
        (&Method::GET, kind)
            if kind.starts_with("/v2/authorities/") && connection.state.options.release == Release::V12 =>
        {
            let kind = kind.trim_start_matches("/v2/authorities/");
            let with_keys = !wants_no_keys(&request);
            if let Some((kind, cluster)) = kind.split_once('/') {
                let found = trust_service::find_one(connection, kind, cluster, with_keys)?;
                return Ok(compact(&resources::authority_json(&found)));
            }
            let found = trust_service::find(connection, kind, with_keys)?;
            Ok(compact(&found.iter().map(resources::authority_json).collect::<Vec<_>>()))
        }
        (&Method::POST, "/v2/ca/host/certs") if connection.state.options.release == Release::V12 => {
            host_certificate(connection, request).await
        }
        (&Method::GET, "/v2/remoteclusters") => {
            let registry = connection.state.registry();
            let leaves = registry.leaves.keys().map(|name| {
                json!({ "kind": "remote_cluster", "version": "v3", "metadata": { "name": name },
                        "status": { "connection": "online" } })
            });
            Ok(compact(&leaves.collect::<Vec<_>>()))
        }
        (&Method::GET, "/v2/configuration/name") => Ok(compact(&json!({
            "kind": "cluster_name",
            "version": "v2",
            "metadata": { "name": "cluster-name", "namespace": "default" },
            "spec": { "cluster_name": name, "cluster_id": connection.state.cluster_id },
        }))),
        _ => Ok(json::not_found()),
    }
}

/// What an auth server before 14 is asked for a host certificate; the life is in nanoseconds.
#[derive(Deserialize)]
struct HostCertJson {
    key: String,
    principals: Vec<String>,
    auth_domain: String,
    roles: Vec<String>,
    ttl: i64,
}

async fn host_certificate(connection: &Connection, request: Request<Incoming>) -> Result<Response<Body>, Refusal> {
    let invalid = |error: &dyn std::fmt::Display| Refusal::BadParameter(format!("invalid request: {error}"));
    let body = request.into_body().collect().await.map_err(|error| invalid(&error))?.to_bytes();
    let given: HostCertJson = serde_json::from_slice(&body).map_err(|error| invalid(&error))?;
    let [role] = given.roles.as_slice() else {
        return Err(Refusal::BadParameter("exactly one system role is required".to_owned()));
    };
    let ttl = prost_types::Duration { seconds: given.ttl / 1_000_000_000, nanos: 0 };
    let wanted = GenerateHostCertRequest {
        key: STANDARD.decode(given.key).map_err(|error| invalid(&error))?,
        principals: given.principals,
        cluster_name: given.auth_domain,
        role: role.clone(),
        ttl: Some(ttl),
        ..GenerateHostCertRequest::default()
    };
    Ok(compact(&trust_service::host_certificate(connection, &wanted)?))
}

/// Private keys are asked for unless a request says otherwise, as the original's handler has it.
fn wants_no_keys(request: &Request<Incoming>) -> bool {
    request.uri().query().unwrap_or_default().split('&').any(|pair| pair == "load_keys=false")
}

/// `/v1` before a path is optional. A certificate for an application opens that application, whatever the path.
async fn proxy(connection: &Connection, path: &str, request: Request<Incoming>) -> Result<Response<Body>, Refusal> {
    if let Some(caller) = connection.caller.as_ref().filter(|caller| caller.app_name.is_some()) {
        let session = caller.app_session.as_deref().unwrap_or_default();
        return Ok(match sessions::access(&connection.state, &caller.user, session) {
            Access::Forward(uri) => backend::forward(&connection.state, &uri, request).await,
            Access::Forbidden => json::text(StatusCode::FORBIDDEN, "Forbidden\n"),
            Access::Nowhere => json::text(StatusCode::NOT_FOUND, "Not Found\n"),
        });
    }
    if let Some(place) = launcher(connection, &request) {
        return Ok(json::found(&place, request.method()));
    }
    match (request.method(), path.strip_prefix("/v1").unwrap_or(path)) {
        (&Method::GET, "/webapi/find") => Ok(compact(&discovery(connection, false))),
        (&Method::GET, "/webapi/ping") => Ok(compact(&discovery(connection, true))),
        (&Method::GET, "/webapi/ping/local") => {
            let mut found = discovery(connection, true);
            found["auth"]["local"]["name"] = "local".into();
            Ok(compact(&found))
        }
        (&Method::GET, ping) if ping.starts_with("/webapi/ping/") => {
            let name = ping.trim_start_matches("/webapi/ping/");
            Err(Refusal::BadParameter(format!("invalid connector name: {name}; valid options: ")))
        }
        (&Method::GET, "/webapi/connectionupgrade") => upgrade::answer(connection, request),
        (&Method::POST, "/webapi/host/credentials") => join(connection, request).await,
        (&Method::GET, "/") => Ok(json::found("/web", request.method())),
        // One page for every path: the script in it does the rest.
        (&Method::GET, page) if page == "/web" || page.starts_with("/web/") => Ok(json::page("<!doctype html>\n")),
        _ => Ok(json::not_found()),
    }
}

/// Where the proxy sends those who come under the name of an application, or under any that is not its own.
fn launcher(connection: &Connection, request: &Request<Incoming>) -> Option<String> {
    let host = request.uri().authority().map(|authority| authority.as_str());
    let host = host.or_else(|| request.headers().get(header::HOST)?.to_str().ok()).unwrap_or_default();
    let name = host.rsplit_once(':').map_or(host, |(name, _)| name).trim_matches(['[', ']']);
    let named = ["", "localhost"].contains(&name) || connection.state.options.proxy_names.iter().any(|own| own == name);
    let own = named || name.parse::<std::net::IpAddr>().is_ok();
    let path: String = url::form_urlencoded::byte_serialize(request.uri().path().as_bytes()).collect();
    (!own).then(|| format!("https://{}/web/launch/{name}?path={path}", connection.state.proxy_address()))
}

#[derive(Deserialize)]
struct JoinJson {
    #[serde(default, rename = "hostID")]
    host_id: String,
    #[serde(default)]
    node_name: String,
    #[serde(default)]
    role: String,
    #[serde(default)]
    token: String,
    #[serde(default)]
    public_tls_key: Option<String>,
    #[serde(default)]
    public_ssh_key: Option<String>,
    #[serde(default)]
    id_token: String,
    #[serde(default)]
    expires: Option<String>,
}

async fn join(connection: &Connection, request: Request<Incoming>) -> Result<Response<Body>, Refusal> {
    let kind = request.headers().get(header::CONTENT_TYPE).and_then(|value| value.to_str().ok()).unwrap_or_default();
    let invalid = || Refusal::BadParameter("invalid request".to_owned());
    if kind.split(';').next() != Some("application/json") {
        return Err(invalid());
    }
    let body = request.into_body().collect().await.map_err(|_| invalid())?.to_bytes();
    let given: JoinJson =
        serde_json::from_slice(&body).map_err(|error| Refusal::BadParameter(format!("request: {error}")))?;
    let bytes = |field: Option<String>| STANDARD.decode(field.unwrap_or_default()).map_err(|_| invalid());
    let expires = given.expires.map(|text| text.parse::<prost_types::Timestamp>()).transpose();
    let request = RegisterUsingTokenRequest {
        host_id: given.host_id,
        node_name: given.node_name,
        role: given.role,
        token: given.token,
        public_tls_key: bytes(given.public_tls_key)?,
        public_ssh_key: bytes(given.public_ssh_key)?,
        id_token: given.id_token,
        expires: expires.map_err(|_| invalid())?,
        ..RegisterUsingTokenRequest::default()
    };
    let certs = join_service::register(connection, &request)?;
    let list = |values: &[Vec<u8>]| values.iter().map(|value| STANDARD.encode(value)).collect::<Vec<_>>();
    Ok(compact(&json!({
        "ssh": STANDARD.encode(&certs.ssh),
        "tls": STANDARD.encode(&certs.tls),
        "tls_ca_certs": list(&certs.tls_ca_certs),
        "ssh_ca_certs": list(&certs.ssh_ca_certs),
    })))
}

/// The recorded shapes of `/webapi/find` and `/webapi/ping`.
fn discovery(connection: &Connection, is_ping: bool) -> Value {
    let state = &connection.state;
    let public = state.proxy_address();
    let listen = state.ports.get().map_or_else(String::new, |ports| ports.proxy.to_string());
    let release = state.options.release;
    let mut auth = json!({
        "type": "", "private_key_policy": "", "piv_slot": "", "device_trust": {}, "has_motd": false,
        "default_session_ttl": "0s",
    });
    if is_ping {
        auth = json!({
            "type": "local", "second_factor": "off", "local": { "name": "" }, "private_key_policy": "none",
            "piv_slot": "", "device_trust_disabled": true, "device_trust": { "disabled": true }, "has_motd": false,
            "default_session_ttl": "12h0m0s",
        });
    }
    let mut proxy = json!({
        "kube": { "enabled": true, "listen_addr": listen },
        "ssh": { "listen_addr": listen, "tunnel_listen_addr": listen, "web_listen_addr": listen,
                 "public_addr": public },
        "db": { "postgres_listen_addr": listen, "mysql_listen_addr": listen },
        "tls_routing_enabled": true,
    });
    if let Some(suite) = state.options.suite() {
        auth["signature_algorithm_suite"] = suite.name().into();
    }
    if release == Release::V15 {
        proxy["assist_enabled"] = false.into();
    }
    let mut found = json!({
        "auth": auth,
        "proxy": proxy,
        "server_version": release.version(),
        "min_client_version": release.minimum_client(),
        "cluster_name": state.options.cluster_name,
    });
    if release == Release::V12 {
        found["auth"] = json!({ "type": "", "private_key_policy": "", "has_motd": false });
    } else {
        found["automatic_upgrades"] = false.into();
    }
    found
}
