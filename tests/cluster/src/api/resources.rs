//! Resources in their wire shapes, as recorded, and the search for them.

use std::time::{Duration, SystemTime};

use anyhow::Result;
use base64::{Engine, engine::general_purpose::STANDARD};
use prost_types::Timestamp;
use serde_json::{Value, json};

use super::{grpc::Connection, refusal::Refusal};
use crate::{
    pki::authority::{Authority, KeySet},
    state::{App, Database, State, uuid},
    wire::{
        proto::{ListResourcesRequest, ListResourcesResponse, PaginatedResource, paginated_resource::Resource},
        types,
    },
};

/// What Go encodes for a time that is not set (wire §0.2).
pub(crate) const ZERO_TIME: Timestamp = Timestamp { seconds: -62_135_596_800, nanos: 0 };

/// Servers announce themselves for ten minutes at a time (recorded).
const ANNOUNCED_FOR: Duration = Duration::from_secs(600);

/// The longest life of a certificate with the role of a bot (recorded).
pub(crate) const BOT_SESSION: Duration = Duration::from_secs(12 * 3600);

/// The old server keys stay trusted so long (recorded: 30 hours in nanoseconds).
const GRACE: i64 = 108_000_000_000_000;

pub(crate) fn stamp(at: SystemTime) -> Timestamp {
    Timestamp::from(at)
}

/// Storage numbers a resource with the nanosecond of its last change.
pub(crate) fn storage_id(at: SystemTime) -> i64 {
    at.duration_since(SystemTime::UNIX_EPOCH).map_or(0, |time| i64::try_from(time.as_nanos()).unwrap_or(i64::MAX))
}

/// One authority without its private keys.
pub(crate) fn authority(authority: &Authority, cluster: &str) -> types::CertAuthorityV2 {
    let standby = matches!(authority.phase, Some(crate::RotationPhase::Standby));
    let rotation = authority.phase.map(|phase| types::Rotation {
        state: if standby { "standby" } else { "in_progress" }.to_owned(),
        phase: phase.name().to_owned(),
        mode: if standby { "" } else { "manual" }.to_owned(),
        current_id: authority.rotation_id.clone(),
        started: (!standby).then(|| authority.rotation_started.map_or(ZERO_TIME, stamp)),
        grace_period: GRACE,
        last_rotated: Some(if standby { stamp(authority.changed) } else { ZERO_TIME }),
    });
    types::CertAuthorityV2 {
        kind: "cert_authority".to_owned(),
        sub_kind: authority.kind.name().to_owned(),
        version: "v2".to_owned(),
        metadata: Some(types::Metadata {
            name: cluster.to_owned(),
            namespace: "default".to_owned(),
            id: storage_id(authority.changed),
            revision: authority.revision.clone(),
            ..types::Metadata::default()
        }),
        spec: Some(types::CertAuthoritySpecV2 {
            r#type: authority.kind.name().to_owned(),
            cluster_name: cluster.to_owned(),
            rotation,
            active_keys: Some(key_set(&authority.active)),
            additional_trusted_keys: Some(authority.additional.as_deref().map(key_set).unwrap_or_default()),
            ..types::CertAuthoritySpecV2::default()
        }),
    }
}

/// The same as releases up to 13 send it over HTTP: JSON with bytes in base64.
pub(crate) fn authority_json(authority: &types::CertAuthorityV2) -> Value {
    let keys = |set: Option<&types::CaKeySet>| {
        let mut found = json!({});
        for (name, field, values) in set.into_iter().flat_map(|set| {
            let ssh = set.ssh.iter().map(|pair| &pair.public_key).collect::<Vec<_>>();
            [("ssh", "public_key", ssh), ("tls", "cert", set.tls.iter().map(|pair| &pair.cert).collect())]
        }) {
            if !values.is_empty() {
                let encoded = values.into_iter().map(|bytes| json!({ field: STANDARD.encode(bytes) }));
                found[name] = encoded.collect::<Vec<_>>().into();
            }
        }
        found
    };
    let (metadata, spec) = (authority.metadata.clone().unwrap_or_default(), authority.spec.clone().unwrap_or_default());
    json!({
        "kind": authority.kind, "sub_kind": authority.sub_kind, "version": authority.version,
        "metadata": { "name": metadata.name, "id": metadata.id },
        "spec": {
            "type": spec.r#type, "cluster_name": spec.cluster_name,
            "active_keys": keys(spec.active_keys.as_ref()),
            "additional_trusted_keys": keys(spec.additional_trusted_keys.as_ref()),
        },
    })
}

/// A bot's role: what it may impersonate, and that it may read authorities.
pub(crate) fn bot_role(state: &State, user: &str) -> Result<types::RoleV6, Refusal> {
    let registry = state.registry();
    let bot = registry.bots.get(user).ok_or_else(|| Refusal::NotFound(format!("role {user} is not found")))?;
    let namespaces = vec!["default".to_owned()];
    let rules = types::Rule { resources: vec!["cert_authority".to_owned()], verbs: vec!["readnosecrets".to_owned()] };
    Ok(types::RoleV6 {
        kind: "role".to_owned(),
        version: "v7".to_owned(),
        metadata: Some(types::Metadata {
            name: user.to_owned(),
            namespace: "default".to_owned(),
            description: format!("Automatically generated role for bot {}", bot.name),
            labels: [("teleport.internal/bot".to_owned(), bot.name.clone())].into(),
            id: storage_id(SystemTime::now()),
            revision: uuid(),
            ..types::Metadata::default()
        }),
        spec: Some(types::RoleSpecV6 {
            options: Some(types::RoleOptions {
                max_session_ttl: i64::try_from(BOT_SESSION.as_nanos()).unwrap_or(i64::MAX),
            }),
            allow: Some(types::RoleConditions {
                namespaces: namespaces.clone(),
                rules: vec![rules],
                impersonate: Some(types::ImpersonateConditions {
                    roles: bot.roles.clone(),
                    ..types::ImpersonateConditions::default()
                }),
                ..types::RoleConditions::default()
            }),
            deny: Some(types::RoleConditions { namespaces, ..types::RoleConditions::default() }),
        }),
        ..types::RoleV6::default()
    })
}

/// Lists what the caller's roles reach. The bot itself reaches nothing: an empty list, not an error (rust-wire §4).
pub(crate) fn list(connection: &Connection, request: &ListResourcesRequest) -> Result<ListResourcesResponse, Refusal> {
    let (state, caller) = (&connection.state, connection.caller()?);
    let limit = usize::try_from(request.limit).unwrap_or(0);
    if limit == 0 {
        return Err(Refusal::BadParameter("nonpositive parameter limit".to_owned()));
    }
    if caller.impersonator.is_none() {
        return Ok(ListResourcesResponse::default());
    }
    let registry = state.registry();
    let found: Vec<(String, Option<String>, Resource)> = match request.resource_type.as_str() {
        "app_server" => {
            let apps = registry.apps.iter();
            apps.map(|(name, app)| (name.clone(), None, Resource::AppServer(app_server(state, name, app)))).collect()
        }
        "db_server" => {
            let databases = registry.databases.iter();
            databases
                .map(|(name, database)| {
                    let server = Resource::DatabaseServer(database_server(state, name, database));
                    (name.clone(), database.discovered.clone(), server)
                })
                .collect()
        }
        _ => Vec::new(),
    };
    let mut matching = Vec::new();
    for (name, discovered, resource) in found {
        if matches(&request.predicate_expression, &name, discovered.as_deref())?
            && name.as_str() >= request.start_key.as_str()
        {
            matching.push((name, PaginatedResource { resource: Some(resource) }));
        }
    }
    let next_key = matching.get(limit).map(|(name, _)| name.clone()).unwrap_or_default();
    let total_count = if request.need_total_count { i32::try_from(matching.len()).unwrap_or(i32::MAX) } else { 0 };
    let resources = matching.into_iter().take(limit).map(|(_, resource)| resource).collect();
    Ok(ListResourcesResponse { resources, next_key, total_count })
}

/// The label with the name under which something was discovered.
const DISCOVERED: &str = "teleport.internal/discovered-name";

/// The recorded predicates: `name == "x"`, and the same with an alternative for discovered databases.
fn matches(expression: &str, name: &str, discovered: Option<&str>) -> Result<bool, Refusal> {
    if expression.trim().is_empty() {
        return Ok(true);
    }
    for term in expression.split("||") {
        let term = term.trim().trim_start_matches('(').trim_end_matches(')').trim();
        let parts = term.split_once("==").map(|(left, right)| (left.trim(), right.trim()));
        let literal = parts.and_then(|(left, right)| Some((left, serde_json::from_str::<String>(right).ok()?)));
        match literal {
            Some(("name", wanted)) if wanted == name => return Ok(true),
            Some((left, wanted)) if left == format!("labels[{DISCOVERED:?}]") && discovered == Some(&wanted) => {
                return Ok(true);
            }
            Some((left, _)) if left == "name" || left.starts_with("labels[") => {}
            _ => return Err(Refusal::BadParameter(format!("failed to parse predicate expression: {expression}"))),
        }
    }
    Ok(false)
}

fn key_set(keys: &KeySet) -> types::CaKeySet {
    let ssh = keys.ssh_line().map(|line| types::SshKeyPair { public_key: line.into_bytes(), ..Default::default() });
    types::CaKeySet {
        ssh: ssh.into_iter().collect(),
        tls: vec![types::TlsKeyPair { cert: keys.certificate_pem().into_bytes(), ..types::TlsKeyPair::default() }],
        jwt: Vec::new(),
    }
}

fn app_server(state: &State, name: &str, app: &App) -> types::AppServerV3 {
    types::AppServerV3 {
        kind: "app_server".to_owned(),
        version: "v3".to_owned(),
        metadata: Some(types::Metadata { revision: String::new(), ..announced(name) }),
        spec: Some(types::AppServerSpecV3 {
            version: state.options.release.version().to_owned(),
            hostname: "stand-in".to_owned(),
            host_id: uuid(),
            rotation: Some(no_rotation()),
            app: Some(types::AppV3 {
                kind: "app".to_owned(),
                version: "v3".to_owned(),
                metadata: Some(configured(name)),
                spec: Some(types::AppSpecV3 {
                    uri: app.uri.clone(),
                    public_addr: app.public_address.clone(),
                    ..types::AppSpecV3::default()
                }),
                ..types::AppV3::default()
            }),
            proxy_ids: Vec::new(),
        }),
        ..types::AppServerV3::default()
    }
}

fn database_server(state: &State, name: &str, database: &Database) -> types::DatabaseServerV3 {
    types::DatabaseServerV3 {
        kind: "db_server".to_owned(),
        version: "v3".to_owned(),
        metadata: Some(announced(name)),
        spec: Some(types::DatabaseServerSpecV3 {
            version: state.options.release.version().to_owned(),
            hostname: "stand-in".to_owned(),
            host_id: uuid(),
            rotation: Some(no_rotation()),
            database: Some(types::DatabaseV3 {
                kind: "db".to_owned(),
                version: "v3".to_owned(),
                metadata: Some({
                    let mut metadata = configured(name);
                    metadata.labels.extend(database.discovered.clone().map(|name| (DISCOVERED.to_owned(), name)));
                    metadata
                }),
                spec: Some(types::DatabaseSpecV3 {
                    protocol: database.protocol.clone(),
                    uri: database.uri.clone(),
                    ..types::DatabaseSpecV3::default()
                }),
                ..types::DatabaseV3::default()
            }),
            proxy_ids: Vec::new(),
        }),
        ..types::DatabaseServerV3::default()
    }
}

fn announced(name: &str) -> types::Metadata {
    let now = SystemTime::now();
    types::Metadata {
        name: name.to_owned(),
        namespace: "default".to_owned(),
        expires: Some(stamp(now + ANNOUNCED_FOR)),
        id: storage_id(now),
        revision: uuid(),
        ..types::Metadata::default()
    }
}

fn configured(name: &str) -> types::Metadata {
    let labels = [("env", "dev"), ("teleport.dev/origin", "config-file")];
    types::Metadata {
        name: name.to_owned(),
        namespace: "default".to_owned(),
        labels: labels.into_iter().map(|(key, value)| (key.to_owned(), value.to_owned())).collect(),
        ..types::Metadata::default()
    }
}

fn no_rotation() -> types::Rotation {
    types::Rotation { started: Some(ZERO_TIME), last_rotated: Some(ZERO_TIME), ..types::Rotation::default() }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn recorded_predicates_select_by_name() {
        let database = r#"(name == "orders") || (labels["teleport.internal/discovered-name"] == "orders")"#;
        assert!(matches(database, "orders", None).unwrap());
        assert!(!matches(database, "order", None).unwrap());
        assert!(matches(r#"name == "grafana""#, "grafana", None).unwrap());
        assert!(matches("", "anything", None).unwrap());
        assert!(matches("exists(labels)", "anything", None).is_err());
    }
}
