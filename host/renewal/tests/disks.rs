//! A disk that takes nothing for longer than an identity lives.

mod fakes;

use std::sync::Arc;
use std::time::Duration;

use fakes::{FakeCluster, FakeDestination, INTERVAL, TestClock, bot};
use identity::{Failure, FailureKind};
use renewal::Reload;

const NIGHT: Duration = Duration::from_secs(8 * 3600);

#[tokio::test(start_paused = true)]
async fn a_night_with_a_full_disk_costs_neither_the_identity_nor_the_outputs_elsewhere() {
    for (delegated, noticed) in [(false, true), (false, false), (true, true)] {
        let clock = TestClock::new();
        let cluster = FakeCluster::new(clock.clone());
        let (store, place) = (FakeDestination::new("store", &cluster), FakeDestination::new("out", &cluster));
        cluster.state().delegated = delegated.then_some(None);
        *store.unprepared.lock().unwrap() = noticed;
        let outputs = [("a".to_owned(), place.clone())];
        let full = store.clone();
        let disk = tokio::spawn(async move {
            tokio::time::sleep(Duration::from_secs(600)).await;
            *full.refuse.lock().unwrap() = Some(Failure::new(FailureKind::Storage, "full"));
            tokio::time::sleep(NIGHT).await;
            *full.refuse.lock().unwrap() = None;
            let before = full.writes();
            tokio::time::sleep(2 * INTERVAL).await;
            assert!(full.writes() > before, "it was stored as soon as there was room");
        });
        let all = NIGHT + 4 * INTERVAL;
        bot(&cluster, &clock, &store, &outputs).await.run(Reload::new(), tokio::time::sleep(all)).await.unwrap();
        disk.await.unwrap();
        let written = place.written.lock().unwrap().clone();
        let longest = written.windows(2).map(|pair| pair[1] - pair[0]).max().unwrap();
        assert!(longest <= INTERVAL, "{delegated} {noticed}: {longest:?} without a fresh output");
        assert_eq!(cluster.count("join"), 1, "{delegated} {noticed}");
        let asked = cluster.count(if delegated { "rejoin" } else { "renew" });
        assert!((8..60).contains(&asked), "{delegated} {noticed}: {asked}");
        // What is stored is what the cluster counts.
        cluster.state().log.clear();
        bot(&cluster, &clock, &store, &outputs).await.oneshot(std::future::pending()).await.unwrap();
        let counted = if delegated { 0 } else { 1 + asked };
        assert_eq!(cluster.state().log[0], format!("connect {counted}"));
    }
}

/// A token is spent only where its identity can be kept.
#[tokio::test(start_paused = true)]
async fn nobody_joins_with_a_token_for_a_full_disk() {
    let clock = TestClock::new();
    let cluster = FakeCluster::new(clock.clone());
    let store = FakeDestination::new("store", &cluster);
    *store.unprepared.lock().unwrap() = true;
    *store.refuse.lock().unwrap() = Some(Failure::new(FailureKind::Storage, "full"));
    let mut failed = bot(&cluster, &clock, &store, &[]).await.oneshot(std::future::pending()).await.unwrap_err();
    assert_eq!((failed.remove(0).kind, cluster.count("join")), (FailureKind::Storage, 0));
    *store.refuse.lock().unwrap() = None;
    bot(&cluster, &clock, &store, &[]).await.oneshot(std::future::pending()).await.unwrap();
    let full = Arc::new(store);
    let later = full.clone();
    let disk = tokio::spawn(async move {
        tokio::time::sleep(Duration::from_secs(60)).await;
        *later.refuse.lock().unwrap() = Some(Failure::new(FailureKind::Storage, "full"));
    });
    // Nor for one that expired: this token would be the next.
    cluster.state().renew = Some(Failure::new(FailureKind::Denied, "as the test wishes"));
    bot(&cluster, &clock, &full, &[]).await.run(Reload::new(), tokio::time::sleep(NIGHT)).await.unwrap();
    disk.await.unwrap();
    assert_eq!(cluster.count("join"), 1);
}

#[tokio::test(start_paused = true)]
async fn a_storage_that_is_removed_while_the_cluster_answers_is_made_anew() {
    let clock = TestClock::new();
    let cluster = FakeCluster::new(clock.clone());
    let store = FakeDestination::new("store", &cluster);
    bot(&cluster, &clock, &store, &[]).await.oneshot(std::future::pending()).await.unwrap();
    cluster.state().delay = Duration::from_secs(10);
    let place = store.clone();
    let operator = tokio::spawn(async move {
        tokio::time::sleep(Duration::from_secs(5)).await;
        *place.gone.lock().unwrap() = true;
    });
    bot(&cluster, &clock, &store, &[])
        .await
        .run(Reload::new(), tokio::time::sleep(Duration::from_secs(60)))
        .await
        .unwrap();
    operator.await.unwrap();
    assert_eq!(cluster.state().log.last().unwrap(), "connect 2");
}
