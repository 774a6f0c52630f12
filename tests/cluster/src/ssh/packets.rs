//! SSH packets: plain before the first keys (RFC 4253 §6), AES-128-GCM after them (RFC 5647 §7.3 with OpenSSH's framing).

use anyhow::{Context, Result, bail, ensure};
use aws_lc_rs::aead::{AES_128_GCM, Aad, LessSafeKey, Nonce, UnboundKey};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};

/// Every server must take 35,000 bytes (RFC 4253 §6.1); nobody sends more than OpenSSH's limit.
const LONGEST: usize = 256 * 1024;

/// Packets are padded to multiples of this: the block of AES, and more than plain packets need.
const BLOCK: usize = 16;

/// The tag of AES-GCM.
const TAG: usize = 16;

/// The key of one direction and its nonce, which counts packets.
pub(crate) struct Cipher {
    key: LessSafeKey,
    nonce: [u8; 12],
}

impl Cipher {
    pub fn new(key: &[u8], nonce: &[u8]) -> Result<Self> {
        let key = LessSafeKey::new(UnboundKey::new(&AES_128_GCM, key)?);
        Ok(Self { key, nonce: nonce.try_into()? })
    }

    /// The first four bytes stay, the last eight count.
    fn next(&mut self) -> Nonce {
        let now = self.nonce;
        let mut count = [0; 8];
        count.copy_from_slice(&now[4..]);
        self.nonce[4..].copy_from_slice(&u64::from_be_bytes(count).wrapping_add(1).to_be_bytes());
        Nonce::assume_unique_for_key(now)
    }
}

/// Reads packets.
pub(crate) struct Reader<R> {
    inner: R,
    cipher: Option<Cipher>,
}

impl<R: AsyncRead + Unpin> Reader<R> {
    pub fn new(inner: R) -> Self {
        Self { inner, cipher: None }
    }

    pub fn encrypt(&mut self, cipher: Cipher) {
        self.cipher = Some(cipher);
    }

    /// The line before all packets, without its end (RFC 4253 §4.2).
    pub async fn line(&mut self) -> Result<String> {
        let mut line = Vec::new();
        while line.len() < 255 {
            match self.inner.read_u8().await? {
                b'\n' => return Ok(String::from_utf8(line)?.trim_end_matches('\r').to_owned()),
                byte => line.push(byte),
            }
        }
        bail!("the client's first line does not end")
    }

    /// The payload of the next packet that means anything.
    pub async fn next(&mut self) -> Result<Vec<u8>> {
        loop {
            let payload = self.packet().await?;
            match payload.first().context("an empty SSH packet")? {
                // ignore, unimplemented, debug, ext-info
                2..=4 | 7 => {}
                1 => bail!("the client has disconnected"),
                _ => return Ok(payload),
            }
        }
    }

    async fn packet(&mut self) -> Result<Vec<u8>> {
        let mut length = [0; 4];
        self.inner.read_exact(&mut length).await?;
        let size = u32::from_be_bytes(length) as usize;
        ensure!((1..=LONGEST).contains(&size), "an SSH packet of {size} bytes");
        let tag = if self.cipher.is_some() { TAG } else { 0 };
        let mut packet = vec![0; size + tag];
        self.inner.read_exact(&mut packet).await?;
        if let Some(cipher) = &mut self.cipher {
            let nonce = cipher.next();
            cipher
                .key
                .open_in_place(nonce, Aad::from(length), &mut packet)
                .context("an SSH packet was tampered with")?;
        }
        let padding = usize::from(packet[0]);
        let end = size.checked_sub(padding).filter(|end| *end > 1).context("an SSH packet that is all padding")?;
        Ok(packet[1..end].to_vec())
    }
}

/// Writes packets.
pub(crate) struct Writer<W> {
    inner: W,
    cipher: Option<Cipher>,
}

impl<W: AsyncWrite + Unpin> Writer<W> {
    pub fn new(inner: W) -> Self {
        Self { inner, cipher: None }
    }

    pub fn encrypt(&mut self, cipher: Cipher) {
        self.cipher = Some(cipher);
    }

    pub async fn line(&mut self, line: &str) -> Result<()> {
        self.inner.write_all(format!("{line}\r\n").as_bytes()).await?;
        Ok(self.inner.flush().await?)
    }

    pub async fn send(&mut self, payload: &[u8]) -> Result<()> {
        // The length counts towards the block only while it is in the clear.
        let counted = payload.len() + 1 + if self.cipher.is_some() { 0 } else { 4 };
        let padding = match BLOCK - counted % BLOCK {
            short @ 0..4 => short + BLOCK,
            enough => enough,
        };
        let length = ((payload.len() + 1 + padding) as u32).to_be_bytes();
        let mut packet = vec![padding as u8];
        packet.extend(payload);
        packet.resize(packet.len() + padding, 0);
        if let Some(cipher) = &mut self.cipher {
            let nonce = cipher.next();
            cipher.key.seal_in_place_append_tag(nonce, Aad::from(length), &mut packet)?;
        }
        self.inner.write_all(&[&length[..], &packet].concat()).await?;
        Ok(self.inner.flush().await?)
    }
}
