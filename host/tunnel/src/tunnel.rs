use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use cluster::TeleportCluster;
use identity::{Failure, FailureKind};
use tokio::sync::Semaphore;
use tokio::task::JoinSet;
use tracing::warn;

use crate::credentials::{Credential, Credentials};
use crate::listen::{Bound, Listener};
use crate::way::Way;
use crate::{Listen, Protocol};

/// Waits between looks at a way that is not usable yet: short at first, then as long as a person would wait.
const RETRY_SECONDS: [u64; 5] = [1, 2, 5, 10, 30];
/// Nothing can be accepted for want of file descriptors: connections end meanwhile.
const ACCEPT_RETRY: Duration = Duration::from_millis(100);

/// What is at the far end.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Target {
    /// An application, by name; where the protocol is not given, the cluster is asked.
    Application(String, Option<&'static Protocol>),
    /// A database resource, by name; its protocol is in the certificate.
    Database(String),
}

impl fmt::Display for Target {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Application(name, _) => write!(f, "application {name:?}"),
            Self::Database(service) => write!(f, "database {service:?}"),
        }
    }
}

/// Who shows the certificate.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Mode {
    /// The tunnel: whoever reaches the port gets through. Applications know nothing else.
    Authenticated,
    /// The database's client, with TLS of its own inside the tunnel's (wire §i.2).
    Passthrough,
}

/// Bounds of one tunnel.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// Connections at a time; further ones wait to be accepted.
    pub connections: usize,
    /// A connection on which nothing has moved for this time is closed.
    pub idle: Duration,
}

/// 4,096 connections: an idle one takes about 15 KiB, a busy one some 200 KiB more. A day of silence: pools and listeners rest for hours, and dead peers are found by keep-alive.
impl Default for Limits {
    fn default() -> Self {
        Self { connections: 4096, idle: Duration::from_secs(24 * 3600) }
    }
}

/// All that a tunnel needs.
pub struct Settings {
    /// Where it listens.
    pub listen: Listen,
    /// What is at the far end.
    pub target: Target,
    /// Who shows the certificate.
    pub mode: Mode,
    /// The certificate.
    pub credentials: Credentials,
    /// Knows or is asked for the proxy, and for an application's protocol.
    pub cluster: Arc<TeleportCluster>,
    /// Bounds.
    pub limits: Limits,
}

/// A tunnel whose port accepts.
pub struct Tunnel {
    listener: Listener,
    address: Listen,
    way: Arc<Way>,
    connections: usize,
}

impl Tunnel {
    /// Takes the address at once, waits until the certificate is there and the proxy lets it in, and listens.
    ///
    /// # Errors
    /// What waiting cannot mend: an address that is taken, a certificate for something else ([`FailureKind::InvalidConfig`]), a protocol
    /// that cannot be carried ([`FailureKind::Unsupported`]).
    pub async fn open(settings: Settings) -> Result<Self, Failure> {
        let bound = Bound::new(&settings.listen).await?;
        let address = bound.address()?;
        let connections = settings.limits.connections;
        let way = Way::new(settings);
        let mut waits = RETRY_SECONDS.into_iter();
        let mut wait = 0;
        while let Err(failure) = way.usable().await {
            if matches!(failure.kind, FailureKind::InvalidConfig | FailureKind::Unsupported) {
                return Err(failure);
            }
            wait = waits.next().unwrap_or(wait);
            warn!(target: "TBOT", "{address} does not accept connections yet: {failure}. Next try in {wait} s.");
            tokio::time::sleep(Duration::from_secs(wait)).await;
        }
        let listener = bound.listen()?;
        if address.is_public() {
            warn!(target: "TBOT", "{address} can be reached from other machines: whoever reaches it has the bot's access, and what is sent there is not encrypted.");
        }
        Ok(Self { listener, address, way: Arc::new(way), connections })
    }

    /// Where it listens, with the port that was taken.
    pub fn address(&self) -> &Listen {
        &self.address
    }

    /// What is spoken.
    pub fn protocol(&self) -> &'static Protocol {
        self.way.protocol()
    }

    /// The certificate that was used last.
    ///
    /// # Errors
    /// As [`Credentials::current`].
    pub async fn credential(&self) -> Result<Arc<Credential>, Failure> {
        self.way.credential().await
    }

    /// Accepts until `shutdown` completes; the address is given up then, and every connection ends.
    pub async fn serve(self, shutdown: impl Future<Output = ()>) {
        let mut running = JoinSet::new();
        let permits = Arc::new(Semaphore::new(self.connections));
        let mut shutdown = std::pin::pin!(shutdown);
        loop {
            let next = async {
                // The permit first: who comes when there is none waits with the kernel.
                let permit = permits.clone().acquire_owned().await;
                (permit, self.listener.accept().await)
            };
            tokio::select! {
                () = &mut shutdown => break,
                (permit, accepted) = next => match accepted {
                    Ok(client) => {
                        let way = self.way.clone();
                        running.spawn(async move {
                            way.connection(client).await;
                            drop(permit);
                        });
                    }
                    Err(e) => {
                        self.way.complain(&format!("a connection cannot be accepted: {e}"));
                        tokio::time::sleep(ACCEPT_RETRY).await;
                    }
                },
            }
            while running.try_join_next().is_some() {}
        }
        running.shutdown().await;
    }
}
