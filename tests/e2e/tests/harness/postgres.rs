//! A real PostgreSQL.

use std::path::PathBuf;
use std::process::{Command, Stdio};

use stand_in::Control;

use super::server::{Server, newest};
use super::{text, until};

pub struct Postgres(Server);

impl Postgres {
    /// A server with the role `alice` and her database `example`, for so many connections at a time. It speaks TLS only.
    pub async fn start(control: &Control, connections: u32) -> Self {
        let mut server = Server::new(control);
        server.run(programs().join("initdb"), &["-D", "data", "--auth=trust", "--no-sync", "--username=postgres"]);
        server.write("data/pg_hba.conf", "local all all trust\nhostssl all all 127.0.0.1/32 cert\n");
        let settings = format!(
            "port={}\nlisten_addresses='127.0.0.1'\nunix_socket_directories='{}'\nfsync=off\nmax_connections={}\nssl=on\n\
             ssl_cert_file='../server.crt'\nssl_key_file='../server.key'\nssl_ca_file='../clients.pem'\n",
            server.port,
            server.folder().display(),
            // A few are kept for the superuser.
            connections + 10,
        );
        server.write("data/postgresql.conf", &settings);
        server.start(programs().join("postgres"), &["-D", "data"]);
        let postgres = Self(server);
        until("PostgreSQL answers", || postgres.ask("select 1").is_some()).await;
        postgres.ask("create role alice login").unwrap();
        postgres.ask("create database example owner alice").unwrap();
        postgres
    }

    /// As the stand-in is told of it.
    pub fn uri(&self) -> String {
        self.0.uri()
    }

    /// The superuser's answer, past every proxy.
    pub fn ask(&self, query: &str) -> Option<String> {
        let mut psql = psql(&["-h", self.0.folder().to_str()?, "-p", &self.0.port.to_string(), "-U", "postgres"]);
        let output = psql.args(["-c", query]).output().unwrap();
        output.status.success().then(|| text(&output).trim_end().to_owned())
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

/// Where Debian puts the server's programs.
pub fn programs() -> PathBuf {
    newest("/usr/lib/postgresql").join("bin")
}
