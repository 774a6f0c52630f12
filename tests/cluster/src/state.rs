//! What a stand-in knows: authorities, bots, tokens, resources, sessions; shared by every connection.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::SocketAddr,
    sync::{Arc, Mutex, MutexGuard, OnceLock, RwLock},
    time::{Duration, Instant, SystemTime},
};

use anyhow::{Context, Result};
use tokio::{
    sync::{broadcast, watch},
    task::JoinHandle,
};

use crate::{
    api::{bot_instances::Heartbeat, watch::Change},
    evidence::Allow,
    faults::Faults,
    net::{tls::TlsConfigs, web_authority::WebAuthority},
    options::Options,
    pki::{authority::Authority, authority::AuthorityKind, private_key::PrivateKey},
    wire::types::WebSessionV2,
};

/// Changes a watch may lag behind before its stream ends.
const CHANGES_KEPT: usize = 1024;

pub(crate) struct State {
    pub options: Options,
    /// What tells the cluster from others of its name.
    pub cluster_id: String,
    pub faults: Faults,
    pub changes: broadcast::Sender<Arc<Change>>,
    /// Rises when every connection is to be cut.
    pub cut: watch::Sender<u64>,
    pub ports: OnceLock<Ports>,
    pub listeners: Mutex<Vec<JoinHandle<()>>>,
    pub tls: RwLock<Arc<TlsConfigs>>,
    /// Signs the proxy's web certificate.
    pub web: Arc<WebAuthority>,
    /// The key of every application session: a real cluster makes one each, 0.12 CPU-seconds apiece (rust-wire §4).
    pub session_key: PrivateKey,
    started: Instant,
    authorities: Mutex<Vec<Authority>>,
    registry: Mutex<Registry>,
}

/// Where a stand-in listens.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Ports {
    pub auth: SocketAddr,
    pub proxy: SocketAddr,
}

/// Everything that comes and goes.
#[derive(Default)]
pub(crate) struct Registry {
    pub tokens: BTreeMap<String, Token>,
    /// By user name.
    pub bots: BTreeMap<String, Bot>,
    /// Every role that a token or a bot was ever given: what exists, besides [`PRESETS`].
    pub roles: BTreeSet<String>,
    pub apps: BTreeMap<String, App>,
    pub databases: BTreeMap<String, Database>,
    /// Where the SSH servers of hosts listen, `host:port` by the host's name.
    pub hosts: BTreeMap<String, String>,
    /// By session id.
    pub sessions: BTreeMap<String, Session>,
    pub heartbeats: Vec<Heartbeat>,
    /// Host authorities of leaf clusters, by their names.
    pub leaves: BTreeMap<String, Authority>,
    pub ttl_cap: Duration,
}

/// Roles that every cluster has.
const PRESETS: [&str; 3] = ["access", "auditor", "editor"];

impl Registry {
    /// Whether there is such a role; the role of a bot has the name of its user.
    pub fn has_role(&self, name: &str) -> bool {
        PRESETS.contains(&name) || self.roles.contains(name) || self.bots.contains_key(name)
    }
}

/// A join token.
#[derive(Debug, Clone, Default)]
pub struct Token {
    /// What the client sends; with version 15 it is the secret itself.
    pub name: String,
    /// Asked for by `teleport.join.v1` only, besides the name.
    pub secret: Option<String>,
    /// The bot that joins with it, without `bot-`.
    pub bot: String,
    /// Roles the bot may impersonate.
    pub roles: Vec<String>,
    /// The join method, and whom it admits.
    pub allow: Allow,
    /// Deleted by its first use, as tokens of bots really are. Without, a bot may join again and starts anew.
    pub uses_once: bool,
    /// From then on it is refused.
    pub expires: Option<SystemTime>,
}

/// A bot and what it may do.
pub(crate) struct Bot {
    pub name: String,
    pub roles: Vec<String>,
    /// 0 before the first join.
    pub generation: u64,
    pub instance: String,
}

pub(crate) struct App {
    pub public_address: String,
    pub uri: String,
}

pub(crate) struct Database {
    /// What it was called where it was discovered.
    pub discovered: Option<String>,
    pub protocol: String,
    pub uri: String,
}

/// An application session.
pub(crate) struct Session {
    pub user: String,
    pub public_address: String,
    pub visible_at: Instant,
    /// False when it was made without any role that reaches applications (rust-wire §4).
    pub reaches_apps: bool,
    pub resource: WebSessionV2,
}

impl State {
    pub fn new(options: Options) -> Result<Self> {
        let kinds = AuthorityKind::all(options.release);
        // RSA keys take their time: one thread for each authority.
        let authorities = std::thread::scope(|scope| {
            let threads: Vec<_> = kinds
                .iter()
                .map(|kind| scope.spawn(|| Authority::new(*kind, &options.cluster_name, options.release)))
                .collect();
            threads
                .into_iter()
                .map(|thread| thread.join().map_err(|_| anyhow::anyhow!("a thread making keys has died"))?)
                .collect::<Result<Vec<_>>>()
        })?;
        let web = Arc::new(WebAuthority::new()?);
        let tls = RwLock::new(Arc::new(TlsConfigs::new(&options, &authorities, &web)?));
        let registry = Registry { ttl_cap: options.ttl_cap, ..Registry::default() };
        Ok(Self {
            faults: Faults::default(),
            changes: broadcast::Sender::new(CHANGES_KEPT),
            cut: watch::Sender::new(0),
            ports: OnceLock::new(),
            listeners: Mutex::default(),
            tls,
            web,
            session_key: PrivateKey::p256()?,
            cluster_id: uuid(),
            started: Instant::now(),
            authorities: Mutex::new(authorities),
            registry: Mutex::new(registry),
            options,
        })
    }

    pub fn authorities(&self) -> MutexGuard<'_, Vec<Authority>> {
        self.authorities.lock().unwrap_or_else(|poisoned| poisoned.into_inner())
    }

    /// Runs `work` on one authority.
    pub fn authority<T>(&self, kind: AuthorityKind, work: impl FnOnce(&Authority) -> Result<T>) -> Result<T> {
        let authorities = self.authorities();
        work(authorities.iter().find(|authority| authority.kind == kind).context("the cluster lacks this authority")?)
    }

    pub fn registry(&self) -> MutexGuard<'_, Registry> {
        self.registry.lock().unwrap_or_else(|poisoned| poisoned.into_inner())
    }

    pub fn tls(&self) -> Arc<TlsConfigs> {
        self.tls.read().unwrap_or_else(|poisoned| poisoned.into_inner()).clone()
    }

    /// After a rotation: other servers' certificates, other clients trusted.
    pub fn renew_tls(&self) -> Result<()> {
        let configs = TlsConfigs::new(&self.options, &self.authorities(), &self.web)?;
        *self.tls.write().unwrap_or_else(|poisoned| poisoned.into_inner()) = Arc::new(configs);
        Ok(())
    }

    /// The proxy's `host:port`, as a cluster publishes it.
    pub fn proxy_address(&self) -> String {
        format!("localhost:{}", self.ports.get().map_or(0, |ports| ports.proxy.port()))
    }

    /// The next tick at which new sessions become visible.
    pub fn next_tick(&self) -> Instant {
        let (tick, passed) = (self.options.session_tick.as_nanos(), self.started.elapsed().as_nanos());
        match tick {
            0 => Instant::now(),
            tick => self.started + Duration::from_nanos((passed / tick * tick + tick) as u64),
        }
    }
}

/// A random UUID, version 4.
pub(crate) fn uuid() -> String {
    let mut bytes: [u8; 16] = rand::random();
    bytes[6] = bytes[6] & 0x0f | 0x40;
    bytes[8] = bytes[8] & 0x3f | 0x80;
    let text = hex(&bytes);
    [&text[..8], &text[8..12], &text[12..16], &text[16..20], &text[20..]].join("-")
}

/// Lower-case hexadecimal.
pub(crate) fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}
