//! Serves one connection after its handshake.

use std::{future::Future, net::SocketAddr, sync::Arc, time::SystemTime};

use anyhow::{Result, ensure};
use http::{Request, Response};
use hyper::{
    body::Incoming,
    server::conn::{http1, http2},
    service::service_fn,
};
use hyper_util::rt::{TokioExecutor, TokioIo};
use rustls::ServerConnection;
use tokio::{
    io::{AsyncRead, AsyncWrite},
    sync::Notify,
};
use tokio_rustls::server::TlsStream;
use tonic::body::Body;

use crate::{
    api::{grpc, http_api},
    pki::caller::Caller,
    state::State,
};

/// Requests in flight on one connection (wire §f.1).
const STREAMS: u32 = 1000;

/// What is spoken inside TLS.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Protocol {
    /// gRPC over HTTP/2.
    Grpc,
    /// HTTP/1.1.
    Http1,
    /// HTTP/2 or HTTP/1.1, as negotiated.
    Web,
}

/// Who is on the other end, from a verified client certificate.
pub(crate) fn caller(session: &ServerConnection) -> Result<Option<Caller>> {
    let leaf = session.peer_certificates().and_then(<[_]>::first);
    let caller = leaf.map(|leaf| Caller::from_certificate(leaf)).transpose()?;
    // A resumed session skips the verification of the certificate.
    ensure!(
        caller.as_ref().is_none_or(|caller| SystemTime::now() < caller.not_after),
        "the client certificate has expired"
    );
    Ok(caller)
}

pub(crate) async fn serve<S: AsyncRead + AsyncWrite + Send + Unpin + 'static>(
    state: Arc<State>,
    tls: TlsStream<S>,
    remote: SocketAddr,
    port: &'static str,
    protocol: Protocol,
) -> Result<()> {
    let session = tls.get_ref().1;
    let caller = caller(session)?;
    let speaks_h2 = protocol == Protocol::Grpc || session.alpn_protocol() == Some(b"h2");
    let has_intermediaries = session.peer_certificates().is_some_and(|chain| chain.len() > 1);
    let cut = Notify::new();
    let connection = Arc::new(grpc::Connection { state, caller, remote, port, has_intermediaries, cut });
    let io = TokioIo::new(tls);
    let http = connection.clone();
    let web = service_fn(move |request| answer(http_api::serve(http.clone(), request)));
    let work = async {
        match (protocol, speaks_h2) {
            (Protocol::Grpc, _) => {
                let calls = connection.clone();
                let service = service_fn(move |request: Request<Incoming>| answer(grpc::serve(calls.clone(), request)));
                let mut builder = http2::Builder::new(TokioExecutor::new());
                builder.max_concurrent_streams(STREAMS).serve_connection(io, service).await
            }
            (_, true) => http2::Builder::new(TokioExecutor::new()).serve_connection(io, web).await,
            (_, false) => http1::Builder::new().serve_connection(io, web).with_upgrades().await,
        }
    };
    tokio::select! {
        result = work => Ok(result?),
        () = connection.cut.notified() => Ok(()),
    }
}

async fn answer(work: impl Future<Output = Response<Body>>) -> Result<Response<Body>, std::convert::Infallible> {
    Ok(work.await)
}
