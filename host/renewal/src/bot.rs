//! The whole bot: one task for its identity, one for each output, one for rotations.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use futures::StreamExt;
use futures::future::join_all;
use identity::{Clock, Failure, FailureKind, Health, IDENTITY_SERVICE, Monitor, ServiceHealth, Session, Timestamp};
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio::time::Instant;
use tracing::{debug, error, info, warn};

use crate::bot_identity::{BotIdentity, BotSettings};
use crate::heartbeat::{keep_heartbeat, last_heartbeat};
use crate::keys::KeyMaker;
use crate::output::OutputJob;
use crate::schedule::{go_duration, pace, renew_after, retry_after, sleep};

/// Rotation steps of one change come in bursts: collect them this long (wire §f.9).
const ROTATION_DEBOUNCE: Duration = Duration::from_secs(10);
/// Pause before the watch is opened again (wire §f.9).
const WATCH_RETRY: Duration = Duration::from_secs(2);
/// A hook that is owed waits this long for a cluster after a start, to run once for the set in place and the next.
const HOOK_PATIENCE: Duration = Duration::from_secs(30);
/// A key for the next generation is made this long before it is needed.
const KEY_LEAD: Duration = Duration::from_secs(10);
/// A shutdown waits this long for an identity on its way to the disk: longer than any single call to the cluster takes.
const SHUTDOWN_GRACE: Duration = Duration::from_secs(35);

type Sessions = watch::Receiver<Option<Arc<dyn Session>>>;

/// Asks for an immediate renewal of everything.
#[derive(Clone)]
pub struct Reload(watch::Sender<u64>);

impl Reload {
    /// A trigger that nobody listens to yet.
    pub fn new() -> Self {
        Self(watch::Sender::new(0))
    }

    /// Renew now.
    pub fn trigger(&self) {
        self.0.send_modify(|count| *count += 1);
    }
}

impl Default for Reload {
    fn default() -> Self {
        Self::new()
    }
}

/// A bot, ready to run.
pub struct Bot {
    /// Its own identity.
    pub settings: BotSettings,
    /// Its outputs.
    pub outputs: Vec<OutputJob>,
}

impl Bot {
    /// Obtains an identity, renews every output once, and ends; ends early, without an error, when `shutdown` completes.
    /// Outputs that fail leave the others alone.
    ///
    /// # Errors
    /// The identity's failure alone, or one failure for each output that failed.
    pub async fn oneshot(self, shutdown: impl Future<Output = ()>) -> Result<(), Vec<Failure>> {
        // Whoever runs passes one by one comes again after an interval, as far as anybody knows.
        let identity = BotIdentity::new(self.settings.clone(), self.settings.interval);
        let quiescence = identity.quiescence();
        let ended = tokio::select! {
            () = shutdown => Ok(()),
            ended = self.pass(identity) => ended,
        };
        quiesce(quiescence).await;
        ended
    }

    async fn pass(self, mut identity: BotIdentity) -> Result<(), Vec<Failure>> {
        let started = Instant::now();
        let obtained = identity.obtain().await;
        let (session, unanswered) = match (obtained, identity.session) {
            (Ok(session), _) => (session, None),
            // The identity lives, so outputs do.
            (Err(e), Some(session)) if e.kind == FailureKind::AnswerLost => (session, Some(e)),
            (Err(e), _) => return Err(vec![e]),
        };
        info!(target: "TBOT", "Bot initialization complete.");
        info!(target: "TBOT", "One-shot mode enabled. Generating outputs.");
        let keys = KeyMaker::new();
        let renewals = self.outputs.iter().map(async |output| {
            let mut owed = output.owes_hook().await;
            let renewed = async {
                let key = keys.make(output.key_algorithm(&*session)).await?;
                output.announce();
                output.renew(&*session, &key, &*self.settings.clock).await
            }
            .await;
            owed |= renewed.is_ok();
            let hooked = if owed { output.run_hook().await } else { Ok(()) };
            renewed.and(hooked)
        });
        let results: Vec<_> = join_all(renewals).await;
        let services = self.outputs.iter().zip(&results).map(|(output, result)| ServiceHealth {
            kind: output.settings().kind.clone(),
            name: output.name().to_owned(),
            health: result
                .as_ref()
                .map_or_else(|failure| Health::Unhealthy(failure.message.clone()), |_| Health::Healthy),
            since: self.settings.clock.now(),
        });
        let method = &self.settings.method.description().method;
        last_heartbeat(&*session, method, services.collect(), started.elapsed()).await;
        let outputs = results.into_iter().zip(&self.outputs);
        let refused = outputs.filter_map(|(result, output)| {
            Some(result.err()?.context(format_args!("output {}", output.description())))
        });
        let failed: Vec<_> = unanswered.map(|e| e.context("bot identity")).into_iter().chain(refused).collect();
        if failed.is_empty() {
            info!(target: "TBOT", "Generated outputs. One-shot mode is enabled so exiting.");
            return Ok(());
        }
        Err(failed)
    }

    /// Keeps everything fresh until `shutdown` completes. An outage never ends it.
    ///
    /// # Errors
    /// What an operator has to mend before there can be a first identity: a refused token, damaged storage.
    pub async fn run(self, reload: Reload, shutdown: impl Future<Output = ()>) -> Result<(), Failure> {
        let identity = BotIdentity::new(self.settings.clone(), Duration::ZERO);
        let quiescence = identity.quiescence();
        let (publish, sessions) = watch::channel(None);
        let keys = KeyMaker::new();
        let mut tasks = JoinSet::new();
        for output in self.outputs.into_iter().map(Arc::new) {
            let (sessions, reload, keys) = (sessions.clone(), reload.clone(), keys.clone());
            let (clock, monitor) = (self.settings.clock.clone(), self.settings.monitor.clone());
            tasks.spawn(async move {
                // A panic is a defect of ours; it must not cost the output its later renewals.
                loop {
                    let mut one = JoinSet::new();
                    let context = (keys.clone(), clock.clone(), monitor.clone());
                    one.spawn(keep_output(output.clone(), sessions.clone(), reload.0.subscribe(), context));
                    one.join_next().await;
                    error!(target: "TBOT", output = %output.description(), "The output's task ended. Starting it again.");
                    let ended = Failure::new(FailureKind::Internal, "its task ended, which is a defect: see the log");
                    monitor.tried(output.name(), Duration::ZERO, Err(&ended));
                    sleep(&*clock, output.interval()).await;
                }
            });
        }
        let (monitor, clock) = (self.settings.monitor.clone(), self.settings.clock.clone());
        let method = self.settings.method.description().method.clone();
        tasks.spawn(keep_heartbeat(sessions.clone(), monitor, method, clock));
        tasks.spawn(watch_rotations(sessions, reload.clone()));
        let ended = tokio::select! {
            () = shutdown => Ok(()),
            fatal = keep_identity(identity, publish, reload.0.subscribe(), self.settings) => Err(fatal),
        };
        tasks.abort_all();
        quiesce(quiescence).await;
        ended
    }
}

/// Waits for what is between the cluster's answer and the disk: it has a task of its own.
async fn quiesce(quiescence: impl Future<Output = ()>) {
    if tokio::time::timeout(SHUTDOWN_GRACE, quiescence).await.is_err() {
        warn!(target: "TBOT", "A renewal was still under way at shutdown.");
    }
}

/// The bot identity's loop. Ends only where there is no identity and waiting cannot bring one.
async fn keep_identity(
    mut identity: BotIdentity,
    publish: watch::Sender<Option<Arc<dyn Session>>>,
    mut reload: watch::Receiver<u64>,
    settings: BotSettings,
) -> Failure {
    let mut trouble = Trouble::default();
    let (ttl, interval) = (go_duration(settings.ttl), go_duration(settings.interval));
    info!(target: "TBOT", "Beginning bot identity renewal loop: ttl={ttl} interval={interval}");
    loop {
        let begin = Instant::now();
        let result = identity.obtain().await;
        if let Some(session) = &identity.session {
            // Also after a failed renewal: as long as the identity lives, outputs are kept fresh with it.
            publish.send_if_modified(|published| {
                let same = published.as_ref().is_some_and(|old| Arc::ptr_eq(old, session));
                *published = Some(session.clone());
                !same
            });
        }
        let now = settings.clock.now();
        let expires = identity.current().map_or(now, |current| current.expires());
        settings.monitor.tried(IDENTITY_SERVICE, begin.elapsed(), result.as_ref().map(|_| expires));
        let wait = match result {
            Ok(_) => {
                trouble.over("bot identity");
                let wait = renew_after(settings.interval, now, expires);
                info!(target: "TBOT", "Renewed bot identity. Next bot identity renewal in approximately {}.", go_duration(wait));
                wait
            }
            Err(failure) if failure.kind != FailureKind::Unavailable && identity.is_hopeless().await => return failure,
            Err(failure) => {
                let attempt = trouble.meet("bot identity", &failure);
                let longest = pace(settings.interval, expires.since(now));
                match failure.kind {
                    FailureKind::AnswerLost => {
                        identity.patience().max(retry_after(FailureKind::Unavailable, attempt, longest))
                    }
                    kind => retry_after(kind, attempt, longest),
                }
            }
        };
        tokio::select! {
            () = sleep(&*settings.clock, wait) => {}
            Ok(()) = reload.changed() => {}
        }
    }
}

/// One output's loop.
async fn keep_output(
    output: Arc<OutputJob>,
    mut sessions: Sessions,
    mut reload: watch::Receiver<u64>,
    (keys, clock, monitor): (KeyMaker, Arc<dyn Clock>, Arc<dyn Monitor>),
) {
    let mut trouble = Trouble::default();
    let name = format!("output {}", output.description());
    let mut ready = None;
    // What is in place and until when; the hook is tried again without a new certificate.
    let mut fresh: Option<(Timestamp, Timestamp)> = None;
    let mut good_until = Timestamp(0);
    let mut owed = output.owes_hook().await;
    if owed && tokio::time::timeout(HOOK_PATIENCE, sessions.wait_for(Option::is_some)).await.is_err() {
        // The set in place may be one that nobody was told of, and nobody knows when there will be another.
        match output.run_hook().await {
            Ok(()) => owed = false,
            Err(failure) => drop(trouble.meet(&name, &failure)),
        }
    }
    loop {
        let Ok(session) = sessions.wait_for(Option::is_some).await.map(|session| session.clone()) else { return };
        let Some(session) = session else { continue };
        let algorithm = output.key_algorithm(&*session);
        let begin = Instant::now();
        let renewed = match fresh {
            Some((due, expires)) if owed && clock.now() < due => Ok(expires),
            _ => {
                let key = match ready.take() {
                    Some(key) => Ok(key),
                    None => keys.make(algorithm).await,
                };
                let renewed = match key {
                    Ok(key) => {
                        if trouble.attempts == 0 {
                            output.announce();
                        }
                        output.renew(&*session, &key, &*clock).await
                    }
                    Err(failure) => Err(failure),
                };
                owed |= renewed.is_ok();
                renewed
            }
        };
        let hooked = if owed { output.run_hook().await } else { Ok(()) };
        owed &= hooked.is_err();
        let now = clock.now();
        let planned = renewed.as_ref().map(|expires| match fresh {
            Some((due, known)) if known == *expires && now < due => due.since(now).min(output.interval()),
            _ => renew_after(output.interval(), now, *expires),
        });
        fresh = planned.as_ref().ok().zip(renewed.as_ref().ok()).map(|(wait, expires)| (now.plus(*wait), *expires));
        let planned = planned.unwrap_or(output.interval());
        let failed = renewed.is_err();
        good_until = renewed.as_ref().copied().unwrap_or(good_until);
        let result = renewed.and_then(|expires| hooked.map(|()| expires));
        monitor.tried(output.name(), begin.elapsed(), result.as_ref().map(|expires| *expires));
        let wait = match result {
            Ok(_) => {
                trouble.over(&name);
                planned
            }
            Err(failure) => {
                let attempt = trouble.meet(&name, &failure);
                retry_after(failure.kind, attempt, pace(output.interval(), good_until.since(now))).min(planned)
            }
        };
        let ahead = async {
            sleep(&*clock, wait.saturating_sub(KEY_LEAD)).await;
            if wait > KEY_LEAD {
                ready = keys.make(algorithm).await.ok();
            }
            sleep(&*clock, wait.min(KEY_LEAD)).await;
        };
        tokio::select! {
            () = ahead => {}
            Ok(()) = reload.changed() => fresh = None,
            // A new identity may be what was missing.
            Ok(()) = sessions.changed(), if failed => {}
        }
    }
}

/// Turns rotations of authorities into reloads.
async fn watch_rotations(mut sessions: Sessions, reload: Reload) {
    loop {
        let Ok(session) = sessions.wait_for(Option::is_some).await.map(|session| session.clone()) else { return };
        let Some(session) = session else { continue };
        match session.rotations().await {
            Ok(mut steps) => {
                info!(target: "TBOT", "Started watching for CA rotations");
                let replaced = loop {
                    tokio::select! {
                        step = steps.next() => match step {
                            Some(Ok(())) => {
                                info!(target: "TBOT", "CA Rotation step detected; queueing renewal.");
                                tokio::time::sleep(ROTATION_DEBOUNCE).await;
                                reload.trigger();
                            }
                            Some(Err(failure)) => {
                                debug!(target: "TBOT", error = %failure, "The watch for CA rotations broke.");
                                break false;
                            }
                            None => break false,
                        },
                        Ok(()) = sessions.changed() => break true,
                    }
                };
                if replaced {
                    // At once: what happens in a pause would not be heard of.
                    continue;
                }
            }
            Err(failure) => debug!(target: "TBOT", error = %failure, "The watch for CA rotations cannot be opened."),
        }
        tokio::time::sleep(WATCH_RETRY).await;
    }
}

/// Most reasons of one trouble that are told: more of them are a network that fails in ever other words.
const REASONS: usize = 8;

/// One line for each change of state, not for each try.
#[derive(Default)]
struct Trouble {
    attempts: u32,
    told: BTreeSet<String>,
}

impl Trouble {
    fn meet(&mut self, what: &str, failure: &Failure) -> u32 {
        self.attempts = self.attempts.saturating_add(1);
        if self.is_news(&failure.message) {
            error!(target: "TBOT", "{what} cannot be renewed, the last good one stays: {failure}");
        } else {
            debug!(target: "TBOT", attempt = self.attempts, "{what} still fails: {failure}");
        }
        self.attempts
    }

    /// Has it not been told of this trouble yet? Two reasons that take turns are told once each.
    fn is_news(&mut self, message: &str) -> bool {
        self.told.len() < REASONS && self.told.insert(message.to_owned())
    }

    fn over(&mut self, what: &str) {
        if self.attempts > 0 {
            info!(target: "TBOT", attempts = self.attempts, "{what} is renewed again");
        }
        *self = Self::default();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reasons_that_take_turns_are_told_once_each() {
        let mut trouble = Trouble::default();
        let told = (0..100).filter(|n| trouble.is_news(if n % 2 == 0 { "refused" } else { "timed out" })).count();
        assert_eq!(told, 2);
        assert_eq!((0..100).filter(|n| trouble.is_news(&n.to_string())).count(), REASONS - 2);
        trouble.over("a test");
        assert!(trouble.is_news("refused"), "a new trouble is news");
    }
}
