//! The command line (surface §A). Flags may be repeated, the last one wins; usage errors end with exit status 1, as they always have.

use std::ffi::OsString;
use std::path::PathBuf;
use std::process::ExitCode;

use clap::builder::{OsStringValueParser, TypedValueParser};
use clap::error::{ContextKind, ContextValue, ErrorKind};
use clap::{Args, CommandFactory, Parser, Subcommand, ValueEnum};

use crate::configure::{Configure, Service};
use crate::proxy::Through;

/// Short-lived credentials for machines, from a Teleport cluster.
#[derive(Parser)]
#[command(name = "tbot", disable_version_flag = true, args_override_self = true, arg_required_else_help = true)]
pub(crate) struct Flags {
    /// Show debug messages on stderr
    #[arg(short, long, global = true, env = "TBOT_DEBUG", value_parser = clap::builder::FalseyValueParser::new())]
    pub(crate) debug: bool,
    /// Path of the configuration file
    #[arg(short, long, global = true, value_name = "FILE", env = "TBOT_CONFIG_PATH", value_parser = path())]
    pub(crate) config: Option<PathBuf>,
    /// The configuration file itself, in base64
    #[arg(long, global = true, hide = true, value_name = "BASE64", env = "TBOT_CONFIG", hide_env_values = true)]
    pub(crate) config_string: Option<String>,
    /// How log lines look
    #[arg(long, global = true, value_enum, default_value_t = LogFormat::Text)]
    pub(crate) log_format: LogFormat,
    /// Trust the cluster on first contact without verifying it
    #[arg(long, global = true)]
    pub(crate) insecure: bool,
    #[command(flatten)]
    pub(crate) traces: Traces,
    /// The switches whose last word was their `--no-` form.
    #[arg(skip)]
    off: Vec<String>,
    #[command(subcommand)]
    pub(crate) command: Command,
}

/// What the original tells its developers, or its updater. Units that name it start here as well (surface §A.2, §A.14).
#[derive(Args, Default)]
#[group(skip)]
pub(crate) struct Traces {
    #[arg(long, global = true, hide = true)]
    trace: bool,
    #[arg(long, global = true, hide = true)]
    trace_exporter: Option<String>,
    #[arg(long, global = true, hide = true)]
    mem_profile: Option<String>,
    #[arg(long, global = true, hide = true)]
    cpu_profile: Option<String>,
    #[arg(long, global = true, hide = true)]
    trace_profile: Option<String>,
    #[arg(long, global = true, hide = true)]
    diag_socket_for_updater: Option<String>,
}

impl Traces {
    /// The flags that were given, and do nothing.
    pub(crate) fn given(&self) -> impl Iterator<Item = &'static str> {
        let all = [
            ("--trace", self.trace),
            ("--trace-exporter", self.trace_exporter.is_some()),
            ("--mem-profile", self.mem_profile.is_some()),
            ("--cpu-profile", self.cpu_profile.is_some()),
            ("--trace-profile", self.trace_profile.is_some()),
            ("--diag-socket-for-updater", self.diag_socket_for_updater.is_some()),
        ];
        all.into_iter().filter(|(_, given)| *given).map(|(flag, _)| flag)
    }
}

#[derive(Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum LogFormat {
    Text,
    Json,
}

impl From<LogFormat> for telemetry::Format {
    fn from(format: LogFormat) -> Self {
        match format {
            LogFormat::Text => Self::Text,
            LogFormat::Json => Self::Json,
        }
    }
}

#[derive(Subcommand)]
pub(crate) enum Command {
    /// Join the cluster and keep the outputs fresh
    Start(Start),
    /// Print the configuration that flags mean
    Configure(Configure),
    /// Print a configuration of Teleport 12 or 13 (`-c`) as one of Teleport 14 and later
    Migrate {
        /// Write the file here, in place of stdout
        #[arg(short, long, value_name = "FILE", value_parser = path())]
        output: Option<PathBuf>,
    },
    /// Prepare a directory for the bot and its readers
    Init(Init),
    /// Check configuration, plugins and destinations without a network; exit status 1 on any mistake
    Validate(Report),
    /// Show what would be asked of the cluster and written where, without asking
    Plan(Report),
    /// Make this machine run the agent
    #[command(subcommand)]
    Install(Install),
    /// Wait until a running agent, or one of its services, is healthy
    Wait(Wait),
    /// Copy this program, for container images that have none
    CopyBinaries {
        /// Directory to copy to; created where it is missing
        directory: PathBuf,
    },
    /// Print a shell's completion script
    Completion {
        /// The shell
        shell: clap_complete::Shell,
    },
    /// Write the manual pages, one for each command
    #[command(hide = true)]
    ManPages {
        /// Directory to write to
        directory: PathBuf,
    },
    /// Open a local port that leads to an application (`app`) or a database (`db`), or reach a host by SSH (`ssh`)
    Proxy(Through),
    /// Databases of the cluster: `ls`, `connect`, and for other clients `config` and `env`
    Db(Through),
    /// Print the version
    Version,
    /// Compile a plugin: what the agent runs itself as, in a process of its own
    #[command(hide = true)]
    PluginCompile { input: PathBuf, output: PathBuf },
}

#[derive(Args, Default)]
#[command(args_override_self = true)]
pub(crate) struct Start {
    /// Address of the Auth Service, or of a Proxy Service [env: TELEPORT_AUTH_SERVER]
    #[arg(short, long, global = true, value_name = "HOST:PORT")]
    pub(crate) auth_server: Option<String>,
    /// Address of the Proxy Service [env: TELEPORT_PROXY]
    #[arg(long, global = true, value_name = "HOST:PORT")]
    pub(crate) proxy_server: Option<String>,
    /// Join token, or the absolute path of a file that holds it [env: TELEPORT_BOT_TOKEN]
    #[arg(long, global = true)]
    pub(crate) token: Option<String>,
    /// Address, method and token in one: tbot+proxy+<method>://<token>@<host>:<port>
    #[arg(long, global = true, value_name = "URI")]
    pub(crate) join_uri: Option<String>,
    /// How to join, such as token, azure, iam or github
    #[arg(long, global = true, value_name = "METHOD")]
    pub(crate) join_method: Option<String>,
    /// Pin of the cluster's authority, sha256:<hex>; may be repeated
    #[arg(long, global = true, value_name = "PIN", action = clap::ArgAction::Append)]
    pub(crate) ca_pin: Vec<String>,
    /// Where the bot keeps its own identity: a path, file:// or memory://
    #[arg(long, global = true, visible_alias = "storage", value_name = "PATH")]
    pub(crate) data_dir: Option<String>,
    /// Write one identity output here, in place of the configured outputs
    #[arg(long, global = true, value_name = "PATH", value_parser = path())]
    pub(crate) destination_dir: Option<PathBuf>,
    /// Life of certificates, such as 1h or 1d
    #[arg(long, global = true, visible_alias = "credential-ttl", value_name = "DURATION")]
    pub(crate) certificate_ttl: Option<String>,
    /// Time between renewals, such as 20m
    #[arg(long, global = true, value_name = "DURATION")]
    pub(crate) renewal_interval: Option<String>,
    /// Renew everything once and exit
    #[arg(long, global = true)]
    pub(crate) oneshot: bool,
    /// Address to serve health and metrics on
    #[arg(long, global = true, value_name = "HOST:PORT")]
    pub(crate) diag_addr: Option<String>,
    /// Write the process id here while running
    #[arg(long, global = true, value_name = "FILE")]
    pub(crate) pid_file: Option<PathBuf>,
    #[command(subcommand)]
    pub(crate) service: Option<Service>,
}

/// `tbot init` (surface §A.8).
#[derive(Args)]
#[command(args_override_self = true)]
pub(crate) struct Init {
    /// Prepare this directory for an identity output, in place of the configured outputs
    #[arg(long, value_name = "PATH")]
    pub(crate) destination_dir: Option<PathBuf>,
    /// Path of the output to prepare, as the configuration spells it; needed where there are several
    #[arg(long, value_name = "PATH")]
    pub(crate) init_dir: Option<PathBuf>,
    /// Owner of all files [default: the bot user and its group]
    #[arg(long, value_name = "USER:GROUP")]
    pub(crate) owner: Option<String>,
    /// User that the agent runs as
    #[arg(long, value_name = "USER")]
    pub(crate) bot_user: Option<String>,
    /// User that reads the files
    #[arg(long, value_name = "USER")]
    pub(crate) reader_user: Option<String>,
    /// Remove what does not belong there
    #[arg(long)]
    pub(crate) clean: bool,
    /// Accepted, and not needed: nothing is asked of the cluster
    #[arg(short, long, hide = true, value_name = "HOST:PORT")]
    pub(crate) auth_server: Option<String>,
    /// As `--auth-server`
    #[arg(long, hide = true, value_name = "HOST:PORT")]
    pub(crate) proxy_server: Option<String>,
}

impl Init {
    /// What it shares with `tbot start`.
    pub(crate) fn start(&self) -> Start {
        Start { destination_dir: self.destination_dir.clone(), ..Start::default() }
    }
}

/// How `validate` and `plan` answer.
#[derive(Args)]
#[command(args_override_self = true)]
pub(crate) struct Report {
    #[command(flatten)]
    pub(crate) start: Start,
    /// How the answer looks
    #[arg(long, value_enum, default_value_t = LogFormat::Text)]
    pub(crate) format: LogFormat,
}

#[derive(Subcommand)]
pub(crate) enum Install {
    /// Write a systemd unit; without --write only show it
    Systemd(Systemd),
}

/// `tbot install systemd` (surface §A.14).
#[derive(Args)]
#[command(args_override_self = true)]
pub(crate) struct Systemd {
    /// Name of the unit
    #[arg(long, default_value = "tbot")]
    pub(crate) name: String,
    /// User that the agent runs as
    #[arg(long, default_value = "teleport")]
    pub(crate) user: String,
    /// Group that the agent runs as
    #[arg(long, default_value = "teleport")]
    pub(crate) group: String,
    /// Where units lie
    #[arg(long, value_name = "DIR", default_value = "/etc/systemd/system")]
    pub(crate) systemd_directory: PathBuf,
    /// Write the unit: without this it is only shown
    #[arg(long)]
    pub(crate) write: bool,
    /// Overwrite a unit with other contents
    #[arg(long)]
    pub(crate) force: bool,
    /// Set TELEPORT_ANONYMOUS_TELEMETRY=1; this build reports nothing either way
    #[arg(long)]
    pub(crate) anonymous_telemetry: bool,
    /// File for the process id [default: /run/<NAME>.pid in `PIDFile=`, not written]
    #[arg(long, value_name = "FILE")]
    pub(crate) pid_file: Option<PathBuf>,
    /// Add every restriction of systemd that the agent tolerates; only the configured directories stay writable
    #[arg(long)]
    pub(crate) hardened: bool,
}

/// `tbot wait` (surface §A.13).
#[derive(Args)]
#[command(args_override_self = true)]
pub(crate) struct Wait {
    /// The running agent's `diag_addr`
    #[arg(long, value_name = "HOST:PORT")]
    pub(crate) diag_addr: String,
    /// Name of one service to wait for, in place of all
    #[arg(long)]
    pub(crate) service: Option<String>,
    /// Give up after this long, such as 30s
    #[arg(long, value_name = "DURATION")]
    pub(crate) timeout: Option<String>,
}

impl Flags {
    /// Reads the command line. Help is printed here; so are usage errors, in the original's shape.
    pub(crate) fn read(arguments: impl IntoIterator<Item = OsString>) -> Result<Self, ExitCode> {
        let arguments = with_files(arguments).map_err(|message| {
            eprintln!("tbot: error: {message}");
            ExitCode::FAILURE
        })?;
        let (arguments, off) = without_negations(arguments);
        let read = Self::try_parse_from(arguments).map(|mut flags| {
            // The variable stands for the flag, and is older than what was typed.
            flags.debug &= !off.iter().any(|name| name == "debug");
            flags.off = off;
            flags.config = flags.config.filter(|path| !path.as_os_str().is_empty());
            flags.config_string = flags.config_string.filter(|text| !text.is_empty());
            flags
        });
        read.map_err(|error| {
            if !error.use_stderr() {
                let _ = error.print();
                return ExitCode::SUCCESS;
            }
            if let Some(name) = unknown(&error).filter(|name| not_yet(name)) {
                eprintln!("ERROR: `{name}` is not supported yet");
                return ExitCode::FAILURE;
            }
            let text = error.to_string();
            eprintln!("ERROR: {}", text.strip_prefix("error: ").unwrap_or(&text).trim_end());
            if let Some(line) = last_line(&error) {
                eprintln!("tbot: error: {line}");
            }
            ExitCode::FAILURE
        })
    }

    /// What a switch says: nothing, or the last of its forms.
    pub(crate) fn switch(&self, name: &str, on: bool) -> Option<bool> {
        if on { Some(true) } else { self.off.iter().any(|off| off == name).then_some(false) }
    }
}

/// A path that may be empty: scripts hand on variables that are, which means that none is given.
pub(crate) fn path() -> impl TypedValueParser<Value = PathBuf> {
    OsStringValueParser::new().map(PathBuf::from)
}

/// `@file` stands for the lines of a file but those that begin with `#`; not behind `--`, nor in what `proxy` and `db` hand on.
fn with_files(arguments: impl IntoIterator<Item = OsString>) -> Result<Vec<OsString>, String> {
    let mut all = Vec::new();
    let mut expand = true;
    for argument in arguments {
        expand &= !["--", "proxy", "db"].iter().any(|word| argument == *word);
        match argument.to_str().and_then(|text| text.strip_prefix('@')).filter(|_| expand) {
            None => all.push(argument),
            Some(file) => {
                let text = std::fs::read_to_string(file)
                    .map_err(|e| format!("failed to open arguments file \"{file}\": {e}"))?;
                all.extend(text.lines().filter(|line| !line.is_empty() && !line.starts_with('#')).map(OsString::from));
            }
        }
    }
    Ok(all)
}

/// The flag or word that nothing here is called.
fn unknown(error: &clap::Error) -> Option<&str> {
    let context = [ContextKind::InvalidArg, ContextKind::InvalidSubcommand];
    let name = context.into_iter().find_map(|kind| error.get(kind));
    match (error.kind(), name) {
        (ErrorKind::UnknownArgument | ErrorKind::InvalidSubcommand, Some(ContextValue::String(name))) => Some(name),
        _ => None,
    }
}

/// Commands, services and flags of the original that are missing, not misspelt (surface §A.4, §A.12).
fn not_yet(name: &str) -> bool {
    const WORDS: [&str; 11] = [
        "app-proxy",
        "k8s",
        "k8s/v2",
        "keypair",
        "kube",
        "kubernetes",
        "kubernetes/v2",
        "spiffe-inspect",
        "ssh-multiplexer-proxy-command",
        "ssh-proxy-command",
        "tpm",
    ];
    const FLAGS: [&str; 5] =
        ["--fips", "--registration-secret", "--registration-secret-path", "--scoped", "--static-key-path"];
    WORDS.contains(&name) || FLAGS.contains(&name) || config::SERVICES_NOT_YET.contains(&name)
}

/// What the original says last of an argument that it does not know: scripts match on it.
fn last_line(error: &clap::Error) -> Option<String> {
    let name = unknown(error)?;
    Some(match name {
        long if long.starts_with("--") => format!("unknown long flag '{long}'"),
        short if short.starts_with('-') => format!("unknown short flag '{short}'"),
        word => format!("unexpected {word}"),
    })
}

/// Every switch has a `--no-` form; the last of both wins, as for every flag (surface §A.12). Beside the other arguments, those whose
/// `--no-` form won.
fn without_negations(arguments: Vec<OsString>) -> (Vec<OsString>, Vec<String>) {
    if !arguments.iter().any(|argument| argument.to_str().is_some_and(|text| text.starts_with("--no-"))) {
        return (arguments, Vec::new());
    }
    let mut switches: Vec<String> = switches(&Flags::command());
    // Off is all that they can be yet.
    switches.extend(["fips", "scoped"].map(str::to_owned));
    let (mut kept, mut off): (Vec<OsString>, Vec<String>) = (Vec::new(), Vec::new());
    let mut flags = true;
    for argument in arguments {
        flags &= argument != "--";
        let forms = |name: &str| [format!("--{name}"), if name == "debug" { "-d" } else { "" }.to_owned()];
        let positive = argument.to_str().and_then(|text| text.strip_prefix("--no-"));
        match positive.filter(|name| flags && switches.iter().any(|switch| switch == name)) {
            Some(name) => {
                kept.retain(|earlier| !forms(name).iter().any(|form| earlier == form.as_str()));
                off.push(name.to_owned());
            }
            None => {
                off.retain(|name| !forms(name).iter().any(|form| argument == form.as_str()));
                kept.push(argument);
            }
        }
    }
    (kept, off)
}

fn switches(command: &clap::Command) -> Vec<String> {
    let own = command.get_arguments().filter(|argument| matches!(argument.get_action(), clap::ArgAction::SetTrue));
    let own = own.filter_map(|argument| argument.get_long().map(str::to_owned));
    own.chain(command.get_subcommands().flat_map(switches)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_switch_has_a_no_form_and_the_last_of_both_wins() {
        for (line, wanted) in [
            ("tbot start --oneshot --no-oneshot", false),
            ("tbot start --no-oneshot --oneshot", true),
            ("tbot start --no-insecure --oneshot", true),
            ("tbot start --no-fips --oneshot", true),
        ] {
            let Command::Start(start) = read(line).command else { panic!("not start") };
            assert_eq!(start.oneshot, wanted, "{line}");
        }
        assert!(Flags::read(["tbot", "start", "--no-token"].map(OsString::from)).is_err());
        assert!(!read("tbot -d start --no-debug").debug);
        let off = |line: &str| {
            let flags = read(line);
            ["oneshot", "insecure", "debug"].map(|name| flags.switch(name, name == "insecure" && flags.insecure))
        };
        assert_eq!(off("tbot start --no-oneshot --no-insecure --insecure"), [Some(false), Some(true), None]);
        assert_eq!(off("tbot start --no-debug -d --oneshot"), [None, None, None]);
    }

    #[test]
    fn the_definition_holds_together() {
        Flags::command().debug_assert();
    }

    fn read(line: &str) -> Flags {
        Flags::read(line.split(' ').map(OsString::from)).unwrap_or_else(|_| panic!("refused: {line}"))
    }

    #[test]
    fn global_flags_stand_before_and_behind_the_command_and_the_last_one_wins() {
        for line in ["tbot -d -c a start", "tbot start -c b -d -c a", "tbot --config=b start --config=a --debug"] {
            let flags = read(line);
            assert!(flags.debug && flags.config == Some(PathBuf::from("a")), "{line}");
        }
        let flags = read("tbot start --auth-server=a -a b --ca-pin=sha256:1 --ca-pin=sha256:2 --token x --oneshot");
        let Command::Start(start) = flags.command else { panic!("not start") };
        assert_eq!(start.auth_server.as_deref(), Some("b"));
        assert_eq!(start.ca_pin, ["sha256:1", "sha256:2"]);
        assert!(start.oneshot);
    }

    #[test]
    fn arguments_may_stand_in_a_file() {
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(file.path(), "# a comment\n--oneshot\n--token=@x\n\n-c\na b\n").unwrap();
        let name = file.path().to_str().unwrap();
        let flags = read(&format!("tbot start @{name}"));
        let Command::Start(start) = flags.command else { panic!("not start") };
        assert_eq!((start.oneshot, start.token.as_deref(), flags.config), (true, Some("@x"), Some("a b".into())));
        assert!(with_files(["tbot", "start", "@nowhere"].map(OsString::from)).is_err());
        for kept in ["db @x", "proxy ssh @x", "start -- @x"] {
            assert!(with_files(kept.split(' ').map(OsString::from)).unwrap().contains(&"@x".into()), "{kept}");
        }
    }

    #[test]
    fn an_empty_path_is_none() {
        for line in ["tbot -c= start", "tbot start --config= --destination-dir="] {
            assert_eq!(read(line).config, None, "{line}");
        }
    }

    #[test]
    fn an_unknown_flag_is_refused() {
        assert!(Flags::read(["tbot", "start", "--no-such-flag"].map(OsString::from)).is_err());
        assert!(Flags::read(["tbot", "no-such-command"].map(OsString::from)).is_err());
    }

    #[test]
    fn what_the_original_has_and_this_build_has_not_is_not_called_unknown() {
        for (line, wanted) in [
            ("tbot start kubernetes --destination /x", Some("kubernetes")),
            ("tbot start workload-identity-jwt", Some("workload-identity-jwt")),
            ("tbot keypair create", Some("keypair")),
            ("tbot start --fips", Some("--fips")),
            ("tbot start --registration-secret=x", Some("--registration-secret")),
            ("tbot start --such", None),
        ] {
            let Err(error) = Flags::try_parse_from(line.split(' ')) else { panic!("accepted: {line}") };
            assert_eq!(unknown(&error).filter(|name| not_yet(name)), wanted, "{line}");
        }
        let flags = read("tbot --trace start --diag-socket-for-updater=/run/x --cpu-profile y");
        assert_eq!(flags.traces.given().collect::<Vec<_>>(), ["--trace", "--cpu-profile", "--diag-socket-for-updater"]);
    }
}
