//! `cargo xtask demo`: the whole path, shown.

use std::io::Write as _;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use sha2::{Digest, Sha256};

use crate::{cargo, plugins, programs};

/// The stand-in makes RSA keys for its authorities before it listens.
const PATIENCE: Duration = Duration::from_secs(60);

pub(crate) fn demo(root: &Path) -> Result<()> {
    programs(&[("cc", "build-essential"), ("curl", "curl")])?;
    plugins::build(root, false)?;
    cargo(root, &["build", "--quiet", "--package", "tbot", "--package", "stand-in"])?;
    let bin = root.join("target/debug");
    let folder = tempfile::Builder::new().prefix("tbot-demo-").tempdir()?;
    let place = folder.path();

    say("A stand-in cluster, with one web application behind its proxy");
    let token = "demo-token-0123456789abcdef";
    let cluster = Command::new(bin.join("stand-in"))
        .arg("--dir")
        .arg(place)
        .args(["--token", token, "--app", "grafana-example"])
        .stdout(Stdio::null())
        .spawn()
        .map(Ended)
        .context("the stand-in cluster cannot be started")?;
    let proxy = wait_for(place, cluster)?;
    let (cluster, proxy) = proxy;
    println!("proxy {proxy}");

    say("A configuration: join by token, one application output, and a third party's format");
    let plugin = root.join("target/plugins-examples/rust_properties.wasm");
    let digest: String = Sha256::digest(std::fs::read(&plugin)?).iter().map(|byte| format!("{byte:02x}")).collect();
    let config = format!(
        "version: v2\nproxy_server: {proxy}\nonboarding:\n  join_method: token\n  token: {token}\nstorage:\n  type: directory\n  path: {store}\n\
         plugins:\n  - name: properties\n    kind: format\n    path: {plugin}\n    digest: sha256:{digest}\n\
         outputs:\n  - type: application\n    app_name: grafana-example\n    format: properties\n    destination:\n      type: directory\n      path: {out}\n",
        store = place.join("store").display(),
        plugin = plugin.display(),
        out = place.join("out").display(),
    );
    println!("{}", config.replace(token, "••••"));
    let file = place.join("tbot.yaml");
    std::fs::write(&file, config)?;

    say("tbot start --oneshot");
    let ca = place.join("web-ca.pem");
    let status = Command::new(bin.join("tbot"))
        .args(["start", "--oneshot", "-c"])
        .arg(&file)
        .env("SSL_CERT_FILE", &ca)
        .status()?;
    ensure!(status.success(), "tbot failed");

    say("What it wrote");
    ensure!(Command::new("ls").arg("-l").arg(place.join("out")).status()?.success(), "nothing was written");
    println!("\ntbot.properties:");
    print!("{}", std::fs::read_to_string(place.join("out/tbot.properties"))?);

    say("The application, called through the proxy with these files");
    let (host, port) = proxy.rsplit_once(':').context("the proxy's address has no port")?;
    let answer = Command::new("curl")
        .args(["--silent", "--show-error", "--fail", "--cacert"])
        .arg(&ca)
        .arg("--cert")
        .arg(place.join("out/tlscert"))
        .arg("--key")
        .arg(place.join("out/key"))
        .arg(format!("https://{host}:{port}/"))
        .output()?;
    std::io::stdout().write_all(&answer.stdout)?;
    ensure!(answer.status.success(), "{}", String::from_utf8_lossy(&answer.stderr));
    // Who is not known is redirected to the login page, which is no failure for curl.
    ensure!(answer.stdout.starts_with(b"Hello"), "the application did not answer");
    drop(cluster);

    say("What to try next");
    println!(
        "examples/configs            a configuration for each use\nexamples/plugins            a template of your own\ncargo xtask build           the release build"
    );
    Ok(())
}

fn say(title: &str) {
    println!("\n=== {title}");
}

/// Kills what it holds: a demo that fails leaves nothing behind.
struct Ended(Child);

impl Drop for Ended {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

fn wait_for(place: &Path, mut cluster: Ended) -> Result<(Ended, String)> {
    let started = Instant::now();
    loop {
        let addresses = std::fs::read_to_string(place.join("addresses.json")).ok();
        let json: Option<serde_json::Value> = addresses.and_then(|text| serde_json::from_str(&text).ok());
        if let Some(proxy) = json.as_ref().and_then(|json| json["proxy"].as_str()) {
            return Ok((cluster, proxy.to_owned()));
        }
        if let Some(status) = cluster.0.try_wait()? {
            bail!("the stand-in cluster ended with {status}");
        }
        ensure!(started.elapsed() < PATIENCE, "the stand-in cluster did not start");
        std::thread::sleep(Duration::from_millis(100));
    }
}
