//! Application sessions, and when they become visible (wire §f.7, rust-wire §4).

use std::{
    sync::Arc,
    time::{Instant, SystemTime},
};

use super::{refusal::Refusal, resources::stamp, watch::Change};
use crate::{
    pki::{issue::Grant, private_key::pem},
    state::{Session, State, hex, uuid},
    wire::types::{Metadata, WebSessionSpecV2, WebSessionV2},
};

/// Makes a session. Its creator gets the resource at once; everybody else sees it from the next tick on.
pub(crate) fn create(
    state: &Arc<State>,
    user: &str,
    public_address: &str,
    not_after: SystemTime,
    reaches_apps: bool,
) -> Result<WebSessionV2, Refusal> {
    let authority = state.authority(crate::AuthorityKind::User, |user| Ok(user.active.clone()))?;
    let key = state.session_key.public();
    let grant = Grant {
        user: user.to_owned(),
        roles: vec![user.to_owned()],
        cluster: state.options.cluster_name.clone(),
        ..Grant::default()
    };
    let id = hex(&rand::random::<[u8; 32]>());
    let resource = WebSessionV2 {
        kind: "web_session".to_owned(),
        sub_kind: "app_session".to_owned(),
        version: "v2".to_owned(),
        metadata: Some(Metadata {
            name: id.clone(),
            namespace: "default".to_owned(),
            expires: Some(stamp(not_after)),
            ..Metadata::default()
        }),
        spec: Some(WebSessionSpecV2 {
            user: user.to_owned(),
            r#pub: grant.sign_ssh(key, not_after, &authority)?.to_line().into_bytes(),
            r#priv: state.session_key.to_pem()?.into_bytes(),
            tls_cert: pem("CERTIFICATE", &grant.sign_x509(key, not_after, &authority)?).into_bytes(),
            bearer_token: hex(&rand::random::<[u8; 32]>()),
            bearer_token_expires: Some(super::resources::ZERO_TIME),
            expires: Some(stamp(not_after)),
            login_time: Some(super::resources::ZERO_TIME),
            ..WebSessionSpecV2::default()
        }),
    };
    let visible_at = state.next_tick();
    let session = Session {
        user: user.to_owned(),
        public_address: public_address.to_owned(),
        visible_at,
        reaches_apps,
        resource: stored(&resource),
    };
    state.registry().sessions.insert(id, session);
    announce(state.clone(), stored(&resource), visible_at);
    Ok(resource)
}

/// A visible session.
pub(crate) fn find(state: &State, id: &str) -> Result<WebSessionV2, Refusal> {
    let registry = state.registry();
    registry
        .sessions
        .get(id)
        .filter(|session| session.visible_at <= Instant::now())
        .map(|session| session.resource.clone())
        .ok_or_else(|| Refusal::NotFound(format!("key \"/apps/sessions/{id}\" is not found")))
}

/// What the web sees of a session.
pub(crate) enum Access {
    /// Forward to this URI.
    Forward(String),
    /// The session is unknown, somebody else's, or not yet visible.
    Forbidden,
    /// The session exists but leads nowhere.
    Nowhere,
}

/// Where a request with a certificate of `user` for session `id` goes.
pub(crate) fn access(state: &State, user: &str, id: &str) -> Access {
    let registry = state.registry();
    let visible = registry.sessions.get(id).filter(|session| session.visible_at <= Instant::now());
    let Some(session) = visible.filter(|session| session.user == user) else { return Access::Forbidden };
    match registry.apps.values().find(|app| app.public_address == session.public_address) {
        Some(app) if session.reaches_apps => Access::Forward(app.uri.clone()),
        _ => Access::Nowhere,
    }
}

/// Storage gives a resource a number and a revision.
fn stored(resource: &WebSessionV2) -> WebSessionV2 {
    let mut stored = resource.clone();
    if let Some(metadata) = &mut stored.metadata {
        metadata.id = super::resources::storage_id(SystemTime::now());
        metadata.revision = uuid();
    }
    stored
}

fn announce(state: Arc<State>, resource: WebSessionV2, visible_at: Instant) {
    tokio::spawn(async move {
        tokio::time::sleep_until(visible_at.into()).await;
        // Without a watch there is nobody to tell.
        let _ = state.changes.send(Arc::new(Change::AppSession(resource)));
    });
}
