//! A real PostgreSQL behind the stand-in: it speaks TLS only, and lets in whoever shows a certificate of the databases' authority.

use std::net::Ipv4Addr;
use std::os::unix::fs::{PermissionsExt, chown};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};

use rustix::process::{Pid, Signal, geteuid, kill_process};
use stand_in::Control;
use tempfile::TempDir;

use super::{text, until};

/// PostgreSQL refuses to run as root; this user is on every Debian.
const NOBODY: u32 = 65_534;

pub struct Postgres {
    folder: TempDir,
    server: Child,
    port: u16,
}

impl Postgres {
    /// A server with the role `alice` and her database `example`, for so many connections at a time.
    pub async fn start(control: &Control, connections: u32) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let files = control.sign_database().unwrap();
        let own = |name: &str, text: &str| {
            let path = folder.path().join(name);
            std::fs::write(&path, text).unwrap();
            std::fs::set_permissions(&path, PermissionsExt::from_mode(0o600)).unwrap();
            give(&path);
        };
        own("server.crt", &files.certificate);
        own("server.key", &files.key);
        own("clients.pem", &files.client_authority);
        give(folder.path());
        let initdb = ["-D", "data", "--auth=trust", "--no-sync", "--username=postgres"];
        let made = program("initdb", folder.path(), &initdb).output().unwrap();
        assert!(made.status.success(), "{}", text(&made));
        let port = std::net::TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap().local_addr().unwrap().port();
        own("data/pg_hba.conf", "local all all trust\nhostssl all all 127.0.0.1/32 cert\n");
        own(
            "data/postgresql.conf",
            &format!(
                "port={port}\nlisten_addresses='127.0.0.1'\nunix_socket_directories='{}'\nfsync=off\nmax_connections={}\nssl=on\n\
                 ssl_cert_file='../server.crt'\nssl_key_file='../server.key'\nssl_ca_file='../clients.pem'\n",
                folder.path().display(),
                // A few are kept for the superuser.
                connections + 10,
            ),
        );
        let log = std::fs::File::create(folder.path().join("log")).unwrap();
        let server = program("postgres", folder.path(), &["-D", "data"]).stderr(log).spawn().unwrap();
        let postgres = Self { folder, server, port };
        until("PostgreSQL answers", || postgres.ask("select 1").is_some()).await;
        postgres.ask("create role alice login").unwrap();
        postgres.ask("create database example owner alice").unwrap();
        postgres
    }

    /// As the stand-in is told of it.
    pub fn uri(&self) -> String {
        format!("localhost:{}", self.port)
    }

    /// The superuser's answer, past every proxy.
    pub fn ask(&self, query: &str) -> Option<String> {
        let mut psql = psql(&["-h", self.folder.path().to_str()?, "-p", &self.port.to_string(), "-U", "postgres"]);
        let output = psql.args(["-c", query]).output().unwrap();
        output.status.success().then(|| text(&output).trim_end().to_owned())
    }
}

impl Drop for Postgres {
    fn drop(&mut self) {
        // At once, and its children with it.
        let _ = kill_process(Pid::from_child(&self.server), Signal::QUIT);
        let _ = self.server.wait();
    }
}

/// `psql` without anybody's settings, answers without ornament.
pub fn psql(arguments: &[&str]) -> Command {
    let mut command = Command::new("psql");
    command.args(["-AtX"]).args(arguments).stdin(Stdio::null());
    for (name, _) in std::env::vars_os().filter(|(name, _)| name.to_string_lossy().starts_with("PG")) {
        command.env_remove(name);
    }
    command
}

/// Runs a command without holding up the cluster, which lives in this process.
pub async fn output(mut command: Command) -> Output {
    tokio::task::spawn_blocking(move || command.output().unwrap()).await.unwrap()
}

/// One of the server's programs, as a user whom it accepts.
fn program(name: &str, folder: &Path, arguments: &[&str]) -> Command {
    let mut command = Command::new(programs().join(name));
    command.args(arguments).current_dir(folder).stdin(Stdio::null()).stdout(Stdio::null());
    if geteuid().is_root() {
        command.uid(NOBODY).gid(NOBODY);
    }
    command
}

/// Where Debian puts the server's programs.
pub fn programs() -> PathBuf {
    let versions = std::fs::read_dir("/usr/lib/postgresql").expect("apt-get install postgresql");
    versions.map(|entry| entry.unwrap().path()).max().expect("apt-get install postgresql").join("bin")
}

fn give(path: &Path) {
    if geteuid().is_root() {
        chown(path, Some(NOBODY), Some(NOBODY)).unwrap();
    }
}
