//! A machine whose clock is behind the cluster's: what cost a token or a generation is kept, and what is in place is never early.

mod fakes;

use std::time::Duration;

use fakes::{FakeCluster, FakeDestination, INTERVAL, TestClock, bot};
use renewal::Reload;
use tokio::time::Instant;

#[tokio::test(start_paused = true)]
async fn a_clock_that_is_a_little_behind_delays_an_output_and_costs_nothing() {
    for (ahead, waits) in [(0, 0), (60, 0), (120, 60), (359, 299)] {
        let clock = TestClock::new();
        let cluster = FakeCluster::new(clock.clone());
        cluster.state().ahead = ahead;
        let (store, place) = (FakeDestination::new("store", &cluster), FakeDestination::new("out", &cluster));
        for pass in 1..3 {
            let begin = Instant::now();
            let outputs = [("a".to_owned(), place.clone())];
            bot(&cluster, &clock, &store, &outputs).await.oneshot(std::future::pending()).await.unwrap();
            assert_eq!((place.writes(), begin.elapsed()), (pass, Duration::from_secs(waits)), "{ahead} s");
        }
        assert_eq!((cluster.count("join"), cluster.count("renew")), (1, 1), "the identity serves at once");
    }
}

#[tokio::test(start_paused = true)]
async fn a_clock_that_is_wrong_is_named_and_the_identity_kept() {
    for ahead in [3600, -7200] {
        let clock = TestClock::new();
        let cluster = FakeCluster::new(clock.clone());
        cluster.state().ahead = ahead;
        let (store, place) = (FakeDestination::new("store", &cluster), FakeDestination::new("out", &cluster));
        let outputs = [("a".to_owned(), place.clone())];
        let pass = async || bot(&cluster, &clock, &store, &outputs).await.oneshot(std::future::pending()).await;
        let refused = pass().await.unwrap_err();
        assert!(refused[0].message.contains("check this machine's clock"), "{}", refused[0]);
        assert!(place.writes() == 0 && store.text("tlscert").contains("BEGIN CERTIFICATE"), "{ahead} s");
        // Somebody sets it.
        cluster.state().ahead = 0;
        if ahead > 0 {
            tokio::time::sleep(Duration::from_secs(3600)).await;
            pass().await.unwrap();
            assert_eq!(cluster.count("join"), 1, "its token is spent");
        }
    }
}

#[tokio::test(start_paused = true)]
async fn a_clock_that_is_far_ahead_hurries_nobody() {
    let clock = TestClock::new();
    let cluster = FakeCluster::new(clock.clone());
    cluster.state().ahead = -7200;
    cluster.state().delegated = Some(None);
    let store = FakeDestination::new("store", &cluster);
    bot(&cluster, &clock, &store, &[]).await.run(Reload::new(), tokio::time::sleep(INTERVAL * 4)).await.unwrap();
    let joins = cluster.count("join");
    assert!((4..=5).contains(&joins), "{joins} joins in four intervals");
}
