//! Runs a stand-in cluster with one application until it is told to end.

use std::{fs, io::Write, os::unix::fs::OpenOptionsExt, path::PathBuf};

use anyhow::{Context, Result};
use clap::Parser;
use stand_in::{Greeter, Options, Release, StandIn, Token};
use tokio::signal::unix::{SignalKind, signal};

/// A stand-in Teleport cluster for demonstrations and tests.
#[derive(Parser)]
struct Arguments {
    /// Where to write web-ca.pem, ca-pin and addresses.json; created when missing.
    #[arg(long)]
    dir: PathBuf,
    /// Port of the auth service on 127.0.0.1; 0 lets the system choose.
    #[arg(long, default_value_t = 0)]
    auth_port: u16,
    /// Port of the proxy on 127.0.0.1; 0 lets the system choose.
    #[arg(long, default_value_t = 0)]
    proxy_port: u16,
    /// Release to behave as: 12.0.0, 15.0.0, 17.0.0 or 18.2.0.
    #[arg(long, default_value = "15.0.0")]
    version: Release,
    /// Join token of the bot; it may be used again and again.
    #[arg(long, default_value = "stand-in-token")]
    token: String,
    /// Name of the bot.
    #[arg(long, default_value = "demo")]
    bot: String,
    /// Role the bot may impersonate; may be repeated.
    #[arg(long, default_value = "machine")]
    role: Vec<String>,
    /// Name of the application.
    #[arg(long, default_value = "greeter")]
    app: String,
    /// A database that speaks TLS, NAME=PROTOCOL://HOST:PORT; may be repeated. What its server needs is written to
    /// database.crt, database.key and database-clients.pem.
    #[arg(long)]
    db: Vec<Named>,
    /// An application that is not HTTP, NAME=HOST:PORT; may be repeated.
    #[arg(long)]
    tcp_app: Vec<Named>,
    /// Puts a load balancer that hides protocol names (ALPN) in front of the proxy.
    #[arg(long)]
    strip_alpn: bool,
}

/// A name and what stands behind it.
#[derive(Clone)]
struct Named {
    name: String,
    target: String,
}

impl std::str::FromStr for Named {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let (name, target) = text.split_once('=').ok_or_else(|| format!("`{text}` has no `=`: give NAME=TARGET"))?;
        Ok(Self { name: name.to_owned(), target: target.to_owned() })
    }
}

#[tokio::main]
async fn main() -> Result<()> {
    let arguments = Arguments::parse();
    let options = Options {
        auth_port: arguments.auth_port,
        proxy_port: arguments.proxy_port,
        release: arguments.version,
        strip_alpn: arguments.strip_alpn,
        ..Options::default()
    };
    let stand_in = StandIn::start(options).await?;
    let app = Greeter::start("Hello from behind the stand-in cluster.\n").await?;
    let control = stand_in.control();
    control.add_app(&arguments.app, &format!("{}.localhost", arguments.app), &app.uri());
    for Named { name, target } in &arguments.tcp_app {
        control.add_app(name, &format!("{name}.localhost"), &format!("tcp://{target}"));
    }
    for Named { name, target } in &arguments.db {
        let (protocol, address) = target
            .split_once("://")
            .with_context(|| format!("database `{name}` has no protocol: give NAME=PROTOCOL://HOST:PORT"))?;
        control.add_database(name, protocol, address);
    }
    control.add_token(Token {
        name: arguments.token.clone(),
        bot: arguments.bot.clone(),
        roles: arguments.role.clone(),
        ..Token::default()
    });
    describe(&stand_in, &arguments)?;
    let (mut interrupt, mut terminate) = (signal(SignalKind::interrupt())?, signal(SignalKind::terminate())?);
    tokio::select! {
        _ = interrupt.recv() => {}
        _ = terminate.recv() => {}
    }
    Ok(())
}

/// Tells people by standard output, and programs by files.
fn describe(stand_in: &StandIn, arguments: &Arguments) -> Result<()> {
    let (auth, proxy, pin) = (stand_in.auth_addr(), stand_in.proxy_addr(), stand_in.ca_pin()?);
    let proxy = format!("localhost:{}", proxy.port());
    let addresses = serde_json::json!({
        "cluster": stand_in.cluster_name(), "auth": auth.to_string(), "proxy": proxy,
        "token": arguments.token, "app": arguments.app,
    });
    fs::create_dir_all(&arguments.dir).with_context(|| format!("making `{}`", arguments.dir.display()))?;
    let mut files = vec![
        ("web-ca.pem", stand_in.web_ca_pem().to_owned()),
        ("ca-pin", format!("{pin}\n")),
        ("addresses.json", format!("{addresses:#}\n")),
    ];
    if !arguments.db.is_empty() {
        let database = stand_in.control().sign_database()?;
        files.extend([
            ("database.crt", database.certificate),
            ("database.key", database.key),
            ("database-clients.pem", database.client_authority),
        ]);
    }
    for (name, text) in files {
        let path = arguments.dir.join(name);
        let mode = if name.ends_with(".key") { 0o600 } else { 0o644 };
        let file = fs::OpenOptions::new().write(true).create(true).truncate(true).mode(mode).open(&path);
        file.and_then(|mut file| file.write_all(text.as_bytes()))
            .with_context(|| format!("writing `{}`", path.display()))?;
    }
    println!("cluster  {}", stand_in.cluster_name());
    println!("auth     {auth} (pin {pin})");
    println!("proxy    {proxy} (trust {})", arguments.dir.join("web-ca.pem").display());
    println!("token    {} for bot {}", arguments.token, arguments.bot);
    println!("app      {} as {}.localhost", arguments.app, arguments.app);
    for Named { name, target } in arguments.tcp_app.iter().chain(&arguments.db) {
        println!("behind   {name} is {target}");
    }
    Ok(())
}
