//! Requests that guests make, and what hostile guests and hostile servers try with them.

mod guest;

use std::fmt::Write as _;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use guest::{MEMORY, join};
use identity::{Attempt, Failure, FailureKind, JoinMethod, JoinProof};
use sandbox::{Engine, Grants, JoinPlugin, Kind, Rights};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

/// The guest sends this request `times` times and hands the last body on as its token, the first error as it is.
async fn send(
    grants: &[&str],
    method: &str,
    url: &str,
    headers: &[(&str, &str)],
    body: &str,
    times: usize,
) -> Result<String, Failure> {
    let import = r#"(import "tbot:host/http@0.1.0" "send" (func $send (param i32 i32 i32 i32 i32 i32 i32 i32 i32)))"#;
    let (mut data, mut at) = (String::new(), 2048);
    let mut put = |text: &[u8]| {
        let escaped = text.iter().fold(String::new(), |mut out, byte| {
            let _ = write!(out, "\\{byte:02x}");
            out
        });
        let _ = write!(data, "(data (i32.const {at}) \"{escaped}\")");
        at += text.len();
        (at - text.len(), text.len())
    };
    let (method, url, body) = (put(method.as_bytes()), put(url.as_bytes()), put(body.as_bytes()));
    let mut list = Vec::new();
    for (name, value) in headers {
        for (pointer, length) in [put(name.as_bytes()), put(value.as_bytes())] {
            list.extend([pointer, length].map(|number| u32::try_from(number).unwrap().to_le_bytes()).concat());
        }
    }
    let _ = write!(
        data,
        "(data (i32.const 1024) \"{}\")",
        list.iter().fold(String::new(), |mut out, byte| {
            let _ = write!(out, "\\{byte:02x}");
            out
        })
    );
    let prove = format!(
        "(local $left i32) (local.set $left (i32.const {times}))
         (loop $again
           (call $send (i32.const {}) (i32.const {}) (i32.const {}) (i32.const {}) (i32.const 1024) (i32.const {})
             (i32.const {}) (i32.const {}) (i32.const 512))
           (if (i32.load8_u (i32.const 512)) (then (return (i32.const 512))))
           (br_if $again (local.tee $left (i32.sub (local.get $left) (i32.const 1)))))
         (i32.store8 (i32.const 644) (i32.const 1))
         (i32.store (i32.const 648) (i32.load (i32.const 528)))
         (i32.store (i32.const 652) (i32.load (i32.const 532)))
         (i32.const 640)",
        method.0,
        method.1,
        url.0,
        url.1,
        headers.len(),
        body.0,
        body.1
    );
    let http = grants.iter().map(ToString::to_string).collect();
    prove_with(&format!("{import} {MEMORY} {data}"), &prove, Rights { http, ..Rights::default() }).await
}

async fn prove_with(head: &str, prove: &str, asks: Rights) -> Result<String, Failure> {
    let engine = Engine::new().unwrap();
    let code = engine.compile(&join(head, prove)).unwrap();
    let grants = Grants { asks, operator: None };
    let plugin = JoinPlugin::new(engine.load_own_code("curious", Kind::Join, &code, grants).unwrap()).await.unwrap();
    match plugin.prove("{}", Attempt { token_name: String::new(), challenge: None }).await? {
        JoinProof::IdToken(text) => Ok(text),
        _ => panic!("the guest says an id token or an error"),
    }
}

async fn get(grant: &str, url: &str) -> Result<String, Failure> {
    send(&[grant], "GET", url, &[], "", 1).await
}

/// A server on this machine; `answer` gets what the first read brought. Counts connections.
async fn server<F: Future<Output = ()> + Send>(
    answer: impl Fn(TcpStream, String) -> F + Send + Sync + 'static,
) -> (String, Arc<AtomicUsize>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}/", listener.local_addr().unwrap());
    let connections = Arc::new(AtomicUsize::new(0));
    let (counter, answer) = (connections.clone(), Arc::new(answer));
    tokio::spawn(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            counter.fetch_add(1, Ordering::Relaxed);
            let answer = answer.clone();
            tokio::spawn(async move {
                let mut request = vec![0; 16 << 10];
                let read = stream.read(&mut request).await.unwrap_or(0);
                answer(stream, String::from_utf8_lossy(&request[..read]).into_owned()).await;
            });
        }
    });
    (url, connections)
}

async fn says(text: &'static str) -> (String, Arc<AtomicUsize>) {
    server(move |mut stream, _| async move { drop(stream.write_all(text.as_bytes()).await) }).await
}

/// The whole request comes back as the body of the answer.
async fn echo() -> (String, Arc<AtomicUsize>) {
    server(|mut stream, request| async move {
        let answer = format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n{request}", request.len());
        drop(stream.write_all(answer.as_bytes()).await);
    })
    .await
}

#[tokio::test]
async fn what_is_granted_is_sent_as_it_was_asked_for() {
    let (url, _) = echo().await;
    let (grant, asked) = (format!("POST {url}a/"), format!("{url}a/b?c=d%20e"));
    let sent = send(&[&grant], "POST", &asked, &[("Metadata", "True"), ("X-Two", "2")], "hello", 1).await.unwrap();
    assert!(sent.starts_with("POST /a/b?c=d%20e HTTP/1.1\r\n"), "{sent}");
    for line in ["metadata: True", "x-two: 2", "content-length: 5", &format!("host: {}", &url[7..url.len() - 1])] {
        assert_eq!(sent.matches(&format!("{line}\r\n")).count(), 1, "{line} in {sent}");
    }
    assert!(sent.ends_with("\r\n\r\nhello"), "{sent}");
}

#[tokio::test]
async fn what_is_not_granted_is_refused_with_the_line_to_add_and_never_sent() {
    let (url, connections) = echo().await;
    let grant = format!("{url}metadata/");
    for (method, path, line) in [
        ("GET", "metadata/../secret?key=hunter2", "secret"),
        ("GET", "metadata/%2e%2e/secret", "secret"),
        ("PUT", "metadata/x", "metadata/x"),
    ] {
        let refused = send(&[&grant], method, &format!("{url}{path}"), &[], "", 1).await.unwrap_err();
        assert_eq!(refused.kind, FailureKind::Denied);
        let line = if method == "GET" { format!("{url}{line}") } else { format!("{method} {url}{line}") };
        assert!(refused.message.ends_with(&format!("add `{line}` to `http` of the plugin's manifest")), "{refused}");
    }
    for wrong in [
        url.replace("http://", "http://user:hunter2@") + "metadata/",
        format!("{url}metadata/#x"),
        format!("{url}metadata/..%2fsecret"),
        "http://".into(),
        "gopher://127.0.0.1/metadata/".into(),
    ] {
        let refused = get(&grant, &wrong).await.unwrap_err();
        assert_eq!(refused.kind, FailureKind::Denied, "{wrong}");
        assert!(!refused.message.contains("hunter2"), "{refused}");
    }
    assert_eq!(connections.load(Ordering::Relaxed), 0);
}

#[tokio::test]
async fn headers_cannot_change_where_a_request_goes_or_ends() {
    let (url, connections) = echo().await;
    for (name, value) in [
        ("Host", "metadata.example"),
        ("X-One", "1\r\nHost: metadata.example"),
        ("X-One\r\nHost", "metadata.example"),
        ("X One", "1"),
        ("X-One", "1\0"),
        ("", "1"),
        ("Content-Length", "0"),
        ("Transfer-Encoding", "chunked"),
        ("Connection", "Upgrade"),
        ("Proxy-Authorization", "Basic x"),
    ] {
        let refused = send(&[&url], "GET", &url, &[(name, value)], "", 1).await.unwrap_err();
        assert_eq!(refused.kind, FailureKind::Denied, "{name:?}: {value:?}");
        assert!(refused.message.contains("header"), "{refused}");
    }
    let long = "x".repeat(9 << 10);
    let many = [("X-A", long.as_str()); 8];
    let refused = send(&[&url], "GET", &url, &many, "", 1).await.unwrap_err();
    assert!(refused.message.contains("headers of a request have at most 65536 bytes"), "{refused}");
    let refused = send(&[&format!("POST {url}")], "POST", &url, &[], &"x".repeat((64 << 10) + 1), 1).await.unwrap_err();
    assert!(refused.message.contains("body of a request has at most 65536 bytes"), "{refused}");
    assert_eq!(connections.load(Ordering::Relaxed), 0);
}

#[tokio::test]
async fn an_address_next_door_is_reached_by_its_own_name_only() {
    let (url, connections) = says("HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok").await;
    let port = url[..url.len() - 1].rsplit(':').next().unwrap();
    assert_eq!(get(&url, &format!("http://2130706433:{port}/")).await.unwrap(), "ok");
    assert_eq!(get(&format!("http://localhost:{port}/"), &format!("http://localhost:{port}/")).await.unwrap(), "ok");
    for other in ["127.0.0.2", "[::ffff:127.0.0.1]", "0.0.0.0", "localhost"] {
        let refused = get(&url, &format!("http://{other}:{port}/")).await.unwrap_err();
        assert!(refused.message.contains("is not asked for"), "{other}: {refused}");
    }
    assert_eq!(connections.load(Ordering::Relaxed), 2);
}

#[tokio::test]
async fn a_redirect_is_an_answer_and_nothing_else() {
    let (metadata, asked) = says("HTTP/1.1 200 OK\r\nContent-Length: 6\r\n\r\nsecret").await;
    let (url, _) = server(move |mut stream, _| {
        let metadata = metadata.clone();
        async move {
            let answer = format!("HTTP/1.1 302 Found\r\nLocation: {metadata}\r\nContent-Length: 4\r\n\r\nover");
            drop(stream.write_all(answer.as_bytes()).await);
        }
    })
    .await;
    assert_eq!(get(&url, &url).await.unwrap(), "over");
    assert_eq!(asked.load(Ordering::Relaxed), 0);
}

#[tokio::test]
async fn an_answer_without_end_is_cut_off() {
    async fn flood(mut stream: TcpStream, head: &str, more: String) {
        let _ = stream.write_all(head.as_bytes()).await;
        while stream.write_all(more.as_bytes()).await.is_ok() {}
    }
    let (body, _) = server(|stream, _| flood(stream, "HTTP/1.1 200 OK\r\n\r\n", "x".repeat(4096))).await;
    let (chunks, _) = server(|stream, _| {
        flood(
            stream,
            "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n",
            format!("400\r\n{}\r\n", "x".repeat(1024)),
        )
    })
    .await;
    for url in [body, chunks] {
        let refused = get(&url, &url).await.unwrap_err();
        assert_eq!(refused.kind, FailureKind::Unavailable);
        assert!(refused.message.ends_with("answered more than 65536 bytes"), "{refused}");
    }
    let (headers, _) =
        server(|stream, _| flood(stream, "HTTP/1.1 200 OK\r\n", "X-More: xxxxxxxx\r\n".repeat(100))).await;
    assert_eq!(get(&headers, &headers).await.unwrap_err().kind, FailureKind::Unavailable);
    for nonsense in ["SSH-2.0-OpenSSH_9.2\r\n", "HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nshort", "", "\0\0\0"] {
        let (url, _) = says(nonsense).await;
        assert_eq!(get(&url, &url).await.unwrap_err().kind, FailureKind::Unavailable, "{nonsense:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_that_drips_ends_with_the_request_and_one_that_keeps_silent_with_the_call() {
    let (drips, _) = server(|mut stream, _| async move {
        let _ = stream.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 60000\r\n\r\n").await;
        while stream.write_all(b"x").await.is_ok() {
            tokio::time::sleep(std::time::Duration::from_millis(200)).await;
        }
    })
    .await;
    let (silent, asked) = server(|stream, _| async move {
        tokio::time::sleep(std::time::Duration::from_secs(60)).await;
        drop(stream);
    })
    .await;
    // The guest catches the first error and asks again, until the call is over.
    let stubborn = r#"(import "tbot:host/http@0.1.0" "send" (func $send (param i32 i32 i32 i32 i32 i32 i32 i32 i32)))"#;
    let head = format!(r#"{stubborn} {MEMORY} (data (i32.const 1024) "GET{silent}")"#);
    let again = format!(
        "(loop $again (call $send (i32.const 1024) (i32.const 3) (i32.const 1027) (i32.const {}) (i32.const 0) (i32.const 0)
            (i32.const 0) (i32.const 0) (i32.const 512)) (br $again)) (unreachable)",
        silent.len()
    );
    let asks = Rights { http: [silent.clone()].into(), ..Rights::default() };
    let (dripped, over) = tokio::join!(get(&drips, &drips), prove_with(&head, &again, asks));
    let dripped = dripped.unwrap_err();
    assert!(dripped.message.ends_with("no whole answer within 5 s"), "{dripped}");
    let over = over.unwrap_err();
    assert!(over.message.contains("did not finish `prove` within 10 s"), "{over}");
    assert!((1..=3).contains(&asked.load(Ordering::Relaxed)));
}

#[tokio::test]
async fn a_call_has_eight_requests() {
    let (url, connections) = says("HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok").await;
    assert_eq!(send(&[&url], "GET", &url, &[], "", 8).await.unwrap(), "ok");
    let refused = send(&[&url], "GET", &url, &[], "", 9).await.unwrap_err();
    assert!(refused.message.contains("at most 8 requests"), "{refused}");
    assert_eq!(connections.load(Ordering::Relaxed), 16);
}

/// Time is tokio's own here, and runs on by itself while everything waits.
#[tokio::test(start_paused = true)]
async fn waiting_counts_as_well() {
    let head = format!(r#"(import "tbot:host/clock@0.1.0" "wait" (func $wait (param i32))) {MEMORY}"#);
    let over = prove_with(&head, "(call $wait (i32.const 60000)) (unreachable)", Rights::default()).await.unwrap_err();
    assert!(over.message.contains("did not finish `prove` within 10 s"), "{over}");
}
