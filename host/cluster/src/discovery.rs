//! `GET /webapi/find` (wire §a).

use std::time::Duration;

use identity::Suite;
use serde::Deserialize;

use crate::address::Route;
use crate::error::{RouteError, explain, http};
use crate::reach::is_local;

/// The largest answer of a web endpoint that is read.
const BODY_BYTES: usize = 1 << 20;
/// Bound on one web request (wire §0.1).
const WEB_TIMEOUT: Duration = Duration::from_secs(30);

/// What the proxy says before anybody has joined.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(crate) struct Found {
    pub(crate) version: String,
    pub(crate) suite: Suite,
}

#[derive(Deserialize, Default)]
#[serde(default)]
struct Find {
    server_version: String,
    auth: Auth,
}

#[derive(Deserialize, Default)]
#[serde(default)]
struct Auth {
    signature_algorithm_suite: serde_json::Value,
}

/// Asks the proxy at `route`.
pub(crate) async fn find(route: &Route, client: &reqwest::Client) -> Result<Found, RouteError> {
    let sent = client.get(format!("https://{route}/webapi/find")).send().await;
    let (status, body) = answer(route, sent).await?;
    if status != 200 {
        return Err(RouteError::connection(http(status, &body).message));
    }
    read(&body).ok_or_else(|| RouteError::connection("it does not answer as a Teleport proxy"))
}

pub(crate) fn read(body: &[u8]) -> Option<Found> {
    let find: Find = serde_json::from_slice(body).ok()?;
    if find.server_version.is_empty() {
        return None;
    }
    let suite = match &find.auth.signature_algorithm_suite {
        serde_json::Value::String(text) => Suite::parse(text),
        other => Suite::parse(&other.to_string()),
    };
    Some(Found { version: find.server_version, suite })
}

/// A client for the web endpoints: the machine's roots, proxies of the environment, no redirects.
pub(crate) fn web_client(route: &Route, insecure: bool) -> Result<reqwest::Client, RouteError> {
    let mut builder = reqwest::Client::builder().timeout(WEB_TIMEOUT).redirect(reqwest::redirect::Policy::none());
    if is_local(&route.host) {
        builder = builder.no_proxy();
    }
    builder
        .danger_accept_invalid_certs(insecure)
        .build()
        .map_err(|e| RouteError::connection(format_args!("HTTPS cannot be set up: {}", explain(route, &e))))
}

/// Status and bounded body of an HTTP exchange.
pub(crate) async fn answer(
    route: &Route,
    sent: Result<reqwest::Response, reqwest::Error>,
) -> Result<(u16, Vec<u8>), RouteError> {
    let broken = |e: reqwest::Error| RouteError::connection(explain(route, &e));
    let mut response = sent.map_err(broken)?;
    let mut body = Vec::new();
    while let Some(chunk) = response.chunk().await.map_err(broken)? {
        if body.len() + chunk.len() > BODY_BYTES {
            return Err(RouteError::connection(format_args!("its answer is larger than {BODY_BYTES} bytes")));
        }
        body.extend_from_slice(&chunk);
    }
    Ok((response.status().as_u16(), body))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_the_recorded_answer_and_every_form_of_the_suite() {
        let recorded =
            std::fs::read(concat!(env!("CARGO_MANIFEST_DIR"), "/../../tests/recordings/v15/http/find.json")).unwrap();
        assert_eq!(read(&recorded), Some(Found { version: "15.0.0-dev".into(), suite: Suite::Legacy }));
        for suite in ["\"balanced-v1\"", "2"] {
            let text = format!(r#"{{"server_version":"18.0.0","auth":{{"signature_algorithm_suite":{suite}}}}}"#);
            assert_eq!(read(text.as_bytes()).unwrap().suite, Suite::BalancedV1, "{suite}");
        }
        for nonsense in ["", "{}", "[]", "<html>", r#"{"server_version":7}"#] {
            assert_eq!(read(nonsense.as_bytes()), None, "{nonsense}");
        }
    }
}
