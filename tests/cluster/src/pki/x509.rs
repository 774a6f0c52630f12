//! X.509 certificates with the templates of wire §h.3.

use std::time::{Duration, SystemTime};

use anyhow::Result;
use const_oid::ObjectIdentifier;
use der::{
    Encode, Sequence,
    asn1::{BitString, GeneralizedTime, OctetString, Uint, UtcTime},
};
use sha2::{Digest, Sha256};
use spki::{AlgorithmIdentifierOwned, SubjectPublicKeyInfoOwned};
use x509_cert::{
    ext::Extension,
    time::{Time, Validity},
};

use super::{private_key::PrivateKey, public_key::PublicKey, subject::Name};

/// Certificates are valid from one minute before their making, against clocks that differ.
pub(crate) const BACKDATE: Duration = Duration::from_secs(60);

/// What differs between certificates.
pub(crate) struct Template<'a> {
    pub serial: u128,
    pub subject: Name,
    pub issuer: Name,
    pub key: &'a PublicKey,
    pub not_before: SystemTime,
    pub not_after: SystemTime,
    pub purpose: Purpose<'a>,
}

/// Which extensions a certificate carries.
pub(crate) enum Purpose<'a> {
    /// A self-signed authority.
    Authority,
    /// A leaf with these DNS names and addresses; `issuer` is the authority's key.
    Leaf { issuer: &'a PublicKey, names: &'a [&'a str], addresses: &'a [[u8; 4]] },
    /// A signer of documents, with the place where its issuer's certificate is found.
    DocumentSigner { issuer: &'a PublicKey, issuers_at: &'a str },
}

#[derive(Sequence)]
struct Tbs {
    #[asn1(context_specific = "0", tag_mode = "EXPLICIT")]
    version: u8,
    serial: Uint,
    signature: AlgorithmIdentifierOwned,
    issuer: Name,
    validity: Validity,
    subject: Name,
    key: SubjectPublicKeyInfoOwned,
    #[asn1(context_specific = "3", tag_mode = "EXPLICIT")]
    extensions: Vec<Extension>,
}

#[derive(Sequence)]
struct Signed {
    tbs: Tbs,
    algorithm: AlgorithmIdentifierOwned,
    signature: BitString,
}

/// Signs a certificate and returns its DER.
pub(crate) fn sign(template: Template<'_>, signer: &PrivateKey) -> Result<Vec<u8>> {
    let tbs = Tbs {
        version: 2,
        serial: Uint::new(&template.serial.to_be_bytes())?,
        signature: signer.x509_algorithm()?,
        issuer: template.issuer,
        validity: Validity::new(time(template.not_before)?, time(template.not_after)?),
        subject: template.subject,
        key: template.key.to_spki()?,
        extensions: extensions(&template.purpose, template.key)?,
    };
    let signature = BitString::from_bytes(&signer.sign_x509(&tbs.to_der()?)?)?;
    Ok(Signed { algorithm: tbs.signature.clone(), tbs, signature }.to_der()?)
}

fn extensions(purpose: &Purpose<'_>, key: &PublicKey) -> Result<Vec<Extension>> {
    Ok(match purpose {
        Purpose::Authority => vec![
            extension("2.5.29.15", true, &[0x03, 0x02, 0x01, 0xa6])?,
            extension("2.5.29.19", true, &[0x30, 0x03, 0x01, 0x01, 0xff])?,
            extension("2.5.29.14", false, &octets(0x04, &key_id(key)?))?,
        ],
        Purpose::DocumentSigner { issuer, issuers_at } => {
            // caIssuers (RFC 5280 §4.2.2.1)
            let method = [0x06, 0x08, 0x2b, 0x06, 0x01, 0x05, 0x05, 0x07, 0x30, 0x02];
            let place = [method.to_vec(), octets(0x86, issuers_at.as_bytes())].concat();
            vec![
                extension("2.5.29.15", true, &[0x03, 0x02, 0x07, 0x80])?,
                extension("2.5.29.35", false, &octets(0x30, &octets(0x80, &key_id(issuer)?)))?,
                extension("1.3.6.1.5.5.7.1.1", false, &octets(0x30, &octets(0x30, &place)))?,
            ]
        }
        Purpose::Leaf { issuer, names, addresses } => {
            let mut list = vec![
                extension("2.5.29.15", true, &[0x03, 0x02, 0x05, 0xa0])?,
                extension("2.5.29.37", false, SERVER_AND_CLIENT)?,
                extension("2.5.29.19", true, &[0x30, 0x00])?,
                extension("2.5.29.35", false, &octets(0x30, &octets(0x80, &key_id(issuer)?)))?,
            ];
            let mut alternatives: Vec<u8> = names.iter().flat_map(|name| octets(0x82, name.as_bytes())).collect();
            alternatives.extend(addresses.iter().flat_map(|address| octets(0x87, address)));
            if !alternatives.is_empty() {
                list.push(extension("2.5.29.17", false, &octets(0x30, &alternatives))?);
            }
            list
        }
    })
}

/// The extended key usage every Teleport leaf carries.
const SERVER_AND_CLIENT: &[u8] = &[
    0x30, 0x14, 0x06, 0x08, 0x2b, 0x06, 0x01, 0x05, 0x05, 0x07, 0x03, 0x01, 0x06, 0x08, 0x2b, 0x06, 0x01, 0x05, 0x05,
    0x07, 0x03, 0x02,
];

fn extension(oid: &str, critical: bool, value: &[u8]) -> Result<Extension> {
    let extn_id = ObjectIdentifier::new(oid).map_err(anyhow::Error::msg)?;
    Ok(Extension { extn_id, critical, extn_value: OctetString::new(value)? })
}

/// Tag, length and value of one DER element shorter than 64 KiB.
fn octets(tag: u8, value: &[u8]) -> Vec<u8> {
    let mut der = vec![tag];
    match value.len() {
        length @ 0..128 => der.push(length as u8),
        length @ 128..256 => der.extend([0x81, length as u8]),
        length => der.extend([0x82, (length >> 8) as u8, length as u8]),
    }
    der.extend(value);
    der
}

/// 20 bytes; how they are derived is the issuer's own business (RFC 5280 §4.2.1.2).
fn key_id(key: &PublicKey) -> Result<Vec<u8>> {
    Ok(Sha256::digest(key.to_spki()?.subject_public_key.raw_bytes())[..20].to_vec())
}

fn time(at: SystemTime) -> Result<Time> {
    let whole = SystemTime::UNIX_EPOCH + Duration::from_secs(at.duration_since(SystemTime::UNIX_EPOCH)?.as_secs());
    Ok(match UtcTime::from_system_time(whole) {
        Ok(utc) => Time::UtcTime(utc),
        Err(_) => Time::GeneralTime(GeneralizedTime::from_system_time(whole)?),
    })
}
