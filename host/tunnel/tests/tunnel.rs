//! Tunnels to a proxy that speaks real TLS: what a client of the port sees, and what the proxy sees.

mod proxy;

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use identity::FailureKind;
use proxy::{Files, Later, Proxy, Seen, Service, soon};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpStream, UnixStream};
use tokio::sync::oneshot;
use tokio::task::JoinHandle;
use tunnel::{Credentials, Limits, Listen, Mode, Protocol, Settings, Target, Tunnel};

const HOUR: i64 = 3600;
const SSL_REQUEST: [u8; 8] = [0, 0, 0, 8, 4, 210, 22, 47];
const CANCEL: [u8; 16] = [0, 0, 0, 16, 4, 210, 22, 46, 0, 0, 0, 1, 0, 0, 0, 2];

fn tcp() -> Target {
    Target::Application("example".into(), Some(Protocol::TCP))
}

fn app_files(proxy: &Proxy, user: &str) -> [(&'static str, Vec<u8>); 3] {
    proxy.certificate(user, &[(&[1, 10], "example")], HOUR)
}

fn database_files(proxy: &Proxy, protocol: &str) -> [(&'static str, Vec<u8>); 3] {
    proxy.certificate("alice", &[(&[2, 1], "example"), (&[2, 2], protocol)], HOUR)
}

fn database() -> Target {
    Target::Database("example".into())
}

/// A running tunnel; it ends with this value.
struct Running {
    address: Listen,
    _stop: oneshot::Sender<()>,
    task: JoinHandle<()>,
}

async fn run(settings: Settings) -> Running {
    let tunnel = soon(Tunnel::open(settings)).await.unwrap();
    let (stop, stopped) = oneshot::channel();
    let address = tunnel.address().clone();
    let task = tokio::spawn(tunnel.serve(async {
        let _ = stopped.await;
    }));
    Running { address, _stop: stop, task }
}

impl Running {
    async fn connect(&self) -> TcpStream {
        let Listen::Tcp(address) = self.address else { panic!("no port") };
        TcpStream::connect(address).await.unwrap()
    }
}

async fn hear(client: &mut (impl AsyncReadExt + Unpin), words: &[u8]) {
    let mut heard = vec![0; words.len()];
    soon(client.read_exact(&mut heard)).await.unwrap();
    assert_eq!(String::from_utf8_lossy(&heard), String::from_utf8_lossy(words));
}

async fn rest(client: &mut (impl AsyncReadExt + Unpin)) -> Vec<u8> {
    let mut rest = Vec::new();
    soon(client.read_to_end(&mut rest)).await.unwrap();
    rest
}

fn seen(protocol: &str, user: &str) -> Vec<Seen> {
    vec![Seen { protocol: protocol.into(), user: user.into() }]
}

#[tokio::test]
async fn bytes_pass_both_ways_with_and_without_frames_and_half_closes() {
    let proxy = Proxy::start().await;
    let files = Arc::new(Files::default());
    files.put(app_files(&proxy, "bot"));
    let tunnel = run(proxy.settings(tcp(), Mode::Authenticated, &files)).await;
    for (service, protocol) in [(Service::Framed, "teleport-tcp-ping"), (Service::Echo, "teleport-tcp")] {
        proxy.set(service);
        let mut client = tunnel.connect().await;
        hear(&mut client, b"hello").await;
        let sent: Vec<u8> = (0..1_000_000_u32).map(|n| u8::try_from(n % 251).unwrap()).collect();
        let (mut from, mut to) = client.split();
        let ((), got) = soon(async {
            tokio::join!(async { to.write_all(&sent).await.unwrap() }, async {
                let mut got = vec![0; sent.len()];
                from.read_exact(&mut got).await.unwrap();
                got
            })
        })
        .await;
        assert!(got == sent, "what comes back is what was sent");
        client.shutdown().await.unwrap();
        assert!(rest(&mut client).await.is_empty());
        assert_eq!(proxy.seen(), seen(protocol, "bot"));
    }
}

#[tokio::test]
async fn a_new_certificate_is_used_at_once_and_open_connections_stay() {
    let proxy = Proxy::start().await;
    let files = Arc::new(Files::default());
    files.put(app_files(&proxy, "first"));
    let tunnel = run(proxy.settings(tcp(), Mode::Authenticated, &files)).await;
    let mut old = tunnel.connect().await;
    old.write_all(b"x").await.unwrap();
    hear(&mut old, b"hellox").await;
    files.put(app_files(&proxy, "second"));
    let mut new = tunnel.connect().await;
    new.write_all(b"y").await.unwrap();
    hear(&mut new, b"helloy").await;
    old.write_all(b"z").await.unwrap();
    hear(&mut old, b"z").await;
    let users: Vec<_> = proxy.seen().into_iter().map(|seen| seen.user).collect();
    assert_eq!(users, ["first", "second"]);
    // A key without its certificate is a writer half done: what worked is used on.
    let [key, ..] = app_files(&proxy, "third");
    files.put([key]);
    let mut third = tunnel.connect().await;
    third.write_all(b"w").await.unwrap();
    hear(&mut third, b"hellow").await;
    assert_eq!(proxy.seen(), seen("teleport-tcp", "second"));
}

#[tokio::test]
async fn the_port_accepts_only_once_the_way_is_usable() {
    let mut proxy = Proxy::start().await;
    let files = Arc::new(Files::default());
    let probe = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let address = probe.local_addr().unwrap();
    drop(probe);
    let settings = Settings { listen: Listen::Tcp(address), ..proxy.settings(tcp(), Mode::Authenticated, &files) };
    let opening = tokio::spawn(Tunnel::open(settings));
    let refused = async || TcpStream::connect(address).await.is_err();
    assert!(refused().await, "no certificate yet");
    proxy.stop().await;
    files.put(app_files(&proxy, "bot"));
    tokio::time::sleep(Duration::from_millis(1500)).await;
    assert!(refused().await && !opening.is_finished(), "no proxy yet");
    proxy.restart().await;
    let tunnel = soon(opening).await.unwrap().unwrap();
    assert_eq!(tunnel.address(), &Listen::Tcp(address));
    TcpStream::connect(address).await.unwrap();
}

/// The proxy lets the bot in, and then has nowhere to lead it: who connects is told so, in a protocol that can.
#[tokio::test]
async fn a_service_that_is_away_keeps_no_port_closed() {
    for service in [Service::Left, Service::Closed] {
        let proxy = Proxy::start().await;
        proxy.set(service);
        let files = Arc::new(Files::default());
        files.put(proxy.certificate("alice", &[(&[2, 1], "example"), (&[2, 2], "mysql")], HOUR));
        let settings = proxy.settings(Target::Database("example".into()), Mode::Authenticated, &files);
        let tunnel = soon(tokio::spawn(run(settings))).await.unwrap();
        let words = rest(&mut tunnel.connect().await).await;
        assert!(String::from_utf8_lossy(&words).contains("tbot: "), "{words:?}");
        proxy.set(Service::Echo);
        hear(&mut tunnel.connect().await, b"hello").await;
    }
}

#[tokio::test]
async fn what_waiting_cannot_mend_is_said_at_once() {
    let proxy = Proxy::start().await;
    let files = Arc::new(Files::default());
    for (put, target, mode, kind, words) in [
        (app_files(&proxy, "bot"), database(), Mode::Authenticated, FailureKind::InvalidConfig, "is for no database"),
        (
            database_files(&proxy, "postgres"),
            tcp(),
            Mode::Authenticated,
            FailureKind::InvalidConfig,
            "app_name: example",
        ),
        (
            database_files(&proxy, "sqlserver"),
            database(),
            Mode::Passthrough,
            FailureKind::Unsupported,
            "use `--tunnel`",
        ),
        (database_files(&proxy, "gopher"), database(), Mode::Authenticated, FailureKind::Unsupported, "`gopher`"),
    ] {
        files.put(put);
        let failure = soon(Tunnel::open(proxy.settings(target, mode, &files))).await.err().unwrap();
        assert!(failure.kind == kind && failure.message.contains(words), "{failure}");
    }
    files.put(app_files(&proxy, "bot"));
    let running = run(proxy.settings(tcp(), Mode::Authenticated, &files)).await;
    let settings = Settings { listen: running.address.clone(), ..proxy.settings(tcp(), Mode::Authenticated, &files) };
    let failure = soon(Tunnel::open(settings)).await.err().unwrap();
    assert!(failure.message.starts_with("cannot listen on 127.0.0.1:"), "{failure}");
}

#[tokio::test]
async fn postgres_hears_of_a_lost_proxy_in_its_own_protocol() {
    let mut proxy = Proxy::start().await;
    let files = Arc::new(Files::default());
    files.put(database_files(&proxy, "postgres"));
    let tunnel = run(proxy.settings(database(), Mode::Authenticated, &files)).await;
    let startup = [0, 0, 0, 17, 0, 3, 0, 0, b'u', b's', b'e', b'r', 0, b'a', 0, 0, 0];
    for lost in [Some(Service::Closed), Some(Service::Left), None] {
        match lost {
            Some(service) => proxy.set(service),
            None => proxy.stop().await,
        }
        let mut client = tunnel.connect().await;
        client.write_all(&SSL_REQUEST).await.unwrap();
        hear(&mut client, b"N").await;
        client.write_all(&startup).await.unwrap();
        let error = String::from_utf8(rest(&mut client).await).unwrap();
        assert!(error.starts_with('E') && error.contains("C08006\0Mtbot: "), "{error:?}");
    }
    proxy.restart().await;
    proxy.set(Service::Echo);
    let mut client = tunnel.connect().await;
    client.write_all(&startup).await.unwrap();
    hear(&mut client, &startup).await;
}

#[tokio::test]
async fn sql_server_and_mongodb_hear_of_a_service_that_left() {
    let proxy = Proxy::start().await;
    let files = Arc::new(Files::default());
    let prelogin = [0x12, 1, 0, 9, 0, 0, 1, 0, 255];
    let question = [[40_u32, 7, 0, 2013].map(u32::to_le_bytes).concat(), vec![0; 24]].concat();
    let login = [0x10, 1, 0, 9, 0, 0, 1, 0, 7];
    for (protocol, first, second) in [("sqlserver", prelogin.as_slice(), login.as_slice()), ("mongodb", &question, &[])]
    {
        files.put(database_files(&proxy, protocol));
        proxy.set(Service::Echo);
        let tunnel = run(proxy.settings(database(), Mode::Authenticated, &files)).await;
        proxy.set(Service::Left);
        let mut client = tunnel.connect().await;
        client.write_all(first).await.unwrap();
        if !second.is_empty() {
            // There is room for words only in what answers the login.
            soon(client.read_exact(&mut [0; 26])).await.unwrap();
            client.write_all(second).await.unwrap();
        }
        let heard: Vec<u8> = rest(&mut client).await.into_iter().filter(|byte| *byte != 0).collect();
        assert!(String::from_utf8_lossy(&heard).contains("tbot: proxy localhost:"), "{protocol}: {heard:?}");
    }
}

#[tokio::test]
async fn clients_with_tls_of_their_own_are_passed_without_the_certificate_but_for_a_cancellation() {
    let proxy = Proxy::start().await;
    let files = Arc::new(Files::default());
    files.put(database_files(&proxy, "postgres"));
    let tunnel = run(proxy.settings(database(), Mode::Passthrough, &files)).await;
    for (sent, user) in [(SSL_REQUEST.as_slice(), ""), (&CANCEL, "alice")] {
        let mut client = tunnel.connect().await;
        client.write_all(sent).await.unwrap();
        hear(&mut client, sent).await;
        assert_eq!(proxy.seen(), seen("teleport-postgres", user));
    }
    // A client that begins with TLS hears of a lost service by an alert.
    files.put(database_files(&proxy, "mongodb"));
    let tunnel = run(proxy.settings(database(), Mode::Passthrough, &files)).await;
    proxy.set(Service::Left);
    let mut client = tunnel.connect().await;
    client.write_all(&[22, 3, 1]).await.unwrap();
    assert_eq!(rest(&mut client).await, [21, 3, 1, 0, 2, 2, 80]);
    proxy.set(Service::Echo);
    // A server that speaks first, and a certificate that has run out: it is not shown here.
    let expired = proxy.certificate("alice", &[(&[2, 1], "example"), (&[2, 2], "mysql")], HOUR);
    files.put(expired);
    let tunnel = run(proxy.settings(database(), Mode::Passthrough, &files)).await;
    files.put(proxy.certificate("alice", &[(&[2, 1], "example"), (&[2, 2], "mysql")], -HOUR));
    let mut client = tunnel.connect().await;
    client.write_all(b"x").await.unwrap();
    hear(&mut client, b"hellox").await;
    assert_eq!(proxy.seen(), seen("teleport-mysql", ""));
}

#[tokio::test]
async fn an_expired_certificate_is_named_and_its_successor_taken() {
    let proxy = Proxy::start().await;
    let files = Arc::new(Files::default());
    let attributes: [(&[u64], &str); 2] = [(&[2, 1], "example"), (&[2, 2], "mysql")];
    files.put(proxy.certificate("alice", &attributes, HOUR));
    let clock = Arc::new(Later::default());
    let credentials = Credentials::new(files.clone(), clock.clone());
    let settings = proxy.settings(database(), Mode::Authenticated, &files);
    let tunnel = run(Settings { credentials, ..settings }).await;
    hear(&mut tunnel.connect().await, b"hello").await;
    clock.0.store(HOUR + 1, Ordering::Relaxed);
    let error = rest(&mut tunnel.connect().await).await;
    assert_eq!(error[4], 0xff, "an error of MySQL");
    let words = String::from_utf8_lossy(&error).into_owned();
    assert!(words.contains("the certificate in directory: /opt/machine-id expired at "), "{words}");
    files.put(proxy.certificate("alice", &attributes, 2 * HOUR));
    hear(&mut tunnel.connect().await, b"hello").await;
}

#[tokio::test]
async fn http_passes_in_both_versions_and_a_login_page_is_explained() {
    let proxy = Proxy::start().await;
    let files = Arc::new(Files::default());
    files.put(app_files(&proxy, "bot"));
    let target = Target::Application("example".into(), Some(Protocol::HTTP));
    let tunnel = run(proxy.settings(target, Mode::Authenticated, &files)).await;
    for (request, protocol) in [("GET / HTTP/1.1\r\n\r\n", "http/1.1"), ("PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", "h2")] {
        let mut client = tunnel.connect().await;
        client.write_all(request.as_bytes()).await.unwrap();
        hear(&mut client, request.as_bytes()).await;
        assert_eq!(proxy.seen(), seen(protocol, "bot"));
    }
    for service in [Service::Login, Service::Closed] {
        proxy.set(service);
        let mut client = tunnel.connect().await;
        client.write_all(b"GET / HTTP/1.1\r\n\r\n").await.unwrap();
        let answer = String::from_utf8(rest(&mut client).await).unwrap();
        assert!(answer.starts_with("HTTP/1.1 502 Bad Gateway\r\n"), "{answer}");
        let explained = answer.contains("the application certificate was refused: ");
        assert_eq!(explained, service == Service::Login, "{answer}");
    }
}

#[tokio::test]
async fn a_kept_http_connection_gives_way_before_its_certificate_expires() {
    let proxy = Proxy::start().await;
    let files = Arc::new(Files::default());
    let http = Target::Application("example".into(), Some(Protocol::HTTP));
    files.put(proxy.certificate("first", &[(&[1, 10], "example")], 61));
    let tunnel = run(proxy.settings(http, Mode::Authenticated, &files)).await;
    // The service says what it hears.
    let events = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n9\r\ndata: 1\n\n\r\n";
    let mut open = tunnel.connect().await;
    open.write_all(events).await.unwrap();
    hear(&mut open, events).await;
    let answer = b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n";
    let mut kept = tunnel.connect().await;
    kept.write_all(answer).await.unwrap();
    hear(&mut kept, answer).await;
    assert!(rest(&mut kept).await.is_empty());
    // It has been silent for longer, but its answer has no end yet.
    open.write_all(b"9\r\ndata: 2\n\n\r\n").await.unwrap();
    hear(&mut open, b"9\r\ndata: 2\n\n\r\n").await;
    files.put(app_files(&proxy, "second"));
    let mut next = tunnel.connect().await;
    next.write_all(b"GET /").await.unwrap();
    hear(&mut next, b"GET /").await;
    let users: Vec<_> = proxy.seen().into_iter().map(|seen| seen.user).collect();
    assert_eq!(users, ["first", "first", "second"]);
}

#[tokio::test]
async fn one_connection_more_than_allowed_waits_for_another_to_end() {
    let proxy = Proxy::start().await;
    let files = Arc::new(Files::default());
    files.put(app_files(&proxy, "bot"));
    let limits = Limits { connections: 2, ..Limits::default() };
    let tunnel = run(Settings { limits, ..proxy.settings(tcp(), Mode::Authenticated, &files) }).await;
    let mut first = tunnel.connect().await;
    let mut second = tunnel.connect().await;
    hear(&mut first, b"hello").await;
    hear(&mut second, b"hello").await;
    let mut third = tunnel.connect().await;
    let waiting = tokio::time::timeout(Duration::from_millis(300), third.read_u8()).await;
    assert!(waiting.is_err(), "it is served before its turn");
    drop(first);
    hear(&mut third, b"hello").await;
    second.write_all(b"x").await.unwrap();
    hear(&mut second, b"x").await;
}

#[tokio::test]
async fn a_silent_connection_ends_after_the_idle_time() {
    let proxy = Proxy::start().await;
    let files = Arc::new(Files::default());
    files.put(app_files(&proxy, "bot"));
    let limits = Limits { idle: Duration::from_millis(400), ..Limits::default() };
    let tunnel = run(Settings { limits, ..proxy.settings(tcp(), Mode::Authenticated, &files) }).await;
    assert_eq!(rest(&mut tunnel.connect().await).await, b"hello");
}

#[tokio::test]
async fn a_socket_in_the_file_system_is_taken_over_from_the_dead_and_removed_at_the_end() {
    let proxy = Proxy::start().await;
    let files = Arc::new(Files::default());
    files.put(app_files(&proxy, "bot"));
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("app.sock");
    drop(std::os::unix::net::UnixListener::bind(&path).unwrap());
    let settings = || {
        let listen = Listen::parse(&format!("unix://{}", path.display())).unwrap();
        Settings { listen, ..proxy.settings(tcp(), Mode::Authenticated, &files) }
    };
    let tunnel = run(settings()).await;
    let mut client = UnixStream::connect(&path).await.unwrap();
    hear(&mut client, b"hello").await;
    let taken = soon(Tunnel::open(settings())).await.err().unwrap();
    assert!(taken.message.contains("another process listens there"), "{taken}");
    let Running { _stop, task, .. } = tunnel;
    drop(_stop);
    soon(task).await.unwrap();
    assert!(!path.exists() && rest(&mut client).await.is_empty(), "the end closes connections and removes the socket");
    std::fs::write(&path, "data").unwrap();
    let refused = soon(Tunnel::open(settings())).await.err().unwrap();
    assert!(refused.message.contains("not a socket"), "{refused}");
}
