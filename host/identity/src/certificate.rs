use std::time::Duration;

use rustls_pki_types::{CertificateDer, UnixTime};
use sha2::{Digest, Sha256};
use x509_parser::prelude::{FromDer, X509Certificate};

use crate::{PublicKey, Timestamp};

/// A certificate that cannot be used, and why.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum CertificateError {
    /// not a PEM certificate
    #[error("not a PEM X.509 certificate")]
    Malformed,
    /// the SSH line is no certificate with a principal
    #[error("not an OpenSSH certificate of a known type with at least one principal")]
    Ssh,
    /// key and certificate differ
    #[error("certificate and private key do not belong together")]
    Key,
    /// outside its time
    #[error(
        "certificate is valid from {after} to {before}, and it is {now}: check this machine's clock, or join again"
    )]
    Time {
        /// Begin of its validity.
        after: Timestamp,
        /// End of its validity.
        before: Timestamp,
        /// The clock.
        now: Timestamp,
    },
    /// no trusted authority signed it
    #[error("certificate is not signed by an authority of this cluster ({0})")]
    Chain(String),
    /// the cluster's name is missing from the issuer
    #[error("certificate's issuer names no cluster")]
    Cluster,
}

/// What a Teleport certificate says in its subject (wire §h).
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Subject {
    /// `CN`: the user.
    pub user: String,
    /// `O`: roles.
    pub roles: Vec<String>,
    /// `L`: principals.
    pub principals: Vec<String>,
    /// `STREET`: the cluster it is routed to.
    pub route_to_cluster: String,
    /// Values of the private attributes by OID below `1.3.9999`, such as `1.13`, in certificate order.
    pub attributes: Vec<(String, String)>,
}

impl Subject {
    /// First value of the private attribute `1.3.9999.<oid>`, such as `1.14` (wire §h.2).
    pub fn attribute(&self, oid: &str) -> Option<&str> {
        self.attributes.iter().find(|(name, _)| name == oid).map(|(_, value)| value.as_str())
    }

    /// May the certificate renew itself? (`1.13`)
    pub fn renewable(&self) -> bool {
        self.attribute("1.13") == Some("true")
    }

    /// The generation counter (`1.14`), 0 where there is none.
    pub fn generation(&self) -> u64 {
        self.attribute("1.14").and_then(|text| text.parse().ok()).unwrap_or(0)
    }

    /// Is the certificate forbidden to ask for others? (`2.9`)
    pub fn disallow_reissue(&self) -> bool {
        self.attribute("2.9") == Some("true")
    }
}

/// An X.509 certificate as Teleport issues it: parsed, not yet verified.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TlsCertificate {
    /// PEM as it came, one block, ending in a newline.
    pub pem: String,
    /// DER.
    pub der: Vec<u8>,
    /// Who it names.
    pub subject: Subject,
    /// The issuer's organisation: the cluster.
    pub cluster: String,
    /// Not valid before.
    pub after: Timestamp,
    /// Not valid after.
    pub before: Timestamp,
    /// SubjectPublicKeyInfo, DER.
    pub spki: Vec<u8>,
}

impl TlsCertificate {
    /// Reads the first certificate of a PEM text.
    ///
    /// # Errors
    /// [`CertificateError::Malformed`], [`CertificateError::Cluster`].
    pub fn parse(pem: &[u8]) -> Result<Self, CertificateError> {
        let der = pem_certificates(pem)?.into_iter().next().ok_or(CertificateError::Malformed)?;
        Self::from_der(der)
    }

    /// Reads a DER certificate.
    ///
    /// # Errors
    /// As [`TlsCertificate::parse`].
    pub fn from_der(der: Vec<u8>) -> Result<Self, CertificateError> {
        let (_, parsed) = X509Certificate::from_der(&der).map_err(|_| CertificateError::Malformed)?;
        let mut subject = Subject::default();
        for attribute in parsed.subject().iter_attributes() {
            let Ok(value) = attribute.as_str() else { continue };
            let value = value.to_owned();
            match attribute.attr_type().to_id_string().as_str() {
                "2.5.4.3" => subject.user = value,
                "2.5.4.10" => subject.roles.push(value),
                "2.5.4.7" => subject.principals.push(value),
                "2.5.4.9" => subject.route_to_cluster = value,
                oid => {
                    if let Some(private) = oid.strip_prefix("1.3.9999.") {
                        subject.attributes.push((private.to_owned(), value));
                    }
                }
            }
        }
        let organisation = parsed.issuer().iter_organization().next().and_then(|o| o.as_str().ok());
        let cluster = organisation.ok_or(CertificateError::Cluster)?.to_owned();
        let after = Timestamp(parsed.validity().not_before.timestamp());
        let before = Timestamp(parsed.validity().not_after.timestamp());
        let spki = parsed.public_key().raw.to_vec();
        Ok(Self { pem: certificate_pem(&der), subject, cluster, after, before, spki, der })
    }

    /// Does it certify this key?
    pub fn matches(&self, key: &PublicKey) -> bool {
        // RSA keys may come with or without the NULL parameters; compare the key bits, then.
        if self.spki == key.spki_der() {
            return true;
        }
        let bits = |der: &[u8]| {
            spki::SubjectPublicKeyInfoRef::try_from(der).ok().map(|info| info.subject_public_key.raw_bytes().to_vec())
        };
        bits(&self.spki).is_some_and(|own| Some(own) == bits(key.spki_der()))
    }
}

/// Checks that `certificate` chains to one of `authorities` (PEM) as a client certificate and is valid `now`.
///
/// # Errors
/// [`CertificateError::Time`], [`CertificateError::Chain`].
pub fn verify_chain(
    certificate: &TlsCertificate,
    authorities: &[String],
    now: Timestamp,
) -> Result<(), CertificateError> {
    if now < certificate.after || now > certificate.before {
        return Err(CertificateError::Time { after: certificate.after, before: certificate.before, now });
    }
    let chain = |e: &dyn std::fmt::Display| CertificateError::Chain(e.to_string());
    let mut roots = Vec::new();
    for pem in authorities {
        roots.extend(pem_certificates(pem.as_bytes())?.into_iter().map(CertificateDer::from));
    }
    let anchors: Vec<_> = roots.iter().filter_map(|der| webpki::anchor_from_trusted_cert(der).ok()).collect();
    let der = CertificateDer::from(certificate.der.as_slice());
    let leaf = webpki::EndEntityCert::try_from(&der).map_err(|e| chain(&e))?;
    let at = UnixTime::since_unix_epoch(Duration::from_secs(u64::try_from(now.0).unwrap_or(0)));
    let usage = webpki::KeyUsage::client_auth();
    leaf.verify_for_usage(webpki::ALL_VERIFICATION_ALGS, &anchors, &[], at, usage, None, None)
        .map(|_| ())
        .map_err(|e| chain(&e))
}

/// The DER of every `CERTIFICATE` block of a PEM text, in order.
///
/// # Errors
/// [`CertificateError::Malformed`] where a block is damaged; no block at all is an empty list.
pub fn pem_certificates(pem: &[u8]) -> Result<Vec<Vec<u8>>, CertificateError> {
    use rustls_pki_types::pem::PemObject;
    CertificateDer::pem_slice_iter(pem)
        .map(|der| der.map(|der| der.to_vec()).map_err(|_| CertificateError::Malformed))
        .collect()
}

/// The pin of a certificate: `sha256:` and the hex SHA-256 of its SubjectPublicKeyInfo (wire §b.3).
///
/// # Errors
/// [`CertificateError::Malformed`].
pub fn spki_pin(der: &[u8]) -> Result<String, CertificateError> {
    let (_, parsed) = X509Certificate::from_der(der).map_err(|_| CertificateError::Malformed)?;
    let digest = Sha256::digest(parsed.public_key().raw);
    Ok(format!("sha256:{}", crate::store::hex(&digest)))
}

fn certificate_pem(der: &[u8]) -> String {
    use base64::Engine;
    let body = base64::engine::general_purpose::STANDARD.encode(der);
    let mut out = String::from("-----BEGIN CERTIFICATE-----\n");
    for start in (0..body.len()).step_by(64) {
        out.push_str(&body[start..body.len().min(start + 64)]);
        out.push('\n');
    }
    out.push_str("-----END CERTIFICATE-----\n");
    out
}
