//! `on_change` of the whole program, also where it is killed in between.

mod harness;

use harness::{APP, World, until};
use stand_in::{Options, Release};

#[tokio::test(flavor = "multi_thread")]
async fn a_hook_runs_for_each_generation_and_again_where_the_agent_was_killed_in_it() {
    let world = World::new().await;
    let here = world.folder.path().display().to_string();
    // The first time it takes the agent along, as a power cut would.
    let script = format!(
        "cp \"$TBOT_DESTINATION/tlscert\" {here}/seen; echo \"$TBOT_OUTPUT\" >> {here}/runs; \
         test -e {here}/killed || {{ touch {here}/killed; kill -9 $PPID; }}"
    );
    let output = format!(
        "- type: application\n  app_name: {APP}\n  destination: {{type: directory, path: {here}/out}}\n  \
         on_change: {{command: [/bin/sh, -c, {script:?}], timeout: 30s}}\n"
    );
    world.configure(&world.auth(), &world.pin(), &output);
    let mut daemon = world.daemon();
    until("the hook has killed the agent", || !daemon.running()).await;
    let runs = || world.read("runs").lines().count();
    assert_eq!((runs(), world.read("seen")), (1, world.read("out/tlscert")), "{}", daemon.log());
    // Nothing can be renewed, and the hook is owed all the same: nobody knows how far it came.
    world.control.deny_output(APP);
    world.fails().await;
    assert_eq!((runs(), world.read("seen")), (2, world.read("out/tlscert")));
    world.control.allow_output(APP);
    let log = world.succeeds().await;
    assert!(log.contains("Ran the output's on_change hook."), "{log}");
    assert_eq!((runs(), world.read("seen")), (3, world.read("out/tlscert")));
    assert!(world.read("runs").lines().all(|name| name == "application-1"));
}

/// What a hook reloads must work at once: an application output is done when its session is visible to the proxy.
#[tokio::test(flavor = "multi_thread")]
async fn when_the_hook_of_an_application_runs_its_certificate_works() {
    for release in [Release::V15, Release::Newest] {
        // As on a real cluster, sessions become visible once a second.
        let world = World::with(Options { release, ..Options::default() }).await;
        let here = world.folder.path().display().to_string();
        let port = world.cluster.proxy_addr().port();
        let command = format!(
            "[curl, --silent, --show-error, --fail, --cacert, {here}/web-ca.pem, --cert, {here}/out/tlscert, --key, {here}/out/key, \
             --output, {here}/answer, 'https://localhost:{port}/']"
        );
        let output = format!(
            "- {{type: application, app_name: {APP}, destination: {{type: directory, path: {here}/out}}, on_change: {{command: {command}}}}}\n"
        );
        world.configure(&world.auth(), &world.pin(), &output);
        world.succeeds().await;
        assert_eq!(world.read("answer"), "hello from the application\n", "{release:?}");
    }
}

/// A file system that hangs, as one over a network does, keeps no process: nobody writes into this FIFO.
#[tokio::test(flavor = "multi_thread")]
async fn what_hangs_in_a_file_system_does_not_keep_the_agent_from_ending() {
    let world = World::new().await;
    let pid_file = world.path("pid");
    assert!(std::process::Command::new("mkfifo").arg(&pid_file).status().unwrap().success());
    let (out, pid_file) = (world.path("out").display().to_string(), pid_file.display().to_string());
    let output = format!(
        "- {{type: application, app_name: {APP}, destination: {{type: directory, path: {out}}}, on_change: {{signal: {{pid_file: {pid_file}}}}}}}\n"
    );
    world.configure(&world.auth(), &world.pin(), &output);
    let mut daemon = world.daemon();
    until("the files are there, and the hook hangs", || daemon.log().contains("Generated output.")).await;
    daemon.signal(rustix::process::Signal::TERM);
    assert_eq!(daemon.ended().await, Some(0));
}
