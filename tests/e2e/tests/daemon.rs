//! The daemon through reloads, outages, rotations, locks and kills.

mod harness;

use std::time::Duration;

use harness::{APP, World, until};
use rustix::process::Signal;
use stand_in::{AuthorityKind, Fault, RotationPhase};

async fn joined(world: &World) -> harness::Daemon {
    world.configure(&world.proxy(), "", &world.output(APP, "out"));
    let daemon = world.daemon();
    until("the first output", || daemon.log().contains("Generated output.")).await;
    daemon
}

#[tokio::test(flavor = "multi_thread")]
async fn signals_renew_and_end() {
    let world = World::new().await;
    let mut daemon = joined(&world).await;
    for (generation, signal) in [(2, Signal::HUP), (3, Signal::USR1)] {
        let before = world.read("out/tlscert");
        daemon.signal(signal);
        until("identity and output are renewed", || {
            world.control.generation("robot") == generation && world.read("out/tlscert") != before
        })
        .await;
        until("the output is whole", || daemon.log().matches("Generated output.").count() as u64 == generation).await;
        world.app_answers("out").await;
    }
    assert!(daemon.log().contains("Received reload signal, queueing reload."));
    daemon.signal(Signal::TERM);
    assert_eq!(daemon.ended().await, Some(0));
    assert!(daemon.log().contains("Received interrupt, triggering shutdown."));
    let log = world.succeeds().await;
    assert!(log.contains("Loaded existing bot identity from store."), "{log}");
    assert_eq!(world.control.generation("robot"), 4);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_interrupt_ends_a_daemon_that_waits_for_its_cluster() {
    let world = World::new().await;
    world.control.stop_listening();
    world.configure(&world.auth(), &world.pin(), &world.output(APP, "out"));
    let mut daemon = world.daemon();
    until("it has tried", || daemon.log().contains("cannot be joined")).await;
    tokio::time::sleep(Duration::from_millis(1500)).await;
    assert!(daemon.running());
    world.control.start_listening().await.unwrap();
    until("it joins by itself", || daemon.log().contains("Generated output.")).await;
    daemon.signal(Signal::INT);
    assert_eq!(daemon.ended().await, Some(0));
}

/// Applications and databases start with the machine as often as not, and make themselves known a moment after the agent looked.
#[tokio::test(flavor = "multi_thread")]
async fn an_application_that_comes_later_does_not_wait_for_the_interval() {
    let world = World::new().await;
    world.configure(&world.proxy(), "", &world.output("latecomer", "out"));
    let daemon = world.daemon();
    until("it is missed", || daemon.log().contains("app \"latecomer\" not found")).await;
    world.control.add_app("latecomer", "latecomer.localhost", "http://127.0.0.1:1");
    until("its output is there", || daemon.log().contains("Generated output.")).await;
    assert!(daemon.log().contains("is renewed again"), "{}", daemon.log());
}

#[tokio::test(flavor = "multi_thread")]
async fn an_outage_keeps_the_last_good_files_and_passes() {
    let world = World::new().await;
    let mut daemon = joined(&world).await;
    let before = world.read("out/tlscert");
    world.control.stop_listening();
    daemon.signal(Signal::HUP);
    until("the outage is told", || daemon.log().contains("the last good one stays")).await;
    tokio::time::sleep(Duration::from_millis(500)).await;
    assert!(daemon.running());
    assert_eq!(world.read("out/tlscert"), before);
    world.control.start_listening().await.unwrap();
    until("it recovers", || world.read("out/tlscert") != before).await;
    until("the output is whole", || daemon.log().matches("Generated output.").count() == 2).await;
    world.app_answers("out").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_rotation_renews_everything() {
    let world = World::new().await;
    let daemon = joined(&world).await;
    until("the watch is open", || daemon.log().contains("Started watching for CA rotations")).await;
    for phase in [RotationPhase::Init, RotationPhase::UpdateClients] {
        world.control.rotate(AuthorityKind::Host, phase).unwrap();
    }
    until("both authorities are in the file", || world.read("out/teleport-host-ca.crt").matches("BEGIN").count() == 2)
        .await;
    assert_eq!(world.control.generation("robot"), 2, "{}", daemon.log());
}

/// Every phase of a rotation of all authorities, to its end and back: nothing fails, and what files trust is what the cluster trusts.
#[tokio::test(flavor = "multi_thread")]
async fn a_rotation_of_all_authorities_to_its_end_and_back_fails_nothing() {
    use RotationPhase::{Init, Rollback, Standby, UpdateClients, UpdateServers};
    for world in [World::new().await, World::newest().await] {
        let daemon = joined(&world).await;
        until("the watch is open", || daemon.log().contains("Started watching for CA rotations")).await;
        for (phase, trusted) in [
            (Init, None),
            (UpdateClients, Some(2)),
            (UpdateServers, Some(2)),
            (Standby, Some(1)),
            (Init, None),
            (UpdateClients, Some(2)),
            (Rollback, Some(2)),
            (Standby, Some(1)),
        ] {
            for kind in [AuthorityKind::Host, AuthorityKind::User, AuthorityKind::Db] {
                world.control.rotate(kind, phase).unwrap();
            }
            // Nobody has to act on the first.
            let Some(trusted) = trusted else { continue };
            // As an operator hurries it: by itself the agent waits ten seconds for the other authorities.
            let done = || daemon.log().matches("Generated output.").count();
            let (generation, passes) = (world.control.generation("robot"), done());
            daemon.signal(Signal::HUP);
            until("all is renewed", || world.control.generation("robot") > generation && done() > passes).await;
            until("what files trust is what the cluster trusts", || {
                ["host", "user", "database"].iter().all(|kind| {
                    let file = world.read(&format!("out/teleport-{kind}-ca.crt"));
                    file.matches("BEGIN CERTIFICATE").count() == trusted
                })
            })
            .await;
            world.app_answers("out").await;
        }
        let log = daemon.log();
        assert!(!log.contains("ERROR") && !log.contains("cannot be renewed"), "{log}");
        assert_eq!(log.matches("Successfully registered").count(), 1, "{log}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_generation_mismatch_and_a_lock_say_what_happened_and_what_to_do() {
    for lock in [false, true] {
        let world = World::new().await;
        world.configure(&world.proxy(), "", &world.output(APP, "out"));
        world.succeeds().await;
        let before = world.read("out/tlscert");
        match lock {
            true => world.control.lock_user("bot-robot", "stolen laptop"),
            false => world.control.set_generation("robot", 7),
        }
        let message = world.fails().await;
        let words =
            if lock { "access denied: the cluster turns this bot away" } else { "generation mismatch: stored=" };
        assert!(message.contains(words) && message.contains("remove the lock"), "{message}");
        // After a mismatch the cluster has locked the bot.
        let again = world.fails().await;
        assert!(again.contains("access denied: the cluster turns this bot away"), "{again}");
        assert_eq!(world.read("out/tlscert"), before);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_renewal_whose_answer_is_lost_is_not_sent_again() {
    let world = World::new().await;
    world.configure(&world.proxy(), "", &world.output(APP, "out"));
    world.succeeds().await;
    world.control.fault("GenerateUserCerts", Fault::LoseAnswer, Some(1));
    let daemon = world.daemon();
    until("the loss is told", || daemon.log().contains("answer to the renewal was lost")).await;
    until("outputs are fresh all the same", || daemon.log().contains("Generated output.")).await;
    daemon.signal(Signal::HUP);
    until("and renewed at a signal", || daemon.log().matches("Generated output.").count() == 2).await;
    // As by a service manager: the next process knows of it.
    drop(daemon);
    let message = world.fails().await;
    assert!(message.contains("last renewal ended without a stored answer"), "{message}");
    let daemon = world.daemon();
    until("outputs are fresh once more", || daemon.log().contains("Generated output.")).await;
    assert_eq!(daemon.log().matches("last renewal ended").count(), 1, "{}", daemon.log());
    assert_eq!(world.control.generation("robot"), 2, "it was sent again, and would have been locked");
    world.app_answers("out").await;
    drop(daemon);
    world.control.add_bot_token("another-token-0123456789abcdef", "other", &["machine"]);
    std::fs::write(
        world.path("tbot.yaml"),
        world.read("tbot.yaml").replace(harness::TOKEN, "another-token-0123456789abcdef"),
    )
    .unwrap();
    world.succeeds().await;
    world.succeeds().await;
}

/// A connection that broke unseen, as on a machine that slept: what is certainly not asked is no reason for doubt.
#[tokio::test(flavor = "multi_thread")]
async fn a_renewal_over_a_connection_that_broke_is_asked_for_over_a_new_one() {
    let world = World::new().await;
    let daemon = joined(&world).await;
    for generation in 2..5 {
        world.control.drop_connections();
        daemon.signal(Signal::HUP);
        // What breaks in the middle of a renewal is lost, so all is to be over before the next.
        until("it is renewed", || daemon.log().matches("Renewed bot identity.").count() == generation).await;
        assert_eq!(world.control.generation("robot"), generation as u64);
    }
    assert!(!daemon.log().contains("the answer to the renewal was lost"), "{}", daemon.log());
}

/// A token that is used up and an identity past its end: only a person can help, and the daemon waits for it.
#[tokio::test(flavor = "multi_thread")]
async fn an_identity_that_expired_takes_up_a_new_token() {
    let world = World::new().await;
    std::fs::write(world.path("token"), harness::TOKEN).unwrap();
    world.configure(&world.proxy(), "", &world.output(APP, "out"));
    let named = world.read("tbot.yaml").replace(harness::TOKEN, world.path("token").to_str().unwrap());
    std::fs::write(world.path("tbot.yaml"), named).unwrap();
    let mut daemon = world.daemon();
    until("the first output", || daemon.log().contains("Generated output.")).await;
    world.control.cap_ttl(Duration::from_secs(2));
    daemon.signal(Signal::HUP);
    let fetched = || daemon.log().matches("Fetched new bot identity").count();
    until("the identity lives for two seconds", || fetched() == 2).await;
    world.control.stop_listening();
    tokio::time::sleep(Duration::from_secs(4)).await;
    world.control.cap_ttl(Duration::from_secs(3600));
    world.control.start_listening().await.unwrap();
    // Spares the test the rest of a pause between two tries.
    daemon.signal(Signal::HUP);
    until("it says what to do", || daemon.log().contains("create a new token and set `onboarding.token`")).await;
    assert!(daemon.running());
    world.control.add_bot_token("another-token-0123456789abcdef", "other", &["machine"]);
    std::fs::write(world.path("token"), "another-token-0123456789abcdef\n").unwrap();
    let before = world.read("out/tlscert");
    daemon.signal(Signal::HUP);
    until("it has joined with it", || world.control.generation("other") == 1).await;
    until("the output is fresh", || world.read("out/tlscert") != before).await;
    world.app_answers("out").await;
    assert!(!daemon.log().contains("another-token"));
}

/// Kills at moments spread over a whole pass: the next start finds an identity, never joins with the spent token, and never asks for a
/// renewal that the cluster may have counted.
#[tokio::test(flavor = "multi_thread")]
async fn a_kill_at_any_moment_leaves_an_identity_that_the_cluster_does_not_lock() {
    let world = World::new().await;
    let mut doubts = 0;
    for milliseconds in (0..120).step_by(6) {
        let token = format!("token-of-the-bot-killed-after-{milliseconds}-ms");
        world.control.add_bot_token(&token, &format!("robot-{milliseconds}"), &["machine"]);
        let _ = std::fs::remove_dir_all(world.path("store"));
        world.configure(&world.proxy(), "", "");
        let config = world.read("tbot.yaml").replace(harness::TOKEN, &token).replace("outputs:", "outputs: []");
        std::fs::write(world.path("tbot.yaml"), config).unwrap();
        world.succeeds().await;
        let mut child = world.tbot(&["--oneshot"]).stderr(std::process::Stdio::null()).spawn().unwrap();
        tokio::time::sleep(Duration::from_millis(milliseconds)).await;
        let _ = child.kill();
        let _ = child.wait();
        let next = world.oneshot().await;
        if next.status.code() != Some(0) {
            let told = harness::text(&next);
            assert!(told.contains("last renewal ended without a stored answer"), "{milliseconds} ms: {told}");
            doubts += 1;
        }
    }
    println!("{doubts} of 20 kills left a doubt");
    assert_eq!(world.control.calls("POST /v1/webapi/host/credentials"), 20, "each joined once");
}
