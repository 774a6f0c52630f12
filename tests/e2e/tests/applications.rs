//! What passes through a local port to an application: long answers, both directions at once, and protocols that begin as HTTP.

mod harness;

use std::convert::Infallible;
use std::net::SocketAddr;

use futures::{SinkExt, StreamExt};
use harness::proxy::Proxy;
use harness::{APP, World};
use http::{HeaderMap, HeaderValue, Request, Response, StatusCode, header};
use http_body_util::combinators::BoxBody;
use http_body_util::{BodyExt, Empty, StreamBody};
use hyper::body::{Bytes, Frame, Incoming};
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo};
use hyper_util::server::conn::auto;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::Message;
use tokio_tungstenite::tungstenite::protocol::Role;

type Body = BoxBody<Bytes, hyper::Error>;

/// An application that speaks HTTP in both versions, WebSocket, events and gRPC.
async fn application() -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            tokio::spawn(async move {
                let server = auto::Builder::new(TokioExecutor::new());
                let service = service_fn(|request| async { Ok::<_, Infallible>(answer(request)) });
                let _ = server.serve_connection_with_upgrades(TokioIo::new(stream), service).await;
            });
        }
    });
    address
}

fn answer(mut request: Request<Incoming>) -> Response<Body> {
    let (kind, body) = match request.uri().path() {
        "/socket" => {
            tokio::spawn(echo(hyper::upgrade::on(&mut request)));
            let mut response = Response::new(Empty::new().map_err(|never| match never {}).boxed());
            *response.status_mut() = StatusCode::SWITCHING_PROTOCOLS;
            response.headers_mut().insert(header::CONNECTION, HeaderValue::from_static("Upgrade"));
            response.headers_mut().insert(header::UPGRADE, HeaderValue::from_static("websocket"));
            return response;
        }
        // One, and no end.
        "/events" => {
            let first = futures::stream::iter([Ok(Frame::data(Bytes::from_static(b"data: first\n\n")))]);
            ("text/event-stream", BodyExt::boxed(StreamBody::new(first.chain(futures::stream::pending()))))
        }
        // Whatever comes, as it comes, and a good end.
        _ => {
            let end = HeaderMap::from_iter([("grpc-status".parse().unwrap(), HeaderValue::from_static("0"))]);
            ("application/grpc", request.into_body().with_trailers(async { Some(Ok(end)) }).boxed())
        }
    };
    let mut response = Response::new(body);
    response.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static(kind));
    response
}

async fn echo(upgrade: hyper::upgrade::OnUpgrade) {
    let stream = TokioIo::new(upgrade.await.unwrap());
    let mut socket = WebSocketStream::from_raw_socket(stream, Role::Server, None).await;
    while let Some(Ok(message)) = socket.next().await {
        if !message.is_close() {
            socket.send(message).await.unwrap();
        }
    }
}

/// A local port that leads to the application behind this URI.
async fn port(scheme: &str) -> (World, Proxy, String) {
    let world = World::new().await;
    world.control.add_app(APP, "grafana.localhost", &format!("{scheme}://{}", application().await));
    world.configure(&world.proxy(), "", &world.output(APP, "out"));
    world.succeeds().await;
    let config = world.path("tbot.yaml").display().to_string();
    let proxy = Proxy::start(&world, &["-c", &config, "proxy", "app", APP]);
    let line = proxy.line().await;
    let address = line.rsplit(' ').next().unwrap().to_owned();
    (world, proxy, address)
}

/// Sends the head of a request and reads the head of its answer.
async fn ask(address: &str, head: &str) -> (TcpStream, String) {
    let mut stream = TcpStream::connect(address).await.unwrap();
    stream.write_all(format!("{head}\r\nHost: localhost\r\n\r\n").as_bytes()).await.unwrap();
    let mut heard = Vec::new();
    while !heard.ends_with(b"\r\n\r\n") {
        heard.push(stream.read_u8().await.unwrap());
    }
    (stream, String::from_utf8(heard).unwrap())
}

#[tokio::test(flavor = "multi_thread")]
async fn websocket_events_and_bodies_pass_as_they_come() {
    let (world, proxy, address) = port("http").await;
    let upgrade = "GET /socket HTTP/1.1\r\nConnection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==";
    let (stream, head) = ask(&address, upgrade).await;
    assert!(head.starts_with("HTTP/1.1 101 "), "{head}");
    let mut socket = WebSocketStream::from_raw_socket(stream, Role::Client, None).await;
    for message in [Message::text("one"), Message::binary(vec![7; 100_000])] {
        socket.send(message.clone()).await.unwrap();
        assert_eq!(socket.next().await.unwrap().unwrap(), message);
    }
    let (mut stream, head) = ask(&address, "GET /events HTTP/1.1").await;
    assert!(head.contains("text/event-stream"), "{head}");
    let mut heard = String::new();
    while !heard.contains("data: first\n\n") {
        heard.push(char::from(stream.read_u8().await.unwrap()));
    }
    let (mut stream, head) = ask(&address, "POST /back HTTP/1.1\r\nTransfer-Encoding: chunked").await;
    assert!(head.starts_with("HTTP/1.1 200 "), "{head}");
    for word in ["before", "behind"] {
        stream.write_all(format!("6\r\n{word}\r\n").as_bytes()).await.unwrap();
        let mut back = [0; 11];
        stream.read_exact(&mut back).await.unwrap();
        assert_eq!(String::from_utf8_lossy(&back), format!("6\r\n{word}\r\n"), "each part before the next is sent");
    }
    // Open connections end with the proxy's path, and are not left hanging.
    world.control.drop_connections();
    assert!(socket.next().await.is_none_or(|last| last.is_err()));
    assert_eq!(proxy.end().await, Some(0));
}

/// An HTTP application is asked in the first version, whatever its client speaks to the port.
#[tokio::test(flavor = "multi_thread")]
async fn clients_of_the_second_version_are_answered() {
    let (_world, proxy, address) = port("http").await;
    let stream = TcpStream::connect(&address).await.unwrap();
    let (mut sender, connection) =
        hyper::client::conn::http2::handshake(TokioExecutor::new(), TokioIo::new(stream)).await.unwrap();
    tokio::spawn(connection);
    let request = Request::post(format!("http://{address}/back")).body("both versions".to_owned()).unwrap();
    let response = sender.send_request(request).await.unwrap();
    assert_eq!((response.status(), response.version()), (StatusCode::OK, http::Version::HTTP_2));
    assert_eq!(response.into_body().collect().await.unwrap().to_bytes(), "both versions");
    assert_eq!(proxy.end().await, Some(0));
}

/// gRPC needs the second version up to the application: that is an application by TCP.
#[tokio::test(flavor = "multi_thread")]
async fn grpc_streams_through_a_tcp_application() {
    let (_world, proxy, address) = port("tcp").await;
    let channel =
        tonic::transport::Endpoint::from_shared(format!("http://{address}")).unwrap().connect().await.unwrap();
    let mut client = tonic::client::Grpc::new(channel);
    client.ready().await.unwrap();
    let (say, said) = mpsc::channel(1);
    let message = |seconds| prost_types::Duration { seconds, nanos: 1 };
    say.send(message(0)).await.unwrap();
    let codec = tonic_prost::ProstCodec::<prost_types::Duration, prost_types::Duration>::default();
    let request = tonic::Request::new(ReceiverStream::new(said));
    let path = http::uri::PathAndQuery::from_static("/echo.Echo/Say");
    let mut heard = client.streaming(request, path, codec).await.unwrap().into_inner();
    for n in 0..10 {
        assert_eq!(heard.message().await.unwrap(), Some(message(n)));
        say.send(message(n + 1)).await.unwrap();
    }
    drop(say);
    assert_eq!(heard.message().await.unwrap(), Some(message(10)));
    assert_eq!(heard.message().await.unwrap(), None, "and status 0");
    assert_eq!(proxy.end().await, Some(0));
}
