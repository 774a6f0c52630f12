//! `tbot proxy app|db|ssh`: a local port that leads to an application or a database, SSH to a host (surface §A.10), without `tsh`.

use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use clap::{Args, Parser, Subcommand};
use cluster::{ClusterConfig, TeleportCluster};
use config::{Config, DestinationConfig, ServerAddress, ServerKind};
use identity::{Clock, Destination, SystemClock};
use renewal::Reload;
use rustix::process::{Resource, getrlimit, setrlimit};
use storage::{Directory, Rules, Symlinks};
use tunnel::{Credentials, Limits, Listen, Mode, Settings, Target, Tunnel};

use crate::client::{Client, Door};
use crate::flags::Flags;
use crate::signals::Signals;
use crate::{ssh, start, wiring};

/// What `proxy` and `db` have in common.
#[derive(Args)]
#[command(args_override_self = true)]
pub(crate) struct Through {
    /// Address of the Proxy Service [default: of the configuration, or what the cluster names]
    #[arg(long, alias = "proxy", value_name = "HOST:PORT", env = "TELEPORT_PROXY")]
    proxy_server: Option<String>,
    /// Directory of an output, kept fresh by `tbot start` [default: the only output of the configuration]
    #[arg(long, value_name = "DIR")]
    destination_dir: Option<PathBuf>,
    /// Name of the cluster, as messages show it [default: of the certificate]
    #[arg(long)]
    cluster: Option<String>,
    /// What to do, and its flags; `--help` behind it says more
    #[arg(trailing_var_arg = true, allow_hyphen_values = true, required = true)]
    arguments: Vec<OsString>,
}

/// Open a local port that leads to an application or a database, or reach a host by SSH
#[derive(Parser)]
#[command(name = "tbot proxy", disable_version_flag = true, args_override_self = true)]
struct Proxy {
    #[command(subcommand)]
    what: What,
}

#[derive(Subcommand)]
enum What {
    #[command(flatten)]
    Local(Local),
    /// To an SSH server, over stdin and stdout: what an output's `ssh_config` runs
    Ssh {
        #[command(flatten)]
        common: Common,
        /// `[USER@]HOST[:PORT]`; without a port, wherever the host listens
        target: String,
    },
}

/// What gets a port of this machine.
#[derive(Subcommand)]
enum Local {
    /// To an application
    App {
        #[command(flatten)]
        open: Open,
        /// Name of the application
        app: String,
    },
    /// To a database
    Db {
        #[command(flatten)]
        open: Open,
        #[command(flatten)]
        session: DbSession,
        #[command(flatten)]
        service: Service,
    },
}

#[derive(Args)]
#[command(args_override_self = true)]
struct Open {
    /// Port of 127.0.0.1 to listen on [default: a free one]
    #[arg(short, long)]
    port: Option<u16>,
    /// Where to listen instead: `HOST:PORT`, `tcp://HOST:PORT` or `unix:///PATH`
    #[arg(long, value_name = "ADDR", conflicts_with = "port")]
    listen: Option<String>,
    #[command(flatten)]
    common: Common,
}

/// Flags that may stand behind the inner command too, as with `tsh`.
#[derive(Args)]
pub(crate) struct Common {
    #[arg(short, long, hide = true, global = true)]
    pub(crate) cluster: Option<String>,
    #[arg(short, long, hide = true, global = true)]
    pub(crate) debug: bool,
    #[arg(long, hide = true, global = true)]
    pub(crate) insecure: bool,
}

/// Which database is meant.
#[derive(Args)]
pub(crate) struct Service {
    /// Name of the database service [default: of the certificate]
    service: Option<String>,
    /// What `tsh` picks one of many by, where a certificate knows one.
    #[arg(long, hide = true)]
    labels: Option<String>,
    #[arg(long, hide = true)]
    query: Option<String>,
}

impl Service {
    pub(crate) async fn name(&self, context: &Context) -> Result<String, String> {
        if self.labels.is_some() || self.query.is_some() {
            tracing::info!(target: "TBOT", "`--labels` and `--query` are ignored: the certificate is for one database.");
        }
        if let Some(name) = &self.service {
            return Ok(name.clone());
        }
        let credential = context.credentials()?.current().await.map_err(|e| e.to_string())?;
        credential.tls.subject.attribute("2.1").map(str::to_owned).ok_or_else(|| {
            format!(
                "the certificate in {} is for no database: name the directory of an output `{{type: database}}`",
                context.directory.display()
            )
        })
    }
}

/// How a database is met.
#[derive(Args)]
pub(crate) struct DbSession {
    /// Show the certificate for the client: whoever reaches the port gets through
    #[arg(long)]
    pub(crate) tunnel: bool,
    /// Database user, as the hint shows it [default: of the certificate]
    #[arg(short = 'u', long, value_name = "USER")]
    pub(crate) db_user: Option<String>,
    /// Database, as the hint shows it [default: of the certificate]
    #[arg(short = 'n', long, value_name = "NAME")]
    pub(crate) db_name: Option<String>,
    /// What `tsh` lets people ask for, and this certificate has settled.
    #[arg(long, hide = true)]
    db_roles: Option<String>,
    #[arg(long, hide = true)]
    request_reason: Option<String>,
    #[arg(long, hide = true)]
    disable_access_request: bool,
}

/// Runs until a signal.
pub(crate) fn proxy(flags: &Flags, through: &Through) -> Result<(), String> {
    let Some(Proxy { what }) = inner(through, "tbot proxy")? else { return Ok(()) };
    let local = match what {
        What::Ssh { common, target } => return ssh::proxy(&Context::new(flags, through, &common)?, &target),
        What::Local(local) => local,
    };
    let (Local::App { open, .. } | Local::Db { open, .. }) = &local;
    let context = Context::new(flags, through, &open.common)?;
    let listen = match &open.listen {
        Some(text) => Listen::parse(text).map_err(|e| e.to_string())?,
        None => Listen::loopback(open.port.unwrap_or(0)),
    };
    let chosen = open.port.is_some() || open.listen.is_some();
    context.block_on(async {
        let shutdown = Signals::install().map_err(|e| format!("signals cannot be handled: {e}"))?;
        let (target, mode) = match &local {
            Local::App { app, .. } => (Target::Application(app.clone(), None), Mode::Authenticated),
            Local::Db { service, session, .. } => {
                session.note_ignored();
                (Target::Database(service.name(&context).await?), session.mode())
            }
        };
        let mut shutdown = std::pin::pin!(shutdown.shutdown(Reload::new()));
        let tunnel = tokio::select! {
            opened = Tunnel::open(context.settings(listen, target.clone(), mode)?) => opened.map_err(|e| e.to_string())?,
            () = &mut shutdown => return Ok(()),
        };
        let (started, next) = match (&target, &local) {
            (Target::Database(service), Local::Db { session, .. }) => context.hint(&tunnel, service, session).await?,
            (Target::Application(name, _) | Target::Database(name), _) => {
                (format!("Proxying connections to {name} on {}", tunnel.address()), String::new())
            }
        };
        let random = "To avoid port randomization, you can choose the listening port using the --port flag.\n";
        print!("{started}\n{}{next}", if chosen { "" } else { random });
        tunnel.serve(shutdown).await;
        Ok(())
    })
}

/// Reads what stands behind `proxy` or `db`; `None` where help was asked for and given.
pub(crate) fn inner<T: Parser>(through: &Through, name: &str) -> Result<Option<T>, String> {
    let arguments = [OsString::from(name)].into_iter().chain(through.arguments.iter().cloned());
    T::try_parse_from(arguments).map(Some).or_else(|error| {
        if !error.use_stderr() {
            let _ = error.print();
            return Ok(None);
        }
        let text = error.to_string();
        Err(text.strip_prefix("error: ").unwrap_or(&text).trim_end().to_owned())
    })
}

impl DbSession {
    /// Says what is accepted and does nothing.
    pub(crate) fn note_ignored(&self) {
        if self.db_roles.is_some() || self.request_reason.is_some() || self.disable_access_request {
            tracing::info!(target: "TBOT", "`--db-roles`, `--request-reason` and `--disable-access-request` are ignored: the certificate has settled what the bot may do.");
        }
    }

    pub(crate) fn mode(&self) -> Mode {
        if self.tunnel { Mode::Authenticated } else { Mode::Passthrough }
    }
}

/// What the command line and the configuration say together.
pub(crate) struct Context {
    /// Absolute or as given: as the hint shows it.
    pub(crate) directory: PathBuf,
    /// Host and port of the proxy, where both are known.
    pub(crate) proxy: Option<(String, u16)>,
    pub(crate) cluster: Arc<TeleportCluster>,
    pub(crate) named_cluster: Option<String>,
}

impl Context {
    pub(crate) fn new(flags: &Flags, through: &Through, common: &Common) -> Result<Self, String> {
        telemetry::init(flags.log_format.into(), flags.debug || common.debug);
        if std::env::var_os("TSH").is_some() {
            tracing::info!(target: "TBOT", "TSH is ignored: this build needs no `tsh`.");
        }
        raise_file_limit();
        let insecure = flags.insecure || common.insecure;
        let config = flags.config.as_deref().map(|path| configuration(path, insecure)).transpose()?;
        let address = match (&through.proxy_server, &config) {
            (Some(text), _) if !text.is_empty() => ServerAddress::parse(text, ServerKind::Proxy)?,
            (_, Some(config)) if !config.address.text.is_empty() => config.address.clone(),
            _ => {
                return Err(
                    "the proxy is not known: give `--proxy-server HOST:PORT`, or a configuration with `-c`".into()
                );
            }
        };
        let cluster = TeleportCluster::new(ClusterConfig {
            address: wiring::address(&address),
            ca_pins: vec![],
            authority_pem: None,
            insecure: insecure || config.as_ref().is_some_and(|config| config.insecure),
            clock: Arc::new(SystemClock),
        });
        let directory = directory(through.destination_dir.as_deref(), config.as_ref())?;
        let named_cluster = common.cluster.clone().or_else(|| through.cluster.clone());
        let proxy = address.port.filter(|_| address.kind == ServerKind::Proxy).map(|port| (address.host, port));
        Ok(Self { directory, proxy, cluster: Arc::new(cluster), named_cluster })
    }

    pub(crate) fn block_on<T>(&self, work: impl Future<Output = Result<T, String>>) -> Result<T, String> {
        start::runtime()?.block_on(work)
    }

    pub(crate) fn credentials(&self) -> Result<Credentials, String> {
        let rules = Rules { symlinks: Symlinks::Insecure, ..Rules::default() };
        // Only read, with the rights of whoever runs this: a symlink leads nowhere new.
        let source = Directory::new(&self.directory, rules).map_err(|e| e.to_string())?;
        let (source, clock): (Arc<dyn Destination>, Arc<dyn Clock>) = (Arc::new(source), Arc::new(SystemClock));
        Ok(Credentials::new(source, clock))
    }

    pub(crate) fn settings(&self, listen: Listen, target: Target, mode: Mode) -> Result<Settings, String> {
        let (credentials, cluster) = (self.credentials()?, self.cluster.clone());
        Ok(Settings { listen, target, mode, credentials, cluster, limits: Limits::default() })
    }

    /// What listens and what to run next, in the original's words where programs may look for them (recorded, `proxies`).
    async fn hint(&self, tunnel: &Tunnel, service: &str, session: &DbSession) -> Result<(String, String), String> {
        let credential = tunnel.credential().await.map_err(|e| e.to_string())?;
        let address = tunnel.address();
        let protocol = tunnel.protocol();
        let subject = &credential.tls.subject;
        let door = Door::from(address);
        let client = Client {
            protocol,
            door: &door,
            user: session.db_user.as_deref().or(subject.attribute("2.3")).unwrap_or_default(),
            database: session.db_name.as_deref().or(subject.attribute("2.4")).unwrap_or_default(),
            files: (!session.tunnel).then_some(self.directory.as_path()),
        };
        if !session.tunnel {
            let files = client.files_hint();
            let next = format!("\nUse the following credentials to connect to the {service} proxy:\n{files}");
            return Ok((format!("Started DB proxy on {address}"), next));
        }
        let cluster = self.named_cluster.as_deref().unwrap_or(&credential.tls.cluster);
        let title = protocol.title;
        let started = format!(
            "Started authenticated tunnel for the {title} database {service:?} in cluster {cluster:?} on {address}."
        );
        let next = client.command().map(|command| {
            format!(
                "\nUse the following command to connect to the database or to the address above using other database GUI/CLI clients:\n  $ {}\n",
                command.shell()
            )
        });
        Ok((started, next.unwrap_or_default()))
    }
}

fn configuration(path: &Path, insecure: bool) -> Result<Config, String> {
    let flags = config::Flags { insecure: insecure.then_some(true), outputs_only: true, ..config::Flags::default() };
    config::load(Some(path), &flags, &|name| std::env::var(name).ok()).map_err(|mistakes| mistakes.to_string())
}

/// The directory to read, in the words that the original has for what is missing (surface §A.10).
fn directory(given: Option<&Path>, config: Option<&Config>) -> Result<PathBuf, String> {
    if let Some(given) = given {
        return Ok(given.to_owned());
    }
    match config.map(|config| config.outputs.as_slice()) {
        None | Some([]) => {
            Err("either --destination-dir or a config file containing an output must be specified".into())
        }
        Some([only]) => match &only.destination {
            DestinationConfig::Directory { path, .. } => Ok(path.clone()),
            _ => Err(format!("destination of output `{}` must be a directory: give --destination-dir", only.name)),
        },
        Some(_) => Err("the config file contains multiple outputs; a --destination-dir must be specified".into()),
    }
}

/// Two descriptors for every connection: what the system allows is used, as Go programs do.
pub(crate) fn raise_file_limit() {
    let mut limit = getrlimit(Resource::Nofile);
    limit.current = limit.maximum;
    // Refused only where it is raised already.
    let _ = setrlimit(Resource::Nofile, limit);
}
