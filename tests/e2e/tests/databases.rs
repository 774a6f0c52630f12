//! A real PostgreSQL behind the cluster, and its own clients at the local end.

mod harness;

use std::io::{BufRead, BufReader, Write};
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::time::Duration;

use harness::postgres::{Postgres, programs, psql};
use harness::proxy::Proxy;
use harness::server::output;
use harness::{World, text, until};
use rustix::process::{Pid, Resource, Rlimit, Signal, getrlimit, kill_process, setrlimit};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::sync::Semaphore;

const DB: &str = "example-server";

/// A database on the far side for so many connections, and its output in `out`.
async fn behind(connections: u32) -> (World, Postgres) {
    let world = World::new().await;
    let postgres = Postgres::start(&world.control, connections).await;
    world.control.add_database(DB, "postgres", &postgres.uri());
    let output = format!(
        "- {{type: database, service: {DB}, username: alice, database: example, destination: {{type: directory, path: {}}}}}\n",
        world.path("out").display()
    );
    world.configure(&world.proxy(), "", &output);
    (world, postgres)
}

/// Turns the output into a tunnel inside the daemon; clients find its socket in the folder.
fn inside(world: &World) {
    let file = world.path("tbot.yaml");
    let text = std::fs::read_to_string(&file).unwrap();
    let (head, _) = text.split_once("outputs:").unwrap();
    let socket = world.path(".s.PGSQL.5432");
    let service = format!(
        "services:\n- {{type: database-tunnel, listen: \"unix://{}\", service: {DB}, username: alice, database: example}}\n",
        socket.display()
    );
    std::fs::write(file, format!("{head}{service}")).unwrap();
}

/// What a client says of how it got in: whom the certificate of the proxy names, and where it leads.
const WHO: &str = "select current_user || ' ' || current_database() || ' ' || client_dn from pg_stat_ssl where pid = pg_backend_pid()";

async fn answers(arguments: &[&str]) {
    let output = output(psql(&[arguments, &["-c", WHO]].concat())).await;
    let text = text(&output);
    assert!(text.starts_with("alice example /") && text.contains("/CN=alice"), "{arguments:?}: {text}");
}

/// A local port in both modes, and how clients are told to use it.
struct Ports {
    tunnel: Proxy,
    passed: Proxy,
    /// Connection strings.
    through: [String; 2],
}

impl Ports {
    async fn open(world: &World) -> Self {
        let config = world.path("tbot.yaml").display().to_string();
        let tunnel = Proxy::start(world, &["-c", &config, "proxy", "db", "--tunnel", DB]);
        let passed = Proxy::start(world, &["-c", &config, "proxy", "db", "--port=0", DB]);
        let (title, line) = (tunnel.line().await, passed.line().await);
        assert!(
            title.starts_with(&format!("Started authenticated tunnel for the PostgreSQL database {DB:?} in cluster "))
        );
        let hint = tunnel.printed().lines().find_map(|line| line.strip_prefix("  $ psql ").map(str::to_owned)).unwrap();
        let port = line.strip_prefix("Started DB proxy on 127.0.0.1:").expect(&line);
        let printed = passed.printed();
        let [ca, cert, key] = ["  ca_file=", "  cert_file=", "  key_file="]
            .map(|name| printed.lines().find_map(|line| line.strip_prefix(name)).expect(name));
        let own = format!(
            "host=localhost port={port} dbname=example user=alice sslmode=verify-full sslrootcert={ca} sslcert={cert} sslkey={key}"
        );
        Self { tunnel, passed, through: [hint, own] }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn psql_in_both_modes_while_certificates_change_and_the_proxy_goes_and_comes_back() {
    let (world, postgres) = behind(20).await;
    let daemon = world.daemon();
    let ports = Ports::open(&world).await;
    for through in &ports.through {
        answers(&[through]).await;
        // A session that began before a renewal goes on after it.
        let mut open = psql(&[through]).stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
        let (mut ask, mut hear) = (open.stdin.take().unwrap(), BufReader::new(open.stdout.take().unwrap()).lines());
        let mut exchange = |word: &str| {
            writeln!(ask, "select '{word}';").unwrap();
            tokio::task::block_in_place(|| assert_eq!(hear.next().unwrap().unwrap(), word));
        };
        exchange("before");
        let before = world.read("out/tlscert");
        daemon.signal(Signal::HUP);
        until("the certificate is renewed", || world.read("out/tlscert") != before).await;
        answers(&[through]).await;
        exchange("after");
        drop(ask);
        assert!(open.wait().unwrap().success());
    }
    for through in &ports.through {
        cancelled(&postgres, through).await;
    }
    // What the cluster refuses, and what is not there, is an error that the client shows.
    let shows = async |words: &str| {
        let output = output(psql(&[&ports.through[0], "-c", WHO])).await;
        assert!(text(&output).contains(words), "{}", text(&output));
        assert_eq!(output.status.code(), Some(2));
    };
    world.control.deny_output(DB);
    shows("FATAL:  access to db denied").await;
    world.control.allow_output(DB);
    world.control.stop_listening();
    shows("FATAL:  tbot: proxy localhost:").await;
    assert!(!output(psql(&[&ports.through[1], "-c", WHO])).await.status.success());
    world.control.start_listening().await.unwrap();
    for through in &ports.through {
        answers(&[through]).await;
    }
    let Ports { tunnel, passed, .. } = ports;
    assert_eq!((tunnel.end().await, passed.end().await), (Some(0), Some(0)));
}

/// What Ctrl-C does: `psql` asks the server to cancel, on a connection of its own and without TLS.
async fn cancelled(postgres: &Postgres, through: &str) {
    let mut sleeper = psql(&[through, "-c", "select pg_sleep(600)"]);
    let query = sleeper.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    let sleeping = "select count(*) from pg_stat_activity where wait_event = 'PgSleep'";
    until("the query runs", || postgres.ask(sleeping).as_deref() == Some("1")).await;
    kill_process(Pid::from_child(&query), Signal::INT).unwrap();
    let ended = tokio::task::spawn_blocking(|| query.wait_with_output().unwrap()).await.unwrap();
    assert!(text(&ended).contains("canceling statement due to user request"), "{}", text(&ended));
}

#[tokio::test(flavor = "multi_thread")]
async fn the_commands_around_a_database() {
    let (world, _postgres) = behind(20).await;
    world.succeeds().await;
    let config = world.path("tbot.yaml").display().to_string();
    let run = async |arguments: &[&str]| {
        let output = output(world.run(&[&["-c", &config, "db"], arguments].concat())).await;
        assert!(output.status.success(), "{arguments:?}: {}", text(&output));
        String::from_utf8(output.stdout).unwrap()
    };
    let list = run(&["ls"]).await;
    assert!(list.starts_with("Name ") && list.contains(DB) && list.contains("postgres"), "{list}");
    let json: serde_json::Value = serde_json::from_str(&run(&["ls", "--cluster=x", "--format=json"]).await).unwrap();
    assert_eq!((&json[0]["metadata"]["name"], &json[0]["spec"]["protocol"]), (&DB.into(), &"postgres".into()));
    for (words, found) in [("--search=EXAMPLE", true), ("--search=example,other", false), ("env=none", false)] {
        assert_eq!(run(&["ls", "-v", words]).await.contains(DB), found, "{words}");
    }
    // `connect` runs `psql`, which reads what to do from its standard input and has a status of its own.
    for mode in [["connect", DB].as_slice(), &["connect", "--tunnel", DB]] {
        let mut command = world.run(&[&["-c", &config, "db"], mode, &["--db-roles=reader"]].concat());
        command.env("PGOPTIONS", "-c extra_float_digits=0").stdout(Stdio::piped()).stdin(Stdio::piped());
        let mut client = command.spawn().unwrap();
        let mut ask = client.stdin.take().unwrap();
        writeln!(ask, "\\set ON_ERROR_STOP on\n\\pset tuples_only\n\\pset format unaligned\n{WHO};\nselect 1/0;")
            .unwrap();
        drop(ask);
        let ended = tokio::task::spawn_blocking(|| client.wait_with_output().unwrap()).await.unwrap();
        assert!(text(&ended).contains("alice example /"), "{}", text(&ended));
        assert_eq!(ended.status.code(), Some(3), "a script that failed, as psql says it");
    }
    // Ended from outside, it takes its client along, and leaves no socket.
    let places = world.path("places");
    std::fs::create_dir(&places).unwrap();
    let mut command = world.run(&["-c", &config, "db", "connect"]);
    command.env("TMPDIR", &places).stdin(Stdio::piped()).stdout(Stdio::piped());
    let mut client = command.spawn().unwrap();
    let mut ask = client.stdin.take().unwrap();
    let mut hear = BufReader::new(client.stdout.take().unwrap());
    writeln!(ask, "\\echo connected").unwrap();
    tokio::task::block_in_place(|| assert_eq!(hear.read_line(&mut String::new()).unwrap(), "connected\n".len()));
    kill_process(Pid::from_child(&client), Signal::TERM).unwrap();
    // The client has the pipe's other end too.
    tokio::task::block_in_place(|| assert_eq!(hear.read_line(&mut String::new()).unwrap(), 0));
    assert_eq!(client.wait().unwrap().code(), Some(128 + 15));
    assert_eq!(harness::names(&places), [""; 0]);
    // `env` and `config` lead clients straight to the proxy, or to the port that `proxy db` opens. The certificate knows the name.
    let straight: serde_json::Value = serde_json::from_str(&run(&["config", "-f", "json"]).await).unwrap();
    assert_eq!((&straight["name"], &straight["host"]), (&DB.into(), &"localhost".into()));
    assert_eq!(straight["port"], world.cluster.proxy_addr().port(), "a number, as scripts know it");
    let proxy = Proxy::start(&world, &["-c", &config, "proxy", "db", "--labels=env=lab"]);
    let line = proxy.line().await;
    let port = format!("--port={}", line.rsplit(':').next().unwrap());
    let json: serde_json::Value = serde_json::from_str(&run(&["env", &port, "-f", "yaml", DB]).await).unwrap();
    assert_eq!((&json["PGUSER"], &json["PGSSLMODE"]), (&"alice".into(), &"verify-full".into()));
    let variables = run(&["env", &port, DB]).await;
    let mut shell = Command::new("sh");
    shell.args(["-c", &format!("{variables}exec psql -AtX -c \"$0\""), WHO]);
    let answer = text(&output(shell).await);
    assert!(answer.starts_with("alice example /"), "{answer}");
    let mut shell = Command::new("sh");
    shell.args([
        "-c",
        &format!("{} -AtX -c \"$0\"", run(&["config", &port, "--format=cmd", DB]).await.trim_end()),
        WHO,
    ]);
    let answer = text(&output(shell).await);
    assert!(answer.starts_with("alice example /"), "{answer}");
    assert_eq!(proxy.end().await, Some(0));
}

/// `pgbench` on a socket of the daemon, which gets a new certificate every half second.
#[tokio::test(flavor = "multi_thread")]
async fn no_transaction_fails_while_certificates_are_renewed() {
    let (world, _postgres) = behind(50).await;
    inside(&world);
    let daemon = world.daemon();
    let socket = world.path(".s.PGSQL.5432");
    until("the socket is there", || std::os::unix::net::UnixStream::connect(&socket).is_ok()).await;
    let folder = world.folder.path().to_str().unwrap().to_owned();
    answers(&["-h", &folder, "-U", "alice", "example"]).await;
    let pgbench = |arguments: &[&str]| {
        let mut command = Command::new(programs().join("pgbench"));
        command.args(["-h", &folder, "-U", "alice"]).args(arguments).arg("example");
        output(command)
    };
    let made = pgbench(&["-i", "-q"]).await;
    assert!(made.status.success(), "{}", text(&made));
    let renewing = async {
        loop {
            daemon.signal(Signal::HUP);
            tokio::time::sleep(Duration::from_millis(500)).await;
        }
    };
    let renewals = || daemon.log().matches("Generated output.").count();
    let transactions = async {
        // Long connections, then one for every transaction: counted, since a clock says nothing of what a loaded machine gets done.
        for (more, transactions) in [(["-t", "50"].as_slice(), 1000), (&["-t", "5", "-C"], 100)] {
            let before = renewals();
            while renewals() < before + 2 {
                let all = text(&pgbench(&[&["-n", "-c", "20", "-j", "2"], more].concat()).await);
                let done = format!("number of transactions actually processed: {transactions}/{transactions}\n");
                assert!(all.contains(&done) && all.contains("number of failed transactions: 0 (0.000%)"), "{all}");
            }
        }
    };
    tokio::select! {
        () = transactions => {}
        () = renewing => unreachable!(),
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_thousand_connections_at_a_time() {
    const MANY: u32 = 1000;
    // Three ends of each connection are in this process.
    let Rlimit { maximum, .. } = getrlimit(Resource::Nofile);
    setrlimit(Resource::Nofile, Rlimit { current: maximum, maximum }).unwrap();
    let (world, postgres) = behind(MANY).await;
    let _daemon = world.daemon();
    let config = world.path("tbot.yaml").display().to_string();
    let proxy = Proxy::start(&world, &["-c", &config, "proxy", "db", "--tunnel", DB]);
    let line = proxy.line().await;
    let address = line.rsplit(' ').next().unwrap().trim_end_matches('.').to_owned();
    let mut opening = tokio::task::JoinSet::new();
    // So many handshakes at once that the last is not given up on a slow machine; open they stay.
    let handshakes = Arc::new(Semaphore::new(20));
    for _ in 0..MANY {
        let (address, handshakes) = (address.clone(), handshakes.clone());
        opening.spawn(async move {
            let _turn = handshakes.acquire().await.unwrap();
            let mut client = TcpStream::connect(address).await.unwrap();
            let start = b"\0\x03\0\0user\0alice\0database\0example\0\0";
            client.write_u32(start.len() as u32 + 4).await.unwrap();
            client.write_all(start).await.unwrap();
            ready(&mut client).await;
            client
        });
    }
    let mut clients = opening.join_all().await;
    let count = "select count(*) from pg_stat_activity where usename = 'alice'";
    assert_eq!(postgres.ask(count), Some(MANY.to_string()));
    for client in &mut clients {
        let query = b"select 1\0";
        client.write_u8(b'Q').await.unwrap();
        client.write_u32(query.len() as u32 + 4).await.unwrap();
        client.write_all(query).await.unwrap();
    }
    for client in &mut clients {
        ready(client).await;
    }
    drop(clients);
    until("every session ends", || postgres.ask(count).as_deref() == Some("0")).await;
    assert_eq!(proxy.end().await, Some(0));
}

/// Reads messages until the server waits for a query.
async fn ready(client: &mut TcpStream) {
    loop {
        let kind = client.read_u8().await.unwrap();
        let length = client.read_u32().await.unwrap() as usize - 4;
        let mut body = vec![0; length];
        client.read_exact(&mut body).await.unwrap();
        match kind {
            b'E' => panic!("{}", String::from_utf8_lossy(&body)),
            b'Z' => return,
            _ => {}
        }
    }
}
