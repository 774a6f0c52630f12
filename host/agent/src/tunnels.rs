//! Services `application-tunnel` and `database-tunnel` (surface §C.6): an output into memory, renewed like any other, and a listener that
//! shows it.

use std::sync::Arc;
use std::time::Duration;

use catalog::Catalog;
use cluster::TeleportCluster;
use config::{Config, TunnelConfig, TunnelKind};
use identity::{Clock, Destination, Failure};
use renewal::{OutputJob, OutputSettings};
use serde_json::json;
use storage::Memory;
use tracing::{error, info};
use tunnel::{Credentials, Limits, Listen, Mode, Settings, Target, Tunnel};

use crate::proxy::raise_file_limit;

/// Between looks for a certificate that its output has not brought yet.
const LOOK: Duration = Duration::from_secs(1);
/// A listener that could not be opened is tried again after this time: its address may have become free.
const RETRY: Duration = Duration::from_secs(30);

/// A planned tunnel: nothing listens yet.
pub(crate) struct Planned {
    name: String,
    listen: Listen,
    target: Target,
    files: Arc<dyn Destination>,
}

/// Plans a tunnel and the output that it shows.
pub(crate) async fn plan(
    tunnel: &TunnelConfig,
    config: &Config,
    catalog: &Catalog,
    executable: &str,
) -> Result<(OutputJob, Planned), Failure> {
    let (kind, options, target) = match &tunnel.kind {
        TunnelKind::Application { app_name } => {
            ("application", json!({"app_name": app_name}), Target::Application(app_name.clone(), None))
        }
        TunnelKind::Database { service, username, database } => {
            let options = json!({"service": service, "username": username, "database": database});
            ("database", options, Target::Database(service.clone()))
        }
    };
    let files: Arc<dyn Destination> = Arc::new(Memory::default());
    let settings = OutputSettings {
        name: tunnel.name.clone(),
        kind: tunnel.kind.service_type().to_owned(),
        options: options.to_string(),
        roles: tunnel.roles.clone(),
        ttl: tunnel.ttl.unwrap_or(config.ttl),
        interval: tunnel.renewal_interval.unwrap_or(config.renewal_interval),
        output: catalog.output(kind).await?,
        destination: files.clone(),
        on_change: None,
        executable: executable.to_owned(),
    };
    let listen = Listen::parse(&tunnel.listen.uri()).map_err(|e| e.context("listen"))?;
    let planned = Planned { name: tunnel.name.clone(), listen, target, files };
    Ok((OutputJob::new(settings, catalog).await?, planned))
}

impl Planned {
    /// Listens as long as the process runs.
    pub(crate) async fn run(self, cluster: Arc<TeleportCluster>, clock: Arc<dyn Clock>) {
        let Self { name, listen, target, files } = self;
        raise_file_limit();
        let mut told = false;
        // Memory can always be read.
        while let Ok(None) = files.read("tlscert").await {
            if !std::mem::replace(&mut told, true) {
                info!(target: "TBOT", "{name} waits for its certificate for {target}: until then, {listen} accepts no connections.");
            }
            tokio::time::sleep(LOOK).await;
        }
        loop {
            let settings = Settings {
                listen: listen.clone(),
                target: target.clone(),
                mode: Mode::Authenticated,
                credentials: Credentials::new(files.clone(), clock.clone()),
                cluster: cluster.clone(),
                limits: Limits::default(),
            };
            match Tunnel::open(settings).await {
                Ok(tunnel) => {
                    info!(target: "TBOT", "{name} listens on {} for {target}.", tunnel.address());
                    tunnel.serve(std::future::pending()).await;
                }
                Err(failure) => error!(target: "TBOT", "{name}: {failure}. Next try in {} s.", RETRY.as_secs()),
            }
            tokio::time::sleep(RETRY).await;
        }
    }
}
