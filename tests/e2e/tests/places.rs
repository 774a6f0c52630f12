//! Storage, destinations and configuration in every bad state: a clear message, and nothing that worked is lost.

mod harness;

use harness::{APP, TOKEN, World, binary, example_plugin, text};
use sha2::{Digest, Sha256};

#[tokio::test(flavor = "multi_thread")]
async fn storage_that_another_process_holds_is_refused() {
    let world = World::new().await;
    world.configure(&world.proxy(), "", &world.output(APP, "out"));
    let pid_file = ["--pid-file", world.path("pid").to_str().unwrap()].map(str::to_owned);
    let arguments = pid_file.each_ref().map(String::as_str);
    let daemon = world.daemon_with(&arguments);
    harness::until("the daemon has joined", || daemon.log().contains("Generated output.")).await;
    let second = world.tbot(&arguments).output().unwrap();
    assert_eq!(second.status.code(), Some(1));
    assert!(text(&second).contains("Failed to acquire exclusive lock"), "{}", text(&second));
    assert_eq!(world.read("pid"), format!("{}\n", daemon.id()), "it is still the first one's");
}

#[tokio::test(flavor = "multi_thread")]
async fn damaged_storage_is_kept_for_a_look_and_left_behind_with_a_new_token() {
    let world = World::new().await;
    world.configure(&world.proxy(), "", &world.output(APP, "out"));
    world.succeeds().await;
    let (before, good) = (world.read("out/tlscert"), world.read("store/tlscert"));
    std::fs::write(world.path("store/tlscert"), &good[..good.len() / 2]).unwrap();
    let message = world.fails().await;
    assert!(message.contains("is damaged") && message.contains("new token"), "{message}");
    assert_eq!(world.read("out/tlscert"), before);
    assert_eq!(world.read("store/tlscert"), good[..good.len() / 2]);
    std::fs::write(world.path("store/tlscert"), good).unwrap();
    world.succeeds().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_destination_that_is_not_one_costs_its_own_output_only() {
    let world = World::new().await;
    std::fs::write(world.path("file"), "precious").unwrap();
    std::fs::create_dir(world.path("elsewhere")).unwrap();
    std::os::unix::fs::symlink(world.path("elsewhere"), world.path("link")).unwrap();
    let outputs = ["file", "link", "good"].map(|out| world.output(APP, out)).concat();
    world.configure(&world.proxy(), "", &outputs);
    let message = world.fails().await;
    assert!(message.contains("is not a directory") && message.contains("symlink"), "{message}");
    assert_eq!(world.read("file"), "precious");
    assert!(harness::names(&world.path("elsewhere")).is_empty());
    world.app_answers("good").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn two_mistakes_are_both_reported_with_their_places_and_no_secret() {
    let world = World::new().await;
    let text = format!(
        "version: v2\nauth_server: localhost:3080\nonboarding:\n  join_method: token\n  tokn: {TOKEN}\noutputs:\n- type: application\n  destination: {{type: directori, path: /x}}\n"
    );
    std::fs::write(world.path("tbot.yaml"), text).unwrap();
    let message = world.fails().await;
    assert!(message.contains("tbot.yaml:5:") && message.contains("did you mean `token`"), "{message}");
    assert!(message.contains("tbot.yaml:8:") && message.contains("outputs[0].destination"), "{message}");
    std::fs::write(world.path("tbot.yaml"), format!("onboarding: {{token: {TOKEN}\n  x: [")).unwrap();
    assert!(world.fails().await.contains("tbot.yaml:"));
    assert_eq!(world.control.log().len(), 0, "nothing was asked of the cluster");
}

#[tokio::test(flavor = "multi_thread")]
async fn mistakes_that_only_a_plugin_knows_have_their_places_too() {
    let world = World::new().await;
    let outputs = "- {type: aplication, app_name: x, destination: {type: memory}}\n- {type: application, destination: {type: memory}}\n- {type: kubernetes, kubernetes_cluster: x, destination: {type: memory}}\n";
    world.configure(&world.proxy(), "", outputs);
    let message = world.fails().await;
    for words in ["did you mean `application`", "app_name must not be empty", "`kubernetes` is not supported yet"] {
        assert!(message.contains(words), "{words}: {message}");
    }
    assert!(world.control.has_token(TOKEN));
}

fn with_plugin(world: &World, digest: &str) {
    let plugin = example_plugin();
    let output = format!(
        "- {{type: application, app_name: {APP}, format: {{name: properties, file: app.properties}}, destination: {{type: directory, path: {}}}}}\n",
        world.path("out").display()
    );
    world.configure(&world.proxy(), "", &output);
    let plugins = format!("plugins:\n- {{name: properties, kind: format, path: {}{digest}}}\n", plugin.display());
    std::fs::write(world.path("tbot.yaml"), world.read("tbot.yaml") + &plugins).unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_third_partys_template_is_loaded_by_digest_or_not_at_all() {
    let world = World::new().await;
    let bytes = std::fs::read(example_plugin()).unwrap();
    let digest: String = Sha256::digest(&bytes).iter().map(|byte| format!("{byte:02x}")).collect();
    with_plugin(&world, "");
    assert!(world.fails().await.contains(&format!("add `digest: sha256:{digest}`")));
    let wrong = "1".repeat(64);
    with_plugin(&world, &format!(", digest: 'sha256:{wrong}'"));
    let message = world.fails().await;
    assert!(message.contains(&digest) && message.contains(&wrong), "{message}");
    assert!(world.control.has_token(TOKEN));

    with_plugin(&world, &format!(", digest: 'sha256:{digest}'"));
    let log = world.succeeds().await;
    assert!(log.contains("Compiling the plugin."), "{log}");
    let properties = world.read("out/app.properties");
    assert!(properties.contains("stand-in.example.com"), "{properties}");
    assert!(
        world.read("out/app-key.pem").starts_with("-----BEGIN PRIVATE KEY-----"),
        "{:?}",
        harness::names(&world.path("out"))
    );
    world.app_answers("out").await;
    let log = world.succeeds().await;
    assert!(!log.contains("Compiling the plugin."), "the cache was not used: {log}");
}

#[test]
fn usage_errors_end_with_status_1_and_help_with_0() {
    for (arguments, status) in
        [(&["start", "--no-such"][..], 1), (&["nonsense"], 1), (&["--help"], 0), (&["version"], 0), (&[], 1)]
    {
        let output = std::process::Command::new(binary()).args(arguments).output().unwrap();
        assert_eq!(output.status.code(), Some(status), "{arguments:?}: {}", text(&output));
    }
}
