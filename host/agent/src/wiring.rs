//! From the checked configuration to a bot: which room gets which part.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use catalog::{Catalog, Grants, Kind, ThirdParty};
use cluster::{Address, AddressKind, ClusterConfig, TeleportCluster};
use config::{
    Action, Config, DestinationConfig, Mistake, OnChange, OutputConfig, ServerAddress, ServerKind, did_you_mean,
};
use identity::{Clock, Destination, Failure, FailureKind, JoinMethod, Monitor};
use renewal::{Bot, BotSettings, Hook, OutputJob, OutputSettings, TokenSource};
use rustix::process::Signal;
use storage::{Acls, Directory, Layout, Memory, Reader, Rules, Symlinks, User};
use zeroize::Zeroizing;

use crate::configure::Service;
use crate::flags::{Flags, Start};
use crate::tunnels::{self, Planned};

/// Held as long as the bot runs: the exclusive lock of its storage.
pub(crate) type Lock = Box<dyn Send + Sync>;

/// Reads and checks the configuration, flags and environment on top.
pub(crate) fn configuration(flags: &Flags, start: &Start) -> Result<Config, config::Mistakes> {
    read(flags, &overrides(flags, start), &|name: &str| std::env::var(name).ok())
}

/// As [`configuration`], of a bot that is not run here: how and where it joins may be missing, and its variables mean nothing.
pub(crate) fn outputs_only(flags: &Flags, start: &Start) -> Result<Config, config::Mistakes> {
    let overrides = config::Flags { outputs_only: true, ..overrides(flags, start) };
    read(flags, &overrides, &|_| None)
}

fn read(
    flags: &Flags,
    overrides: &config::Flags,
    environment: &dyn Fn(&str) -> Option<String>,
) -> Result<Config, config::Mistakes> {
    let Some(encoded) = &flags.config_string else {
        return config::load(flags.config.as_deref(), overrides, environment);
    };
    let name = Path::new("--config-string");
    let refused = |message: &str| config::Mistakes::from(Mistake::elsewhere(Some(name.to_owned()), "", message));
    if flags.config.is_some() {
        return Err(refused("cannot specify both config and config-string: remove one of them, or its variable"));
    }
    let text = STANDARD.decode(encoded.trim()).map(Zeroizing::new);
    let text = text.map_err(|_| refused("not base64: encode the YAML file with `base64 --wrap=0`"))?;
    config::parse(Some((name, &text)), overrides, environment)
}

/// What the command line lays over the file.
pub(crate) fn overrides(flags: &Flags, start: &Start) -> config::Flags {
    config::Flags {
        auth_server: start.auth_server.clone(),
        proxy_server: start.proxy_server.clone(),
        token: start.token.clone().map(Zeroizing::new),
        join_uri: start.join_uri.clone().map(Zeroizing::new),
        service: start.service.as_ref().and_then(Service::flags),
        join_method: start.join_method.clone(),
        ca_pins: start.ca_pin.clone(),
        data_dir: start.data_dir.clone(),
        destination_dir: start.destination_dir.clone(),
        certificate_ttl: start.certificate_ttl.clone(),
        renewal_interval: start.renewal_interval.clone(),
        diag_addr: start.diag_addr.clone(),
        oneshot: flags.switch("oneshot", start.oneshot),
        debug: flags.switch("debug", flags.debug),
        insecure: flags.switch("insecure", flags.insecure),
        outputs_only: false,
    }
}

/// What a configuration means, before anything is locked, written or asked of the cluster.
pub(crate) struct Parts {
    /// Where the bot's own identity is kept.
    pub(crate) store: Arc<dyn Destination>,
    pub(crate) method: Arc<dyn JoinMethod>,
    pub(crate) outputs: Vec<OutputJob>,
    /// What an operator should know: keys that a plugin does not have.
    pub(crate) warnings: Vec<Mistake>,
    /// Every plugin that is used, and what it may touch.
    pub(crate) plugins: BTreeMap<(Kind, String), Grants>,
    tunnels: Vec<Planned>,
    authority_pem: Option<String>,
}

/// Resolves every plugin and plans every output.
///
/// # Errors
/// All mistakes of all parts, each at its place in the file.
pub(crate) async fn parts(config: &Config) -> Result<Parts, Vec<Mistake>> {
    let whole =
        |failures: Vec<Failure>| failures.into_iter().map(|failure| elsewhere(config, failure)).collect::<Vec<_>>();
    let store = destination(&config.storage).map_err(|failure| whole(vec![failure]))?;
    let catalog = catalog(config, store.directory()).await.map_err(whole)?;
    let executable = std::env::current_exe().map_err(|e| whole(vec![internal(&e)]))?.to_string_lossy().into_owned();
    let (mut mistakes, mut warnings) = (Vec::new(), Vec::new());
    let mut outputs = Vec::new();
    for output in &config.outputs {
        match job(output, config, &catalog, &executable, &mut warnings).await {
            Ok(job) => outputs.push(job),
            Err(failure) => mistakes.push(output_mistake(output, failure)),
        }
    }
    let mut tunnels = Vec::new();
    for tunnel in &config.tunnels {
        match tunnels::plan(tunnel, config, &catalog, &executable).await {
            Ok(_) if config.oneshot => {
                let message = format!("Service does not support oneshot mode, will not run: {}", tunnel.name);
                warnings.push(tunnel.mistake("type", message));
            }
            Ok((job, planned)) => {
                outputs.push(job);
                tunnels.push(planned);
            }
            Err(failure) if failure.message.starts_with("listen: ") => {
                mistakes.push(tunnel.mistake("listen", failure.message))
            }
            Err(failure) => mistakes.push(tunnel.mistake("type", failure.message)),
        }
    }
    let located = |key, failure: Failure| config.onboarding.mistake(key, failure.message);
    let method = catalog.join_method(&config.onboarding.join_method).await;
    let method = method.map_err(|failure| mistakes.push(located("join_method", failure)));
    let authority_pem = config.onboarding.ca_path.as_deref().map(authority).transpose();
    let authority_pem = authority_pem.map_err(|failure| mistakes.push(located("ca_path", failure)));
    let (Ok(method), Ok(authority_pem), true) = (method, authority_pem, mistakes.is_empty()) else {
        return Err(mistakes);
    };
    if let Some(settings) = config.onboarding.method_config.as_object() {
        let join = &config.onboarding.join_method;
        let unknown = unknown(settings, &method.description().keys, join).into_iter();
        let place = |key| format!("{}.{key}", config::method_key(join));
        warnings.extend(unknown.map(|(key, message)| config.onboarding.mistake(&place(key), message)));
    }
    let mut plugins = BTreeMap::new();
    for (kind, name) in
        outputs.iter().flat_map(plugins_of).chain([(Kind::Join, config.onboarding.join_method.as_str())])
    {
        let grants = catalog.grants(kind, name).map_err(|failure| whole(vec![failure]))?;
        plugins.insert((kind, name.to_owned()), grants);
    }
    Ok(Parts { store, method, outputs, warnings, plugins, tunnels, authority_pem })
}

/// The keys that a plugin does not have, and what to say of each.
fn unknown(
    settings: &serde_json::Map<String, serde_json::Value>,
    known: &[String],
    plugin: &str,
) -> Vec<(String, String)> {
    let known: Vec<&str> = known.iter().map(String::as_str).collect();
    let unknown = settings.keys().filter(|key| !known.contains(&key.as_str()));
    let told = unknown.map(|key| {
        let hint = did_you_mean(key, &known).map(|close| format!(": did you mean `{close}`?")).unwrap_or_default();
        (key.clone(), format!("`{plugin}` has no such key, it is ignored{hint}"))
    });
    told.collect()
}

/// Puts the bot together and takes the lock of its storage.
pub(crate) async fn bot(
    config: Config,
    parts: Parts,
    clock: Arc<dyn Clock>,
    monitor: Arc<dyn Monitor>,
) -> Result<(Bot, Lock), String> {
    let Parts { store, method, outputs, tunnels, authority_pem, .. } = parts;
    let lock = store.lock().await.map_err(|e| e.to_string())?;
    store.prepare().await.map_err(|e| e.to_string())?;
    let cluster = Arc::new(TeleportCluster::new(ClusterConfig {
        address: address(&config.address),
        ca_pins: config.onboarding.ca_pins.clone(),
        authority_pem,
        insecure: config.insecure,
        clock: clock.clone(),
    }));
    for tunnel in tunnels {
        // They wait for their certificates, and end with the runtime.
        tokio::spawn(tunnel.run(cluster.clone(), clock.clone()));
    }
    let settings = BotSettings {
        cluster,
        method,
        method_config: config.onboarding.method_config.to_string(),
        token: token(&config),
        store,
        ttl: config.ttl,
        interval: config.renewal_interval,
        clock,
        monitor,
    };
    Ok((Bot { settings, outputs }, lock))
}

pub(crate) async fn catalog(config: &Config, private: Option<&Path>) -> Result<Catalog, Vec<Failure>> {
    let third = config.plugins.iter().map(|plugin| ThirdParty {
        name: plugin.name.clone(),
        kind: match plugin.kind {
            config::PluginKind::Join => catalog::Kind::Join,
            config::PluginKind::Output => catalog::Kind::Output,
            config::PluginKind::Format => catalog::Kind::Format,
        },
        path: plugin.path.clone(),
        digest: plugin.digest.clone(),
        grants: plugin.grants.clone(),
    });
    Catalog::load(third.collect(), private).await
}

async fn job(
    output: &OutputConfig,
    config: &Config,
    catalog: &Catalog,
    executable: &str,
    warnings: &mut Vec<Mistake>,
) -> Result<OutputJob, Failure> {
    let plugin = catalog.output(&output.kind).await.map_err(|e| e.context("type"))?;
    let ignored = unknown(&output.options, &plugin.description().keys, &output.kind);
    warnings.extend(ignored.into_iter().map(|(key, message)| output.mistake(&key, message)));
    let settings = OutputSettings {
        name: output.name.clone(),
        kind: output.kind.clone(),
        options: serde_json::Value::Object(output.options.clone()).to_string(),
        roles: output.roles.clone(),
        ttl: output.ttl.unwrap_or(config.ttl),
        interval: output.renewal_interval.unwrap_or(config.renewal_interval),
        output: plugin,
        destination: destination(&output.destination)?,
        on_change: output.on_change.as_ref().map(hook),
        executable: executable.to_owned(),
    };
    let job = OutputJob::new(settings, catalog).await?;
    for (name, options, keys) in job.formats() {
        let options = serde_json::from_str(options).unwrap_or_default();
        let ignored = unknown(&options, keys, name).into_iter();
        warnings.extend(ignored.map(|(key, message)| output.mistake(&format!("format.{key}"), message)));
    }
    for (kind, name) in plugins_of(&job) {
        if catalog.grants(kind, name)?.withhold_the_key() {
            let kind = kind.name();
            let message = format!(
                "{kind} `{name}` needs the private key itself: if it may see it, add `{{name: {name}, kind: {kind}, grants: {{private_key: reveal}}}}` to `plugins`"
            );
            return Err(Failure::new(FailureKind::InvalidConfig, message));
        }
    }
    Ok(job)
}

/// The plugins that make the files of an output.
fn plugins_of(job: &OutputJob) -> impl Iterator<Item = (Kind, &str)> {
    let output = match job.settings().kind.as_str() {
        // The certificate of a tunnel is made by the plugin of an output.
        "application-tunnel" => "application",
        "database-tunnel" => "database",
        own => own,
    };
    [(Kind::Output, output)].into_iter().chain(job.formats().map(|(name, ..)| (Kind::Format, name)))
}

fn hook(on_change: &OnChange) -> Hook {
    let timeout = on_change.timeout;
    match &on_change.action {
        Action::Command(argv) => Hook::Command { argv: argv.clone(), timeout },
        Action::SystemdReload(unit) => {
            Hook::Command { argv: ["systemctl", "reload", unit].map(Into::into).to_vec(), timeout }
        }
        Action::Signal { pid_file, signal } => {
            use config::Signal as Wanted;
            let signal = match signal {
                Wanted::Hup => Signal::HUP,
                Wanted::Usr1 => Signal::USR1,
                Wanted::Usr2 => Signal::USR2,
                Wanted::Winch => Signal::WINCH,
                Wanted::Int => Signal::INT,
                Wanted::Term => Signal::TERM,
                Wanted::Quit => Signal::QUIT,
            };
            Hook::Signal { pid_file: pid_file.clone(), signal }
        }
    }
}

/// A mistake at the key that the failure begins with, or at the output as a whole.
pub(crate) fn output_mistake(output: &OutputConfig, failure: Failure) -> Mistake {
    if let Some((key, message)) = failure.message.split_once(": ")
        && (key == "type" || output.options.contains_key(key))
    {
        return output.mistake(key, message);
    }
    let key = output.options.keys().find(|key| failure.message.starts_with(key.as_str()));
    output.mistake(key.map_or("", String::as_str), failure.message)
}

/// A mistake of which no more is known than the file.
fn elsewhere(config: &Config, failure: Failure) -> Mistake {
    Mistake::elsewhere(config.source.clone(), "", failure.message)
}

fn destination(config: &DestinationConfig) -> Result<Arc<dyn Destination>, Failure> {
    Ok(match place(config)? {
        Place::Directory(directory) => Arc::new(directory),
        Place::Memory(memory) => Arc::new(memory),
    })
}

/// A destination of a known kind.
pub(crate) enum Place {
    Directory(Directory),
    Memory(Memory),
}

/// Where a destination's files go. Nothing is touched yet.
pub(crate) fn place(config: &DestinationConfig) -> Result<Place, Failure> {
    let DestinationConfig::Directory { path, symlinks, acls, readers, layout } = config else {
        return Ok(Place::Memory(Memory::default()));
    };
    let symlinks = match symlinks {
        config::Symlinks::Insecure => Symlinks::Insecure,
        config::Symlinks::Secure | config::Symlinks::TrySecure => Symlinks::Secure,
    };
    let acls = match acls {
        config::Acls::Off => Acls::Off,
        config::Acls::Try => Acls::Try,
        config::Acls::Required => Acls::Required,
    };
    let reader = |reader: &config::Reader| match reader {
        config::Reader::User(name) => User::find(name).map(|user| Reader::User(user.uid)),
        config::Reader::Group(name) => storage::group(name).map(Reader::Group),
    };
    let readers = readers.iter().map(reader).collect::<Result<_, _>>().map_err(|e| e.context("`readers`"))?;
    let layout = match layout {
        config::Layout::Plain => Layout::Plain,
        config::Layout::Generations => Layout::Generations,
    };
    Directory::new(path, Rules { symlinks, acls, readers, layout }).map(Place::Directory)
}

/// The same address, in the words of the room that dials it.
pub(crate) fn address(address: &ServerAddress) -> Address {
    let kind = match address.kind {
        ServerKind::Auth => AddressKind::Auth,
        ServerKind::Proxy => AddressKind::Proxy,
        ServerKind::Either => AddressKind::Either,
    };
    Address { host: address.host.clone(), port: address.port, kind }
}

fn token(config: &Config) -> TokenSource {
    let token = config.onboarding.token.clone();
    Arc::new(move || {
        let Some(token) = &token else { return Ok(None) };
        let value = token.value()?;
        telemetry::secret(&value);
        Ok(Some(value))
    })
}

/// The original trusts everybody where this file is missing; here that is an error.
fn authority(path: &Path) -> Result<String, Failure> {
    std::fs::read_to_string(path).map_err(|e| {
        let message = format!(
            "{} cannot be read: {e}; it must hold the PEM certificate of the cluster's authority",
            path.display()
        );
        Failure::new(FailureKind::InvalidConfig, message)
    })
}

fn internal(error: &dyn std::fmt::Display) -> Failure {
    Failure::new(FailureKind::Internal, error.to_string())
}
