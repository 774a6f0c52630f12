use std::fmt;
use std::time::Duration;

use crate::destination::DestinationConfig;
use crate::hook::OnChange;
use crate::mistake::Mistake;
use crate::places::Places;

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
    /// What happens after its files have changed.
    pub on_change: Option<OnChange>,
    /// All other keys, for the plugin.
    pub options: serde_json::Map<String, serde_json::Value>,
    pub(crate) places: Places,
}

impl OutputConfig {
    /// A mistake, or a warning, at one of its keys: `type`, `destination`, an option such as `app_name`, or deeper, `selector.name`;
    /// the empty key means the output as a whole. `message` quotes no secret.
    pub fn mistake(&self, key: &str, message: impl Into<String>) -> Mistake {
        self.places.mistake(key, message)
    }

    /// An output with nothing but its type and its destination, which `flag` asked for.
    pub(crate) fn of_flag(flag: &str, kind: &str, destination: DestinationConfig) -> Self {
        Self {
            name: String::new(),
            kind: kind.to_owned(),
            destination,
            roles: Vec::new(),
            ttl: None,
            renewal_interval: None,
            on_change: None,
            options: serde_json::Map::new(),
            places: Places::flag(flag),
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
            .field("on_change", &self.on_change)
            .field("options", &self.options.keys().collect::<Vec<_>>())
            .finish_non_exhaustive()
    }
}
