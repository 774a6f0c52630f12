//! The cluster's certificate authorities and their rotation (wire §f.9, §h.3).

use std::{
    sync::Arc,
    time::{Duration, SystemTime},
};

use anyhow::Result;

use super::{
    private_key::{PrivateKey, pem},
    subject::{COMMON_NAME, Name, ORGANIZATION, SERIAL_NUMBER, Subject},
    x509::{self, Purpose, Template},
};
use crate::options::Release;

/// Ten years less leap days, as recorded.
const LIFETIME: Duration = Duration::from_secs(10 * 365 * 24 * 3600);

/// One of the cluster's authorities.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum AuthorityKind {
    /// Signs servers.
    Host,
    /// Signs bots and users.
    User,
    /// Signs databases.
    Db,
    /// Signs the proxy towards databases; served by the newest release only (wire §p).
    DbClient,
}

impl AuthorityKind {
    /// The name on the wire.
    pub fn name(self) -> &'static str {
        match self {
            Self::Host => "host",
            Self::User => "user",
            Self::Db => "db",
            Self::DbClient => "db_client",
        }
    }

    pub(crate) fn all(release: Release) -> &'static [Self] {
        match release {
            Release::V12 | Release::V15 => &[Self::Host, Self::User, Self::Db],
            Release::V17 | Release::Newest => &[Self::Host, Self::User, Self::Db, Self::DbClient],
        }
    }
}

/// A phase of a rotation, in the order a cluster goes through them (wire §f.9).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RotationPhase {
    /// A new key exists and is trusted, nothing is signed with it.
    Init,
    /// Clients are signed with the new key; servers still show the old.
    UpdateClients,
    /// Servers show the new key too.
    UpdateServers,
    /// Done: the old key is no longer trusted.
    Standby,
    /// Given up: back to the old key, the new one is still trusted.
    Rollback,
}

impl RotationPhase {
    /// The name on the wire.
    pub fn name(self) -> &'static str {
        match self {
            Self::Init => "init",
            Self::UpdateClients => "update_clients",
            Self::UpdateServers => "update_servers",
            Self::Standby => "standby",
            Self::Rollback => "rollback",
        }
    }
}

/// The keys of one authority at one time.
pub(crate) struct KeySet {
    pub tls: PrivateKey,
    /// DER.
    pub certificate: Vec<u8>,
    serial: u128,
    /// None for the authorities of databases.
    pub ssh: Option<PrivateKey>,
}

impl KeySet {
    pub fn generate(kind: AuthorityKind, cluster: &str, release: Release) -> Result<Self> {
        let database = matches!(kind, AuthorityKind::Db | AuthorityKind::DbClient);
        let modern = release.is_modern();
        let tls = if modern && !database { PrivateKey::p256()? } else { PrivateKey::rsa()? };
        let ssh = match (database, modern) {
            (true, _) => None,
            (false, true) => Some(PrivateKey::ed25519()?),
            (false, false) => Some(PrivateKey::rsa()?),
        };
        let serial = rand::random::<u128>();
        let now = SystemTime::now();
        let certificate = x509::sign(
            Template {
                serial,
                subject: name(cluster, serial)?,
                issuer: name(cluster, serial)?,
                key: tls.public(),
                not_before: now,
                not_after: now + LIFETIME,
                purpose: Purpose::Authority,
            },
            &tls,
        )?;
        Ok(Self { tls, certificate, serial, ssh })
    }

    /// The issuer name of what this key set signs.
    pub fn issuer(&self, cluster: &str) -> Result<Name> {
        name(cluster, self.serial)
    }

    pub fn certificate_pem(&self) -> String {
        pem("CERTIFICATE", &self.certificate)
    }

    /// The SSH key as an `authorized_keys` line.
    pub fn ssh_line(&self) -> Option<String> {
        self.ssh.as_ref().map(|key| key.public().to_authorized_line())
    }
}

/// An authority with what it trusts besides its active keys.
#[derive(Clone)]
pub(crate) struct Authority {
    pub kind: AuthorityKind,
    pub active: Arc<KeySet>,
    pub additional: Option<Arc<KeySet>>,
    /// What servers are signed with: lags behind `active` until the servers' phase.
    pub serving: Arc<KeySet>,
    pub phase: Option<RotationPhase>,
    /// UUIDs and times a resource carries.
    pub rotation_id: String,
    pub rotation_started: Option<SystemTime>,
    pub revision: String,
    pub changed: SystemTime,
}

impl Authority {
    pub fn new(kind: AuthorityKind, cluster: &str, release: Release) -> Result<Self> {
        let active = Arc::new(KeySet::generate(kind, cluster, release)?);
        Ok(Self {
            kind,
            serving: active.clone(),
            active,
            additional: None,
            phase: None,
            rotation_id: String::new(),
            rotation_started: None,
            revision: crate::state::uuid(),
            changed: SystemTime::now(),
        })
    }

    /// Active keys first.
    pub fn trusted(&self) -> impl Iterator<Item = &KeySet> {
        std::iter::once(&*self.active).chain(self.additional.as_deref())
    }

    /// Moves to a phase. Phases may be skipped: each makes what it needs.
    pub fn rotate(&mut self, phase: RotationPhase, cluster: &str, release: Release) -> Result<()> {
        if self.additional.is_none() && phase != RotationPhase::Standby {
            self.additional = Some(Arc::new(KeySet::generate(self.kind, cluster, release)?));
            self.rotation_id = crate::state::uuid();
            self.rotation_started = Some(SystemTime::now());
        }
        let signs_with_new = |phase| matches!(phase, RotationPhase::UpdateClients | RotationPhase::UpdateServers);
        let swap = phase != RotationPhase::Standby && signs_with_new(phase) != self.phase.is_some_and(signs_with_new);
        if swap && let Some(other) = &mut self.additional {
            std::mem::swap(&mut self.active, other);
        }
        match phase {
            RotationPhase::UpdateServers | RotationPhase::Rollback => self.serving = self.active.clone(),
            RotationPhase::Standby => {
                self.serving = self.active.clone();
                self.additional = None;
            }
            RotationPhase::Init | RotationPhase::UpdateClients => {}
        }
        self.phase = Some(phase);
        self.revision = crate::state::uuid();
        self.changed = SystemTime::now();
        Ok(())
    }
}

/// `O`, `CN` and the serial number in decimal, in this order (recorded).
fn name(cluster: &str, serial: u128) -> Result<Name> {
    let subject = Subject::default().with(ORGANIZATION, [cluster])?.with(COMMON_NAME, [cluster])?;
    Ok(subject.with(SERIAL_NUMBER, [serial.to_string().as_str()])?.name())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn servers_show_the_new_key_only_from_their_own_phase_on() {
        let mut host = Authority::new(AuthorityKind::Host, "example", Release::Newest).unwrap();
        let old = host.active.serial;
        host.rotate(RotationPhase::Init, "example", Release::Newest).unwrap();
        assert_eq!((host.active.serial, host.trusted().count()), (old, 2));
        host.rotate(RotationPhase::UpdateClients, "example", Release::Newest).unwrap();
        assert_ne!(host.active.serial, old);
        assert_eq!((host.serving.serial, host.trusted().count()), (old, 2));
        host.rotate(RotationPhase::UpdateServers, "example", Release::Newest).unwrap();
        assert_eq!(host.serving.serial, host.active.serial);
        host.rotate(RotationPhase::Standby, "example", Release::Newest).unwrap();
        assert_eq!(host.trusted().count(), 1);
        assert_ne!(host.active.serial, old);
    }

    #[test]
    fn a_rollback_returns_to_the_old_key() {
        let mut user = Authority::new(AuthorityKind::User, "example", Release::Newest).unwrap();
        let old = user.active.serial;
        user.rotate(RotationPhase::UpdateClients, "example", Release::Newest).unwrap();
        user.rotate(RotationPhase::Rollback, "example", Release::Newest).unwrap();
        assert_eq!(user.active.serial, old);
    }
}
