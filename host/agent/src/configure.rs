//! `tbot configure`, and the services that it and `start` take on the command line (surface §A.7, §A.12).

use std::path::PathBuf;

use clap::{Args, Subcommand};
use config::{DestinationConfig, DestinationFlags, Mistakes, ServiceFlags};
use tracing::warn;

use crate::flags::{Flags, Start, path};
use crate::start::runtime;
use crate::{migrate, wiring};

#[derive(Args)]
#[command(args_override_self = true)]
pub(crate) struct Configure {
    #[command(flatten)]
    start: Start,
    /// Write the file here, in place of stdout
    #[arg(short, long, global = true, value_name = "FILE", value_parser = path())]
    output: Option<PathBuf>,
}

/// One service on the command line, in addition to those in the file.
#[derive(Subcommand, Clone)]
#[command(args_override_self = true)]
pub(crate) enum Service {
    /// What the flags say, no service: the default
    #[command(hide = true)]
    Legacy,
    /// Credentials for SSH and the API
    #[command(visible_aliases = ["ssh", "id"])]
    Identity {
        #[command(flatten)]
        destination: Destination,
        /// Leaf cluster to reach
        #[arg(long)]
        cluster: Option<String>,
        /// Let the credentials be used to ask for others
        #[arg(long)]
        allow_reissue: bool,
    },
    /// Credentials for an application
    #[command(visible_alias = "app")]
    Application {
        #[command(flatten)]
        destination: Destination,
        /// Name of the application
        #[arg(long)]
        app: String,
        /// Also write tls.crt, tls.key and tls.cas
        #[arg(long)]
        specific_tls_extensions: bool,
    },
    /// Credentials for a database
    #[command(visible_alias = "db")]
    Database {
        #[command(flatten)]
        destination: Destination,
        #[command(flatten)]
        database: Database,
        /// Also write the files that a kind of client wants: tls, mongo or cockroach
        #[arg(long)]
        format: Option<String>,
    },
    /// A local listener that leads to an application
    #[command(visible_alias = "app-tunnel")]
    ApplicationTunnel {
        /// Where to listen, such as tcp://127.0.0.1:8080
        #[arg(long, value_name = "URI")]
        listen: String,
        /// Name of the application
        #[arg(long)]
        app: String,
    },
    /// A local listener that leads to a database
    #[command(visible_alias = "db-tunnel")]
    DatabaseTunnel {
        /// Where to listen, such as tcp://127.0.0.1:5432
        #[arg(long, value_name = "URI")]
        listen: String,
        #[command(flatten)]
        database: Database,
    },
    /// Only join: to try out a token
    #[command(alias = "no-op")]
    Noop,
}

#[derive(Args, Clone)]
#[group(skip)]
pub(crate) struct Destination {
    /// Where the files go: a path, file:// or memory://
    #[arg(long, value_name = "URI")]
    destination: String,
    /// User who may read the files, by name or id; may be repeated
    #[arg(long, value_name = "USER", action = clap::ArgAction::Append)]
    reader_user: Vec<String>,
    /// Group that may read the files, by name or id; may be repeated
    #[arg(long, value_name = "GROUP", action = clap::ArgAction::Append)]
    reader_group: Vec<String>,
}

#[derive(Args, Clone)]
#[group(skip)]
pub(crate) struct Database {
    /// Name of the database service
    #[arg(long)]
    service: String,
    /// Database user
    #[arg(long)]
    username: String,
    /// Database in it
    #[arg(long)]
    database: String,
}

/// Prints the configuration that the flags mean, or writes it to a file, if `start` would accept it. A `-c` file is not read.
pub(crate) fn configure(flags: &Flags, configure: &Configure) -> Result<(), String> {
    telemetry::init(flags.log_format.into(), flags.debug);
    let environment = |name: &str| std::env::var(name).ok();
    let refused = |all: Mistakes| {
        // Scripts match on the last line, which is the original's; what to do about it stands above.
        eprintln!("{}", telemetry::redact(&all.to_string()));
        all.0.last().map(|mistake| mistake.cause().to_owned()).unwrap_or_default()
    };
    let (yaml, config) =
        config::configure(&wiring::overrides(flags, &configure.start), &environment).map_err(refused)?;
    let mut elsewhere = config.clone();
    for output in &mut elsewhere.outputs {
        // The file may be for a machine that has users which this one has not.
        if let DestinationConfig::Directory { readers, .. } = &mut output.destination {
            readers.clear();
        }
    }
    let parts = runtime()?.block_on(wiring::parts(&elsewhere)).map_err(|all| refused(Mistakes(all)))?;
    for warning in config.warnings.iter().chain(&parts.warnings) {
        warn!(target: "TBOT", "{warning}");
    }
    migrate::write(&yaml, configure.output.as_deref())
}

impl Service {
    /// What the configuration makes of it.
    pub(crate) fn flags(&self) -> Option<ServiceFlags> {
        Some(match self.clone() {
            Self::Legacy => return None,
            Self::Identity { destination, cluster, allow_reissue } => {
                ServiceFlags::Identity { destination: destination.flags(), cluster, allow_reissue }
            }
            Self::Application { destination, app, specific_tls_extensions } => {
                ServiceFlags::Application { destination: destination.flags(), app, specific_tls_extensions }
            }
            Self::Database { destination, database, format } => {
                let Database { service, username, database } = database;
                ServiceFlags::Database { destination: destination.flags(), service, username, database, format }
            }
            Self::ApplicationTunnel { listen, app } => ServiceFlags::ApplicationTunnel { listen, app },
            Self::DatabaseTunnel { listen, database } => {
                let Database { service, username, database } = database;
                ServiceFlags::DatabaseTunnel { listen, service, username, database }
            }
            Self::Noop => ServiceFlags::Noop,
        })
    }
}

impl Destination {
    fn flags(self) -> DestinationFlags {
        let Self { destination, reader_user, reader_group } = self;
        DestinationFlags { destination, reader_users: reader_user, reader_groups: reader_group }
    }
}
