//! Bytes both ways: each direction waits for the slower side, ends on its own, and both end when nothing has moved for long.

use std::cell::RefCell;
use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::task::{Context, Poll, ready};
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use crate::answers::AtRest;

/// Read at once, in bytes: with the header of a frame, as much as TLS takes at once.
const BUFFER: usize = 64 * 1024 - 4;
/// How many looks at the traffic make one idle time.
const LOOKS: u32 = 4;
/// Silence behind an answer in which a client that has more to ask would ask.
const PAUSE: Duration = Duration::from_secs(1);

/// When a relay ends, though neither side has.
pub(crate) struct Ends {
    /// Nothing has moved for this time.
    pub(crate) idle: Duration,
    /// The service leaves first and without a word: that is a fault.
    pub(crate) answering: bool,
    /// After this time, at the next pause at rest. HTTP judges each request by the certificate of its connection, and clients keep
    /// connections for as long as they are busy; closed between two requests, they begin another one.
    pub(crate) pause: Option<(Duration, AtRest)>,
}

/// How a relay ended.
#[derive(Debug)]
pub(crate) struct Relayed {
    /// Bytes from the client.
    pub(crate) up: u64,
    /// Bytes to the client.
    pub(crate) down: u64,
    /// What went wrong on the side of the service, where something did.
    pub(crate) fault: Option<io::Error>,
    /// Ended because nothing moved.
    pub(crate) idle: bool,
}

/// Copies until both sides have ended, one has failed, or one of `ends` has come.
pub(crate) async fn relay(
    client: &mut (impl AsyncRead + AsyncWrite + Unpin),
    service: impl AsyncRead + AsyncWrite + Unpin,
    ends: Ends,
) -> Relayed {
    let moved = Arc::<AtomicU64>::default();
    let mut service =
        Meter { inner: service, up: 0, down: 0, moved: moved.clone(), fault: None, answering: ends.answering };
    let still = async {
        let (mut last, mut quiet) = (0, 0);
        while quiet < LOOKS {
            tokio::time::sleep(ends.idle / LOOKS).await;
            let now = moved.load(Ordering::Relaxed);
            quiet = if now == last { quiet + 1 } else { 0 };
            last = now;
        }
    };
    let paused = async {
        let Some((pause, at_rest)) = ends.pause else { return std::future::pending().await };
        tokio::time::sleep(pause).await;
        loop {
            let before = moved.load(Ordering::Relaxed);
            tokio::time::sleep(PAUSE).await;
            if moved.load(Ordering::Relaxed) == before && at_rest.load(Ordering::Relaxed) {
                return;
            }
        }
    };
    let (mut up, mut down) = (Direction::default(), Direction::default());
    let both = std::future::poll_fn(|cx| {
        let up = up.poll(cx, client, &mut service)?;
        let down = down.poll(cx, &mut service, client)?;
        if up.is_ready() && down.is_ready() { Poll::Ready(io::Result::Ok(())) } else { Poll::Pending }
    });
    let idle = tokio::select! {
        // The client's own errors are its own affair, the service's are in the meter.
        _ = both => false,
        () = still => true,
        () = paused => false,
    };
    Relayed { up: service.up, down: service.down, fault: service.fault, idle }
}

thread_local! {
    /// One for all connections of a thread: what is read is written before anything else is read. So an idle connection holds none.
    static BYTES: RefCell<Box<[u8]>> = RefCell::new(vec![0; BUFFER].into());
}

/// Half of a relay.
#[derive(Default)]
struct Direction {
    /// What the writer has not taken yet.
    rest: Vec<u8>,
    /// The writer has bytes to send.
    unsent: bool,
    reader_ended: bool,
    ended: bool,
}

impl Direction {
    fn poll(
        &mut self,
        cx: &mut Context<'_>,
        reader: &mut (impl AsyncRead + Unpin),
        writer: &mut (impl AsyncWrite + Unpin),
    ) -> Poll<io::Result<()>> {
        BYTES.with_borrow_mut(|bytes| {
            while !self.ended {
                let rest = std::mem::take(&mut self.rest);
                if !rest.is_empty() {
                    ready!(self.poll_write(cx, &rest, writer))?;
                } else if self.reader_ended {
                    ready!(Pin::new(&mut *writer).poll_shutdown(cx))?;
                    self.ended = true;
                } else {
                    let mut buf = ReadBuf::new(bytes);
                    match Pin::new(&mut *reader).poll_read(cx, &mut buf)? {
                        Poll::Ready(()) if buf.filled().is_empty() => self.reader_ended = true,
                        Poll::Ready(()) => ready!(self.poll_write(cx, buf.filled(), writer))?,
                        Poll::Pending if self.unsent => {
                            ready!(Pin::new(&mut *writer).poll_flush(cx))?;
                            self.unsent = false;
                            return Poll::Pending;
                        }
                        Poll::Pending => return Poll::Pending,
                    }
                }
            }
            Poll::Ready(Ok(()))
        })
    }

    /// Writes all of it, or keeps what is left.
    fn poll_write(
        &mut self,
        cx: &mut Context<'_>,
        mut bytes: &[u8],
        writer: &mut (impl AsyncWrite + Unpin),
    ) -> Poll<io::Result<()>> {
        self.unsent = true;
        while !bytes.is_empty() {
            match Pin::new(&mut *writer).poll_write(cx, bytes)? {
                Poll::Ready(0) => return Poll::Ready(Err(io::ErrorKind::WriteZero.into())),
                Poll::Ready(n) => bytes = &bytes[n..],
                Poll::Pending => {
                    self.rest = bytes.to_vec();
                    return Poll::Pending;
                }
            }
        }
        Poll::Ready(Ok(()))
    }
}

/// Counts what goes to and comes from the service, and keeps its error.
struct Meter<S> {
    inner: S,
    up: u64,
    down: u64,
    /// Bytes both ways, for the clocks.
    moved: Arc<AtomicU64>,
    fault: Option<io::Error>,
    answering: bool,
}

impl<S> Meter<S> {
    /// Keeps the error, and hands out one of its kind.
    fn keep(&mut self, error: io::Error) -> io::Error {
        let kind = error.kind();
        self.fault.get_or_insert(error);
        kind.into()
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for Meter<S> {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let before = buf.filled().len();
        match ready!(Pin::new(&mut self.inner).poll_read(cx, buf)) {
            Ok(()) if buf.filled().len() > before => {
                let n = buf.filled().len() - before;
                self.down += n as u64;
                self.moved.fetch_add(n as u64, Ordering::Relaxed);
                Poll::Ready(Ok(()))
            }
            Ok(()) if self.down > 0 || !self.answering => Poll::Ready(Ok(())),
            // Many servers close without the farewell of TLS. The protocols inside know their own ends.
            Err(e) if e.kind() == io::ErrorKind::UnexpectedEof && self.down > 0 => Poll::Ready(Ok(())),
            Err(e) if e.kind() != io::ErrorKind::UnexpectedEof => Poll::Ready(Err(self.keep(e))),
            _ => {
                let silent = "the connection was closed without an answer";
                Poll::Ready(Err(self.keep(io::Error::new(io::ErrorKind::ConnectionAborted, silent))))
            }
        }
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Meter<S> {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        match ready!(Pin::new(&mut self.inner).poll_write(cx, buf)) {
            Ok(n) => {
                self.up += n as u64;
                self.moved.fetch_add(n as u64, Ordering::Relaxed);
                Poll::Ready(Ok(n))
            }
            Err(e) => Poll::Ready(Err(self.keep(e))),
        }
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let flushed = ready!(Pin::new(&mut self.inner).poll_flush(cx));
        Poll::Ready(flushed.map_err(|e| self.keep(e)))
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        // Whoever leaves waits for no answer.
        self.answering = false;
        // A service that has closed already cannot be told to.
        let _ = ready!(Pin::new(&mut self.inner).poll_shutdown(cx));
        Poll::Ready(Ok(()))
    }
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt, AsyncWriteExt, DuplexStream, duplex};
    use tokio::task::JoinHandle;

    use super::*;

    const HOUR: Duration = Duration::from_secs(3600);

    /// The two outer ends of a relay, and the relay.
    fn start(buffer: usize, idle: Duration) -> (DuplexStream, DuplexStream, JoinHandle<Relayed>) {
        let (client, mut inner) = duplex(buffer);
        let (service, outer) = duplex(buffer);
        (
            client,
            outer,
            tokio::spawn(async move { relay(&mut inner, service, Ends { idle, answering: false, pause: None }).await }),
        )
    }

    #[tokio::test]
    async fn one_direction_ends_while_the_other_goes_on() {
        let (mut client, mut service, relay) = start(64, HOUR);
        client.write_all(b"question").await.unwrap();
        client.shutdown().await.unwrap();
        let mut question = String::new();
        service.read_to_string(&mut question).await.unwrap();
        assert_eq!(question, "question");
        service.write_all(b"answer").await.unwrap();
        drop(service);
        let mut answer = String::new();
        client.read_to_string(&mut answer).await.unwrap();
        assert_eq!(answer, "answer");
        let done = relay.await.unwrap();
        assert_eq!((done.up, done.down, done.idle, done.fault.is_none()), (8, 6, false, true));
    }

    #[tokio::test]
    async fn a_reader_that_does_not_read_stops_the_writer() {
        let (mut client, mut service, _relay) = start(64, HOUR);
        let written = tokio::spawn(async move {
            let mut written = 0;
            while let Ok(Ok(n)) = tokio::time::timeout(Duration::from_millis(200), client.write(&[7; 64])).await {
                written += n;
            }
            (client, written)
        });
        let (mut client, written) = written.await.unwrap();
        assert!(written <= BUFFER + 4 * 64, "{written} bytes were taken without a reader");
        client.shutdown().await.unwrap();
        let mut got = Vec::new();
        service.read_to_end(&mut got).await.unwrap();
        assert_eq!(got.len(), written, "and nothing is lost");
    }

    #[tokio::test(start_paused = true)]
    async fn an_idle_connection_ends_and_a_busy_one_does_not() {
        let (mut client, mut service, relay) = start(64, HOUR);
        for _ in 0..10 {
            tokio::time::sleep(HOUR / 2).await;
            client.write_all(b"x").await.unwrap();
            service.read_exact(&mut [0]).await.unwrap();
        }
        assert!(!relay.is_finished());
        let done = relay.await.unwrap();
        assert!(done.idle);
        assert_eq!((done.up, done.down), (10, 0));
    }

    #[tokio::test]
    async fn the_services_error_is_kept() {
        struct Broken;
        impl AsyncRead for Broken {
            fn poll_read(self: Pin<&mut Self>, _: &mut Context<'_>, _: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
                Poll::Ready(Err(io::Error::other("no")))
            }
        }
        impl AsyncWrite for Broken {
            fn poll_write(self: Pin<&mut Self>, _: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
                Poll::Ready(Ok(buf.len()))
            }
            fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
                Poll::Ready(Ok(()))
            }
            fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
                Poll::Ready(Ok(()))
            }
        }
        let (mut inner, _client) = duplex(64);
        let done = relay(&mut inner, Broken, Ends { idle: HOUR, answering: false, pause: None }).await;
        assert_eq!(done.fault.map(|e| e.to_string()).as_deref(), Some("no"));
    }

    #[tokio::test]
    async fn only_a_service_that_leaves_first_and_silently_has_failed() {
        for (answering, client_leaves, failed) in [(true, false, true), (true, true, false), (false, false, false)] {
            let ((client, mut inner), (service, outer)) = (duplex(64), duplex(64));
            let relay =
                tokio::spawn(
                    async move { relay(&mut inner, service, Ends { idle: HOUR, answering, pause: None }).await },
                );
            let (first, last) = if client_leaves { (client, outer) } else { (outer, client) };
            drop(first);
            tokio::task::yield_now().await;
            drop(last);
            assert_eq!(relay.await.unwrap().fault.is_some(), failed, "{answering} {client_leaves}");
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_connection_past_its_time_ends_at_rest_and_not_before() {
        let ((client, mut inner), (service, outer)) = (duplex(64), duplex(64));
        let at_rest = AtRest::default();
        let pause = Some((HOUR, at_rest.clone()));
        let relay =
            tokio::spawn(
                async move { relay(&mut inner, service, Ends { idle: HOUR * 24, answering: true, pause }).await },
            );
        tokio::time::sleep(HOUR * 2).await;
        assert!(!relay.is_finished(), "the answer is still to come");
        at_rest.store(true, Ordering::Relaxed);
        assert!(!relay.await.unwrap().idle);
        drop((client, outer));
    }
}
