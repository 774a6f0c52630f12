//! Where an HTTP/1.1 connection stands, told from its bytes (RFC 9112 §6): between two answers it may end, within one it may not.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

/// No server sends a longer head; behind one that does, nothing is known any more.
const HEAD_BYTES: usize = 64 * 1024;
/// The same for the line that says how long a chunk is, and for a trailer.
const LINE_BYTES: usize = 16 * 1024;

/// Nothing is asked that is not answered to its end.
pub(crate) type AtRest = Arc<AtomicBool>;

/// Follows the answers of one connection.
pub(crate) struct Answers {
    state: State,
    /// `HEAD` is answered without a body, whatever the head says.
    headless: bool,
    at_rest: AtRest,
}

enum State {
    /// Between two answers.
    Rest,
    Head(Vec<u8>),
    /// So many bytes of the body are to come.
    Body(u64),
    /// A line that says how long the next chunk is.
    Size(Vec<u8>),
    /// So many bytes of a chunk and its end are to come.
    Chunk(u64),
    /// Behind the last chunk.
    Trailer(Vec<u8>),
    /// Up to the end of the connection.
    Endless,
    /// Many answers at a time, told apart by frames: who spoke last is all that is known.
    Frames,
}

impl Answers {
    /// Of a connection on which nothing was asked yet; `http2`: the client begins with the preface of HTTP/2.
    pub(crate) fn new(http2: bool) -> Self {
        Self { state: if http2 { State::Frames } else { State::Rest }, headless: false, at_rest: AtRest::default() }
    }

    /// Watched from elsewhere.
    pub(crate) fn at_rest(&self) -> AtRest {
        self.at_rest.clone()
    }

    /// The client said this.
    pub(crate) fn asked(&mut self, bytes: &[u8]) {
        if matches!(self.state, State::Rest) {
            self.headless = bytes.starts_with(b"HEAD ");
            self.state = State::Head(Vec::new());
        }
        self.at_rest.store(false, Ordering::Relaxed);
    }

    /// The service said this.
    pub(crate) fn heard(&mut self, mut bytes: &[u8]) {
        while !bytes.is_empty() {
            bytes = match &mut self.state {
                State::Endless | State::Frames => &[],
                // Asked together with the one before.
                State::Rest => {
                    self.state = State::Head(Vec::new());
                    bytes
                }
                State::Head(head) => match until(head, bytes, b"\r\n\r\n", HEAD_BYTES) {
                    Until::More => &[],
                    Until::Found(rest) => {
                        self.state = body(head, self.headless);
                        rest
                    }
                    Until::TooLong => self.lost(),
                },
                State::Body(left) => {
                    let rest = advance(left, bytes);
                    if *left == 0 {
                        self.state = State::Rest;
                    }
                    rest
                }
                State::Size(line) => match until(line, bytes, b"\r\n", LINE_BYTES) {
                    Until::More => &[],
                    Until::Found(rest) => {
                        let size = String::from_utf8_lossy(line);
                        let size = size.split([';', '\r']).next().unwrap_or_default().trim();
                        self.state = match u64::from_str_radix(size, 16) {
                            Ok(0) => State::Trailer(Vec::new()),
                            // With the end of its line.
                            Ok(size) => State::Chunk(size.saturating_add(2)),
                            Err(_) => State::Endless,
                        };
                        rest
                    }
                    Until::TooLong => self.lost(),
                },
                State::Chunk(left) => {
                    let rest = advance(left, bytes);
                    if *left == 0 {
                        self.state = State::Size(Vec::new());
                    }
                    rest
                }
                State::Trailer(line) => match until(line, bytes, b"\r\n", LINE_BYTES) {
                    Until::More => &[],
                    Until::Found(rest) => {
                        self.state = if line.len() == 2 { State::Rest } else { State::Trailer(Vec::new()) };
                        rest
                    }
                    Until::TooLong => self.lost(),
                },
            };
        }
        self.at_rest.store(matches!(self.state, State::Rest | State::Frames), Ordering::Relaxed);
    }

    fn lost(&mut self) -> &'static [u8] {
        self.state = State::Endless;
        &[]
    }
}

enum Until<'a> {
    More,
    /// And what follows.
    Found(&'a [u8]),
    TooLong,
}

/// Adds to `kept` until it ends with `end`.
fn until<'a>(kept: &mut Vec<u8>, bytes: &'a [u8], end: &[u8], longest: usize) -> Until<'a> {
    for (at, byte) in bytes.iter().enumerate() {
        kept.push(*byte);
        if kept.ends_with(end) {
            return Until::Found(&bytes[at + 1..]);
        }
        if kept.len() > longest {
            return Until::TooLong;
        }
    }
    Until::More
}

/// Passes over as many bytes as are left.
fn advance<'a>(left: &mut u64, bytes: &'a [u8]) -> &'a [u8] {
    let passed = usize::try_from(*left).map_or(bytes.len(), |left| left.min(bytes.len()));
    *left -= passed as u64;
    &bytes[passed..]
}

/// What comes behind a head (RFC 9112 §6.3).
fn body(head: &[u8], headless: bool) -> State {
    let text = String::from_utf8_lossy(head);
    let mut lines = text.split("\r\n");
    let first = lines.next().unwrap_or_default();
    let status: Option<u16> = first.split(' ').nth(1).and_then(|status| status.parse().ok());
    match status.filter(|_| first.starts_with("HTTP/1.")) {
        None | Some(101) => return State::Endless,
        // The answer itself is still to come.
        Some(100..=199) => return State::Head(Vec::new()),
        Some(204 | 304) => return State::Rest,
        Some(_) if headless => return State::Rest,
        Some(_) => {}
    }
    let mut length = None;
    for (name, value) in lines.filter_map(|line| line.split_once(':')) {
        if name.eq_ignore_ascii_case("transfer-encoding") {
            return State::Size(Vec::new());
        }
        if name.eq_ignore_ascii_case("content-length") {
            length = value.trim().parse().ok();
        }
    }
    match length {
        Some(0) => State::Rest,
        Some(length) => State::Body(length),
        None => State::Endless,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_answer_ends_where_it_says() {
        let chunked = "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n";
        for (asked, answer, behind) in [
            ("GET", "HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello", true),
            ("GET", "HTTP/1.1 200 OK\r\nContent-Length: 6\r\n\r\nhello", false),
            ("GET", "HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n", true),
            ("GET", "HTTP/1.1 204 No Content\r\n\r\n", true),
            ("GET", "HTTP/1.1 304 Not Modified\r\nContent-Length: 6\r\n\r\n", true),
            ("HEAD", "HTTP/1.1 200 OK\r\nContent-Length: 6\r\n\r\n", true),
            ("GET", "HTTP/1.1 100 Continue\r\n\r\n", false),
            ("GET", "HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 200 OK\r\ncontent-length:1\r\n\r\n.", true),
            // Up to the end of the connection.
            ("GET", "HTTP/1.1 200 OK\r\n\r\nhello", false),
            ("GET", "HTTP/1.1 101 Switching Protocols\r\n\r\n", false),
            ("GET", "not HTTP\r\n\r\n", false),
            // Events, with either end of a line: silence between them is no end.
            ("GET", &format!("{chunked}9\r\ndata: 1\n\n\r\n"), false),
            ("GET", &format!("{chunked}b\r\ndata: 1\r\n\r\n\r\n"), false),
            ("GET", &format!("{chunked}b;x=y\r\ndata: 1\r\n\r\n\r\n0\r\n\r\n"), true),
            ("GET", &format!("{chunked}0\r\n"), false),
            ("GET", &format!("{chunked}A\r\n0123456789\r\n0\r\nX: y\r\n\r\n"), true),
            ("GET", &format!("{chunked}zz\r\n\r\n0\r\n\r\n"), false),
        ] {
            for piece in [1, 3, 4096] {
                let mut answers = Answers::new(false);
                answers.asked(format!("{asked} / HTTP/1.1\r\n\r\n").as_bytes());
                for piece in answer.as_bytes().chunks(piece) {
                    answers.heard(piece);
                }
                assert_eq!(answers.at_rest().load(Ordering::Relaxed), behind, "{asked} {piece} {answer:?}");
            }
        }
    }

    #[test]
    fn the_next_request_ends_the_rest_and_its_answer_begins_it_anew() {
        let one = b"HTTP/1.1 200 OK\r\nContent-Length: 1\r\n\r\n.";
        let mut answers = Answers::new(false);
        let at_rest = answers.at_rest();
        for _ in 0..2 {
            answers.asked(b"GET / HTTP/1.1\r\n\r\n");
            assert!(!at_rest.load(Ordering::Relaxed));
            answers.heard(one);
            assert!(at_rest.load(Ordering::Relaxed));
        }
        // Two asked at once.
        answers.asked(b"GET / HTTP/1.1\r\n\r\nGET / HTTP/1.1\r\n\r\n");
        answers.heard(&[one.as_slice(), &one[..20]].concat());
        assert!(!at_rest.load(Ordering::Relaxed));
        answers.heard(&one[20..]);
        assert!(at_rest.load(Ordering::Relaxed));
        // A connection that becomes another protocol stays that.
        answers.asked(b"GET / HTTP/1.1\r\nUpgrade: websocket\r\n\r\n");
        answers.heard(b"HTTP/1.1 101 Switching Protocols\r\n\r\n");
        answers.asked(b"\x81\x00");
        answers.heard(one);
        assert!(!at_rest.load(Ordering::Relaxed));
    }

    #[test]
    fn lengths_beyond_all_measure_are_no_end() {
        for head in ["Content-Length: 18446744073709551615", "Transfer-Encoding: chunked\r\n\r\nffffffffffffffff"] {
            let mut answers = Answers::new(false);
            answers.asked(b"GET / HTTP/1.1\r\n\r\n");
            answers.heard(format!("HTTP/1.1 200 OK\r\n{head}\r\n\r\nbody").as_bytes());
            assert!(!answers.at_rest().load(Ordering::Relaxed), "{head}");
        }
        let mut answers = Answers::new(false);
        answers.asked(b"GET / HTTP/1.1\r\n\r\n");
        for _ in 0..100 {
            answers.heard(&[b'x'; 1024]);
        }
        assert!(matches!(answers.state, State::Endless), "what never ends is not kept");
    }
}
