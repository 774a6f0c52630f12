use serde::Deserialize;

use crate::{File, FileName, KeyEncoding, Material, Piece, text};

/// Names of the files that nearly every output writes and that files of Teleport 12 could rename (surface §B.2). Flatten it into the
/// output's configuration.
#[derive(Debug, Clone, Default, Deserialize, PartialEq, Eq)]
#[serde(default)]
pub struct BaseNames {
    identity_file: FileName,
    host_ca_path: FileName,
    user_ca_path: FileName,
    database_ca_path: FileName,
}

impl BaseNames {
    /// Of the file with all in one, for `tsh`, `tctl` and the API clients.
    pub fn identity_file(&self) -> &str {
        self.identity_file.or("identity")
    }

    /// In the order in which the original writes them (surface §C.2); the identity file has a place of its own in each output.
    fn all(&self) -> [&str; 7] {
        [
            "key-cert.pub",
            "tlscert",
            "key",
            "key.pub",
            self.host_ca_path.or("teleport-host-ca.crt"),
            self.user_ca_path.or("teleport-user-ca.crt"),
            self.database_ca_path.or("teleport-database-ca.crt"),
        ]
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
