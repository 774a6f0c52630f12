//! The guides, walked in their own order with their own files and commands. Run by root, the agent and its reader are users of their
//! own, as there; run by anybody else, both are that user. Numbers stand for `teleport` and `app`: they need no account.

mod harness;

use std::os::unix::fs::{PermissionsExt, chown};
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Child, Command, Output, Stdio};
use std::time::Duration;

use harness::postgres::{Postgres, psql};
use harness::server::output;
use harness::{APP, TOKEN, World, binary, text, until};
use rustix::process::{Pid, Signal, kill_process};
use stand_in::{Options, Release};

/// The users of the guide: who runs the agent, and who reads.
struct Users {
    teleport: u32,
    app: u32,
    root: bool,
}

impl Users {
    fn new() -> Self {
        let me = rustix::process::geteuid();
        match me.is_root() {
            true => Self { teleport: 4242, app: 4343, root: true },
            false => Self { teleport: me.as_raw(), app: me.as_raw(), root: false },
        }
    }

    /// Behind `tbot init -c FILE`, as the guides have it.
    fn init_flags(&self, directory: &str) -> [String; 8] {
        let group = if self.root { self.teleport } else { rustix::process::getegid().as_raw() };
        let (bot, owner) = (self.teleport.to_string(), format!("{}:{group}", self.teleport));
        let reader = self.app.to_string();
        ["--init-dir", directory, "--bot-user", &bot, "--owner", &owner, "--reader-user", &reader].map(str::to_owned)
    }

    fn run(&self, user: u32, command: &mut Command) {
        if self.root {
            command.uid(user).gid(user);
        }
    }
}

struct Service {
    child: Child,
    log: std::path::PathBuf,
}

impl Service {
    /// Runs the command line of a unit, as its user.
    fn start(world: &World, users: &Users, unit: &str, log: &str) -> Self {
        let line = unit.lines().find_map(|line| line.strip_prefix("ExecStart=")).unwrap();
        let words: Vec<&str> = line.split(' ').collect();
        let log = world.path(log);
        let mut command = Command::new(words[0]);
        command.args(&words[1..]).env_clear().env("TELEPORT_ANONYMOUS_TELEMETRY", "1").current_dir("/");
        command.env("SSL_CERT_FILE", world.path("web-ca.pem")).stdin(Stdio::null());
        command.stdout(Stdio::null()).stderr(std::fs::File::create(&log).unwrap());
        users.run(users.teleport, &mut command);
        Self { child: command.spawn().unwrap(), log }
    }

    fn log(&self) -> String {
        std::fs::read_to_string(&self.log).unwrap()
    }

    fn signal(&self, signal: Signal) {
        kill_process(Pid::from_child(&self.child), signal).unwrap();
    }

    async fn stop(mut self) {
        self.signal(Signal::TERM);
        until("the agent ends", || self.child.try_wait().unwrap().is_some()).await;
        assert_eq!(self.child.wait().unwrap().code(), Some(0), "{}", self.log());
    }
}

impl Drop for Service {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// `tbot` where every user can run it, as `/usr/local/bin/tbot`.
fn installed(world: &World) -> impl Fn(&[&str]) -> Output + use<> {
    let program = world.path("tbot");
    std::fs::hard_link(binary(), &program).or_else(|_| std::fs::copy(binary(), &program).map(drop)).unwrap();
    move |arguments| {
        let output = Command::new(&program).args(arguments).env_clear().output().unwrap();
        assert!(output.status.success(), "tbot {arguments:?}:\n{}", text(&output));
        output
    }
}

/// The step after `tbot init`: the bot's data directory, owned by the user that the agent runs as.
fn data_directory(world: &World, users: &Users) {
    let bot = world.path("var/lib/teleport/bot");
    std::fs::create_dir_all(&bot).unwrap();
    for directory in [&bot, bot.parent().unwrap()] {
        std::fs::set_permissions(directory, PermissionsExt::from_mode(0o711)).unwrap();
    }
    if users.root {
        chown(&bot, Some(users.teleport), Some(users.teleport)).unwrap();
    }
}

/// Writes a guide's file: its cluster and its directories are this world's. Every user may read it.
fn configure(world: &World, version: &str, rest: &str) {
    let (address, pin) = (world.cluster.auth_addr(), world.cluster.ca_pin().unwrap());
    let text = format!(
        "{version}auth_server: \"{address}\"\nonboarding:\n  join_method: \"token\"\n  token: \"{TOKEN}\"\n  ca_pins:\n  - \"{pin}\"\n{rest}"
    );
    let here = |text: String, directory: &str| text.replace(directory, world.path(&directory[1..]).to_str().unwrap());
    let text = here(here(text, "/var/lib/teleport/bot"), "/opt/machine-id");
    let file = world.path("tbot.yaml");
    std::fs::write(&file, text).unwrap();
    std::fs::set_permissions(&file, PermissionsExt::from_mode(0o644)).unwrap();
}

/// `tbot init -c FILE`, as the guides have it.
fn initialize(world: &World, users: &Users, tbot: impl Fn(&[&str]) -> Output) {
    let (file, out) = (world.path("tbot.yaml"), world.path("opt/machine-id"));
    let flags = users.init_flags(out.to_str().unwrap());
    let initialized =
        tbot(&[["init", "-c", file.to_str().unwrap()].as_slice(), &flags.each_ref().map(String::as_str)].concat());
    assert!(text(&initialized).contains("has been initialized"), "{}", text(&initialized));
}

fn readable_by_all(path: &Path) {
    std::fs::set_permissions(path, PermissionsExt::from_mode(0o755)).unwrap();
}

/// Application access, version 14.
#[tokio::test(flavor = "multi_thread")]
async fn application_access() {
    let (world, users) = (World::new().await, Users::new());
    readable_by_all(world.folder.path());
    let tbot = installed(&world);
    let out = world.path("opt/machine-id");
    std::fs::create_dir(out.parent().unwrap()).unwrap();
    let file = world.path("tbot.yaml");
    let config = |more: &str| {
        let rest = format!(
            "storage:\n  type: directory\n  path: /var/lib/teleport/bot\noutputs:\n  - type: application\n    destination:\n      type: directory\n      path: /opt/machine-id\n    app_name: {APP}\n{more}"
        );
        configure(&world, "version: v2\n", &rest);
    };
    config("");
    let file_text = file.to_str().unwrap();
    let bot = users.teleport.to_string();
    let init = || initialize(&world, &users, &tbot);
    init();
    data_directory(&world, &users);

    let unit = tbot(&["install", "systemd", "--config", file_text, "--user", &bot, "--group", &bot]);
    let unit = String::from_utf8(unit.stdout).unwrap();
    let service = Service::start(&world, &users, &unit, "journal");
    // What the guide has the user search the journal for.
    until("the application's line is logged", || {
        service.log().lines().any(|line| line.contains("Generated identity for app") && line.contains(APP))
    })
    .await;
    until("the output is written", || service.log().contains("Generated output.")).await;

    let curl = || {
        let mut command = Command::new("curl");
        command.args(["--silent", "--show-error", "--user", "admin:admin", "--cacert"]).arg(world.path("web-ca.pem"));
        command.arg("--cert").arg(out.join("tlscert")).arg("--key").arg(out.join("key")).current_dir("/");
        command.arg(format!("https://localhost:{}/api/users", world.cluster.proxy_addr().port()));
        users.run(users.app, &mut command);
        command.output().unwrap()
    };
    let answer = curl();
    assert_eq!(String::from_utf8_lossy(&answer.stdout), "hello from the application\n", "{}", text(&answer));
    // The reader reads, and only reads.
    let mut write = Command::new("sh");
    write.arg("-c").arg(format!("echo x >> {}", out.join("key").display())).current_dir("/").stderr(Stdio::null());
    users.run(users.app, &mut write);
    assert!(!users.root || !write.status().unwrap().success(), "the reader could write the key");
    // The note on the local proxy: no certificate is needed there.
    let mut proxy = Command::new(world.path("tbot"));
    let port = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    let address = format!("--proxy=localhost:{}", world.cluster.proxy_addr().port());
    proxy.args([
        "proxy",
        &format!("--destination-dir={}", out.display()),
        &address,
        "app",
        &format!("--port={port}"),
        APP,
    ]);
    proxy
        .env_clear()
        .env("SSL_CERT_FILE", world.path("web-ca.pem"))
        .current_dir("/")
        .stdin(Stdio::null())
        .stdout(Stdio::null());
    users.run(users.app, &mut proxy);
    let log = world.path("proxy-log");
    let proxy = Service { child: proxy.stderr(std::fs::File::create(&log).unwrap()).spawn().unwrap(), log };
    until("the local port is open", || std::net::TcpStream::connect(("127.0.0.1", port)).is_ok()).await;
    let local = format!("http://localhost:{port}/api/users");
    let answer =
        Command::new("curl").args(["--silent", "--show-error", "--user", "admin:admin", &local]).output().unwrap();
    assert_eq!(
        String::from_utf8_lossy(&answer.stdout),
        "hello from the application\n",
        "{}{}",
        text(&answer),
        proxy.log()
    );
    proxy.stop().await;
    service.stop().await;

    // `specific_tls_naming`, `tbot init` again as the guide says, and a restart: no new token is needed.
    config("    specific_tls_naming: true\n");
    init();
    let service = Service::start(&world, &users, &unit, "journal-2");
    until("the output is written again", || service.log().contains("Generated output.")).await;
    for (name, same) in [("tls.crt", "tlscert"), ("tls.key", "key")] {
        assert_eq!(std::fs::read(out.join(name)).unwrap(), std::fs::read(out.join(same)).unwrap(), "{name}");
    }
    assert_eq!(String::from_utf8_lossy(&curl().stdout), "hello from the application\n");
    service.stop().await;
}

/// Database access, version 12: two units, and a configuration of the first schema.
#[tokio::test(flavor = "multi_thread")]
async fn database_access() {
    let session_tick = Duration::from_millis(200);
    let world = World::with(Options { release: Release::V12, session_tick, ..Options::default() }).await;
    let (users, postgres) = (Users::new(), Postgres::start(&world.control, 20).await);
    world.control.add_database("example-server", "postgres", &postgres.uri());
    readable_by_all(world.folder.path());
    let tbot = installed(&world);
    let out = world.path("opt/machine-id");
    std::fs::create_dir(out.parent().unwrap()).unwrap();
    let file = world.path("tbot.yaml");
    let config = |template: &str| {
        let rest = format!(
            "storage:\n  directory: /var/lib/teleport/bot\ndestinations:\n  - directory: /opt/machine-id\n    database:\n      service: example-server\n      username: alice\n      database: example\n    # If using MongoDB, be sure to include the Mongo-formatted certificates:\n    configs:\n      - {template}\n"
        );
        configure(&world, "", &rest);
    };
    config("mongo");
    let (file_text, out_text) = (file.to_str().unwrap(), out.to_str().unwrap());
    let init = || initialize(&world, &users, &tbot);
    init();
    data_directory(&world, &users);

    // Its units; both are started at once, so the second finds nothing at first.
    let program = world.path("tbot").display().to_string();
    let agent = format!("[Service]\nExecStart={program} start -c {file_text}\n");
    let port = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    let through = |more: &str| {
        format!(
            "[Service]\nExecStart={program} -c {file_text} proxy --destination-dir={out_text} db{more} --port={port} example-server\n"
        )
    };
    let proxy = Service::start(&world, &users, &through(""), "proxy-journal");
    let mut service = Service::start(&world, &users, &agent, "journal");
    let open = || std::net::TcpStream::connect(("127.0.0.1", port)).is_ok();
    until("the local port is open", open).await;

    // The application, with the parameters of the example programs.
    let own = world.path("own");
    std::fs::create_dir(&own).unwrap();
    chown(&own, users.root.then_some(users.app), users.root.then_some(users.app)).unwrap();
    // The example programs take the key as it is. `psql` wants it to be its own alone, and reads an access list as a group's right.
    let query = async |more: &str, key: &Path| {
        let mut copy = Command::new("install");
        copy.args(["-m", "600"]).arg(key).arg(own.join("key"));
        users.run(users.app, &mut copy);
        assert!(copy.status().unwrap().success(), "the reader can read {}", key.display());
        let connection = format!("host=localhost port={port} dbname=example user=alice {more}");
        let mut psql = psql(&[&connection, "-c", "select 'Successfully connected to PostgreSQL.'"]);
        psql.current_dir("/").env("HOME", &own);
        users.run(users.app, &mut psql);
        output(psql).await
    };
    let verified = |authority: &str, certificate: &str| {
        let [authority, certificate] = [authority, certificate].map(|name| out.join(name).display().to_string());
        let key = own.join("key").display().to_string();
        format!("sslmode=verify-full sslrootcert={authority} sslkey={key} sslcert={certificate}")
    };
    let connected = |answer: &Output| assert!(text(answer).contains("Successfully connected"), "{}", text(answer));
    connected(&query(&verified("teleport-host-ca.crt", "tlscert"), &out.join("key")).await);
    if users.root {
        let shared = verified("teleport-host-ca.crt", "tlscert").replace("/own/key", "/opt/machine-id/key");
        let refused = query(&shared, &out.join("key")).await;
        assert!(text(&refused).contains("has group or world access"), "{}", text(&refused));
    }
    let mut connect = Command::new(world.path("tbot"));
    connect.args(["-c", file_text, "db", "--destination-dir", out_text, "connect", "example-server"]).env_clear();
    connect.env("PATH", std::env::var_os("PATH").unwrap()).env("SSL_CERT_FILE", world.path("web-ca.pem"));
    let script = world.path("script.sql");
    std::fs::write(&script, "select 'Successfully connected to PostgreSQL.';\n").unwrap();
    connect.current_dir("/").stdin(std::fs::File::open(script).unwrap());
    users.run(users.app, &mut connect);
    connected(&output(connect).await);
    // The authority that the guide names is not the one that a cluster's proxy shows (recorded: they differ).
    let other = query(&verified("teleport-database-ca.crt", "tlscert"), &out.join("key")).await;
    assert!(text(&other).contains("certificate verify failed"), "{}", text(&other));
    // `systemctl reload` of both.
    let (before, sets) = (world.read("opt/machine-id/tlscert"), || service.log().matches("Generated output.").count());
    let made = sets();
    for unit in [&service, &proxy] {
        unit.signal(Signal::HUP);
    }
    // Files are moved one after another: the log tells when all of them are there.
    until("the whole set is renewed", || sets() > made && world.read("opt/machine-id/tlscert") != before).await;
    connected(&query(&verified("teleport-host-ca.crt", "tlscert"), &out.join("key")).await);
    proxy.stop().await;

    // Its table of templates, one after another: `tbot init` again, and a restart.
    assert!(harness::names(&out).contains(&"mongo.cas".to_owned()));
    for (template, files, journal) in [
        ("cockroach", ["cockroach/ca.crt", "cockroach/node.crt", "cockroach/node.key"], "journal-cockroach"),
        ("tls", ["tls.cas", "tls.crt", "tls.key"], "journal-tls"),
    ] {
        service.stop().await;
        config(template);
        init();
        service = Service::start(&world, &users, &agent, journal);
        until("the output is written again", || service.log().contains("Generated output.")).await;
        let proxy = Service::start(&world, &users, &through(""), "proxy-journal");
        until("the local port is open", open).await;
        let [_, certificate, key] = files;
        connected(&query(&verified("teleport-host-ca.crt", certificate), &out.join(key)).await);
        proxy.stop().await;
    }
    // The note on `--tunnel`: no certificate is needed.
    let proxy = Service::start(&world, &users, &through(" --tunnel"), "proxy-journal");
    until("the local port is open", open).await;
    connected(&query("", &out.join("key")).await);
    proxy.stop().await;
    service.stop().await;
}
