//! Renewals that the cluster may have counted while nothing of the answer was stored: never repeated blindly, not by the next start either.

mod fakes;

use std::sync::Arc;
use std::time::Duration;

use fakes::{FakeCluster, FakeDestination, INTERVAL, TestClock, bot};
use identity::{Failure, FailureKind, RENEWAL_FILE};
use renewal::{Bot, Reload};
use zeroize::Zeroizing;

struct World {
    cluster: Arc<FakeCluster>,
    clock: Arc<TestClock>,
    store: Arc<FakeDestination>,
    place: Arc<FakeDestination>,
}

impl World {
    /// One that has joined, and whose identity lives for an hour.
    async fn joined() -> Self {
        let clock = TestClock::new();
        let cluster = FakeCluster::new(clock.clone());
        let (store, place) = (FakeDestination::new("store", &cluster), FakeDestination::new("out", &cluster));
        let world = Self { cluster, clock, store, place };
        world.pass().await.unwrap();
        world
    }

    async fn bot(&self) -> Bot {
        bot(&self.cluster, &self.clock, &self.store, &[("a".to_owned(), self.place.clone())]).await
    }

    async fn pass(&self) -> Result<(), Vec<Failure>> {
        self.bot().await.oneshot(std::future::pending()).await
    }

    async fn run(&self, time: Duration) {
        self.bot().await.run(Reload::new(), tokio::time::sleep(time)).await.unwrap();
    }

    fn asked(&self) -> usize {
        self.cluster.count("renew")
    }

    fn lose_answers(&self, kind: Option<FailureKind>) {
        self.cluster.state().renew = kind.map(|kind| Failure::new(kind, "as the test wishes"));
    }
}

const MINUTE: Duration = Duration::from_secs(60);

#[tokio::test(start_paused = true)]
async fn a_start_after_a_lost_answer_uses_the_identity_up_before_it_asks_again() {
    let world = World::joined().await;
    world.lose_answers(Some(FailureKind::AnswerLost));
    world.run(MINUTE).await;
    world.lose_answers(None);
    for _ in 0..3 {
        let before = world.place.writes();
        world.run(10 * MINUTE).await;
        assert!(world.place.writes() > before, "outputs are fresh with it");
    }
    assert_eq!(world.asked(), 1);
    world.run(25 * MINUTE).await;
    assert_eq!(world.asked(), 2, "when a tenth is left, and it was not counted");
    world.run(MINUTE).await;
    assert_eq!(world.asked(), 3, "all is as before");
    assert_eq!(world.cluster.count("join"), 1);
}

#[tokio::test(start_paused = true)]
async fn a_start_after_a_kill_between_question_and_answer_does_the_same() {
    let world = Arc::new(World::joined().await);
    world.cluster.state().delay = Duration::from_secs(20);
    let killed = world.clone();
    let disk = tokio::spawn(async move {
        tokio::time::sleep(Duration::from_secs(10)).await;
        killed.store.files.lock().unwrap().clone()
    });
    world.run(MINUTE).await;
    *world.store.files.lock().unwrap() = disk.await.unwrap();
    world.run(10 * MINUTE).await;
    assert_eq!(world.asked(), 1);
}

#[tokio::test(start_paused = true)]
async fn what_was_certainly_not_counted_leaves_no_note() {
    for kind in [FailureKind::Unavailable, FailureKind::Denied, FailureKind::Revoked] {
        let world = World::joined().await;
        world.lose_answers(Some(kind));
        world.pass().await.unwrap_err();
        assert_eq!(world.store.text(RENEWAL_FILE), "", "{kind:?}");
        world.lose_answers(None);
        world.pass().await.unwrap();
        assert_eq!(world.asked(), 2, "{kind:?}");
    }
    // A connection that broke unseen is noticed before anything is noted or asked.
    let world = World::joined().await;
    world.cluster.state().ping = Some(Failure::new(FailureKind::Unavailable, "broken"));
    world.run(2 * INTERVAL).await;
    assert_eq!(
        (world.asked(), world.store.text(RENEWAL_FILE).is_empty()),
        (1, false),
        "only at the start, over a new one"
    );
    world.cluster.state().ping = None;
    world.run(MINUTE).await;
    assert_eq!(world.asked(), 2, "the note is of an identity that is no more");
}

#[tokio::test(start_paused = true)]
async fn a_disk_that_cannot_take_the_note_is_noticed_before_the_cluster_counts() {
    let world = World::joined().await;
    *world.store.refuse.lock().unwrap() = Some(Failure::new(FailureKind::Storage, "full"));
    let failed = world.pass().await.unwrap_err();
    assert_eq!((failed[0].kind, world.asked()), (FailureKind::Storage, 0));
}

#[tokio::test(start_paused = true)]
async fn neither_a_reload_nor_a_broken_answer_is_a_reason_to_ask_twice() {
    let world = World::joined().await;
    world.lose_answers(Some(FailureKind::AnswerLost));
    let (reload, bot) = (Reload::new(), world.bot().await);
    let script = async {
        for _ in 0..10 {
            tokio::time::sleep(MINUTE).await;
            reload.trigger();
        }
    };
    bot.run(reload.clone(), script).await.unwrap();
    assert_eq!(world.asked(), 1);
    assert!(world.place.writes() >= 10, "outputs are renewed at each");

    let world = World::joined().await;
    world.cluster.state().broken = true;
    world.run(10 * MINUTE).await;
    world.cluster.state().broken = false;
    world.run(10 * MINUTE).await;
    assert_eq!(world.asked(), 1, "it counted, whatever it answered");
}

#[tokio::test(start_paused = true)]
async fn a_single_pass_renews_the_outputs_says_what_is_wrong_and_asks_again_while_there_is_time() {
    let world = World::joined().await;
    world.lose_answers(Some(FailureKind::AnswerLost));
    let lost = world.pass().await.unwrap_err();
    world.lose_answers(None);
    let again = world.pass().await.unwrap_err();
    for failed in [&lost, &again] {
        assert_eq!(failed.len(), 1);
        assert!(failed[0].message.contains("`onboarding.token`"), "{}", failed[0]);
    }
    assert_eq!((world.asked(), world.place.writes()), (1, 3));
    tokio::time::sleep(35 * MINUTE).await;
    world.pass().await.unwrap();
    assert_eq!(world.asked(), 2, "the next pass may be too late");
}

#[tokio::test(start_paused = true)]
async fn a_new_token_or_the_end_of_the_identity_is_the_way_out() {
    for expired in [false, true] {
        let world = World::joined().await;
        world.lose_answers(Some(FailureKind::AnswerLost));
        world.run(MINUTE).await;
        let mut bot = world.bot().await;
        match expired {
            true => tokio::time::sleep(61 * MINUTE).await,
            false => bot.settings.token = Arc::new(|| Ok(Some(Zeroizing::new("another".into())))),
        }
        bot.oneshot(std::future::pending()).await.unwrap();
        assert_eq!((world.asked(), world.cluster.count("join")), (1, 2));
        world.lose_answers(None);
        world.pass().await.unwrap();
    }
}

#[tokio::test(start_paused = true)]
async fn who_renews_by_joining_needs_no_note() {
    let world = World::joined().await;
    world.cluster.state().delegated = Some(None);
    for _ in 0..2 {
        let mut bot = world.bot().await;
        bot.settings.token = Arc::new(|| Ok(Some(Zeroizing::new("another".into()))));
        bot.oneshot(std::future::pending()).await.unwrap();
    }
    assert!(!world.store.files.lock().unwrap().contains_key(RENEWAL_FILE));
}
