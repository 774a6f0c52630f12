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
    use tbot_sdk::testing::{call, golden, read_destination, written};

    const HERE: &str = env!("CARGO_MANIFEST_DIR");

    /// The same files with the same bytes as the original wrote them on real clusters.
    #[test]
    fn writes_what_the_original_wrote() {
        for (run, proxy) in [
            ("v15/runs/oneshot-direct/files/db-mongo", "localhost:3080"),
            ("v12/runs/direct/files/a", "localhost:4080"),
        ] {
            let folder = Path::new(HERE).join("../../../tests/recordings").join(run);
            let (material, key) = read_destination(&folder, "/opt/machine-id/out", proxy).unwrap();
            let files = call::format_render::<Mongo>("{}", &material).unwrap();
            assert_eq!(
                call::format_files::<Mongo>("{}", material.directory.as_deref()).unwrap(),
                ["mongo.crt", "mongo.cas"]
            );
            for (path, contents) in written(&files, |_| key.clone()) {
                assert_eq!(contents, std::fs::read_to_string(folder.join(&path)).unwrap(), "{run}/{path}");
            }
        }
    }

    #[test]
    fn golden_files() {
        golden(&Path::new(HERE).join("tests/golden"), |config, material| {
            call::format_files::<Mongo>(config, material.directory.as_deref())?;
            call::format_render::<Mongo>(config, material)
        });
    }
}
