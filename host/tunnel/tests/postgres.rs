//! A real PostgreSQL behind a tunnel: what `psql` and `pgbench` see.

mod proxy;

use std::fs::Permissions;
use std::net::{Ipv4Addr, SocketAddr};
use std::os::unix::fs::{MetadataExt, PermissionsExt, chown};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::sync::Arc;
use std::time::{Duration, Instant};

use proxy::{Files, LONG, Proxy, Service, soon};
use tempfile::TempDir;
use tokio::sync::oneshot;
use tunnel::{Listen, Mode, Target, Tunnel};

const HOUR: i64 = 3600;

/// A server that demands TLS with a certificate for the user, or none of both from a proxy that has looked at it.
struct Postgres {
    folder: TempDir,
    server: Child,
    address: SocketAddr,
}

impl Postgres {
    async fn start(proxy: &Proxy) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let data = folder.path().join("data");
        let free = std::net::TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap().local_addr().unwrap();
        for (name, bytes) in proxy.certificate("localhost", &[], HOUR) {
            write(&folder, name, &bytes);
        }
        write(&folder, "authority.pem", proxy.authority().as_bytes());
        let owner = owner(folder.path());
        chown(folder.path(), Some(owner), None).unwrap();
        let run = |program: &str, arguments: &[&str]| {
            let mut command = Command::new(programs().join(program));
            command.uid(owner).current_dir(folder.path()).args(arguments).stdin(Stdio::null()).stdout(Stdio::null());
            command
        };
        let made = run("initdb", &["-D", "data", "--auth=trust", "--no-sync", "--username=alice"]).output().unwrap();
        assert!(made.status.success(), "{}", text(&made));
        let rules = "hostssl all all 127.0.0.1/32 cert\nhostnossl all all 127.0.0.1/32 trust\n";
        std::fs::write(data.join("pg_hba.conf"), rules).unwrap();
        let settings = format!(
            "port={}\nlisten_addresses='127.0.0.1'\nunix_socket_directories=''\nfsync=off\nmax_connections=200\n\
             ssl=on\nssl_cert_file='../tlscert'\nssl_key_file='../key'\nssl_ca_file='../authority.pem'\n",
            free.port()
        );
        std::fs::write(data.join("postgresql.conf"), settings).unwrap();
        let log = std::fs::File::create(folder.path().join("log")).unwrap();
        let server = run("postgres", &["-D", "data"]).stderr(log).spawn().unwrap();
        let postgres = Self { folder, server, address: free };
        let started = Instant::now();
        while !postgres.psql(free.port(), "sslmode=disable", "select 1").await.status.success() {
            let log = std::fs::read_to_string(postgres.folder.path().join("log")).unwrap();
            assert!(started.elapsed() < LONG, "{log}");
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        postgres
    }

    async fn psql(&self, port: u16, more: &str, query: &str) -> Output {
        let connection = format!("host=localhost hostaddr=127.0.0.1 port={port} user=alice dbname=postgres {more}");
        let mut command = Command::new("psql");
        command.env_clear().args(["-AtX", "-c", query, &connection]).env("HOME", self.folder.path());
        tokio::task::spawn_blocking(move || command.output().unwrap()).await.unwrap()
    }

    async fn pgbench(&self, port: u16, arguments: &[&str]) -> Output {
        let mut command = Command::new(programs().join("pgbench"));
        command.env_clear().args(arguments).env("PGSSLMODE", "disable").env("PGPORT", port.to_string());
        command.args(["-h", "127.0.0.1", "-U", "alice", "postgres"]);
        tokio::task::spawn_blocking(move || command.output().unwrap()).await.unwrap()
    }

    /// What `psql` needs to show a certificate of its own, and to see whom it speaks to.
    fn own_tls(&self, files: [(&'static str, Vec<u8>); 3]) -> String {
        for (name, bytes) in files {
            let path = self.folder.path().join(format!("client-{name}"));
            std::fs::write(&path, bytes).unwrap();
            std::fs::set_permissions(&path, Permissions::from_mode(0o600)).unwrap();
        }
        let [root, certificate, key] = ["authority.pem", "client-tlscert", "client-key"]
            .map(|name| self.folder.path().join(name).display().to_string());
        format!("sslmode=verify-full sslrootcert={root} sslcert={certificate} sslkey={key}")
    }
}

impl Drop for Postgres {
    fn drop(&mut self) {
        // The children of the server end with it.
        let _ = Command::new("kill").args(["-INT", &self.server.id().to_string()]).status();
        let _ = self.server.wait();
    }
}

fn write(folder: &TempDir, name: &str, bytes: &[u8]) {
    let path = folder.path().join(name);
    std::fs::write(&path, bytes).unwrap();
    std::fs::set_permissions(&path, Permissions::from_mode(0o600)).unwrap();
    chown(&path, Some(owner(folder.path())), None).unwrap();
}

/// The server refuses to run as root: then it is the user that its package made.
fn owner(folder: &Path) -> u32 {
    let own = std::fs::metadata(folder).unwrap().uid();
    if own != 0 {
        return own;
    }
    let users = std::fs::read_to_string("/etc/passwd").unwrap();
    let line = users.lines().find(|line| line.starts_with("postgres:")).expect("no user postgres");
    line.split(':').nth(2).unwrap().parse().unwrap()
}

/// Where Debian puts the server's programs.
fn programs() -> PathBuf {
    let versions = std::fs::read_dir("/usr/lib/postgresql").expect("apt-get install postgresql");
    let newest = versions.map(|entry| entry.unwrap().path()).max().expect("apt-get install postgresql");
    newest.join("bin")
}

fn text(output: &Output) -> String {
    String::from_utf8_lossy(&[output.stdout.as_slice(), &output.stderr].concat()).into_owned()
}

fn certificate(proxy: &Proxy, generation: u32) -> [(&'static str, Vec<u8>); 3] {
    let generation = generation.to_string();
    proxy.certificate("alice", &[(&[2, 1], "example"), (&[2, 2], "postgres"), (&[1, 14], &generation)], HOUR)
}

/// A tunnel that ends with the sender.
async fn tunnel(proxy: &Proxy, mode: Mode, files: &Arc<Files>) -> (u16, oneshot::Sender<()>) {
    let settings = proxy.settings(Target::Database("example".into()), mode, files);
    let tunnel = soon(Tunnel::open(settings)).await.unwrap();
    let Listen::Tcp(address) = *tunnel.address() else { panic!("no port") };
    let (stop, stopped) = oneshot::channel();
    tokio::spawn(tunnel.serve(async {
        let _ = stopped.await;
    }));
    (address.port(), stop)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn psql_in_both_modes_cancels_and_survives_a_proxy_that_comes_back() {
    let mut proxy = Proxy::start().await;
    let postgres = Postgres::start(&proxy).await;
    proxy.set(Service::Forward(postgres.address));
    let files = Arc::new(Files::default());
    files.put(certificate(&proxy, 1));
    let (tunnelled, _stop) = tunnel(&proxy, Mode::Authenticated, &files).await;
    let (passed, _stop) = tunnel(&proxy, Mode::Passthrough, &files).await;
    // Nothing private in its subject: PostgreSQL cannot name what it does not know.
    let own = postgres.own_tls(proxy.certificate("alice", &[], HOUR));
    // The looks at the beginning.
    proxy.seen();
    let who = "select current_user, coalesce((select client_dn like '%CN=alice%' from pg_stat_ssl where pid = pg_backend_pid()), false)";
    // Encryption preferred, as it is without a word, and encryption refused.
    for (port, more, answer) in
        [(tunnelled, "", "alice|f\n"), (tunnelled, "sslmode=disable", "alice|f\n"), (passed, &own, "alice|t\n")]
    {
        let output = postgres.psql(port, more, who).await;
        assert_eq!(String::from_utf8_lossy(&output.stdout), answer, "{}", text(&output));
        let users: Vec<_> = proxy.seen().into_iter().map(|seen| seen.user).collect();
        assert_eq!(users, [if port == tunnelled { "alice" } else { "" }]);
    }
    for (port, more) in [(tunnelled, "sslmode=disable"), (passed, &own)] {
        let connection = format!("host=localhost hostaddr=127.0.0.1 port={port} user=alice dbname=postgres {more}");
        let mut command = Command::new("psql");
        command.env_clear().args(["-AtX", "-c", "select pg_sleep(600)", &connection]);
        let query = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
        let pid = query.id().to_string();
        let sleeping =
            "select count(*) from pg_stat_activity where query like 'select pg_sleep%' and wait_event = 'PgSleep'";
        soon(async {
            while postgres.psql(postgres.address.port(), "sslmode=disable", sleeping).await.stdout != b"1\n" {
                tokio::time::sleep(Duration::from_millis(50)).await;
            }
        })
        .await;
        // What Ctrl-C does: `psql` asks the server to cancel, on a connection of its own and without TLS.
        assert!(Command::new("kill").args(["-INT", &pid]).status().unwrap().success());
        let ended = soon(tokio::task::spawn_blocking(|| query.wait_with_output().unwrap())).await.unwrap();
        assert!(text(&ended).contains("canceling statement due to user request"), "{}", text(&ended));
    }
    proxy.stop().await;
    let refused = postgres.psql(tunnelled, "", "select 1").await;
    assert!(text(&refused).contains("FATAL:  tbot: "), "{}", text(&refused));
    proxy.restart().await;
    for (port, more) in [(tunnelled, ""), (passed, own.as_str())] {
        let output = postgres.psql(port, more, "select 1").await;
        assert_eq!(output.stdout, b"1\n", "{}", text(&output));
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn pgbench_loses_no_transaction_while_certificates_are_renewed() {
    let proxy = Proxy::start().await;
    let postgres = Postgres::start(&proxy).await;
    proxy.set(Service::Forward(postgres.address));
    let files = Arc::new(Files::default());
    files.put(certificate(&proxy, 0));
    let (port, _stop) = tunnel(&proxy, Mode::Authenticated, &files).await;
    let made = postgres.pgbench(port, &["-i", "-q"]).await;
    assert!(made.status.success(), "{}", text(&made));
    let serials = |proxy: &Proxy| {
        let mut generations: Vec<_> = proxy.seen().into_iter().map(|seen| seen.generation).collect();
        generations.dedup();
        generations
    };
    serials(&proxy);
    // Long connections, then one for every transaction.
    for more in [["-t", "100"].as_slice(), &["-t", "20", "-C"]] {
        let arguments = [&["-n", "-c", "20", "-j", "2"], more].concat();
        let renewing = async {
            for generation in 1.. {
                files.put(certificate(&proxy, generation));
                tokio::time::sleep(Duration::from_millis(100)).await;
            }
        };
        let output = tokio::select! {
            output = postgres.pgbench(port, &arguments) => output,
            () = renewing => unreachable!(),
        };
        let transactions = 20 * more[1].parse::<u32>().unwrap();
        let all = format!("number of transactions actually processed: {transactions}/{transactions}\n");
        assert!(output.status.success() && text(&output).contains(&all), "{}", text(&output));
        let used = serials(&proxy);
        assert!(!more.contains(&"-C") || used.len() > 1, "new connections show new certificates: {used:?}");
    }
}
