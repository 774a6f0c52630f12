//! The little authority behind the proxy's web certificates, as a certificate vendor would be.

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex},
    time::SystemTime,
};

use anyhow::Result;
use rustls::{
    server::{ClientHello, ResolvesServerCert},
    sign::{CertifiedKey, SigningKey},
};
use rustls_pki_types::{CertificateDer, PrivatePkcs8KeyDer};

use super::tls::{SERVER_LIFE, provider};
use crate::pki::{
    private_key::{PrivateKey, pem},
    subject::{COMMON_NAME, Name, ORGANIZATION, Subject},
    x509::{self, BACKDATE, Purpose, Template},
};

/// The proxy's name on the web. Applications live below it; a wildcard there is refused by OpenSSL, so every name gets
/// a certificate of its own when it is first asked for.
const NAME: &str = "localhost";

/// Signs web certificates and keeps them.
pub(crate) struct WebAuthority {
    /// PEM.
    pub pem: String,
    authority: PrivateKey,
    key: PrivateKey,
    signer: Arc<dyn SigningKey>,
    issued: Mutex<BTreeMap<String, Arc<CertifiedKey>>>,
}

impl WebAuthority {
    pub fn new() -> Result<Self> {
        let authority = PrivateKey::p256()?;
        let now = SystemTime::now();
        let template = Template {
            serial: rand::random(),
            subject: name()?,
            issuer: name()?,
            key: authority.public(),
            not_before: now - BACKDATE,
            not_after: now + SERVER_LIFE,
            purpose: Purpose::Authority,
        };
        let root = x509::sign(template, &authority)?;
        let key = PrivateKey::p256()?;
        let signer = provider().key_provider.load_private_key(PrivatePkcs8KeyDer::from(key.to_pkcs8()?).into())?;
        Ok(Self { pem: pem("CERTIFICATE", &root), authority, key, signer, issued: Mutex::default() })
    }

    fn issue(&self, server_name: &str) -> Result<Arc<CertifiedKey>> {
        let now = SystemTime::now();
        let template = Template {
            serial: rand::random(),
            subject: Subject::default().with(COMMON_NAME, [server_name])?.name(),
            issuer: name()?,
            key: self.key.public(),
            not_before: now - BACKDATE,
            not_after: now + SERVER_LIFE,
            purpose: Purpose::Leaf {
                issuer: self.authority.public(),
                names: &[server_name],
                addresses: &[[127, 0, 0, 1]],
            },
        };
        let certificate = CertificateDer::from(x509::sign(template, &self.authority)?);
        Ok(Arc::new(CertifiedKey::new(vec![certificate], self.signer.clone())))
    }
}

impl std::fmt::Debug for WebAuthority {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.write_str("WebAuthority")
    }
}

impl ResolvesServerCert for WebAuthority {
    fn resolve(&self, hello: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        let wanted = hello.server_name().filter(|name| name.strip_suffix(NAME).is_some_and(|app| app.ends_with('.')));
        let wanted = wanted.unwrap_or(NAME);
        let mut issued = self.issued.lock().unwrap_or_else(|poisoned| poisoned.into_inner());
        if let Some(found) = issued.get(wanted) {
            return Some(found.clone());
        }
        let made = self.issue(wanted).ok()?;
        issued.insert(wanted.to_owned(), made.clone());
        Some(made)
    }
}

fn name() -> Result<Name> {
    let subject = Subject::default().with(ORGANIZATION, ["Stand-in"])?;
    Ok(subject.with(COMMON_NAME, ["Stand-in Web Authority"])?.name())
}
