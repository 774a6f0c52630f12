//! MySQL as a proxy meets it (wire §i.2): the server speaks first, TLS is asked for in the middle, and what the certificate names
//! takes the place of what the client says.

use std::sync::Arc;

use anyhow::{Context, Result, bail, ensure};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, copy_bidirectional};

use super::{
    database::{self, Route},
    stream::Stream,
};
use crate::{api::refusal::Refusal, pki::caller::Caller, state::State};

const PROTOCOL: &str = "teleport-mysql";

/// The newest handshake there is.
const VERSION: u8 = 10;
const CONNECT_WITH_DATABASE: u32 = 1 << 3;
const TLS: u32 = 1 << 11;
/// What both sides can rely on: long passwords and flags, a database, protocol 4.1, transactions, secure authentication,
/// several statements and results, authentication by plugin.
const CAPABILITIES: u32 = 0x1 | 0x4 | CONNECT_WITH_DATABASE | 0x200 | 0x2000 | 0x8000 | 0x1_0000 | 0x2_0000 | 0x8_0000;
/// utf8mb4_general_ci.
const CHARACTERS: u8 = 45;
const AUTOCOMMIT: u16 = 2;
const PLUGIN: &[u8] = b"mysql_native_password\0";
/// Capabilities, the longest packet, characters and what is reserved.
const RESPONSE_HEAD: usize = 32;
/// Bytes of a packet's length, and of the largest one before a session.
const LONGEST: u32 = 64 * 1024;
const OK: u8 = 0x00;
const SWITCH: u8 = 0xfe;
const ERROR: u8 = 0xff;

/// Serves one client; without a certificate it must ask for TLS and bring one there.
pub(super) async fn serve(state: &Arc<State>, mut stream: Stream, mut caller: Option<Caller>) -> Result<()> {
    let capabilities = CAPABILITIES | if caller.is_none() { TLS } else { 0 };
    write(&mut stream, 0, &greeting(capabilities)).await?;
    let (mut number, mut body) = read(&mut stream).await?;
    if let (None, RESPONSE_HEAD) = (&caller, body.len()) {
        let (inside, brought) = database::inside(state, stream).await?;
        (stream, caller) = (inside, Some(brought));
        (number, body) = read(&mut stream).await?;
    }
    let caller = caller.context("no client certificate")?;
    let session = match database::admit(state, &caller, PROTOCOL).await {
        Ok(route) => begin(state, &route, &Login::read(&body)?).await,
        Err(Refusal::Cut) => bail!("the connection is cut"),
        Err(refusal) => Err(refusal.into()),
    };
    match session {
        Ok((mut database, answer)) => {
            write(&mut stream, number.wrapping_add(1), &answer).await?;
            copy_bidirectional(&mut stream, &mut database).await?;
        }
        Err(error) => {
            write(&mut stream, number.wrapping_add(1), &error_packet(&format!("{error:#}"))).await?;
            stream.shutdown().await?;
        }
    }
    Ok(())
}

/// What a client answers to a greeting.
struct Login<'a> {
    capabilities: u32,
    user: &'a str,
    database: &'a str,
}

impl<'a> Login<'a> {
    fn read(body: &'a [u8]) -> Result<Self> {
        let (head, rest) = body.split_at_checked(RESPONSE_HEAD).context("a short answer to the greeting")?;
        let capabilities = u32::from_le_bytes([head[0], head[1], head[2], head[3]]);
        let (user, rest) = text(rest)?;
        let (length, rest) = rest.split_first().context("an answer without a password")?;
        let rest = rest.get(usize::from(*length)..).context("a short password")?;
        let database = if capabilities & CONNECT_WITH_DATABASE == 0 { "" } else { text(rest)?.0 };
        Ok(Self { capabilities, user, database })
    }
}

/// Logs in to the database with the certificate of its user; returns its last word, which is for the client.
async fn begin(state: &State, route: &Route, login: &Login<'_>) -> Result<(Stream, Vec<u8>)> {
    let granted = |own: &str, given: &str| if own.is_empty() { given.to_owned() } else { own.to_owned() };
    let (user, name) = (granted(&route.grant.user, login.user), granted(&route.grant.name, login.database));
    let mut plain = route.dial().await?;
    let (_, greeting) = read(&mut plain).await?;
    match greeting.first() {
        Some(&VERSION) => {}
        Some(&ERROR) => bail!("{}", String::from_utf8_lossy(greeting.get(3..).unwrap_or_default())),
        _ => bail!("the database does not speak MySQL"),
    }
    let with_database = if name.is_empty() { 0 } else { CONNECT_WITH_DATABASE };
    let capabilities = login.capabilities & CAPABILITIES & !CONNECT_WITH_DATABASE | with_database | TLS;
    let head = [&capabilities.to_le_bytes()[..], &u32::MAX.to_le_bytes(), &[CHARACTERS], &[0; 23]].concat();
    write(&mut plain, 1, &head).await?;
    let mut database = route.encrypt(state, &user, plain).await?;
    // No password: the certificate is the proof.
    let names = [user.as_bytes(), b"\0\0", name.as_bytes(), if name.is_empty() { b"" } else { b"\0" }, PLUGIN].concat();
    write(&mut database, 2, &[head, names].concat()).await?;
    let (mut number, mut answer) = read(&mut database).await?;
    if answer.first() == Some(&SWITCH) {
        write(&mut database, number.wrapping_add(1), b"").await?;
        (number, answer) = read(&mut database).await?;
    }
    match answer.first() {
        Some(&OK) => Ok((database, answer)),
        Some(&ERROR) => bail!("{}", String::from_utf8_lossy(answer.get(9..).unwrap_or_default())),
        _ => bail!("an unknown answer, packet {number}"),
    }
}

fn greeting(capabilities: u32) -> Vec<u8> {
    let [low0, low1, high0, high1] = capabilities.to_le_bytes();
    // Whatever the client makes of it is not looked at.
    const SALT: &[u8; 20] = b"stand-in-of-a-salt-.";
    let mut body = vec![VERSION];
    body.extend(b"8.0.0-Teleport\0");
    body.extend(1_u32.to_le_bytes());
    body.extend(&SALT[..8]);
    body.extend([0, low0, low1, CHARACTERS]);
    body.extend(AUTOCOMMIT.to_le_bytes());
    body.extend([high0, high1, SALT.len() as u8 + 1]);
    body.extend([0; 10]);
    body.extend(&SALT[8..]);
    body.push(0);
    body.extend(PLUGIN);
    body
}

/// Unknown error, general state.
fn error_packet(message: &str) -> Vec<u8> {
    [&[ERROR], &1105_u16.to_le_bytes()[..], b"#HY000", message.as_bytes()].concat()
}

/// A text that ends with a zero, and what follows.
fn text(bytes: &[u8]) -> Result<(&str, &[u8])> {
    let end = bytes.iter().position(|byte| *byte == 0).context("a text without an end")?;
    Ok((std::str::from_utf8(&bytes[..end])?, &bytes[end + 1..]))
}

/// A packet's number and what is in it.
async fn read(stream: &mut (impl AsyncRead + Unpin)) -> Result<(u8, Vec<u8>)> {
    let head = stream.read_u32_le().await?;
    let length = head & 0x00ff_ffff;
    ensure!(length <= LONGEST, "a packet of {length} bytes before the session");
    let mut body = vec![0; length as usize];
    stream.read_exact(&mut body).await?;
    Ok(((head >> 24) as u8, body))
}

async fn write(stream: &mut (impl AsyncWrite + Unpin), number: u8, body: &[u8]) -> Result<()> {
    let head = body.len() as u32 | u32::from(number) << 24;
    stream.write_all(&[&head.to_le_bytes()[..], body].concat()).await?;
    Ok(stream.flush().await?)
}
