//! Keep-alive frames (wire §i.1): four bytes of length, big-endian, then as many bytes; length 0 only says that the peer lives.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

/// Length of a frame's header in bytes.
const HEADER: usize = 4;
/// The largest frame that is sent, so that header and payload are what TLS takes at once: four full records.
const PAYLOAD: usize = 64 * 1024 - HEADER;

/// A stream whose bytes travel in frames. Frames of any length are read.
pub(crate) struct PingStream<S> {
    inner: S,
    header: [u8; HEADER],
    /// Bytes of `header` that have come.
    seen: usize,
    /// Bytes of the present frame that are still to come.
    remaining: u32,
    frame: Vec<u8>,
    /// Bytes of `frame` that have been written.
    written: usize,
}

impl<S: AsyncRead + AsyncWrite + Unpin> PingStream<S> {
    pub(crate) fn new(inner: S) -> Self {
        Self { inner, header: [0; HEADER], seen: 0, remaining: 0, frame: Vec::new(), written: 0 }
    }

    fn drain(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        while self.written < self.frame.len() {
            let n = ready!(Pin::new(&mut self.inner).poll_write(cx, &self.frame[self.written..]))?;
            if n == 0 {
                return Poll::Ready(Err(io::ErrorKind::WriteZero.into()));
            }
            self.written += n;
        }
        // Nothing is kept for a connection that may be idle from now on.
        self.frame = Vec::new();
        self.written = 0;
        Poll::Ready(Ok(()))
    }
}

impl<S: AsyncRead + AsyncWrite + Unpin> AsyncRead for PingStream<S> {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let this = &mut *self;
        while this.remaining == 0 {
            let mut rest = ReadBuf::new(&mut this.header[this.seen..]);
            ready!(Pin::new(&mut this.inner).poll_read(cx, &mut rest))?;
            match rest.filled().len() {
                0 if this.seen == 0 => return Poll::Ready(Ok(())),
                0 => return Poll::Ready(Err(io::ErrorKind::UnexpectedEof.into())),
                n => this.seen += n,
            }
            if this.seen == HEADER {
                this.seen = 0;
                this.remaining = u32::from_be_bytes(this.header);
            }
        }
        let limit = buf.remaining().min(usize::try_from(this.remaining).unwrap_or(usize::MAX));
        let mut part = ReadBuf::new(buf.initialize_unfilled_to(limit));
        ready!(Pin::new(&mut this.inner).poll_read(cx, &mut part))?;
        let n = part.filled().len();
        if n == 0 && limit > 0 {
            return Poll::Ready(Err(io::ErrorKind::UnexpectedEof.into()));
        }
        this.remaining -= u32::try_from(n).unwrap_or(0);
        buf.advance(n);
        Poll::Ready(Ok(()))
    }
}

impl<S: AsyncRead + AsyncWrite + Unpin> AsyncWrite for PingStream<S> {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        let this = &mut *self;
        ready!(this.drain(cx))?;
        let payload = &buf[..buf.len().min(PAYLOAD)];
        if payload.is_empty() {
            return Poll::Ready(Ok(0));
        }
        let length = u32::try_from(payload.len()).map_err(io::Error::other)?;
        this.frame.reserve_exact(HEADER + payload.len());
        this.frame.extend_from_slice(&length.to_be_bytes());
        this.frame.extend_from_slice(payload);
        // The frame is taken whether or not all of it leaves now: the rest goes with the next write or flush.
        match this.drain(cx) {
            Poll::Ready(Err(e)) => Poll::Ready(Err(e)),
            _ => Poll::Ready(Ok(payload.len())),
        }
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        ready!(self.drain(cx))?;
        Pin::new(&mut self.inner).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        ready!(self.drain(cx))?;
        Pin::new(&mut self.inner).poll_shutdown(cx)
    }
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt, AsyncWriteExt, DuplexStream, duplex};

    use super::*;

    /// A framed end, and the bytes that travel.
    fn pair(buffer: usize) -> (PingStream<DuplexStream>, DuplexStream) {
        let (near, far) = duplex(buffer);
        (PingStream::new(near), far)
    }

    #[tokio::test]
    async fn keep_alives_are_skipped_and_frames_joined_wherever_the_bytes_are_cut() {
        let wire = [&[0; 4], &[0, 0, 0, 3], b"abc".as_slice(), &[0; 8], &[0, 0, 0, 2], b"de", &[0; 4]].concat();
        for cut in 1..wire.len() {
            let (mut framed, mut far) = pair(64);
            let pieces: Vec<Vec<u8>> = wire.chunks(cut).map(<[u8]>::to_vec).collect();
            let sender = tokio::spawn(async move {
                for piece in pieces {
                    far.write_all(&piece).await.unwrap();
                    tokio::task::yield_now().await;
                }
                far.shutdown().await.unwrap();
                far
            });
            let mut got = Vec::new();
            framed.read_to_end(&mut got).await.unwrap();
            assert_eq!(got, b"abcde", "cut at {cut}");
            sender.await.unwrap();
        }
    }

    #[tokio::test]
    async fn an_end_inside_a_frame_is_an_error() {
        for wire in [b"\0\0".as_slice(), b"\0\0\0\x03a", b"\0\0\0\x01"] {
            let (mut framed, mut far) = pair(64);
            far.write_all(wire).await.unwrap();
            far.shutdown().await.unwrap();
            let error = framed.read_to_end(&mut Vec::new()).await.unwrap_err();
            assert_eq!(error.kind(), io::ErrorKind::UnexpectedEof, "{wire:?}");
        }
    }

    #[tokio::test]
    async fn what_one_end_frames_the_other_reads_through_a_narrow_pipe() {
        let (near, far) = duplex(7);
        let (mut near, mut far) = (PingStream::new(near), PingStream::new(far));
        let sent: Vec<u8> = (0..100_000_u32).map(|n| u8::try_from(n % 251).unwrap()).collect();
        let copy = sent.clone();
        let writer = tokio::spawn(async move {
            near.write_all(&copy).await.unwrap();
            near.shutdown().await.unwrap();
            near
        });
        let mut got = Vec::new();
        far.read_to_end(&mut got).await.unwrap();
        assert_eq!(got, sent);
        writer.await.unwrap();
    }
}
