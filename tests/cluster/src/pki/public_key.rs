//! Public keys of clients and authorities, in every form they travel in (wire §e.1).

use anyhow::{Context, Result, bail, ensure};
use aws_lc_rs::signature::{
    ECDSA_P256_SHA256_ASN1, ECDSA_P256_SHA256_FIXED, ED25519 as ED25519_SIGNATURE, RSA_PKCS1_2048_8192_SHA256,
    RSA_PKCS1_2048_8192_SHA512, UnparsedPublicKey, VerificationAlgorithm,
};
use base64::{Engine, engine::general_purpose::STANDARD};
use const_oid::ObjectIdentifier;
use der::{
    Any, Decode, Encode, Sequence,
    asn1::{BitString, Null, Uint},
};
use spki::{AlgorithmIdentifierOwned, SubjectPublicKeyInfoOwned};

const RSA: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.2.840.113549.1.1.1");
const EC: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.2.840.10045.2.1");
const P256: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.2.840.10045.3.1.7");
const ED25519: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.3.101.112");

/// A public key, free of its encoding.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum PublicKey {
    /// Big-endian numbers without leading zeros.
    Rsa { modulus: Vec<u8>, exponent: Vec<u8> },
    /// The uncompressed point, 65 bytes.
    P256(Vec<u8>),
    /// 32 bytes.
    Ed25519(Vec<u8>),
}

#[derive(Sequence)]
struct Pkcs1 {
    modulus: Uint,
    exponent: Uint,
}

impl PublicKey {
    /// PKIX or PKCS#1, whatever the label says: the original labels PKIX as `RSA PUBLIC KEY` and the reverse.
    pub fn from_pem(pem: &[u8]) -> Result<Self> {
        let text = std::str::from_utf8(pem).context("the public key is not text")?;
        let body: String = text.lines().filter(|line| !line.starts_with("-----")).map(str::trim).collect();
        Self::from_der(&STANDARD.decode(body).context("the public key is not PEM")?)
    }

    /// PKIX first, then PKCS#1.
    pub fn from_der(der: &[u8]) -> Result<Self> {
        if let Ok(info) = SubjectPublicKeyInfoOwned::from_der(der) {
            return Self::from_spki(&info);
        }
        Self::from_pkcs1(der)
    }

    /// One `authorized_keys` line; a comment is ignored.
    pub fn from_authorized_line(line: &[u8]) -> Result<Self> {
        let text = std::str::from_utf8(line).context("the SSH public key is not text")?;
        let body = text.split_whitespace().nth(1).context("the SSH public key has no body")?;
        Self::from_ssh_wire(&STANDARD.decode(body).context("the SSH public key is not base64")?)
    }

    /// RFC 4253 §6.6, RFC 5656 §3.1, RFC 8709 §4.
    pub fn from_ssh_wire(mut wire: &[u8]) -> Result<Self> {
        let kind = take_string(&mut wire)?;
        Self::from_ssh_fields(kind, &mut wire)
    }

    /// What follows the type, in a key and in a certificate; leaves what comes after.
    pub fn from_ssh_fields(kind: &[u8], wire: &mut &[u8]) -> Result<Self> {
        Ok(match kind {
            b"ssh-rsa" => {
                let exponent = unsigned(take_string(wire)?);
                Self::Rsa { modulus: unsigned(take_string(wire)?), exponent }
            }
            b"ecdsa-sha2-nistp256" => {
                ensure!(take_string(wire)? == b"nistp256", "the SSH key names another curve");
                Self::P256(take_string(wire)?.to_vec())
            }
            b"ssh-ed25519" => Self::Ed25519(take_string(wire)?.to_vec()),
            other => bail!("SSH keys of type `{}` are not supported", String::from_utf8_lossy(other)),
        })
    }

    pub fn to_spki(&self) -> Result<SubjectPublicKeyInfoOwned> {
        let (oid, parameters, bytes) = match self {
            Self::Rsa { modulus, exponent } => {
                let body = Pkcs1 { modulus: Uint::new(modulus)?, exponent: Uint::new(exponent)? };
                (RSA, Some(Any::encode_from(&Null)?), body.to_der()?)
            }
            Self::P256(point) => (EC, Some(Any::encode_from(&P256)?), point.clone()),
            Self::Ed25519(key) => (ED25519, None, key.clone()),
        };
        let algorithm = AlgorithmIdentifierOwned { oid, parameters };
        Ok(SubjectPublicKeyInfoOwned { algorithm, subject_public_key: BitString::from_bytes(&bytes)? })
    }

    /// SHA-256 with PKCS#1 v1.5 or ECDSA in DER, or plain Ed25519: what [`super::private_key::PrivateKey::sign_x509`] makes.
    pub fn verify(&self, message: &[u8], signature: &[u8]) -> Result<()> {
        let spki = self.to_spki()?;
        let algorithm: &dyn VerificationAlgorithm = match self {
            Self::Rsa { .. } => &RSA_PKCS1_2048_8192_SHA256,
            Self::P256(_) => &ECDSA_P256_SHA256_ASN1,
            Self::Ed25519(_) => &ED25519_SIGNATURE,
        };
        let key = UnparsedPublicKey::new(algorithm, spki.subject_public_key.raw_bytes());
        key.verify(message, signature).context("the signature is wrong")
    }

    /// Checks an SSH signature blob (RFC 4253 §6.6, RFC 5656 §3.1.2, RFC 8332 §3, RFC 8709 §6). SHA-1 is not accepted.
    pub fn verify_ssh(&self, message: &[u8], mut blob: &[u8]) -> Result<()> {
        let kind = take_string(&mut blob)?;
        let signature = take_string(&mut blob)?;
        let (algorithm, signature): (&dyn VerificationAlgorithm, _) = match (self, kind) {
            (Self::Rsa { .. }, b"rsa-sha2-256") => (&RSA_PKCS1_2048_8192_SHA256, signature.to_vec()),
            (Self::Rsa { .. }, b"rsa-sha2-512") => (&RSA_PKCS1_2048_8192_SHA512, signature.to_vec()),
            (Self::P256(_), b"ecdsa-sha2-nistp256") => {
                let mut numbers = signature;
                let mut fixed = Vec::new();
                for _ in 0..2 {
                    let number = unsigned(take_string(&mut numbers)?);
                    let padding = 32_usize.checked_sub(number.len()).context("the SSH signature is too long")?;
                    fixed.extend(std::iter::repeat_n(0, padding).chain(number));
                }
                (&ECDSA_P256_SHA256_FIXED, fixed)
            }
            (Self::Ed25519(_), b"ssh-ed25519") => (&ED25519_SIGNATURE, signature.to_vec()),
            _ => bail!("SSH signatures `{}` are not accepted for this key", String::from_utf8_lossy(kind)),
        };
        let spki = self.to_spki()?;
        let key = UnparsedPublicKey::new(algorithm, spki.subject_public_key.raw_bytes());
        key.verify(message, &signature).context("the SSH signature is wrong")
    }

    /// The SSH name of the key's type, which also prefixes its certificate's type.
    pub fn ssh_type(&self) -> &'static str {
        match self {
            Self::Rsa { .. } => "ssh-rsa",
            Self::P256(_) => "ecdsa-sha2-nistp256",
            Self::Ed25519(_) => "ssh-ed25519",
        }
    }

    /// The wire form without the leading type: what an SSH certificate embeds.
    pub fn ssh_fields(&self) -> Vec<u8> {
        let mut wire = Vec::new();
        match self {
            Self::Rsa { modulus, exponent } => {
                put_string(&mut wire, &signed(exponent));
                put_string(&mut wire, &signed(modulus));
            }
            Self::P256(point) => {
                put_string(&mut wire, b"nistp256");
                put_string(&mut wire, point);
            }
            Self::Ed25519(key) => put_string(&mut wire, key),
        }
        wire
    }

    pub fn to_ssh_wire(&self) -> Vec<u8> {
        let mut wire = Vec::new();
        put_string(&mut wire, self.ssh_type().as_bytes());
        wire.extend(self.ssh_fields());
        wire
    }

    /// With the newline Teleport appends.
    pub fn to_authorized_line(&self) -> String {
        format!("{} {}\n", self.ssh_type(), STANDARD.encode(self.to_ssh_wire()))
    }

    fn from_spki(info: &SubjectPublicKeyInfoOwned) -> Result<Self> {
        let bytes = info.subject_public_key.raw_bytes();
        let curve = info.algorithm.parameters.as_ref().and_then(|any| any.decode_as::<ObjectIdentifier>().ok());
        match info.algorithm.oid {
            RSA => Self::from_pkcs1(bytes),
            EC if curve == Some(P256) => Ok(Self::P256(bytes.to_vec())),
            ED25519 => Ok(Self::Ed25519(bytes.to_vec())),
            other => bail!("public keys of algorithm `{other}` are not supported"),
        }
    }

    fn from_pkcs1(der: &[u8]) -> Result<Self> {
        let key = Pkcs1::from_der(der).context("the public key is neither PKIX nor PKCS#1")?;
        Ok(Self::Rsa { modulus: unsigned(key.modulus.as_bytes()), exponent: unsigned(key.exponent.as_bytes()) })
    }
}

/// Appends an SSH string: 32-bit big-endian length, then the bytes.
pub(crate) fn put_string(wire: &mut Vec<u8>, bytes: &[u8]) {
    wire.extend((bytes.len() as u32).to_be_bytes());
    wire.extend(bytes);
}

/// Splits an SSH string off the front.
pub(crate) fn take_string<'a>(wire: &mut &'a [u8]) -> Result<&'a [u8]> {
    let (length, rest) = wire.split_first_chunk::<4>().context("an SSH message is cut short")?;
    let length = u32::from_be_bytes(*length) as usize;
    ensure!(rest.len() >= length, "an SSH message is cut short");
    let (value, rest) = rest.split_at(length);
    *wire = rest;
    Ok(value)
}

fn unsigned(bytes: &[u8]) -> Vec<u8> {
    bytes.iter().copied().skip_while(|byte| *byte == 0).collect()
}

/// An SSH `mpint`: one zero in front where the first bit would read as a sign.
fn signed(bytes: &[u8]) -> Vec<u8> {
    let sign = bytes.first().is_some_and(|byte| byte & 0x80 != 0);
    sign.then_some(0).into_iter().chain(bytes.iter().copied()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::pki::private_key::PrivateKey;

    #[test]
    fn every_form_of_a_key_reads_back() {
        for key in [PrivateKey::rsa(), PrivateKey::p256(), PrivateKey::ed25519()] {
            let key = key.unwrap();
            let public = key.public().clone();
            let spki = public.to_spki().unwrap().to_der().unwrap();
            assert_eq!(PublicKey::from_der(&spki).unwrap(), public);
            assert_eq!(PublicKey::from_ssh_wire(&public.to_ssh_wire()).unwrap(), public);
            assert_eq!(PublicKey::from_authorized_line(public.to_authorized_line().as_bytes()).unwrap(), public);
            let pem =
                format!("-----BEGIN RSA PUBLIC KEY-----\n{}\n-----END RSA PUBLIC KEY-----\n", STANDARD.encode(&spki));
            assert_eq!(PublicKey::from_pem(pem.as_bytes()).unwrap(), public);
        }
    }

    #[test]
    fn a_key_cut_short_is_refused() {
        let wire = PrivateKey::p256().unwrap().public().to_ssh_wire();
        for length in 0..wire.len() {
            assert!(PublicKey::from_ssh_wire(&wire[..length]).is_err(), "{length} bytes");
        }
    }
}
