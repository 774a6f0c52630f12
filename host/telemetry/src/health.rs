//! How every service is: what the loops report, and what diagnostics show.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use identity::{Clock, Failure, Monitor, Timestamp};
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
    /// Time at which what it has written ends; `None` before the first success.
    pub(crate) expires: Option<Timestamp>,
    /// Why the last try failed; empty after a success.
    pub(crate) reason: String,
    pub(crate) failures_in_a_row: u64,
    pub(crate) failed: u64,
    pub(crate) attempts: Histogram<6>,
    pub(crate) duration: Histogram<8>,
}

/// How a service is now (surface §F.5).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Status {
    /// Not tried to the end yet.
    Initializing,
    /// Its last try succeeded, and what it wrote is valid.
    Healthy,
    /// Its last try failed, or what it wrote has expired.
    Unhealthy,
}

impl Status {
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Initializing => "initializing",
            Self::Healthy => "healthy",
            Self::Unhealthy => "unhealthy",
        }
    }
}

impl Service {
    /// How it is at `now`, and why.
    pub(crate) fn status(&self, now: Timestamp) -> (Status, String) {
        match self.expires {
            _ if !self.reason.is_empty() => (Status::Unhealthy, self.reason.clone()),
            None => (Status::Initializing, "not renewed yet".into()),
            Some(expires) if expires <= now => (Status::Unhealthy, format!("expired at {expires}")),
            Some(_) => (Status::Healthy, String::new()),
        }
    }
}

pub(crate) type Services = BTreeMap<String, Service>;

/// The health of a running agent. Cheap to clone.
#[derive(Clone)]
pub struct Health {
    services: Arc<watch::Sender<Services>>,
    pub(crate) clock: Arc<dyn Clock>,
    pub(crate) started: Timestamp,
}

impl Health {
    /// Of these services, none of which has been tried.
    pub fn new(services: impl IntoIterator<Item = String>, clock: Arc<dyn Clock>) -> Self {
        let services = services.into_iter().map(|name| (name, Service::default())).collect();
        Self { services: Arc::new(watch::Sender::new(services)), started: clock.now(), clock }
    }

    /// Of every service: name, how it is, and why it is not healthy.
    pub fn services(&self) -> Vec<(String, Status, String)> {
        let now = self.clock.now();
        let named = |(name, service): (&String, &Service)| {
            let (status, reason) = service.status(now);
            (name.clone(), status, reason)
        };
        self.services.borrow().iter().map(named).collect()
    }

    pub(crate) fn watch(&self) -> watch::Receiver<Services> {
        self.services.subscribe()
    }
}

impl Monitor for Health {
    fn tried(&self, service: &str, took: Duration, result: Result<Timestamp, &Failure>) {
        self.services.send_modify(|services| {
            let entry = services.entry(service.to_owned()).or_default();
            entry.duration.add(&SECONDS, took.as_secs_f64());
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
}
