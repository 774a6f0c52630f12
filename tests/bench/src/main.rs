//! Measures the release build against the stand-in cluster: `cargo xtask bench`. Figures are medians; quote them with the machine.

mod tunnel;

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use identity::{Authorities, KeyAlgorithm, Material, Output, PrivateKey, TlsCertificate};
use nix::sys::resource::{Resource, UsageWho, getrlimit, getrusage, setrlimit};
use sandbox::{Engine, Grants, Kind, OutputPlugin};
use stand_in::{Greeter, Options, StandIn, Token};

/// Runs of each case; the median is printed.
const RUNS: usize = 5;
/// How long the idle daemon is left alone before it is looked at.
const IDLE: Duration = Duration::from_secs(3);
/// Calls of one plugin.
const CALLS: usize = 2000;

fn main() -> Result<()> {
    let arguments: Vec<_> = std::env::args_os().skip(1).collect();
    match arguments.split_first() {
        Some((word, command)) if word == "--measure" => measure(command),
        Some((word, _)) if word == "tunnel" => tokio::runtime::Runtime::new()?.block_on(bench(false)),
        _ => tokio::runtime::Runtime::new()?.block_on(bench(true)),
    }
}

/// Runs one command and prints wall ms, CPU ms and peak RSS KiB: the process that did it, so that nothing else is counted.
fn measure(command: &[std::ffi::OsString]) -> Result<()> {
    let (program, arguments) = command.split_first().context("nothing to measure")?;
    let started = Instant::now();
    let status = Command::new(program).args(arguments).stderr(Stdio::null()).status()?;
    let wall = started.elapsed().as_millis();
    ensure!(status.success(), "the measured command failed with {status}");
    let usage = getrusage(UsageWho::RUSAGE_CHILDREN)?;
    let cpu = [usage.user_time(), usage.system_time()].map(|time| time.tv_sec() * 1000 + time.tv_usec() / 1000);
    println!("{wall} {} {}", cpu[0] + cpu[1], usage.max_rss());
    Ok(())
}

async fn bench(all: bool) -> Result<()> {
    // The application behind the tunnel and three ends of its connections are in this process.
    let (_, most) = getrlimit(Resource::RLIMIT_NOFILE)?;
    setrlimit(Resource::RLIMIT_NOFILE, most, most)?;
    let tbot = std::env::current_exe()?.with_file_name("tbot");
    let size = std::fs::metadata(&tbot).context("build it first: cargo xtask build")?.len();
    println!("binary                     {:>8.1} MB", size as f64 / 1e6);
    let world = World::start().await?;
    if all {
        renewals(&world, &tbot).await?;
    }
    let out = world.tunnelled(&tbot).await?;
    // It blocks; the cluster goes on beside it.
    tokio::task::spawn_blocking(move || tunnel::tunnel(&world, &tbot, &out)).await?
}

async fn renewals(world: &World, tbot: &Path) -> Result<()> {
    println!("\none-shot, restarted        wall ms   CPU ms  peak RSS MiB");
    for (name, applications, databases) in
        [("1 application", 1, 0), ("1 database", 0, 1), ("8 mixed", 4, 4), ("200 mixed", 100, 100)]
    {
        let config = world.configure(name, applications, databases)?;
        let mut runs = Vec::new();
        for run in 0..if applications + databases > 100 { 2 } else { RUNS + 1 } {
            let figures = world.oneshot(tbot, &config).await?;
            // The first one joins.
            if run > 0 {
                runs.push(figures);
            }
        }
        let median = |of: fn(&[f64; 3]) -> f64| {
            let mut all: Vec<_> = runs.iter().map(of).collect();
            all.sort_by(f64::total_cmp);
            all[all.len() / 2]
        };
        println!("{name:<24} {:>9.0} {:>8.0} {:>13.1}", median(|r| r[0]), median(|r| r[1]), median(|r| r[2]) / 1024.0);
    }
    let config = world.configure("8 mixed", 4, 4)?;
    println!("\nidle daemon, 8 outputs     {:>8.1} MiB RSS", world.idle(tbot, &config).await?);
    println!("one isolated plugin call   {:>8.1} µs (render, store to drop, median of {CALLS})", plugin_call().await?);
    Ok(())
}

struct World {
    cluster: StandIn,
    folder: tempfile::TempDir,
    _app: Greeter,
}

impl World {
    async fn start() -> Result<Self> {
        let cluster = StandIn::start(Options::default()).await?;
        let app = Greeter::start("hello\n").await?;
        let control = cluster.control();
        control.add_app("grafana-example", "grafana.localhost", &app.uri());
        control.add_app(tunnel::APP, "echo.localhost", &format!("tcp://{}", tunnel::application()?));
        control.add_database("example-server", "postgres", "localhost:5432");
        control.add_token(Token {
            name: "bench-token".into(),
            bot: "bench".into(),
            roles: vec!["machine".into()],
            ..Token::default()
        });
        let folder = tempfile::tempdir()?;
        std::fs::write(folder.path().join("web-ca.pem"), cluster.web_ca_pem())?;
        Ok(Self { cluster, folder, _app: app })
    }

    /// The bundled outputs do not include `database` yet: an identity output asks for a certificate without a session, as a database does.
    fn configure(&self, name: &str, applications: usize, others: usize) -> Result<PathBuf> {
        let place = self.folder.path().join(name.replace(' ', "-"));
        std::fs::create_dir_all(&place)?;
        let mut text = format!(
            "version: v2\nauth_server: {}\nonboarding: {{join_method: token, token: bench-token, ca_pins: [{}]}}\nstorage: {{type: directory, path: {}}}\noutputs:\n",
            self.cluster.auth_addr(),
            self.cluster.ca_pin()?,
            place.join("store").display()
        );
        for n in 0..applications + others {
            let kind = if n < applications { "application, app_name: grafana-example" } else { "identity" };
            let out = place.join(format!("out{n}"));
            text += &format!("- {{type: {kind}, destination: {{type: directory, path: {}}}}}\n", out.display());
        }
        let file = place.join("tbot.yaml");
        std::fs::write(&file, text)?;
        Ok(file)
    }

    /// A directory with the certificate for the application behind the tunnel.
    async fn tunnelled(&self, tbot: &Path) -> Result<PathBuf> {
        let config = self.configure("tunnel", 1, 0)?;
        let text = std::fs::read_to_string(&config)?.replace("grafana-example", tunnel::APP);
        std::fs::write(&config, text)?;
        self.oneshot(tbot, &config).await?;
        Ok(config.with_file_name("out0"))
    }

    fn web_ca(&self) -> PathBuf {
        self.folder.path().join("web-ca.pem")
    }

    async fn oneshot(&self, tbot: &Path, config: &Path) -> Result<[f64; 3]> {
        let mut command = tokio::process::Command::new(std::env::current_exe()?);
        command.arg("--measure").arg(tbot).args(["start", "--oneshot", "-c"]).arg(config);
        let output = command.output().await?;
        ensure!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        let text = String::from_utf8(output.stdout)?;
        let figures: Vec<f64> = text.split_whitespace().filter_map(|word| word.parse().ok()).collect();
        figures.try_into().ok().context("three figures")
    }

    async fn idle(&self, tbot: &Path, config: &Path) -> Result<f64> {
        let mut daemon = tokio::process::Command::new(tbot);
        let mut daemon = daemon.args(["start", "-c"]).arg(config).stderr(Stdio::null()).kill_on_drop(true).spawn()?;
        tokio::time::sleep(IDLE).await;
        let kibibytes = resident_kibibytes(daemon.id().context("it ended")?)?;
        daemon.kill().await?;
        Ok(kibibytes / 1024.0)
    }
}

fn resident_kibibytes(process: u32) -> Result<f64> {
    let status = std::fs::read_to_string(format!("/proc/{process}/status"))?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).context("no VmRSS")?;
    Ok(line.trim().trim_end_matches(" kB").parse()?)
}

async fn plugin_call() -> Result<f64> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).ancestors().nth(2).context("no workspace")?;
    let engine = Engine::new()?;
    let wasm = std::fs::read(root.join("target/plugins/output-application.wasm"))?;
    let plugin = engine.load_own_code("application", Kind::Output, &engine.compile(&wasm)?, Grants::default())?;
    let output = OutputPlugin::new(plugin).await?;
    let recorded = root.join("tests/recordings/v15/runs/oneshot-direct/files/app/tlscert");
    let material = Material {
        cluster: "lab.example.com".into(),
        proxy: "localhost:3080".into(),
        tls: Some(TlsCertificate::parse(&std::fs::read(recorded)?)?),
        ssh: None,
        public_key: "ssh-rsa AAAA".into(),
        authorities: Arc::new(Authorities::default()),
        directory: Some("/opt/machine-id".into()),
        executable: "/usr/local/bin/tbot".into(),
    };
    let key = PrivateKey::generate(KeyAlgorithm::EcdsaP256)?;
    let mut times = Vec::with_capacity(CALLS);
    for _ in 0..CALLS {
        let started = Instant::now();
        output.render(r#"{"app_name":"x"}"#, &material, &key).await?;
        times.push(started.elapsed());
    }
    times.sort();
    Ok(times[CALLS / 2].as_secs_f64() * 1e6)
}
