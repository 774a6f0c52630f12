use crate::destination::DestinationConfig;
use crate::mistake::{Place, Report};
use crate::places::Places;
use crate::tunnel::{Listen, TunnelConfig, TunnelKind};
use crate::{OutputConfig, Reader};

/// What `start <service>` or `configure <service>` asks for (surface §A.12).
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ServiceFlags {
    /// `identity`, also `ssh` and `id`.
    Identity {
        /// Where its files go.
        destination: DestinationFlags,
        /// `--cluster`: a leaf cluster.
        cluster: Option<String>,
        /// `--allow-reissue`.
        allow_reissue: bool,
    },
    /// `application`.
    Application {
        /// Where its files go.
        destination: DestinationFlags,
        /// `--app`.
        app: String,
        /// `--specific-tls-extensions`: also `tls.crt`, `tls.key` and `tls.cas`.
        specific_tls_extensions: bool,
    },
    /// `database`.
    Database {
        /// Where its files go.
        destination: DestinationFlags,
        /// `--service`.
        service: String,
        /// `--username`.
        username: String,
        /// `--database`.
        database: String,
        /// `--format`: empty, `tls`, `mongo` or `cockroach`.
        format: Option<String>,
    },
    /// `application-tunnel`.
    ApplicationTunnel {
        /// `--listen`: `tcp://host:port` or `unix:///path`.
        listen: String,
        /// `--app`.
        app: String,
    },
    /// `database-tunnel`.
    DatabaseTunnel {
        /// `--listen`: `tcp://host:port` or `unix:///path`.
        listen: String,
        /// `--service`.
        service: String,
        /// `--username`.
        username: String,
        /// `--database`.
        database: String,
    },
    /// `noop`: only joins.
    Noop,
}

/// The flags of a service that writes files (surface §A.12).
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct DestinationFlags {
    /// `--destination`: path or URI.
    pub destination: String,
    /// `--reader-user`: names or ids.
    pub reader_users: Vec<String>,
    /// `--reader-group`: names or ids.
    pub reader_groups: Vec<String>,
}

impl ServiceFlags {
    /// The output or the tunnel that comes to those of the file: one, or for `noop` none.
    pub(crate) fn services(&self, report: &mut Report) -> (Vec<OutputConfig>, Vec<TunnelConfig>) {
        let mut options = serde_json::Map::new();
        let mut option = |key: &str, flag: &str, value: &str, report: &mut Report| {
            filled(flag, value, report);
            options.insert(key.to_owned(), value.into());
        };
        let (kind, destination) = match self {
            Self::Identity { destination, cluster, allow_reissue } => {
                if let Some(cluster) = cluster {
                    option("cluster", "--cluster", cluster, report);
                }
                if *allow_reissue {
                    options.insert("allow_reissue".to_owned(), true.into());
                }
                ("identity", destination)
            }
            Self::Application { destination, app, specific_tls_extensions } => {
                option("app_name", "--app", app, report);
                options.insert("specific_tls_naming".to_owned(), (*specific_tls_extensions).into());
                ("application", destination)
            }
            Self::Database { destination, service, username, database, format } => {
                if let Some(format) = format.as_deref().filter(|format| !format.is_empty()) {
                    option("format", "--format", format, report);
                }
                option("service", "--service", service, report);
                option("database", "--database", database, report);
                option("username", "--username", username, report);
                ("database", destination)
            }
            Self::ApplicationTunnel { listen, app } => {
                filled("--app", app, report);
                let kind = TunnelKind::Application { app_name: app.clone() };
                return (Vec::new(), tunnel(listen, kind, report));
            }
            Self::DatabaseTunnel { listen, service, username, database } => {
                for (flag, value) in [("--service", service), ("--username", username), ("--database", database)] {
                    filled(flag, value, report);
                }
                let (service, username, database) = (service.clone(), username.clone(), database.clone());
                let kind = TunnelKind::Database { service, username, database };
                return (Vec::new(), tunnel(listen, kind, report));
            }
            Self::Noop => return (Vec::new(), Vec::new()),
        };
        let output = destination
            .read(report)
            .map(|destination| OutputConfig { options, ..OutputConfig::of_flag("--destination", kind, destination) });
        (output.into_iter().collect(), Vec::new())
    }
}

impl DestinationFlags {
    fn read(&self, report: &mut Report) -> Option<DestinationConfig> {
        let mut destination = match DestinationConfig::parse_uri(&self.destination) {
            Ok(destination) => destination,
            Err(message) => {
                report.mistake(&Place::flag("--destination"), message);
                return None;
            }
        };
        let users = self.reader_users.iter().cloned().map(Reader::User);
        let all: Vec<Reader> = users.chain(self.reader_groups.iter().cloned().map(Reader::Group)).collect();
        match &mut destination {
            DestinationConfig::Directory { readers, .. } => *readers = all,
            DestinationConfig::Memory if !all.is_empty() => {
                let message =
                    "--reader-user and --reader-group are only compatible with file destinations: remove them";
                report.mistake(&Place::flag("--destination"), message);
            }
            DestinationConfig::Memory => {}
        }
        Some(destination)
    }
}

fn filled(flag: &str, value: &str, report: &mut Report) {
    if value.is_empty() {
        report.mistake(&Place::flag(flag), "must not be empty: give it a value");
    }
}

fn tunnel(listen: &str, kind: TunnelKind, report: &mut Report) -> Vec<TunnelConfig> {
    match Listen::parse(listen) {
        Ok(listen) => vec![TunnelConfig {
            name: String::new(),
            listen,
            kind,
            roles: Vec::new(),
            ttl: None,
            renewal_interval: None,
            places: Places::flag("--listen"),
        }],
        Err(message) => {
            report.mistake(&Place::flag("--listen"), message);
            Vec::new()
        }
    }
}
