//! When to act next.

use std::time::Duration;

use identity::{Clock, FailureKind, Timestamp};
use rand::Rng;

/// First delay after a failure that may pass by itself.
const FIRST_RETRY: Duration = Duration::from_secs(1);
/// A machine that slept wakes with its monotonic clock behind: look at the wall clock this often.
const LONGEST_SLEEP: Duration = Duration::from_secs(60);

/// When a credential that lives from now until `expires` is renewed: after `interval`, or at 70 % of its remaining life where that is
/// sooner, up to 1 % earlier so that a fleet that started together drifts apart.
pub(crate) fn renew_after(interval: Duration, now: Timestamp, expires: Timestamp) -> Duration {
    let planned = interval.min(expires.since(now).mul_f64(0.7)).max(FIRST_RETRY);
    planned.mul_f64(rand::rng().random_range(0.99..1.0))
}

/// How long to wait after the `attempt`-th failure in a row (from 1): doubling from a second and half-jittered where trying again can
/// help by itself, the interval where somebody has to act first.
pub(crate) fn retry_after(kind: FailureKind, attempt: u32, interval: Duration) -> Duration {
    match kind {
        FailureKind::Unavailable => {
            let doubled = FIRST_RETRY.saturating_mul(1 << (attempt.saturating_sub(1)).min(16)).min(interval);
            doubled.mul_f64(rand::rng().random_range(0.5..1.0))
        }
        _ => interval,
    }
}

/// Sleeps until `delay` has passed on the wall clock, also across a suspended machine.
pub(crate) async fn sleep(clock: &dyn Clock, delay: Duration) {
    // Whole seconds on the wall clock; the fraction that they cannot express is slept first.
    tokio::time::sleep(Duration::from_nanos(u64::from(delay.subsec_nanos()))).await;
    let due = clock.now().plus(delay);
    loop {
        let left = due.since(clock.now());
        if left.is_zero() {
            return;
        }
        tokio::time::sleep(left.min(LONGEST_SLEEP)).await;
    }
}

/// As the original prints durations: whole seconds in Go's form.
pub(crate) fn go_duration(duration: Duration) -> String {
    let seconds = duration.as_secs();
    match (seconds / 3600, seconds / 60 % 60, seconds % 60) {
        (0, 0, s) => format!("{s}s"),
        (0, m, s) => format!("{m}m{s}s"),
        (h, m, s) => format!("{h}h{m}m{s}s"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn renews_at_the_interval_or_at_70_percent_of_the_remaining_life() {
        let interval = Duration::from_secs(1200);
        for (life, wanted) in [(3600, 1200.0), (600, 420.0), (0, 1.0)] {
            let after = renew_after(interval, Timestamp(1000), Timestamp(1000 + life)).as_secs_f64();
            assert!(after > wanted * 0.98 && after <= wanted, "{life}: {after}");
        }
    }

    #[test]
    fn backs_off_only_where_trying_again_can_help() {
        let interval = Duration::from_secs(1200);
        for attempt in 1..40 {
            let after = retry_after(FailureKind::Unavailable, attempt, interval);
            let full = Duration::from_secs(1 << (attempt - 1).min(16)).min(interval);
            assert!(after >= full / 2 && after <= full, "{attempt}: {after:?}");
        }
        assert_eq!(retry_after(FailureKind::Denied, 1, interval), interval);
        assert_eq!(retry_after(FailureKind::Plugin, 9, interval), interval);
    }

    #[test]
    fn prints_durations_as_the_original() {
        for (seconds, text) in [(1200, "20m0s"), (59, "59s"), (3660, "1h1m0s")] {
            assert_eq!(go_duration(Duration::from_secs(seconds)), text);
        }
    }
}
