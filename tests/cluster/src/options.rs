//! How a stand-in is set up.

use std::{str::FromStr, time::Duration};

/// What to start. `Options::default()` suits most tests.
#[derive(Debug, Clone)]
pub struct Options {
    /// Also the issuer's organisation in every certificate.
    pub cluster_name: String,
    /// Port of the auth service on 127.0.0.1; 0 lets the system choose.
    pub auth_port: u16,
    /// Port of the proxy on 127.0.0.1; 0 lets the system choose.
    pub proxy_port: u16,
    /// Which release it behaves as.
    pub release: Release,
    /// Period of the tick at which application sessions become visible (rust-wire §4: up to one second). Zero: at once.
    pub session_tick: Duration,
    /// Longest life of a certificate: 24 hours on a real cluster (wire §g.1).
    pub ttl_cap: Duration,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            cluster_name: "stand-in.example.com".to_owned(),
            auth_port: 0,
            proxy_port: 0,
            release: Release::V15,
            session_tick: Duration::from_secs(1),
            ttl_cap: Duration::from_secs(24 * 3600),
        }
    }
}

/// Which Teleport release a stand-in behaves as (wire §l).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Release {
    /// 15.0.0: one RSA key per certificate request, join over HTTP, sessions made by the client.
    #[default]
    V15,
    /// 18.2.0 with suite balanced-v1: two keys per request, join over gRPC, sessions made by the server.
    Newest,
}

impl Release {
    /// The version a server announces.
    pub fn version(self) -> &'static str {
        match self {
            Self::V15 => "15.0.0",
            Self::Newest => "18.2.0",
        }
    }

    /// The oldest client version it admits.
    pub fn minimum_client(self) -> &'static str {
        match self {
            Self::V15 => "14.0.0",
            Self::Newest => "17.0.0",
        }
    }

    /// The signature suite, which releases before 17 do not know (wire §e.2).
    pub(crate) fn suite(self) -> Option<(&'static str, i32)> {
        match self {
            Self::V15 => None,
            Self::Newest => Some(("balanced-v1", 2)),
        }
    }
}

impl FromStr for Release {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text {
            "15" | "15.0.0" => Ok(Self::V15),
            "newest" | "18" | "18.2.0" => Ok(Self::Newest),
            other => Err(format!("version `{other}` is not one a stand-in plays: give `15.0.0` or `18.2.0`")),
        }
    }
}
