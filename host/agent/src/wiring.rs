//! From the checked configuration to a bot: which room gets which part.

use std::path::Path;
use std::sync::Arc;

use catalog::{Catalog, ThirdParty};
use cluster::{Address, AddressKind, ClusterConfig, TeleportCluster};
use config::{Config, DestinationConfig, Mistake, OutputConfig, ServerKind, did_you_mean};
use identity::{Clock, Destination, Failure, FailureKind};
use renewal::{Bot, BotSettings, OutputJob, OutputSettings, TokenSource};
use storage::{Acls, Directory, Layout, Memory, Reader, Rules, Symlinks, User};
use tracing::warn;
use zeroize::Zeroizing;

use crate::configure::Service;
use crate::flags::{Flags, Start};

/// Held as long as the bot runs: the exclusive lock of its storage.
pub(crate) type Lock = Box<dyn Send + Sync>;

/// Reads and checks the configuration, flags and environment on top.
pub(crate) fn configuration(flags: &Flags, start: &Start) -> Result<Config, String> {
    let environment = |name: &str| std::env::var(name).ok();
    config::load(flags.config.as_deref(), &overrides(flags, start), &environment)
        .map_err(|mistakes| mistakes.to_string())
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
        oneshot: start.oneshot,
        debug: flags.debug,
        insecure: flags.insecure,
    }
}

/// Puts the bot together and takes the lock of its storage. All mistakes of all parts are reported at once.
pub(crate) async fn bot(config: Config, clock: Arc<dyn Clock>) -> Result<(Bot, Lock), Vec<Failure>> {
    let one = |failure| vec![failure];
    let store = destination(&config.storage).map_err(one)?;
    let catalog = catalog(&config, store.directory()).await?;
    let executable = std::env::current_exe().map_err(|e| one(internal(&e)))?.to_string_lossy().into_owned();
    let mut mistakes = Vec::new();
    let mut outputs = Vec::new();
    for tunnel in &config.tunnels {
        mistakes.push(invalid(&tunnel.mistake("type", "tunnels are not supported yet: remove this service")));
    }
    for output in &config.outputs {
        if output.on_change.is_some() {
            mistakes.push(invalid(&output.mistake("on_change", "`on_change` is not supported yet: remove it")));
        }
        match job(output, &config, &catalog, &executable).await {
            Ok(job) => outputs.push(job),
            Err(failure) => mistakes.push(output_mistake(output, failure)),
        }
    }
    let method = catalog.join_method(&config.onboarding.join_method).await;
    let authority_pem = config.onboarding.ca_path.as_deref().map(authority).transpose();
    let (method, authority_pem) = match (method, authority_pem) {
        (Ok(method), Ok(pem)) if mistakes.is_empty() => (method, pem),
        (method, pem) => {
            let located = |key, failure: Failure| invalid(&config.onboarding.mistake(key, failure.message));
            mistakes.extend(method.err().map(|failure| located("join_method", failure)));
            mistakes.extend(pem.err().map(|failure| located("ca_path", failure)));
            return Err(mistakes);
        }
    };
    let lock = store.lock().await.map_err(one)?;
    store.prepare().await.map_err(one)?;
    let settings = BotSettings {
        cluster: Arc::new(TeleportCluster::new(ClusterConfig {
            address: address(&config),
            ca_pins: config.onboarding.ca_pins.clone(),
            authority_pem,
            insecure: config.insecure,
            clock: clock.clone(),
        })),
        method,
        method_config: config.onboarding.method_config.to_string(),
        token: token(&config),
        store,
        ttl: config.ttl,
        interval: config.renewal_interval,
        clock,
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
) -> Result<OutputJob, Failure> {
    let plugin = catalog.output(&output.kind).await?;
    let known: Vec<&str> = plugin.description().keys.iter().map(String::as_str).collect();
    for key in output.options.keys().filter(|key| !known.contains(&key.as_str())) {
        let hint = did_you_mean(key, &known).map(|close| format!(": did you mean `{close}`?")).unwrap_or_default();
        warn!(target: "TBOT", "{}", output.mistake(key, format!("`{}` has no such key, it is ignored{hint}", output.kind)));
    }
    let settings = OutputSettings {
        name: output.name.clone(),
        kind: output.kind.clone(),
        options: serde_json::Value::Object(output.options.clone()).to_string(),
        roles: output.roles.clone(),
        ttl: output.ttl.unwrap_or(config.ttl),
        interval: output.renewal_interval.unwrap_or(config.renewal_interval),
        output: plugin,
        destination: destination(&output.destination)?,
        executable: executable.to_owned(),
    };
    OutputJob::new(settings, catalog).await
}

pub(crate) fn output_mistake(output: &OutputConfig, failure: Failure) -> Failure {
    // What a plugin says of its configuration begins with the key, where it is about one.
    let key = output.options.keys().find(|key| failure.message.starts_with(key.as_str()));
    invalid(&output.mistake(key.map_or("", String::as_str), failure.message))
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

fn address(config: &Config) -> Address {
    let kind = match config.address.kind {
        ServerKind::Auth => AddressKind::Auth,
        ServerKind::Proxy => AddressKind::Proxy,
        ServerKind::Either => AddressKind::Either,
    };
    Address { host: config.address.host.clone(), port: config.address.port, kind }
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

fn invalid(mistake: &Mistake) -> Failure {
    Failure::new(FailureKind::InvalidConfig, mistake.to_string())
}

fn internal(error: &dyn std::fmt::Display) -> Failure {
    Failure::new(FailureKind::Internal, error.to_string())
}
