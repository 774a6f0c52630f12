//! MariaDB and Redis behind the cluster, and their own clients at the local end.

mod harness;

use std::process::Command;

use harness::proxy::Proxy;
use harness::server::{Server, output};
use harness::{World, text, until};

const DB: &str = "example-server";

/// MariaDB with the user `alice`, who needs a certificate in her name, and her database `example`.
async fn mariadb(world: &World) -> Server {
    let mut server = Server::new(&world.control);
    let path = |flag: &str, name: &str| format!("--{flag}={}", server.folder().join(name).display());
    let (data, socket, init) = (path("datadir", "data"), path("socket", "socket"), path("init-file", "init.sql"));
    let tls = [path("ssl-cert", "server.crt"), path("ssl-key", "server.key"), path("ssl-ca", "clients.pem")];
    let small = "--innodb-log-file-size=4M";
    let root = "--auth-root-authentication-method=normal";
    server.run("mariadb-install-db", &["--no-defaults", &data, "--skip-test-db", root, small]);
    let subject = format!("/O={}/CN=alice", world.cluster.cluster_name());
    server.write(
        "init.sql",
        &format!("create database example;\ncreate user alice@localhost require subject '{subject}';\ngrant all on example.* to alice@localhost;\n"),
    );
    let port = format!("--port={}", server.port);
    let place = ["--no-defaults", &data, "--bind-address=127.0.0.1", &port, &init, &socket, small];
    server.start("/usr/sbin/mariadbd", &[place.as_slice(), &tls.each_ref().map(String::as_str)].concat());
    until("MariaDB answers", || std::net::TcpStream::connect(("127.0.0.1", server.port)).is_ok()).await;
    server
}

/// Redis, which lets in whoever shows a certificate.
async fn redis(world: &World) -> Server {
    let mut server = Server::new(&world.control);
    let port = server.port.to_string();
    let files = ["--tls-cert-file", "server.crt", "--tls-key-file", "server.key", "--tls-ca-cert-file", "clients.pem"];
    let place = ["--port", "0", "--bind", "127.0.0.1", "--tls-port", &port, "--save", ""];
    server.start("redis-server", &[place.as_slice(), &files].concat());
    until("Redis answers", || std::net::TcpStream::connect(("127.0.0.1", server.port)).is_ok()).await;
    server
}

/// What an engine's own client is asked, and says.
struct Engine {
    protocol: &'static str,
    title: &'static str,
    /// Behind the client's command line.
    flags: &'static str,
    /// Alone on its standard input.
    statement: &'static str,
    answer: &'static str,
}

/// Runs the client that the agent names, in both modes and by itself.
async fn clients(world: &World, server: &Server, engine: Engine) {
    let Engine { protocol, title, flags, statement, answer } = engine;
    world.control.add_database(DB, protocol, &server.uri());
    let out = world.path("out").display().to_string();
    world.configure(&world.proxy(), "", &format!("- {{type: database, service: {DB}, username: alice, database: example, destination: {{type: directory, path: {out}}}}}\n"));
    world.succeeds().await;
    let config = world.path("tbot.yaml").display().to_string();
    let shell = async |line: &str| {
        let mut command = Command::new("sh");
        command.args(["-c", &format!("{line} {flags}")]);
        text(&output(command).await)
    };
    let tunnel = Proxy::start(world, &["-c", &config, "proxy", "db", "--tunnel", DB]);
    let line = tunnel.line().await;
    assert!(line.starts_with(&format!("Started authenticated tunnel for the {title} database {DB:?} ")), "{line}");
    let hint = tunnel.printed().lines().find_map(|line| line.strip_prefix("  $ ").map(str::to_owned)).unwrap();
    assert_eq!(shell(&hint).await, answer, "{hint}");
    let passed = Proxy::start(world, &["-c", &config, "proxy", "db", DB]);
    let port = format!("--port={}", passed.line().await.rsplit(':').next().unwrap());
    let command = output(world.run(&["-c", &config, "db", "config", &port, "--format=cmd", DB])).await;
    let command = String::from_utf8(command.stdout).unwrap();
    assert!(command.contains("/tlscert "), "{command}");
    assert_eq!(shell(command.trim_end()).await, answer, "{command}");
    // By itself, on a socket that only this user reaches; what to do is read from the standard input.
    let script = world.path("script");
    std::fs::write(&script, format!("{statement}\n")).unwrap();
    let mut connect = world.run(&["-c", &config, "db", "connect", DB]);
    connect.stdin(std::fs::File::open(script).unwrap());
    let connected = text(&output(connect).await);
    assert!(connected.ends_with(answer), "{connected}");
    // Without the cluster each says so in its own words.
    world.control.stop_listening();
    let refused = shell(&hint).await;
    assert!(refused.contains("tbot: proxy localhost:"), "{refused}");
    world.control.start_listening().await.unwrap();
    assert_eq!(shell(&hint).await, answer, "{hint}");
    assert_eq!((tunnel.end().await, passed.end().await), (Some(0), Some(0)));
}

#[tokio::test(flavor = "multi_thread")]
async fn mariadb_and_its_client() {
    let world = World::new().await;
    let server = mariadb(&world).await;
    let engine = Engine {
        protocol: "mysql",
        title: "MySQL",
        flags: "--batch --skip-column-names --execute \"select current_user(), database()\"",
        statement: "select current_user(), database()",
        answer: "alice@localhost\texample\n",
    };
    clients(&world, &server, engine).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn redis_and_its_client() {
    let world = World::new().await;
    let server = redis(&world).await;
    let (flags, statement) = ("set key value", "set key value");
    clients(&world, &server, Engine { protocol: "redis", title: "Redis", flags, statement, answer: "OK\n" }).await;
}
