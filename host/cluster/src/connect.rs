//! From an address to a session: every route tried, one answer.

use std::sync::{Arc, Mutex};

use async_trait::async_trait;
use futures::FutureExt;
use futures::future::BoxFuture;
use identity::{Certificates, Clock, Cluster, Failure, FailureKind, Identity, Joining, Session};
use tracing::{debug, info};

use crate::address::{Address, Route, Way};
use crate::channel::{API_DOMAIN, auth_protocol, open_channel};
use crate::error::{RouteError, none_worked};
use crate::join::{at_auth, at_proxy};
use crate::registration::Registration;
use crate::session::GrpcSession;
use crate::trust::{ClientCertificate, Trust, client_config};
use crate::upgrade::Ways;

/// What the configuration says of the cluster.
pub struct ClusterConfig {
    /// Where it is.
    pub address: Address,
    /// Pins of its authorities, `sha256:<hex>`; for joining at an auth server.
    pub ca_pins: Vec<String>,
    /// PEM of the authority that signs the auth server, the contents of `ca_path`.
    pub authority_pem: Option<String>,
    /// Do not verify the first contact.
    pub insecure: bool,
    /// The wall clock.
    pub clock: Arc<dyn Clock>,
}

/// A real cluster, over the network.
pub struct TeleportCluster {
    pub(crate) config: Arc<ClusterConfig>,
    /// The route that worked last is tried first.
    worked: Mutex<Option<Route>>,
    pub(crate) ways: Ways,
}

impl TeleportCluster {
    /// Nothing is asked before the first call.
    pub fn new(config: ClusterConfig) -> Self {
        Self { config: Arc::new(config), worked: Mutex::new(None), ways: Ways::default() }
    }

    /// Tries each route until one works. An answer of the cluster, also a refusal, ends it: no second, unrelated error.
    pub(crate) async fn first<'a, T>(
        &'a self,
        what: &str,
        attempt: impl Fn(Route) -> BoxFuture<'a, Result<T, RouteError>>,
    ) -> Result<T, Failure> {
        let mut routes = self.config.address.routes();
        let worked = self.worked.lock().unwrap_or_else(std::sync::PoisonError::into_inner).clone();
        routes.sort_by_key(|route| Some(route) != worked.as_ref());
        let mut tried = Vec::new();
        for route in routes {
            let way = self.ways.of(&route, self.config.insecure).await;
            match attempt(Route { way, ..route.clone() }).await {
                Ok(value) => {
                    if !tried.is_empty() {
                        info!(target: "AUTH", "{route} answers as {}, and is used as that from now on.", route.service());
                    }
                    if way != Way::Direct && worked.as_ref() != Some(&route) {
                        info!(target: "AUTH", "{route} is behind a load balancer that ends TLS: connections to it are upgraded from HTTP.");
                    }
                    *self.worked.lock().unwrap_or_else(std::sync::PoisonError::into_inner) = Some(route);
                    return Ok(value);
                }
                Err(error) if error.connection => {
                    debug!(target: "AUTH", "{route} as {}: {}", route.service(), error.failure);
                    self.ways.forget(&route).await;
                    tried.push((route, error));
                }
                Err(error) => return Err(error.failure.context(route)),
            }
        }
        Err(none_worked(what, tried))
    }
}

#[async_trait]
impl Cluster for TeleportCluster {
    async fn join(&self, joining: Joining<'_>) -> Result<Certificates, Failure> {
        let registration = Registration::new(joining, self.config.clock.now()).await?;
        let (config, registration) = (&self.config, &registration);
        let attempt = |route: Route| {
            async move {
                match route.proxy {
                    true => at_proxy(config, &route, registration).await,
                    false => at_auth(config, &route, registration).await,
                }
            }
            .boxed()
        };
        self.first("the cluster cannot be joined", attempt).await
    }

    async fn connect(&self, identity: Arc<Identity>) -> Result<Arc<dyn Session>, Failure> {
        let expired = self.config.clock.now() >= identity.expires();
        let owned = identity.clone();
        let attempt = |route: Route| {
            let (identity, clock) = (owned.clone(), self.config.clock.clone());
            async move { enter(route, identity, clock).await }.boxed()
        };
        let session = self.first("the cluster cannot be reached", attempt).await.map_err(|failure| match expired {
            true => Failure::new(
                FailureKind::Expired,
                format!("the bot identity expired at {}: {failure}", identity.expires()),
            ),
            false => failure,
        })?;
        Ok(Arc::new(session))
    }
}

/// Mutual TLS to auth, directly or handed on by a proxy (wire §f.1, §f.2.A).
async fn enter(route: Route, identity: Arc<Identity>, clock: Arc<dyn Clock>) -> Result<GrpcSession, RouteError> {
    let client = ClientCertificate { der: &identity.tls.der, pkcs8: identity.key.pkcs8_der() };
    let trust = Trust::Only(identity.tls_authorities.clone());
    let routed = auth_protocol(identity.cluster());
    let alpn: &[&str] = if route.proxy { &[&routed, "h2"] } else { &["h2"] };
    let tls = client_config(&trust, Some(client), alpn).map_err(RouteError::answer)?;
    let channel = open_channel(&route, API_DOMAIN, tls).await?;
    GrpcSession::new(route, channel, identity, clock).await
}
