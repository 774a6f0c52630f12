//! The way from a client of the port to the service.

use std::io;
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::Duration;

use cluster::{ProxyClient, ProxyDialer, ResourceKind, Stream, TeleportCluster};
use identity::{Failure, FailureKind};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::time::Instant;
use tracing::{debug, warn};

use crate::answers::AtRest;
use crate::credentials::{Credential, Credentials};
use crate::http::{self, LoginWatch};
use crate::protocol::Talk;
use crate::relay::{Ends, relay};
use crate::{Mode, Protocol, Settings, Target, postgres, refusal, tds};

/// A client that has connected says what it wants within this time; a PostgreSQL server gives as much.
const HELLO: Duration = Duration::from_secs(60);
/// So long before its certificate expires, a connection that is judged by it gives way to one with the next.
const SUCCESSION: Duration = Duration::from_secs(60);
/// Failures of connections are logged once in this time, with their number.
const QUIET: Duration = Duration::from_secs(10);

/// What every connection of one tunnel shares.
pub(crate) struct Way {
    target: Target,
    mode: Mode,
    credentials: Credentials,
    dialer: OnceLock<ProxyDialer>,
    cluster: Arc<TeleportCluster>,
    idle: Duration,
    protocol: OnceLock<&'static Protocol>,
    clients: Mutex<Option<Arc<Clients>>>,
    complaints: Mutex<(Option<Instant>, u64)>,
}

impl Way {
    pub(crate) fn new(settings: Settings) -> Self {
        let Settings { target, mode, credentials, cluster, limits, .. } = settings;
        Self {
            target,
            mode,
            credentials,
            dialer: OnceLock::new(),
            cluster,
            idle: limits.idle,
            protocol: OnceLock::new(),
            clients: Mutex::default(),
            complaints: Mutex::default(),
        }
    }

    /// Finds out what is spoken, and tries the way once.
    pub(crate) async fn usable(&self) -> Result<(), Failure> {
        let credential = self.credentials.current().await?;
        self.check(&credential)?;
        if self.dialer.get().is_none() {
            let authorities = self.credentials.authorities().await?;
            let dialer = self.cluster.proxy(&credential.tls, &credential.key, authorities).await?;
            self.dialer.get_or_init(|| dialer);
        }
        let protocol = match &self.target {
            Target::Application(_, Some(protocol)) => protocol,
            Target::Application(name, None) => self.ask(&credential, name).await?,
            Target::Database(service) => {
                let name = credential.tls.subject.attribute("2.2").unwrap_or_default();
                Protocol::database(name).ok_or_else(|| {
                    let message = format!("database {service:?} speaks `{name}`, which cannot be carried");
                    Failure::new(FailureKind::Unsupported, message)
                })?
            }
        };
        if self.mode == Mode::Passthrough && protocol.only_authenticated {
            let message =
                format!("clients of {} cannot show the certificate themselves: use `--tunnel`", protocol.title);
            return Err(Failure::new(FailureKind::Unsupported, message));
        }
        self.protocol.get_or_init(|| protocol);
        let lane = if self.mode == Mode::Authenticated { Lane::Authenticated } else { Lane::Anonymous };
        self.client(lane).await?.probe().await.map_err(|failure| self.explain(failure))
    }

    /// The certificate must lead to the target (wire §h.2).
    fn check(&self, credential: &Credential) -> Result<(), Failure> {
        let (what, wanted, attribute, remedy) = match &self.target {
            Target::Application(name, _) => ("application", name, "1.10", "type: application, app_name"),
            Target::Database(service) => ("database", service, "2.1", "type: database, service"),
        };
        let found = credential.tls.subject.attribute(attribute);
        if found == Some(wanted) {
            return Ok(());
        }
        let found = found.map_or(format!("for no {what}"), |other| format!("for {what} {other:?}"));
        let message = format!(
            "the certificate in {} is {found}, not for {wanted:?}: name the directory of an output `{{{remedy}: {wanted}}}`",
            self.credentials.description()
        );
        Err(Failure::new(FailureKind::InvalidConfig, message))
    }

    async fn ask(&self, credential: &Credential, name: &str) -> Result<&'static Protocol, Failure> {
        let authorities = self.credentials.authorities().await?;
        let found =
            self.cluster.resources(&credential.tls, &credential.key, authorities, ResourceKind::Application).await?;
        match found.into_iter().find(|resource| resource.name == name) {
            Some(resource) => Ok(Protocol::application(&resource.uri)),
            None => Err(Failure::new(
                FailureKind::Denied,
                format!("app {name:?} not found, or not allowed for the bot's roles"),
            )),
        }
    }

    fn dialer(&self) -> Result<&ProxyDialer, Failure> {
        self.dialer.get().ok_or_else(|| Failure::new(FailureKind::Unavailable, "the proxy is not known yet"))
    }

    /// The certificate that is shown now.
    pub(crate) async fn credential(&self) -> Result<Arc<Credential>, Failure> {
        self.credentials.current().await
    }

    pub(crate) fn protocol(&self) -> &'static Protocol {
        self.protocol.get().copied().unwrap_or(Protocol::TCP)
    }

    /// How the client begins: where the protocol does not ask for TLS in the middle, its own TLS comes first.
    fn talk(&self) -> Talk {
        match (self.mode, self.protocol().talk) {
            (Mode::Passthrough, Talk::Mongo | Talk::Redis | Talk::HttpDatabase | Talk::Opaque) => Talk::Tls,
            (_, talk) => talk,
        }
    }

    async fn client(&self, lane: Lane) -> Result<ProxyClient, Failure> {
        let known = lock(&self.clients).clone();
        let clients = match (self.credentials.current().await, known) {
            (Ok(credential), Some(known)) if Arc::ptr_eq(&known.credential, &credential) => known,
            (Ok(credential), _) => {
                let clients = Arc::new(self.clients(credential).await?);
                *lock(&self.clients) = Some(clients.clone());
                clients
            }
            // Whoever shows no certificate needs none.
            (Err(_), Some(known)) if lane == Lane::Anonymous => known,
            (Err(failure), _) => return Err(failure),
        };
        Ok(match lane {
            Lane::Authenticated => clients.own.clone(),
            Lane::Http2 => clients.http2.clone(),
            Lane::Anonymous => clients.anonymous.clone(),
        })
    }

    async fn clients(&self, credential: Arc<Credential>) -> Result<Clients, Failure> {
        self.check(&credential)?;
        let (dialer, offers) = (self.dialer()?, self.protocol().offers());
        let authorities = self.credentials.authorities().await?;
        let own = dialer.client(&offers, Some((&credential.tls, &credential.key)), authorities.clone())?;
        let anonymous = dialer.client(&offers, None, authorities)?;
        Ok(Clients { http2: own.offering(&["h2"]), own, anonymous, credential })
    }

    /// Serves one client to its end. What goes wrong is told to it where its protocol can, and logged.
    pub(crate) async fn connection(&self, mut client: Box<dyn Stream>) {
        let greeted = tokio::time::timeout(HELLO, self.greet(&mut client)).await;
        let First { bytes, lane, answering } = match greeted {
            Ok(Ok(Some(hello))) => hello,
            Ok(Ok(None)) => return,
            Ok(Err(e)) => return self.complain(&format!("a client of {}: {e}", self.target)),
            Err(_) => {
                return debug!(target: "TBOT", "A client of {} said nothing for {} s.", self.target, HELLO.as_secs());
            }
        };
        let failure = match self.connect(&bytes, lane).await {
            Err(failure) => failure,
            Ok((service, at_rest)) => {
                let ends = Ends { idle: self.idle, answering, pause: self.left().zip(at_rest) };
                let done = relay(&mut client, service, ends).await;
                debug!(target: "TBOT", "A connection to {} ended: {} bytes up, {} bytes down{}.", self.target, done.up, done.down, if done.idle { ", idle" } else { "" });
                match done.fault {
                    Some(fault) if done.down == 0 => self.broken(&fault),
                    Some(fault) => return debug!(target: "TBOT", "The connection to {} broke: {fault}", self.target),
                    None => return,
                }
            }
        };
        self.complain(&format!("{}: {failure}", self.target));
        refusal::refuse(
            &mut client,
            if lane == Lane::Http2 { Talk::Opaque } else { self.talk() },
            &bytes,
            &failure.message,
        )
        .await;
    }

    /// What the client says before the service has to hear it.
    async fn greet(&self, client: &mut Box<dyn Stream>) -> io::Result<Option<First>> {
        let own = if self.mode == Mode::Authenticated { Lane::Authenticated } else { Lane::Anonymous };
        match self.talk() {
            Talk::Postgres => {
                let hello = postgres::greet(client, self.mode).await?;
                // Cancelling carries no TLS of the client's own: the tunnel shows the certificate (wire §i.3).
                Ok(hello.map(|postgres::Hello { bytes, cancel }| {
                    let lane = if cancel { Lane::Authenticated } else { own };
                    First { bytes, lane, answering: !cancel }
                }))
            }
            Talk::Http => {
                let hello = http::greet(client).await?;
                Ok(hello.map(|(bytes, http2)| {
                    let lane = if http2 { Lane::Http2 } else { own };
                    First { bytes, lane, answering: true }
                }))
            }
            Talk::Mongo => {
                let mut bytes = vec![0; refusal::MONGO_HEADER];
                let said = unless_gone(client.read_exact(&mut bytes).await)?;
                Ok(said.map(|_| First { bytes, lane: own, answering: true }))
            }
            Talk::SqlServer => {
                let said = unless_gone(tds::request(client).await)?;
                Ok(said.map(|bytes| First { bytes, lane: own, answering: true }))
            }
            talk => Ok(Some(First { bytes: Vec::new(), lane: own, answering: talk != Talk::Opaque })),
        }
    }

    /// A connection that was told `first`; of HTTP, whose requests are judged one by one, also when it may end.
    async fn connect(&self, first: &[u8], lane: Lane) -> Result<(Box<dyn Stream>, Option<AtRest>), Failure> {
        let dialed = self.client(lane).await?.dial().await.map_err(|failure| self.explain(failure))?;
        let (mut service, at_rest): (Box<dyn Stream>, _) = if self.talk() == Talk::Http {
            let watched = LoginWatch::new(dialed, lane == Lane::Http2);
            let at_rest = watched.at_rest();
            (Box::new(watched), Some(at_rest))
        } else {
            (dialed, None)
        };
        if !first.is_empty() {
            service.write_all(first).await.map_err(|e| self.broken(&e))?;
        }
        Ok((service, at_rest))
    }

    /// Until a connection needs a successor with the next certificate.
    fn left(&self) -> Option<Duration> {
        let shown = lock(&self.clients).as_ref().map(|clients| clients.credential.clone())?;
        Some(self.credentials.left(&shown).saturating_sub(SUCCESSION))
    }

    fn broken(&self, error: &io::Error) -> Failure {
        match self.dialer() {
            Ok(dialer) => self.explain(dialer.failure(error)),
            Err(failure) => failure,
        }
    }

    /// The proxy speaks of a certificate: say which one.
    fn explain(&self, failure: Failure) -> Failure {
        match failure.kind {
            FailureKind::Denied | FailureKind::Expired => {
                failure.context(format_args!("the certificate in {} was refused", self.credentials.description()))
            }
            _ => failure,
        }
    }

    /// Logs a failure, one in a while: with the proxy away there may be thousands.
    pub(crate) fn complain(&self, message: &str) {
        let mut complaints = lock(&self.complaints);
        complaints.1 += 1;
        if complaints.0.is_some_and(|last| last.elapsed() < QUIET) {
            return debug!(target: "TBOT", "{message}");
        }
        let more = if complaints.1 > 1 { format!(" ({} since the last message)", complaints.1) } else { String::new() };
        *complaints = (Some(Instant::now()), 0);
        warn!(target: "TBOT", "{message}{more}");
    }
}

/// Connections in the time of one certificate: with it and the protocol's own names, with it and HTTP/2, and without it.
struct Clients {
    credential: Arc<Credential>,
    own: ProxyClient,
    http2: ProxyClient,
    anonymous: ProxyClient,
}

/// How a connection begins.
struct First {
    /// What the client said, for the service.
    bytes: Vec<u8>,
    lane: Lane,
    /// The service has to say something in return.
    answering: bool,
}

/// Which way a connection takes.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Lane {
    Authenticated,
    Http2,
    Anonymous,
}

/// A client that leaves before it has said what it wants is no error.
fn unless_gone<T>(said: io::Result<T>) -> io::Result<Option<T>> {
    match said {
        Err(e) if e.kind() == io::ErrorKind::UnexpectedEof => Ok(None),
        said => said.map(Some),
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
