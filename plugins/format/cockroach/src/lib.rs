//! Format `cockroach`: what CockroachDB's clients read, in a folder of its own.

use tbot_sdk::{Error, File, FileName, Format, KeyEncoding, Material, Piece, text};

/// Keys of the format in `tbot.yaml` (surface §B.2).
#[derive(Default, serde::Deserialize)]
#[serde(default)]
struct Config {
    dir_name: FileName,
}

struct Cockroach;

impl Format for Cockroach {
    type Config = Config;
    const KEYS: &'static [&'static str] = &["dir_name"];

    fn files(config: &Config, _directory: Option<&str>) -> Result<Vec<String>, Error> {
        let folder = config.dir_name.or("cockroach");
        Ok(["node.crt", "node.key", "ca.crt"].map(|name| format!("{folder}/{name}")).to_vec())
    }

    fn render(config: &Config, material: &Material) -> Result<Vec<File>, Error> {
        let folder = config.dir_name.or("cockroach");
        Ok(vec![
            File::new(format!("{folder}/node.crt"), material.certificate()?),
            File::of(format!("{folder}/node.key"), [Piece::PrivateKey(KeyEncoding::TraditionalPem)]),
            File::new(format!("{folder}/ca.crt"), text::certificates(&material.database_authorities)),
        ])
    }
}

tbot_sdk::export_format!(Cockroach);

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
            ("v15/runs/oneshot-direct/files/db-cockroach", "localhost:3080"),
            ("v12/runs/seed-database/files/b", "localhost:4080"),
        ] {
            format_as_recorded::<Cockroach>(
                &recordings.join(run),
                "/opt/machine-id/out",
                proxy,
                &["cockroach/node.crt", "cockroach/node.key", "cockroach/ca.crt"],
            );
        }
    }

    #[test]
    fn golden_files() {
        golden_format::<Cockroach>(&Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden"));
    }
}
