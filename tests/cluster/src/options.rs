//! How a stand-in is set up.

use std::{str::FromStr, time::Duration};

use crate::evidence::Platforms;

/// What to start. `Options::default()` suits most tests.
#[derive(Debug, Clone)]
pub struct Options {
    /// Also the issuer's organisation in every certificate.
    pub cluster_name: String,
    /// Port of the auth service on 127.0.0.1; 0 lets the system choose.
    pub auth_port: u16,
    /// Port of the proxy on 127.0.0.1; 0 lets the system choose.
    pub proxy_port: u16,
    /// Further names of the proxy (`public_addr`): under any other, a client that names none of its applications is sent away.
    pub proxy_names: Vec<String>,
    /// Which release it behaves as.
    pub release: Release,
    /// Which keys clients are to make, for releases that know suites (wire §e.2).
    pub suite: Suite,
    /// Period of the tick at which application sessions become visible (rust-wire §4: up to one second). Zero: at once.
    pub session_tick: Duration,
    /// A load balancer that hides protocol names stands in front of the proxy, on its port (wire §i.6).
    pub strip_alpn: bool,
    /// The platforms whose evidence is believed.
    pub platforms: Platforms,
    /// Longest life of a certificate: 24 hours on a real cluster (wire §g.1).
    pub ttl_cap: Duration,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            cluster_name: "stand-in.example.com".to_owned(),
            auth_port: 0,
            proxy_port: 0,
            proxy_names: Vec::new(),
            release: Release::V15,
            suite: Suite::default(),
            strip_alpn: false,
            platforms: Platforms::default(),
            session_tick: Duration::from_secs(1),
            ttl_cap: Duration::from_secs(24 * 3600),
        }
    }
}

/// Which Teleport release a stand-in behaves as (wire §l).
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Default)]
pub enum Release {
    /// 12.0.0: authorities over HTTP, of the joins over gRPC only `iam`.
    V12,
    /// 15.0.0: one RSA key per certificate request, join over HTTP, sessions made by the client.
    #[default]
    V15,
    /// 17.0.0 with suite balanced-v1: two keys per request, legacy join over gRPC, sessions made by the server.
    V17,
    /// 18.2.0: as 17, and one conversation for every way of joining.
    Newest,
}

impl Release {
    /// All of them, oldest first.
    pub const ALL: [Self; 4] = [Self::V12, Self::V15, Self::V17, Self::Newest];

    /// The version a server announces.
    pub fn version(self) -> &'static str {
        match self {
            Self::V12 => "12.0.0",
            Self::V15 => "15.0.0",
            Self::V17 => "17.0.0",
            Self::Newest => "18.2.0",
        }
    }

    /// The oldest client version it admits.
    pub fn minimum_client(self) -> &'static str {
        match self {
            Self::V12 => "11.0.0",
            Self::V15 => "14.0.0",
            Self::V17 => "16.0.0",
            Self::Newest => "17.0.0",
        }
    }

    /// Two keys per request, sessions made by the server, bot instances, heartbeats, `RegisterUsingToken` over gRPC.
    pub(crate) fn is_modern(self) -> bool {
        self >= Self::V17
    }
}

/// A signature suite (wire §e.2); the numbers are those of the wire.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Suite {
    /// RSA everywhere.
    Legacy = 1,
    /// ECDSA where nothing speaks against it.
    #[default]
    Balanced = 2,
    /// What FIPS allows.
    Fips = 3,
    /// For hardware modules.
    Hsm = 4,
}

impl Suite {
    /// All of them.
    pub const ALL: [Self; 4] = [Self::Legacy, Self::Balanced, Self::Fips, Self::Hsm];

    /// The name on the wire.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Legacy => "legacy",
            Self::Balanced => "balanced-v1",
            Self::Fips => "fips-v1",
            Self::Hsm => "hsm-v1",
        }
    }
}

impl Options {
    /// The suite, which releases before 17 do not know.
    pub(crate) fn suite(&self) -> Option<Suite> {
        self.release.is_modern().then_some(self.suite)
    }
}

impl FromStr for Release {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let named = |release: &Release| {
            let version = release.version();
            text == version || text == version.split('.').next().unwrap_or_default()
        };
        match Self::ALL.into_iter().find(named) {
            Some(release) => Ok(release),
            None if text == "newest" => Ok(Self::Newest),
            None => {
                let all = Self::ALL.map(|release| format!("`{}`", release.version())).join(", ");
                Err(format!("version `{text}` is not one a stand-in plays: give one of {all}"))
            }
        }
    }
}
