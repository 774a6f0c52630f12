//! What a certificate may reach, and by which proxy (wire §f.4).

use std::collections::BTreeMap;
use std::sync::Arc;

use futures::FutureExt;
use identity::{Failure, FailureKind, PrivateKey, TlsCertificate};
use tokio::sync::Semaphore;

use crate::address::{Route, Way};
use crate::channel::{API_DOMAIN, auth_protocol, open};
use crate::error::RouteError;
use crate::session::Caller;
use crate::trust::{ClientCertificate, Trust, client_config};
use crate::wire::proto::paginated_resource::Resource as Wire;
use crate::wire::proto::{ListResourcesRequest, PingRequest};
use crate::{ProxyDialer, TeleportCluster};

/// Resources asked for at once, as the original does.
const PAGE: i32 = 1000;
/// Where a proxy listens that is named without a port.
const HTTPS: u16 = 443;

/// Which resources.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ResourceKind {
    /// Applications.
    Application,
    /// Databases.
    Database,
}

/// One resource; several servers that offer it are one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Resource {
    /// Its name.
    pub name: String,
    /// What its owner says of it.
    pub description: String,
    /// Static labels.
    pub labels: BTreeMap<String, String>,
    /// Where it is; empty where the cluster does not say.
    pub uri: String,
    /// What a database speaks; empty for applications.
    pub protocol: String,
}

impl TeleportCluster {
    /// Every resource of a kind that the owner of this certificate may reach, by name. `authorities` are those of the cluster's hosts, PEM.
    ///
    /// # Errors
    /// As [`identity::Cluster::connect`].
    pub async fn resources(
        &self,
        tls: &TlsCertificate,
        key: &PrivateKey,
        authorities: Vec<String>,
        kind: ResourceKind,
    ) -> Result<Vec<Resource>, Failure> {
        let trust = &Trust::Only(authorities);
        let attempt = move |route| async move { list(&enter(route, trust, tls, key).await?, kind).await }.boxed();
        self.first("the cluster cannot be reached", attempt).await
    }

    /// The way to the proxy: the configured address where that is one (by its kind or its port, wire §a.4), otherwise the proxy that the
    /// cluster names to the owner of this certificate.
    ///
    /// # Errors
    /// As [`TeleportCluster::resources`]; [`FailureKind::InvalidConfig`] where the cluster names none.
    pub async fn proxy(
        &self,
        tls: &TlsCertificate,
        key: &PrivateKey,
        authorities: Vec<String>,
    ) -> Result<ProxyDialer, Failure> {
        let insecure = self.config.insecure;
        let route = match self.config.address.routes().into_iter().next().filter(|route| route.proxy) {
            Some(configured) => configured,
            None => self.advertised(tls, key, authorities).await?,
        };
        let way = self.ways.of(&route, insecure).await;
        Ok(ProxyDialer { route: Route { way, ..route }, insecure })
    }

    async fn advertised(
        &self,
        tls: &TlsCertificate,
        key: &PrivateKey,
        authorities: Vec<String>,
    ) -> Result<Route, Failure> {
        let trust = &Trust::Only(authorities);
        let attempt = move |route| {
            async move {
                let caller = enter(route, trust, tls, key).await?;
                caller.call(caller.auth().ping(PingRequest {})).await.map_err(RouteError::answer)
            }
            .boxed()
        };
        let named = self.first("the cluster cannot be reached", attempt).await?.proxy_public_addr;
        if named.is_empty() {
            let message = "the cluster names no proxy: give its address with `--proxy-server` or `proxy_server`";
            return Err(Failure::new(FailureKind::InvalidConfig, message));
        }
        let with_port = named.rsplit_once(':').and_then(|(host, port)| Some((host, port.parse().ok()?)));
        let (host, port) = with_port.unwrap_or((&named, HTTPS));
        Ok(Route { proxy: true, host: host.trim_matches(['[', ']']).to_owned(), port, way: Way::Direct })
    }
}

async fn enter(route: Route, trust: &Trust, tls: &TlsCertificate, key: &PrivateKey) -> Result<Caller, RouteError> {
    let client = ClientCertificate { der: &tls.der, pkcs8: key.pkcs8_der() };
    let routed = auth_protocol(&tls.cluster);
    let alpn: &[&str] = if route.proxy { &[&routed, "h2"] } else { &["h2"] };
    let config = client_config(trust, Some(client), alpn).map_err(RouteError::answer)?;
    let connection = open(&route, API_DOMAIN, config, None).await?;
    Ok(Caller { route, connection, in_flight: Arc::new(Semaphore::new(1)) })
}

async fn list(caller: &Caller, kind: ResourceKind) -> Result<Vec<Resource>, RouteError> {
    let resource_type = match kind {
        ResourceKind::Application => "app_server",
        ResourceKind::Database => "db_server",
    };
    let mut found = BTreeMap::new();
    let mut start_key = String::new();
    loop {
        let request = ListResourcesRequest {
            resource_type: resource_type.to_owned(),
            namespace: "default".into(),
            limit: PAGE,
            start_key,
            ..ListResourcesRequest::default()
        };
        let answer = caller.call(caller.auth().list_resources(request)).await.map_err(RouteError::answer)?;
        let page = answer.resources.into_iter().filter_map(|one| resource(one.resource?));
        found.extend(page.map(|resource| (resource.name.clone(), resource)));
        start_key = answer.next_key;
        if start_key.is_empty() {
            return Ok(found.into_values().collect());
        }
    }
}

fn resource(wire: Wire) -> Option<Resource> {
    let (metadata, uri, protocol) = match wire {
        Wire::AppServer(server) => {
            let app = server.spec?.app?;
            (app.metadata?, app.spec?.uri, String::new())
        }
        Wire::DatabaseServer(server) => {
            let database = server.spec?.database?;
            let spec = database.spec?;
            (database.metadata?, spec.uri, spec.protocol)
        }
    };
    let labels = metadata.labels.into_iter().collect();
    Some(Resource { name: metadata.name, description: metadata.description, labels, uri, protocol })
}
