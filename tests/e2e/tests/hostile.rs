//! Clusters that answer what no cluster would: the built program ends in bounded memory and time with one clear message, and the last
//! good files stay as they are.

mod harness;

use std::collections::BTreeMap;
use std::path::Path;
use std::process::Stdio;
use std::time::{Duration, Instant};

use harness::{APP, World, names};
use stand_in::{Fault, Hostile, Options, Release};

/// More than any run here takes; an attack has gibibytes to offer. Built for debugging, it takes about a third of it.
const MEMORY_KIB: u64 = 256 << 10;
/// One call may take thirty seconds, and nothing here waits for two in a row; the rest is for a machine that does other things too.
const LONGEST: Duration = Duration::from_secs(75);

/// One pass that must fail, and what it says behind `ERROR: `.
async fn fails(world: &World, case: &str) -> String {
    let (status, log) = watched(world, case).await;
    assert_eq!(status, Some(1), "{case}: {log}");
    assert!(!log.contains("panicked"), "{case}: {log}");
    let at = log.find("ERROR: ").unwrap_or_else(|| panic!("{case}: no ERROR line:\n{log}"));
    let message = log[at + 7..].trim_end().to_owned();
    assert!(message.len() < 2000, "{case}: {message}");
    message
}

/// One pass in bounded memory and time: its exit status, and what it printed.
async fn watched(world: &World, case: &str) -> (Option<i32>, String) {
    let log = world.path("hostile.log");
    let mut command = world.tbot(&["--oneshot"]);
    let mut child = command.stderr(std::fs::File::create(&log).unwrap()).stdout(Stdio::null()).spawn().unwrap();
    let (started, mut peak) = (Instant::now(), 0);
    let status = loop {
        let status = std::fs::read_to_string(format!("/proc/{}/status", child.id())).unwrap_or_default();
        let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"));
        peak = peak.max(line.and_then(|line| line.split_whitespace().next()?.parse().ok()).unwrap_or(0));
        if let Some(status) = child.try_wait().unwrap() {
            break status.code();
        }
        if started.elapsed() > LONGEST {
            let _ = child.kill();
            panic!("{case}: it did not end: {}", std::fs::read_to_string(&log).unwrap());
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    };
    assert!(peak < MEMORY_KIB, "{case}: {peak} KiB");
    (status, std::fs::read_to_string(&log).unwrap())
}

/// Every file below a folder.
fn contents(folder: &Path) -> BTreeMap<String, Vec<u8>> {
    names(folder).into_iter().map(|name| (name.clone(), std::fs::read(folder.join(name)).unwrap())).collect()
}

async fn joined(release: Release) -> World {
    let world = World::with(Options { release, session_tick: Duration::ZERO, ..Options::default() }).await;
    world.configure(&world.proxy(), "", &world.output(APP, "out"));
    world.succeeds().await;
    world
}

#[tokio::test(flavor = "multi_thread")]
async fn nonsense_and_messages_without_measure_are_refused_at_once() {
    for release in [Release::V15, Release::Newest] {
        let world = joined(release).await;
        let good = contents(&world.path("out"));
        for method in ["Ping", "GetRole", "ListResources", "GetCertAuthorities"] {
            for how in [Hostile::Nonsense, Hostile::Oversize] {
                let case = format!("{release:?} {method} {how:?}");
                world.control.fault(method, Fault::Hostile(how), None);
                let message = fails(&world, &case).await;
                assert!(message.contains("answered what cannot be read: "), "{case}: {message}");
                assert!(!message.contains("the answer to the renewal was lost"), "{case}: {message}");
                assert_eq!(contents(&world.path("out")), good, "{case}");
                world.control.clear_faults();
            }
        }
        world.succeeds().await;
        world.app_answers("out").await;
    }
    // A renewal that is answered with nonsense may have been counted: it is not asked for again at once, and outputs go on.
    for how in [Hostile::Nonsense, Hostile::Oversize] {
        let world = joined(Release::V15).await;
        let good = contents(&world.path("out"));
        world.control.fault("GenerateUserCerts", Fault::Hostile(how), None);
        let message = fails(&world, "a renewal").await;
        assert!(message.contains("the answer to the renewal was lost"), "{message}");
        assert!(message.contains("answered what cannot be read: "), "{message}");
        assert_eq!(contents(&world.path("out")), good, "{how:?}");
        world.control.clear_faults();
        let message = fails(&world, "the next start").await;
        assert!(message.contains("its last renewal ended without a stored answer"), "{message}");
        assert_ne!(contents(&world.path("out")), good, "{how:?}");
        world.app_answers("out").await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_first_contact_that_answers_without_sense_or_measure_costs_no_token() {
    let world = World::new().await;
    world.configure(&world.proxy(), "", &world.output(APP, "out"));
    for method in ["GET /webapi/find", "POST /v1/webapi/host/credentials"] {
        for how in [Hostile::Nonsense, Hostile::Oversize, Hostile::Endless] {
            let case = format!("{method} {how:?}");
            world.control.fault(method, Fault::Hostile(how), None);
            let message = fails(&world, &case).await;
            assert!(
                message.contains("the cluster cannot be joined: localhost:") || message.contains("cannot be read"),
                "{case}: {message}"
            );
            assert!(!world.path("store/tlscert").exists() && names(&world.path("out")).is_empty(), "{case}");
            world.control.clear_faults();
        }
    }
    world.succeeds().await;
}

/// Slow loris and streams without end: each is waited for once, all at the same time.
#[tokio::test(flavor = "multi_thread")]
async fn what_never_ends_is_given_up() {
    let early = |how| async move {
        let world = World::new().await;
        world.configure(&world.proxy(), "", &world.output(APP, "out"));
        world.control.fault("GET /webapi/find", Fault::Hostile(how), None);
        let message = fails(&world, "find").await;
        assert!(message.contains("as proxy: ") && message.contains("timed out"), "{message}");
    };
    let late = |method, how| async move {
        let world = joined(Release::Newest).await;
        let good = contents(&world.path("out"));
        world.control.fault(method, Fault::Hostile(how), None);
        let message = fails(&world, method).await;
        let words = if how == Hostile::Endless { "length limit exceeded" } else { "no answer within 30 s" };
        assert!(message.contains(words), "{method} {how:?}: {message}");
        assert_eq!(contents(&world.path("out")), good, "{method} {how:?}");
        world.control.clear_faults();
        world.succeeds().await;
    };
    tokio::join!(
        early(Hostile::Trickle),
        late("ListResources", Hostile::Endless),
        late("ListResources", Hostile::Trickle),
        late("GetCertAuthorities", Hostile::Trickle),
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn ten_thousand_authorities() {
    let world = joined(Release::Newest).await;
    let identity =
        format!("- {{type: identity, destination: {{type: directory, path: {}}}}}\n", world.path("id").display());
    world.configure(&world.proxy(), "", &format!("{}{identity}", world.output(APP, "out")));
    world.succeeds().await;
    let good = contents(&world.path("id"));
    world.control.add_leaves(10_000).unwrap();
    let message = fails(&world, "authorities").await;
    assert_eq!(message.matches("host authorities: the cluster names 10001 with ").count(), 2, "{message}");
    assert!(message.contains("remove leaf clusters"), "{message}");
    assert_eq!(contents(&world.path("id")), good);
    world.app_answers("out").await;
}

/// Another cluster answers at the address: whoever holds it has no certificate of ours, and gets none of us.
#[tokio::test(flavor = "multi_thread")]
async fn another_cluster_at_the_same_address() {
    let (ours, theirs) = tokio::join!(joined(Release::V15), joined(Release::V15));
    let good = contents(&ours.path("out"));
    std::fs::write(ours.path("web-ca.pem"), theirs.cluster.web_ca_pem()).unwrap();
    for server in [theirs.proxy(), theirs.auth()] {
        ours.configure(&server, "", &ours.output(APP, "out"));
        let message = fails(&ours, &server).await;
        assert!(message.contains("is not signed by a trusted authority"), "{message}");
        assert_eq!(contents(&ours.path("out")), good);
    }
    assert_eq!(theirs.control.generation("robot"), 1, "nothing was renewed there");
}
