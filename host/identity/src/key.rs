use std::fmt;

use aws_lc_rs::encoding::{AsDer, PublicKeyX509Der};
use aws_lc_rs::{rsa, signature};
use base64::Engine;
use base64::engine::general_purpose::STANDARD as BASE64;
use pkcs8::der::asn1::{AnyRef, OctetStringRef};
use pkcs8::der::{Decode, Encode};
use pkcs8::{AlgorithmIdentifierRef, ObjectIdentifier, PrivateKeyInfoRef};
use sha2::{Digest, Sha256};
use zeroize::Zeroizing;

const RSA: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.2.840.113549.1.1.1");
const EC: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.2.840.10045.2.1");
const P256: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.2.840.10045.3.1.7");
const ED25519: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.3.101.112");

/// The key types that the agent makes and reads.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum KeyAlgorithm {
    /// What every consumer of files understands; 30–100 ms of CPU each.
    Rsa2048,
    /// What internal identities use: every cluster version accepts it (wire §o), made in microseconds.
    EcdsaP256,
    /// Read only: some clusters' tools make it.
    Ed25519,
}

/// How a private key is written into a file (`tbot:format/material.key-encoding`).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum KeyEncoding {
    /// PKCS#1 PEM for RSA, PKCS#8 PEM otherwise: what existing consumers expect.
    TraditionalPem,
    /// PKCS#8 PEM.
    Pkcs8Pem,
    /// `OPENSSH PRIVATE KEY`, not encrypted.
    Openssh,
}

/// A key that cannot be read or made. Never holds key material.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum KeyError {
    /// not a PEM private key in PKCS#8, PKCS#1 or SEC1
    #[error("not a PEM private key in PKCS#8, PKCS#1 or SEC1 form")]
    Malformed,
    /// neither RSA, ECDSA P-256 nor Ed25519
    #[error("key algorithm is none of RSA, ECDSA P-256, Ed25519")]
    Algorithm,
    /// the machine's cryptography refused
    #[error("the key could not be made or encoded")]
    Crypto,
}

/// A private key. Prints as dots, is wiped when dropped.
pub struct PrivateKey {
    pkcs8: Zeroizing<Vec<u8>>,
    public: PublicKey,
}

impl PrivateKey {
    /// Makes a key. RSA takes 30–150 ms of CPU: not on an async thread.
    ///
    /// # Errors
    /// [`KeyError::Crypto`] where the machine gives no random numbers.
    pub fn generate(algorithm: KeyAlgorithm) -> Result<Self, KeyError> {
        let pkcs8 = match algorithm {
            KeyAlgorithm::Rsa2048 => {
                let key = rsa::KeyPair::generate(rsa::KeySize::Rsa2048).map_err(|_| KeyError::Crypto)?;
                let der: aws_lc_rs::encoding::Pkcs8V1Der<'_> = key.as_der().map_err(|_| KeyError::Crypto)?;
                der.as_ref().to_vec()
            }
            KeyAlgorithm::EcdsaP256 => {
                let key = signature::EcdsaKeyPair::generate(&signature::ECDSA_P256_SHA256_ASN1_SIGNING)
                    .map_err(|_| KeyError::Crypto)?;
                key.to_pkcs8v1().map_err(|_| KeyError::Crypto)?.as_ref().to_vec()
            }
            KeyAlgorithm::Ed25519 => {
                let key = signature::Ed25519KeyPair::generate().map_err(|_| KeyError::Crypto)?;
                key.to_pkcs8v1().map_err(|_| KeyError::Crypto)?.as_ref().to_vec()
            }
        };
        Self::from_pkcs8(Zeroizing::new(pkcs8))
    }

    /// Reads PKCS#8 (`PRIVATE KEY`), PKCS#1 (`RSA PRIVATE KEY`) or SEC1 (`EC PRIVATE KEY`, P-256) PEM; text behind the block is ignored.
    ///
    /// # Errors
    /// [`KeyError::Malformed`], [`KeyError::Algorithm`].
    pub fn from_pem(pem: &[u8]) -> Result<Self, KeyError> {
        let text = std::str::from_utf8(pem).map_err(|_| KeyError::Malformed)?;
        let begin = text.find("-----BEGIN ").ok_or(KeyError::Malformed)?;
        let rest = &text[begin + 11..];
        let label = rest.split("-----").next().ok_or(KeyError::Malformed)?;
        let body = rest.get(label.len() + 5..).ok_or(KeyError::Malformed)?;
        let end = body.find("-----END ").ok_or(KeyError::Malformed)?;
        let compact: Zeroizing<String> = Zeroizing::new(body[..end].split_whitespace().collect());
        let der = Zeroizing::new(BASE64.decode(compact.as_bytes()).map_err(|_| KeyError::Malformed)?);
        match label {
            "PRIVATE KEY" => Self::from_pkcs8(der),
            "RSA PRIVATE KEY" => Self::from_bare(RSA, AnyRef::NULL, &der),
            "EC PRIVATE KEY" => Self::from_bare(EC, AnyRef::from(&P256), &der),
            _ => Err(KeyError::Malformed),
        }
    }

    /// Wraps a key without its algorithm (PKCS#1, SEC1) into PKCS#8.
    fn from_bare(oid: ObjectIdentifier, parameters: AnyRef<'_>, der: &[u8]) -> Result<Self, KeyError> {
        let octets = OctetStringRef::new(der).map_err(|_| KeyError::Malformed)?;
        let info = PrivateKeyInfoRef::new(AlgorithmIdentifierRef { oid, parameters: Some(parameters) }, octets);
        Self::from_pkcs8(Zeroizing::new(info.to_der().map_err(|_| KeyError::Malformed)?))
    }

    fn from_pkcs8(pkcs8: Zeroizing<Vec<u8>>) -> Result<Self, KeyError> {
        let info = PrivateKeyInfoRef::from_der(&pkcs8).map_err(|_| KeyError::Malformed)?;
        let oid = info.algorithm.oid;
        let (algorithm, spki) = if oid == RSA {
            let pair = rsa::KeyPair::from_pkcs8(&pkcs8).map_err(|_| KeyError::Malformed)?;
            (KeyAlgorithm::Rsa2048, public_der(signature::KeyPair::public_key(&pair))?)
        } else if oid == EC && info.algorithm.parameters_oid() == Ok(P256) {
            let pair = signature::EcdsaKeyPair::from_pkcs8(&signature::ECDSA_P256_SHA256_ASN1_SIGNING, &pkcs8)
                .map_err(|_| KeyError::Malformed)?;
            (KeyAlgorithm::EcdsaP256, public_der(signature::KeyPair::public_key(&pair))?)
        } else if oid == ED25519 {
            let pair =
                signature::Ed25519KeyPair::from_pkcs8_maybe_unchecked(&pkcs8).map_err(|_| KeyError::Malformed)?;
            (KeyAlgorithm::Ed25519, public_der(signature::KeyPair::public_key(&pair))?)
        } else {
            return Err(KeyError::Algorithm);
        };
        Ok(Self { pkcs8, public: PublicKey { algorithm, spki } })
    }

    /// The public half.
    pub fn public_key(&self) -> &PublicKey {
        &self.public
    }

    /// PKCS#8 DER, for TLS.
    pub fn pkcs8_der(&self) -> &Zeroizing<Vec<u8>> {
        &self.pkcs8
    }

    /// The text that goes into a file, ending in a newline.
    ///
    /// # Errors
    /// [`KeyError::Crypto`] where the encoding does not exist for this key.
    pub fn encode(&self, encoding: KeyEncoding) -> Result<Zeroizing<String>, KeyError> {
        match (encoding, self.public.algorithm) {
            (KeyEncoding::TraditionalPem, KeyAlgorithm::Rsa2048) => Ok(pem("RSA PRIVATE KEY", self.inner()?)),
            (KeyEncoding::TraditionalPem | KeyEncoding::Pkcs8Pem, _) => Ok(pem("PRIVATE KEY", &self.pkcs8)),
            (KeyEncoding::Openssh, _) => Ok(pem_width("OPENSSH PRIVATE KEY", &self.openssh()?, 70)),
        }
    }

    fn inner(&self) -> Result<&[u8], KeyError> {
        Ok(PrivateKeyInfoRef::from_der(&self.pkcs8).map_err(|_| KeyError::Crypto)?.private_key.as_bytes())
    }

    /// `openssh-key-v1`, no cipher (OpenSSH PROTOCOL.key).
    fn openssh(&self) -> Result<Zeroizing<Vec<u8>>, KeyError> {
        let public = self.public.ssh_wire();
        let mut secret = Zeroizing::new(Vec::new());
        let check = &Sha256::digest(&self.pkcs8[..])[..4];
        secret.extend_from_slice(check);
        secret.extend_from_slice(check);
        match self.public.algorithm {
            KeyAlgorithm::Rsa2048 => {
                let key = pkcs1::RsaPrivateKeyRef::from_der(self.inner()?).map_err(|_| KeyError::Crypto)?;
                string(&mut secret, b"ssh-rsa");
                for number in [
                    &key.modulus,
                    &key.public_exponent,
                    &key.private_exponent,
                    &key.coefficient,
                    &key.prime1,
                    &key.prime2,
                ] {
                    mpint(&mut secret, number.as_bytes());
                }
            }
            KeyAlgorithm::EcdsaP256 => {
                let pair = signature::EcdsaKeyPair::from_pkcs8(&signature::ECDSA_P256_SHA256_ASN1_SIGNING, &self.pkcs8)
                    .map_err(|_| KeyError::Crypto)?;
                let scalar: aws_lc_rs::encoding::EcPrivateKeyBin<'_> =
                    aws_lc_rs::encoding::AsBigEndian::as_be_bytes(&pair.private_key()).map_err(|_| KeyError::Crypto)?;
                secret.extend_from_slice(&public);
                mpint(&mut secret, scalar.as_ref());
            }
            KeyAlgorithm::Ed25519 => {
                let seed = <&OctetStringRef>::from_der(self.inner()?).map_err(|_| KeyError::Crypto)?;
                secret.extend_from_slice(&public);
                let point = self.public.raw()?;
                let both = Zeroizing::new([seed.as_bytes(), &point].concat());
                string(&mut secret, &both);
            }
        }
        string(&mut secret, b"");
        for pad in 1..=u8::MAX {
            if secret.len().is_multiple_of(8) {
                break;
            }
            secret.push(pad);
        }
        let mut out = Zeroizing::new(b"openssh-key-v1\0".to_vec());
        for part in [b"none".as_slice(), b"none", b""] {
            string(&mut out, part);
        }
        out.extend_from_slice(&1u32.to_be_bytes());
        string(&mut out, &public);
        string(&mut out, &secret);
        Ok(out)
    }
}

impl fmt::Debug for PrivateKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "PrivateKey({:?}, …)", self.public.algorithm)
    }
}

/// A public key.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PublicKey {
    algorithm: KeyAlgorithm,
    spki: Vec<u8>,
}

impl PublicKey {
    /// Its type.
    pub fn algorithm(&self) -> KeyAlgorithm {
        self.algorithm
    }

    /// SubjectPublicKeyInfo, DER.
    pub fn spki_der(&self) -> &[u8] {
        &self.spki
    }

    /// SubjectPublicKeyInfo as `PUBLIC KEY` PEM, ending in a newline.
    pub fn pem(&self) -> String {
        pem("PUBLIC KEY", &self.spki).to_string()
    }

    /// `<type> <base64>`, no comment, no newline.
    pub fn ssh_line(&self) -> String {
        format!("{} {}", self.ssh_type(), BASE64.encode(self.ssh_wire()))
    }

    /// The key in SSH wire format (RFC 4253 §6.6, RFC 5656 §3.1, RFC 8709 §4).
    pub fn ssh_wire(&self) -> Vec<u8> {
        let mut out = Vec::new();
        string(&mut out, self.ssh_type().as_bytes());
        let raw = self.raw().unwrap_or_default();
        match self.algorithm {
            KeyAlgorithm::Rsa2048 => {
                if let Ok(key) = pkcs1::RsaPublicKeyRef::from_der(&raw) {
                    mpint(&mut out, key.public_exponent.as_bytes());
                    mpint(&mut out, key.modulus.as_bytes());
                }
            }
            KeyAlgorithm::EcdsaP256 => {
                string(&mut out, b"nistp256");
                string(&mut out, &raw);
            }
            KeyAlgorithm::Ed25519 => string(&mut out, &raw),
        }
        out
    }

    fn ssh_type(&self) -> &'static str {
        match self.algorithm {
            KeyAlgorithm::Rsa2048 => "ssh-rsa",
            KeyAlgorithm::EcdsaP256 => "ecdsa-sha2-nistp256",
            KeyAlgorithm::Ed25519 => "ssh-ed25519",
        }
    }

    fn raw(&self) -> Result<Vec<u8>, KeyError> {
        let info = spki::SubjectPublicKeyInfoRef::try_from(self.spki.as_slice()).map_err(|_| KeyError::Malformed)?;
        info.subject_public_key.as_bytes().map(<[u8]>::to_vec).ok_or(KeyError::Malformed)
    }
}

fn public_der<K: AsDer<PublicKeyX509Der<'static>>>(key: &K) -> Result<Vec<u8>, KeyError> {
    Ok(key.as_der().map_err(|_| KeyError::Crypto)?.as_ref().to_vec())
}

fn pem(label: &str, der: &[u8]) -> Zeroizing<String> {
    pem_width(label, der, 64)
}

fn pem_width(label: &str, der: &[u8], width: usize) -> Zeroizing<String> {
    let body = Zeroizing::new(BASE64.encode(der));
    let mut out = Zeroizing::new(String::with_capacity(body.len() + body.len() / width + 80));
    out.push_str(&format!("-----BEGIN {label}-----\n"));
    for start in (0..body.len()).step_by(width) {
        out.push_str(&body[start..body.len().min(start + width)]);
        out.push('\n');
    }
    out.push_str(&format!("-----END {label}-----\n"));
    out
}

fn string(out: &mut Vec<u8>, bytes: &[u8]) {
    out.extend_from_slice(&u32::try_from(bytes.len()).unwrap_or(u32::MAX).to_be_bytes());
    out.extend_from_slice(bytes);
}

fn mpint(out: &mut Vec<u8>, bytes: &[u8]) {
    let start = bytes.iter().position(|&b| b != 0).unwrap_or(bytes.len());
    let mut number = Zeroizing::new(Vec::new());
    if bytes.get(start).is_some_and(|b| b & 0x80 != 0) {
        number.push(0);
    }
    number.extend_from_slice(&bytes[start..]);
    string(out, &number);
}

#[cfg(test)]
mod tests {
    use super::*;

    const ALL: [KeyAlgorithm; 3] = [KeyAlgorithm::Rsa2048, KeyAlgorithm::EcdsaP256, KeyAlgorithm::Ed25519];

    #[test]
    fn pem_forms_read_back_to_the_same_key() {
        for algorithm in ALL {
            let key = PrivateKey::generate(algorithm).unwrap();
            for encoding in [KeyEncoding::TraditionalPem, KeyEncoding::Pkcs8Pem] {
                let text = key.encode(encoding).unwrap();
                let again = PrivateKey::from_pem(text.as_bytes()).unwrap();
                assert_eq!(again.public_key(), key.public_key(), "{algorithm:?} {encoding:?}");
            }
        }
    }

    /// The files are for other programs: let one of them read them.
    #[test]
    fn openssh_reads_the_private_and_public_forms() {
        for algorithm in ALL {
            let key = PrivateKey::generate(algorithm).unwrap();
            let folder = std::env::temp_dir().join(format!("tbot-key-{algorithm:?}-{}", std::process::id()));
            std::fs::write(&folder, key.encode(KeyEncoding::Openssh).unwrap().as_bytes()).unwrap();
            std::process::Command::new("chmod").arg("600").arg(&folder).status().unwrap();
            let out = std::process::Command::new("ssh-keygen").arg("-y").arg("-f").arg(&folder).output().unwrap();
            std::fs::remove_file(&folder).unwrap();
            let line = String::from_utf8(out.stdout).unwrap();
            assert_eq!(
                line.trim_end(),
                key.public_key().ssh_line(),
                "{algorithm:?}: {:?}",
                String::from_utf8_lossy(&out.stderr)
            );
        }
    }

    #[test]
    fn a_damaged_key_is_an_error_without_its_bytes() {
        let key = PrivateKey::generate(KeyAlgorithm::EcdsaP256).unwrap();
        let text = key.encode(KeyEncoding::Pkcs8Pem).unwrap();
        for cut in 0..text.len() - 27 {
            let error = PrivateKey::from_pem(&text.as_bytes()[..cut]).unwrap_err();
            assert!(!error.to_string().contains("MIG"), "{error}");
        }
        assert_eq!(format!("{key:?}"), "PrivateKey(EcdsaP256, …)");
    }
}
