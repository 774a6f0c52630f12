//! Whom to believe: roots, pins, and the one place where a server is not verified.

use std::sync::Arc;

use identity::{Failure, FailureKind, pem_certificates, spki_pin};
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::client::verify_server_name;
use rustls::crypto::{CryptoProvider, aws_lc_rs};
use rustls::server::ParsedCertificate;
use rustls::{ClientConfig, DigitallySignedStruct, RootCertStore, SignatureScheme};
use rustls_pki_types::{CertificateDer, PrivateKeyDer, PrivatePkcs8KeyDer, ServerName, UnixTime};
use tracing::warn;

use crate::channel::API_DOMAIN;
use crate::error::RouteError;

/// What a server's certificate is verified against.
#[derive(Debug, Clone)]
pub(crate) enum Trust {
    /// The machine's roots; SSL_CERT_FILE and SSL_CERT_DIR replace them.
    System,
    /// These certificates alone, PEM.
    Only(Vec<String>),
    /// Any certificate with the name that those of every cluster carry, or the one dialed: only inside a verified connection (wire §b.4).
    Cluster,
    /// Nothing: `insecure`, or the step that fetches what a pin is compared with.
    Blind,
}

/// What the client shows.
pub(crate) struct ClientCertificate<'a> {
    pub(crate) der: &'a [u8],
    pub(crate) pkcs8: &'a [u8],
}

/// TLS settings for one purpose. Exactly one client certificate: servers refuse chains (wire §f.1).
pub(crate) fn client_config(
    trust: &Trust,
    client: Option<ClientCertificate<'_>>,
    alpn: &[&str],
) -> Result<Arc<ClientConfig>, Failure> {
    let internal = |e: rustls::Error| Failure::new(FailureKind::Internal, format!("TLS cannot be set up: {e}"));
    let provider = Arc::new(aws_lc_rs::default_provider());
    let builder = ClientConfig::builder_with_provider(provider.clone())
        .with_safe_default_protocol_versions()
        .map_err(internal)?;
    let builder = match trust {
        Trust::Blind => builder.dangerous().with_custom_certificate_verifier(BlindVerifier::new(provider, false)),
        Trust::Cluster => builder.dangerous().with_custom_certificate_verifier(BlindVerifier::new(provider, true)),
        Trust::System => builder.with_root_certificates(system_roots()?),
        Trust::Only(pems) => builder.with_root_certificates(roots(pems)?),
    };
    let mut config = match client {
        None => builder.with_no_client_auth(),
        Some(client) => {
            let chain = vec![CertificateDer::from(client.der.to_vec())];
            let key = PrivateKeyDer::Pkcs8(PrivatePkcs8KeyDer::from(client.pkcs8.to_vec()));
            builder.with_client_auth_cert(chain, key).map_err(internal)?
        }
    };
    config.alpn_protocols = alpn.iter().map(|protocol| protocol.as_bytes().to_vec()).collect();
    Ok(Arc::new(config))
}

fn system_roots() -> Result<RootCertStore, Failure> {
    let mut store = RootCertStore::empty();
    let loaded = rustls_native_certs::load_native_certs();
    for error in &loaded.errors {
        warn!(target: "AUTH", "A trusted root cannot be read: {error}");
    }
    store.add_parsable_certificates(loaded.certs);
    if store.is_empty() {
        let message = "this machine trusts no authority: install `ca-certificates`, or set SSL_CERT_FILE";
        return Err(Failure::new(FailureKind::InvalidConfig, message));
    }
    Ok(store)
}

fn roots(pems: &[String]) -> Result<RootCertStore, Failure> {
    let mut store = RootCertStore::empty();
    for pem in pems {
        let certificates = pem_certificates(pem.as_bytes());
        for der in
            certificates.map_err(|e| Failure::new(FailureKind::Denied, format!("an authority's certificate: {e}")))?
        {
            store.add_parsable_certificates([CertificateDer::from(der)]);
        }
    }
    if store.is_empty() {
        return Err(Failure::new(
            FailureKind::InvalidConfig,
            "no usable authority certificate: `ca_path` must hold PEM certificates",
        ));
    }
    Ok(store)
}

/// Compares every authority that an unverified server sent with the pins (wire §b.3).
pub(crate) fn check_pins(pem: &str, pins: &[String]) -> Result<(), RouteError> {
    let denied = |message: String| RouteError::answer(Failure::new(FailureKind::Denied, message));
    let certificates = pem_certificates(pem.as_bytes()).map_err(|e| denied(e.to_string()))?;
    if certificates.is_empty() {
        return Err(denied("the auth server sent no authority to compare with `ca_pins`".into()));
    }
    for der in certificates {
        let pin = spki_pin(&der).map_err(|e| denied(e.to_string()))?;
        if !pins.iter().any(|wanted| wanted.eq_ignore_ascii_case(&pin)) {
            return Err(denied(format!(
                "the cluster's authority has the pin `{pin}`, which is not among `ca_pins`: wrong cluster, an attacker, or a rotated authority (`tctl status` shows the pin)"
            )));
        }
    }
    Ok(())
}

/// Believes no authority, and still checks that the server holds its key.
#[derive(Debug)]
struct BlindVerifier {
    provider: Arc<CryptoProvider>,
    /// Accept certificates of a cluster, or of the name that was dialed.
    of_cluster: bool,
}

impl BlindVerifier {
    fn new(provider: Arc<CryptoProvider>, of_cluster: bool) -> Arc<Self> {
        Arc::new(Self { provider, of_cluster })
    }
}

impl ServerCertVerifier for BlindVerifier {
    fn verify_server_cert(
        &self,
        certificate: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        name: &ServerName<'_>,
        _: &[u8],
        _: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        if self.of_cluster {
            let certificate = ParsedCertificate::try_from(certificate)?;
            let cluster = ServerName::try_from(API_DOMAIN).map_err(|_| rustls::Error::UnsupportedNameType)?;
            verify_server_name(&certificate, &cluster).or_else(|_| verify_server_name(&certificate, name))?;
        }
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        rustls::crypto::verify_tls12_signature(message, cert, dss, &self.provider.signature_verification_algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        rustls::crypto::verify_tls13_signature(message, cert, dss, &self.provider.signature_verification_algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.provider.signature_verification_algorithms.supported_schemes()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn recorded_authority() -> String {
        let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/../../tests/recordings/v15/runs/oneshot-direct/files/app/");
        std::fs::read_to_string(format!("{folder}teleport-host-ca.crt")).unwrap()
    }

    #[test]
    fn the_recorded_authority_has_the_recorded_pin() {
        let pin = "sha256:4f05b65f5e7f9e29df2a037d9a7ff824662db9750071ffa23025c4d907ea6cd9".to_owned();
        check_pins(&recorded_authority(), &["sha256:00".into(), pin]).unwrap();
    }

    #[test]
    fn one_authority_without_a_pin_refuses_and_shows_its_pin() {
        let error = check_pins(&recorded_authority(), &["sha256:00".into()]).unwrap_err();
        assert!(error.failure.message.contains("sha256:4f05b65f"), "{}", error.failure);
        assert!(!error.connection, "a wrong pin must not send us to another route");
        assert!(check_pins("", &["sha256:00".into()]).is_err());
    }
}
