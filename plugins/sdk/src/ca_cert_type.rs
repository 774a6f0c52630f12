use serde::Deserialize;

use crate::{Authority, Material};

/// The key `ca_cert_type`: whose authorities a file of authorities holds. Hosts' where it is absent, because that is what the proxy
/// shows inside a database's TLS.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize)]
#[serde(try_from = "String")]
pub enum CaCertType {
    /// `host`
    #[default]
    Host,
    /// `user`
    User,
    /// `db`
    Database,
}

impl CaCertType {
    /// The authorities of this type.
    pub fn of(self, material: &Material) -> &[Authority] {
        match self {
            Self::Host => &material.host_authorities,
            Self::User => &material.user_authorities,
            Self::Database => &material.database_authorities,
        }
    }
}

impl TryFrom<String> for CaCertType {
    type Error = String;

    fn try_from(name: String) -> Result<Self, String> {
        match name.as_str() {
            "host" | "" => Ok(Self::Host),
            "user" => Ok(Self::User),
            "db" => Ok(Self::Database),
            _ => Err(format!("invalid CA certificate type: {name:?}: write `host`, `user` or `db`")),
        }
    }
}
