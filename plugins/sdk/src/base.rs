use crate::{File, KeyEncoding, Material, Piece, text};

/// The files that nearly every output of the original writes first, in its order (surface §C.2): what clients expect to find.
const NAMES: [&str; 7] = [
    "key-cert.pub",
    "tlscert",
    "key",
    "key.pub",
    "teleport-host-ca.crt",
    "teleport-user-ca.crt",
    "teleport-database-ca.crt",
];

/// Paths of [`base_files`], and then `more`.
pub fn base_names(more: &[&str]) -> Vec<String> {
    NAMES.iter().chain(more).map(ToString::to_string).collect()
}

/// Certificates, keys and authorities under the original's names. Without an SSH certificate `key-cert.pub` is empty.
pub fn base_files(material: &Material) -> Vec<File> {
    let contents = [
        Piece::text(material.ssh_certificate.as_deref().unwrap_or_default()),
        Piece::text(&material.tls_certificate),
        Piece::PrivateKey(KeyEncoding::TraditionalPem),
        Piece::text(format!("{}\n", material.public_key)),
        Piece::text(text::certificates(&material.host_authorities)),
        Piece::text(text::certificates(&material.user_authorities)),
        Piece::text(text::certificates(&material.database_authorities)),
    ];
    NAMES.into_iter().zip(contents).map(|(name, piece)| File::of(name, [piece])).collect()
}
