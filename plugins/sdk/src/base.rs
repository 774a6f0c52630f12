use serde::Deserialize;

use crate::{File, KeyEncoding, Material, Piece, text};

/// Names of the files that nearly every output writes and that files of Teleport 12 could rename (surface §B.2). Flatten it into the
/// output's configuration.
#[derive(Debug, Clone, Deserialize, PartialEq, Eq)]
#[serde(default)]
pub struct BaseNames {
    /// All in one, for `tsh`, `tctl` and the API clients.
    pub identity_file: String,
    /// Authorities of hosts.
    pub host_ca_path: String,
    /// Authorities of users.
    pub user_ca_path: String,
    /// Authorities of databases.
    pub database_ca_path: String,
}

impl Default for BaseNames {
    fn default() -> Self {
        Self {
            identity_file: "identity".into(),
            host_ca_path: "teleport-host-ca.crt".into(),
            user_ca_path: "teleport-user-ca.crt".into(),
            database_ca_path: "teleport-database-ca.crt".into(),
        }
    }
}

impl BaseNames {
    /// The configuration keys, for [`crate::Output::KEYS`].
    pub const KEYS: [&'static str; 4] = ["identity_file", "host_ca_path", "user_ca_path", "database_ca_path"];

    /// In the order in which the original writes them (surface §C.2); without `identity_file`, which each output has in a place of its own.
    fn all(&self) -> [&str; 7] {
        let Self { host_ca_path, user_ca_path, database_ca_path, .. } = self;
        ["key-cert.pub", "tlscert", "key", "key.pub", host_ca_path, user_ca_path, database_ca_path]
    }

    /// Paths of [`BaseNames::files`], and then `more`.
    pub fn paths(&self, more: &[&str]) -> Vec<String> {
        self.all().iter().chain(more).map(ToString::to_string).collect()
    }

    /// Certificates, keys and authorities. Without an SSH certificate `key-cert.pub` is empty.
    pub fn files(&self, material: &Material) -> Vec<File> {
        let contents = [
            Piece::text(material.ssh_certificate.as_deref().unwrap_or_default()),
            Piece::text(material.tls_certificate.as_deref().unwrap_or_default()),
            Piece::PrivateKey(KeyEncoding::TraditionalPem),
            Piece::text(format!("{}\n", material.public_key)),
            Piece::text(text::certificates(&material.host_authorities)),
            Piece::text(text::certificates(&material.user_authorities)),
            Piece::text(text::certificates(&material.database_authorities)),
        ];
        self.all().into_iter().zip(contents).map(|(name, piece)| File::of(name, [piece])).collect()
    }
}
