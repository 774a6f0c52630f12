//! How often a failing output is tried: never at once.

mod fakes;

use std::time::Duration;

use fakes::{FakeCluster, FakeDestination, TestClock, bot};
use identity::{Failure, FailureKind};
use renewal::Reload;

/// The pauses are at least half of 1, 2, 4 and 8 s, so that many tries fit into a time at most.
#[tokio::test(start_paused = true)]
async fn an_output_that_fails_is_tried_again_after_a_pause_also_a_short_one() {
    for (milliseconds, most) in [(450, 1), (1450, 2), (3450, 3), (7450, 4)] {
        let clock = TestClock::new();
        let cluster = FakeCluster::new(clock.clone());
        cluster.state().issue.insert("a".into(), Failure::new(FailureKind::Unavailable, "away"));
        let (store, place) = (FakeDestination::new("store", &cluster), FakeDestination::new("out", &cluster));
        let daemon = bot(&cluster, &clock, &store, &[("a".to_owned(), place)]).await;
        let end = tokio::time::sleep(Duration::from_millis(milliseconds));
        daemon.run(Reload::new(), end).await.unwrap();
        let tries = cluster.count("issue a");
        assert!((1..=most).contains(&tries), "{tries} tries in {milliseconds} ms");
    }
}
