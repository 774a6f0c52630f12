//! The loops under a clock that the test turns: what the failure table (architecture §8) promises.

mod fakes;

use std::sync::{Arc, Mutex};
use std::time::Duration;

use fakes::{FakeCluster, FakeDestination, FakeMethod, FakeOutput, NoFormats, TestClock};
use identity::{Failure, FailureKind, MethodDescription, Opening};
use renewal::{Bot, BotSettings, OutputJob, OutputSettings, Reload};
use zeroize::Zeroizing;

const TTL: Duration = Duration::from_secs(3600);
const INTERVAL: Duration = Duration::from_secs(1200);

struct World {
    cluster: Arc<FakeCluster>,
    clock: Arc<TestClock>,
    store: Arc<FakeDestination>,
    token: Arc<Mutex<String>>,
    places: Vec<Arc<FakeDestination>>,
}

impl World {
    fn new(outputs: usize) -> Self {
        let clock = TestClock::new();
        let cluster = FakeCluster::new(clock.clone());
        let store = FakeDestination::new("store", &cluster);
        let places = (0..outputs).map(|n| FakeDestination::new(&format!("app{n}"), &cluster)).collect();
        Self { cluster, clock, store, token: Arc::new(Mutex::new("token-1".into())), places }
    }

    /// A bot with one output for each application named.
    async fn bot(&self, applications: &[&str]) -> Bot {
        let token = self.token.clone();
        let description = MethodDescription { method: "token".into(), opening: Opening::Immediate, keys: vec![] };
        let settings = BotSettings {
            cluster: self.cluster.clone(),
            method: Arc::new(FakeMethod(description)),
            method_config: "{}".into(),
            token: Arc::new(move || Ok(Some(Zeroizing::new(token.lock().unwrap().clone())))),
            store: self.store.clone(),
            ttl: TTL,
            interval: INTERVAL,
            clock: self.clock.clone(),
            monitor: Arc::new(identity::Unmonitored),
        };
        let mut outputs = Vec::new();
        for (application, place) in applications.iter().zip(&self.places) {
            let settings = OutputSettings {
                name: (*application).into(),
                kind: "application".into(),
                options: (*application).into(),
                roles: vec![],
                ttl: TTL,
                interval: INTERVAL,
                output: Arc::new(FakeOutput(Default::default())),
                destination: place.clone(),
                on_change: None,
                executable: "/usr/local/bin/tbot".into(),
            };
            outputs.push(OutputJob::new(settings, &NoFormats).await.unwrap());
        }
        Bot { settings, outputs }
    }

    /// Runs the daemon for `seconds` of its own time.
    async fn run(&self, applications: &[&str], seconds: u64) -> Result<(), Failure> {
        let bot = self.bot(applications).await;
        bot.run(Reload::new(), tokio::time::sleep(Duration::from_secs(seconds))).await
    }

    fn log(&self) -> Vec<String> {
        self.cluster.state().log.clone()
    }
}

fn failure(kind: FailureKind) -> Option<Failure> {
    Some(Failure::new(kind, "as the test wishes"))
}

#[tokio::test(start_paused = true)]
async fn an_identity_is_durable_before_it_is_used() {
    let world = World::new(1);
    world.bot(&["a"]).await.oneshot(std::future::pending()).await.unwrap();
    assert_eq!(world.log(), ["join", "write store", "connect 1", "issue a", "write app0"]);
    assert!(world.places[0].text("tlscert").contains("BEGIN CERTIFICATE"));
}

#[tokio::test(start_paused = true)]
async fn a_restart_renews_and_never_joins_with_a_spent_token() {
    let world = World::new(0);
    world.bot(&[]).await.oneshot(std::future::pending()).await.unwrap();
    world.cluster.state().log.clear();
    world.bot(&[]).await.oneshot(std::future::pending()).await.unwrap();
    assert_eq!(world.log(), ["connect 1", "write store", "renew", "write store", "connect 2"]);
}

#[tokio::test(start_paused = true)]
async fn a_new_token_joins_again() {
    let world = World::new(0);
    world.bot(&[]).await.oneshot(std::future::pending()).await.unwrap();
    *world.token.lock().unwrap() = "token-2".into();
    world.bot(&[]).await.oneshot(std::future::pending()).await.unwrap();
    assert_eq!(world.cluster.count("join"), 2);
    assert_eq!(world.store.text("tokenhash"), identity::token_hash("token-2"));
}

#[tokio::test(start_paused = true)]
async fn one_output_that_fails_or_panics_leaves_the_others_fresh() {
    let world = World::new(3);
    world.cluster.state().issue.insert("bad".into(), failure(FailureKind::Denied).unwrap());
    let failed = world.bot(&["bad", "good"]).await.oneshot(std::future::pending()).await.unwrap_err();
    assert_eq!(failed.len(), 1);
    assert_eq!(failed[0].message, "output application (memory: app0): as the test wishes");
    assert_eq!((world.places[0].writes(), world.places[1].writes()), (0, 1));

    world.run(&["bad", "good", "panics"], 3 * 1200 + 60).await.unwrap();
    assert_eq!(world.places[0].writes(), 0);
    assert_eq!(world.places[1].writes(), 1 + 4, "at once and every twenty minutes");
    assert!(world.cluster.count("issue panics") >= 3, "a defect does not end the later tries");
}

#[tokio::test(start_paused = true)]
async fn an_outage_keeps_the_last_good_set_and_passes() {
    let world = Arc::new(World::new(1));
    let (outage, cluster) = (world.clone(), world.cluster.clone());
    let weather = tokio::spawn(async move {
        tokio::time::sleep(Duration::from_secs(600)).await;
        let before = outage.places[0].text("tlscert");
        cluster.state().renew = failure(FailureKind::Unavailable);
        cluster.state().issue.insert("a".into(), failure(FailureKind::Unavailable).unwrap());
        tokio::time::sleep(Duration::from_secs(1800)).await;
        assert_eq!(outage.places[0].text("tlscert"), before);
        let tries = cluster.count("renew");
        assert!((5..40).contains(&tries), "{tries} tries in twenty minutes of outage");
        cluster.state().renew = None;
        cluster.state().issue.clear();
    });
    world.run(&["a"], 4000).await.unwrap();
    weather.await.unwrap();
    assert!(world.places[0].writes() >= 2);
    assert_eq!(world.cluster.count("join"), 1);
}

#[tokio::test(start_paused = true)]
async fn an_identity_that_cannot_be_stored_is_neither_used_nor_asked_for_again() {
    let world = Arc::new(World::new(0));
    let (full, cluster) = (world.clone(), world.cluster.clone());
    let disk = tokio::spawn(async move {
        // It fills up while the cluster, asked after twenty minutes, takes a minute for its answer.
        tokio::time::sleep(Duration::from_secs(600)).await;
        cluster.state().delay = Duration::from_secs(60);
        tokio::time::sleep(Duration::from_secs(610)).await;
        *full.store.refuse.lock().unwrap() = failure(FailureKind::Storage);
        tokio::time::sleep(Duration::from_secs(290)).await;
        assert_eq!((cluster.count("renew"), cluster.count("connect 2")), (1, 0));
        *full.store.refuse.lock().unwrap() = None;
    });
    world.run(&[], 2200).await.unwrap();
    disk.await.unwrap();
    assert_eq!((world.cluster.count("renew"), world.cluster.count("connect 2")), (1, 1));
}

#[tokio::test(start_paused = true)]
async fn a_shutdown_waits_for_an_identity_on_its_way_to_the_disk() {
    let world = World::new(0);
    world.bot(&[]).await.oneshot(std::future::pending()).await.unwrap();
    world.cluster.state().delay = Duration::from_secs(10);
    let before = world.store.writes();
    world.run(&[], 5).await.unwrap();
    assert_eq!(world.store.writes(), before + 2, "that it asks, and what it got");
}

#[tokio::test(start_paused = true)]
async fn a_renewal_whose_answer_was_lost_is_not_repeated_while_the_identity_lives() {
    let world = World::new(1);
    world.bot(&["a"]).await.oneshot(std::future::pending()).await.unwrap();
    world.cluster.state().renew = failure(FailureKind::AnswerLost);
    world.run(&["a"], 3000).await.unwrap();
    assert_eq!(world.cluster.count("renew"), 1);
    assert!(world.places[0].writes() >= 3, "outputs stay fresh meanwhile");
}

#[tokio::test(start_paused = true)]
async fn who_is_not_renewable_joins_again_as_the_same_instance_while_it_lives() {
    let world = World::new(1);
    world.cluster.state().delegated = Some(None);
    world.run(&["a"], 3000).await.unwrap();
    assert_eq!((world.cluster.count("join"), world.cluster.count("rejoin"), world.cluster.count("renew")), (1, 2, 0));
    tokio::time::sleep(TTL * 2).await;
    world.cluster.state().log.clear();
    world.bot(&["a"]).await.oneshot(std::future::pending()).await.unwrap();
    assert_eq!(world.log()[0], "join", "an identity past its end opens nothing");
}

#[tokio::test(start_paused = true)]
async fn an_identity_that_expired_before_it_was_ever_used_is_not_clung_to() {
    let world = Arc::new(World::new(0));
    world.cluster.state().delegated = Some(None);
    world.cluster.state().connect = failure(FailureKind::Unavailable);
    let outage = world.clone();
    let weather = tokio::spawn(async move {
        tokio::time::sleep(TTL + INTERVAL * 2).await;
        assert!(outage.cluster.count("join") > 1, "{:?}", outage.log());
        outage.cluster.state().connect = None;
    });
    // Once it is over: up to an interval until the next try, and another until what it found is renewed.
    world.run(&[], (TTL + INTERVAL * 5).as_secs()).await.unwrap();
    weather.await.unwrap();
    assert!(world.cluster.count("rejoin") > 0, "it works again: {:?}", world.log());
}

#[tokio::test(start_paused = true)]
async fn a_cluster_that_keeps_no_instances_or_does_not_answer_is_joined_anew_and_one_that_refuses_is_not() {
    for (kind, joins) in [
        (FailureKind::Unsupported, 2),
        (FailureKind::Unavailable, 2),
        (FailureKind::Denied, 1),
        (FailureKind::Revoked, 1),
    ] {
        let world = World::new(0);
        world.cluster.state().delegated = Some(failure(kind));
        world.bot(&[]).await.oneshot(std::future::pending()).await.unwrap();
        let again = world.bot(&[]).await.oneshot(std::future::pending()).await;
        assert_eq!((again.is_ok(), world.cluster.count("join")), (joins == 2, joins), "{kind:?}");
    }
    // The same where not even the old identity's connection opens.
    let world = World::new(0);
    world.cluster.state().delegated = Some(None);
    world.bot(&[]).await.oneshot(std::future::pending()).await.unwrap();
    world.cluster.state().connect = failure(FailureKind::Unavailable);
    world.bot(&[]).await.oneshot(std::future::pending()).await.unwrap_err();
    assert_eq!((world.cluster.count("join"), world.cluster.count("rejoin")), (2, 0));
}

#[tokio::test(start_paused = true)]
async fn a_refused_first_join_ends_the_daemon_and_an_unreachable_cluster_does_not() {
    let world = World::new(0);
    world.cluster.state().join = failure(FailureKind::Denied);
    assert_eq!(world.run(&[], 100).await.unwrap_err().kind, FailureKind::Denied);
    world.cluster.state().join = failure(FailureKind::Unavailable);
    world.run(&[], 100_000).await.unwrap();
    assert!(world.cluster.count("join") > 50);
}

#[tokio::test(start_paused = true)]
async fn damaged_storage_is_not_overwritten_unless_there_is_a_new_token() {
    let world = World::new(0);
    world.bot(&[]).await.oneshot(std::future::pending()).await.unwrap();
    world.store.files.lock().unwrap().insert("tlscert".into(), b"half a certifi".to_vec());
    let refused = world.bot(&[]).await.oneshot(std::future::pending()).await.unwrap_err();
    assert_eq!(refused[0].kind, FailureKind::Storage);
    assert!(refused[0].message.contains("damaged"), "{}", refused[0]);
    assert_eq!(world.store.text("tlscert"), "half a certifi");
    *world.token.lock().unwrap() = "token-2".into();
    world.bot(&[]).await.oneshot(std::future::pending()).await.unwrap();
    assert_eq!(world.cluster.count("join"), 2);
}

#[tokio::test(start_paused = true)]
async fn an_expired_identity_with_a_spent_token_says_what_to_do() {
    let world = World::new(0);
    world.bot(&[]).await.oneshot(std::future::pending()).await.unwrap();
    tokio::time::sleep(TTL * 2).await;
    world.cluster.state().join = failure(FailureKind::Denied);
    let refused = world.bot(&[]).await.oneshot(std::future::pending()).await.unwrap_err();
    assert_eq!(refused[0].kind, FailureKind::Expired);
    assert!(refused[0].message.contains("create a new token"), "{}", refused[0]);
}

#[tokio::test(start_paused = true)]
async fn a_reload_renews_everything_at_once() {
    let world = World::new(1);
    let bot = world.bot(&["a"]).await;
    let reload = Reload::new();
    let trigger = reload.clone();
    let script = async move {
        tokio::time::sleep(Duration::from_secs(30)).await;
        trigger.trigger();
        tokio::time::sleep(Duration::from_secs(30)).await;
    };
    bot.run(reload, script).await.unwrap();
    assert_eq!((world.cluster.count("renew"), world.places[0].writes()), (1, 2));
}

#[tokio::test(start_paused = true)]
async fn heartbeats_come_at_the_start_and_every_half_hour_whether_they_arrive_or_not() {
    let world = World::new(1);
    world.run(&["a"], 2 * 3600).await.unwrap();
    let sent = std::mem::take(&mut world.cluster.state().heartbeats);
    assert!((4..=5).contains(&sent.len()), "{}", sent.len());
    let startup: Vec<_> = sent.iter().map(|heartbeat| heartbeat.is_startup).collect();
    assert!(startup[0] && !startup[1..].contains(&true), "{startup:?}");
    assert!(sent[0].join_method == "token" && !sent[0].one_shot && !sent[0].hostname.is_empty());

    world.cluster.state().heartbeat = failure(FailureKind::Unavailable);
    world.run(&["a"], 1500).await.unwrap();
    let tries = std::mem::take(&mut world.cluster.state().heartbeats).len();
    assert_eq!(tries, 5, "it gives up until the next");
    assert!(world.places[0].writes() >= 7, "outputs do not care");

    world.bot(&["a", "bad"]).await.oneshot(std::future::pending()).await.unwrap();
    let last = std::mem::take(&mut world.cluster.state().heartbeats);
    assert!(last.len() == 1 && last[0].one_shot);
    assert_eq!(last[0].services[0].health, identity::Health::Healthy);
}

#[tokio::test(start_paused = true)]
async fn an_output_that_failed_is_tried_with_a_new_identity_at_once() {
    let world = Arc::new(World::new(1));
    world.cluster.state().issue.insert("a".into(), failure(FailureKind::Denied).unwrap());
    let mended = world.clone();
    let weather = tokio::spawn(async move {
        tokio::time::sleep(Duration::from_secs(100)).await;
        mended.cluster.state().issue.clear();
    });
    let mut bot = world.bot(&["a"]).await;
    bot.settings.interval = Duration::from_secs(300);
    bot.run(Reload::new(), tokio::time::sleep(Duration::from_secs(400))).await.unwrap();
    weather.await.unwrap();
    assert_eq!(world.places[0].writes(), 1, "its own interval is three times as long");
}

#[tokio::test(start_paused = true)]
async fn who_is_refused_with_a_new_identity_takes_up_a_new_token() {
    let world = Arc::new(World::new(0));
    let locked = world.clone();
    let operator = tokio::spawn(async move {
        tokio::time::sleep(Duration::from_secs(600)).await;
        locked.cluster.state().connect = failure(FailureKind::Revoked);
        tokio::time::sleep(INTERVAL).await;
        *locked.token.lock().unwrap() = "token-2".into();
    });
    world.run(&[], 3700).await.unwrap();
    operator.await.unwrap();
    assert_eq!(world.cluster.count("join"), 2, "{:?}", world.log());
}

#[tokio::test(start_paused = true)]
async fn a_first_identity_that_the_disk_does_not_take_is_used_and_kept_for_it_since_its_token_is_spent() {
    let world = Arc::new(World::new(0));
    *world.store.refuse.lock().unwrap() = failure(FailureKind::Storage);
    let full = world.clone();
    let disk = tokio::spawn(async move {
        tokio::time::sleep(Duration::from_secs(300)).await;
        *full.store.refuse.lock().unwrap() = None;
    });
    world.run(&[], 1100).await.unwrap();
    disk.await.unwrap();
    assert_eq!(world.log(), ["join", "connect 1", "write store", "connect 1"]);
}

#[tokio::test(start_paused = true)]
async fn what_lives_shorter_than_the_interval_is_tried_again_before_its_end() {
    let world = Arc::new(World::new(1));
    let moody = world.clone();
    let weather = tokio::spawn(async move {
        tokio::time::sleep(Duration::from_secs(400)).await;
        moody.cluster.state().renew = failure(FailureKind::Denied);
        moody.cluster.state().issue.insert("a".into(), failure(FailureKind::Denied).unwrap());
        tokio::time::sleep(Duration::from_secs(100)).await;
        moody.cluster.state().renew = None;
        moody.cluster.state().issue.clear();
    });
    let ttl = Duration::from_secs(600);
    let mut bot = world.bot(&[]).await;
    bot.settings.ttl = ttl;
    let settings = OutputSettings {
        name: "a".into(),
        kind: "application".into(),
        options: "a".into(),
        roles: vec![],
        ttl,
        interval: INTERVAL,
        output: Arc::new(FakeOutput(Default::default())),
        destination: world.places[0].clone(),
        on_change: None,
        executable: "/usr/local/bin/tbot".into(),
    };
    bot.outputs.push(OutputJob::new(settings, &NoFormats).await.unwrap());
    bot.run(Reload::new(), tokio::time::sleep(ttl)).await.unwrap();
    weather.await.unwrap();
    assert_eq!((world.cluster.count("connect 2"), world.places[0].writes()), (1, 2), "{:?}", world.log());
}

#[tokio::test(start_paused = true)]
async fn a_new_token_that_is_refused_costs_nothing_but_a_complaint() {
    let world = Arc::new(World::new(1));
    let mistaken = world.clone();
    let operator = tokio::spawn(async move {
        tokio::time::sleep(Duration::from_secs(600)).await;
        mistaken.cluster.state().join = failure(FailureKind::Denied);
        *mistaken.token.lock().unwrap() = "token-2".into();
        tokio::time::sleep(TTL * 3).await;
        assert_eq!(mistaken.store.text("tokenhash"), identity::token_hash("token-1"));
        assert!(mistaken.cluster.count("renew") >= 9, "{:?}", mistaken.log());
        mistaken.cluster.state().join = None;
    });
    world.run(&["a"], (TTL * 3 + INTERVAL * 2).as_secs()).await.unwrap();
    operator.await.unwrap();
    assert!(world.places[0].writes() >= 10);
    assert_eq!(world.store.text("tokenhash"), identity::token_hash("token-2"), "when it is admitted it is taken up");
    // Whoever runs a single pass looks at its end.
    world.cluster.state().join = failure(FailureKind::Denied);
    *world.token.lock().unwrap() = "token-3".into();
    let refused = world.bot(&[]).await.oneshot(std::future::pending()).await.unwrap_err();
    assert!(refused[0].message.starts_with("the new token is refused"), "{}", refused[0]);
}
