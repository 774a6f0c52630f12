//! OpenSSH certificates as Teleport signs them (wire §h.4), in the wire format of OpenSSH's PROTOCOL.certkeys.

use std::time::{Duration, SystemTime};

use anyhow::{Context, Result, ensure};
use base64::{Engine, engine::general_purpose::STANDARD};

use super::{
    private_key::PrivateKey,
    public_key::{PublicKey, put_string, take_string},
};

/// Whom an SSH certificate is for.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    User = 1,
    Host = 2,
}

/// What differs between SSH certificates.
pub(crate) struct Template<'a> {
    pub kind: Kind,
    pub key: &'a PublicKey,
    pub key_id: &'a str,
    pub principals: &'a [String],
    pub valid_after: SystemTime,
    pub valid_before: SystemTime,
    /// Name and value; a flag has an empty value.
    pub extensions: Vec<(&'static str, String)>,
}

/// A signed certificate: its type and its wire form.
pub(crate) struct Certificate {
    kind: String,
    pub wire: Vec<u8>,
}

impl Certificate {
    /// The `authorized_keys` form, with a newline.
    pub fn to_line(&self) -> String {
        format!("{} {}\n", self.kind, STANDARD.encode(&self.wire))
    }
}

/// What a certificate that was shown says, once an authority has vouched for it.
pub(crate) struct Shown {
    pub key: PublicKey,
    pub key_id: String,
    pub principals: Vec<String>,
}

/// Reads a certificate's wire form. It must be of this kind, be valid now and be signed by one of these authorities.
pub(crate) fn verify(wire: &[u8], wanted: Kind, authorities: &[PublicKey]) -> Result<Shown> {
    let rest = &mut &wire[..];
    let kind = String::from_utf8(take_string(rest)?.to_vec())?;
    let kind = kind.strip_suffix("-cert-v01@openssh.com").context("the SSH key is not a certificate")?;
    take_string(rest).context("nonce")?;
    let key = PublicKey::from_ssh_fields(kind.as_bytes(), rest)?;
    take_number::<8>(rest).context("serial")?;
    ensure!(u32::from_be_bytes(take_number(rest)?) == wanted as u32, "the SSH certificate is of the wrong kind");
    let key_id = String::from_utf8(take_string(rest)?.to_vec())?;
    let mut names = take_string(rest)?;
    let mut principals = Vec::new();
    while !names.is_empty() {
        principals.push(String::from_utf8(take_string(&mut names)?.to_vec())?);
    }
    let (after, before) = (u64::from_be_bytes(take_number(rest)?), u64::from_be_bytes(take_number(rest)?));
    ensure!((after..before).contains(&seconds(SystemTime::now())), "the SSH certificate is not valid now");
    for _ in ["critical options", "extensions", "reserved"] {
        take_string(rest)?;
    }
    let signer = PublicKey::from_ssh_wire(take_string(rest)?)?;
    ensure!(authorities.contains(&signer), "the SSH certificate is signed by an unknown authority");
    let signed = &wire[..wire.len() - rest.len()];
    signer.verify_ssh(signed, take_string(rest)?)?;
    ensure!(rest.is_empty(), "something follows the SSH certificate");
    Ok(Shown { key, key_id, principals })
}

pub(crate) fn sign(mut template: Template<'_>, signer: &PrivateKey) -> Result<Certificate> {
    let kind = format!("{}-cert-v01@openssh.com", template.key.ssh_type());
    let mut wire = Vec::new();
    put_string(&mut wire, kind.as_bytes());
    put_string(&mut wire, &rand::random::<[u8; 32]>());
    wire.extend(template.key.ssh_fields());
    wire.extend(0_u64.to_be_bytes());
    wire.extend((template.kind as u32).to_be_bytes());
    put_string(&mut wire, template.key_id.as_bytes());
    let mut principals = Vec::new();
    for principal in template.principals {
        put_string(&mut principals, principal.as_bytes());
    }
    put_string(&mut wire, &principals);
    wire.extend(seconds(template.valid_after).to_be_bytes());
    wire.extend(seconds(template.valid_before).to_be_bytes());
    put_string(&mut wire, &[]);
    put_string(&mut wire, &extensions(&mut template.extensions));
    put_string(&mut wire, &[]);
    put_string(&mut wire, &signer.public().to_ssh_wire());
    let signature = signer.sign_ssh(&wire)?;
    put_string(&mut wire, &signature);
    Ok(Certificate { kind, wire })
}

/// Sorted by name, each value wrapped once more, flags empty: what OpenSSH demands.
fn extensions(list: &mut [(&'static str, String)]) -> Vec<u8> {
    list.sort();
    let mut wire = Vec::new();
    for (name, value) in list {
        put_string(&mut wire, name.as_bytes());
        let mut wrapped = Vec::new();
        if !value.is_empty() {
            put_string(&mut wrapped, value.as_bytes());
        }
        put_string(&mut wire, &wrapped);
    }
    wire
}

fn seconds(at: SystemTime) -> u64 {
    at.duration_since(SystemTime::UNIX_EPOCH).unwrap_or(Duration::ZERO).as_secs()
}

fn take_number<const N: usize>(wire: &mut &[u8]) -> Result<[u8; N]> {
    let (number, rest) = wire.split_first_chunk().context("an SSH message is cut short")?;
    *wire = rest;
    Ok(*number)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_signed_verifies_and_nothing_else() {
        for signer in [PrivateKey::rsa(), PrivateKey::p256(), PrivateKey::ed25519()].map(Result::unwrap) {
            let key = PrivateKey::p256().unwrap();
            let (now, principals) = (SystemTime::now(), ["robot".to_owned()]);
            let template = Template {
                kind: Kind::User,
                key: key.public(),
                key_id: "bot",
                principals: &principals,
                valid_after: now - Duration::from_secs(60),
                valid_before: now + Duration::from_secs(60),
                extensions: vec![("permit-pty", String::new())],
            };
            let wire = sign(template, &signer).unwrap().wire;
            let trusted = [signer.public().clone()];
            let shown = verify(&wire, Kind::User, &trusted).unwrap();
            assert_eq!(
                (shown.key_id.as_str(), &shown.principals[..], &shown.key),
                ("bot", &principals[..], key.public())
            );
            assert!(verify(&wire, Kind::Host, &trusted).is_err());
            assert!(verify(&wire, Kind::User, &[key.public().clone()]).is_err());
            for at in (0..wire.len()).step_by(7) {
                let mut changed = wire.clone();
                changed[at] ^= 1;
                assert!(verify(&changed, Kind::User, &trusted).is_err(), "byte {at}");
            }
        }
    }
}
