//! PKCS#7 documents with their content inside (RFC 2315 §9), as Azure signs what it attests.

use std::time::SystemTime;

use anyhow::{Context, Result, bail, ensure};
use cms::{
    cert::{CertificateChoices, IssuerAndSerialNumber},
    content_info::{CmsVersion, ContentInfo},
    signed_data::{EncapsulatedContentInfo, SignedData, SignerIdentifier, SignerInfo, SignerInfos},
};
use const_oid::ObjectIdentifier;
use der::{
    Any, Decode, Encode,
    asn1::{Null, OctetString, SetOfVec},
};
use sha2::{Digest, Sha256};
use spki::AlgorithmIdentifierOwned;
use x509_cert::Certificate;

use crate::pki::{private_key::PrivateKey, public_key::PublicKey};

const DATA: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.2.840.113549.1.7.1");
const SIGNED_DATA: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.2.840.113549.1.7.2");
const MESSAGE_DIGEST: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.2.840.113549.1.9.4");
const SHA256: ObjectIdentifier = ObjectIdentifier::new_unwrap("2.16.840.1.101.3.4.2.1");
const RSA: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.2.840.113549.1.1.1");
/// More certificates than any chain has (wire §d.4).
const DEPTH: usize = 10;

/// Signs `content`; the signer's certificate travels along, its issuers do not.
pub(super) fn sign(content: &[u8], certificate: &[u8], key: &PrivateKey) -> Result<Vec<u8>> {
    let certificate = Certificate::from_der(certificate)?;
    let tbs = certificate.tbs_certificate();
    let serial_number = tbs.serial_number().clone();
    let sid =
        SignerIdentifier::IssuerAndSerialNumber(IssuerAndSerialNumber { issuer: tbs.issuer().clone(), serial_number });
    let signer = SignerInfo {
        version: CmsVersion::V1,
        sid,
        digest_alg: algorithm(SHA256)?,
        signed_attrs: None,
        signature_algorithm: algorithm(RSA)?,
        signature: OctetString::new(key.sign_x509(content)?)?,
        unsigned_attrs: None,
    };
    let econtent = Some(Any::encode_from(&OctetString::new(content)?)?);
    let signed = SignedData {
        version: CmsVersion::V1,
        digest_algorithms: SetOfVec::try_from(vec![algorithm(SHA256)?])?,
        encap_content_info: EncapsulatedContentInfo { econtent_type: DATA, econtent },
        certificates: Some(vec![CertificateChoices::Certificate(certificate)].try_into()?),
        crls: None,
        signer_infos: SignerInfos(SetOfVec::try_from(vec![signer])?),
    };
    Ok(ContentInfo { content_type: SIGNED_DATA, content: Any::encode_from(&signed)? }.to_der()?)
}

/// A document whose signature fits the certificate it brings along. Nothing is known of that certificate yet.
pub(super) struct Opened {
    pub content: Vec<u8>,
    pub signer: Certificate,
}

/// Checks the signature.
pub(super) fn open(der: &[u8]) -> Result<Opened> {
    let info = ContentInfo::from_der(der).context("the document is not PKCS#7")?;
    ensure!(info.content_type == SIGNED_DATA, "the document is not signed");
    let signed: SignedData = info.content.decode_as().context("the document is not PKCS#7")?;
    let content = signed.encap_content_info.econtent.context("the document has no content")?;
    let content = content.decode_as::<OctetString>()?.into_bytes().to_vec();
    let [signer] = signed.signer_infos.0.as_slice() else { bail!("the document needs one signer") };
    let SignerIdentifier::IssuerAndSerialNumber(id) = &signer.sid else { bail!("the signer is not named") };
    let certificates = signed.certificates.map(|set| set.0.into_vec()).unwrap_or_default();
    let certificate = certificates.into_iter().find_map(|choice| match choice {
        CertificateChoices::Certificate(one)
            if *one.tbs_certificate().issuer() == id.issuer
                && *one.tbs_certificate().serial_number() == id.serial_number =>
        {
            Some(one)
        }
        _ => None,
    });
    let certificate = certificate.context("the signer's certificate is missing")?;
    let message = match &signer.signed_attrs {
        None => content.clone(),
        // Then the signature covers the attributes, and one of them the content.
        Some(attributes) => {
            let digest = attributes.iter().find(|attribute| attribute.oid == MESSAGE_DIGEST);
            let digest = digest.and_then(|attribute| attribute.values.get(0)).context("no message digest")?;
            ensure!(digest.value() == Sha256::digest(&content).as_slice(), "the content was changed");
            attributes.to_der()?
        }
    };
    key(&certificate)?.verify(&message, signer.signature.as_bytes()).context("the document's signature")?;
    Ok(Opened { content, signer: certificate })
}

/// Follows the issuers of `leaf` through `between` to one of the `roots`; all DER.
pub(super) fn trace(leaf: &Certificate, between: &[Certificate], roots: &[Certificate], now: SystemTime) -> Result<()> {
    let mut current = leaf;
    for _ in 0..DEPTH {
        let validity = current.tbs_certificate().validity();
        let in_time = validity.not_before.to_system_time() <= now && now <= validity.not_after.to_system_time();
        ensure!(in_time, "a certificate of the chain has expired");
        if roots.iter().any(|root| signed(current, root)) {
            return Ok(());
        }
        let issuer = between.iter().find(|issuer| signed(current, issuer));
        current = issuer.with_context(|| format!("no issuer of `{}`", current.tbs_certificate().subject()))?;
    }
    bail!("the chain is too long")
}

/// Certificates in DER, one after another.
pub(super) fn split(mut der: &[u8]) -> Result<Vec<Certificate>> {
    let mut found = Vec::new();
    while !der.is_empty() {
        let (certificate, rest) = Certificate::from_der_partial(der).context("an intermediate certificate")?;
        found.push(certificate);
        der = rest;
    }
    Ok(found)
}

fn signed(child: &Certificate, issuer: &Certificate) -> bool {
    let named = child.tbs_certificate().issuer() == issuer.tbs_certificate().subject();
    let message = child.tbs_certificate().to_der();
    let signature = child.signature().raw_bytes();
    named && message.is_ok_and(|tbs| key(issuer).is_ok_and(|key| key.verify(&tbs, signature).is_ok()))
}

fn key(certificate: &Certificate) -> Result<PublicKey> {
    PublicKey::from_der(&certificate.tbs_certificate().subject_public_key_info().to_der()?)
}

fn algorithm(oid: ObjectIdentifier) -> Result<AlgorithmIdentifierOwned> {
    Ok(AlgorithmIdentifierOwned { oid, parameters: Some(Any::encode_from(&Null)?) })
}
