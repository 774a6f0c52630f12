use std::path::PathBuf;
use std::time::Duration;

use identity::JOIN_METHODS;

use crate::destination::DestinationConfig;
use crate::file::Draft;
use crate::mistake::{Mistakes, Place, Report};
use crate::section::{did_you_mean, key_name};
use crate::{
    Config, Flags, Layout, PluginConfig, PluginKind, ServerAddress, ServerKind, format_duration, plugin, service,
};

/// Life of certificates unless told otherwise (surface §B.4).
const DEFAULT_TTL: Duration = Duration::from_secs(60 * 60);
/// Time between renewals unless told otherwise (surface §B.4).
const DEFAULT_INTERVAL: Duration = Duration::from_secs(20 * 60);
/// What the newest original warns of (surface §B.7).
const LONGEST_TTL: Duration = Duration::from_secs(24 * 60 * 60);

/// The rules between the parts, and the defaults. The checks do not see the flag `--insecure` (surface §A.6).
pub(crate) fn finish(
    source: Option<PathBuf>,
    mut draft: Draft,
    flags: &Flags,
    mut report: Report,
) -> Result<Config, Mistakes> {
    let whole = source.as_deref().map(Place::file).unwrap_or_default();
    if flags.outputs_only && !draft.addressed {
        let nowhere = ServerAddress { text: String::new(), host: String::new(), port: None, kind: ServerKind::Either };
        draft.addresses = vec![nowhere];
        draft.addressed = true;
    }
    check_address(&draft, &whole, &mut report);
    if !flags.outputs_only {
        check_onboarding(&draft, &whole, &mut report);
    }
    let (ttl, renewal_interval) = lifetimes(&draft, &mut report);
    service::finish(&mut draft.outputs, &mut draft.tunnels, draft.oneshot, &mut report);
    plugin::check_names(&draft.plugins, &mut report);
    draft.newest |= draft.addresses.iter().any(|address| address.kind == ServerKind::Proxy)
        || !draft.tunnels.is_empty()
        || draft.outputs.iter().any(|output| output.places.has("name") || output.ttl.is_some());
    let storage = draft.storage.take();
    check_destinations(&draft, storage.as_ref(), &mut report);
    // What was found first may stand further below: people read files from the top.
    let order = |mistake: &crate::Mistake| (mistake.file.is_none(), mistake.line, mistake.column);
    report.mistakes.sort_by_key(order);
    let address = draft.addresses.into_iter().next();
    let (Some(address), true) = (address, report.mistakes.is_empty()) else {
        return Err(Mistakes(report.mistakes));
    };
    Ok(Config {
        source,
        address,
        onboarding: draft.onboarding.unwrap_or_default(),
        storage: storage.map_or_else(DestinationConfig::default_storage, |(_, storage)| storage),
        outputs: draft.outputs,
        tunnels: draft.tunnels,
        plugins: draft.plugins,
        ttl,
        renewal_interval,
        oneshot: draft.oneshot,
        debug: draft.debug,
        insecure: flags.insecure.unwrap_or(draft.insecure.is_some()),
        diag_addr: draft.diag_addr,
        newest: draft.newest,
        warnings: report.warnings,
    })
}

fn check_address(draft: &Draft, whole: &Place, report: &mut Report) {
    if !draft.addressed {
        let message = "an auth or proxy server must be set via --auth-server, --proxy-server or configuration";
        report.curable(whole, message);
    }
    if draft.addresses.len() > 1 {
        let message = "an auth and a proxy server are given: remove one of the two";
        report.mistake(&draft.address_place, message);
    }
}

fn check_onboarding(draft: &Draft, whole: &Place, report: &mut Report) {
    let Some(onboarding) = &draft.onboarding else {
        if !draft.onboarded {
            report
                .curable(whole, "join method must be provided: add `onboarding` with `join_method`, or --join-method");
        }
        return;
    };
    if onboarding.join_method.is_empty() {
        let message = "join method must be provided: add `join_method: token` or another method, or --join-method";
        report.curable(&onboarding.place("join_method"), message);
    } else {
        check_method(&onboarding.join_method, &onboarding.place("join_method"), &draft.plugins, report);
    }
    let (pins, path) = (!onboarding.ca_pins.is_empty(), onboarding.ca_path.is_some());
    if pins && path {
        let message = "the options ca-pin and ca-path are mutually exclusive: remove one of the two";
        report.mistake(&onboarding.place("ca_path"), message);
    }
    if let Some(place) = &draft.insecure {
        for (given, option) in [(pins, "ca-pin"), (path, "ca-path")] {
            if given {
                let message = format!("the option {option} is mutually exclusive with --insecure: remove `insecure`");
                report.mistake(place, message);
            }
        }
    }
}

/// A method is one that some cluster knows, or that a plugin brings along.
fn check_method(method: &str, place: &Place, plugins: &[PluginConfig], report: &mut Report) {
    let known = |plugin: &PluginConfig| plugin.kind == PluginKind::Join && plugin.name == method;
    if !JOIN_METHODS.contains(&method) && !plugins.iter().any(known) {
        let remedy = did_you_mean(method, &JOIN_METHODS).map_or_else(
            || "write one such as `token`, or add its plugin to `plugins`".to_owned(),
            |near| format!("did you mean `{near}`?"),
        );
        report.mistake(place, format!("unrecognized join method: \"{}\": {remedy}", key_name(method)));
    }
}

/// Life and interval; warns where renewals come too late, which only matters where there is a next one.
fn lifetimes(draft: &Draft, report: &mut Report) -> (Duration, Duration) {
    let ttl = draft.ttl.as_ref().map_or(DEFAULT_TTL, |(_, ttl)| *ttl);
    let interval = draft.renewal_interval.as_ref().map_or(DEFAULT_INTERVAL, |(_, interval)| *interval);
    let given = draft.ttl.as_ref().or(draft.renewal_interval.as_ref());
    let place = given.map(|(place, _)| place.clone()).unwrap_or_default();
    if interval >= ttl && !draft.oneshot {
        let message = format!(
            "Certificate TTL ({}) is {} than the renewal interval ({}). This is likely an invalid configuration. \
             Increase the certificate TTL or decrease the renewal interval.",
            format_duration(ttl),
            if interval > ttl { "shorter" } else { "no longer" },
            format_duration(interval)
        );
        report.warning(&place, message);
    }
    if ttl > LONGEST_TTL {
        let ttl = format_duration(ttl);
        report.warning(&place, format!("certificate TTL ({ttl}) is longer than 24h, which the cluster may shorten"));
    }
    (ttl, interval)
}

/// Two sets in one place overwrite each other: warned of, as the original does. In generations each would remove the other's names:
/// refused. Compared as absolute paths, links not followed; memory is each its own.
fn check_destinations(draft: &Draft, storage: Option<&(Place, DestinationConfig)>, report: &mut Report) {
    let default = DestinationConfig::default_storage();
    let place = |destination: &DestinationConfig| match destination {
        DestinationConfig::Directory { path, layout, .. } => {
            let absolute = std::path::absolute(path).unwrap_or_else(|_| path.clone());
            Some((absolute, *layout == Layout::Generations))
        }
        DestinationConfig::Memory => None,
    };
    if let Some((place, DestinationConfig::Directory { layout: Layout::Generations, .. })) = storage {
        report.mistake(place, "`layout: generations` is for outputs: the bot's own storage is `plain`, remove it");
    }
    let storage = storage.map(|(_, storage)| storage);
    let mut seen: Vec<(PathBuf, bool, String, Option<Place>)> = Vec::new();
    let own = "the bot's own `storage`".to_owned();
    seen.extend(place(storage.unwrap_or(&default)).map(|(path, generations)| (path, generations, own, None)));
    for output in &draft.outputs {
        let Some((path, generations)) = place(&output.destination) else { continue };
        match seen.iter().find(|(other, ..)| *other == path) {
            // One destination of the first schema: its names are known to differ.
            Some((_, false, _, Some(at))) if !generations && *at == output.places.whole => {}
            Some((_, others, owner, _)) => {
                let told = "Identical destinations used within config";
                let path = path.display();
                if generations || *others {
                    let message = format!(
                        "{told}: `{path}` is the directory of {owner}, too, and `layout: generations` needs one of its own: choose another"
                    );
                    report.mistakes.push(output.mistake("destination", message));
                } else {
                    let message = format!(
                        "{told}: `{path}` is the directory of {owner}, too: choose another, or one overwrites the other"
                    );
                    report.warnings.push(output.mistake("destination", message));
                }
            }
            None => {
                let place = Some(output.places.whole.clone());
                seen.push((path, generations, format!("output `{}`", output.name), place));
            }
        }
    }
}
