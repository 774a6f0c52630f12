//! TLS configurations of the two ports.

use std::{
    sync::Arc,
    time::{Duration, SystemTime},
};

use anyhow::{Context, Result};
use rustls::{
    RootCertStore, ServerConfig,
    crypto::CryptoProvider,
    server::{ResolvesServerCert, WebPkiClientVerifier},
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
pub(super) const SERVER_LIFE: Duration = Duration::from_secs(30 * 24 * 3600);

/// What the ports show and whom they trust, at one time.
pub(crate) struct TlsConfigs {
    /// gRPC on the auth port: ALPN `h2`.
    pub auth_grpc: Arc<ServerConfig>,
    /// JSON on the auth port: no ALPN, as Go answers a client that offers `http/1.1` only.
    pub auth_json: Arc<ServerConfig>,
    /// The web, with HTTP/1.1 and HTTP/2.
    pub web: Arc<ServerConfig>,
    /// The web for a client whose protocols are all unknown: no ALPN.
    pub web_bare: Arc<ServerConfig>,
    /// Tunnels of agents.
    pub web_tunnel: Arc<ServerConfig>,
    /// Joining by gRPC at the proxy.
    pub web_grpc: Arc<ServerConfig>,
}

impl TlsConfigs {
    pub fn new(options: &Options, authorities: &[Authority], web: &Arc<WebAuthority>) -> Result<Self> {
        let of = |kind| authorities.iter().find(|authority| authority.kind == kind).context("an authority is missing");
        let (host, user) = (of(AuthorityKind::Host)?, of(AuthorityKind::User)?);
        let mut roots = RootCertStore::empty();
        for keys in user.trusted().chain(host.trusted()) {
            roots.add(CertificateDer::from(keys.certificate.clone()))?;
        }
        let roots = Arc::new(roots);
        let (certificate, key) = server_certificate(options, &host.serving)?;
        let signer = provider().key_provider.load_private_key(PrivatePkcs8KeyDer::from(key).into())?;
        let shown = Arc::new(CertifiedKey::new(vec![CertificateDer::from(certificate)], signer));
        let shown: Arc<dyn ResolvesServerCert> = Arc::new(SingleCertAndKey::from(shown));
        let auth = |protocols: &[&str]| config(&roots, shown.clone(), protocols);
        let web = |protocols: &[&str]| config(&roots, web.clone(), protocols);
        Ok(Self {
            auth_grpc: auth(&["h2"])?,
            auth_json: auth(&[])?,
            web: web(&["h2", "http/1.1"])?,
            web_bare: web(&[])?,
            web_tunnel: web(&["teleport-reversetunnelv2", "teleport-reversetunnel"])?,
            web_grpc: web(&["h2", "teleport-proxy-grpc"])?,
        })
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

/// Client certificates are optional and verified where given (wire §f.1).
fn config(
    roots: &Arc<RootCertStore>,
    shown: Arc<dyn ResolvesServerCert>,
    protocols: &[&str],
) -> Result<Arc<ServerConfig>> {
    let verifier = WebPkiClientVerifier::builder_with_provider(roots.clone(), provider()).allow_unauthenticated();
    let mut config = ServerConfig::builder_with_provider(provider())
        .with_protocol_versions(&[&TLS13, &TLS12])?
        .with_client_cert_verifier(verifier.build()?)
        .with_cert_resolver(shown);
    config.alpn_protocols = protocols.iter().map(|protocol| protocol.as_bytes().to_vec()).collect();
    Ok(Arc::new(config))
}

/// The cryptography of both ports.
pub(super) fn provider() -> Arc<CryptoProvider> {
    Arc::new(rustls::crypto::aws_lc_rs::default_provider())
}
