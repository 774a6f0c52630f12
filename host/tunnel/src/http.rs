//! HTTP applications (wire §i.4): bytes are copied, whatever they are; only how a connection begins is looked at.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, ReadBuf};
use tracing::warn;

use crate::answers::{Answers, AtRest};
use crate::refusal;

/// The head of a redirect is shorter; what is longer passes unread.
const HEAD_BYTES: usize = 16 * 1024;
/// Read at once while a head is looked at.
const CHUNK: usize = 2048;

/// The first bytes of a client, and whether they begin HTTP/2 (gRPC without TLS). `None`: it said nothing and went away.
pub(crate) async fn greet(client: &mut (impl AsyncRead + Unpin)) -> io::Result<Option<(Vec<u8>, bool)>> {
    // The preface of HTTP/2 begins with `PRI`, which is no method (RFC 9113 §3.4).
    const PREFACE: &[u8] = b"PRI";
    let mut bytes = Vec::with_capacity(CHUNK);
    while bytes.len() < PREFACE.len() {
        if client.read_buf(&mut bytes).await? == 0 {
            return Ok((!bytes.is_empty()).then_some((bytes, false)));
        }
    }
    let http2 = bytes.starts_with(PREFACE);
    Ok(Some((bytes, http2)))
}

/// A proxy's answers, each of which may be a redirect to its login page: it means that the certificate was refused, and no program can
/// follow it.
pub(crate) struct LoginWatch<S> {
    inner: S,
    state: State,
    answers: Answers,
}

enum State {
    /// What has come of an answer.
    Head(Vec<u8>),
    /// Bytes to hand out, how many are handed out, and whether anything follows.
    Replay(Vec<u8>, usize, bool),
    /// Until the client asks again.
    Through,
    /// The protocol was changed.
    Other,
}

impl<S> LoginWatch<S> {
    /// `http2`: the answers are in frames, which are not looked into.
    pub(crate) fn new(inner: S, http2: bool) -> Self {
        let state = if http2 { State::Other } else { State::Head(Vec::new()) };
        Self { inner, state, answers: Answers::new(http2) }
    }

    /// Whether the connection may end, at any time.
    pub(crate) fn at_rest(&self) -> AtRest {
        self.answers.at_rest()
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for LoginWatch<S> {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let this = &mut *self;
        loop {
            match &mut this.state {
                State::Through | State::Other => {
                    let before = buf.filled().len();
                    ready!(Pin::new(&mut this.inner).poll_read(cx, buf))?;
                    this.answers.heard(&buf.filled()[before..]);
                    return Poll::Ready(Ok(()));
                }
                State::Replay(bytes, handed, more) => {
                    let part = &bytes[*handed..bytes.len().min(*handed + buf.remaining())];
                    buf.put_slice(part);
                    *handed += part.len();
                    if *handed < bytes.len() || !part.is_empty() || !*more {
                        return Poll::Ready(Ok(()));
                    }
                    this.state = if bytes.starts_with(b"HTTP/1.1 101") { State::Other } else { State::Through };
                }
                State::Head(head) => {
                    let mut chunk = [0; CHUNK];
                    let mut chunk = ReadBuf::new(&mut chunk);
                    ready!(Pin::new(&mut this.inner).poll_read(cx, &mut chunk))?;
                    this.answers.heard(chunk.filled());
                    head.extend_from_slice(chunk.filled());
                    match login_page(head) {
                        None if !chunk.filled().is_empty() => {}
                        Some(Some(location)) => {
                            let message = format!(
                                "the application certificate was refused: the proxy redirects to its login page, {location}; renew the output, and see that the bot's roles allow the application"
                            );
                            warn!(target: "TBOT", "{message}");
                            this.state = State::Replay(refusal::http(&format!("tbot: {message}")), 0, false);
                        }
                        _ => this.state = State::Replay(std::mem::take(head), 0, true),
                    }
                }
            }
        }
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for LoginWatch<S> {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        if matches!(self.state, State::Through) {
            self.state = State::Head(Vec::new());
        }
        let written = ready!(Pin::new(&mut self.inner).poll_write(cx, buf))?;
        self.answers.asked(&buf[..written]);
        Poll::Ready(Ok(written))
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.inner).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.inner).poll_shutdown(cx)
    }
}

/// Where an answer leads, if that is a proxy's login page; the outer `None` asks for more bytes.
fn login_page(head: &[u8]) -> Option<Option<String>> {
    const REDIRECT: &[u8] = b"HTTP/1.1 30";
    let known = head.len().min(REDIRECT.len());
    if head[..known] != REDIRECT[..known] {
        return Some(None);
    }
    let Some(end) = head.windows(4).position(|four| four == b"\r\n\r\n") else {
        return if head.len() < HEAD_BYTES { None } else { Some(None) };
    };
    let text = String::from_utf8_lossy(&head[..end]);
    let location =
        text.lines().filter_map(|line| line.split_once(':')).find(|(name, _)| name.eq_ignore_ascii_case("location"));
    let location = location.map_or("", |(_, value)| value.trim());
    // Absolute or not: what counts is the page.
    let path = location.split_once("://").map_or(location, |(_, rest)| rest.find('/').map_or("", |at| &rest[at..]));
    let login = path.starts_with("/web/launch/") || path.starts_with("/web/login");
    Some(login.then(|| location.to_owned()))
}

#[cfg(test)]
mod tests {
    use tokio::io::AsyncWriteExt;

    use super::*;

    async fn seen(answer: &[u8], piece: usize) -> String {
        let (near, mut far) = tokio::io::duplex(64 * 1024);
        let pieces: Vec<Vec<u8>> = answer.chunks(piece).map(<[u8]>::to_vec).collect();
        tokio::spawn(async move {
            for piece in pieces {
                // The watch may have heard enough.
                let _ = far.write_all(&piece).await;
                tokio::task::yield_now().await;
            }
        });
        let mut got = String::new();
        LoginWatch::new(near, false).read_to_string(&mut got).await.unwrap();
        got
    }

    #[tokio::test]
    async fn a_redirect_to_the_login_page_becomes_an_explanation() {
        for location in [
            "https://proxy.example.com:3080/web/launch/grafana.example.com?path=%2F",
            "https://proxy.example.com/web/login?redirect_uri=x",
            "/web/login",
        ] {
            let answer = format!("HTTP/1.1 302 Found\r\nContent-Type: text/html\r\nlocation: {location}\r\n\r\n<a>");
            for piece in [1, 7, 4096] {
                let seen = seen(answer.as_bytes(), piece).await;
                assert!(seen.starts_with("HTTP/1.1 502 "), "{seen}");
                assert!(
                    seen.contains("the application certificate was refused: ") && seen.contains(location),
                    "{seen}"
                );
            }
        }
    }

    #[tokio::test]
    async fn every_other_answer_passes_unchanged() {
        let long = format!("HTTP/1.1 302 Found\r\nX: {}\r\nLocation: /web/login\r\n\r\n", "x".repeat(HEAD_BYTES));
        for answer in [
            "HTTP/1.1 200 OK\r\nLocation: /web/login\r\n\r\n",
            "HTTP/1.1 302 Found\r\nLocation: https://app.example.com/home\r\n\r\nbody",
            "HTTP/1.1 302 Found\r\nLocation: https://app.example.com\r\n\r\n",
            "HTTP/1.1 101 Switching Protocols\r\n\r\n\u{1}",
            "HTTP/1.1 3",
            "anything",
            "",
            &long,
        ] {
            for piece in [1, 4096] {
                assert_eq!(seen(answer.as_bytes(), piece).await, answer);
            }
        }
    }

    #[tokio::test]
    async fn a_later_answer_is_looked_at_too_but_not_behind_a_change_of_protocol() {
        let redirect = b"HTTP/1.1 302 Found\r\nLocation: /web/login\r\n\r\n";
        for (first, explained) in [("HTTP/1.1 200 OK\r\n\r\n", true), ("HTTP/1.1 101 Switching\r\n\r\n", false)] {
            let (near, mut far) = tokio::io::duplex(1024);
            let mut watch = LoginWatch::new(near, false);
            far.write_all(first.as_bytes()).await.unwrap();
            watch.read_exact(&mut vec![0; first.len()]).await.unwrap();
            // What remains of the answer leaves the state.
            far.write_all(b".").await.unwrap();
            watch.read_exact(&mut [0]).await.unwrap();
            watch.write_all(b"GET /again HTTP/1.1\r\n\r\n").await.unwrap();
            far.write_all(redirect).await.unwrap();
            drop(far);
            let mut got = String::new();
            watch.read_to_string(&mut got).await.unwrap();
            assert_eq!(got.starts_with("HTTP/1.1 502 "), explained, "{got}");
        }
    }

    #[tokio::test]
    async fn http_2_is_known_by_its_preface() {
        for (sent, greeted) in [
            (&b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"[..], Some(true)),
            (b"GET / HTTP/1.1\r\n", Some(false)),
            (b"P", Some(false)),
            (b"", None),
        ] {
            let found = greet(&mut &sent[..]).await.unwrap();
            assert_eq!(found.as_ref().map(|(_, http2)| *http2), greeted);
            assert_eq!(found.map_or(vec![], |(bytes, _)| bytes), sent);
        }
    }
}
