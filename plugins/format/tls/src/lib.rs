//! Format `tls`: certificate, key and authorities under the names that TLS servers and clients like.

use tbot_sdk::{CaCertType, Error, File, FileName, Format, KeyEncoding, Material, Piece, text};

/// Keys of the format in `tbot.yaml` (surface §B.2).
#[derive(Default, serde::Deserialize)]
#[serde(default)]
struct Config {
    prefix: FileName,
    ca_cert_type: CaCertType,
}

struct Tls;

impl Format for Tls {
    type Config = Config;
    const KEYS: &'static [&'static str] = &["prefix", "ca_cert_type"];

    fn files(config: &Config, _directory: Option<&str>) -> Result<Vec<String>, Error> {
        let prefix = config.prefix.or("tls");
        Ok([".crt", ".key", ".cas"].map(|end| format!("{prefix}{end}")).to_vec())
    }

    fn render(config: &Config, material: &Material) -> Result<Vec<File>, Error> {
        let prefix = config.prefix.or("tls");
        Ok(vec![
            File::new(format!("{prefix}.crt"), material.certificate()?),
            File::of(format!("{prefix}.key"), [Piece::PrivateKey(KeyEncoding::TraditionalPem)]),
            File::new(format!("{prefix}.cas"), text::certificates(config.ca_cert_type.of(material))),
        ])
    }
}

tbot_sdk::export_format!(Tls);

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;
    use tbot_sdk::testing::{format_as_recorded, golden_format};

    /// The same files with the same bytes as the original wrote them on real clusters.
    #[test]
    fn writes_what_the_original_wrote() {
        let recordings = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../../tests/recordings");
        for (run, proxy) in [
            ("v15/runs/oneshot-direct/files/db-tls", "localhost:3080"),
            ("v12/runs/seed-database/files/c", "localhost:4080"),
        ] {
            format_as_recorded::<Tls>(
                &recordings.join(run),
                "/opt/machine-id/out",
                proxy,
                &["tls.crt", "tls.key", "tls.cas"],
            );
        }
    }

    #[test]
    fn golden_files() {
        golden_format::<Tls>(&Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden"));
    }
}
