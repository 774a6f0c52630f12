//! The programs that speak to databases: what to run, and with which files.

use std::fmt::Display;
use std::net::{Ipv4Addr, Ipv6Addr};
use std::path::{Path, PathBuf};
use std::process::Command;

use tunnel::{Listen, Protocol};

/// Where a client goes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Door {
    /// A host and its TCP port.
    Port(String, u16),
    Socket(PathBuf),
}

/// A way to a database, as a client sees it.
pub(crate) struct Client<'a> {
    pub(crate) protocol: &'a Protocol,
    pub(crate) door: &'a Door,
    pub(crate) user: &'a str,
    pub(crate) database: &'a str,
    /// The directory of certificates that the client itself shows; `None` where the tunnel does.
    pub(crate) files: Option<&'a Path>,
}

/// A program and its arguments.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct CommandLine(pub(crate) Vec<String>);

impl CommandLine {
    /// As a shell reads it.
    pub(crate) fn shell(&self) -> String {
        self.0.iter().map(|word| quoted(word)).collect::<Vec<_>>().join(" ")
    }

    pub(crate) fn command(&self) -> Option<Command> {
        let (program, arguments) = self.0.split_first()?;
        let mut command = Command::new(program);
        command.args(arguments);
        Some(command)
    }
}

impl From<&Listen> for Door {
    fn from(listen: &Listen) -> Self {
        match listen {
            Listen::Tcp(address) => {
                let ip = address.ip();
                // The name that certificates have.
                let named = ip.is_unspecified() || ip == Ipv4Addr::LOCALHOST || ip == Ipv6Addr::LOCALHOST;
                Self::Port(if named { "localhost".into() } else { ip.to_string() }, address.port())
            }
            Listen::Unix(path) => Self::Socket(path.clone()),
        }
    }
}

impl Client<'_> {
    /// The program's command line; `None` where none is known for the protocol, or it cannot use the address.
    pub(crate) fn command(&self) -> Option<CommandLine> {
        if matches!(self.door, Door::Socket(_)) && self.files.is_some() {
            // TLS of the client's own over a socket: most refuse it.
            return None;
        }
        Some(CommandLine(match self.protocol.name {
            "postgres" => vec!["psql".into(), self.postgres_url()?],
            "cockroachdb" => vec!["cockroach".into(), "sql".into(), "--url".into(), self.postgres_url()?],
            "mysql" => self.mysql(),
            "mongodb" => self.mongodb(),
            "redis" => {
                let place = match self.door {
                    Door::Port(host, port) => words(&["-h", host, "-p", &port.to_string()]),
                    Door::Socket(path) => words(&["-s", &path.display().to_string()]),
                };
                let tls = self.file_flags(&[("--cacert", HOST_CA), ("--cert", "tlscert"), ("--key", "key")]);
                let tls = if tls.is_empty() { tls } else { [vec!["--tls".into()], tls].concat() };
                [words(&["redis-cli"]), place, tls].concat()
            }
            "sqlserver" => {
                let Door::Port(host, port) = self.door else { return None };
                let server = format!("{host},{port}");
                [words(&["sqlcmd", "-S", &server]), self.pair("-U", self.user), self.pair("-d", self.database)].concat()
            }
            _ => return None,
        }))
    }

    /// The three files, one a line.
    pub(crate) fn files_hint(&self) -> String {
        self.file_flags(&[("  ca_file", HOST_CA), ("  cert_file", "tlscert"), ("  key_file", "key")])
            .chunks(2)
            .map(|pair| format!("{}\n", pair.join("=")))
            .collect()
    }

    fn file(&self, name: &str) -> Option<String> {
        Some(self.files?.join(name).display().to_string())
    }

    fn file_flags(&self, flags: &[(&str, &str)]) -> Vec<String> {
        let each = flags.iter().filter_map(|(flag, name)| Some([(*flag).to_owned(), self.file(name)?]));
        each.flatten().collect()
    }

    fn pair(&self, flag: &str, value: &str) -> Vec<String> {
        if value.is_empty() { vec![] } else { words(&[flag, value]) }
    }

    fn postgres_url(&self) -> Option<String> {
        let user = if self.user.is_empty() { String::new() } else { format!("{}@", percent(self.user)) };
        let mut parameters = vec![];
        let host = match self.door {
            Door::Port(host, port) => authority(host, port),
            Door::Socket(path) => {
                // The only name that clients look for.
                let port = path.file_name()?.to_str()?.strip_prefix(POSTGRES_SOCKET)?;
                parameters.push(format!("host={}&port={port}", percent(path.parent()?.to_str()?)));
                String::new()
            }
        };
        let mut url = format!("postgres://{user}{host}/{}", percent(self.database));
        for (key, name) in [("sslrootcert", HOST_CA), ("sslcert", "tlscert"), ("sslkey", "key")] {
            parameters.extend(self.file(name).map(|path| format!("{key}={}", percent(&path))));
        }
        if self.files.is_some() {
            parameters.push("sslmode=verify-full".into());
        } else if self.protocol.name == "cockroachdb" {
            // Its client insists on TLS unless told otherwise.
            parameters.push("sslmode=disable".into());
        }
        if !parameters.is_empty() {
            url.push('?');
            url.push_str(&parameters.join("&"));
        }
        Some(url)
    }

    fn mysql(&self) -> Vec<String> {
        let mut out = words(&["mysql"]);
        out.extend(self.pair("--user", self.user));
        out.extend(self.pair("--database", self.database));
        out.extend(match self.door {
            Door::Port(host, port) => words(&["--host", host, "--protocol", "TCP", "--port", &port.to_string()]),
            Door::Socket(path) => words(&["--socket", &path.display().to_string()]),
        });
        out.extend(self.file_flags(&[("--ssl-ca", HOST_CA), ("--ssl-cert", "tlscert"), ("--ssl-key", "key")]));
        if self.files.is_some() {
            out.push(if mariadb() { "--ssl-verify-server-cert" } else { "--ssl-mode=VERIFY_IDENTITY" }.into());
        }
        out
    }

    fn mongodb(&self) -> Vec<String> {
        let host = match self.door {
            Door::Port(host, port) => authority(host, port),
            Door::Socket(path) => percent(&path.display().to_string()).replace('/', "%2F"),
        };
        let url = format!("mongodb://{host}/{}?directConnection=true", percent(self.database));
        let tls = self.file_flags(&[("--tlsCertificateKeyFile", "mongo.crt"), ("--tlsCAFile", HOST_CA)]);
        let tls = if tls.is_empty() { tls } else { [vec!["--tls".into()], tls].concat() };
        [words(&["mongosh", &url]), tls].concat()
    }
}

/// What a protocol's own client calls a socket; `None` where it knows only ports.
pub(crate) fn socket_name(protocol: &Protocol) -> Option<String> {
    match protocol.name {
        "postgres" => Some(format!("{POSTGRES_SOCKET}{}", protocol.port)),
        "mysql" | "mongodb" | "redis" => Some(format!("{}.sock", protocol.name)),
        _ => None,
    }
}

/// Followed by a port's number.
const POSTGRES_SOCKET: &str = ".s.PGSQL.";

/// What the proxy shows to clients with TLS of their own is signed by this authority (measured on a real cluster).
pub(crate) const HOST_CA: &str = "teleport-host-ca.crt";

/// Is the `mysql` of this machine MariaDB's? It names a flag differently.
fn mariadb() -> bool {
    let version = Command::new("mysql").arg("--version").output();
    version.is_ok_and(|output| String::from_utf8_lossy(&output.stdout).contains("MariaDB"))
}

fn words(words: &[&str]) -> Vec<String> {
    words.iter().map(|word| (*word).to_owned()).collect()
}

/// A host, which may be an address of IPv6, and a port (RFC 3986 §3.2).
pub(crate) fn authority(host: &str, port: impl Display) -> String {
    if host.contains(':') { format!("[{host}]:{port}") } else { format!("{host}:{port}") }
}

/// A part of a URL (RFC 3986 §2.3; `/` is left as it is, which paths need).
fn percent(text: &str) -> String {
    let kept = |byte: u8| byte.is_ascii_alphanumeric() || b"-._~/".contains(&byte);
    text.bytes().map(|byte| if kept(byte) { char::from(byte).to_string() } else { format!("%{byte:02X}") }).collect()
}

/// A word of a shell.
pub(crate) fn quoted(word: &str) -> String {
    let plain = |c: char| c.is_ascii_alphanumeric() || "-_./:=@,%+".contains(c);
    if !word.is_empty() && word.chars().all(plain) {
        return word.to_owned();
    }
    format!("'{}'", word.replace('\'', r"'\''"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shell(protocol: &str, files: Option<&Path>) -> String {
        at(Listen::loopback(15432), protocol, files)
    }

    fn at(address: Listen, protocol: &str, files: Option<&Path>) -> String {
        let protocol = Protocol::database(protocol).unwrap();
        let client = Client { protocol, door: &Door::from(&address), user: "alice", database: "example", files };
        client.command().map_or(String::new(), |command| command.shell())
    }

    #[test]
    fn the_recorded_hint_and_its_relatives() {
        assert_eq!(shell("postgres", None), "psql postgres://alice@localhost:15432/example");
        assert_eq!(
            shell("postgres", Some(Path::new("/opt/m"))),
            "psql 'postgres://alice@localhost:15432/example?sslrootcert=/opt/m/teleport-host-ca.crt&sslcert=/opt/m/tlscert&sslkey=/opt/m/key&sslmode=verify-full'"
        );
        assert_eq!(
            shell("mysql", None),
            "mysql --user alice --database example --host localhost --protocol TCP --port 15432"
        );
        assert_eq!(shell("mongodb", None), "mongosh 'mongodb://localhost:15432/example?directConnection=true'");
        assert_eq!(
            shell("redis", Some(Path::new("d"))),
            "redis-cli -h localhost -p 15432 --tls --cacert d/teleport-host-ca.crt --cert d/tlscert --key d/key"
        );
        assert_eq!(shell("sqlserver", None), "sqlcmd -S localhost,15432 -U alice -d example");
        assert_eq!(shell("snowflake", None), "");
    }

    #[test]
    fn an_address_of_ones_own_is_where_clients_are_led() {
        for (listen, host) in [
            ("0.0.0.0:1", "localhost:1"),
            ("[::1]:1", "localhost:1"),
            ("10.0.0.5:1", "10.0.0.5:1"),
            ("127.0.0.2:1", "127.0.0.2:1"),
            ("[fd00::5]:1", "[fd00::5]:1"),
        ] {
            let shown = at(Listen::parse(listen).unwrap(), "postgres", None);
            assert_eq!(shown.replace('\'', ""), format!("psql postgres://alice@{host}/example"), "{listen}");
        }
        assert!(at(Listen::parse("[fd00::5]:1").unwrap(), "redis", None).starts_with("redis-cli -h fd00::5 -p 1"));
    }

    #[test]
    fn clients_that_know_sockets_find_theirs() {
        for (protocol, command) in [
            ("postgres", "psql 'postgres://alice@/example?host=/run/a%20b&port=5432'"),
            ("mysql", "mysql --user alice --database example --socket '/run/a b/mysql.sock'"),
            ("mongodb", "mongosh 'mongodb://%2Frun%2Fa%20b%2Fmongodb.sock/example?directConnection=true'"),
            ("redis", "redis-cli -s '/run/a b/redis.sock'"),
        ] {
            let name = socket_name(Protocol::database(protocol).unwrap()).unwrap();
            assert_eq!(at(Listen::Unix(Path::new("/run/a b").join(name)), protocol, None), command);
        }
        assert_eq!(at(Listen::Unix("/run/other".into()), "postgres", None), "", "no client would find it");
        assert_eq!(socket_name(Protocol::database("sqlserver").unwrap()), None);
    }

    #[test]
    fn names_cannot_leave_their_places() {
        assert_eq!(percent("a@b/c?d&e"), "a%40b/c%3Fd%26e");
        assert_eq!(quoted("it's"), r"'it'\''s'");
        assert_eq!(quoted(""), "''");
    }
}
