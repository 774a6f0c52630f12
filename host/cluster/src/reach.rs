//! A stream of bytes to an address: through the machine's HTTP proxy where one is set, and through a load balancer that hides
//! protocol names (wire §i.6).

use std::io;
use std::net::IpAddr;
use std::time::Duration;

use base64::Engine;
use base64::engine::general_purpose::STANDARD as BASE64;
use hyper_util::client::proxy::matcher::Matcher;
use socket2::{SockRef, TcpKeepalive};
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::TcpStream;

use crate::address::{Route, Way};
use crate::dialer::Stream;
use crate::ping::PingStream;
use crate::trust::{Trust, client_config};
use crate::{channel, websocket};

/// A silent peer is asked after this time, and given up four questions later: connections are idle for hours, and firewalls forget.
const KEEPALIVE: Duration = Duration::from_secs(60);
/// Time between those questions.
const KEEPALIVE_INTERVAL: Duration = Duration::from_secs(15);
/// The longest head of an HTTP answer that is read.
const HEAD_BYTES: u64 = 16 << 10;
/// Where proxies hand a connection on by protocol name after an upgrade.
const UPGRADE: &str = "/webapi/connectionupgrade";
/// Asks for keep-alives, which keep a load balancer from closing what is idle (wire §i.6).
const KIND: &str = "alpn-ping";
/// Without keep-alives: all that the first proxies of Teleport 12 know.
const OLDEST: &str = "alpn";

/// Bytes to `route`, by its way.
pub(crate) async fn reach(route: &Route) -> io::Result<Box<dyn Stream>> {
    let tcp = through_proxy(&route.host, route.port, &Matcher::from_env()).await?;
    match route.way {
        Way::Direct => Ok(tcp),
        Way::Upgraded { insecure } => upgraded(route, tcp, insecure).await,
    }
}

/// This machine itself: no HTTP proxy is asked for it, as the original has it.
pub(crate) fn is_local(host: &str) -> bool {
    host == "localhost" || host.parse::<IpAddr>().is_ok_and(|address| address.is_loopback())
}

/// TCP, or an HTTP proxy's `CONNECT`, as `HTTPS_PROXY` and `NO_PROXY` have it.
async fn through_proxy(host: &str, port: u16, proxies: &Matcher) -> io::Result<Box<dyn Stream>> {
    let target = if host.contains(':') { format!("[{host}]:{port}") } else { format!("{host}:{port}") };
    let uri = format!("https://{target}").parse::<http::Uri>().map_err(io::Error::other)?;
    let Some(proxy) = proxies.intercept(&uri).filter(|_| !is_local(host)) else {
        return Ok(Box::new(connect(host, port).await?));
    };
    let via = proxy.uri();
    let name = format!("HTTP proxy {}:{}", via.host().unwrap_or_default(), via.port_u16().unwrap_or(80));
    let failed = |what: &str| io::Error::other(format!("{name}: {what}"));
    if via.scheme_str() != Some("http") {
        return Err(failed(
            "only proxies with `http://` are supported: change HTTPS_PROXY, or name the cluster in NO_PROXY",
        ));
    }
    let host = via.host().ok_or_else(|| failed("its address has no host"))?.trim_matches(['[', ']']);
    let tcp = connect(host, via.port_u16().unwrap_or(80)).await.map_err(|e| failed(&e.to_string()))?;
    let mut stream = BufReader::new(tcp);
    let authorization = match proxy.basic_auth().and_then(|value| value.to_str().ok()) {
        Some(value) => format!("Proxy-Authorization: {value}\r\n"),
        None => String::new(),
    };
    let request = format!("CONNECT {target} HTTP/1.1\r\nHost: {target}\r\n{authorization}\r\n");
    stream.write_all(request.as_bytes()).await?;
    let answer = head(&mut stream).await.map_err(|e| failed(&e.to_string()))?;
    match answer.status {
        200 => Ok(Box::new(stream)),
        407 => Err(failed("it wants credentials: `http://user:password@host:port` in HTTPS_PROXY")),
        status => Err(failed(&format!("it refuses to connect to {target} (HTTP status {status})"))),
    }
}

async fn connect(host: &str, port: u16) -> io::Result<TcpStream> {
    let tcp = TcpStream::connect((host, port)).await?;
    // Without it every call waits for the peer's delayed acknowledgement, 44 ms (rust-wire §3).
    tcp.set_nodelay(true)?;
    let keepalive = TcpKeepalive::new().with_time(KEEPALIVE).with_interval(KEEPALIVE_INTERVAL).with_retries(4);
    SockRef::from(&tcp).set_tcp_keepalive(&keepalive)?;
    Ok(tcp)
}

/// Asks for WebSocket, and takes the older form where the proxy knows only that (wire §i.6).
async fn upgraded(route: &Route, tcp: Box<dyn Stream>, insecure: bool) -> io::Result<Box<dyn Stream>> {
    let trust = if insecure { Trust::Blind } else { Trust::System };
    let config = client_config(&trust, None, &["http/1.1"]).map_err(io::Error::other)?;
    let name = channel::server_name(&route.host)?;
    let mut stream = BufReader::new(channel::handshake(config, name, tcp).await?);
    let mut random = [0; 16];
    aws_lc_rs::rand::fill(&mut random).map_err(|_| io::Error::other("no random numbers"))?;
    let key = BASE64.encode(random);
    let request = format!(
        "GET {UPGRADE} HTTP/1.1\r\nHost: {route}\r\nConnection: Upgrade\r\nUpgrade: websocket\r\nUpgrade: {KIND}\r\nUpgrade: {OLDEST}\r\n\
         X-Teleport-Upgrade: {KIND}\r\nSec-WebSocket-Version: 13\r\nSec-WebSocket-Key: {key}\r\nSec-WebSocket-Protocol: {KIND}\r\n\r\n"
    );
    stream.write_all(request.as_bytes()).await?;
    let head = head(&mut stream).await?;
    let failed = |what: &str| io::Error::other(format!("{route}: connection upgrade: {what}"));
    match head.status {
        101 => {}
        404 => return Err(failed("the proxy does not know it: is this a Teleport proxy, version 12 or later?")),
        status => return Err(failed(&format!("HTTP status {status}"))),
    }
    let upgrade = head.header("upgrade").unwrap_or_default().to_ascii_lowercase();
    match upgrade.as_str() {
        "websocket" => {
            if head.header("sec-websocket-accept") != Some(&websocket::accept(&key)) {
                return Err(failed("the answer is not for this request"));
            }
            if head.header("sec-websocket-protocol") != Some(KIND) {
                return Err(failed("the proxy speaks another protocol inside"));
            }
            Ok(websocket::tunnel(stream))
        }
        KIND => Ok(Box::new(PingStream::new(stream))),
        OLDEST => Ok(Box::new(stream)),
        other => Err(failed(&format!("the proxy chose `{}`", other.escape_default()))),
    }
}

/// The head of an HTTP answer.
pub(crate) struct Head {
    status: u16,
    headers: Vec<(String, String)>,
}

impl Head {
    fn header(&self, name: &str) -> Option<&str> {
        self.headers.iter().find(|(key, _)| key == name).map(|(_, value)| value.as_str())
    }
}

pub(crate) async fn head<S: Stream>(stream: &mut BufReader<S>) -> io::Result<Head> {
    let broken = |what: &str| io::Error::new(io::ErrorKind::InvalidData, what.to_owned());
    let mut limited = stream.take(HEAD_BYTES);
    let mut lines = Vec::new();
    loop {
        let mut line = Vec::new();
        limited.read_until(b'\n', &mut line).await?;
        if line.last() != Some(&b'\n') {
            return Err(broken("the answer's head is cut short or too long"));
        }
        match String::from_utf8_lossy(&line).trim() {
            "" => break,
            text => lines.push(text.to_owned()),
        }
    }
    let first = lines.first().and_then(|line| line.strip_prefix("HTTP/1."));
    let status =
        first.and_then(|line| line.split(' ').nth(1)?.parse().ok()).ok_or_else(|| broken("it does not speak HTTP"))?;
    let headers = lines.iter().skip(1).filter_map(|line| line.split_once(':'));
    Ok(Head { status, headers: headers.map(|(k, v)| (k.trim().to_ascii_lowercase(), v.trim().to_owned())).collect() })
}

#[cfg(test)]
mod tests {
    use super::*;

    async fn read(text: &[u8]) -> io::Result<Head> {
        let (near, mut far) = tokio::io::duplex(1 << 20);
        far.write_all(text).await.unwrap();
        drop(far);
        head(&mut BufReader::new(near)).await
    }

    /// An HTTP proxy that answers once, and what it was asked.
    async fn proxy(answer: &'static str) -> (String, tokio::task::JoinHandle<String>) {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let asked = tokio::spawn(async move {
            let (mut tcp, _) = listener.accept().await.unwrap();
            let mut head = Vec::new();
            while !head.ends_with(b"\r\n\r\n") {
                head.push(tcp.read_u8().await.unwrap());
            }
            tcp.write_all(answer.as_bytes()).await.unwrap();
            String::from_utf8(head).unwrap()
        });
        (format!("http://user:hunter2@{address}"), asked)
    }

    #[tokio::test]
    async fn an_http_proxy_is_asked_to_connect() {
        let (url, asked) = proxy("HTTP/1.1 200 Connection established\r\n\r\nhello").await;
        let mut stream = through_proxy("2001:db8::1", 443, &Matcher::builder().https(url).build()).await.unwrap();
        let mut text = [0; 5];
        stream.read_exact(&mut text).await.unwrap();
        assert_eq!(&text, b"hello");
        let asked = asked.await.unwrap();
        assert!(asked.starts_with("CONNECT [2001:db8::1]:443 HTTP/1.1\r\nHost: [2001:db8::1]:443\r\n"), "{asked}");
        assert!(asked.contains("Proxy-Authorization: Basic dXNlcjpodW50ZXIy\r\n"), "{asked}");
    }

    #[tokio::test]
    async fn what_an_http_proxy_refuses_is_told_without_its_password() {
        for (answer, words) in [
            ("HTTP/1.1 407 Proxy Authentication Required\r\n\r\n", "wants credentials"),
            ("HTTP/1.1 403 Forbidden\r\n\r\n", "refuses to connect to example.com:443 (HTTP status 403)"),
            ("nonsense\r\n\r\n", "does not speak HTTP"),
        ] {
            let (url, _asked) = proxy(answer).await;
            let error = through_proxy("example.com", 443, &Matcher::builder().https(url).build()).await.err().unwrap();
            assert!(error.to_string().contains(words) && !error.to_string().contains("hunter2"), "{error}");
        }
        let tls = Matcher::builder().https("https://user:hunter2@127.0.0.1:1").build();
        let error = through_proxy("example.com", 443, &tls).await.err().unwrap();
        assert!(error.to_string().contains("HTTPS_PROXY") && !error.to_string().contains("hunter2"), "{error}");
    }

    #[tokio::test]
    async fn no_proxy_and_this_machine_are_reached_directly() {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let nowhere = Matcher::builder().https("http://192.0.2.1:1").no("example.com").build();
        through_proxy("127.0.0.1", port, &nowhere).await.unwrap();
        let uri = "https://sub.example.com:443".parse::<http::Uri>().unwrap();
        assert!(nowhere.intercept(&uri).is_none());
    }

    #[tokio::test]
    async fn heads_are_read_within_bounds() {
        let good = read(b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: WebSocket\r\n\r\nrest").await.unwrap();
        assert_eq!((good.status, good.header("upgrade")), (101, Some("WebSocket")));
        let endless = [b"HTTP/1.1 200 OK\r\n".to_vec(), b"a: b\r\n".repeat(10_000)].concat();
        for bad in [&b"HTTP/1.1 200 OK\r\n"[..], b"SSH-2.0-x\r\n\r\n", b"HTTP/1.1 x\r\n\r\n", b"", &endless] {
            assert!(read(bad).await.is_err());
        }
    }
}
