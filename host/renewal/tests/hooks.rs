//! Hooks under a clock that the test turns. Only signals: time stands still while a blocking call runs, and runs away while a process does.

mod fakes;

use std::path::Path;
use std::process::{Child, Command};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use fakes::{FakeCluster, FakeDestination, FakeMethod, FakeOutput, NoFormats, TestClock};
use identity::{Failure, FailureKind, MethodDescription, Monitor, Opening, Timestamp};
use renewal::{Bot, BotSettings, Hook, OutputJob, OutputSettings, Reload};
use rustix::process::Signal;
use zeroize::Zeroizing;

/// Notes down each try of the output.
#[derive(Default)]
struct Notes(Mutex<Vec<Option<String>>>);

impl Monitor for Notes {
    fn tried(&self, service: &str, _: Duration, result: Result<Timestamp, &Failure>) {
        if service == "a" {
            self.0.lock().unwrap().push(result.err().map(|failure| failure.message.clone()));
        }
    }

    fn services(&self) -> Vec<identity::ServiceHealth> {
        Vec::new()
    }
}

struct World {
    cluster: Arc<FakeCluster>,
    clock: Arc<TestClock>,
    store: Arc<FakeDestination>,
    place: Arc<FakeDestination>,
    notes: Arc<Notes>,
    folder: tempfile::TempDir,
}

impl World {
    fn new() -> Self {
        let clock = TestClock::new();
        let cluster = FakeCluster::new(clock.clone());
        let store = FakeDestination::new("store", &cluster);
        let place = FakeDestination::new("app0", &cluster);
        Self { cluster, clock, store, place, notes: Arc::default(), folder: tempfile::tempdir().unwrap() }
    }

    async fn bot(&self) -> Bot {
        let description = MethodDescription { method: "token".into(), opening: Opening::Immediate, keys: vec![] };
        let interval = Duration::from_secs(1200);
        let ttl = Duration::from_secs(3600);
        let settings = BotSettings {
            cluster: self.cluster.clone(),
            method: Arc::new(FakeMethod(description)),
            method_config: "{}".into(),
            token: Arc::new(|| Ok(Some(Zeroizing::new("token".into())))),
            store: self.store.clone(),
            ttl,
            interval,
            clock: self.clock.clone(),
            monitor: self.notes.clone(),
        };
        let output = OutputSettings {
            name: "a".into(),
            kind: "application".into(),
            options: "a".into(),
            roles: vec![],
            ttl,
            interval,
            output: Arc::new(FakeOutput(Default::default())),
            destination: self.place.clone(),
            on_change: Some(Hook::Signal { pid_file: self.pid_file(), signal: Signal::TERM }),
            executable: "/usr/local/bin/tbot".into(),
        };
        Bot { settings, outputs: vec![OutputJob::new(output, &NoFormats).await.unwrap()] }
    }

    fn pid_file(&self) -> std::path::PathBuf {
        self.folder.path().join("pid")
    }

    async fn run(&self, seconds: u64) {
        self.bot().await.run(Reload::new(), tokio::time::sleep(Duration::from_secs(seconds))).await.unwrap();
    }

    fn tries(&self) -> Vec<Option<String>> {
        self.notes.0.lock().unwrap().clone()
    }
}

/// A process that a signal ends, and its PID file.
fn sleeper(pid_file: &Path) -> Child {
    let child = Command::new("sleep").arg("600").spawn().unwrap();
    std::fs::write(pid_file, child.id().to_string()).unwrap();
    child
}

#[tokio::test(start_paused = true)]
async fn a_hook_that_fails_is_tried_again_without_a_new_certificate_and_undoes_nothing() {
    let world = World::new();
    world.run(600).await;
    let tries = world.tries();
    assert!(tries.len() >= 5 && tries.iter().all(|tried| tried.as_ref().unwrap().contains("pid file")), "{tries:?}");
    assert_eq!((world.cluster.count("issue a"), world.place.writes()), (1, 1));
    assert!(world.place.text("tlscert").contains("BEGIN CERTIFICATE"));
}

#[tokio::test(start_paused = true)]
async fn a_hook_runs_once_for_each_generation() {
    let world = World::new();
    let mut child = sleeper(&world.pid_file());
    world.run(1100).await;
    assert_eq!(world.tries(), [None]);
    assert!(!child.wait().unwrap().success());
}

#[tokio::test(start_paused = true)]
async fn after_a_start_the_hook_runs_for_the_set_in_place_even_where_nothing_can_be_renewed() {
    let world = World::new();
    // The generation whose hook never succeeded, as after a kill in between.
    world.run(60).await;
    world.cluster.state().issue.insert("a".into(), Failure::new(FailureKind::Unavailable, "away"));
    let mut child = sleeper(&world.pid_file());
    world.run(60).await;
    assert!(!child.wait().unwrap().success(), "the hook did not run");
    assert_eq!(world.place.writes(), 1);
    assert!(world.tries().last().unwrap().as_ref().unwrap().contains("away"), "the outage is what is reported");
}

#[tokio::test(start_paused = true)]
async fn after_a_start_the_hook_waits_a_little_for_the_cluster_and_not_for_ever() {
    let world = World::new();
    world.run(60).await;
    world.cluster.state().connect = Some(Failure::new(FailureKind::Unavailable, "away"));
    let mut child = sleeper(&world.pid_file());
    world.run(25).await;
    assert!(child.try_wait().unwrap().is_none(), "it may still run once for both sets");
    world.run(60).await;
    assert!(!child.wait().unwrap().success(), "the hook did not run");
}

#[tokio::test(start_paused = true)]
async fn a_one_shot_run_reports_a_hook_that_failed() {
    let world = World::new();
    let failed = world.bot().await.oneshot(std::future::pending()).await.unwrap_err();
    assert!(failed[0].message.contains("output application (memory: app0): on_change: pid file"), "{failed:?}");
    assert_eq!(world.place.writes(), 1);
}
