//! HTTP answers with the headers of a Teleport cluster (recorded).

use http::{Response, StatusCode, header};
use http_body_util::Full;
use hyper::body::Bytes;
use serde::Serialize;
use tonic::body::Body;

/// One line of JSON.
pub(crate) fn compact(value: &impl Serialize) -> Response<Body> {
    answer(StatusCode::OK, serde_json::to_vec(value).unwrap_or_default())
}

/// JSON with no header but its type: how other services than a cluster answer.
pub(crate) fn plain(code: StatusCode, value: &impl Serialize) -> Response<Body> {
    let mut response = Response::new(Body::new(Full::new(Bytes::from(serde_json::to_vec(value).unwrap_or_default()))));
    *response.status_mut() = code;
    let kind = header::HeaderValue::from_static("application/json; charset=utf-8");
    response.headers_mut().insert(header::CONTENT_TYPE, kind);
    response
}

/// Indented by four: how errors come.
pub(crate) fn indented(code: StatusCode, value: &impl Serialize) -> Response<Body> {
    let mut text = Vec::new();
    let formatter = serde_json::ser::PrettyFormatter::with_indent(b"    ");
    match value.serialize(&mut serde_json::Serializer::with_formatter(&mut text, formatter)) {
        Ok(()) => answer(code, text),
        Err(_) => answer(StatusCode::INTERNAL_SERVER_ERROR, Vec::new()),
    }
}

/// A redirection. Only a browser's GET gets a text with it: without one the answer has no type, which is what gRPC
/// clients stumble over first (recorded).
pub(crate) fn found(location: &str, method: &http::Method) -> Response<Body> {
    let text =
        if method == http::Method::GET { format!("<a href=\"{location}\">Found</a>.\n\n") } else { String::new() };
    let mut response = page(&text);
    *response.status_mut() = StatusCode::FOUND;
    if text.is_empty() {
        response.headers_mut().remove(header::CONTENT_TYPE);
    }
    if let Ok(location) = header::HeaderValue::from_str(location) {
        response.headers_mut().insert(header::LOCATION, location);
    }
    response
}

/// A page of the web interface.
pub(crate) fn page(html: &str) -> Response<Body> {
    let mut response = answer(StatusCode::OK, html.as_bytes().to_vec());
    response.headers_mut().insert(header::CONTENT_TYPE, header::HeaderValue::from_static("text/html; charset=utf-8"));
    response
}

/// Where no service is: the router's own answer.
pub(crate) fn not_found() -> Response<Body> {
    let mut response = text(StatusCode::NOT_FOUND, "404 page not found\n");
    for name in [header::CACHE_CONTROL, header::EXPIRES, header::PRAGMA] {
        response.headers_mut().remove(name);
    }
    response
}

/// Plain text.
pub(crate) fn text(code: StatusCode, body: &str) -> Response<Body> {
    let mut response = answer(code, body.as_bytes().to_vec());
    response.headers_mut().insert(header::CONTENT_TYPE, header::HeaderValue::from_static("text/plain; charset=utf-8"));
    response
}

fn answer(code: StatusCode, body: Vec<u8>) -> Response<Body> {
    let mut response = Response::new(Body::new(Full::new(Bytes::from(body))));
    *response.status_mut() = code;
    for (name, value) in [
        (header::CACHE_CONTROL, "no-cache, no-store, must-revalidate"),
        (header::CONTENT_TYPE, "application/json"),
        (header::EXPIRES, "0"),
        (header::PRAGMA, "no-cache"),
        (header::REFERRER_POLICY, "strict-origin"),
        (header::STRICT_TRANSPORT_SECURITY, "max-age=31536000; includeSubDomains"),
        (header::X_CONTENT_TYPE_OPTIONS, "nosniff"),
        (header::X_FRAME_OPTIONS, "SAMEORIGIN"),
        (header::X_XSS_PROTECTION, "1; mode=block"),
    ] {
        response.headers_mut().insert(name, header::HeaderValue::from_static(value));
    }
    response
}
