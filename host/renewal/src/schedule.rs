//! When to act next.

use std::time::Duration;

use identity::{Clock, FailureKind, Timestamp};
use rand::Rng;
use tokio::time::Instant;

/// First delay after a failure that may pass by itself.
const FIRST_RETRY: Duration = Duration::from_secs(1);
/// A machine that slept wakes with its monotonic clock behind: look at the wall clock this often.
const LONGEST_SLEEP: Duration = Duration::from_secs(60);
/// Nearer to its end nothing is mended any more: a connection and a renewal take seconds.
const LAST_TRY: Duration = Duration::from_secs(10);

/// When a credential that lives from now until `expires` is renewed: after `interval`, or at 70 % of its remaining life where that is
/// sooner, up to 1 % earlier so that a fleet that started together drifts apart. One that is new and past its end says that a clock is wrong,
/// and the next will be no better.
pub(crate) fn renew_after(interval: Duration, now: Timestamp, expires: Timestamp) -> Duration {
    let left = expires.since(now);
    let planned = if left.is_zero() { interval } else { interval.min(left.mul_f64(0.7)).max(FIRST_RETRY) };
    planned.mul_f64(rand::rng().random_range(0.99..1.0))
}

/// How long to wait after the `attempt`-th failure in a row (from 1): doubling from a second and half-jittered where trying again can
/// help by itself, `longest` where somebody has to act first.
pub(crate) fn retry_after(kind: FailureKind, attempt: u32, longest: Duration) -> Duration {
    match kind {
        // A disk is full or away no longer than a network.
        FailureKind::Unavailable | FailureKind::Storage => {
            let doubled = FIRST_RETRY.saturating_mul(1 << (attempt.saturating_sub(1)).min(16)).min(longest);
            doubled.mul_f64(rand::rng().random_range(0.5..1.0))
        }
        _ => longest,
    }
}

/// The longest pause between two tries for what is still good for `left`: the interval, but not past its end while there is time to mend it.
pub(crate) fn pace(interval: Duration, left: Duration) -> Duration {
    if left < LAST_TRY { interval } else { interval.min(left.mul_f64(0.7)) }
}

/// Sleeps for `delay`, or until the wall clock says that it is over: the one stands still in a suspended machine, the other may be set back.
pub(crate) async fn sleep(clock: &dyn Clock, delay: Duration) {
    let started = Instant::now();
    // Whole seconds on the wall clock: never before `delay` has passed.
    let due = clock.now().plus(delay + Duration::from_secs(2));
    loop {
        let left = delay.saturating_sub(started.elapsed());
        if left.is_zero() || clock.now() >= due {
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
    use std::sync::Arc;
    use std::sync::atomic::{AtomicI64, Ordering};

    use super::*;

    #[test]
    fn renews_at_the_interval_or_at_70_percent_of_the_remaining_life() {
        let interval = Duration::from_secs(1200);
        for (life, wanted) in [(3600, 1200.0), (600, 420.0), (1, 1.0), (0, 1200.0), (-1, 1200.0)] {
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
    fn there_is_always_a_try_left_before_the_end() {
        let (interval, mut left, mut tries) = (Duration::from_secs(1200), Duration::from_secs(3600), 0);
        while left >= LAST_TRY {
            left -= retry_after(FailureKind::Denied, 1, pace(interval, left));
            tries += 1;
        }
        assert!(!left.is_zero() && tries < 12, "{left:?} after {tries}");
        assert_eq!(pace(interval, Duration::ZERO), interval, "then there is no hurry");
    }

    /// A wall clock that is as far off as the test wants.
    struct Wall(AtomicI64, Instant);

    impl Clock for Wall {
        fn now(&self) -> Timestamp {
            Timestamp(self.0.load(Ordering::Relaxed)).plus(self.1.elapsed())
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_clock_that_is_set_back_prolongs_no_sleep_and_one_that_leaps_ends_it() {
        for (delay, leap, slept) in [(1200.0, 0, 1200.0), (1200.0, -7200, 1200.0), (1200.0, 7200, 300.0), (0.7, 0, 0.7)]
        {
            let wall = Arc::new(Wall(AtomicI64::new(1_000_000), Instant::now()));
            let (begin, set) = (Instant::now(), wall.clone());
            tokio::spawn(async move {
                tokio::time::sleep(Duration::from_secs(290)).await;
                set.0.fetch_add(leap, Ordering::Relaxed);
            });
            sleep(&*wall, Duration::from_secs_f64(delay)).await;
            let took = begin.elapsed().as_secs_f64();
            assert!((slept..slept + 0.1).contains(&took), "{delay} s, {leap} s: {took} s");
        }
    }

    #[test]
    fn prints_durations_as_the_original() {
        for (seconds, text) in [(1200, "20m0s"), (59, "59s"), (3660, "1h1m0s")] {
            assert_eq!(go_duration(Duration::from_secs(seconds)), text);
        }
    }
}
