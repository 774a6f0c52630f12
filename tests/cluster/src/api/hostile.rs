//! Answers that do harm where a client reads whatever comes.

use std::{convert::Infallible, time::Duration};

use http::{Response, header};
use http_body_util::StreamBody;
use hyper::body::{Bytes, Frame};
use tokio_stream::{StreamExt, iter};
use tonic::body::Body;

use crate::faults::Hostile;

/// As much at a time as a client may take.
const CHUNK: usize = 64 << 10;
/// Slow enough that nothing comes of it, and fast enough that no pause looks like an end.
const PAUSE: Duration = Duration::from_millis(100);

/// In place of a gRPC message: a byte that says "not compressed", four of length, the message.
pub(super) fn grpc(how: Hostile) -> Response<Body> {
    let body = match how {
        Hostile::Nonsense => once(&[0, 0, 0, 0, 4, 0xff, 0xff, 0xff, 0xff]),
        Hostile::Oversize => endless(&[0, 0x40, 0, 0, 0], &[0; CHUNK]),
        Hostile::Endless => endless(&[], &[0, 0, 0, 0, 0].repeat(CHUNK / 5)),
        Hostile::Trickle => slow(&[0, 0, 0x10, 0, 0]),
    };
    answer("application/grpc", body)
}

/// In place of JSON.
pub(super) fn http(how: Hostile) -> Response<Body> {
    let body = match how {
        Hostile::Nonsense => once(br#"{"server_version": 7, "auth": "?", "ssh": 7, "tls": [[]], "tls_ca_certs": {}}"#),
        Hostile::Oversize | Hostile::Endless => endless(b"[", &[b'['; CHUNK]),
        Hostile::Trickle => slow(b"{"),
    };
    answer("application/json", body)
}

fn answer(kind: &'static str, body: Body) -> Response<Body> {
    let mut response = Response::new(body);
    response.headers_mut().insert(header::CONTENT_TYPE, header::HeaderValue::from_static(kind));
    response
}

fn once(bytes: &[u8]) -> Body {
    Body::new(http_body_util::Full::new(Bytes::copy_from_slice(bytes)))
}

fn endless(first: &[u8], again: &[u8]) -> Body {
    let (first, again) = (Bytes::copy_from_slice(first), Bytes::copy_from_slice(again));
    let chunks = std::iter::once(first).chain(std::iter::repeat(again));
    Body::new(StreamBody::new(iter(chunks).map(|chunk| Ok::<_, Infallible>(Frame::data(chunk)))))
}

fn slow(first: &[u8]) -> Body {
    let bytes = std::iter::once(Bytes::copy_from_slice(first)).chain(std::iter::repeat(Bytes::from_static(b" ")));
    let chunks = iter(bytes).throttle(PAUSE);
    Body::new(StreamBody::new(chunks.map(|chunk| Ok::<_, Infallible>(Frame::data(chunk)))))
}
