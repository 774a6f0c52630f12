//! Redeems a join token: the part all ways of joining share (wire §b).

use std::time::{Duration, SystemTime};

use anyhow::Context;

use super::{
    certificates,
    grpc::{Connection, locked},
    refusal::Refusal,
    resources::BOT_SESSION,
};
use crate::{
    evidence::{Allow, rules},
    pki::{issue::Grant, public_key::PublicKey, ssh},
    state::{Bot, Token, uuid},
};

/// Life of a certificate when the client asks for none (wire §b.1).
const DEFAULT_LIFE: Duration = Duration::from_secs(3600);

/// What a bot brings to join.
pub(crate) struct Application<'a> {
    pub role: &'a str,
    pub token: &'a str,
    pub proof: Proof<'a>,
    pub ssh_key: PublicKey,
    pub tls_key: PublicKey,
    pub expires: Option<SystemTime>,
}

/// How a bot proves who it is.
pub(crate) enum Proof<'a> {
    /// The token's name is the secret; only the newest protocol has a place for another one.
    Secret(Option<&'a str>),
    IdToken(&'a str),
    Azure {
        challenge: &'a str,
        attested_data: &'a [u8],
        /// What clients of the newest protocol have to send along.
        intermediate: Option<&'a [u8]>,
        access_token: &'a str,
    },
    Iam {
        challenge: &'a str,
        request: &'a [u8],
    },
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
        let renewable = matches!(token.allow, Allow::Secret);
        if !state.options.release.is_modern() && bot.generation > 0 && token.uses_once {
            return Err(Refusal::BadParameter(format!(
                "user {user:?} has already been issued a renewable certificate and cannot be issued another; \
                 consider deleting and recreating the bot"
            )));
        }
        // Every other method joins again instead of renewing (wire §g.2).
        if renewable {
            bot.generation = 1;
        }
        // Who joins again as itself stays the same instance (wire §d.1).
        let caller = connection.caller.as_ref().filter(|caller| caller.user == user);
        bot.instance = caller.and_then(|caller| caller.bot_instance.clone()).unwrap_or_else(uuid);
        bot.roles.clone_from(&token.roles);
        // Only now: the join of a locked bot spends its first generation (seen of version 15).
        if let Some(message) = state.faults.lock_on(&user) {
            return Err(locked(&user, &message));
        }
        let grant = Grant {
            roles: vec![user.clone()],
            user,
            generation: renewable.then_some(1),
            bot: state.options.release.is_modern().then(|| (bot.name.clone(), bot.instance.clone())),
            ..certificates::bare(connection)
        };
        if token.uses_once {
            registry.tokens.remove(application.token);
        }
        grant
    };
    let wanted = application.expires.unwrap_or_else(|| SystemTime::now() + DEFAULT_LIFE);
    let not_after = certificates::capped(state, wanted).min(SystemTime::now() + BOT_SESSION);
    let authority = state.authority(crate::AuthorityKind::User, |user| Ok(user.active.clone()))?;
    Ok(Admission {
        ssh: grant.sign_ssh(&application.ssh_key, not_after, &authority)?,
        tls: grant.sign_x509(&application.tls_key, not_after, &authority)?,
    })
}

/// The join method of a token.
pub(crate) fn method(connection: &Connection, name: &str) -> Option<String> {
    connection.state.registry().tokens.get(name).map(|token| token.allow.method().to_owned())
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
            "node \"\" [] can not join the cluster, the token does not allow {:?} role",
            application.role
        )));
    }
    let token = connection.state.registry().tokens.get(application.token).cloned();
    let token = token.ok_or_else(|| expired(application.role))?;
    check_proof(connection, &token, application)
}

fn check_proof(connection: &Connection, token: &Token, application: &Application<'_>) -> Result<(), Refusal> {
    let options = &connection.state.options;
    let checked = match (&token.allow, &application.proof) {
        (Allow::Secret, Proof::Secret(given)) => {
            let wrong = given.is_some_and(|given| token.secret.as_deref().is_some_and(|secret| secret != given));
            return if wrong { Err(expired(application.role)) } else { Ok(()) };
        }
        (Allow::IdToken(rules), Proof::IdToken("")) => {
            return Err(Refusal::BadParameter(rules::no_id_token(&rules.method)));
        }
        (Allow::IdToken(rules), Proof::IdToken(jwt)) => {
            rules::check_id_token(jwt, &options.platforms, rules, &options.cluster_name)
        }
        (Allow::Azure(rules), Proof::Azure { challenge, attested_data, intermediate, access_token }) => {
            let cloud = options.platforms.azure.as_ref().context("the cluster does not trust Azure");
            let machine = cloud.and_then(|cloud| cloud.verify(challenge, attested_data, *intermediate, access_token));
            machine.and_then(|machine| rules::check_azure(&machine, rules))
        }
        (Allow::Iam(rules), Proof::Iam { challenge, request }) => {
            rules::check_iam(request, challenge, &options.platforms, rules)
        }
        (_, Proof::Azure { .. }) => return Err(unsupported("Azure")),
        (_, Proof::Iam { .. }) => return Err(unsupported("IAM")),
        (other, _) => {
            let method = other.method();
            return Err(Refusal::AccessDenied(format!(
                "this token is only valid for the {method} join method but the node has connected to the wrong endpoint, \
                 make sure your node is configured to use the {method} join method"
            )));
        }
    };
    checked.map_err(|error| Refusal::AccessDenied(format!("{error:#}")))
}

fn unsupported(method: &str) -> Refusal {
    Refusal::AccessDenied(format!("this token does not support the {method} join method"))
}

fn expired(role: &str) -> Refusal {
    Refusal::AccessDenied(format!("\"\" can not join the cluster with role {role:?}, token expired or not found"))
}
