//! Connection upgrades (wire §i.6): an HTTP request that becomes a connection to the proxy port, past a load balancer.

use anyhow::anyhow;
use aws_lc_rs::digest::{SHA1_FOR_LEGACY_USE_ONLY, digest};
use base64::{Engine, engine::general_purpose::STANDARD};
use http::{HeaderMap, Request, Response, StatusCode, header};
use hyper::body::Incoming;
use hyper_util::rt::TokioIo;
use tonic::body::Body;

use super::{framing, listener, proxy_port, stream::Stream, tls::Shown};
use crate::{
    api::{grpc::Connection, refusal::Refusal},
    options::Release,
};

/// What a client asks to upgrade to: plain, or with keep-alives.
const KINDS: [&str; 2] = ["alpn-ping", "alpn"];

/// Repeats the kind, for load balancers that eat `Upgrade`.
const TELEPORT_UPGRADE: &str = "x-teleport-upgrade";

/// Appended to a WebSocket key before it is hashed (RFC 6455 §1.3).
const WEBSOCKET_GUID: &str = "258EAFA5-E914-47DA-95CA-C5AB0DC85B11";

/// Answers with 101 and goes on in the background. 12 knows `alpn` only, 15 the older form only, 17 and later only WebSocket.
pub(crate) fn answer(connection: &Connection, request: Request<Incoming>) -> Result<Response<Body>, Refusal> {
    let headers = request.headers();
    let release = connection.state.options.release;
    let by_websocket = release >= Release::V17;
    let kind = if release == Release::V12 {
        // A list in one value is no list there, and the copy of the header is not known.
        headers.get_all("upgrade").into_iter().any(|value| value == "alpn").then_some("alpn")
    } else if by_websocket {
        choose(listed(headers, "sec-websocket-protocol"))
            .filter(|_| listed(headers, "upgrade").any(|upgrade| upgrade.eq_ignore_ascii_case("websocket")))
    } else {
        choose(listed(headers, "upgrade").chain(listed(headers, TELEPORT_UPGRADE)))
    };
    let Some(kind) = kind else {
        let types: Vec<_> = listed(headers, "upgrade").chain(listed(headers, TELEPORT_UPGRADE)).collect();
        let message = format!("unsupported upgrade types: {types:?}");
        return Err(if release == Release::V12 { Refusal::BadParameter(message) } else { Refusal::NotFound(message) });
    };
    let builder = Response::builder().status(StatusCode::SWITCHING_PROTOCOLS).header(header::CONNECTION, "Upgrade");
    let builder = if by_websocket {
        let key = headers.get(header::SEC_WEBSOCKET_KEY).and_then(|key| key.to_str().ok());
        let key = key.ok_or_else(|| Refusal::BadParameter("missing Sec-WebSocket-Key".to_owned()))?;
        let accept = digest(&SHA1_FOR_LEGACY_USE_ONLY, format!("{key}{WEBSOCKET_GUID}").as_bytes());
        builder
            .header(header::UPGRADE, "websocket")
            .header(header::SEC_WEBSOCKET_ACCEPT, STANDARD.encode(accept))
            .header(header::SEC_WEBSOCKET_PROTOCOL, kind)
    } else {
        let builder = builder.header(header::UPGRADE, kind);
        if release == Release::V12 { builder } else { builder.header(TELEPORT_UPGRADE, kind) }
    };
    let response = builder.body(Body::empty()).map_err(|error| Refusal::Internal(error.to_string()))?;

    let (state, remote) = (connection.state.clone(), connection.remote);
    let pings = kind == "alpn-ping";
    listener::until_cut(&connection.state, async move {
        let upgraded = hyper::upgrade::on(request).await.map_err(|error| anyhow!(error))?;
        let stream: Stream = Box::new(TokioIo::new(upgraded));
        let inner = |stream| proxy_port::route(state, stream, remote, Shown::Host);
        match (by_websocket, pings) {
            (true, _) => framing::in_websocket(stream, pings, inner).await,
            (false, true) => framing::pinged(stream, inner).await,
            (false, false) => inner(stream).await,
        }
    });
    Ok(response)
}

fn choose<'a>(mut offers: impl Iterator<Item = &'a str>) -> Option<&'static str> {
    offers.find_map(|offer| KINDS.into_iter().find(|kind| *kind == offer))
}

/// Every value of a header that may come more than once and hold lists.
fn listed<'a>(headers: &'a HeaderMap, name: &'static str) -> impl Iterator<Item = &'a str> {
    let values = headers.get_all(name).into_iter().filter_map(|value| value.to_str().ok());
    values.flat_map(|value| value.split(',')).map(str::trim)
}
