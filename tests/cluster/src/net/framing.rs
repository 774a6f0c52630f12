//! Bytes in frames: the `-ping` protocols (wire §i.1) and WebSocket (wire §i.6), both with keep-alives.

use std::{future::Future, time::Duration};

use anyhow::{Result, bail};
use futures::{SinkExt, StreamExt};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt, DuplexStream, copy, duplex, split},
    time::timeout,
};
use tokio_tungstenite::{
    WebSocketStream,
    tungstenite::{Message, protocol::Role},
};

use super::stream::Stream;

/// How often the server says that it is there.
const KEEP_ALIVE: Duration = Duration::from_secs(30);

/// Length of a frame's own length.
const HEADER: usize = 4;

/// Bytes in flight between the frames and what is inside.
const BUFFER: usize = 64 * 1024;

/// No frame is longer; Go's proxies copy 32 KiB at a time.
const FRAME: usize = 16 * 1024 * 1024;

/// Runs `work` on what is inside `-ping` frames: a length of four bytes, then so many bytes; none is a keep-alive.
pub(crate) async fn pinged<F: Future<Output = Result<()>>>(
    stream: Stream,
    work: impl FnOnce(Stream) -> F,
) -> Result<()> {
    let (mut read, mut write) = split(stream);
    let (inside, outside) = duplex(BUFFER);
    let (mut from_inside, mut to_inside) = split(outside);
    let inbound = async {
        // An end without a frame is how a client leaves.
        while let Ok(length) = read.read_u32().await {
            if length as usize > FRAME {
                bail!("a frame of {length} bytes");
            }
            copy(&mut (&mut read).take(length.into()), &mut to_inside).await?;
        }
        Ok(to_inside.shutdown().await?)
    };
    let outbound = async {
        let mut frame = vec![0; HEADER + BUFFER];
        loop {
            let length = match timeout(KEEP_ALIVE, from_inside.read(&mut frame[HEADER..])).await {
                Ok(Ok(0)) => return Ok(write.shutdown().await?),
                Ok(length) => length?,
                Err(_) => 0,
            };
            frame[..HEADER].copy_from_slice(&(length as u32).to_be_bytes());
            write.write_all(&frame[..HEADER + length]).await?;
            write.flush().await?;
        }
    };
    both(inbound, outbound, work(Box::new(inside))).await
}

/// Runs `work` on what is inside binary WebSocket messages.
pub(crate) async fn in_websocket<F: Future<Output = Result<()>>>(
    stream: Stream,
    pings: bool,
    work: impl FnOnce(Stream) -> F,
) -> Result<()> {
    let (mut sink, mut messages) = WebSocketStream::from_raw_socket(stream, Role::Server, None).await.split();
    let (inside, outside): (DuplexStream, DuplexStream) = duplex(BUFFER);
    let (mut from_inside, mut to_inside) = split(outside);
    let inbound = async {
        while let Some(Ok(message)) = messages.next().await {
            match message {
                Message::Binary(bytes) => to_inside.write_all(&bytes).await?,
                Message::Close(_) => break,
                Message::Text(_) => bail!("a message of text"),
                Message::Ping(_) | Message::Pong(_) | Message::Frame(_) => {}
            }
        }
        Ok(to_inside.shutdown().await?)
    };
    let outbound = async {
        let mut buffer = vec![0; BUFFER];
        loop {
            let message = match timeout(KEEP_ALIVE, from_inside.read(&mut buffer)).await {
                Ok(Ok(0)) => return Ok(sink.close().await?),
                Ok(length) => Message::binary(buffer[..length?].to_vec()),
                Err(_) if pings => Message::Ping(Vec::new().into()),
                Err(_) => continue,
            };
            sink.send(message).await?;
        }
    };
    both(inbound, outbound, work(Box::new(inside))).await
}

/// Until the work is done and everything it said is out.
async fn both(
    inbound: impl Future<Output = Result<()>>,
    outbound: impl Future<Output = Result<()>>,
    work: impl Future<Output = Result<()>>,
) -> Result<()> {
    let carry = async {
        tokio::pin!(outbound);
        tokio::select! {
            result = &mut outbound => return result,
            result = inbound => result?,
        }
        outbound.await
    };
    let (carried, worked) = tokio::join!(carry, work);
    worked.and(carried)
}
