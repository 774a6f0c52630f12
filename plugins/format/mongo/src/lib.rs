//! Format `mongo`: what MongoDB's clients read.

use tbot_sdk::{Error, File, FileName, Format, KeyEncoding, Material, Piece, text};

/// Keys of the format in `tbot.yaml` (surface §B.2).
#[derive(Default, serde::Deserialize)]
#[serde(default)]
struct Config {
    prefix: FileName,
}

struct Mongo;

impl Format for Mongo {
    type Config = Config;
    const KEYS: &'static [&'static str] = &["prefix"];

    fn files(config: &Config, _directory: Option<&str>) -> Result<Vec<String>, Error> {
        let prefix = config.prefix.or("mongo");
        Ok([".crt", ".cas"].map(|end| format!("{prefix}{end}")).to_vec())
    }

    fn render(config: &Config, material: &Material) -> Result<Vec<File>, Error> {
        let prefix = config.prefix.or("mongo");
        let both = [Piece::text(material.certificate()?), Piece::PrivateKey(KeyEncoding::TraditionalPem)];
        Ok(vec![
            File::of(format!("{prefix}.crt"), both),
            File::new(format!("{prefix}.cas"), text::certificates(&material.database_authorities)),
        ])
    }
}

tbot_sdk::export_format!(Mongo);

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
            ("v15/runs/oneshot-direct/files/db-mongo", "localhost:3080"),
            ("v12/runs/direct/files/a", "localhost:4080"),
        ] {
            format_as_recorded::<Mongo>(
                &recordings.join(run),
                "/opt/machine-id/out",
                proxy,
                &["mongo.crt", "mongo.cas"],
            );
        }
    }

    #[test]
    fn golden_files() {
        golden_format::<Mongo>(&Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden"));
    }
}
