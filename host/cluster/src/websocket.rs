//! A tunnel inside a connection that was upgraded to WebSocket (RFC 6455, wire §i.6).

use std::io;

use base64::Engine;
use base64::engine::general_purpose::STANDARD as BASE64;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, ReadHalf, WriteHalf};
use tokio::sync::mpsc;

use crate::dialer::Stream;

/// What is buffered for a slow reader, and the largest frame sent.
const BUFFER: usize = 32 << 10;
/// The longest payload of a control frame (RFC 6455 §5.5).
const CONTROL: u64 = 125;
/// RFC 6455 §1.3.
const GUID: &str = "258EAFA5-E914-47DA-95CA-C5AB0DC85B11";

/// `Sec-WebSocket-Accept` for a key.
pub(crate) fn accept(key: &str) -> String {
    let digest =
        aws_lc_rs::digest::digest(&aws_lc_rs::digest::SHA1_FOR_LEGACY_USE_ONLY, format!("{key}{GUID}").as_bytes());
    BASE64.encode(digest.as_ref())
}

/// The bytes inside `outer`. What breaks the framing ends the tunnel.
pub(crate) fn tunnel<S: Stream + 'static>(outer: S) -> Box<dyn Stream> {
    let (inner, ours) = tokio::io::duplex(BUFFER);
    let (from_outer, to_outer) = tokio::io::split(outer);
    let (from_inner, to_inner) = tokio::io::split(ours);
    // A reader that gets its control frames answered waits for the writer.
    let (answer, answers) = mpsc::channel(4);
    tokio::spawn(async move {
        tokio::select! {
            _ = unframe(from_outer, to_inner, answer) => {}
            _ = enframe(from_inner, to_outer, answers) => {}
        }
    });
    Box::new(inner)
}

async fn enframe<S: AsyncWrite>(
    mut from: impl AsyncRead + Unpin,
    mut to: WriteHalf<S>,
    mut answers: mpsc::Receiver<Vec<u8>>,
) -> io::Result<()> {
    let mut buffer = vec![0; BUFFER];
    loop {
        let frame = tokio::select! {
            Some(frame) = answers.recv() => frame,
            read = from.read(&mut buffer) => match read? {
                0 => break,
                length => frame(2, &buffer[..length]),
            },
        };
        to.write_all(&frame).await?;
        to.flush().await?;
    }
    to.write_all(&frame(8, &[])).await?;
    to.shutdown().await
}

/// Masked with zeros: some servers do not unmask.
fn frame(opcode: u8, payload: &[u8]) -> Vec<u8> {
    let length = payload.len();
    let mut frame = Vec::with_capacity(length + 14);
    match length {
        0..126 => frame.extend([0x80 | opcode, 0x80 | length as u8]),
        126..0x1_0000 => {
            frame.extend([0x80 | opcode, 0x80 | 126]);
            frame.extend((length as u16).to_be_bytes());
        }
        _ => {
            frame.extend([0x80 | opcode, 0x80 | 127]);
            frame.extend((length as u64).to_be_bytes());
        }
    }
    frame.extend([0; 4]);
    frame.extend(payload);
    frame
}

async fn unframe<S: AsyncRead>(
    mut from: ReadHalf<S>,
    mut to: impl AsyncWrite + Unpin,
    answers: mpsc::Sender<Vec<u8>>,
) -> io::Result<()> {
    let broken = |what: &str| io::Error::new(io::ErrorKind::InvalidData, what.to_owned());
    loop {
        let [first, second] = from.read_u16().await?.to_be_bytes();
        if second & 0x80 != 0 || first & 0x70 != 0 {
            return Err(broken("a masked or reserved frame"));
        }
        let opcode = first & 0x0f;
        let length = match second {
            126 => u64::from(from.read_u16().await?),
            127 => from.read_u64().await?,
            short => u64::from(short),
        };
        match opcode {
            // A message may come in pieces, and a piece of any length: nothing is kept.
            0 | 2 => {
                let copied = tokio::io::copy(&mut (&mut from).take(length), &mut to).await?;
                if copied < length {
                    return Err(io::ErrorKind::UnexpectedEof.into());
                }
                to.flush().await?;
            }
            8 => return Ok(()),
            9 | 10 if length <= CONTROL => {
                let mut payload = vec![0; length as usize];
                from.read_exact(&mut payload).await?;
                if opcode == 9 && answers.send(frame(10, &payload)).await.is_err() {
                    return Ok(());
                }
            }
            _ => return Err(broken("a frame of a kind that is not expected")),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_accept_key_is_that_of_the_standard() {
        assert_eq!(accept("dGhlIHNhbXBsZSBub25jZQ=="), "s3pPLMBiTxaQ9kYGzzhZRbK+xOo=");
    }

    #[tokio::test]
    async fn frames_carry_bytes_both_ways_and_pings_are_answered() {
        let (outer, mut far) = tokio::io::duplex(1 << 20);
        let mut near = tunnel(outer);
        near.write_all(b"hello").await.unwrap();
        let mut seen = [0; 11];
        far.read_exact(&mut seen).await.unwrap();
        assert_eq!(&seen, b"\x82\x85\0\0\0\0hello");
        far.write_all(b"\x89\x02hi\x02\x03abc\x80\x7e\x00\x03def").await.unwrap();
        let mut text = [0; 6];
        near.read_exact(&mut text).await.unwrap();
        assert_eq!(&text, b"abcdef");
        let mut pong = [0; 8];
        far.read_exact(&mut pong).await.unwrap();
        assert_eq!(&pong, b"\x8a\x82\0\0\0\0hi");
        far.write_all(b"\x88\x00").await.unwrap();
        assert_eq!(near.read(&mut text).await.unwrap(), 0);
    }

    #[tokio::test]
    async fn what_breaks_the_framing_ends_the_tunnel_without_memory_for_it() {
        for hostile in [
            &b"\x81\x01x"[..],
            b"\x82\x81\0\0\0\0x",
            b"\xf2\x01x",
            b"\x89\x7f\xff\xff\xff\xff\xff\xff\xff\xff",
            b"\x82\x7f\xff\xff\xff\xff\xff\xff\xff\xff",
        ] {
            let (outer, mut far) = tokio::io::duplex(1 << 20);
            let mut near = tunnel(outer);
            far.write_all(hostile).await.unwrap();
            drop(far);
            assert_eq!(near.read(&mut [0; 8]).await.unwrap(), 0, "{hostile:?}");
        }
    }
}
