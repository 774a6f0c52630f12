//! OpenSSH certificates as Teleport signs them (wire §h.4), in the wire format of OpenSSH's PROTOCOL.certkeys.

use std::time::{Duration, SystemTime};

use anyhow::Result;
use base64::{Engine, engine::general_purpose::STANDARD};

use super::{
    private_key::PrivateKey,
    public_key::{PublicKey, put_string},
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
