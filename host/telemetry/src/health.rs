//! How every service is: what the loops report, and what diagnostics show.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use identity::{Clock, Failure, Health, Monitor, ServiceHealth, Timestamp};
use tokio::sync::watch;

/// Bounds of the histogram of durations, seconds: a key and a signature take tenths, a session a second, an outage the time-out.
pub(crate) const SECONDS: [f64; 8] = [0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0];
/// Bounds of the histogram of failures before a success (surface §F.5).
pub(crate) const ATTEMPTS: [f64; 6] = [0.0, 1.0, 2.0, 3.0, 4.0, 5.0];

/// A histogram as Prometheus counts: each bucket holds all that is not larger.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct Histogram<const N: usize> {
    pub(crate) buckets: [u64; N],
    pub(crate) sum: f64,
    pub(crate) count: u64,
}

impl<const N: usize> Default for Histogram<N> {
    fn default() -> Self {
        Self { buckets: [0; N], sum: 0.0, count: 0 }
    }
}

impl<const N: usize> Histogram<N> {
    fn add(&mut self, bounds: &[f64; N], value: f64) {
        for (bucket, bound) in self.buckets.iter_mut().zip(bounds) {
            *bucket += u64::from(value <= *bound);
        }
        self.sum += value;
        self.count += 1;
    }
}

/// What is known of one service.
#[derive(Debug, Clone, Default, PartialEq)]
pub(crate) struct Service {
    /// Its type.
    kind: String,
    /// When it last became healthy or ceased to be.
    since: Option<Timestamp>,
    /// Time at which what it has written ends; `None` before the first success.
    pub(crate) expires: Option<Timestamp>,
    /// Why the last try failed; empty after a success.
    pub(crate) reason: String,
    pub(crate) failures_in_a_row: u64,
    pub(crate) failed: u64,
    pub(crate) attempts: Histogram<6>,
    pub(crate) duration: Histogram<8>,
}

impl Service {
    /// How it is at `now`: healthy only where the last try succeeded and what it wrote is valid.
    pub(crate) fn health(&self, now: Timestamp) -> Health {
        match self.expires {
            _ if !self.reason.is_empty() => Health::Unhealthy(self.reason.clone()),
            None => Health::Initializing,
            Some(expires) if expires <= now => Health::Unhealthy(format!("expired at {expires}")),
            Some(_) => Health::Healthy,
        }
    }
}

/// By name.
pub(crate) type Known = BTreeMap<String, Service>;

/// Every service of a running agent. Cheap to clone.
#[derive(Clone)]
pub struct Services {
    known: Arc<watch::Sender<Known>>,
    pub(crate) clock: Arc<dyn Clock>,
    pub(crate) started: Timestamp,
}

impl Services {
    /// These, by name and type, none of which has been tried.
    pub fn new(named: impl IntoIterator<Item = (String, String)>, clock: Arc<dyn Clock>) -> Self {
        let started = clock.now();
        let service = |(name, kind)| (name, Service { kind, since: Some(started), ..Service::default() });
        Self { known: Arc::new(watch::Sender::new(named.into_iter().map(service).collect())), started, clock }
    }

    pub(crate) fn watch(&self) -> watch::Receiver<Known> {
        self.known.subscribe()
    }
}

impl Monitor for Services {
    fn tried(&self, service: &str, took: Duration, result: Result<Timestamp, &Failure>) {
        let now = self.clock.now();
        self.known.send_modify(|services| {
            let entry = services.entry(service.to_owned()).or_default();
            entry.duration.add(&SECONDS, took.as_secs_f64());
            let well = entry.expires.is_some() && entry.reason.is_empty();
            if well != result.is_ok() || entry.since.is_none() {
                entry.since = Some(now);
            }
            match result {
                Ok(expires) => {
                    entry.attempts.add(&ATTEMPTS, entry.failures_in_a_row as f64);
                    entry.failures_in_a_row = 0;
                    entry.reason.clear();
                    entry.expires = Some(expires);
                }
                Err(failure) => {
                    entry.failed += 1;
                    entry.failures_in_a_row += 1;
                    entry.reason = crate::redact(&failure.message);
                }
            }
        });
    }

    fn services(&self) -> Vec<ServiceHealth> {
        let now = self.clock.now();
        let health = |(name, service): (&String, &Service)| ServiceHealth {
            kind: service.kind.clone(),
            name: name.clone(),
            health: service.health(now),
            since: service.since.unwrap_or(self.started),
        };
        self.known.borrow().iter().map(health).collect()
    }
}
