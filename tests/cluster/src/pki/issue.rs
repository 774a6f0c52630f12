//! Signs the two certificates of a user: X.509 and SSH over what was granted (wire §h.1, §h.2, §h.4).

use std::time::SystemTime;

use anyhow::{Context, Result};

use super::{
    authority::KeySet,
    public_key::PublicKey,
    ssh,
    subject::{
        APP_CLUSTER, APP_NAME, APP_PUBLIC_ADDRESS, APP_SESSION, BOT_INSTANCE, BOT_NAME, CLUSTER, COMMON_NAME,
        DATABASE_NAME, DATABASE_NAMES, DATABASE_PROTOCOL, DATABASE_SERVICE, DATABASE_USER, DATABASE_USERS,
        DISALLOW_REISSUE, GENERATION, IMPERSONATOR, KEY_POLICY, LOCALITY, LOGIN_IP, Name, ORGANIZATION, POSTAL_CODE,
        RENEWABLE, STREET, Subject, USER_TYPE,
    },
    x509::{self, BACKDATE, Purpose},
};

/// The principal every user certificate carries: it lets a bot reach the proxy's tunnel.
const INTERNAL_JOIN: &str = "-teleport-internal-join";

/// What a certificate entitles to.
#[derive(Debug, Clone, Default)]
pub(crate) struct Grant {
    pub user: String,
    pub roles: Vec<String>,
    /// SSH logins; empty gives one that nobody has.
    pub logins: Vec<String>,
    pub cluster: String,
    /// The leaf cluster it is for; empty means the own one.
    pub leaf: String,
    /// Empty where the release does not name it.
    pub login_ip: String,
    /// JSON.
    pub traits: &'static str,
    /// Set on a renewable certificate.
    pub generation: Option<u64>,
    /// Set on a certificate made by impersonation, which cannot be reissued.
    pub impersonator: Option<String>,
    pub app: Option<AppGrant>,
    pub database: Option<DatabaseGrant>,
    /// Bot name and instance: newer releases name them.
    pub bot: Option<(String, String)>,
}

/// The route of an application certificate.
#[derive(Debug, Clone, Default)]
pub(crate) struct AppGrant {
    pub name: String,
    pub session: String,
    pub public_address: String,
    pub cluster: String,
}

/// The route of a database certificate.
#[derive(Debug, Clone, Default)]
pub(crate) struct DatabaseGrant {
    pub service: String,
    pub protocol: String,
    pub user: String,
    pub name: String,
}

impl Grant {
    /// DER.
    pub fn sign_x509(&self, key: &PublicKey, not_after: SystemTime, authority: &KeySet) -> Result<Vec<u8>> {
        let template = x509::Template {
            serial: rand::random(),
            subject: self.subject()?,
            issuer: authority.issuer(&self.cluster)?,
            key,
            not_before: SystemTime::now() - BACKDATE,
            not_after,
            purpose: Purpose::Leaf { issuer: authority.tls.public(), names: &[], addresses: &[] },
        };
        x509::sign(template, &authority.tls)
    }

    pub fn sign_ssh(&self, key: &PublicKey, not_after: SystemTime, authority: &KeySet) -> Result<ssh::Certificate> {
        let template = ssh::Template {
            kind: ssh::Kind::User,
            key,
            key_id: &self.user,
            principals: &self.principals(),
            valid_after: SystemTime::now() - BACKDATE,
            valid_before: not_after,
            extensions: self.extensions()?,
        };
        ssh::sign(template, authority.ssh.as_ref().context("this authority has no SSH key")?)
    }

    fn route(&self) -> &str {
        if self.leaf.is_empty() { &self.cluster } else { &self.leaf }
    }

    fn principals(&self) -> Vec<String> {
        let nobody = [format!("-teleport-nologin-{}", crate::state::uuid())];
        let logins = if self.logins.is_empty() { &nobody[..] } else { &self.logins };
        logins.iter().cloned().chain([INTERNAL_JOIN.to_owned()]).collect()
    }

    /// In the recorded order.
    fn subject(&self) -> Result<Name> {
        let app = self.app.clone().unwrap_or_default();
        let database = self.database.clone().unwrap_or_default();
        let generation = self.generation.map(|number| number.to_string());
        let impersonated = self.impersonator.is_some();
        let (bot_name, bot_instance) = self.bot.as_ref().map_or(("", ""), |(name, instance)| (name, instance));
        let flag = |set: bool, value: &'static str| if set { value } else { "" };
        let mut subject = Subject::default()
            .with(LOCALITY, self.principals().iter().map(String::as_str))?
            .with(STREET, [self.route()])?
            .with(POSTAL_CODE, [self.traits])?
            .with(ORGANIZATION, self.roles.iter().map(String::as_str))?
            .with(COMMON_NAME, [self.user.as_str()])?;
        let private = [
            (APP_SESSION, app.session.as_str()),
            (APP_PUBLIC_ADDRESS, &app.public_address),
            (APP_CLUSTER, &app.cluster),
            (APP_NAME, &app.name),
            (RENEWABLE, flag(generation.is_some(), "true")),
            (CLUSTER, &self.cluster),
            (LOGIN_IP, &self.login_ip),
            (DATABASE_SERVICE, &database.service),
            (DATABASE_PROTOCOL, &database.protocol),
            (DATABASE_USER, &database.user),
            (DATABASE_NAME, &database.name),
            (DATABASE_NAMES, flag(impersonated, "*")),
            (DATABASE_USERS, flag(impersonated, "*")),
            (IMPERSONATOR, self.impersonator.as_deref().unwrap_or_default()),
            (DISALLOW_REISSUE, flag(impersonated, "true")),
            (GENERATION, generation.as_deref().unwrap_or_default()),
            (KEY_POLICY, "none"),
            (USER_TYPE, flag(self.bot.is_some(), "local")),
            (BOT_NAME, bot_name),
            (BOT_INSTANCE, bot_instance),
        ];
        for (oid, value) in private {
            if !value.is_empty() {
                subject = subject.with(oid, [value])?;
            }
        }
        Ok(subject.name())
    }

    fn extensions(&self) -> Result<Vec<(&'static str, String)>> {
        let roles = serde_json::json!({ "version": "v1", "roles": self.roles });
        let mut list = vec![
            ("permit-port-forwarding", String::new()),
            ("permit-pty", String::new()),
            ("private-key-policy", "none".to_owned()),
            ("teleport-roles", serde_json::to_string(&roles)?),
            ("teleport-route-to-cluster", self.route().to_owned()),
            ("teleport-traits", self.traits.to_owned()),
        ];
        if !self.login_ip.is_empty() {
            list.push(("login-ip", self.login_ip.clone()));
        }
        if let Some(generation) = self.generation {
            list.extend([("generation", generation.to_string()), ("renewable", String::new())]);
        }
        if let Some(impersonator) = &self.impersonator {
            list.extend([("impersonator", impersonator.clone()), ("disallow-reissue", String::new())]);
        }
        if let Some((name, instance)) = &self.bot {
            list.push(("bot-name@goteleport.com", name.clone()));
            list.push(("bot-instance-id@goteleport.com", instance.clone()));
        }
        Ok(list)
    }
}
