//! PostgreSQL as a proxy and an agent meet it (wire §i.3): what comes before a session, and what becomes of its errors.

use std::{collections::BTreeMap, sync::Arc};

use anyhow::{Context, Result, bail, ensure};
use tokio::io::{AsyncReadExt, AsyncWriteExt, copy_bidirectional};

use super::{
    database::{self, Route},
    stream::Stream,
};
use crate::{api::refusal::Refusal, pki::caller::Caller, state::State};

const PROTOCOL: &str = "teleport-postgres";

/// Codes in place of a protocol version.
const CANCEL: u32 = 80_877_102;
const TLS: u32 = 80_877_103;
const GSS: u32 = 80_877_104;

/// PostgreSQL's own limit for the first packet.
const LONGEST: u32 = 10_000;

/// A request for TLS.
const TLS_REQUEST: [u8; 8] = [0, 0, 0, 8, 0x04, 0xd2, 0x16, 0x2f];

/// Serves one client; without a certificate it must ask for TLS and bring one there.
pub(super) async fn serve(state: &Arc<State>, mut stream: Stream, mut caller: Option<Caller>) -> Result<()> {
    let (mut asked_tls, mut asked_gss) = (false, false);
    loop {
        let (code, body) = first_packet(&mut stream).await?;
        match code {
            GSS if !asked_gss => {
                asked_gss = true;
                stream.write_all(b"N").await?;
            }
            TLS if !asked_tls => {
                asked_tls = true;
                if caller.is_some() {
                    stream.write_all(b"N").await?;
                } else {
                    stream.write_all(b"S").await?;
                    let (inside, brought) = database::inside(state, stream).await?;
                    (stream, caller) = (inside, Some(brought));
                }
            }
            TLS | GSS => bail!("the client asks again"),
            code => {
                let caller = caller.context("no client certificate")?;
                let session = match database::admit(state, &caller, PROTOCOL).await {
                    Ok(route) => begin(state, &route, code, &body).await,
                    Err(Refusal::Cut) => bail!("the connection is cut"),
                    Err(refusal) => Err(refusal.into()),
                };
                return match session {
                    Ok(Some(mut database)) => {
                        copy_bidirectional(&mut stream, &mut database).await?;
                        Ok(())
                    }
                    Ok(None) => Ok(()),
                    Err(error) => {
                        stream.write_all(&error_response(&format!("{error:#}"))).await?;
                        Ok(stream.shutdown().await?)
                    }
                };
            }
        }
    }
}

/// Connects as this user; a server is asked for TLS first.
async fn connect(state: &State, route: &Route, user: &str) -> Result<Stream> {
    let mut stream = route.dial().await?;
    stream.write_all(&TLS_REQUEST).await?;
    ensure!(stream.read_u8().await? == b'S', "the database does not speak TLS");
    route.encrypt(state, user, stream).await
}

/// Length, code and the rest of a packet without a type.
async fn first_packet(stream: &mut Stream) -> Result<(u32, Vec<u8>)> {
    let length = stream.read_u32().await?;
    ensure!((8..=LONGEST).contains(&length), "a first packet of {length} bytes");
    let code = stream.read_u32().await?;
    let mut body = vec![0; length as usize - 8];
    stream.read_exact(&mut body).await?;
    Ok((code, body))
}

/// Opens the session, or passes a cancellation on.
async fn begin(state: &State, route: &Route, code: u32, body: &[u8]) -> Result<Option<Stream>> {
    if code == CANCEL {
        let user = if route.grant.user.is_empty() { "postgres" } else { &route.grant.user };
        let mut database = connect(state, route, user).await?;
        database.write_all(&packet(code, body)).await?;
        database.shutdown().await?;
        return Ok(None);
    }
    ensure!(code >> 16 == 3, "protocol {}.{} is not supported", code >> 16, code & 0xffff);
    let mut parameters = parameters(body)?;
    // What the certificate names is not the client's to choose.
    for (name, granted) in [("user", &route.grant.user), ("database", &route.grant.name)] {
        if !granted.is_empty() {
            parameters.insert(name, granted);
        }
    }
    let user = parameters.get("user").copied().unwrap_or_default();
    let mut database = connect(state, route, user).await?;
    let pairs = parameters.iter().flat_map(|(name, value)| [name.as_bytes(), b"\0", value.as_bytes(), b"\0"]);
    let body = [&pairs.collect::<Vec<_>>().concat()[..], b"\0"].concat();
    database.write_all(&packet(code, &body)).await?;
    Ok(Some(database))
}

/// Names and values, each ended by a zero, and one more at the end.
fn parameters(body: &[u8]) -> Result<BTreeMap<&str, &str>> {
    let text = std::str::from_utf8(body).context("the start-up packet is not text")?;
    let text = text.strip_suffix("\0\0").context("the start-up packet does not end")?;
    let parts: Vec<&str> = text.split('\0').collect();
    ensure!(parts.len().is_multiple_of(2), "a parameter without a value");
    Ok(parts.chunks(2).map(|pair| (pair[0], pair[1])).collect())
}

fn packet(code: u32, body: &[u8]) -> Vec<u8> {
    [&(body.len() as u32 + 8).to_be_bytes()[..], &code.to_be_bytes(), body].concat()
}

/// Fatal, and of the class of refused authorisations.
fn error_response(message: &str) -> Vec<u8> {
    let fields = format!("SFATAL\0VFATAL\0C28000\0M{message}\0\0");
    [b"E", &(fields.len() as u32 + 4).to_be_bytes()[..], fields.as_bytes()].concat()
}
