//! `tbot validate` and `tbot plan`: what a configuration means, without a network, a secret or a change on disk.

use std::path::Path;

use catalog::{Grants, Kind, Rights};
use config::{Config, Mistake, Mistakes, Token, format_duration};
use identity::{Destination, Target};
use renewal::OutputJob;
use serde_json::{Value, json};

use crate::flags::{Flags, LogFormat, Report};
use crate::start::runtime;
use crate::wiring::{self, Parts};

/// Reports every mistake of configuration, plugins and destinations; fails on any.
pub(crate) fn validate(flags: &Flags, report: &Report) -> Result<(), String> {
    let (warnings, plugins, mistakes) = match meaning(flags, report) {
        Ok((config, parts)) => {
            let places = parts.outputs.iter().map(OutputJob::destination).chain([&*parts.store]);
            let mistakes = places.filter_map(unusable).collect();
            let plugins = parts.plugins.iter().map(|((kind, name), grants)| plugin(*kind, name, grants)).collect();
            ([config.warnings, parts.warnings].concat(), plugins, mistakes)
        }
        Err(Mistakes(mistakes)) => (Vec::new(), Vec::new(), mistakes),
    };
    if report.format == LogFormat::Json {
        let list = |all: &[Mistake]| all.iter().map(mistake).collect::<Vec<_>>();
        let answer = json!({
            "valid": mistakes.is_empty(),
            "mistakes": list(&mistakes),
            "warnings": list(&warnings),
            "plugins": plugins,
        });
        println!("{answer:#}");
    } else {
        warnings.iter().for_each(|warning| eprintln!("WARNING: {warning}"));
        if mistakes.is_empty() {
            println!("The configuration is valid. What its plugins may touch:");
            for plugin in &plugins {
                print!("\n{} {}\n{}", text(&plugin["kind"]), text(&plugin["name"]), indented(plugin));
            }
        }
    }
    match mistakes.len() {
        0 => Ok(()),
        _ if report.format == LogFormat::Json => Err("the configuration is not valid".into()),
        _ => Err(Mistakes(mistakes).to_string()),
    }
}

/// Shows what `start` would ask of the cluster and write where.
pub(crate) fn plan(flags: &Flags, report: &Report) -> Result<(), String> {
    let (config, parts) = meaning(flags, report).map_err(|mistakes| mistakes.to_string())?;
    let bot = bot(&config, &parts);
    let outputs: Vec<Value> = parts.outputs.iter().map(output).collect();
    if report.format == LogFormat::Json {
        println!("{:#}", json!({"bot": bot, "outputs": outputs}));
        return Ok(());
    }
    print!("bot\n{}", indented(&bot));
    for output in &outputs {
        print!("\noutput {}\n{}", text(&output["name"]), indented(output));
    }
    Ok(())
}

fn meaning(flags: &Flags, report: &Report) -> Result<(Config, Parts), Mistakes> {
    let config = wiring::configuration(flags, &report.start)?;
    let runtime =
        runtime().map_err(|message| Mistakes::from(Mistake::elsewhere(config.source.clone(), "", message)))?;
    let parts = runtime.block_on(wiring::parts(&config)).map_err(Mistakes)?;
    Ok((config, parts))
}

/// What a plugin may touch, with the placeholders of manifest and grants as they are written.
fn plugin(kind: Kind, name: &str, grants: &Grants) -> Value {
    let rights = |rights: &Rights| {
        let mut all = Vec::new();
        all.extend(rights.environment.iter().map(|name| format!("variable {name}")));
        all.extend(rights.files.iter().map(|path| format!("file {path}")));
        all.extend(rights.http.iter().map(|url| format!("request {url}")));
        all.extend(rights.private_key.map(|_| "the private key".to_owned()));
        all
    };
    let kind = match kind {
        Kind::Join => "join method",
        Kind::Output => "output",
        Kind::Format => "format",
    };
    match &grants.operator {
        None => json!({"kind": kind, "name": name, "may_touch": rights(&grants.asks)}),
        Some(operator) => {
            json!({"kind": kind, "name": name, "asks_for": rights(&grants.asks), "granted": rights(operator)})
        }
    }
}

fn bot(config: &Config, parts: &Parts) -> Value {
    let token = match &config.onboarding.token {
        None => "none: an identity must be in the storage".to_owned(),
        Some(Token::File(path)) => format!("read from {}", path.display()),
        Some(Token::Literal(_)) => "given, not shown".to_owned(),
    };
    json!({
        "cluster": config.address.text,
        "join_method": config.onboarding.join_method,
        "token": token,
        "storage": parts.store.description(),
        "certificate_ttl": format_duration(config.ttl),
        "renewal_interval": format_duration(config.renewal_interval),
        "oneshot": config.oneshot,
    })
}

fn output(job: &OutputJob) -> Value {
    let settings = job.settings();
    let certificate = match job.target() {
        Target::Identity { cluster: None, .. } => "the bot's impersonated identity".to_owned(),
        Target::Identity { cluster: Some(cluster), .. } => {
            format!("the bot's impersonated identity in cluster {cluster}")
        }
        Target::Application(name) => format!("application {name}"),
        Target::Database { service, username, database } => {
            format!("database {service}, user {username:?}, database {database:?}")
        }
        Target::Kubernetes(name) => format!("Kubernetes cluster {name}"),
        Target::SshHost(principals) => format!("SSH host {}", principals.join(", ")),
    };
    let roles = match settings.roles.is_empty() {
        true => json!("all that the bot may impersonate"),
        false => json!(settings.roles),
    };
    json!({
        "name": settings.name,
        "type": settings.kind,
        "certificate_for": certificate,
        "roles": roles,
        "certificate_ttl": format_duration(settings.ttl),
        "renewal_interval": format_duration(settings.interval),
        "destination": settings.destination.description(),
        "files": job.files().collect::<Vec<_>>(),
    })
}

/// What keeps this process from writing there, as far as can be told without trying.
fn unusable(destination: &dyn Destination) -> Option<Mistake> {
    let directory = destination.directory()?;
    let nearest = directory.ancestors().find(|path| path.symlink_metadata().is_ok())?;
    let message = if !nearest.is_dir() {
        format!("{} is not a directory: name another path", nearest.display())
    } else if !writable(nearest) {
        format!("{} cannot be written by this user: run `tbot init` or change its owner", nearest.display())
    } else {
        return None;
    };
    Some(Mistake::elsewhere(None, destination.description(), message))
}

fn writable(directory: &Path) -> bool {
    use rustix::fs::{Access, access};
    access(directory, Access::WRITE_OK | Access::EXEC_OK).is_ok()
}

fn mistake(mistake: &Mistake) -> Value {
    let Mistake { file, line, column, path, message, .. } = mistake;
    json!({"file": file, "line": line, "column": column, "key": path, "message": message})
}

fn indented(fields: &Value) -> String {
    let lines = fields.as_object().into_iter().flatten().filter(|(key, _)| !["kind", "name"].contains(&key.as_str()));
    lines.map(|(key, value)| format!("  {key:18}{}\n", text(value))).collect()
}

fn text(value: &Value) -> String {
    match value {
        Value::String(text) => text.clone(),
        Value::Array(none) if none.is_empty() => "nothing".to_owned(),
        Value::Array(all) => all.iter().map(text).collect::<Vec<_>>().join(", "),
        other => other.to_string(),
    }
}
