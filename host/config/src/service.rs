//! The entries of `services` and `outputs` (surface §B.6, §B.7), which differ in nothing but the name of the list.

use std::collections::BTreeSet;
use std::time::Duration;

use crate::destination::DestinationConfig;
use crate::hook::OnChange;
use crate::mistake::Report;
use crate::places::Places;
use crate::section::{Field, Section};
use crate::{OutputConfig, TunnelConfig, format_duration};

/// Longest life of a service's own credentials (surface §B.7).
const LONGEST_TTL: Duration = Duration::from_secs(24 * 60 * 60);
/// Names that the original's own inner services have (surface §B.7).
const RESERVED: [&str; 5] = ["ca-rotation", "crl-cache", "heartbeat", "identity", "spiffe-trust-bundle-cache"];
/// Services of the original that no plugin can be; which output plugins are missing, the catalog says (surface §B.6, §B.7).
pub const SERVICES_NOT_YET: [&str; 14] = [
    "application-proxy",
    "beams/vnet",
    "bot-api",
    "identity/key-agent",
    "kubernetes/argo-cd",
    "login-agent",
    "spiffe-svid",
    "spiffe-workload-api",
    "ssh-multiplexer",
    "unstable_client_credential",
    "workload-identity-api",
    "workload-identity-aws-roles-anywhere",
    "workload-identity-jwt",
    "workload-identity-x509",
];

/// One entry.
pub(crate) enum Service {
    Output(OutputConfig),
    Tunnel(TunnelConfig),
    /// Only tests joining: there is nothing to do for it.
    Noop,
}

impl Service {
    /// Reads an entry; reports and leaves out what cannot be one.
    pub(crate) fn read(field: &Field, report: &mut Report) -> Option<Self> {
        let mut section = field.section(report)?;
        let places = Places::of(&section);
        let name = section.field("name").and_then(|field| field.text(report)).unwrap_or_default();
        let roles = section.field("roles").map(|field| field.texts(report)).unwrap_or_default();
        let roles = roles.into_iter().map(|(_, role)| role).collect();
        let ttl = section.field("credential_ttl").and_then(|field| field.duration(report));
        let renewal_interval = section.field("renewal_interval").and_then(|field| field.duration(report));
        if let Some(field) = section.field("delegation_session_id") {
            let message =
                "`delegation_session_id` is not supported yet: remove it, the credentials are the bot's own then";
            report.curable(&field.place, message);
        }
        let kind = match section.field("type").map(|field| (field.text(report), field.place)) {
            Some((Some(kind), place)) if SERVICES_NOT_YET.contains(&kind.as_str()) => {
                report.curable(&place, format!("`{kind}` is not supported yet: remove this service"));
                return None;
            }
            Some((Some(kind), _)) if !kind.is_empty() => Some(kind),
            Some((None, _)) => None,
            _ => {
                report.mistake(&places.whole, "unrecognized output type (): add `type`, such as `type: identity`");
                None
            }
        };
        match kind.as_deref() {
            Some("noop" | "no-op") => Some(Self::Noop),
            Some(tunnel @ ("application-tunnel" | "database-tunnel")) => {
                let (listen, kind) = TunnelConfig::read_kind(tunnel, &mut section, report)?;
                Some(Self::Tunnel(TunnelConfig { name, listen, kind, roles, ttl, renewal_interval, places }))
            }
            _ => {
                let destination = destination(&mut section, &places, report);
                let hook = section.field("on_change");
                let on_change = hook.as_ref().and_then(|field| OnChange::read(field, report));
                let options = section.rest().map(|(key, field)| (key.to_owned(), field.json())).collect();
                let (kind, destination) = kind.zip(destination)?;
                Some(Self::Output(OutputConfig {
                    name,
                    kind,
                    destination,
                    roles,
                    ttl,
                    renewal_interval,
                    on_change,
                    options,
                    places,
                }))
            }
        }
    }
}

fn destination(section: &mut Section, places: &Places, report: &mut Report) -> Option<DestinationConfig> {
    let Some(field) = section.field("destination") else {
        let message = "no destination configured for output: add `destination` with `type: directory` and `path`";
        report.mistake(&places.whole, message);
        return None;
    };
    DestinationConfig::read(field.section(report)?, report)
}

/// What outputs and tunnels have in common for the rules below.
struct Common<'c> {
    name: &'c mut String,
    kind: &'c str,
    ttl: Option<Duration>,
    renewal_interval: Option<Duration>,
    places: &'c Places,
}

/// Checks names and lifetimes, and names those without a name (surface §B.7).
pub(crate) fn finish(outputs: &mut [OutputConfig], tunnels: &mut [TunnelConfig], oneshot: bool, report: &mut Report) {
    let outputs = outputs.iter_mut().map(|output| Common {
        name: &mut output.name,
        kind: &output.kind,
        ttl: output.ttl,
        renewal_interval: output.renewal_interval,
        places: &output.places,
    });
    let tunnels = tunnels.iter_mut().map(|tunnel| Common {
        name: &mut tunnel.name,
        kind: tunnel.kind.service_type(),
        ttl: tunnel.ttl,
        renewal_interval: tunnel.renewal_interval,
        places: &tunnel.places,
    });
    let mut all: Vec<Common> = outputs.chain(tunnels).collect();
    for service in &all {
        check_lifetimes(service, oneshot, report);
    }
    check_names(&mut all, report);
}

/// Lifetimes of its own: both or none, and such that a renewal comes in time.
fn check_lifetimes(service: &Common, oneshot: bool, report: &mut Report) {
    let mut mistake = |key: &str, message: String| report.mistakes.push(service.places.mistake(key, message));
    let together = |missing| format!("`credential_ttl` and `renewal_interval` must be given together: add `{missing}`");
    let (ttl, interval) = match (service.ttl, service.renewal_interval) {
        (None, None) => return,
        (Some(ttl), Some(interval)) => (ttl, interval),
        (Some(_), None) => return mistake("credential_ttl", together("renewal_interval")),
        (None, Some(_)) => return mistake("renewal_interval", together("credential_ttl")),
    };
    for (key, value) in [("credential_ttl", ttl), ("renewal_interval", interval)] {
        if value.is_zero() {
            mistake(key, "must be longer than zero: write a duration such as `20m`".to_owned());
        }
    }
    if ttl > LONGEST_TTL {
        let message = format!("{} is longer than the 24h that certificates may live", format_duration(ttl));
        mistake("credential_ttl", message);
    }
    if interval >= ttl && !oneshot {
        let (interval, ttl) = (format_duration(interval), format_duration(ttl));
        let message = format!(
            "{interval} is not shorter than `credential_ttl` ({ttl}): certificates would expire before they are renewed"
        );
        mistake("renewal_interval", message);
    }
}

fn check_names(services: &mut [Common], report: &mut Report) {
    let mut taken: BTreeSet<String> = BTreeSet::new();
    for service in services.iter().filter(|service| !service.name.is_empty()) {
        let name = &*service.name;
        let mut mistake = |message: String| report.mistakes.push(service.places.mistake("name", message));
        if !name.chars().all(in_name) {
            mistake("a name has lowercase letters, digits, `-`, `_` and `+` only: choose another".to_owned());
        } else if RESERVED.contains(&name.as_str()) {
            mistake(format!("`{name}` is reserved: choose another name"));
        } else if !taken.insert(name.clone()) {
            mistake(format!("`{name}` is the name of another output, too: choose another name"));
        }
    }
    for service in services.iter_mut().filter(|service| service.name.is_empty()) {
        let base: String = service.kind.chars().map(|c| if in_name(c) { c } else { '-' }).collect();
        let mut counter = 1_u32;
        while !taken.insert(format!("{base}-{counter}")) {
            counter += 1;
        }
        *service.name = format!("{base}-{counter}");
    }
}

fn in_name(c: char) -> bool {
    c.is_ascii_lowercase() || c.is_ascii_digit() || matches!(c, '-' | '_' | '+')
}
