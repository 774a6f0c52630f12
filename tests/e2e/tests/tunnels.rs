//! `tbot proxy` and `tbot db` beside a `tbot start` that keeps their certificates fresh: the two units of the guides.

mod harness;

use std::process::Command;
use std::time::Duration;

use harness::proxy::Proxy;
use harness::{APP, World, text, until};
use rustix::process::Signal;
use stand_in::{Options, Release};

async fn get(address: &str) -> String {
    let mut command = Command::new("curl");
    command.args(["--silent", "--show-error", &format!("http://{address}/")]);
    let output = tokio::task::spawn_blocking(move || command.output().unwrap()).await.unwrap();
    text(&output)
}

#[tokio::test(flavor = "multi_thread")]
async fn an_application_on_a_local_port_while_the_daemon_renews() {
    let world = World::new().await;
    world.configure(&world.proxy(), "", &world.output(APP, "out"));
    let (config, out) = (world.path("tbot.yaml").display().to_string(), world.path("out").display().to_string());
    // The unit of the proxy may start first.
    let early = Proxy::start(&world, &["-c", &config, "proxy", "app", APP]);
    let daemon = world.daemon();
    let line = early.line().await;
    let address = line.strip_prefix(&format!("Proxying connections to {APP} on ")).expect(&line);
    assert!(address.starts_with("127.0.0.1:"), "{line}");
    assert!(
        early.printed().ends_with("you can choose the listening port using the --port flag.\n"),
        "{}",
        early.printed()
    );
    assert_eq!(get(address).await, "hello from the application\n");
    let before = world.read("out/tlscert");
    daemon.signal(Signal::HUP);
    until("the certificate is renewed", || world.read("out/tlscert") != before).await;
    assert_eq!(get(address).await, "hello from the application\n");
    world.control.stop_listening();
    let failed = get(address).await;
    assert!(failed.starts_with("tbot: proxy localhost:"), "{failed}");
    world.control.start_listening().await.unwrap();
    until_answers(address).await;
    assert_eq!(early.end().await, Some(0));
    // The same with flags alone, in the places where people put them.
    let proxy = format!("--proxy=localhost:{}", world.cluster.proxy_addr().port());
    let out = format!("--destination-dir={out}");
    for arguments in [
        vec!["proxy", &out, &proxy, "app", "--port=0", APP],
        vec!["proxy", &proxy, &out, "--cluster=x", "--", "app", "--listen=tcp://localhost:0", APP],
    ] {
        let open = Proxy::start(&world, &arguments);
        let line = open.line().await;
        assert_eq!(get(line.rsplit(' ').next().unwrap()).await, "hello from the application\n", "{line}");
        assert_eq!(open.end().await, Some(0));
    }
}

async fn until_answers(address: &str) {
    let started = std::time::Instant::now();
    while get(address).await != "hello from the application\n" {
        assert!(started.elapsed().as_secs() < 120, "the application does not come back");
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_cannot_work_is_said_with_its_remedy() {
    let world = World::new().await;
    world.configure(&world.proxy(), "", &world.output(APP, "out"));
    world.succeeds().await;
    let (config, out) = (world.path("tbot.yaml").display().to_string(), world.path("out").display().to_string());
    for (arguments, words) in [
        (vec!["proxy", "--destination-dir", &out, "app", APP], "give `--proxy-server HOST:PORT`"),
        (vec!["proxy", "--proxy=localhost:1", "app", APP], "either --destination-dir or a config file"),
        (vec!["-c", &config, "proxy", "app", "another"], "is for application \"grafana-example\", not for \"another\""),
        (vec!["-c", &config, "proxy", "db", "x"], "`{type: database, service: x}`"),
        (vec!["-c", &config, "proxy", "kube", "x"], "unrecognized subcommand 'kube'"),
        (vec!["-c", &config, "db", "env", "x"], "is not for database \"x\""),
    ] {
        let message = world.refused(&arguments).await;
        assert!(message.contains("ERROR: ") && message.contains(words), "{arguments:?}: {message}");
    }
    let two = format!("{}{}", world.output(APP, "out"), world.output(APP, "two"));
    world.configure(&world.proxy(), "", &two);
    let message = world.refused(&["-c", &config, "proxy", "app", APP]).await;
    assert!(message.contains("multiple outputs; a --destination-dir must be specified"), "{message}");
}

/// What scripts written for the original say, and what is said of it.
#[tokio::test(flavor = "multi_thread")]
async fn the_originals_flags_pass_and_what_they_no_longer_do_is_noted() {
    let world = World::new().await;
    world.configure(&world.proxy(), "", &world.output(APP, "out"));
    world.succeeds().await;
    let out = format!("--destination-dir={}", world.path("out").display());
    let proxy = format!("--proxy=localhost:{}", world.cluster.proxy_addr().port());
    let inner = ["app", "-d", "--insecure", "-c", "x", "--listen", "0.0.0.0:0", APP];
    let mut command = world.run(&[&["-d", "proxy", &out, &proxy, "--cluster", "x", "--"], inner.as_slice()].concat());
    command.env("TSH", "/usr/local/bin/tsh");
    let open = Proxy::spawn(command);
    let line = open.line().await;
    let port = line.rsplit(':').next().unwrap();
    assert_eq!(get(&format!("localhost:{port}")).await, "hello from the application\n");
    let log = open.log();
    for words in ["TSH is ignored: this build needs no `tsh`", "can be reached from other machines"] {
        assert!(log.contains(words), "{words:?} is not in:\n{log}");
    }
    assert_eq!(open.end().await, Some(0));
}

/// Protocol names are lost on the way: connections are upgraded from HTTP, in the way each release has.
#[tokio::test(flavor = "multi_thread")]
async fn an_application_through_a_load_balancer() {
    for release in [Release::V15, Release::Newest] {
        let session_tick = Duration::from_millis(200);
        let world = World::with(Options { release, session_tick, strip_alpn: true, ..Options::default() }).await;
        world.configure(&world.proxy(), "", &world.output(APP, "out"));
        world.succeeds().await;
        let config = world.path("tbot.yaml").display().to_string();
        let open = Proxy::start(&world, &["-c", &config, "proxy", "app", APP]);
        let line = open.line().await;
        assert_eq!(get(line.rsplit(' ').next().unwrap()).await, "hello from the application\n", "{release:?}");
        assert_eq!(open.end().await, Some(0));
    }
}

/// The same inside the daemon: a service with a certificate of its own.
#[tokio::test(flavor = "multi_thread")]
async fn a_tunnel_inside_the_daemon_survives_renewals() {
    let world = World::new().await;
    let port = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    let service = format!("- {{type: application-tunnel, listen: \"tcp://127.0.0.1:{port}\", app_name: {APP}}}\n");
    world.configure(&world.proxy(), "", &service);
    let file = world.path("tbot.yaml");
    let text = std::fs::read_to_string(&file).unwrap().replace("outputs:", "services:");
    std::fs::write(&file, text).unwrap();
    let mut daemon = world.daemon();
    let address = format!("127.0.0.1:{port}");
    until("the port is open", || std::net::TcpStream::connect(&address).is_ok()).await;
    assert_eq!(get(&address).await, "hello from the application\n", "{}", daemon.log());
    assert!(!daemon.log().contains("does not accept connections yet"), "a start like any other: {}", daemon.log());
    daemon.signal(Signal::HUP);
    until("the certificate is renewed", || daemon.log().matches("Generated output.").count() == 2).await;
    assert_eq!(get(&address).await, "hello from the application\n");
    daemon.signal(Signal::TERM);
    assert_eq!(daemon.ended().await, Some(0));
}

/// What systemd allows a service to begin with would be too little: two descriptors for every connection.
#[tokio::test(flavor = "multi_thread")]
async fn a_tunnel_inside_the_daemon_takes_as_many_files_as_it_may() {
    let world = World::new().await;
    let socket = world.path("app.sock");
    let service = format!("- {{type: application-tunnel, listen: \"unix://{}\", app_name: {APP}}}\n", socket.display());
    world.configure(&world.proxy(), "", &service);
    let file = world.path("tbot.yaml");
    let written = std::fs::read_to_string(&file).unwrap().replace("outputs:", "services:");
    std::fs::write(&file, written).unwrap();
    let daemon = world.tbot(&[]);
    let mut limited = Command::new("sh");
    limited.args(["-c", "ulimit -S -n 64; exec \"$0\" \"$@\""]).arg(daemon.get_program()).args(daemon.get_args());
    limited.envs(daemon.get_envs().filter_map(|(name, value)| Some((name, value?))));
    let daemon = Proxy::spawn(limited);
    until("the socket is there", || std::os::unix::net::UnixStream::connect(&socket).is_ok()).await;
    let _silent: Vec<_> = (0..100).map(|_| std::os::unix::net::UnixStream::connect(&socket).unwrap()).collect();
    let mut command = Command::new("curl");
    command
        .args(["--silent", "--show-error", "--max-time", "20", "--unix-socket"])
        .arg(&socket)
        .arg("http://localhost/");
    let output = tokio::task::spawn_blocking(move || command.output().unwrap()).await.unwrap();
    assert_eq!(text(&output), "hello from the application\n", "{}", daemon.log());
    assert_eq!(daemon.end().await, Some(0));
    assert!(!socket.exists());
}
