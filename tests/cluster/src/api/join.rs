//! Redeems a join token: the part all ways of joining share (wire §b).

use std::time::{Duration, SystemTime};

use super::{certificates, grpc::Connection, refusal::Refusal};
use crate::{
    options::Release,
    pki::{issue::Grant, public_key::PublicKey, ssh},
    state::{Bot, uuid},
};

/// Life of a certificate when the client asks for none (wire §b.1).
const DEFAULT_LIFE: Duration = Duration::from_secs(3600);

/// What a bot brings to join.
pub(crate) struct Application<'a> {
    pub role: &'a str,
    pub token: &'a str,
    pub secret: Option<&'a str>,
    pub ssh_key: PublicKey,
    pub tls_key: PublicKey,
    pub expires: Option<SystemTime>,
}

/// What it gets.
pub(crate) struct Admission {
    pub ssh: ssh::Certificate,
    /// DER.
    pub tls: Vec<u8>,
}

/// Checks the token and signs the bot's first certificates.
pub(crate) fn redeem(connection: &Connection, application: &Application<'_>) -> Result<Admission, Refusal> {
    let state = &connection.state;
    check_token(connection, application)?;
    let grant = {
        let mut registry = state.registry();
        let token = registry.tokens.get(application.token).cloned().ok_or_else(|| expired(application.role))?;
        let user = format!("bot-{}", token.bot.replace(' ', "-"));
        let bot = registry.bots.entry(user.clone()).or_insert_with(|| Bot {
            name: token.bot.clone(),
            roles: token.roles.clone(),
            generation: 0,
            instance: String::new(),
        });
        if state.options.release == Release::V15 && bot.generation > 0 && token.uses_once {
            return Err(Refusal::BadParameter(format!(
                "user {user:?} has already been issued a renewable certificate and cannot be issued another; \
                 consider deleting and recreating the bot"
            )));
        }
        bot.generation = 1;
        bot.instance = uuid();
        bot.roles.clone_from(&token.roles);
        let grant = Grant {
            roles: vec![user.clone()],
            user,
            cluster: state.options.cluster_name.clone(),
            login_ip: connection.remote.ip().to_string(),
            generation: Some(1),
            bot: (state.options.release == Release::Newest).then(|| (bot.name.clone(), bot.instance.clone())),
            ..Grant::default()
        };
        if token.uses_once {
            registry.tokens.remove(application.token);
        }
        grant
    };
    let wanted = application.expires.unwrap_or_else(|| SystemTime::now() + DEFAULT_LIFE);
    let not_after = certificates::capped(state, wanted);
    let authority = state.authority(crate::AuthorityKind::User, |user| Ok(user.active.clone()))?;
    Ok(Admission {
        ssh: grant.sign_ssh(&application.ssh_key, not_after, &authority)?,
        tls: grant.sign_x509(&application.tls_key, not_after, &authority)?,
    })
}

/// Whether a token of this name would be admitted.
pub(crate) fn knows(connection: &Connection, name: &str) -> bool {
    let registry = connection.state.registry();
    registry.tokens.get(name).is_some_and(|token| token.expires.is_none_or(|expiry| SystemTime::now() < expiry))
}

fn check_token(connection: &Connection, application: &Application<'_>) -> Result<(), Refusal> {
    if application.token.is_empty() {
        return Err(Refusal::BadParameter("missing parameter Token".to_owned()));
    }
    if !knows(connection, application.token) {
        return Err(expired(application.role));
    }
    if application.role != "Bot" {
        return Err(Refusal::BadParameter(format!(
            "node \"\" can not join the cluster, the token does not allow {:?} role",
            application.role
        )));
    }
    let registry = connection.state.registry();
    let secret = registry.tokens.get(application.token).and_then(|token| token.secret.as_deref());
    match application.secret {
        // Only the newest protocol has a place for it.
        Some(given) if secret.is_some_and(|secret| secret != given) => Err(expired(application.role)),
        _ => Ok(()),
    }
}

fn expired(role: &str) -> Refusal {
    Refusal::AccessDenied(format!("\"\" can not join the cluster with role {role:?}, token expired or not found"))
}
