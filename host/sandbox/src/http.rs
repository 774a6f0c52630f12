//! Requests that the host performs for a guest: within its rights, to checked addresses, small, and soon over.

use std::error::Error as _;
use std::net::IpAddr;
use std::sync::Arc;

use reqwest::dns::{Addrs, Name, Resolve, Resolving};
use reqwest::header::{HeaderMap, HeaderName, HeaderValue};
use reqwest::{Method, Url, redirect};

use crate::bindings::join::tbot::host::http::{Header, Request, Response};
use crate::bindings::output::tbot::types::types::{Error, ErrorKind};
use crate::error::escaped;
use crate::grants::Allowed;
use crate::limits::{HTTP_BYTES, HTTP_TIME};
use crate::prefix::Prefix;

/// Headers that say where a request goes or ends: the host's own.
const RESERVED: [&str; 10] = [
    "connection",
    "content-length",
    "expect",
    "host",
    "keep-alive",
    "te",
    "trailer",
    "transfer-encoding",
    "upgrade",
    "via",
];

/// Performs one request. An answer with any status is an answer; a redirect is not followed.
///
/// # Errors
/// [`ErrorKind::Denied`] for what is not granted or not allowed in a request, [`ErrorKind::Unavailable`] where no whole answer came.
pub(crate) async fn perform(allowed: &Allowed, request: Request) -> Result<Response, Error> {
    let denied = |message: String| Error { kind: ErrorKind::Denied, message };
    let method = Method::from_bytes(request.method.as_bytes())
        .map_err(|_| denied(format!("`{}` is no method", escaped(&request.method))))?;
    let (url, covering) = allowed.request(&method, &request.url).map_err(denied)?;
    let headers = headers(&request.headers).map_err(denied)?;
    if request.body.len() > HTTP_BYTES {
        return Err(denied(format!("the body of a request has at most {HTTP_BYTES} bytes")));
    }
    let address = url.host_str().and_then(|host| host.trim_matches(['[', ']']).parse::<IpAddr>().ok());
    if let Some(address) = address
        && !reaches(&covering, address)
    {
        return Err(denied(Refused { host: address.to_string(), address }.to_string()));
    }
    let shown = format!("{method} {}{}", url.origin().ascii_serialization(), url.path());
    let client = client(&url, address.is_some(), covering).map_err(|e| failed(&shown, &e))?;
    let sent = client.request(method, url).headers(headers).body(request.body).send().await;
    let mut answer = sent.map_err(|e| failed(&shown, &e))?;
    let headers: Vec<_> = answer
        .headers()
        .iter()
        .map(|(name, value)| Header { name: name.to_string(), value: String::from_utf8_lossy(value.as_bytes()).into() })
        .collect();
    let mut left = HTTP_BYTES;
    let mut room = |bytes: usize| {
        left = left.checked_sub(bytes).ok_or_else(|| Error {
            kind: ErrorKind::Unavailable,
            message: format!("`{shown}` answered more than {HTTP_BYTES} bytes"),
        })?;
        Ok::<_, Error>(())
    };
    headers.iter().try_for_each(|header| room(header.name.len() + header.value.len()))?;
    let mut body = Vec::new();
    while let Some(chunk) = answer.chunk().await.map_err(|e| failed(&shown, &e))? {
        room(chunk.len())?;
        body.extend_from_slice(&chunk);
    }
    Ok(Response { status: answer.status().as_u16(), headers, body })
}

/// One connection for one request: nothing is kept that another call could use.
fn client(url: &Url, literal: bool, covering: Vec<Vec<Prefix>>) -> reqwest::Result<reqwest::Client> {
    let host = url.host_str().unwrap_or_default().to_owned();
    let mut client = reqwest::Client::builder()
        .timeout(HTTP_TIME)
        .redirect(redirect::Policy::none())
        .retry(reqwest::retry::never())
        .referer(false)
        .http1_only()
        .pool_max_idle_per_host(0)
        .dns_resolver(Arc::new(Checked { host, covering: Arc::new(covering) }));
    // A proxy would resolve the name itself: only where a certificate proves in the end who answered.
    if literal || url.scheme() == "http" {
        client = client.no_proxy();
    }
    // Reading the system's authorities takes longer than a whole exchange with a metadata service.
    if url.scheme() == "http" {
        client = client.tls_certs_only([]);
    }
    client.build()
}

fn headers(given: &[Header]) -> Result<HeaderMap, String> {
    let mut headers = HeaderMap::new();
    let mut bytes = 0;
    for Header { name, value } in given {
        let wrong = || format!("`{}` cannot be a header", escaped(name));
        let (key, text) = (HeaderName::from_bytes(name.as_bytes()), HeaderValue::from_bytes(value.as_bytes()));
        let (key, mut text) = (key.map_err(|_| wrong())?, text.map_err(|_| wrong())?);
        if RESERVED.contains(&key.as_str()) || key.as_str().starts_with("proxy-") {
            return Err(format!("the header `{key}` is the host's own: leave it out"));
        }
        bytes += name.len() + value.len();
        text.set_sensitive(true);
        headers.append(key, text);
    }
    match bytes > HTTP_BYTES {
        true => Err(format!("the headers of a request have at most {HTTP_BYTES} bytes")),
        false => Ok(headers),
    }
}

/// In each list, one of the entries that cover the request has to allow the address.
fn reaches(covering: &[Vec<Prefix>], address: IpAddr) -> bool {
    covering.iter().all(|list| list.iter().any(|prefix| prefix.reaches(address)))
}

/// Resolves the request's host once, and lets pass only addresses that may be connected to. The name of a proxy is the operator's.
struct Checked {
    host: String,
    covering: Arc<Vec<Vec<Prefix>>>,
}

impl Resolve for Checked {
    fn resolve(&self, name: Name) -> Resolving {
        let (asked, covering) = ((name.as_str() == self.host).then(|| self.host.clone()), self.covering.clone());
        Box::pin(async move {
            let addresses: Vec<_> = tokio::net::lookup_host((name.as_str(), 0)).await?.collect();
            if let Some(host) = asked
                && let Some(refused) = addresses.iter().find(|address| !reaches(&covering, address.ip()))
            {
                return Err(Refused { host, address: refused.ip() }.into());
            }
            Ok(Box::new(addresses.into_iter()) as Addrs)
        })
    }
}

/// An address that may not be connected to.
#[derive(Debug, thiserror::Error)]
#[error(
    "`{host}` leads to `{address}`, which is not public: grant that address instead of a name, or in a private network add ` at private` to the entry of `http`"
)]
struct Refused {
    host: String,
    address: IpAddr,
}

/// In words for a person. The query is not shown: a secret may stand in it.
fn failed(shown: &str, error: &reqwest::Error) -> Error {
    let mut cause = error.source();
    let mut last = None;
    while let Some(inner) = cause {
        if let Some(refused) = inner.downcast_ref::<Refused>() {
            return Error { kind: ErrorKind::Denied, message: refused.to_string() };
        }
        (last, cause) = (Some(inner), inner.source());
    }
    let reason = match last {
        _ if error.is_timeout() => format!("no whole answer within {} s", HTTP_TIME.as_secs()),
        Some(cause) => escaped(&cause.to_string()),
        None => "the request cannot be made".to_owned(),
    };
    Error { kind: ErrorKind::Unavailable, message: format!("`{shown}`: {reason}") }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Who owns a name says where it leads, and may say something else at every look-up: the check is part of the connection.
    #[tokio::test]
    async fn a_name_that_leads_to_this_machine_is_refused_when_it_is_resolved() {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = Url::parse(&format!("http://localhost:{}/", listener.local_addr().unwrap().port())).unwrap();
        for grant in ["http://a.example/", "http://a.example/ at private"] {
            let covering = vec![vec![Prefix::parse(grant).unwrap()]];
            let error = client(&url, false, covering).unwrap().get(url.clone()).send().await.unwrap_err();
            let refused = failed("GET http://localhost/", &error);
            assert_eq!(refused.kind, ErrorKind::Denied);
            assert!(refused.message.starts_with("`localhost` leads to"), "{}", refused.message);
        }
        let literal = vec![vec![Prefix::parse("http://127.0.0.1/").unwrap(), Prefix::parse("http://[::1]/").unwrap()]];
        assert!(reaches(&literal, "127.0.0.1".parse().unwrap()) && reaches(&literal, "::1".parse().unwrap()));
        let both = vec![literal[0].clone(), vec![Prefix::parse("http://a.example/").unwrap()]];
        assert!(!reaches(&both, "127.0.0.1".parse().unwrap()), "each list has to allow it");
    }
}
