//! The channel that becomes a pipe to auth (RFC 4254 §5; its type and request: wire §f.2.B).

use std::sync::Arc;

use anyhow::{Context, Result, ensure};
use serde::Deserialize;
use tokio::{
    io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt},
    net::{TcpStream, tcp},
    sync::{Semaphore, mpsc},
    task::JoinSet,
};

use super::packets::{Reader, Writer};
use crate::{
    net::admission,
    pki::public_key::{put_string, take_string},
    state::State,
};

/// What clients may send before they hear of it being taken: OpenSSH's window.
const WINDOW: u32 = 2 * 1024 * 1024;

/// Data per packet, either way (RFC 4253 §6.1).
const PACKET: u32 = 32 * 1024;

/// Packets waiting to be written.
const WAITING: usize = 16;

/// The only channel we have, so its number is always this.
const CHANNEL: [u8; 4] = [0; 4];

const TRANSPORT: &[u8] = b"teleport-transport";
const DIAL: &[u8] = b"teleport-transport-dial";

/// Where a bot may be taken.
const AUTH: &str = "@remote-auth-server";

mod message {
    pub const GLOBAL_REQUEST: u8 = 80;
    pub const REQUEST_FAILURE: u8 = 82;
    pub const OPEN: u8 = 90;
    pub const OPEN_CONFIRMATION: u8 = 91;
    pub const OPEN_FAILURE: u8 = 92;
    pub const WINDOW_ADJUST: u8 = 93;
    pub const DATA: u8 = 94;
    pub const EXTENDED_DATA: u8 = 95;
    pub const EOF: u8 = 96;
    pub const CLOSE: u8 = 97;
    pub const REQUEST: u8 = 98;
    pub const SUCCESS: u8 = 99;
    pub const FAILURE: u8 = 100;
}

/// Why a channel is not opened (RFC 4254 §5.1).
#[derive(Clone, Copy)]
enum OpenFailure {
    UnknownType = 3,
    ResourceShortage = 4,
}

#[derive(Deserialize)]
struct Dial {
    address: String,
}

/// Serves an authenticated client: `user` is for the log.
pub(super) async fn serve<R: AsyncRead + Unpin, W: AsyncWrite + Unpin>(
    state: &Arc<State>,
    user: &str,
    mut reader: Reader<R>,
    mut writer: Writer<W>,
) -> Result<()> {
    let (outbox, mut waiting) = mpsc::channel::<Vec<u8>>(WAITING);
    let write = async {
        while let Some(payload) = waiting.recv().await {
            writer.send(&payload).await?;
        }
        Ok(())
    };
    let read = async {
        let mut channel = None;
        loop {
            let payload = reader.next().await?;
            on_message(state, user, &payload, &mut channel, &outbox).await?;
        }
    };
    tokio::select! {
        result = write => result,
        result = read => result,
    }
}

struct Channel {
    /// The client's number for it.
    recipient: [u8; 4],
    /// Bytes the client takes at the moment.
    window: Arc<Semaphore>,
    packet: u32,
    upstream: Option<tcp::OwnedWriteHalf>,
    /// Brings auth's bytes to the client; ends with the channel.
    pump: JoinSet<Result<()>>,
}

async fn on_message(
    state: &Arc<State>,
    user: &str,
    payload: &[u8],
    channel: &mut Option<Channel>,
    outbox: &mpsc::Sender<Vec<u8>>,
) -> Result<()> {
    let (kind, mut fields) = payload.split_first().context("an empty SSH message")?;
    let fields = &mut fields;
    match (*kind, channel.as_mut()) {
        (message::GLOBAL_REQUEST, _) => {
            take_string(fields)?;
            if fields.first() == Some(&1) {
                outbox.send(vec![message::REQUEST_FAILURE]).await?;
            }
        }
        (message::OPEN, open) => {
            let name = take_string(fields)?;
            let [recipient, window, packet] = [take_u32(fields)?, take_u32(fields)?, take_u32(fields)?];
            let failure = match (name, open) {
                (TRANSPORT, None) => None,
                (TRANSPORT, Some(_)) => Some(OpenFailure::ResourceShortage),
                _ => Some(OpenFailure::UnknownType),
            };
            if let Some(reason) = failure {
                let mut reply = numbered(message::OPEN_FAILURE, recipient.to_be_bytes());
                reply.extend((reason as u32).to_be_bytes());
                put_string(&mut reply, b"the channel is not opened");
                put_string(&mut reply, b"");
                outbox.send(reply).await?;
                return Ok(());
            }
            let mut reply = numbered(message::OPEN_CONFIRMATION, recipient.to_be_bytes());
            reply.extend([CHANNEL, WINDOW.to_be_bytes(), PACKET.to_be_bytes()].concat());
            outbox.send(reply).await?;
            *channel = Some(Channel {
                recipient: recipient.to_be_bytes(),
                window: Arc::new(Semaphore::new(window as usize)),
                packet: packet.clamp(1, PACKET),
                upstream: None,
                pump: JoinSet::new(),
            });
        }
        (message::REQUEST, Some(open)) => {
            ensure!(take_u32(fields)? == 0, "a channel that is not open");
            let name = take_string(fields)?;
            let (wants_reply, body) = fields.split_first().context("an SSH message is cut short")?;
            let done = if name == DIAL { open.dial(state, user, body, outbox).await } else { Ok(false) };
            if let Err(error) = &done {
                // Said on the standard error stream, then refused.
                let mut said = numbered(message::EXTENDED_DATA, open.recipient);
                said.extend(1_u32.to_be_bytes());
                put_string(&mut said, format!("{error:#}").as_bytes());
                outbox.send(said).await?;
            }
            if *wants_reply == 1 {
                let kind = if matches!(done, Ok(true)) { message::SUCCESS } else { message::FAILURE };
                outbox.send(numbered(kind, open.recipient)).await?;
            }
        }
        (message::DATA, Some(open)) => {
            ensure!(take_u32(fields)? == 0, "a channel that is not open");
            let data = take_string(fields)?;
            open.upstream.as_mut().context("data before a dial")?.write_all(data).await?;
            let mut taken = numbered(message::WINDOW_ADJUST, open.recipient);
            taken.extend((data.len() as u32).to_be_bytes());
            outbox.send(taken).await?;
        }
        (message::WINDOW_ADJUST, Some(open)) => {
            ensure!(take_u32(fields)? == 0, "a channel that is not open");
            let more = take_u32(fields)? as usize;
            ensure!(open.window.available_permits() + more <= u32::MAX as usize, "the window is too large");
            open.window.add_permits(more);
        }
        (message::EOF, Some(open)) => {
            // Ends the half towards auth.
            open.upstream = None;
        }
        (message::CLOSE, Some(open)) => {
            outbox.send(numbered(message::CLOSE, open.recipient)).await?;
            *channel = None;
        }
        (other, _) => anyhow::bail!("SSH message {other} is not expected here"),
    }
    Ok(())
}

impl Channel {
    /// Connects to auth. False when the client asks for something else.
    async fn dial(
        &mut self,
        state: &Arc<State>,
        user: &str,
        body: &[u8],
        outbox: &mpsc::Sender<Vec<u8>>,
    ) -> Result<bool> {
        let dial: Dial = serde_json::from_slice(body).context("reading the request to dial")?;
        ensure!(dial.address == AUTH, "`{}` is not reachable through this proxy", dial.address);
        admission::admit(state, "teleport-transport-dial", user).await?;
        let auth = state.ports.get().context("the auth port is not open")?.auth;
        let upstream = TcpStream::connect(auth).await?;
        upstream.set_nodelay(true)?;
        let (read, write) = upstream.into_split();
        self.upstream = Some(write);
        self.pump.spawn(pump(read, self.recipient, self.packet, self.window.clone(), outbox.clone()));
        Ok(true)
    }
}

async fn pump(
    mut upstream: tcp::OwnedReadHalf,
    recipient: [u8; 4],
    packet: u32,
    window: Arc<Semaphore>,
    outbox: mpsc::Sender<Vec<u8>>,
) -> Result<()> {
    let mut buffer = vec![0; packet as usize];
    loop {
        // As much as the client takes, but at least one byte: waits while it takes none.
        let mut granted = window.acquire().await?;
        let more = window.available_permits().min(buffer.len() - 1);
        if let Ok(rest) = window.try_acquire_many(more as u32) {
            granted.merge(rest);
        }
        let length = upstream.read(&mut buffer[..granted.num_permits()]).await?;
        granted.split(length).context("more than granted")?.forget();
        if length == 0 {
            outbox.send(numbered(message::EOF, recipient)).await?;
            outbox.send(numbered(message::CLOSE, recipient)).await?;
            return Ok(());
        }
        let mut data = numbered(message::DATA, recipient);
        put_string(&mut data, &buffer[..length]);
        outbox.send(data).await?;
    }
}

/// A message for the client's end of a channel.
fn numbered(kind: u8, recipient: [u8; 4]) -> Vec<u8> {
    [&[kind][..], &recipient].concat()
}

fn take_u32(wire: &mut &[u8]) -> Result<u32> {
    let (number, rest) = wire.split_first_chunk().context("an SSH message is cut short")?;
    *wire = rest;
    Ok(u32::from_be_bytes(*number))
}
