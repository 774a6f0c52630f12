//! The bot's own identity: found, joined, renewed; durable before it is used.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use identity::{
    Certificates, Clock, Cluster, Destination, Failure, FailureKind, Identity, JoinMethod, Joining, KeyAlgorithm,
    Monitor, PrivateKey, RENEWAL_FILE, STORE_FILES, Session, load, token_hash,
};
use tokio::sync::{Mutex, OwnedMutexGuard};
use tracing::{debug, info, warn};
use zeroize::Zeroizing;

/// Reads the token's value when it is needed; `None` where the configuration names none.
pub type TokenSource = Arc<dyn Fn() -> Result<Option<Zeroizing<String>>, Failure> + Send + Sync>;

/// What the bot's own identity needs.
#[derive(Clone)]
pub struct BotSettings {
    /// The cluster.
    pub cluster: Arc<dyn Cluster>,
    /// Proves who this machine is.
    pub method: Arc<dyn JoinMethod>,
    /// The method's configuration, a JSON object.
    pub method_config: String,
    /// The token.
    pub token: TokenSource,
    /// Where the identity is kept.
    pub store: Arc<dyn Destination>,
    /// Wanted life of the certificates.
    pub ttl: Duration,
    /// How often they are renewed.
    pub interval: Duration,
    /// The wall clock.
    pub clock: Arc<dyn Clock>,
    /// Is told of every try.
    pub monitor: Arc<dyn Monitor>,
}

impl BotSettings {
    fn joining<'a>(&'a self, token: Zeroizing<String>, key: &'a PrivateKey) -> Joining<'a> {
        let (method, config, ttl) = (&*self.method, self.method_config.as_str(), self.ttl);
        Joining { method, config, token, key: key.public_key(), ttl }
    }
}

/// An identity that the cluster has issued and the disk does not hold yet.
#[derive(Clone)]
struct Unsaved {
    identity: Arc<Identity>,
    token_hash: String,
}

/// How an identity is asked for.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Way {
    Renewal,
    Joining,
}

pub(crate) struct BotIdentity {
    settings: BotSettings,
    loaded: bool,
    current: Option<Arc<Identity>>,
    token_hash: String,
    /// Issued, and writing it failed: the generation before is spent, so this one is kept and written again.
    unsaved: Arc<Mutex<Option<Unsaved>>>,
    /// Durable, and no connection with it yet.
    unconnected: bool,
    /// A renewal was asked for with the current identity, and nothing is known of the answer: this is what is said of it.
    unanswered: Option<Failure>,
    /// A new token was refused, and the identity renewed all the same.
    refused: Option<Failure>,
    /// Time until the next pass, where that is not for the loop to choose.
    pause: Duration,
    /// The open connection of the current identity.
    pub(crate) session: Option<Arc<dyn Session>>,
}

impl BotIdentity {
    /// `pause` is the time until the next pass, where that is not for the loop to choose.
    pub(crate) fn new(settings: BotSettings, pause: Duration) -> Self {
        Self {
            settings,
            loaded: false,
            current: None,
            token_hash: String::new(),
            unsaved: Arc::default(),
            unconnected: false,
            unanswered: None,
            refused: None,
            pause,
            session: None,
        }
    }

    pub(crate) fn current(&self) -> Option<&Arc<Identity>> {
        self.current.as_ref()
    }

    /// Is there no identity, not even one that waits for the disk? The token of that one is spent: nobody else can have it.
    pub(crate) async fn is_hopeless(&self) -> bool {
        self.current.is_none() && self.unsaved.lock().await.is_none()
    }

    /// Waits until no identity is between the cluster's answer and the disk. Tasks may be ended only then.
    pub(crate) fn quiescence(&self) -> impl Future<Output = ()> + use<> {
        let unsaved = self.unsaved.clone();
        async move { drop(unsaved.lock().await) }
    }

    /// One pass: a fresh identity, durable, and an open connection with it. Where the disk fails until the identity before is at its end, one
    /// that is kept in memory alone is connected, and the failure returned all the same; so where a new token is refused.
    pub(crate) async fn obtain(&mut self) -> Result<Arc<dyn Session>, Failure> {
        if !self.loaded {
            self.load().await?;
        }
        let unsaved = self.unsaved.clone().lock_owned().await;
        match unsaved.clone() {
            Some(waiting) => match self.save_again(unsaved).await {
                Ok(saved) => self.adopt(saved),
                Err(e) if !self.patience().is_zero() => return Err(e),
                Err(e) if self.current.as_ref().is_none_or(|current| !Arc::ptr_eq(current, &waiting.identity)) => {
                    self.adopt(waiting);
                    self.connect().await?;
                    return Err(e.context("used and kept in memory alone"));
                }
                Err(_) => self.fetch().await?,
            },
            None => {
                drop(unsaved);
                if !self.unconnected || self.expired() {
                    self.fetch().await?;
                }
            }
        }
        let session = self.connect().await?;
        self.refused.take().map_or(Ok(session), Err)
    }

    async fn save_again(&self, unsaved: OwnedMutexGuard<Option<Unsaved>>) -> Result<Unsaved, Failure> {
        // The directory may be what is missing; if there is no more to it, what is wrong is told by the write.
        if let Err(e) = self.settings.store.prepare().await {
            debug!(target: "TBOT", "The storage cannot be prepared: {e}");
        }
        save(self.settings.store.clone(), unsaved).await
    }

    async fn fetch(&mut self) -> Result<(), Failure> {
        let fresh = self.renew_or_join().await?;
        info!(target: "TBOT", identity = %fresh.identity, "Fetched new bot identity.");
        self.adopt(fresh);
        Ok(())
    }

    async fn connect(&mut self) -> Result<Arc<dyn Session>, Failure> {
        let identity = self.current.clone().ok_or_else(|| Failure::new(FailureKind::Internal, "no identity"))?;
        let connected = self.settings.cluster.connect(identity).await;
        // Who is refused is not brought in by waiting, but perhaps by a new token.
        self.unconnected = matches!(&connected, Err(e) if e.kind == FailureKind::Unavailable);
        let session = connected?;
        self.session = Some(session.clone());
        Ok(session)
    }

    /// How long a renewal whose answer was lost is not asked for again: until a tenth of the identity's life is left. Then there is little to
    /// lose: the cluster locks a bot that it has counted, and renews one that it never heard.
    pub(crate) fn patience(&self) -> Duration {
        let Some(current) = &self.current else { return Duration::ZERO };
        let (left, life) =
            (current.expires().since(self.settings.clock.now()), current.expires().since(current.tls.after));
        left.saturating_sub(life / 10)
    }

    /// May an identity be asked for while the disk cannot take it? A crash could lose it; but where the one before is at its end, waiting would.
    /// Never one that costs a token.
    fn does_without_disk(&self, way: Way) -> bool {
        let renewable = self.current.as_ref().map(|identity| identity.tls.subject.renewable());
        self.patience().is_zero() && renewable == Some(way == Way::Renewal)
    }

    /// Is there an identity, and past its end?
    fn expired(&self) -> bool {
        self.current.as_ref().is_some_and(|identity| self.settings.clock.now() >= identity.expires())
    }

    fn adopt(&mut self, saved: Unsaved) {
        self.current = Some(saved.identity);
        self.token_hash = saved.token_hash;
        self.unconnected = true;
        self.unanswered = None;
        // It is that of the identity before, whose generation is spent.
        self.session = None;
    }

    async fn load(&mut self) -> Result<(), Failure> {
        let store = &self.settings.store;
        info!(target: "TBOT", store = %store.description(), "Loading existing bot identity from store.");
        let mut files = HashMap::new();
        for name in STORE_FILES.into_iter().chain([RENEWAL_FILE]) {
            if let Some(contents) = store.read(name).await? {
                files.insert(name, contents);
            }
        }
        match load(&files) {
            Ok(Some(stored)) => {
                info!(target: "TBOT", identity = %stored.identity, "Loaded existing bot identity from store.");
                let asked = Failure::new(FailureKind::AnswerLost, "its last renewal ended without a stored answer");
                self.unanswered = stored.renewal_asked.then(|| unanswered(asked, &stored.identity));
                self.token_hash = stored.token_hash;
                self.current = Some(Arc::new(stored.identity));
            }
            Ok(None) => {
                info!(target: "TBOT", "No existing bot identity found in store. Bot will join using configured token.");
            }
            Err(damage) => {
                let stored = files.get("tokenhash").map(|hash| String::from_utf8_lossy(hash).trim().to_owned());
                let configured = (self.settings.token)().ok().flatten().map(|token| token_hash(&token));
                let place = store.description();
                if configured.is_none() || configured == stored {
                    let message = format!(
                        "the bot identity in {place} is damaged: {damage}; restore the files, or configure a new token to join again"
                    );
                    return Err(Failure::new(FailureKind::Storage, message));
                }
                warn!(target: "TBOT", store = %place, %damage, "The stored bot identity is damaged. Joining with the new token.");
            }
        }
        self.loaded = true;
        Ok(())
    }

    async fn renew_or_join(&mut self) -> Result<Unsaved, Failure> {
        let token = match (self.settings.token)() {
            Ok(token) => token,
            Err(e) if self.current.is_some() => {
                warn!(target: "TBOT", error = %e, "The token cannot be read. Going on with the stored identity.");
                None
            }
            Err(e) => return Err(e),
        };
        if let Some(identity) = self.current.clone() {
            let other = token.as_ref().is_some_and(|token| token_hash(token) != self.token_hash);
            let expired = self.expired();
            let renewable = identity.tls.subject.renewable();
            if other {
                info!(target: "TBOT", "The configured token differs from the one that was joined with. Joining again.");
                if let Some(token) = token.clone().filter(|_| renewable && !expired) {
                    return match self.join(token).await {
                        // A mistake in a token must not cost the identity, which cannot be joined for again.
                        Err(e) if e.kind == FailureKind::Denied => {
                            self.refused =
                                Some(e.context("the new token is refused, the identity before it is renewed"));
                            self.renew(identity).await
                        }
                        joined => joined,
                    };
                }
            } else if expired {
                warn!(target: "TBOT", expired = %identity.expires(), "The bot identity has expired. Trying to join again.");
            } else if renewable {
                return self.renew(identity).await;
            } else if let Some(token) = &token {
                match self.rejoin(identity, token.clone()).await {
                    Err(e) if joins_anew(e.kind) => debug!(target: "TBOT", "Joining anew: {e}"),
                    ended => return ended,
                }
            }
        }
        let Some(token) = token else {
            let message = "no existing identity found on disk or join token configured: set `onboarding.token`";
            return Err(Failure::new(FailureKind::InvalidConfig, message));
        };
        let spent = self.current.is_some() && token_hash(&token) == self.token_hash;
        self.join(token).await.map_err(|e| match e.kind {
            FailureKind::Denied if spent => Failure::new(
                FailureKind::Expired,
                format!("{}; the stored identity is past its end by this machine's clock and its token was used: create a new token and set `onboarding.token`", e.message),
            ),
            _ => e,
        })
    }

    async fn renew(&mut self, identity: Arc<Identity>) -> Result<Unsaved, Failure> {
        let session = self.session(identity.clone()).await?;
        if let Some(failure) = self.unanswered.as_ref().filter(|_| self.patience() > self.pause) {
            return Err(failure.clone());
        }
        info!(target: "TBOT", "Fetching bot identity using existing bot identity.");
        let (settings, hash, asking) = (self.settings.clone(), self.token_hash.clone(), identity.clone());
        let without_disk = self.does_without_disk(Way::Renewal);
        let renewed = self.uninterrupted(Way::Renewal, |key| async move {
            match settings.store.write(asking.files_asking(&hash, true)?).await {
                Err(e) if !without_disk => return Err(e),
                _ => {}
            }
            let answer = session.renew(key.public_key(), settings.ttl).await;
            if answer.as_ref().is_err_and(|e| e.kind != FailureKind::AnswerLost)
                && let Err(e) = settings.store.write(asking.files_asking(&hash, false)?).await
            {
                debug!(target: "TBOT", "The note of a renewal that was refused stays: {e}");
            }
            Ok((answer?, hash))
        });
        let renewed = renewed.await.map_err(|e| match e.kind {
            FailureKind::AnswerLost => unanswered(e, &identity),
            _ => e,
        });
        self.unanswered = renewed.as_ref().err().filter(|e| e.kind == FailureKind::AnswerLost).cloned();
        renewed
    }

    /// Joins over the connection of the identity that is there, so that the cluster goes on counting it as the same instance (wire §g.2).
    async fn rejoin(&mut self, identity: Arc<Identity>, token: Zeroizing<String>) -> Result<Unsaved, Failure> {
        let session = self.session(identity).await?;
        info!(target: "TBOT", "Fetching bot identity using token and existing bot identity.");
        let (settings, hash) = (self.settings.clone(), self.token_hash.clone());
        let ask =
            |key: Arc<PrivateKey>| async move { Ok((session.rejoin(settings.joining(token, &key)).await?, hash)) };
        self.uninterrupted(Way::Joining, ask).await
    }

    /// The connection of the identity that is there.
    async fn session(&mut self, identity: Arc<Identity>) -> Result<Arc<dyn Session>, Failure> {
        let session = match &self.session {
            Some(session) => {
                session.ping().await?;
                session.clone()
            }
            None => self.settings.cluster.connect(identity).await?,
        };
        self.session = Some(session.clone());
        Ok(session)
    }

    async fn join(&mut self, token: Zeroizing<String>) -> Result<Unsaved, Failure> {
        info!(target: "TBOT", "Fetching bot identity using token.");
        let settings = self.settings.clone();
        self.uninterrupted(Way::Joining, |key| async move {
            let hash = token_hash(&token);
            Ok((settings.cluster.join(settings.joining(token, &key)).await?, hash))
        })
        .await
    }

    /// Asks and saves in a task of its own, so that a shutdown cannot come between the cluster's answer and the disk.
    async fn uninterrupted<A>(&self, way: Way, ask: impl FnOnce(Arc<PrivateKey>) -> A) -> Result<Unsaved, Failure>
    where
        A: Future<Output = Result<(Certificates, String), Failure>> + Send + 'static,
    {
        // The cluster counts a renewal even if its answer cannot be kept: make sure of the place first.
        match self.settings.store.prepare().await {
            Err(e) if !self.does_without_disk(way) => return Err(e),
            _ => {}
        }
        let internal = |e: String| Failure::new(FailureKind::Internal, e);
        let key = Arc::new(PrivateKey::generate(KeyAlgorithm::EcdsaP256).map_err(|e| internal(e.to_string()))?);
        let (store, clock) = (self.settings.store.clone(), self.settings.clock.clone());
        let asking = ask(key.clone());
        let mut slot = self.unsaved.clone().lock_owned().await;
        let task = tokio::spawn(async move {
            let (certificates, token_hash) = asking.await?;
            let identity = Identity::new(key, certificates, clock.now()).map_err(|e| {
                let kind = if way == Way::Renewal { FailureKind::AnswerLost } else { FailureKind::Denied };
                Failure::new(kind, format!("the identity that the cluster issued cannot be used: {e}"))
            })?;
            let (now, after, before) = (clock.now(), identity.tls.after, identity.tls.before);
            if now < after || now >= before {
                warn!(target: "TBOT", "The cluster's certificate is valid from {after} to {before}, and it is {now} here: set this machine's clock.");
            }
            *slot = Some(Unsaved { identity: Arc::new(identity), token_hash });
            save(store, slot).await
        });
        task.await.map_err(|e| internal(e.to_string()))?
    }
}

/// May who could not join again as the same instance join as a new one? Not where the cluster has judged this machine: it would judge again.
fn joins_anew(kind: FailureKind) -> bool {
    matches!(kind, FailureKind::Unsupported | FailureKind::Unavailable | FailureKind::Expired)
}

/// What to say, and do, of a renewal that the cluster may have counted.
fn unanswered(failure: Failure, identity: &Identity) -> Failure {
    let message = format!(
        "{}; asking twice can lock the bot, so it is asked for again only shortly before {}, and outputs are renewed until then; if that is refused remove the lock (`tctl get locks`) and create a new token, up to version 15 a new bot too (`tctl bots rm`, `tctl bots add`): `onboarding.token` helps at once",
        failure.message,
        identity.expires()
    );
    Failure { message, ..failure }
}

/// Makes the waiting identity durable. Where that fails it goes on waiting.
async fn save(store: Arc<dyn Destination>, mut slot: OwnedMutexGuard<Option<Unsaved>>) -> Result<Unsaved, Failure> {
    let Some(unsaved) = slot.as_ref() else { return Err(Failure::new(FailureKind::Internal, "nothing to save")) };
    let written = store.write(unsaved.identity.files(&unsaved.token_hash)?).await;
    written.map_err(|e| e.context("the new bot identity cannot be stored, trying again"))?;
    slot.take().ok_or_else(|| Failure::new(FailureKind::Internal, "nothing to save"))
}
