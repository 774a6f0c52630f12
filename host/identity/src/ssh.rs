use base64::Engine;
use base64::engine::general_purpose::STANDARD as BASE64;

use crate::{CertificateError, Timestamp};

/// An OpenSSH certificate, parsed as far as the agent cares (PROTOCOL.certkeys). Its signature is checked by whoever it is shown to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SshCertificate {
    /// The line as it came, with its newline.
    pub line: String,
    /// Who it names.
    pub principals: Vec<String>,
    /// Not valid before.
    pub after: Timestamp,
    /// Not valid from then on.
    pub before: Timestamp,
    /// SSH wire form of the certified public key.
    pub public_key: Vec<u8>,
}

impl SshCertificate {
    /// Reads one authorized_keys line that holds a certificate.
    ///
    /// # Errors
    /// [`CertificateError::Ssh`] where it is none, or names no principal (wire §e.3).
    pub fn parse(line: &str) -> Result<Self, CertificateError> {
        Self::read(line).ok_or(CertificateError::Ssh)
    }

    /// Is it valid at `now`?
    ///
    /// # Errors
    /// [`CertificateError::Time`].
    pub fn verify_time(&self, now: Timestamp) -> Result<(), CertificateError> {
        let (after, before) = (self.after, self.before);
        match (after..before).contains(&now) {
            true => Ok(()),
            false => Err(CertificateError::Time { after, before, now }),
        }
    }

    fn read(line: &str) -> Option<Self> {
        let mut words = line.split_ascii_whitespace();
        let kind = words.next()?.strip_suffix("-cert-v01@openssh.com")?;
        let blob = BASE64.decode(words.next()?).ok()?;
        let mut input = blob.as_slice();
        if take(&mut input)? != words_type(kind).as_bytes() {
            return None;
        }
        take(&mut input)?;
        let mut public_key = Vec::new();
        append(&mut public_key, kind.as_bytes());
        let fields = match kind {
            "ssh-rsa" | "ecdsa-sha2-nistp256" => 2,
            "ssh-ed25519" => 1,
            _ => return None,
        };
        for _ in 0..fields {
            append(&mut public_key, take(&mut input)?);
        }
        number(&mut input, 8)?;
        number(&mut input, 4)?;
        take(&mut input)?;
        let mut list = take(&mut input)?;
        let mut principals = Vec::new();
        while !list.is_empty() {
            principals.push(String::from_utf8(take(&mut list)?.to_vec()).ok()?);
        }
        let after = Timestamp(i64::try_from(number(&mut input, 8)?).ok()?);
        let before = Timestamp(i64::try_from(number(&mut input, 8)?).unwrap_or(i64::MAX));
        if principals.iter().all(String::is_empty) {
            return None;
        }
        Some(Self { line: format!("{}\n", line.trim_end()), principals, after, before, public_key })
    }
}

fn words_type(kind: &str) -> String {
    format!("{kind}-cert-v01@openssh.com")
}

fn take<'a>(input: &mut &'a [u8]) -> Option<&'a [u8]> {
    let length = usize::try_from(number(input, 4)?).ok()?;
    let (head, tail) = input.split_at_checked(length)?;
    *input = tail;
    Some(head)
}

fn number(input: &mut &[u8], bytes: usize) -> Option<u64> {
    let (head, tail) = input.split_at_checked(bytes)?;
    *input = tail;
    Some(head.iter().fold(0, |sum, &byte| sum << 8 | u64::from(byte)))
}

fn append(out: &mut Vec<u8>, bytes: &[u8]) {
    out.extend_from_slice(&u32::try_from(bytes.len()).unwrap_or(u32::MAX).to_be_bytes());
    out.extend_from_slice(bytes);
}
