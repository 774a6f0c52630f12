//! The versions of the schema. Each reader makes the same [`Draft`]; nothing else knows that there is more than one.

use std::path::Path;
use std::time::Duration;

use crate::destination::DestinationConfig;
use crate::mistake::{Place, Report};
use crate::onboarding::Onboarding;
use crate::output::OutputConfig;
use crate::plugin::PluginConfig;
use crate::section::{Field, Section, Unknown, key_name};
use crate::service::Service;
use crate::{Mistake, ServerAddress, ServerKind, TunnelConfig, join_uri, node, v1};

/// What a file says, before flags and defaults. Places are kept for the checks that come later.
#[derive(Default)]
pub(crate) struct Draft {
    pub(crate) addresses: Vec<ServerAddress>,
    /// An address was given, even if it could not be read.
    pub(crate) addressed: bool,
    pub(crate) address_place: Place,
    pub(crate) onboarding: Option<Onboarding>,
    /// The section is there, even if it could not be read.
    pub(crate) onboarded: bool,
    pub(crate) storage: Option<(Place, DestinationConfig)>,
    pub(crate) outputs: Vec<OutputConfig>,
    pub(crate) tunnels: Vec<TunnelConfig>,
    pub(crate) plugins: Vec<PluginConfig>,
    pub(crate) ttl: Option<(Place, Duration)>,
    pub(crate) renewal_interval: Option<(Place, Duration)>,
    pub(crate) oneshot: bool,
    pub(crate) debug: bool,
    pub(crate) insecure: Option<Place>,
    pub(crate) diag_addr: Option<String>,
    /// The newest schema, or flags that only it has a key for.
    pub(crate) newest: bool,
}

/// Keys of parts of the product that do not exist yet (surface §B.7).
const NOT_YET: [&str; 2] = ["scoped", "pid_file"];
/// Keys that only the newest schema has: with one of them a file cannot be an older one, and unknown keys are let pass.
const NEWEST: [&str; 4] = ["services", "proxy_server", "credential_ttl", "join_uri"];

pub(crate) enum Version {
    V1,
    V2,
    Newest,
}

/// Reads `text`, the contents of `file`. `None` where nothing further can be checked; the reason is in the report, then.
pub(crate) fn read(file: &Path, text: &str, report: &mut Report) -> Option<Draft> {
    let (root, more) = node::parse(file, text).map_err(|mistake: Mistake| report.mistakes.push(mistake)).ok()?;
    let place = Place::file(file);
    if matches!(root.value, node::Value::Null) {
        report.mistake(
            &place,
            "failed parsing config file version: EOF: the file is empty, write `version: v2` and the rest",
        );
        return None;
    }
    if more {
        report.warning(&place, "more than one document in the file: only the first one, up to `---`, is used");
    }
    let mut section = Section::of(&root, place, report)?;
    match version(&mut section, report)? {
        Version::V1 => Some(v1(section, report)),
        Version::V2 => Some(v2(section, Unknown::Mistake, report)),
        Version::Newest => Some(v2(section, Unknown::Warning, report)),
    }
}

impl Draft {
    /// Address and onboarding out of a join URI, which is a secret.
    pub(crate) fn join(&mut self, text: &str, place: Place, report: &mut Report) {
        (self.addressed, self.onboarded) = (true, true);
        if let Some((address, onboarding)) = join_uri::read(text, &place, report) {
            self.addresses = vec![address];
            self.onboarding = Some(onboarding);
        }
        self.address_place = place;
    }
}

pub(crate) fn version(section: &mut Section, report: &mut Report) -> Option<Version> {
    let newest = NEWEST.iter().any(|key| section.has(key));
    let Some(field) = section.field("version") else {
        let place = section.place.clone();
        if newest {
            report.warning(&place, "no `version`: read as v2 because of its keys: add `version: v2`");
            return Some(Version::Newest);
        }
        return v1_without_outputs(section, report);
    };
    match field.text(report)?.as_str() {
        "v1" => v1_without_outputs(section, report),
        "v2" if newest => Some(Version::Newest),
        "v2" => Some(Version::V2),
        other => {
            let message = format!("unrecognized config version \"{}\": write `version: v2`", key_name(other));
            report.mistake(&field.place, message);
            None
        }
    }
}

fn v1_without_outputs(section: &Section, report: &mut Report) -> Option<Version> {
    if section.has_entries("outputs") {
        let message =
            "config has been detected as potentially v1, but includes the v2 outputs field: write `version: v2`";
        report.mistake(&section.place, message);
        return None;
    }
    Some(Version::V1)
}

/// The schema of Teleport 14 and 15, and the newest, which has all keys of the other (surface §B.4, §B.7).
fn v2(mut section: Section, unknown: Unknown, report: &mut Report) -> Draft {
    let mut draft = Draft { newest: unknown == Unknown::Warning, ..Draft::default() };
    addresses(&mut section, &mut draft, report);
    onboarding(&mut section, unknown, &mut draft, report);
    if let Some(field) = section.field("storage") {
        let storage = field.section(report).and_then(|section| DestinationConfig::read(section, report));
        draft.storage = storage.map(|storage| (field.place, storage));
    }
    for key in ["services", "outputs"] {
        for entry in section.field(key).map(|field| field.list(report)).unwrap_or_default() {
            match Service::read(&entry, report) {
                Some(Service::Output(output)) => draft.outputs.push(output),
                Some(Service::Tunnel(tunnel)) => draft.tunnels.push(tunnel),
                Some(Service::Noop) | None => {}
            }
        }
    }
    for entry in section.field("plugins").map(|field| field.list(report)).unwrap_or_default() {
        draft.plugins.extend(PluginConfig::read(&entry, report));
    }
    let credential = section.field("credential_ttl");
    let certificate = section.field("certificate_ttl");
    if let (Some(_), Some(old)) = (&credential, &certificate) {
        report.warning(&old.place, "`credential_ttl` is given, too, and wins: remove `certificate_ttl`");
    }
    draft.ttl = duration(credential.or(certificate), report);
    scalars(&mut section, &mut draft, report);
    draft.insecure = truth(section.field("insecure"), report);
    if let Some(field) = section.field("join_uri")
        && let Some(text) = field.secret(report)
    {
        if draft.addressed || draft.onboarded {
            let message = "`join_uri` is address and onboarding in one: remove it, or `auth_server`, `proxy_server` and `onboarding`";
            report.mistake(&field.place, message);
        }
        draft.join(&text, field.place, report);
    }
    for key in NOT_YET {
        if let Some(field) = section.field(key) {
            report.mistake(&field.place, format!("`{key}` is not supported yet: remove it"));
        }
    }
    section.close(unknown, "", report);
    draft
}

/// The schema of Teleport 12 and 13 (surface §B.2), with the meaning that it had there. Later versions let unknown keys pass.
fn v1(mut section: Section, report: &mut Report) -> Draft {
    let message =
        "deprecated config version V1 detected (there is no `version: v2`): run `tbot migrate` on it when convenient";
    report.warning(&section.place, message);
    let mut draft = Draft::default();
    addresses(&mut section, &mut draft, report);
    onboarding(&mut section, Unknown::Warning, &mut draft, report);
    if let Some(onboarding) = draft.onboarding.as_mut().filter(|onboarding| onboarding.join_method.is_empty()) {
        report
            .warning(&onboarding.place("join_method"), "no `join_method`: `token` is meant, as in Teleport 12: add it");
        onboarding.join_method = "token".to_owned();
    }
    if let Some(onboarding) = draft.onboarding.as_mut().filter(|onboarding| !onboarding.ca_pins.is_empty())
        && onboarding.ca_path.take().is_some()
    {
        let message = "`ca_pins` is given, too, and wins, as in Teleport 12: remove `ca_path`";
        report.warning(&onboarding.place("ca_path"), message);
    }
    if let Some(field) = section.field("storage") {
        draft.storage =
            field.section(report).and_then(|section| v1::storage(section, report)).map(|it| (field.place, it));
    }
    for entry in section.field("destinations").map(|field| field.list(report)).unwrap_or_default() {
        let destination = v1::Destination::read(&entry, report);
        draft.outputs.extend(destination.map(|destination| destination.outputs(report)).unwrap_or_default());
    }
    draft.ttl = duration(section.field("certificate_ttl"), report);
    scalars(&mut section, &mut draft, report);
    section.close(Unknown::Warning, "outputs", report);
    draft
}

/// What all versions write in the same way.
fn scalars(section: &mut Section, draft: &mut Draft, report: &mut Report) {
    draft.renewal_interval = duration(section.field("renewal_interval"), report);
    draft.oneshot = truth(section.field("oneshot"), report).is_some();
    draft.debug = truth(section.field("debug"), report).is_some();
    if let Some(place) = truth(section.field("fips"), report) {
        report.curable(&place, "`fips` is not supported yet: remove it");
    }
    draft.diag_addr = section.field("diag_addr").and_then(|field| field.text(report)).filter(|text| !text.is_empty());
}

fn onboarding(section: &mut Section, unknown: Unknown, draft: &mut Draft, report: &mut Report) {
    if let Some(field) = section.field("onboarding") {
        draft.onboarded = true;
        draft.onboarding = field.section(report).map(|section| Onboarding::read(section, unknown, report));
    }
}

fn addresses(section: &mut Section, draft: &mut Draft, report: &mut Report) {
    for (key, kind) in [("auth_server", ServerKind::Either), ("proxy_server", ServerKind::Proxy)] {
        let Some(field) = section.field(key) else { continue };
        draft.addressed = true;
        let Some(text) = field.text(report) else { continue };
        if text.is_empty() {
            draft.addressed = !draft.addresses.is_empty();
            continue;
        }
        match ServerAddress::parse(&text, kind) {
            Ok(address) => draft.addresses.push(address),
            Err(message) => report.mistake(&field.place, message),
        }
        draft.address_place = field.place;
    }
}

/// Zero means the default, as in the original.
fn duration(field: Option<Field>, report: &mut Report) -> Option<(Place, Duration)> {
    let field = field?;
    let duration = field.duration(report)?;
    (!duration.is_zero()).then_some((field.place, duration))
}

/// The place of a key that says `true`.
fn truth(field: Option<Field>, report: &mut Report) -> Option<Place> {
    let field = field?;
    field.boolean(report)?.then_some(field.place)
}
