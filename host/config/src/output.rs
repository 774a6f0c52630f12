use std::collections::BTreeSet;
use std::fmt;
use std::time::Duration;

use crate::destination::DestinationConfig;
use crate::format_duration;
use crate::mistake::{Mistake, Report};
use crate::places::Places;
use crate::section::{Field, Section};

/// Longest life of a service's own credentials (surface §B.7).
const LONGEST_TTL: Duration = Duration::from_secs(24 * 60 * 60);
/// Names that the original's own inner services have (surface §B.7).
const RESERVED: [&str; 5] = ["ca-rotation", "crl-cache", "heartbeat", "identity", "spiffe-trust-bundle-cache"];
/// Services that run on and write no set of files: no output plugin can be one (surface §B.7).
const LONG_RUNNING: [&str; 11] = [
    "application-tunnel",
    "application-proxy",
    "database-tunnel",
    "ssh-multiplexer",
    "workload-identity-x509",
    "workload-identity-jwt",
    "workload-identity-api",
    "workload-identity-aws-roles-anywhere",
    "spiffe-svid",
    "spiffe-workload-api",
    "kubernetes/argo-cd",
];

/// One output: an entry of `outputs`, or of `services` in the newest spelling (surface §B.6, §B.7).
#[derive(Clone, PartialEq)]
pub struct OutputConfig {
    /// As given, or the type and a counter: `application-1`. Unique.
    pub name: String,
    /// Its `type`, any: the catalog decides which there are.
    pub kind: String,
    /// Where its files go.
    pub destination: DestinationConfig,
    /// Roles to impersonate; empty means all that the bot may.
    pub roles: Vec<String>,
    /// Life of its certificates, where it differs from the bot's.
    pub ttl: Option<Duration>,
    /// Time between its renewals, where it differs from the bot's.
    pub renewal_interval: Option<Duration>,
    /// All other keys, for the plugin.
    pub options: serde_json::Map<String, serde_json::Value>,
    places: Places,
}

impl OutputConfig {
    /// A mistake, or a warning, at one of its keys: `type`, `destination`, an option such as `app_name`, or deeper, `selector.name`;
    /// the empty key means the output as a whole. `message` quotes no secret.
    pub fn mistake(&self, key: &str, message: impl Into<String>) -> Mistake {
        self.places.mistake(key, message)
    }

    /// Reads an entry; reports and leaves out what cannot be one.
    pub(crate) fn read(field: &Field, report: &mut Report) -> Option<Self> {
        let mut section = field.section(report)?;
        let places = Places::of(&section);
        let name = section.field("name").and_then(|field| field.text(report)).unwrap_or_default();
        let roles = section.field("roles").map(|field| field.texts(report)).unwrap_or_default();
        let ttl = section.field("credential_ttl").and_then(|field| field.duration(report));
        let renewal_interval = section.field("renewal_interval").and_then(|field| field.duration(report));
        let kind = match section.field("type").map(|field| (field.text(report), field.place)) {
            Some((Some(kind), place)) if LONG_RUNNING.contains(&kind.as_str()) => {
                report.mistake(&place, format!("`{kind}` is not supported yet: remove this service"));
                return None;
            }
            Some((Some(kind), _)) if !kind.is_empty() => Some(kind),
            Some((None, _)) => None,
            _ => {
                report.mistake(&places.whole, "unrecognized output type (): add `type`, such as `type: identity`");
                None
            }
        };
        let destination = destination(&mut section, &places, report);
        let options = section.rest().map(|(key, field)| (key.to_owned(), field.json())).collect();
        let roles = roles.into_iter().map(|(_, role)| role).collect();
        Some(Self { name, kind: kind?, destination: destination?, roles, ttl, renewal_interval, options, places })
    }

    /// The one output that `--destination-dir` means.
    pub(crate) fn identity(destination: DestinationConfig) -> Self {
        Self {
            name: String::new(),
            kind: "identity".to_owned(),
            destination,
            roles: Vec::new(),
            ttl: None,
            renewal_interval: None,
            options: serde_json::Map::new(),
            places: Places::flag("--destination-dir"),
        }
    }

    /// Lifetimes of its own: both or none, and such that a renewal comes in time (surface §B.7).
    pub(crate) fn check_lifetimes(&self, oneshot: bool, report: &mut Report) {
        let (ttl, interval) = match (self.ttl, self.renewal_interval) {
            (None, None) => return,
            (Some(ttl), Some(interval)) => (ttl, interval),
            (Some(_), None) => {
                let message = "`credential_ttl` and `renewal_interval` must be given together: add `renewal_interval`";
                return report.mistakes.push(self.mistake("credential_ttl", message));
            }
            (None, Some(_)) => {
                let message = "`credential_ttl` and `renewal_interval` must be given together: add `credential_ttl`";
                return report.mistakes.push(self.mistake("renewal_interval", message));
            }
        };
        for (key, value) in [("credential_ttl", ttl), ("renewal_interval", interval)] {
            if value.is_zero() {
                report.mistakes.push(self.mistake(key, "must be longer than zero: write a duration such as `20m`"));
            }
        }
        if ttl > LONGEST_TTL {
            let message = format!("{} is longer than the 24h that certificates may live", format_duration(ttl));
            report.mistakes.push(self.mistake("credential_ttl", message));
        }
        if interval >= ttl && !oneshot {
            let (interval, ttl) = (format_duration(interval), format_duration(ttl));
            let message = format!(
                "{interval} is not shorter than `credential_ttl` ({ttl}): certificates would expire before they are renewed"
            );
            report.mistakes.push(self.mistake("renewal_interval", message));
        }
    }
}

impl fmt::Debug for OutputConfig {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // A plugin's option may hold a secret: only the keys are shown.
        f.debug_struct("OutputConfig")
            .field("name", &self.name)
            .field("kind", &self.kind)
            .field("destination", &self.destination)
            .field("roles", &self.roles)
            .field("ttl", &self.ttl)
            .field("renewal_interval", &self.renewal_interval)
            .field("options", &self.options.keys().collect::<Vec<_>>())
            .finish_non_exhaustive()
    }
}

/// Checks the given names and names the others (surface §B.7).
pub(crate) fn name(outputs: &mut [OutputConfig], report: &mut Report) {
    let mut taken: BTreeSet<String> = BTreeSet::new();
    for output in outputs.iter().filter(|output| !output.name.is_empty()) {
        let name = &output.name;
        if !name.chars().all(in_name) {
            let message = "a name has lowercase letters, digits, `-`, `_` and `+` only: choose another";
            report.mistakes.push(output.mistake("name", message));
        } else if RESERVED.contains(&name.as_str()) {
            report.mistakes.push(output.mistake("name", format!("`{name}` is reserved: choose another name")));
        } else if !taken.insert(name.clone()) {
            let message = format!("`{name}` is the name of another output, too: choose another name");
            report.mistakes.push(output.mistake("name", message));
        }
    }
    for output in outputs.iter_mut().filter(|output| output.name.is_empty()) {
        let base: String = output.kind.chars().map(|c| if in_name(c) { c } else { '-' }).collect();
        let mut counter = 1_u32;
        while !taken.insert(format!("{base}-{counter}")) {
            counter += 1;
        }
        output.name = format!("{base}-{counter}");
    }
}

fn in_name(c: char) -> bool {
    c.is_ascii_lowercase() || c.is_ascii_digit() || matches!(c, '-' | '_' | '+')
}

fn destination(section: &mut Section, places: &Places, report: &mut Report) -> Option<DestinationConfig> {
    let Some(field) = section.field("destination") else {
        let message = "no destination configured for output: add `destination` with `type: directory` and `path`";
        report.mistake(&places.whole, message);
        return None;
    };
    DestinationConfig::read(field.section(report)?, report)
}
