//! The one place that decides by the cluster's version.

use std::sync::OnceLock;

use tracing::warn;

/// Environment variable with the version that the agent says it is, for clusters that admit no other.
pub(crate) const OVERRIDE: &str = "TBOT_CLIENT_VERSION";
/// What the agent says it is where the cluster's version is not known yet: the version whose wire was recorded.
pub(crate) const CLIENT: &str = "15.0.0";

/// A cluster's version, as far as it decides about the wire.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Major(pub(crate) u32);

impl Major {
    /// Reads `15.0.0-dev`; what cannot be read counts as 15.
    pub(crate) fn parse(version: &str) -> Self {
        Self(version.trim_start_matches('v').split('.').next().and_then(|major| major.parse().ok()).unwrap_or(15))
    }

    /// Authorities and host certificates come over gRPC; before, over HTTP (wire §l; the older way went with 14).
    pub(crate) fn trust_service(self) -> bool {
        self >= Self(14)
    }

    /// Every join is an instance of the bot, which says how it is (wire §f.5, §g.3).
    pub(crate) fn bot_instances(self) -> bool {
        self >= Self(16)
    }

    /// Keys go out as one SSH and one TLS key, in fields 22 and 23; `RouteToApp` needs no session (wire §p).
    pub(crate) fn split_keys(self) -> bool {
        self >= Self(17)
    }

    /// Joining is one conversation for every method (wire §d).
    pub(crate) fn join_stream(self) -> bool {
        self >= Self(18)
    }

    /// The proxy takes SSH in the messages of a call, besides SSH itself.
    pub(crate) fn ssh_by_grpc(self) -> bool {
        self >= Self(13)
    }

    /// `RegisterUsingToken` over gRPC exists (wire §b.4).
    pub(crate) fn grpc_join(self) -> bool {
        self >= Self(16)
    }
}

/// The value of the metadata key `version`: always well-formed, because an ill-formed one kills a version 15 auth server (rust-wire §4).
/// At least [`CLIENT`]; newer clusters are told their own version, so that their gate lets us in (wire §d.5). [`OVERRIDE`] decides instead.
pub(crate) fn client_version(server: &str) -> String {
    static ORDERED: OnceLock<Option<String>> = OnceLock::new();
    let ordered = ORDERED.get_or_init(|| {
        let wanted = std::env::var(OVERRIDE).ok().filter(|text| !text.is_empty())?;
        if release(&wanted).is_none() {
            warn!(target: "AUTH", "{OVERRIDE} is ignored: it must be a version such as `{CLIENT}`.");
        }
        release(&wanted).map(|[major, minor, patch]| format!("{major}.{minor}.{patch}"))
    });
    ordered.clone().unwrap_or_else(|| usual(server))
}

fn usual(server: &str) -> String {
    match release(server) {
        Some([major, minor, patch]) if major > 15 => format!("{major}.{minor}.{patch}"),
        _ => CLIENT.to_owned(),
    }
}

/// The numbers of a version, without what says that it is not finished.
fn release(version: &str) -> Option<[u32; 3]> {
    let release = version.trim_start_matches('v').split(['-', '+']).next().unwrap_or_default();
    let numbers: Option<Vec<u32>> = release.split('.').map(|part| part.parse().ok()).collect();
    numbers?.try_into().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_sent_as_version_is_always_well_formed() {
        for (server, sent) in [
            ("15.0.0-dev", "15.0.0"),
            ("12.1.3", "15.0.0"),
            ("18.2.5-alpha.1", "18.2.5"),
            ("", "15.0.0"),
            ("nonsense", "15.0.0"),
            ("17.1", "15.0.0"),
            ("18.-1.0", "15.0.0"),
        ] {
            assert_eq!(usual(server), sent, "{server}");
        }
        assert!(Major::parse("17.0.0").split_keys() && !Major::parse("16.9.9").split_keys());
        assert!(Major::parse("16.0.0").grpc_join() && !Major::parse("x").grpc_join());
    }
}
