//! A bot joins, and files that work appear; or nothing happens, and the message says why.

mod harness;

use std::os::unix::fs::PermissionsExt;
use std::process::Command;
use std::time::{Duration, SystemTime};

use harness::{APP, TOKEN, World, names, text};
use stand_in::Fault;

const FILES: [&str; 9] = [
    ".write-test",
    "identity",
    "key",
    "key-cert.pub",
    "key.pub",
    "teleport-database-ca.crt",
    "teleport-host-ca.crt",
    "teleport-user-ca.crt",
    "tlscert",
];

#[tokio::test(flavor = "multi_thread")]
async fn through_the_proxy_and_the_application_answers() {
    let world = World::new().await;
    world.configure(&world.proxy(), "", &world.output(APP, "out"));
    let log = world.succeeds().await;
    assert!(log.contains(&format!("INFO [TBOT]      Generated identity for app \"{APP}\"\n")), "{log}");
    assert!(log.contains("Generated output. output:application (directory: "), "{log}");
    assert_eq!(names(&world.path("out")), FILES);
    for name in FILES {
        let mode = std::fs::metadata(world.path("out").join(name)).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600, "{name}");
    }
    assert_eq!(std::fs::metadata(world.path("out")).unwrap().permissions().mode() & 0o777, 0o700);
    world.app_answers("out").await;
    assert!(
        world.read("out/key").starts_with("-----BEGIN RSA PRIVATE KEY-----"),
        "what consumers of version 15 expect"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn straight_to_auth_with_a_pin_and_other_programs_read_the_files() {
    let world = World::new().await;
    let identity =
        format!("- {{type: identity, destination: {{type: directory, path: {}}}}}\n", world.path("id").display());
    world.configure(&world.auth(), &world.pin(), &format!("{}{identity}", world.output(APP, "out")));
    world.succeeds().await;
    world.app_answers("out").await;
    let run = |program: &str, arguments: &[&str]| {
        let output = Command::new(program).current_dir(world.path("id")).args(arguments).output().unwrap();
        assert!(output.status.success(), "{program}: {}", text(&output));
        text(&output)
    };
    run("openssl", &["verify", "-CAfile", "teleport-user-ca.crt", "-purpose", "sslclient", "tlscert"]);
    assert!(run("ssh-keygen", &["-L", "-f", "key-cert.pub"]).contains("-teleport-internal-join"));
    let public = run("ssh-keygen", &["-y", "-f", "key"]);
    assert_eq!(public.split_whitespace().nth(1), world.read("id/key.pub").split_whitespace().nth(1));
    assert!(world.read("id/ssh_config").contains(" proxy --destination-dir="));
    assert!(world.read("id/known_hosts").starts_with("@cert-authority "));
}

#[tokio::test(flavor = "multi_thread")]
async fn the_newest_cluster_by_both_routes() {
    for direct in [false, true] {
        let world = World::newest().await;
        let (server, onboarding) = if direct { (world.auth(), world.pin()) } else { (world.proxy(), String::new()) };
        world.configure(&server, &onboarding, &world.output(APP, "out"));
        world.succeeds().await;
        world.app_answers("out").await;
        assert!(world.read("out/key").starts_with("-----BEGIN PRIVATE KEY-----"), "keys follow the suite");
        assert_eq!(world.control.calls("CreateAppSession"), 0, "the cluster makes the session");
        world.succeeds().await;
        assert_eq!(world.control.generation("robot"), 2, "the second run renews");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_refused_token_is_one_message_with_a_remedy_and_nothing_is_written() {
    for case in ["wrong", "expired", "used"] {
        for proxy in [true, false] {
            let world = World::new().await;
            match case {
                "wrong" => world.control.expire_token("no-such", SystemTime::now()),
                "expired" => world.control.expire_token(TOKEN, SystemTime::now() - Duration::from_secs(60)),
                _ => {}
            }
            let onboarding = if proxy { String::new() } else { world.pin() };
            world.configure(&if proxy { world.proxy() } else { world.auth() }, &onboarding, &world.output(APP, "out"));
            match case {
                "wrong" => {
                    let yaml = world.read("tbot.yaml").replace(TOKEN, "another-token-9876543210");
                    std::fs::write(world.path("tbot.yaml"), yaml).unwrap();
                }
                "used" => {
                    world.succeeds().await;
                    std::fs::remove_dir_all(world.path("store")).unwrap();
                    std::fs::remove_dir_all(world.path("out")).unwrap();
                }
                _ => {}
            }
            let message = world.fails().await;
            assert!(message.contains("create a new one and set `onboarding.token`"), "{case}: {message}");
            assert!(
                !message.contains("HTTP status") && !message.contains("as auth server"),
                "an unrelated second error: {message}"
            );
            assert_eq!(names(&world.path("out")), [""; 0], "{case}");
            assert!(!world.path("store/tlscert").exists());
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_unreachable_server_is_named_with_every_address_tried() {
    let world = World::new().await;
    world.control.stop_listening();
    let address = world.cluster.auth_addr();
    world.configure(&world.auth(), &world.pin(), &world.output(APP, "out"));
    let message = world.fails().await;
    assert_eq!(message.matches(&address.to_string()).count(), 2, "{message}");
    assert!(message.contains("as auth server: ") && message.contains("as proxy: "), "{message}");
    assert!(message.to_lowercase().contains("connection refused"), "{message}");
}

#[tokio::test(flavor = "multi_thread")]
async fn trust_that_does_not_hold_ends_before_the_token_is_sent() {
    let world = World::new().await;
    let output = world.output(APP, "out");
    let wrong = format!("ca_pins: [sha256:{}]", "0".repeat(64));
    let missing = format!("ca_path: {}", world.path("no-such.pem").display());
    let foreign = format!("ca_path: {}", world.path("web-ca.pem").display());
    for (server, onboarding, words) in [
        (world.auth(), wrong.as_str(), "is not among `ca_pins`"),
        (world.auth(), missing.as_str(), "ca_path: "),
        (world.auth(), foreign.as_str(), "is not signed by a trusted authority"),
    ] {
        world.configure(&server, onboarding, &output);
        let message = world.fails().await;
        assert!(message.contains(words), "{onboarding}: {message}");
        assert!(world.control.has_token(TOKEN), "the token was used: {onboarding}");
    }
    // A proxy whose certificate this machine does not trust.
    world.configure(&world.proxy(), "", &output);
    let mut command = world.tbot(&["--oneshot"]);
    command.env_remove("SSL_CERT_FILE");
    let refused = tokio::task::spawn_blocking(move || command.output().unwrap()).await.unwrap();
    assert!(text(&refused).contains("is not signed by a trusted authority"), "{}", text(&refused));
    assert!(world.control.has_token(TOKEN) && world.control.calls("register") == 0);
    world.succeeds().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn one_missing_application_leaves_the_others_written_and_exits_1() {
    let world = World::new().await;
    let outputs = format!("{}{}", world.output("nope", "bad"), world.output(APP, "good"));
    world.configure(&world.proxy(), "", &outputs);
    let message = world.fails().await;
    assert!(message.contains("app \"nope\" not found") && message.contains("application (directory: "), "{message}");
    world.app_answers("good").await;
    assert!(!world.path("bad/key").exists());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_cluster_that_cannot_answer_now_is_told_as_such_and_the_token_is_kept() {
    let world = World::new().await;
    world.control.fault("POST /v1/webapi/host/credentials", Fault::Unavailable, Some(1));
    world.configure(&world.proxy(), "", &world.output(APP, "out"));
    world.fails().await;
    assert!(!world.path("store/tlscert").exists() && world.control.has_token(TOKEN));
    world.succeeds().await;
}
