//! TLS configurations of the two ports.

use std::{
    sync::Arc,
    time::{Duration, SystemTime},
};

use anyhow::{Context, Result};
use rustls::{
    RootCertStore, ServerConfig,
    crypto::CryptoProvider,
    server::WebPkiClientVerifier,
    sign::{CertifiedKey, SingleCertAndKey},
    version::{TLS12, TLS13},
};
use rustls_pki_types::{CertificateDer, PrivatePkcs8KeyDer};

use super::web_authority::WebAuthority;
use crate::{
    AuthorityKind,
    options::Options,
    pki::{
        authority::{Authority, KeySet},
        private_key::PrivateKey,
        subject::{COMMON_NAME, ORGANIZATION, Subject},
        x509::{self, BACKDATE, Purpose, Template},
    },
};

/// The names a server of a cluster answers to, whatever the cluster is called (wire §f.1).
const CLUSTER_NAMES: &[&str] = &["*.teleport.cluster.local", "teleport.cluster.local", "localhost"];

/// Life of server certificates: longer than any test.
pub(crate) const SERVER_LIFE: Duration = Duration::from_secs(30 * 24 * 3600);

/// Which certificate a server shows, and with it whom it asks for one.
#[derive(Clone, Copy)]
pub(crate) enum Shown {
    /// The cluster's own: auth, and whatever speaks inside an upgraded connection or a database protocol.
    Host,
    /// The proxy's on the web.
    Web,
    /// That of a load balancer in front of the proxy: from the same vendor, and no client certificates.
    Balancer,
}

/// What the ports show and whom they trust, at one time.
pub(crate) struct TlsConfigs {
    host: ServerConfig,
    web: ServerConfig,
    balancer: ServerConfig,
}

impl TlsConfigs {
    pub fn new(options: &Options, authorities: &[Authority], web: &Arc<WebAuthority>) -> Result<Self> {
        let of = |kind| authorities.iter().find(|authority| authority.kind == kind).context("an authority is missing");
        let (host, user) = (of(AuthorityKind::Host)?, of(AuthorityKind::User)?);
        let mut roots = RootCertStore::empty();
        for keys in user.trusted().chain(host.trusted()) {
            roots.add(CertificateDer::from(keys.certificate.clone()))?;
        }
        // Client certificates are optional and verified where given (wire §f.1).
        let verifier =
            WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider()).allow_unauthenticated().build()?;
        let (certificate, key) = server_certificate(options, &host.serving)?;
        let signer = provider().key_provider.load_private_key(PrivatePkcs8KeyDer::from(key).into())?;
        let own = Arc::new(CertifiedKey::new(vec![CertificateDer::from(certificate)], signer));
        let builder = || ServerConfig::builder_with_provider(provider()).with_protocol_versions(&[&TLS13, &TLS12]);
        Ok(Self {
            host: builder()?
                .with_client_cert_verifier(verifier.clone())
                .with_cert_resolver(Arc::new(SingleCertAndKey::from(own))),
            web: builder()?.with_client_cert_verifier(verifier).with_cert_resolver(web.clone()),
            balancer: builder()?.with_no_client_auth().with_cert_resolver(web.clone()),
        })
    }

    /// The configuration of a server that negotiates one of these protocols, the best first; none: no ALPN at all.
    pub fn offering(&self, shown: Shown, protocols: &[impl AsRef<str>]) -> Arc<ServerConfig> {
        let mut config = match shown {
            Shown::Host => self.host.clone(),
            Shown::Web => self.web.clone(),
            Shown::Balancer => self.balancer.clone(),
        };
        config.alpn_protocols = protocols.iter().map(|protocol| protocol.as_ref().as_bytes().to_vec()).collect();
        Arc::new(config)
    }
}

/// A host certificate of the cluster, DER, with its key, PKCS#8.
fn server_certificate(options: &Options, authority: &KeySet) -> Result<(Vec<u8>, Vec<u8>)> {
    let key = PrivateKey::p256()?;
    let now = SystemTime::now();
    let subject = Subject::default().with(ORGANIZATION, ["Auth"])?;
    let template = Template {
        serial: rand::random(),
        subject: subject.with(COMMON_NAME, [format!("stand-in.{}", options.cluster_name).as_str()])?.name(),
        issuer: authority.issuer(&options.cluster_name)?,
        key: key.public(),
        not_before: now - BACKDATE,
        not_after: now + SERVER_LIFE,
        purpose: Purpose::Leaf { issuer: authority.tls.public(), names: CLUSTER_NAMES, addresses: &[[127, 0, 0, 1]] },
    };
    Ok((x509::sign(template, &authority.tls)?, key.to_pkcs8()?))
}

/// The cryptography of both ports.
pub(super) fn provider() -> Arc<CryptoProvider> {
    Arc::new(rustls::crypto::aws_lc_rs::default_provider())
}
