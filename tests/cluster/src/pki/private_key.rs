//! Private keys of the stand-in's authorities and servers.

use anyhow::{Result, anyhow};
use aws_lc_rs::{
    encoding::{AsDer, Pkcs8V1Der},
    rand::SystemRandom,
    rsa::KeySize,
    signature::{
        ECDSA_P256_SHA256_ASN1_SIGNING, EcdsaKeyPair, Ed25519KeyPair, KeyPair, RSA_PKCS1_SHA256, RSA_PKCS1_SHA512,
        RsaEncoding, RsaKeyPair,
    },
};
use base64::{Engine, engine::general_purpose::STANDARD};
use const_oid::ObjectIdentifier;
use der::{
    Any,
    asn1::{Null, UintRef},
};
use spki::AlgorithmIdentifierOwned;

use super::public_key::{PublicKey, put_string};

/// What an authority signs with.
pub(crate) struct PrivateKey {
    pair: Pair,
    public: PublicKey,
}

enum Pair {
    Rsa(RsaKeyPair),
    P256(EcdsaKeyPair),
    Ed25519(Ed25519KeyPair),
}

impl std::fmt::Debug for PrivateKey {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.write_str("PrivateKey")
    }
}

impl PrivateKey {
    /// 2048 bits: about 70 ms.
    pub fn rsa() -> Result<Self> {
        let pair = RsaKeyPair::generate(KeySize::Rsa2048)?;
        let public = PublicKey::from_der(pair.public_key().as_ref())?;
        Ok(Self { pair: Pair::Rsa(pair), public })
    }

    pub fn p256() -> Result<Self> {
        let pair = EcdsaKeyPair::generate(&ECDSA_P256_SHA256_ASN1_SIGNING)?;
        let public = PublicKey::P256(pair.public_key().as_ref().to_vec());
        Ok(Self { pair: Pair::P256(pair), public })
    }

    pub fn ed25519() -> Result<Self> {
        let pair = Ed25519KeyPair::generate()?;
        let public = PublicKey::Ed25519(pair.public_key().as_ref().to_vec());
        Ok(Self { pair: Pair::Ed25519(pair), public })
    }

    pub fn public(&self) -> &PublicKey {
        &self.public
    }

    /// PKCS#8 DER, for TLS servers.
    pub fn to_pkcs8(&self) -> Result<Vec<u8>> {
        Ok(match &self.pair {
            Pair::Rsa(key) => AsDer::<Pkcs8V1Der>::as_der(key)?.as_ref().to_vec(),
            Pair::P256(key) => key.to_pkcs8v1()?.as_ref().to_vec(),
            Pair::Ed25519(key) => key.to_pkcs8v1()?.as_ref().to_vec(),
        })
    }

    /// PKCS#8 PEM.
    pub fn to_pem(&self) -> Result<String> {
        Ok(pem("PRIVATE KEY", &self.to_pkcs8()?))
    }

    /// The algorithm an X.509 certificate names for [`Self::sign_x509`].
    pub fn x509_algorithm(&self) -> Result<AlgorithmIdentifierOwned> {
        let (oid, parameters) = match &self.pair {
            Pair::Rsa(_) => ("1.2.840.113549.1.1.11", Some(Any::encode_from(&Null)?)),
            Pair::P256(_) => ("1.2.840.10045.4.3.2", None),
            Pair::Ed25519(_) => ("1.3.101.112", None),
        };
        Ok(AlgorithmIdentifierOwned { oid: ObjectIdentifier::new(oid).map_err(|error| anyhow!(error))?, parameters })
    }

    /// SHA-256 with PKCS#1 v1.5 or ECDSA in DER, or plain Ed25519.
    pub fn sign_x509(&self, message: &[u8]) -> Result<Vec<u8>> {
        Ok(match &self.pair {
            Pair::Rsa(key) => sign_rsa(key, &RSA_PKCS1_SHA256, message)?,
            Pair::P256(key) => key.sign(&SystemRandom::new(), message)?.as_ref().to_vec(),
            Pair::Ed25519(key) => key.sign(message).as_ref().to_vec(),
        })
    }

    /// An SSH signature blob; RSA signs `rsa-sha2-512` as recorded.
    pub fn sign_ssh(&self, message: &[u8]) -> Result<Vec<u8>> {
        let (name, signature) = match &self.pair {
            Pair::Rsa(key) => ("rsa-sha2-512", sign_rsa(key, &RSA_PKCS1_SHA512, message)?),
            Pair::P256(_) => ("ecdsa-sha2-nistp256", ssh_ecdsa(&self.sign_x509(message)?)?),
            Pair::Ed25519(key) => ("ssh-ed25519", key.sign(message).as_ref().to_vec()),
        };
        let mut blob = Vec::new();
        put_string(&mut blob, name.as_bytes());
        put_string(&mut blob, &signature);
        Ok(blob)
    }
}

/// PEM with lines of 64 characters.
pub(crate) fn pem(label: &str, der: &[u8]) -> String {
    let body = STANDARD.encode(der);
    let mut text = format!("-----BEGIN {label}-----\n");
    for line in body.as_bytes().chunks(64) {
        text.push_str(&String::from_utf8_lossy(line));
        text.push('\n');
    }
    text + &format!("-----END {label}-----\n")
}

fn sign_rsa(key: &RsaKeyPair, padding: &'static dyn RsaEncoding, message: &[u8]) -> Result<Vec<u8>> {
    let mut signature = vec![0; key.public_modulus_len()];
    key.sign(padding, &SystemRandom::new(), message, &mut signature)?;
    Ok(signature)
}

/// RFC 5656 §3.1.2: two `mpint`s instead of a DER sequence.
fn ssh_ecdsa(der: &[u8]) -> Result<Vec<u8>> {
    use der::{Decode, Reader, SliceReader};
    let mut blob = Vec::new();
    SliceReader::new(der)?.sequence(|reader| -> der::Result<()> {
        for _ in 0..2 {
            let number = UintRef::decode(reader)?;
            let bytes = number.as_bytes();
            let mut signed = if bytes.first().is_some_and(|byte| byte & 0x80 != 0) { vec![0] } else { Vec::new() };
            signed.extend(bytes);
            put_string(&mut blob, &signed);
        }
        Ok(())
    })?;
    Ok(blob)
}
