use std::path::PathBuf;
use std::time::Duration;

use crate::mistake::{Mistake, Report};
use crate::places::Places;
use crate::section::{Section, Unknown};
use crate::{ServerAddress, ServerKind};

/// A local listener that leads into the cluster: a service `application-tunnel` or `database-tunnel` (surface §B.7, §C.6).
#[derive(Debug, Clone, PartialEq)]
pub struct TunnelConfig {
    /// As given, or the type and a counter: `database-tunnel-1`. Unique among outputs and tunnels.
    pub name: String,
    /// Where it listens.
    pub listen: Listen,
    /// Where it leads.
    pub kind: TunnelKind,
    /// Roles to impersonate; empty means all that the bot may.
    pub roles: Vec<String>,
    /// Life of its certificates, where it differs from the bot's.
    pub ttl: Option<Duration>,
    /// Time between its renewals, where it differs from the bot's.
    pub renewal_interval: Option<Duration>,
    pub(crate) places: Places,
}

/// Where a tunnel listens.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Listen {
    /// `tcp://host:port`.
    Tcp {
        /// Name or address, an IPv6 address without its brackets.
        host: String,
        /// The port; 0 lets the system choose.
        port: u16,
    },
    /// `unix:///path`.
    Unix(PathBuf),
}

/// Where a tunnel leads.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum TunnelKind {
    /// An application.
    Application {
        /// Its name.
        app_name: String,
    },
    /// A database.
    Database {
        /// The name of the database service.
        service: String,
        /// The database user.
        username: String,
        /// The database in it.
        database: String,
    },
}

impl TunnelKind {
    /// The `type` of the service.
    pub fn service_type(&self) -> &'static str {
        match self {
            Self::Application { .. } => "application-tunnel",
            Self::Database { .. } => "database-tunnel",
        }
    }
}

impl Listen {
    /// Reads `tcp://host:port` or `unix:///path`.
    ///
    /// # Errors
    /// What is wrong and how to mend it.
    pub fn parse(text: &str) -> Result<Self, String> {
        let form = || format!("`{text}` is nothing to listen at: write `tcp://127.0.0.1:8080` or `unix:///path`");
        if let Some(path) = text.strip_prefix("unix://") {
            return if path.starts_with('/') && path.len() > 1 { Ok(Self::Unix(path.into())) } else { Err(form()) };
        }
        let bare = text.strip_prefix("tcp://").ok_or_else(form)?;
        // Port 0 is an address to listen at, though none to dial.
        if let Some(host) = bare.strip_suffix(":0") {
            return ServerAddress::parse(host, ServerKind::Either)
                .map(|address| Self::Tcp { host: address.host, port: 0 })
                .map_err(|_| form());
        }
        let address = ServerAddress::parse(bare, ServerKind::Either).map_err(|_| form())?;
        Ok(Self::Tcp { host: address.host, port: address.port.ok_or_else(form)? })
    }

    /// The form that [`Listen::parse`] reads.
    pub fn uri(&self) -> String {
        match self {
            Self::Tcp { host, port } if host.contains(':') => format!("tcp://[{host}]:{port}"),
            Self::Tcp { host, port } => format!("tcp://{host}:{port}"),
            Self::Unix(path) => format!("unix://{}", path.display()),
        }
    }
}

impl TunnelConfig {
    /// A mistake at one of its keys; the empty key means the tunnel as a whole.
    pub fn mistake(&self, key: &str, message: impl Into<String>) -> Mistake {
        self.places.mistake(key, message)
    }

    /// Reads the keys that a tunnel of type `kind` has of its own.
    pub(crate) fn read_kind(kind: &str, section: &mut Section, report: &mut Report) -> Option<(Listen, TunnelKind)> {
        let listen = required(section, "listen", report).and_then(|text| match Listen::parse(&text) {
            Ok(listen) => Some(listen),
            Err(message) => {
                let place = section.named("listen").map_or_else(|| section.place.clone(), |field| field.place);
                report.mistake(&place, message);
                None
            }
        });
        let kind = if kind == "application-tunnel" {
            required(section, "app_name", report).map(|app_name| TunnelKind::Application { app_name })
        } else {
            let [service, username, database] =
                ["service", "username", "database"].map(|key| required(section, key, report));
            let all = service.zip(username).zip(database);
            all.map(|((service, username), database)| TunnelKind::Database { service, username, database })
        };
        section.close(Unknown::Warning, "", report);
        listen.zip(kind)
    }
}

fn required(section: &mut Section, key: &'static str, report: &mut Report) -> Option<String> {
    let field = section.field(key);
    let place = field.as_ref().map_or_else(|| section.place.clone(), |field| field.place.clone());
    let text = match field {
        Some(field) => field.text(report)?,
        None => String::new(),
    };
    if text.is_empty() {
        report.mistake(&place, format!("{key} must not be empty: add `{key}`"));
        return None;
    }
    Some(text)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_where_to_listen_and_prints_it_back() {
        for text in ["tcp://0.0.0.0:8080", "tcp://localhost:0", "tcp://[::1]:5432", "unix:///run/db.sock"] {
            assert_eq!(Listen::parse(text).map(|listen| listen.uri()), Ok(text.to_owned()));
        }
        for text in
            ["", "0.0.0.0:80", "tcp://", "tcp://a", "tcp://:0", "unix://", "unix://rel", "unix:///", "http://a:1"]
        {
            assert!(Listen::parse(text).is_err(), "{text}");
        }
    }
}
