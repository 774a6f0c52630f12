//! The far side of applications: forwarding to their URI, and a small application to forward to.

use std::net::{Ipv4Addr, SocketAddr};

use anyhow::{Context, Result};
use http::{Request, Response, StatusCode, Uri, header};
use http_body_util::Full;
use hyper::{body::Bytes, body::Incoming, client, server, service::service_fn};
use hyper_util::rt::TokioIo;
use tokio::{
    io::copy_bidirectional,
    net::{TcpListener, TcpStream},
};
use tonic::body::Body;

use super::listener;
use crate::{api::json, state::State};

/// An HTTP application that greets whoever calls.
pub struct Greeter {
    address: SocketAddr,
    task: tokio::task::JoinHandle<()>,
}

impl Greeter {
    /// Listens on 127.0.0.1 and answers every request with 200 and `greeting`.
    ///
    /// # Errors
    /// When no port can be opened.
    pub async fn start(greeting: &'static str) -> Result<Self> {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.context("listening for the application")?;
        let address = listener.local_addr()?;
        let task = tokio::spawn(async move {
            loop {
                let Ok((stream, _)) = listener.accept().await else { continue };
                tokio::spawn(async move {
                    let service = service_fn(move |_: Request<Incoming>| async move {
                        Ok::<_, std::convert::Infallible>(Response::new(Full::new(Bytes::from_static(
                            greeting.as_bytes(),
                        ))))
                    });
                    server::conn::http1::Builder::new().serve_connection(TokioIo::new(stream), service).await
                });
            }
        });
        Ok(Self { address, task })
    }

    /// `http://127.0.0.1:PORT`.
    #[must_use]
    pub fn uri(&self) -> String {
        format!("http://{}", self.address)
    }
}

impl Drop for Greeter {
    fn drop(&mut self) {
        self.task.abort();
    }
}

/// Sends a request on to an application and returns its answer as it comes, or 502. A connection that changes its protocol, as
/// WebSocket does, is passed on from then on.
pub(crate) async fn forward(state: &State, uri: &str, request: Request<Incoming>) -> Response<Body> {
    match exchange(state, uri, request).await {
        Ok(response) => response,
        Err(error) => json::text(StatusCode::BAD_GATEWAY, &format!("{error:#}\n")),
    }
}

async fn exchange(state: &State, uri: &str, mut request: Request<Incoming>) -> Result<Response<Body>> {
    let uri: Uri = uri.parse().context("the application's URI")?;
    let authority = uri.authority().context("the application's URI names no host")?.clone();
    let stream = TcpStream::connect((authority.host(), authority.port_u16().unwrap_or(80))).await?;
    let (mut sender, connection) = client::conn::http1::handshake(TokioIo::new(stream)).await?;
    tokio::spawn(connection.with_upgrades());
    let caller = hyper::upgrade::on(&mut request);
    let (mut parts, body) = request.into_parts();
    parts.uri = parts.uri.path_and_query().map_or("/", |path| path.as_str()).parse()?;
    parts.version = http::Version::HTTP_11;
    parts.headers.insert(header::HOST, authority.as_str().parse()?);
    let mut response = sender.send_request(Request::from_parts(parts, body)).await?;
    if response.status() == StatusCode::SWITCHING_PROTOCOLS {
        let application = hyper::upgrade::on(&mut response);
        listener::until_cut(state, async move {
            let (caller, application) = tokio::try_join!(caller, application)?;
            copy_bidirectional(&mut TokioIo::new(caller), &mut TokioIo::new(application)).await?;
            Ok(())
        });
    }
    Ok(response.map(Body::new))
}
