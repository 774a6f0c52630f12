//! A bot joins, and files that work appear; or nothing happens, and the message says why.

mod harness;

use std::os::unix::fs::PermissionsExt;
use std::process::Command;
use std::time::{Duration, SystemTime};

use harness::{APP, TOKEN, World, names, text};
use stand_in::{Fault, Options, Release};
use tokio::io::copy_bidirectional;
use tokio::net::{TcpListener, TcpStream};

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

#[tokio::test(flavor = "multi_thread")]
async fn authorities_to_trust_may_lie_in_a_folder_under_any_name() {
    for world in [World::new().await, World::newest().await] {
        let certificates = world.path("certificates");
        std::fs::create_dir(&certificates).unwrap();
        std::fs::rename(world.path("web-ca.pem"), certificates.join("ours.crt")).unwrap();
        world.configure(&world.proxy(), "", &world.output(APP, "out"));
        let mut command = world.tbot(&["--oneshot"]);
        command.env_remove("SSL_CERT_FILE").env("SSL_CERT_DIR", format!("/no/such:{}", certificates.display()));
        let output = tokio::task::spawn_blocking(move || command.output().unwrap()).await.unwrap();
        assert_eq!(output.status.code(), Some(0), "{}", text(&output));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn nobody_is_believed_unverified_but_with_insecure_and_loudly() {
    for proxy in [true, false] {
        let world = World::new().await;
        let server = if proxy { world.proxy() } else { world.auth() };
        world.configure(&format!("{server}\ninsecure: true"), "", &world.output(APP, "out"));
        let mut command = world.tbot(&["--oneshot"]);
        command.env_remove("SSL_CERT_FILE");
        let output = tokio::task::spawn_blocking(move || command.output().unwrap()).await.unwrap();
        assert_eq!(output.status.code(), Some(0), "{}", text(&output));
        let warning = "WARN [AUTH]      Joining cluster without validating the identity of the ";
        let log = text(&output);
        assert!(log.contains(warning) && log.contains("because `insecure` is set"), "{log}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_address_of_ip_version_6() {
    let Ok(listener) = TcpListener::bind("[::1]:0").await else { return eprintln!("this machine has no IPv6") };
    let world = World::new().await;
    let (address, auth) = (listener.local_addr().unwrap(), world.cluster.auth_addr());
    tokio::spawn(async move {
        while let Ok((mut near, _)) = listener.accept().await {
            tokio::spawn(async move { copy_bidirectional(&mut near, &mut TcpStream::connect(auth).await?).await });
        }
    });
    world.configure(&format!("auth_server: \"{address}\""), &world.pin(), &world.output(APP, "out"));
    world.succeeds().await;
    world.app_answers("out").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_cluster_with_a_long_name_and_a_leaf() {
    for release in [Release::V15, Release::Newest] {
        let cluster_name = format!("{}.example.com", "long".repeat(12));
        let session_tick = Duration::from_millis(200);
        let world = World::with(Options { cluster_name, release, session_tick, ..Options::default() }).await;
        world.control.add_leaf("leaf.example.com").unwrap();
        let path = world.path("leaf");
        let leaf = format!(
            "- {{type: identity, cluster: leaf.example.com, destination: {{type: directory, path: {}}}}}\n",
            path.display()
        );
        world.control.add_bot_token("second", "direct", &["machine"]);
        for (server, onboarding) in [(world.proxy(), String::new()), (world.auth(), world.pin())] {
            let token = if onboarding.is_empty() { TOKEN } else { "second" };
            world.configure(&server, &onboarding, &format!("{}{leaf}", world.output(APP, "out")));
            let yaml = world.read("tbot.yaml").replace(TOKEN, token);
            std::fs::write(world.path("tbot.yaml"), yaml).unwrap();
            world.succeeds().await;
            world.app_answers("out").await;
            let certificate = identity::TlsCertificate::parse(world.read("leaf/tlscert").as_bytes()).unwrap();
            assert!(String::from_utf8_lossy(&certificate.der).contains("leaf.example.com"), "{release:?} {server}");
            let known = world.read("leaf/known_hosts");
            assert!(known.contains("leaf.example.com") && known.contains(world.cluster.cluster_name()), "{known}");
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_cluster_that_admits_no_such_version_is_explained() {
    let world = World::newest().await;
    world.configure(&world.proxy(), "", &world.output(APP, "out"));
    let mut command = world.tbot(&["--oneshot"]);
    command.env("TBOT_CLIENT_VERSION", "12.0.0");
    let refused = text(&tokio::task::spawn_blocking(move || command.output().unwrap()).await.unwrap());
    for words in ["client version is unsupported, minimum supported version is 17.0.0", "set TBOT_CLIENT_VERSION to"] {
        assert!(refused.contains(words), "{refused}");
    }
    assert!(world.control.has_token(TOKEN));
    world.succeeds().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_proxy_named_as_auth_server_and_the_reverse() {
    let world = World::new().await;
    // `auth_server` may be either: decided once, said once.
    let proxy = world.proxy().replace("proxy_server", "auth_server");
    world.configure(&proxy, "", &world.output(APP, "out"));
    let log = world.succeeds().await;
    assert_eq!(log.matches("answers as proxy, and is used as that from now on").count(), 1, "{log}");
    world.app_answers("out").await;
    // `proxy_server` is one, and says so where it is none.
    let world = World::new().await;
    let auth = world.auth().replace("auth_server", "proxy_server");
    world.configure(&auth, "", &world.output(APP, "out"));
    let message = world.fails().await;
    assert!(
        message.contains("as proxy: ") && message.contains("whether the address is a proxy or an auth server"),
        "{message}"
    );
}
