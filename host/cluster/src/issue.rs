//! Certificates for outputs: impersonation, look-up, route (wire §f.6–f.8).

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;
use std::time::Duration;

use identity::{
    Clock, ClusterInfo, Failure, FailureKind, Identity, Issued, KeyAlgorithm, Order, PrivateKey, PublicKey,
    SshCertificate, Target, TlsCertificate,
};
use tokio::sync::{Mutex, OnceCell};
use tokio::time::Instant;

use crate::auth_http;
use crate::channel::{API_DOMAIN, auth_protocol, open};
use crate::session::{Caller, certify};
use crate::sessions::SessionWatch;
use crate::trust::{ClientCertificate, Trust, client_config};
use crate::version::{Major, client_version};
use crate::wire::proto::paginated_resource::Resource;
use crate::wire::proto::{
    CreateAppSessionRequest, ListResourcesRequest, RouteToApp, RouteToDatabase, UserCertsRequest,
};
use crate::wire::teleport::trust::v1::GenerateHostCertRequest;
use crate::wire::types::AppServerV3;

/// One impersonated identity serves all outputs of a pass; sessions live as long as it, so a later pass takes a new one.
const PASS: Duration = Duration::from_secs(60);
/// Resources asked for at once, as the original does.
const PAGE: i32 = 1000;

/// Roles and life: what outputs must have in common to share an impersonated identity.
type Sharing = (Vec<String>, Duration);
/// Made when, and the connection, once there is one.
type Shared = (Instant, Arc<OnceCell<Caller>>);

pub(crate) struct Issuer {
    bot: Caller,
    identity: Arc<Identity>,
    info: ClusterInfo,
    clock: Arc<dyn Clock>,
    default_roles: Vec<String>,
    sessions: SessionWatch,
    impersonated: Mutex<HashMap<Sharing, Shared>>,
}

impl Issuer {
    pub(crate) fn new(
        bot: Caller,
        identity: Arc<Identity>,
        info: ClusterInfo,
        clock: Arc<dyn Clock>,
        default_roles: Vec<String>,
    ) -> Self {
        let sessions = SessionWatch::new(bot.clone(), identity.user().to_owned());
        Self { bot, identity, info, clock, default_roles, sessions, impersonated: Mutex::default() }
    }

    pub(crate) async fn issue(&self, order: &Order) -> Result<Issued, Failure> {
        let roles = if order.roles.is_empty() { &self.default_roles } else { &order.roles };
        let mut request = self.request(roles, order.ttl);
        match &order.target {
            Target::Identity { cluster, allow_reissue } => {
                if let Some(leaf) = cluster {
                    request.route_to_cluster.clone_from(leaf);
                }
                request.reissuable_role_impersonation = *allow_reissue;
                let signed = self.sign(request, &order.key).await?;
                if *allow_reissue && signed.tls.subject.disallow_reissue() {
                    return Err(Failure::new(
                        FailureKind::Unsupported,
                        "this cluster lets no output's certificate be reissued: remove `allow_reissue`",
                    ));
                }
                Ok(signed.into())
            }
            Target::Application(name) => self.application(name, roles, request, order).await,
            Target::Database { service, username, database } => {
                let asker = self.impersonate(roles, order.ttl).await?;
                let (service, protocol) = self.database(&asker, service, roles).await?;
                let username = if protocol == "redis" && username.is_empty() { "default" } else { username };
                request.route_to_database = Some(RouteToDatabase {
                    service_name: service,
                    protocol,
                    username: username.to_owned(),
                    database: database.clone(),
                    roles: vec![],
                });
                Ok(self.sign(request, &order.key).await?.into())
            }
            Target::SshHost(principals) => self.ssh_host(principals, roles, order).await,
            Target::Kubernetes(_) => {
                Err(Failure::new(FailureKind::Unsupported, "kubernetes outputs are not supported yet"))
            }
        }
    }

    /// As the original does it: the roles of the output, not the bot itself, may make host certificates.
    async fn ssh_host(&self, principals: &[String], roles: &[String], order: &Order) -> Result<Issued, Failure> {
        let request = GenerateHostCertRequest {
            key: format!("{}\n", order.key.ssh_line()).into_bytes(),
            principals: principals.to_vec(),
            cluster_name: self.info.name.clone(),
            role: "Node".into(),
            ttl: prost_types::Duration::try_from(order.ttl).ok(),
            ..GenerateHostCertRequest::default()
        };
        let line = self.host_certificate(roles, order.ttl, request).await.map_err(|e| match e.kind {
            FailureKind::Denied => e.context(format_args!("host certificate with the roles [{}]", roles.join(", "))),
            _ => e,
        })?;
        let certificate = SshCertificate::parse(&line).map_err(|e| unusable(&e))?;
        if certificate.public_key != order.key.ssh_wire() {
            return Err(unusable(&OTHER_KEY));
        }
        Ok(Issued { tls: None, ssh: Some(certificate) })
    }

    async fn host_certificate(
        &self,
        roles: &[String],
        ttl: Duration,
        request: GenerateHostCertRequest,
    ) -> Result<String, Failure> {
        if Major::parse(&self.info.version).trust_service() {
            let asker = self.impersonate(roles, ttl).await?;
            let answer = asker.call(asker.trust().generate_host_cert(request)).await?;
            return Ok(String::from_utf8_lossy(&answer.ssh_certificate).into_owned());
        }
        let (key, certificate) = self.impersonated_certificate(roles, ttl).await?;
        let client = ClientCertificate { der: &certificate.der, pkcs8: key.pkcs8_der() };
        auth_http::host_certificate(&self.bot.route, &self.identity, client, &request).await
    }

    async fn application(
        &self,
        name: &str,
        roles: &[String],
        mut request: UserCertsRequest,
        order: &Order,
    ) -> Result<Issued, Failure> {
        let asker = self.impersonate(roles, order.ttl).await?;
        let predicate = format!("name == {}", quoted(name));
        let servers = self.list(&asker, "app_server", predicate).await?;
        let spec = servers
            .into_iter()
            .find_map(|resource| match resource {
                Resource::AppServer(AppServerV3 { spec: Some(server), .. }) => server.app.and_then(|app| app.spec),
                _ => None,
            })
            .ok_or_else(|| not_found("app", name, roles))?;
        let mut route = RouteToApp {
            name: name.to_owned(),
            public_addr: spec.public_addr.clone(),
            cluster_name: self.info.name.clone(),
            ..RouteToApp::default()
        };
        let announced = self.sessions.listen().await;
        if Major::parse(&self.info.version).split_keys() {
            // The cluster makes the session together with the certificate.
            route.uri = spec.uri;
        } else {
            let create = CreateAppSessionRequest {
                username: self.identity.user().to_owned(),
                public_addr: spec.public_addr,
                cluster_name: self.info.name.clone(),
                ..CreateAppSessionRequest::default()
            };
            let created = asker.call(asker.auth().create_app_session(create)).await?;
            let metadata = created.session.and_then(|session| session.metadata);
            route.session_id = metadata.map(|metadata| metadata.name).unwrap_or_default();
        }
        request.route_to_app = Some(route);
        let issued = self.sign(request, &order.key).await?;
        // Until the session is visible the proxy answers 403 (rust-wire §4). Its id is in the certificate (wire §h.2).
        if let Some(session) = issued.tls.subject.attribute("1.4") {
            self.sessions.visible(&asker, session, announced).await?;
        }
        Ok(issued.into())
    }

    /// Name and protocol of the database that `service` names (wire §f.8).
    async fn database(&self, asker: &Caller, service: &str, roles: &[String]) -> Result<(String, String), Failure> {
        let name = quoted(service);
        let predicate = format!(r#"(name == {name}) || (labels["teleport.internal/discovered-name"] == {name})"#);
        let servers = self.list(asker, "db_server", predicate).await?;
        let databases = servers.into_iter().filter_map(|resource| match resource {
            Resource::DatabaseServer(server) => {
                let database = server.spec?.database?;
                Some((database.metadata?.name, database.spec?.protocol))
            }
            _ => None,
        });
        choose(databases.collect(), service)?.ok_or_else(|| not_found("database", service, roles))
    }

    async fn list(&self, asker: &Caller, kind: &str, predicate_expression: String) -> Result<Vec<Resource>, Failure> {
        let request = ListResourcesRequest {
            resource_type: kind.to_owned(),
            namespace: "default".into(),
            limit: PAGE,
            predicate_expression,
            ..ListResourcesRequest::default()
        };
        let answer = asker.call(asker.auth().list_resources(request)).await?;
        Ok(answer.resources.into_iter().filter_map(|resource| resource.resource).collect())
    }

    /// The connection of the impersonated identity that these outputs share.
    async fn impersonate(&self, roles: &[String], ttl: Duration) -> Result<Caller, Failure> {
        let cell = {
            let mut all = self.impersonated.lock().await;
            all.retain(|_, (made, _)| made.elapsed() < PASS);
            all.entry((roles.to_vec(), ttl)).or_insert_with(|| (Instant::now(), Arc::default())).1.clone()
        };
        cell.get_or_try_init(|| self.connect_impersonated(roles, ttl)).await.cloned()
    }

    async fn connect_impersonated(&self, roles: &[String], ttl: Duration) -> Result<Caller, Failure> {
        let (key, certificate) = self.impersonated_certificate(roles, ttl).await?;
        let route = self.bot.route.clone();
        let routed = auth_protocol(&self.info.name);
        let alpn: &[&str] = if route.proxy { &[&routed, "h2"] } else { &["h2"] };
        let client = ClientCertificate { der: &certificate.der, pkcs8: key.pkcs8_der() };
        // The answer holds the user authority only: the host authority is the bot's own (rust-wire §4).
        let tls = client_config(&Trust::Only(self.identity.tls_authorities.clone()), Some(client), alpn)?;
        let opened = open(&route, API_DOMAIN, tls, Some(&client_version(&self.info.version))).await;
        let connection = opened.map_err(|e| e.failure.context("connection as the impersonated roles"))?;
        Ok(Caller { route, connection, in_flight: self.bot.in_flight.clone() })
    }

    async fn impersonated_certificate(
        &self,
        roles: &[String],
        ttl: Duration,
    ) -> Result<(PrivateKey, TlsCertificate), Failure> {
        let internal = |e: identity::KeyError| Failure::new(FailureKind::Internal, e.to_string());
        let key = PrivateKey::generate(KeyAlgorithm::EcdsaP256).map_err(internal)?;
        let issued = self.sign(self.request(roles, ttl), key.public_key()).await?;
        Ok((key, issued.tls))
    }

    fn request(&self, roles: &[String], ttl: Duration) -> UserCertsRequest {
        UserCertsRequest {
            username: self.identity.user().to_owned(),
            expires: Some(prost_types::Timestamp { seconds: self.clock.now().plus(ttl).0, nanos: 0 }),
            route_to_cluster: self.info.name.clone(),
            role_requests: roles.to_vec(),
            use_role_requests: true,
            ..UserCertsRequest::default()
        }
    }

    async fn sign(&self, mut request: UserCertsRequest, key: &PublicKey) -> Result<Signed, Failure> {
        certify(&mut request, key, &self.info.version);
        let roles = request.role_requests.join(", ");
        let answer = self.bot.call(self.bot.auth().generate_user_certs(request)).await;
        let certs = answer.map_err(|e| match e.kind {
            FailureKind::Denied => e.context(format_args!("certificate with the roles [{roles}]")),
            _ => e,
        })?;
        let tls = TlsCertificate::parse(&certs.tls).map_err(|e| unusable(&e))?;
        if !tls.matches(key) {
            return Err(unusable(&OTHER_KEY));
        }
        let ssh = match certs.ssh.is_empty() {
            true => None,
            false => Some(SshCertificate::parse(&String::from_utf8_lossy(&certs.ssh)).map_err(|e| unusable(&e))?),
        };
        Ok(Signed { tls, ssh })
    }
}

/// What the cluster signed for a user: always a TLS certificate.
struct Signed {
    tls: TlsCertificate,
    ssh: Option<SshCertificate>,
}

impl From<Signed> for Issued {
    fn from(signed: Signed) -> Self {
        Self { tls: Some(signed.tls), ssh: signed.ssh }
    }
}

const OTHER_KEY: &str = "it certifies another key than the one sent";

fn unusable(why: &dyn std::fmt::Display) -> Failure {
    Failure::new(FailureKind::Denied, format!("what the cluster issued cannot be used: {why}"))
}

/// Of several databases, by their names, the one that is called so; else the one that was discovered under this name and had to be given
/// a longer one.
fn choose(mut databases: BTreeMap<String, String>, service: &str) -> Result<Option<(String, String)>, Failure> {
    if let Some(exact) = databases.remove_entry(service) {
        return Ok(Some(exact));
    }
    if databases.len() > 1 {
        let names = databases.into_keys().collect::<Vec<_>>().join("`, `");
        let message = format!("several databases were discovered as \"{service}\": set `service` to one of `{names}`");
        return Err(Failure::new(FailureKind::InvalidConfig, message));
    }
    Ok(databases.pop_first())
}

/// Not there yet, perhaps: what starts together with this machine makes itself known to the cluster a moment later.
fn not_found(what: &str, name: &str, roles: &[String]) -> Failure {
    let message = format!("{what} {name:?} not found, or not allowed for the roles [{}]", roles.join(", "));
    Failure::new(FailureKind::Unavailable, message)
}

/// A string of the predicate language.
fn quoted(text: &str) -> String {
    format!("\"{}\"", text.replace('\\', "\\\\").replace('"', "\\\""))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_cannot_leave_its_quotes() {
        assert_eq!(quoted(r#"a" || true || "\"#), r#""a\" || true || \"\\""#);
    }

    #[test]
    fn what_is_not_found_keeps_the_originals_words() {
        let failure = not_found("app", "nope", &["machine".into()]);
        assert!(failure.message.starts_with("app \"nope\" not found"), "{failure}");
        assert_eq!(failure.kind, FailureKind::Unavailable, "it is looked for again soon");
    }
}
