//! `tbot db`: databases through the cluster, from the command line (surface §A.10).

use std::fmt::Write as _;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::process::ExitStatusExt;

use clap::{Parser, Subcommand, ValueEnum};
use cluster::{Resource, ResourceKind};
use rustix::process::{Pid, Signal, kill_process};
use serde_json::json;
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::oneshot;
use tunnel::{Listen, Mode, Protocol, Target, Tunnel};

use crate::client::{Client, Door, HOST_CA, quoted, socket_name};
use crate::flags::Flags;
use crate::proxy::{Common, Context, DbSession, Service, Through, inner};

/// Databases of the cluster
#[derive(Parser)]
#[command(name = "tbot db", disable_version_flag = true, args_override_self = true)]
struct Db {
    #[command(subcommand)]
    what: What,
    #[command(flatten)]
    common: Common,
}

#[derive(Subcommand)]
enum What {
    /// List the databases that the certificate may reach
    Ls {
        /// How the list looks
        #[arg(short, long, value_enum, default_value_t = Format::Text)]
        format: Format,
        #[command(flatten)]
        wanted: Wanted,
    },
    /// Run the database's own client, connected
    Connect {
        #[command(flatten)]
        session: DbSession,
        #[command(flatten)]
        service: Service,
    },
    /// Show how to connect: straight to the proxy where its clients can, or to the port that `tbot proxy db` opens
    Config {
        #[command(flatten)]
        port: Port,
        /// How it looks
        #[arg(short, long, value_enum, default_value_t = Format::Text)]
        format: Format,
        #[command(flatten)]
        service: Service,
    },
    /// Print environment variables that lead clients the same way
    Env {
        #[command(flatten)]
        port: Port,
        /// How they look
        #[arg(short, long, value_enum, default_value_t = Format::Text)]
        format: Format,
        #[command(flatten)]
        service: Service,
    },
    /// Nothing to do here: the certificate is kept fresh by `tbot start`
    #[command(alias = "logout")]
    Login {
        /// Anything
        #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
        ignored: Vec<String>,
    },
}

#[derive(clap::Args)]
struct Port {
    /// The port that `tbot proxy db --port` was given [default: the proxy for PostgreSQL, else the protocol's usual one]
    #[arg(short, long)]
    port: Option<u16>,
}

/// Which databases a list shows.
#[derive(clap::Args)]
struct Wanted {
    /// Only those in whose name, description or labels each of these words is found
    #[arg(long, value_name = "WORD,…", value_delimiter = ',')]
    search: Vec<String>,
    /// Only those with each of these labels
    #[arg(value_name = "KEY=VALUE,…", value_delimiter = ',')]
    labels: Vec<String>,
    /// Where each database is, too
    #[arg(short, long)]
    verbose: bool,
    /// A certificate knows one cluster: accepted, as `tsh` does.
    #[arg(short = 'R', long, hide = true)]
    all: bool,
}

impl Wanted {
    fn wants(&self, database: &Resource) -> bool {
        let labels: Vec<_> = database.labels.iter().map(|(key, value)| format!("{key}={value}")).collect();
        let text =
            [&database.name, &database.description, &labels.join("\n")].map(|text| text.to_lowercase()).join("\n");
        self.labels.iter().all(|label| labels.contains(label))
            && self.search.iter().all(|word| text.contains(&word.to_lowercase()))
    }
}

#[derive(Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Format {
    Text,
    /// Every JSON text is YAML
    #[value(alias = "yaml")]
    Json,
    /// The client's command line; a list has none and is text
    Cmd,
}

/// Runs one of the commands.
pub(crate) fn db(flags: &Flags, through: &Through) -> Result<(), String> {
    let Some(Db { what, common }) = inner(through, "tbot db")? else { return Ok(()) };
    let context = Context::new(flags, through, &common)?;
    let text = match &what {
        What::Ls { format, wanted } => context.block_on(list(&context, *format, wanted))?,
        What::Connect { session, service } => {
            session.note_ignored();
            let status =
                context.block_on(async { connect(&context, &service.name(&context).await?, session).await })?;
            // The client's own status, which the original lost.
            std::process::exit(status);
        }
        What::Config { port, format, service } => context.block_on(config(&context, service, port, *format))?,
        What::Env { port, format, service } => context.block_on(environment(&context, service, port, *format))?,
        What::Login { .. } => format!("Nothing to do: the certificate lies in {}.\n", context.directory.display()),
    };
    print!("{text}");
    Ok(())
}

async fn list(context: &Context, format: Format, wanted: &Wanted) -> Result<String, String> {
    let credentials = context.credentials()?;
    let credential = credentials.current().await.map_err(|e| e.to_string())?;
    let authorities = credentials.authorities().await.map_err(|e| e.to_string())?;
    let (tls, key) = (&credential.tls, &credential.key);
    let listed = context.cluster.resources(tls, key, authorities, ResourceKind::Database).await;
    let listed = listed.map_err(|e| e.to_string())?.into_iter().filter(|database| wanted.wants(database));
    if format == Format::Json {
        // The shape of the resource, as `tsh` prints it.
        let all = listed.map(|db| {
            json!({
                "kind": "db",
                "version": "v3",
                "metadata": {"name": db.name, "description": db.description, "labels": db.labels},
                "spec": {"protocol": db.protocol, "uri": db.uri},
            })
        });
        return Ok(format!("{:#}\n", serde_json::Value::Array(all.collect())));
    }
    let rows = listed.map(|db| {
        let labels: Vec<_> = db.labels.iter().map(|(key, value)| format!("{key}={value}")).collect();
        [db.name, db.description, db.protocol, db.uri, labels.join(",")]
    });
    if wanted.verbose {
        return Ok(table(["Name", "Description", "Protocol", "URI", "Labels"], &rows.collect::<Vec<_>>()));
    }
    let without_uri = |[name, description, protocol, _, labels]: [String; 5]| [name, description, protocol, labels];
    Ok(table(["Name", "Description", "Protocol", "Labels"], &rows.map(without_uri).collect::<Vec<_>>()))
}

/// Opens a tunnel of its own, runs the client in it, and returns its exit status. Where the client knows sockets, it is one that only this
/// user can reach: then the tunnel shows the certificate, and the client need not like the rights of its key's file.
async fn connect(context: &Context, service: &str, session: &DbSession) -> Result<i32, String> {
    let credential = context.credentials()?.current().await.map_err(|e| e.to_string())?;
    let protocol = credential.tls.subject.attribute("2.2").and_then(Protocol::database);
    let private = std::fs::Permissions::from_mode(0o700);
    let folder = tempfile::Builder::new().prefix("tbot-").permissions(private).tempdir();
    let folder = folder.map_err(|e| format!("no place for a socket: {e}"))?;
    let (listen, mode) = match protocol.and_then(socket_name) {
        Some(name) => (Listen::Unix(folder.path().join(name)), Mode::Authenticated),
        None if protocol.is_some_and(|protocol| protocol.only_authenticated) => {
            (Listen::loopback(0), Mode::Authenticated)
        }
        None => (Listen::loopback(0), session.mode()),
    };
    let settings = context.settings(listen, Target::Database(service.to_owned()), mode)?;
    let cannot = |e| format!("signals cannot be handled: {e}");
    let mut terminate = signal(SignalKind::terminate()).map_err(cannot)?;
    let mut hangup = signal(SignalKind::hangup()).map_err(cannot)?;
    let mut interrupt = signal(SignalKind::interrupt()).map_err(cannot)?;
    let tunnel = tokio::select! {
        opened = Tunnel::open(settings) => opened.map_err(|e| e.to_string())?,
        _ = terminate.recv() => return Ok(ended_by(Signal::TERM)),
        _ = hangup.recv() => return Ok(ended_by(Signal::HUP)),
        _ = interrupt.recv() => return Ok(ended_by(Signal::INT)),
    };
    let subject = &credential.tls.subject;
    let client = Client {
        protocol: tunnel.protocol(),
        door: &Door::from(tunnel.address()),
        user: session.db_user.as_deref().or(subject.attribute("2.3")).unwrap_or_default(),
        database: session.db_name.as_deref().or(subject.attribute("2.4")).unwrap_or_default(),
        files: (mode == Mode::Passthrough).then_some(context.directory.as_path()),
    };
    let line = client.command().ok_or_else(|| {
        format!("no client is known for {}: use `tbot proxy db`, and a client of your choice", client.protocol.title)
    })?;
    let command = line.command().ok_or("no client is known")?;
    let (stop, stopped) = oneshot::channel::<()>();
    let serving = tokio::spawn(tunnel.serve(async {
        let _ = stopped.await;
    }));
    let cannot = |e| format!("`{}` cannot be run: {e}; is it installed?", line.0[0]);
    let mut child = tokio::process::Command::from(command).spawn().map_err(cannot)?;
    let end = |child: &tokio::process::Child| {
        let running = child.id().and_then(|id| Pid::from_raw(i32::try_from(id).ok()?));
        // It may have ended by itself.
        let _ = running.map(|pid| kill_process(pid, Signal::TERM));
    };
    let status = loop {
        tokio::select! {
            status = child.wait() => break status.map_err(cannot)?,
            _ = terminate.recv() => end(&child),
            _ = hangup.recv() => end(&child),
            // For the client: it cancels a query there.
            _ = interrupt.recv() => {}
        }
    };
    drop(stop);
    let _ = serving.await;
    Ok(status.code().or(status.signal().map(|signal| SIGNALLED + signal)).unwrap_or(1))
}

/// As shells report it.
fn ended_by(signal: Signal) -> i32 {
    SIGNALLED + signal.as_raw()
}

/// Exit status of a program that a signal has ended, without the signal's number.
const SIGNALLED: i32 = 128;

async fn config(context: &Context, service: &Service, port: &Port, format: Format) -> Result<String, String> {
    let view = View::new(context, &service.name(context).await?, port).await?;
    let rows = view.rows();
    Ok(match format {
        Format::Text => rows.iter().map(|(name, value)| format!("{:<11}{value}\n", format!("{name}:"))).collect(),
        Format::Json => {
            let mut object: serde_json::Map<_, _> =
                rows.into_iter().map(|(name, value)| (name.to_lowercase(), value.into())).collect();
            object.insert("port".into(), view.port.into());
            format!("{:#}\n", serde_json::Value::Object(object))
        }
        Format::Cmd => {
            let files = (!view.protocol.only_authenticated).then_some(context.directory.as_path());
            let door = Door::Port(view.host.clone(), view.port);
            let View { protocol, user, database, .. } = &view;
            let client = Client { protocol, door: &door, user, database, files };
            client.command().map_or(String::new(), |command| format!("{}\n", command.shell()))
        }
    })
}

async fn environment(context: &Context, service: &Service, port: &Port, format: Format) -> Result<String, String> {
    let view = View::new(context, &service.name(context).await?, port).await?;
    let [root, certificate, key] = &view.files;
    let number = view.port.to_string();
    let variables: Vec<(&str, &str)> = match view.protocol.name {
        "postgres" | "cockroachdb" => vec![
            ("PGHOST", &view.host),
            ("PGPORT", &number),
            ("PGUSER", &view.user),
            ("PGDATABASE", &view.database),
            ("PGSSLMODE", "verify-full"),
            ("PGSSLROOTCERT", root),
            ("PGSSLCERT", certificate),
            ("PGSSLKEY", key),
        ],
        "mysql" => vec![("MYSQL_HOST", &view.host), ("MYSQL_TCP_PORT", &number)],
        _ => return Err(format!("clients of {} read no environment: see `tbot db config`", view.protocol.title)),
    };
    let variables = variables.into_iter().filter(|(_, value)| !value.is_empty());
    if format == Format::Json {
        let object = variables.map(|(name, value)| (name.to_owned(), value.into())).collect();
        return Ok(format!("{:#}\n", serde_json::Value::Object(object)));
    }
    let mut text = String::new();
    for (name, value) in variables {
        let _ = writeln!(text, "export {name}={}", quoted(value));
    }
    Ok(text)
}

/// What the certificate says of one database.
struct View {
    service: String,
    protocol: &'static Protocol,
    host: String,
    port: u16,
    user: String,
    database: String,
    files: [String; 3],
}

impl View {
    async fn new(context: &Context, service: &str, port: &Port) -> Result<Self, String> {
        let credential = context.credentials()?.current().await.map_err(|e| e.to_string())?;
        let attribute = |oid| credential.tls.subject.attribute(oid).unwrap_or_default().to_owned();
        if attribute("2.1") != service {
            return Err(format!(
                "the certificate in {} is not for database {service:?}: name the directory of its output with --destination-dir",
                context.directory.display()
            ));
        }
        let name = attribute("2.2");
        let protocol = Protocol::database(&name)
            .ok_or_else(|| format!("database {service:?} speaks `{name}`, which cannot be carried"))?;
        // Proxies hear these clients on the port of everything else (wire §i.3).
        let straight = matches!(protocol.name, "postgres" | "cockroachdb").then(|| context.proxy.clone()).flatten();
        let (host, port) = match (port.port, straight) {
            (None, Some(proxy)) => proxy,
            (port, _) => ("localhost".to_owned(), port.unwrap_or(protocol.port)),
        };
        let directory = std::path::absolute(&context.directory).unwrap_or_else(|_| context.directory.clone());
        let files = [HOST_CA, "tlscert", "key"].map(|name| directory.join(name).display().to_string());
        Ok(Self {
            service: service.to_owned(),
            protocol,
            host,
            port,
            user: attribute("2.3"),
            database: attribute("2.4"),
            files,
        })
    }

    fn rows(&self) -> [(&'static str, String); 8] {
        let [root, certificate, key] = self.files.clone();
        [
            ("Name", self.service.clone()),
            ("Host", self.host.clone()),
            ("Port", self.port.to_string()),
            ("User", self.user.clone()),
            ("Database", self.database.clone()),
            ("CA", root),
            ("Cert", certificate),
            ("Key", key),
        ]
    }
}

/// Columns as wide as their widest cell, without blanks at the ends of lines.
fn table<const N: usize>(head: [&str; N], rows: &[[String; N]]) -> String {
    let mut widths = head.map(str::len);
    for row in rows {
        for (width, cell) in widths.iter_mut().zip(row) {
            *width = (*width).max(cell.chars().count());
        }
    }
    let line = |cells: [&str; N]| {
        let padded: Vec<_> = cells.iter().zip(widths).map(|(cell, width)| format!("{cell:<width$}")).collect();
        format!("{}\n", padded.join(" ").trim_end())
    };
    let rules = widths.map(|width| "-".repeat(width));
    let body = rows.iter().map(|row| line(row.each_ref().map(String::as_str)));
    [line(head), line(rules.each_ref().map(String::as_str))].into_iter().chain(body).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_table_has_straight_columns() {
        let rows = [["a".to_owned(), "long name".to_owned()], ["bbbb".to_owned(), String::new()]];
        assert_eq!(table(["X", "Y"], &rows), "X    Y\n---- ---------\na    long name\nbbbb\n");
    }
}
