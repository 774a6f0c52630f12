//! The guides, walked in their own order with their own files and commands. Run by root, the agent and its reader are users of their
//! own, as there; run by anybody else, both are that user. Numbers stand for `teleport` and `app`: they need no account.

mod harness;

use std::os::unix::fs::{PermissionsExt, chown};
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Child, Command, Output, Stdio};

use harness::{APP, TOKEN, World, binary, text, until};

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
        command.stderr(std::fs::File::create(&log).unwrap());
        users.run(users.teleport, &mut command);
        Self { child: command.spawn().unwrap(), log }
    }

    fn log(&self) -> String {
        std::fs::read_to_string(&self.log).unwrap()
    }

    async fn stop(mut self) {
        rustix::process::kill_process(rustix::process::Pid::from_child(&self.child), rustix::process::Signal::TERM)
            .unwrap();
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
        let text = format!(
            "version: v2\nauth_server: \"{}\"\nonboarding:\n  join_method: \"token\"\n  token: \"{TOKEN}\"\n  ca_pins:\n  - \"{}\"\nstorage:\n  type: directory\n  path: {}\noutputs:\n  - type: application\n    destination:\n      type: directory\n      path: {}\n    app_name: {APP}\n{more}",
            world.cluster.auth_addr(),
            world.cluster.ca_pin().unwrap(),
            world.path("var/lib/teleport/bot").display(),
            out.display(),
        );
        std::fs::write(&file, text).unwrap();
        std::fs::set_permissions(&file, PermissionsExt::from_mode(0o644)).unwrap();
    };
    config("");
    let (file_text, out_text) = (file.to_str().unwrap(), out.to_str().unwrap());
    let (bot, owner) = (users.teleport.to_string(), format!("{0}:{0}", users.teleport));
    let owner = if users.root { owner } else { format!("{bot}:{}", rustix::process::getegid().as_raw()) };
    let reader = users.app.to_string();
    let init = || {
        let flags = ["--init-dir", out_text, "--bot-user", &bot, "--owner", &owner, "--reader-user", &reader];
        tbot(&[["init", "-c", file_text].as_slice(), &flags].concat())
    };
    let initialized = init();
    assert!(text(&initialized).contains("has been initialized"), "{}", text(&initialized));
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
