//! A PKCS#12 file (RFC 7292), with PBES2 (RFC 8018) and the old derivation for its MAC: Java 17 and OpenSSL 3.0 know no newer one.

use cbc::cipher::block_padding::Pkcs7;
use cbc::cipher::{BlockModeEncrypt, KeyIvInit};
use der::asn1::{Any, BmpString, ObjectIdentifier as Oid, OctetString, SetOfVec};
use der::{Encode, Sequence, Tag, ValueOrd};
use hmac::{Hmac, KeyInit, Mac};
use sha2::{Digest, Sha256};

/// Rounds of every derivation: what `keytool` of Java 17 takes. More would not make up for a weak password, and each start of a client pays.
const ROUNDS: u32 = 10_000;

const DATA: Oid = Oid::new_unwrap("1.2.840.113549.1.7.1");
const ENCRYPTED_DATA: Oid = Oid::new_unwrap("1.2.840.113549.1.7.6");
const SHROUDED_KEY_BAG: Oid = Oid::new_unwrap("1.2.840.113549.1.12.10.1.2");
const CERTIFICATE_BAG: Oid = Oid::new_unwrap("1.2.840.113549.1.12.10.1.3");
const X509_CERTIFICATE: Oid = Oid::new_unwrap("1.2.840.113549.1.9.22.1");
const FRIENDLY_NAME: Oid = Oid::new_unwrap("1.2.840.113549.1.9.20");
const LOCAL_KEY_ID: Oid = Oid::new_unwrap("1.2.840.113549.1.9.21");
const PBES2: Oid = Oid::new_unwrap("1.2.840.113549.1.5.13");
const PBKDF2: Oid = Oid::new_unwrap("1.2.840.113549.1.5.12");
const HMAC_SHA256: Oid = Oid::new_unwrap("1.2.840.113549.2.9");
const AES256_CBC: Oid = Oid::new_unwrap("2.16.840.1.101.3.4.1.42");
const SHA256: Oid = Oid::new_unwrap("2.16.840.1.101.3.4.2.1");
/// Oracle's: without it Java lists no certificate as trusted.
const TRUSTED_KEY_USAGE: Oid = Oid::new_unwrap("2.16.840.1.113894.746875.1.1");
const ANY_EXTENDED_KEY_USAGE: Oid = Oid::new_unwrap("2.5.29.37.0");

/// What goes into the file; certificates are DER.
pub(crate) struct Store {
    /// PKCS#8, DER.
    pub(crate) key: Vec<u8>,
    pub(crate) certificate: Vec<u8>,
    /// What leads from the certificate to its authority.
    pub(crate) chain: Vec<Vec<u8>>,
    /// Whom a client that reads the file should trust.
    pub(crate) trusted: Vec<Vec<u8>>,
}

impl Store {
    /// The file. The same store and password give the same bytes.
    pub(crate) fn encode(&self, password: &str) -> Result<Vec<u8>, Failed> {
        let key = SafeBag {
            kind: SHROUDED_KEY_BAG,
            value: Any::encode_from(&self.encrypted(password, &self.key)?)?,
            attributes: self.owner()?,
        };
        let mut bags = vec![certificate_bag(&self.certificate, self.owner()?)?];
        for certificate in &self.chain {
            bags.push(certificate_bag(certificate, SetOfVec::new())?);
        }
        for (at, certificate) in self.trusted.iter().enumerate() {
            let trusted = attribute(TRUSTED_KEY_USAGE, Any::encode_from(&ANY_EXTENDED_KEY_USAGE)?)?;
            let attributes = [name(&format!("ca-{}", at + 1))?, trusted];
            bags.push(certificate_bag(certificate, SetOfVec::from_iter(attributes)?)?);
        }
        let Encrypted { algorithm, contents } = self.encrypted(password, &bags.to_der()?)?;
        let info = EncryptedContentInfo { kind: DATA, algorithm, contents };
        let certificates = EncryptedData { version: 0, info };
        let safe = vec![
            ContentInfo { kind: ENCRYPTED_DATA, content: Any::encode_from(&certificates)? },
            data(&vec![key].to_der()?)?,
        ]
        .to_der()?;
        let salt = self.salt("mac", &safe)?;
        let mut mac = Hmac::<Sha256>::new_from_slice(&mac_key(password, &salt)).map_err(|_| Failed)?;
        mac.update(&safe);
        let algorithm = Algorithm { oid: SHA256, parameters: Any::null() };
        let digest = DigestInfo { algorithm, digest: OctetString::new(mac.finalize().into_bytes().to_vec())? };
        let mac = MacData { digest, salt: OctetString::new(salt)?, rounds: ROUNDS };
        Ok(Pfx { version: 3, safe: data(&safe)?, mac }.to_der()?)
    }

    /// Names the key and the certificate that belongs to it.
    fn owner(&self) -> der::Result<SetOfVec<Attribute>> {
        let id = OctetString::new(Sha256::digest(&self.certificate).to_vec())?;
        SetOfVec::from_iter([name("tbot")?, attribute(LOCAL_KEY_ID, Any::encode_from(&id)?)?])
    }

    fn encrypted(&self, password: &str, plain: &[u8]) -> Result<Encrypted, Failed> {
        let (salt, iv) = (self.salt("salt", plain)?, self.salt("iv", plain)?);
        let mut key = [0; 32];
        pbkdf2::pbkdf2::<Hmac<Sha256>>(password.as_bytes(), &salt, ROUNDS, &mut key).map_err(|_| Failed)?;
        let cipher = cbc::Encryptor::<aes::Aes256>::new(&key.into(), &iv.into());
        let contents = OctetString::new(cipher.encrypt_padded_vec::<Pkcs7>(plain))?;
        let prf = Algorithm { oid: HMAC_SHA256, parameters: Any::null() };
        let derivation = Derivation { salt: OctetString::new(salt)?, rounds: ROUNDS, prf };
        let scheme = Scheme {
            derivation: Algorithm { oid: PBKDF2, parameters: Any::encode_from(&derivation)? },
            cipher: Algorithm { oid: AES256_CBC, parameters: Any::new(Tag::OctetString, iv)? },
        };
        Ok(Encrypted { algorithm: Algorithm { oid: PBES2, parameters: Any::encode_from(&scheme)? }, contents })
    }

    /// There is no source of chance here. To everybody without the private key this is one, and new with every change of the contents.
    fn salt(&self, purpose: &str, contents: &[u8]) -> Result<[u8; 16], Failed> {
        let mut mac = Hmac::<Sha256>::new_from_slice(&self.key).map_err(|_| Failed)?;
        mac.update(purpose.as_bytes());
        mac.update(contents);
        mac.finalize().into_bytes().first_chunk().copied().ok_or(Failed)
    }
}

/// RFC 7292, appendix B.2, for one block of SHA-256.
fn mac_key(password: &str, salt: &[u8]) -> [u8; 32] {
    const BLOCK: usize = 64;
    const MAC_KEY: u8 = 3;
    let password: Vec<u8> = password.encode_utf16().chain([0]).flat_map(u16::to_be_bytes).collect();
    let filled =
        |bytes: &[u8]| -> Vec<u8> { bytes.iter().copied().cycle().take(bytes.len().div_ceil(BLOCK) * BLOCK).collect() };
    let mut key = Sha256::new()
        .chain_update([MAC_KEY; BLOCK])
        .chain_update(filled(salt))
        .chain_update(filled(&password))
        .finalize();
    for _ in 1..ROUNDS {
        key = Sha256::digest(key);
    }
    key.into()
}

/// Something could not be encoded or encrypted: never on account of the password.
#[derive(Debug)]
pub(crate) struct Failed;

impl std::fmt::Display for Failed {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("cannot be encoded")
    }
}

impl From<der::Error> for Failed {
    fn from(_: der::Error) -> Self {
        Self
    }
}

#[derive(Sequence)]
struct Pfx {
    version: u8,
    safe: ContentInfo,
    mac: MacData,
}

#[derive(Sequence)]
struct ContentInfo {
    kind: Oid,
    #[asn1(context_specific = "0", tag_mode = "EXPLICIT")]
    content: Any,
}

#[derive(Sequence)]
struct EncryptedData {
    version: u8,
    info: EncryptedContentInfo,
}

#[derive(Sequence)]
struct EncryptedContentInfo {
    kind: Oid,
    algorithm: Algorithm,
    #[asn1(context_specific = "0", tag_mode = "IMPLICIT")]
    contents: OctetString,
}

#[derive(Sequence)]
struct Encrypted {
    algorithm: Algorithm,
    contents: OctetString,
}

#[derive(Sequence)]
struct Scheme {
    derivation: Algorithm,
    cipher: Algorithm,
}

#[derive(Sequence)]
struct Derivation {
    salt: OctetString,
    rounds: u32,
    prf: Algorithm,
}

#[derive(Sequence)]
struct MacData {
    digest: DigestInfo,
    salt: OctetString,
    rounds: u32,
}

#[derive(Sequence)]
struct DigestInfo {
    algorithm: Algorithm,
    digest: OctetString,
}

#[derive(Sequence)]
struct Algorithm {
    oid: Oid,
    parameters: Any,
}

#[derive(Sequence)]
struct SafeBag {
    kind: Oid,
    #[asn1(context_specific = "0", tag_mode = "EXPLICIT")]
    value: Any,
    attributes: SetOfVec<Attribute>,
}

#[derive(Sequence)]
struct CertificateBag {
    kind: Oid,
    #[asn1(context_specific = "0", tag_mode = "EXPLICIT")]
    certificate: OctetString,
}

#[derive(Sequence, ValueOrd)]
struct Attribute {
    kind: Oid,
    values: SetOfVec<Any>,
}

fn data(contents: &[u8]) -> der::Result<ContentInfo> {
    Ok(ContentInfo { kind: DATA, content: Any::new(Tag::OctetString, contents)? })
}

fn certificate_bag(certificate: &[u8], attributes: SetOfVec<Attribute>) -> der::Result<SafeBag> {
    let bag = CertificateBag { kind: X509_CERTIFICATE, certificate: OctetString::new(certificate)? };
    Ok(SafeBag { kind: CERTIFICATE_BAG, value: Any::encode_from(&bag)?, attributes })
}

fn name(name: &str) -> der::Result<Attribute> {
    attribute(FRIENDLY_NAME, Any::encode_from(&BmpString::from_utf8(name)?)?)
}

fn attribute(kind: Oid, value: Any) -> der::Result<Attribute> {
    Ok(Attribute { kind, values: SetOfVec::from_iter([value])? })
}
