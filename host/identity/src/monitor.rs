use std::time::Duration;

use crate::{Failure, ServiceHealth, Timestamp};

/// Name under which the bot's own identity is monitored; outputs have the names of the configuration (surface §B.7).
pub const IDENTITY_SERVICE: &str = "identity";

/// Is told of every try to renew something, and so knows how everybody is.
pub trait Monitor: Send + Sync {
    /// `service` was tried: it is good until the time given, or failed and keeps what it had. `took` is the length of the try.
    fn tried(&self, service: &str, took: Duration, result: Result<Timestamp, &Failure>);
    /// How every service is now.
    fn services(&self) -> Vec<ServiceHealth>;
}

/// Nobody looks: for one-shot runs.
pub struct Unmonitored;

impl Monitor for Unmonitored {
    fn tried(&self, _: &str, _: Duration, _: Result<Timestamp, &Failure>) {}

    fn services(&self) -> Vec<ServiceHealth> {
        Vec::new()
    }
}
