//! Key exchange (RFC 4253 §7, §8; RFC 8731) and authentication by certificate (RFC 4252 §7).

use anyhow::{Context, Result, bail, ensure};
use aws_lc_rs::agreement::{PrivateKey as Secret, UnparsedPublicKey, X25519, agree};
use sha2::{Digest, Sha256};
use tokio::io::{AsyncRead, AsyncWrite};

use super::packets::{Cipher, Reader, Writer};
use crate::pki::{
    private_key::PrivateKey,
    public_key::{PublicKey, put_string, take_string},
};

/// Clients tell a Teleport server by its beginning.
const VERSION: &str = "SSH-2.0-Teleport";

const KEY_EXCHANGE: &str = "curve25519-sha256";
/// The same under its older name.
const KEY_EXCHANGE_OLD: &str = "curve25519-sha256@libssh.org";
const HOST_KEY: &str = "ssh-ed25519-cert-v01@openssh.com";
const CIPHER: &str = "aes128-gcm@openssh.com";
/// The cipher makes it needless, but some clients insist on agreeing.
const MAC: &str = "hmac-sha2-256";
/// Without it, clients fall back to SHA-1 for RSA keys (RFC 8308 §3.1).
const SIGNATURES: &str = "rsa-sha2-512,rsa-sha2-256,ecdsa-sha2-nistp256,ssh-ed25519";

/// Attempts to authenticate before the client is sent away, as OpenSSH counts.
const ATTEMPTS: usize = 20;

mod message {
    pub const SERVICE_REQUEST: u8 = 5;
    pub const SERVICE_ACCEPT: u8 = 6;
    pub const EXT_INFO: u8 = 7;
    pub const KEXINIT: u8 = 20;
    pub const NEWKEYS: u8 = 21;
    pub const KEX_ECDH_INIT: u8 = 30;
    pub const KEX_ECDH_REPLY: u8 = 31;
    pub const USERAUTH_REQUEST: u8 = 50;
    pub const USERAUTH_FAILURE: u8 = 51;
    pub const USERAUTH_SUCCESS: u8 = 52;
    pub const USERAUTH_PK_OK: u8 = 60;
}

/// Agrees on keys; the last value identifies the session in signatures.
pub(super) async fn exchange_keys<R: AsyncRead + Unpin, W: AsyncWrite + Unpin>(
    read: R,
    write: W,
    host_key: &PrivateKey,
    certificate: &[u8],
) -> Result<(Reader<R>, Writer<W>, Vec<u8>)> {
    let (mut reader, mut writer) = (Reader::new(read), Writer::new(write));
    writer.line(VERSION).await?;
    let client_version = reader.line().await?;
    ensure!(client_version.starts_with("SSH-2.0-"), "`{client_version}` is not SSH 2");
    let ours = kexinit();
    writer.send(&ours).await?;
    let theirs = reader.next().await?;
    let wants_extensions = agree_on_algorithms(&theirs)?;

    let init = reader.next().await?;
    let mut fields = init.strip_prefix(&[message::KEX_ECDH_INIT]).context("not the begin of a key exchange")?;
    let client_public = take_string(&mut fields)?;
    let secret = Secret::generate(&X25519)?;
    let public = secret.compute_public_key()?;
    let peer = UnparsedPublicKey::new(&X25519, client_public);
    let shared = agree(&secret, peer, anyhow::anyhow!("the client's key is no point"), |shared| Ok(mpint(shared)))?;
    let mut hashed = Vec::new();
    let versions = [client_version.as_bytes(), VERSION.as_bytes()];
    for part in versions.into_iter().chain([&theirs[..], &ours, certificate, client_public, public.as_ref()]) {
        put_string(&mut hashed, part);
    }
    hashed.extend(&shared);
    let session = Sha256::digest(&hashed).to_vec();
    let mut reply = vec![message::KEX_ECDH_REPLY];
    for part in [certificate, public.as_ref(), &host_key.sign_ssh(&session)?] {
        put_string(&mut reply, part);
    }
    writer.send(&reply).await?;
    writer.send(&[message::NEWKEYS]).await?;
    let derive = |letter: u8| Sha256::digest([&shared[..], &session, &[letter], &session].concat()).to_vec();
    writer.encrypt(Cipher::new(&derive(b'D')[..16], &derive(b'B')[..12])?);
    ensure!(reader.next().await? == [message::NEWKEYS], "the client does not take the new keys");
    reader.encrypt(Cipher::new(&derive(b'C')[..16], &derive(b'A')[..12])?);
    if wants_extensions {
        let mut info = vec![message::EXT_INFO, 0, 0, 0, 1];
        put_string(&mut info, b"server-sig-algs");
        put_string(&mut info, SIGNATURES.as_bytes());
        writer.send(&info).await?;
    }
    Ok((reader, writer, session))
}

/// Lets the client in once `admit` has taken its user name and certificate (wire form), and the key that `admit` found in
/// there has signed the session. Returns what `admit` calls the client.
pub(super) async fn authenticate<R: AsyncRead + Unpin, W: AsyncWrite + Unpin>(
    reader: &mut Reader<R>,
    writer: &mut Writer<W>,
    session: &[u8],
    admit: impl Fn(&str, &[u8]) -> Result<(String, PublicKey)>,
) -> Result<String> {
    let request = reader.next().await?;
    let mut service = request.strip_prefix(&[message::SERVICE_REQUEST]).context("not a request for a service")?;
    ensure!(take_string(&mut service)? == b"ssh-userauth", "the client asks for another service");
    let mut accept = vec![message::SERVICE_ACCEPT];
    put_string(&mut accept, b"ssh-userauth");
    writer.send(&accept).await?;
    let mut last = None;
    for _ in 0..ATTEMPTS {
        let request = reader.next().await?;
        match attempt(&request, session, &admit) {
            Ok(Attempt::Admitted(name)) => {
                writer.send(&[message::USERAUTH_SUCCESS]).await?;
                return Ok(name);
            }
            Ok(Attempt::WouldDo(reply)) => writer.send(&reply).await?,
            Err(error) => {
                last = Some(error);
                let mut failure = vec![message::USERAUTH_FAILURE];
                put_string(&mut failure, b"publickey");
                failure.push(0);
                writer.send(&failure).await?;
            }
        }
    }
    bail!("too many attempts, the last: {:#}", last.context("none was wrong")?)
}

enum Attempt {
    Admitted(String),
    /// The key is good, but the client has only asked: the answer.
    WouldDo(Vec<u8>),
}

fn attempt(
    request: &[u8],
    session: &[u8],
    admit: impl Fn(&str, &[u8]) -> Result<(String, PublicKey)>,
) -> Result<Attempt> {
    let mut fields = request.strip_prefix(&[message::USERAUTH_REQUEST]).context("not a request to authenticate")?;
    let fields = &mut fields;
    let user = std::str::from_utf8(take_string(fields)?)?;
    ensure!(take_string(fields)? == b"ssh-connection", "the client asks for another service");
    ensure!(take_string(fields)? == b"publickey", "only keys authenticate");
    let (signed, rest) = fields.split_first().context("the request is cut short")?;
    *fields = rest;
    let algorithm = take_string(fields)?;
    let certificate = take_string(fields)?;
    let (name, key) = admit(user, certificate)?;
    if *signed == 0 {
        let mut reply = vec![message::USERAUTH_PK_OK];
        put_string(&mut reply, algorithm);
        put_string(&mut reply, certificate);
        return Ok(Attempt::WouldDo(reply));
    }
    let mut message = Vec::new();
    put_string(&mut message, session);
    message.extend(&request[..request.len() - fields.len()]);
    key.verify_ssh(&message, take_string(fields)?)?;
    Ok(Attempt::Admitted(name))
}

fn kexinit() -> Vec<u8> {
    let mut wire = vec![message::KEXINIT];
    wire.extend(rand::random::<[u8; 16]>());
    let exchanges = format!("{KEY_EXCHANGE},{KEY_EXCHANGE_OLD}");
    for list in [&exchanges, HOST_KEY, CIPHER, CIPHER, MAC, MAC, "none", "none", "", ""] {
        put_string(&mut wire, list.as_bytes());
    }
    wire.extend([0; 5]);
    wire
}

/// Our suite must be among the client's, and no guessed packet may follow. Returns whether it wants to know extensions.
fn agree_on_algorithms(kexinit: &[u8]) -> Result<bool> {
    let mut fields = kexinit.strip_prefix(&[message::KEXINIT]).context("not the begin of a key exchange")?;
    fields = fields.get(16..).context("the client's offer is cut short")?;
    let mut lists = Vec::new();
    for _ in 0..10 {
        lists.push(std::str::from_utf8(take_string(&mut fields)?)?.split(',').collect::<Vec<_>>());
    }
    let offers = |list: usize, name: &str| lists[list].contains(&name);
    ensure!(offers(0, KEY_EXCHANGE) || offers(0, KEY_EXCHANGE_OLD), "the client does not offer `{KEY_EXCHANGE}`");
    for (list, name) in [(1, HOST_KEY), (2, CIPHER), (3, CIPHER), (6, "none"), (7, "none")] {
        ensure!(offers(list, name), "the client does not offer `{name}`");
    }
    ensure!(fields.first() == Some(&0), "the client has guessed the key exchange");
    Ok(offers(0, "ext-info-c"))
}

/// A number as SSH hashes it (RFC 4251 §5).
fn mpint(number: &[u8]) -> Vec<u8> {
    let digits: Vec<u8> = number.iter().copied().skip_while(|byte| *byte == 0).collect();
    let sign = digits.first().is_some_and(|byte| byte & 0x80 != 0);
    let mut wire = Vec::new();
    put_string(&mut wire, &sign.then_some(0).into_iter().chain(digits).collect::<Vec<u8>>());
    wire
}
