use std::fmt;
use std::sync::Arc;

use crate::{CertificateError, PrivateKey, SshCertificate, Timestamp, TlsCertificate, verify_chain};

/// Certificates as the cluster answered (`proto.Certs`, wire §b.1): nothing in them is checked.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Certificates {
    /// One authorized_keys line, or empty.
    pub ssh: String,
    /// PEM leaf.
    pub tls: String,
    /// PEM, user authority first, host authorities behind.
    pub tls_authorities: Vec<String>,
    /// authorized_keys lines.
    pub ssh_authorities: Vec<String>,
}

/// The bot's own identity: key and certificates that belong together, signed by the cluster's user authority.
pub struct Identity {
    /// The key of both certificates.
    pub key: Arc<PrivateKey>,
    /// What the bot shows to the cluster.
    pub tls: TlsCertificate,
    /// The SSH certificate; stored for those who switch back to the original.
    pub ssh: SshCertificate,
    /// PEM; the roots that the cluster is verified against.
    pub tls_authorities: Vec<String>,
    /// authorized_keys lines, each as it came.
    pub ssh_authorities: Vec<String>,
}

impl Identity {
    /// Puts key and certificates together that the cluster has issued just now, and verifies them. Where `now` is outside their time one of
    /// the clocks is wrong; the cluster goes by its own, and what it issued cost a token or a generation: that is no reason to refuse them.
    ///
    /// # Errors
    /// What does not fit: the key, the chain, a missing part.
    pub fn new(key: Arc<PrivateKey>, certificates: Certificates, now: Timestamp) -> Result<Self, CertificateError> {
        let identity = Self::unverified(key, certificates)?;
        let (after, before) = (identity.tls.after, identity.tls.before);
        verify_chain(&identity.tls, &identity.tls_authorities, now.min(before).max(after))?;
        Ok(identity)
    }

    /// As [`Identity::new`], without a look at the chain: a stored identity may have expired and still says what it was.
    ///
    /// # Errors
    /// As [`Identity::new`], but for the chain.
    pub fn unverified(key: Arc<PrivateKey>, certificates: Certificates) -> Result<Self, CertificateError> {
        let tls = TlsCertificate::parse(certificates.tls.as_bytes())?;
        let ssh = SshCertificate::parse(&certificates.ssh)?;
        if !tls.matches(key.public_key()) || ssh.public_key != key.public_key().ssh_wire() {
            return Err(CertificateError::Key);
        }
        if certificates.tls_authorities.is_empty() {
            return Err(CertificateError::Chain("no authority came with it".into()));
        }
        let Certificates { tls_authorities, ssh_authorities, .. } = certificates;
        Ok(Self { key, tls, ssh, tls_authorities, ssh_authorities })
    }

    /// Name of the cluster that issued it.
    pub fn cluster(&self) -> &str {
        &self.tls.cluster
    }

    /// The bot's user, `bot-<name>`.
    pub fn user(&self) -> &str {
        &self.tls.subject.user
    }

    /// The moment from which the cluster refuses it.
    pub fn expires(&self) -> Timestamp {
        self.tls.before
    }
}

/// The words that log lines have always used (surface §D.3).
impl fmt::Display for Identity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let subject = &self.tls.subject;
        let duration = self.tls.before.since(self.tls.after).as_secs();
        let principals: Vec<_> =
            self.ssh.principals.iter().filter(|p| !p.starts_with("-teleport-nologin-")).map(String::as_str).collect();
        write!(
            f,
            "valid: after={}, before={}, duration={} | kind=tls, renewable={}, disallow-reissue={}, roles=[{}], principals=[{}], generation={}",
            self.tls.after,
            self.tls.before,
            go_duration(duration),
            subject.renewable(),
            subject.disallow_reissue(),
            subject.roles.join(" "),
            principals.join(" "),
            subject.generation(),
        )
    }
}

impl fmt::Debug for Identity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Identity({self})")
    }
}

fn go_duration(seconds: u64) -> String {
    let (h, m, s) = (seconds / 3600, seconds / 60 % 60, seconds % 60);
    match (h, m) {
        (0, 0) => format!("{s}s"),
        (0, _) => format!("{m}m{s}s"),
        _ => format!("{h}h{m}m{s}s"),
    }
}
