//! A stand-in cluster with one bot and one application, and the built `tbot` run against it.

// Each test program uses a part of it.
#![allow(dead_code)]

pub mod postgres;
pub mod proxy;
pub mod server;

use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::time::{Duration, Instant};

use stand_in::{Control, Greeter, Options, Release, StandIn};
use tempfile::TempDir;

pub const TOKEN: &str = "s3cret-token-0123456789abcdef";
pub const APP: &str = "grafana-example";

pub struct World {
    pub cluster: StandIn,
    pub control: Control,
    pub folder: TempDir,
    _app: Greeter,
}

impl World {
    pub async fn new() -> Self {
        Self::with(Options { session_tick: Duration::from_millis(200), ..Options::default() }).await
    }

    pub async fn newest() -> Self {
        let session_tick = Duration::from_millis(200);
        Self::with(Options { release: Release::Newest, session_tick, ..Options::default() }).await
    }

    pub async fn with(options: Options) -> Self {
        let cluster = StandIn::start(options).await.unwrap();
        let control = cluster.control();
        let app = Greeter::start("hello from the application\n").await.unwrap();
        control.add_app(APP, "grafana.localhost", &app.uri());
        control.add_bot_token(TOKEN, "robot", &["machine"]);
        let folder = tempfile::tempdir().unwrap();
        std::fs::write(folder.path().join("web-ca.pem"), cluster.web_ca_pem()).unwrap();
        Self { cluster, control, folder, _app: app }
    }

    pub fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    pub fn read(&self, name: &str) -> String {
        std::fs::read_to_string(self.path(name)).unwrap_or_else(|e| panic!("{name}: {e}"))
    }

    pub fn auth(&self) -> String {
        format!("auth_server: {}", self.cluster.auth_addr())
    }

    pub fn proxy(&self) -> String {
        format!("proxy_server: localhost:{}", self.cluster.proxy_addr().port())
    }

    pub fn pin(&self) -> String {
        format!("ca_pins: [{}]", self.cluster.ca_pin().unwrap())
    }

    /// An application output that writes into `out`.
    pub fn output(&self, app: &str, out: &str) -> String {
        format!(
            "- {{type: application, app_name: {app}, destination: {{type: directory, path: {}}}}}\n",
            self.path(out).display()
        )
    }

    /// Writes `tbot.yaml`: server line, more onboarding lines, outputs.
    pub fn configure(&self, server: &str, onboarding: &str, outputs: &str) {
        let store = self.path("store");
        let text = format!(
            "version: v2\n{server}\nonboarding:\n  join_method: token\n  token: {TOKEN}\n  {onboarding}\nstorage: {{type: directory, path: {}}}\noutputs:\n{outputs}",
            store.display()
        );
        std::fs::write(self.path("tbot.yaml"), text).unwrap();
    }

    pub fn tbot(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(binary());
        command.arg("start").arg("-c").arg(self.path("tbot.yaml")).args(arguments).env_clear();
        command.env("PATH", std::env::var_os("PATH").unwrap_or_default()).env("SSL_CERT_FILE", self.path("web-ca.pem"));
        command.stdin(Stdio::null());
        command
    }

    /// Runs one pass. What it prints is checked for secrets, always.
    pub async fn oneshot(&self) -> Output {
        let mut command = self.tbot(&["--oneshot"]);
        let output = tokio::task::spawn_blocking(move || command.output().unwrap()).await.unwrap();
        let text = text(&output);
        assert!(!text.contains(TOKEN) && !text.contains("PRIVATE KEY"), "a secret was printed:\n{text}");
        assert!(output.stdout.is_empty(), "the log goes to stderr");
        output
    }

    pub async fn succeeds(&self) -> String {
        let output = self.oneshot().await;
        assert_eq!(output.status.code(), Some(0), "{}", text(&output));
        text(&output)
    }

    /// Fails with exit status 1 and returns the message behind `ERROR: `.
    pub async fn fails(&self) -> String {
        let output = self.oneshot().await;
        let text = text(&output);
        assert_eq!(output.status.code(), Some(1), "{text}");
        let at = text.find("ERROR: ").unwrap_or_else(|| panic!("no ERROR line:\n{text}"));
        text[at + 7..].trim_end().to_owned()
    }

    /// What `curl` gets from the application with the files in `out`.
    pub async fn curl(&self, out: &str) -> Output {
        let mut command = Command::new("curl");
        command.args(["--silent", "--show-error", "--fail", "--cacert"]).arg(self.path("web-ca.pem"));
        command.arg("--cert").arg(self.path(out).join("tlscert")).arg("--key").arg(self.path(out).join("key"));
        command.arg(format!("https://localhost:{}/", self.cluster.proxy_addr().port()));
        tokio::task::spawn_blocking(move || command.output().unwrap()).await.unwrap()
    }

    pub async fn app_answers(&self, out: &str) {
        let output = self.curl(out).await;
        assert_eq!(String::from_utf8_lossy(&output.stdout), "hello from the application\n", "{}", text(&output));
    }

    pub fn daemon(&self) -> Daemon {
        self.daemon_with(&[])
    }

    pub fn daemon_with(&self, arguments: &[&str]) -> Daemon {
        let log = self.path("daemon.log");
        let file = std::fs::File::create(&log).unwrap();
        Daemon { child: self.tbot(arguments).stderr(file).spawn().unwrap(), log }
    }
}

pub struct Daemon {
    child: Child,
    log: PathBuf,
}

impl Daemon {
    pub fn log(&self) -> String {
        std::fs::read_to_string(&self.log).unwrap()
    }

    pub fn signal(&self, signal: rustix::process::Signal) {
        let pid = rustix::process::Pid::from_child(&self.child);
        rustix::process::kill_process(pid, signal).unwrap();
    }

    pub fn id(&self) -> u32 {
        self.child.id()
    }

    pub fn running(&mut self) -> bool {
        self.child.try_wait().unwrap().is_none()
    }

    /// Waits for its end; returns the exit status.
    pub async fn ended(&mut self) -> Option<i32> {
        until("the daemon ends", || self.child.try_wait().unwrap().is_some()).await;
        self.child.wait().unwrap().code()
    }
}

impl Drop for Daemon {
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("{}", self.log());
        }
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Waits until `holds`; two minutes are more than anything here takes on a machine that has ten times as much to do.
pub async fn until(what: &str, mut holds: impl FnMut() -> bool) {
    let started = Instant::now();
    while !holds() {
        assert!(started.elapsed() < Duration::from_secs(120), "timed out waiting: {what}");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

pub fn text(output: &Output) -> String {
    String::from_utf8_lossy(&[output.stdout.as_slice(), &output.stderr].concat()).into_owned()
}

/// The folder of the built programs: this test lies in its `deps`.
fn built() -> PathBuf {
    std::env::current_exe().unwrap().ancestors().nth(2).unwrap().to_owned()
}

pub fn binary() -> PathBuf {
    let binary = built().join("tbot");
    assert!(binary.is_file(), "run `cargo build -p tbot` first, or `cargo xtask test`");
    binary
}

/// The example plugin, built by `cargo xtask plugins`.
pub fn example_plugin() -> PathBuf {
    let plugin = built().parent().unwrap().join("plugins-examples/rust_properties.wasm");
    assert!(plugin.is_file(), "run `cargo xtask plugins` first, or `cargo xtask test`");
    plugin
}

pub fn names(folder: &Path) -> Vec<String> {
    let mut names: Vec<_> = std::fs::read_dir(folder)
        .map(|entries| entries.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect())
        .unwrap_or_default();
    names.sort();
    names
}
