//! GenerateUserCerts: renewal, impersonation and routes (wire §f.5, §f.6, §g.2, §g.3).

use std::{
    sync::Arc,
    time::{Duration, SystemTime},
};

use super::{grpc::Connection, refusal::Refusal, resources::BOT_SESSION, sessions};
use crate::{
    AuthorityKind,
    options::Release,
    pki::{
        authority::KeySet,
        caller::Caller,
        issue::{AppGrant, DatabaseGrant, Grant},
        public_key::PublicKey,
    },
    state::State,
    wire::proto::{Certs, UserCertsRequest},
};

/// Answers one GenerateUserCerts.
pub(crate) fn generate(connection: &Arc<Connection>, request: &UserCertsRequest) -> Result<Certs, Refusal> {
    let (state, caller) = (&connection.state, connection.caller()?);
    if caller.disallow_reissue {
        return Err(denied("identity is not allowed to reissue certificates"));
    }
    if request.username != caller.user {
        return Err(Refusal::AccessDenied("access denied".to_owned()));
    }
    let wanted = system_time(request.expires.as_ref())
        .filter(|expiry| *expiry > SystemTime::now())
        .ok_or_else(|| denied("client credentials have expired, please relogin."))?;
    let mut not_after = capped(state, wanted);
    let impersonates = request.use_role_requests || !request.role_requests.is_empty();
    let mut grant = if impersonates {
        impersonation(connection, caller, request)?
    } else {
        if !caller.renewable {
            not_after = not_after.min(caller.not_after);
        }
        not_after = not_after.min(SystemTime::now() + BOT_SESSION);
        renewal(connection, caller)?
    };
    route(connection, &mut grant, request, not_after)?;
    let (ssh_key, tls_key) = keys(request, state.options.release)?;
    let authority = state.authority(AuthorityKind::User, |user| Ok(user.active.clone()))?;
    let ssh = ssh_key.map(|key| grant.sign_ssh(&key, not_after, &authority)).transpose()?;
    let tls = tls_key.map(|key| grant.sign_x509(&key, not_after, &authority)).transpose()?;
    let tls = tls.map(|der| crate::pki::private_key::pem("CERTIFICATE", &der)).unwrap_or_default();
    let outputs = impersonates || !caller.renewable;
    let kinds: &[_] = if outputs { &[AuthorityKind::User] } else { &[AuthorityKind::User, AuthorityKind::Host] };
    let (tls_ca_certs, ssh_ca_certs) = trusted(state, kinds)?;
    let ssh = ssh.map(|certificate| certificate.to_line().into_bytes()).unwrap_or_default();
    Ok(Certs { ssh, tls: tls.into_bytes(), tls_ca_certs, ssh_ca_certs })
}

/// Several texts of one kind.
type Many = Vec<Vec<u8>>;

/// Authorities as certificates travel with them: PEM, and `authorized_keys` lines.
pub(crate) fn trusted(state: &State, kinds: &[AuthorityKind]) -> Result<(Many, Many), Refusal> {
    let (mut tls, mut ssh) = (Vec::new(), Vec::new());
    for kind in kinds {
        state.authority(*kind, |authority| {
            tls.extend(authority.trusted().map(|keys| keys.certificate_pem().into_bytes()));
            ssh.extend(authority.trusted().filter_map(KeySet::ssh_line).map(String::into_bytes));
            Ok(())
        })?;
    }
    Ok((tls, ssh))
}

/// The wanted end of a certificate, but not beyond the cluster's longest life.
pub(crate) fn capped(state: &State, wanted: SystemTime) -> SystemTime {
    wanted.min(SystemTime::now() + state.registry().ttl_cap)
}

/// A protobuf time; none for absent and for Go's zero time.
pub(crate) fn system_time(stamp: Option<&prost_types::Timestamp>) -> Option<SystemTime> {
    let seconds = u64::try_from(stamp?.seconds).ok()?;
    Some(SystemTime::UNIX_EPOCH + Duration::new(seconds, u32::try_from(stamp?.nanos).unwrap_or(0)))
}

/// One key for both up to 16, two from 17 on; there the old field is reserved and read as unknown (wire §p).
fn keys(request: &UserCertsRequest, release: Release) -> Result<(Option<PublicKey>, Option<PublicKey>), Refusal> {
    let bad = |error: anyhow::Error| Refusal::BadParameter(format!("{error:#}"));
    if !release.is_modern() {
        let key = PublicKey::from_authorized_line(&request.public_key).map_err(bad)?;
        return Ok((Some(key.clone()), Some(key)));
    }
    let given = |bytes: &[u8]| (!bytes.is_empty()).then(|| bytes.to_vec());
    let ssh = given(&request.ssh_public_key).map(|line| PublicKey::from_authorized_line(&line)).transpose();
    let tls = given(&request.tls_public_key).map(|pem| PublicKey::from_pem(&pem)).transpose();
    match (ssh.map_err(bad)?, tls.map_err(bad)?) {
        (None, None) => Err(Refusal::BadParameter("no public key provided".to_owned())),
        keys => Ok(keys),
    }
}

fn impersonation(connection: &Connection, caller: &Caller, request: &UserCertsRequest) -> Result<Grant, Refusal> {
    let registry = connection.state.registry();
    let allowed = registry.bots.get(&caller.user).map(|bot| bot.roles.as_slice()).unwrap_or_default();
    if request.role_requests.is_empty() {
        return Err(Refusal::BadParameter("at least one role request is required".to_owned()));
    }
    if let Some(role) = request.role_requests.iter().find(|role| !registry.has_role(role)) {
        return Err(Refusal::NotFound(format!("role {role} is not found")));
    }
    if !request.role_requests.iter().all(|role| allowed.contains(role)) {
        let roles = request.role_requests.iter().map(|role| format!("{role:?}")).collect::<Vec<_>>().join(" ");
        return Err(denied_plainly(format!("user {:?} has requested role impersonation for [{roles}]", caller.user)));
    }
    Ok(Grant {
        roles: request.role_requests.clone(),
        logins: vec!["root".to_owned()],
        impersonator: Some(caller.user.clone()),
        ..plain(connection, caller)
    })
}

/// A renewable certificate counts up; a mismatch is final (wire §g.3).
fn renewal(connection: &Connection, caller: &Caller) -> Result<Grant, Refusal> {
    let state = &connection.state;
    let grant = Grant { roles: caller.roles.clone(), ..plain(connection, caller) };
    if !caller.renewable {
        return Ok(grant);
    }
    let mut registry = state.registry();
    let bot = registry
        .bots
        .get_mut(&caller.user)
        .ok_or_else(|| Refusal::NotFound(format!("user {:?} is not found", caller.user)))?;
    let presented = caller.generation;
    if bot.generation != presented {
        let numbers = format!("stored={}, presented={presented}", bot.generation);
        let (whose, owner) = match state.options.release.is_modern() {
            false => (String::new(), format!("user {:?}", caller.user)),
            true => (format!(" for bot {}/{}", bot.name, bot.instance), format!("{}/{}", bot.name, bot.instance)),
        };
        let lock = format!(
            "The bot {owner} has been locked due to a certificate generation mismatch, possibly indicating a stolen certificate."
        );
        state.faults.lock(&caller.user, &lock);
        return Err(denied_plainly(format!("renewable cert generation mismatch{whose}: {numbers}")));
    }
    bot.generation += 1;
    Ok(Grant { generation: Some(bot.generation), ..grant })
}

fn plain(connection: &Connection, caller: &Caller) -> Grant {
    let instance = caller.bot_instance.clone();
    let bot = instance.map(|instance| (caller.user.trim_start_matches("bot-").to_owned(), instance));
    Grant { user: caller.user.clone(), bot, ..bare(connection) }
}

/// What every certificate says that this connection asks for.
pub(crate) fn bare(connection: &Connection) -> Grant {
    let options = &connection.state.options;
    let grant = Grant { cluster: options.cluster_name.clone(), ..Grant::default() };
    match options.release {
        Release::V12 => Grant { traits: r#"{"logins":null}"#, ..grant },
        _ => Grant { traits: "null", login_ip: connection.remote.ip().to_string(), ..grant },
    }
}

/// Adds the routes asked for. Nothing validates them: as on a real cluster, unknown names are signed (rust-wire §4).
fn route(
    connection: &Arc<Connection>,
    grant: &mut Grant,
    request: &UserCertsRequest,
    not_after: SystemTime,
) -> Result<(), Refusal> {
    let state = &connection.state;
    let to = &request.route_to_cluster;
    if !to.is_empty() && *to != state.options.cluster_name {
        if !state.registry().leaves.contains_key(to) {
            return Err(Refusal::NotFound(format!("remote cluster {to:?} is not found")));
        }
        grant.leaf.clone_from(to);
    }
    if grant.leaf.is_empty() && !request.kubernetes_cluster.is_empty() {
        return Err(Refusal::BadParameter(format!(
            "kubernetes cluster {:?} is not registered in this teleport cluster; you can list registered kubernetes clusters using 'tsh kube ls'",
            request.kubernetes_cluster
        )));
    }
    if let Some(database) = request.route_to_database.as_ref().filter(|route| !route.service_name.is_empty()) {
        refuse_output(state, "database", &database.service_name)?;
        if database.protocol == "mongodb" && database.username.is_empty() {
            return Err(Refusal::BadParameter(format!(
                "must provide database user name to generate certificate for database {:?}",
                database.service_name
            )));
        }
        grant.database = Some(DatabaseGrant {
            service: database.service_name.clone(),
            protocol: database.protocol.clone(),
            user: database.username.clone(),
            name: database.database.clone(),
        });
    }
    if let Some(app) = request.route_to_app.as_ref().filter(|route| !route.name.is_empty()) {
        refuse_output(state, "application", &app.name)?;
        let session = match state.options.release.is_modern() {
            false => app.session_id.clone(),
            true => {
                let reaches_apps = grant.impersonator.is_some();
                let made = sessions::create(state, &grant.user, &app.public_addr, not_after, reaches_apps)?;
                made.metadata.map(|metadata| metadata.name).unwrap_or_default()
            }
        };
        grant.app = Some(AppGrant {
            name: app.name.clone(),
            session,
            public_address: app.public_addr.clone(),
            cluster: app.cluster_name.clone(),
        });
    }
    Ok(())
}

fn refuse_output(state: &State, what: &str, name: &str) -> Result<(), Refusal> {
    match state.faults.denies(name) {
        true => Err(denied(&format!("access to {what} {name:?} is denied"))),
        false => Ok(()),
    }
}

fn denied(text: &str) -> Refusal {
    denied_plainly(format!("access denied: {text}"))
}

fn denied_plainly(text: String) -> Refusal {
    Refusal::AccessDenied(text)
}
