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
    use tbot_sdk::testing::{call, golden, read_destination, written};

    const HERE: &str = env!("CARGO_MANIFEST_DIR");

    /// The same files with the same bytes as the original wrote them on real clusters.
    #[test]
    fn writes_what_the_original_wrote() {
        for (run, proxy) in [
            ("v15/runs/oneshot-direct/files/db-cockroach", "localhost:3080"),
            ("v12/runs/seed-database/files/b", "localhost:4080"),
        ] {
            let folder = Path::new(HERE).join("../../../tests/recordings").join(run);
            let (material, key) = read_destination(&folder, "/opt/machine-id/out", proxy).unwrap();
            let files = call::format_render::<Cockroach>("{}", &material).unwrap();
            assert_eq!(
                call::format_files::<Cockroach>("{}", material.directory.as_deref()).unwrap(),
                ["cockroach/node.crt", "cockroach/node.key", "cockroach/ca.crt"]
            );
            for (path, contents) in written(&files, |_| key.clone()) {
                assert_eq!(contents, std::fs::read_to_string(folder.join(&path)).unwrap(), "{run}/{path}");
            }
        }
    }

    #[test]
    fn golden_files() {
        golden(&Path::new(HERE).join("tests/golden"), |config, material| {
            call::format_files::<Cockroach>(config, material.directory.as_deref())?;
            call::format_render::<Cockroach>(config, material)
        });
    }
}
