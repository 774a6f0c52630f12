//! The metadata service that every virtual machine of Azure has (wire §c.1), as strict as the real one.

use std::{
    collections::BTreeMap,
    net::{Ipv4Addr, SocketAddr},
    sync::{Arc, Mutex, MutexGuard},
    time::{Duration, SystemTime},
};

use anyhow::Result;
use http::{HeaderMap, Method, Request, Response, StatusCode, header};
use hyper::{body::Incoming, server::conn::http1, service::service_fn};
use hyper_util::rt::TokioIo;
use serde_json::{Value, json};
use tokio::{net::TcpListener, task::JoinHandle};
use tonic::body::Body;

use super::{AzureCloud, VirtualMachine};
use crate::api::json::plain;

/// Longer nonces are refused.
const NONCE: usize = 32;
/// What a throttled client is told to wait.
const RETRY_AFTER: &str = "1";
/// Ascending, as the real list is.
const VERSIONS: [&str; 4] = ["2017-03-01", "2019-06-04", "2020-09-01", "2023-07-01"];

/// One identity of a machine.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ManagedIdentity {
    /// What `client_id` names it by.
    pub client_id: String,
    /// What its tokens name.
    pub resource_id: String,
}

/// A running metadata service. Dropping it closes its port.
pub struct MetadataService {
    address: SocketAddr,
    shared: Arc<Shared>,
    task: JoinHandle<()>,
}

struct Shared {
    cloud: Arc<AzureCloud>,
    machine: VirtualMachine,
    state: Mutex<State>,
}

/// Status and body.
type Answer = (StatusCode, Value);

struct State {
    identities: Vec<ManagedIdentity>,
    versions: Vec<String>,
    throttled: u32,
    asked: Vec<String>,
}

impl MetadataService {
    /// Serves `machine` on a port of 127.0.0.1, with a system-assigned identity and no other.
    ///
    /// # Errors
    /// When no port is free.
    pub async fn start(cloud: Arc<AzureCloud>, machine: VirtualMachine) -> Result<Self> {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await?;
        let address = listener.local_addr()?;
        let system = ManagedIdentity { client_id: crate::state::uuid(), resource_id: machine.resource_id() };
        let state = State {
            identities: vec![system],
            versions: VERSIONS.map(str::to_owned).to_vec(),
            throttled: 0,
            asked: Vec::new(),
        };
        let shared = Arc::new(Shared { cloud, machine, state: Mutex::new(state) });
        let task = tokio::spawn(accept(listener, shared.clone()));
        Ok(Self { address, shared, task })
    }

    /// `http://127.0.0.1:PORT`: what stands for `http://169.254.169.254`.
    #[must_use]
    pub fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    /// Replaces the machine's identities: none, one, or several that only `client_id` tells apart.
    pub fn set_identities(&self, identities: Vec<ManagedIdentity>) {
        self.shared.state().identities = identities;
    }

    /// Replaces the versions it speaks, oldest first.
    pub fn set_versions(&self, versions: &[&str]) {
        self.shared.state().versions = versions.iter().map(|version| (*version).to_owned()).collect();
    }

    /// Answers so many requests with 429 first.
    pub fn throttle(&self, times: u32) {
        self.shared.state().throttled = times;
    }

    /// Path and query of every request so far.
    #[must_use]
    pub fn requests(&self) -> Vec<String> {
        self.shared.state().asked.clone()
    }
}

impl Drop for MetadataService {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl Shared {
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(|poisoned| poisoned.into_inner())
    }

    fn answer(&self, request: &Request<Incoming>) -> Response<Body> {
        let target = request.uri().path_and_query().map_or_else(String::new, ToString::to_string);
        self.state().asked.push(target);
        let query: BTreeMap<String, String> = pairs(request.uri().query().unwrap_or_default());
        let answer = self.respond(request.method(), request.headers(), request.uri().path(), &query);
        let (status, body) = answer.unwrap_or_else(|refusal| refusal);
        let mut response = plain(status, &body);
        if status == StatusCode::TOO_MANY_REQUESTS {
            response.headers_mut().insert(header::RETRY_AFTER, header::HeaderValue::from_static(RETRY_AFTER));
        }
        response
    }

    fn respond(
        &self,
        method: &Method,
        headers: &HeaderMap,
        path: &str,
        query: &BTreeMap<String, String>,
    ) -> Result<Answer, Answer> {
        let bad =
            |error: &str, words: &str| (StatusCode::BAD_REQUEST, json!({ "error": error, "error_description": words }));
        let marked = headers.get("metadata").is_some_and(|value| value.as_bytes().eq_ignore_ascii_case(b"true"));
        if !marked || headers.contains_key("x-forwarded-for") {
            return Err(bad("invalid_request", "Required metadata header not specified or not correct"));
        }
        if method != Method::GET {
            return Err((StatusCode::METHOD_NOT_ALLOWED, json!({ "error": "Method not allowed" })));
        }
        self.throttle_now()?;
        let versions = self.state().versions.clone();
        if path == "/metadata/versions" {
            return Ok((StatusCode::OK, json!({ "apiVersions": versions })));
        }
        let spoken = query.get("api-version").is_some_and(|version| versions.contains(version));
        if !spoken {
            let newest: Vec<_> = versions.iter().rev().take(3).collect();
            let error = "Bad request. api-version is invalid or was not specified in the request.";
            return Err((StatusCode::BAD_REQUEST, json!({ "error": error, "newest-versions": newest })));
        }
        match path {
            "/metadata/attested/document" => {
                let nonce = query.get("nonce").map(String::as_str).unwrap_or_default();
                if nonce.len() > NONCE {
                    return Err(bad("Bad request", "nonce is too long"));
                }
                let document = self.cloud.attested_document(&self.machine, nonce).map_err(|error| broken(&error))?;
                let document: Value = serde_json::from_str(&document).map_err(|error| broken(&error.into()))?;
                Ok((StatusCode::OK, document))
            }
            "/metadata/identity/oauth2/token" => {
                let Some(resource) = query.get("resource") else {
                    return Err(bad("invalid_request", "Required query variable 'resource' is missing"));
                };
                let identity = self.identity(query.get("client_id")).map_err(|words| bad("invalid_request", words))?;
                self.token(&identity, resource).map_err(|error| broken(&error))
            }
            _ => Err((StatusCode::NOT_FOUND, json!({ "error": "Not found" }))),
        }
    }

    fn throttle_now(&self) -> Result<(), Answer> {
        let mut state = self.state();
        if state.throttled == 0 {
            return Ok(());
        }
        state.throttled -= 1;
        Err((StatusCode::TOO_MANY_REQUESTS, json!({ "error": "Too many requests" })))
    }

    fn identity(&self, client_id: Option<&String>) -> Result<ManagedIdentity, &'static str> {
        let state = self.state();
        match (client_id, state.identities.as_slice()) {
            (Some(id), all) => all.iter().find(|identity| identity.client_id == *id).cloned(),
            (None, [one]) => Some(one.clone()),
            (None, []) => None,
            (None, _) => {
                return Err(
                    "Multiple user assigned identities exist, please specify the clientId / resourceId of the \
                            identity in the token request",
                );
            }
        }
        .ok_or("Identity not found")
    }

    fn token(&self, identity: &ManagedIdentity, resource: &str) -> Result<Answer> {
        let access_token = self.cloud.access_token_with(&identity.resource_id, json!({ "aud": resource }))?;
        let life = Duration::from_secs(600);
        let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH)?;
        // Numbers come as text.
        Ok((
            StatusCode::OK,
            json!({
                "access_token": access_token, "client_id": identity.client_id, "resource": resource,
                "expires_in": life.as_secs().to_string(), "expires_on": (now + life).as_secs().to_string(),
                "ext_expires_in": life.as_secs().to_string(), "not_before": now.as_secs().to_string(),
                "token_type": "Bearer",
            }),
        ))
    }
}

fn broken(error: &anyhow::Error) -> Answer {
    (StatusCode::INTERNAL_SERVER_ERROR, json!({ "error": format!("{error:#}") }))
}

fn pairs(query: &str) -> BTreeMap<String, String> {
    let decoded = query.split('&').filter_map(|pair| pair.split_once('='));
    decoded.map(|(name, value)| (unescaped(name), unescaped(value))).collect()
}

/// Percent-encoding, and `+` for a space.
fn unescaped(text: &str) -> String {
    let mut bytes = Vec::new();
    let mut rest = text.as_bytes();
    while let [first, tail @ ..] = rest {
        let escaped = tail.get(..2).and_then(|digits| u8::from_str_radix(std::str::from_utf8(digits).ok()?, 16).ok());
        match (first, escaped) {
            (b'%', Some(byte)) => {
                bytes.push(byte);
                rest = &tail[2..];
                continue;
            }
            (b'+', _) => bytes.push(b' '),
            (other, _) => bytes.push(*other),
        }
        rest = tail;
    }
    String::from_utf8_lossy(&bytes).into_owned()
}

async fn accept(listener: TcpListener, shared: Arc<Shared>) {
    while let Ok((stream, _)) = listener.accept().await {
        let shared = shared.clone();
        tokio::spawn(async move {
            let service = service_fn(move |request| {
                let shared = shared.clone();
                async move { Ok::<_, std::convert::Infallible>(shared.answer(&request)) }
            });
            // A client that breaks off needs no answer.
            let _ = http1::Builder::new().serve_connection(TokioIo::new(stream), service).await;
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    async fn service() -> (MetadataService, VirtualMachine) {
        let [subscription, resource_group, name, id] = ["sub", "group", "vm", "id"].map(str::to_owned);
        let machine = VirtualMachine { subscription, resource_group, name, id };
        let cloud = Arc::new(AzureCloud::new(vec![machine.clone()]).unwrap());
        (MetadataService::start(cloud, machine.clone()).await.unwrap(), machine)
    }

    async fn ask(service: &MetadataService, target: &str, marked: bool) -> (u16, Value) {
        let client = reqwest::Client::builder().no_proxy().build().unwrap();
        let request = client.get(format!("{}{target}", service.url()));
        let request = if marked { request.header("Metadata", "True") } else { request };
        let response = request.send().await.unwrap();
        (response.status().as_u16(), response.json().await.unwrap())
    }

    /// The requests that the original agent sent, in its order.
    #[tokio::test]
    async fn what_the_original_asks_is_evidence_in_the_end() {
        let (service, machine) = service().await;
        let recorded =
            std::fs::read_to_string(crate::tests::recorded::folder().join("runs/azure-auth/imds.jsonl")).unwrap();
        let mut answers = Vec::new();
        for line in recorded.lines() {
            let asked: Value = serde_json::from_str(line).unwrap();
            let query = asked["query"].as_object().unwrap().iter();
            let query: Vec<_> = query.map(|(name, value)| format!("{name}={}", value.as_str().unwrap())).collect();
            let (status, answer) =
                ask(&service, &format!("{}?{}", asked["path"].as_str().unwrap(), query.join("&")), true).await;
            assert_eq!(status, 200, "{answer}");
            answers.push(answer);
        }
        assert_eq!(answers[0]["apiVersions"][3], "2023-07-01");
        let nonce = "mED6Cg80yjepro7qP17druGBzKDD67AW";
        let token = answers[2]["access_token"].as_str().unwrap();
        let document = answers[1].to_string();
        let proven = service.shared.cloud.verify(nonce, document.as_bytes(), None, token).unwrap();
        assert_eq!(proven, machine);
        assert_eq!(service.requests().len(), 3);
    }

    #[tokio::test]
    async fn it_is_as_strict_as_the_real_one() {
        let (service, machine) = service().await;
        let token =
            "/metadata/identity/oauth2/token?api-version=2023-07-01&resource=https%3A%2F%2Fmanagement.azure.com%2F";
        assert_eq!(ask(&service, "/metadata/versions", false).await.0, 400, "no header");
        for (target, status, words) in [
            ("/metadata/attested/document?nonce=x", 400, "api-version is invalid"),
            ("/metadata/attested/document?api-version=1999-01-01", 400, "newest-versions"),
            (
                "/metadata/attested/document?api-version=2023-07-01&nonce=123456789012345678901234567890123",
                400,
                "nonce",
            ),
            ("/metadata/identity/oauth2/token?api-version=2023-07-01", 400, "resource"),
            (&format!("{token}&client_id=unknown"), 400, "Identity not found"),
            ("/metadata/other?api-version=2023-07-01", 404, "Not found"),
            (token, 200, "access_token"),
        ] {
            let (got, answer) = ask(&service, target, true).await;
            assert_eq!(got, status, "{target}: {answer}");
            assert!(answer.to_string().contains(words), "{target}: {answer}");
        }
        let identity = |id: &str| ManagedIdentity { client_id: id.to_owned(), resource_id: machine.resource_id() };
        service.set_identities(vec![identity("a"), identity("b")]);
        assert!(ask(&service, token, true).await.1.to_string().contains("Multiple user assigned identities"));
        assert_eq!(ask(&service, &format!("{token}&client_id=b"), true).await.1["client_id"], "b");
        service.set_identities(vec![]);
        assert!(ask(&service, token, true).await.1.to_string().contains("Identity not found"));
        service.throttle(1);
        assert_eq!(ask(&service, "/metadata/versions", true).await.0, 429);
        assert_eq!(ask(&service, "/metadata/versions", true).await.0, 200);
    }
}
