//! A third party's format: a Java `.properties` file that tells an application where its certificate is, and the files it names.

mod date;
mod properties;

use properties::Properties;
use tbot_sdk::{Error, File, Format, KeyEncoding, Material, Piece, text};

/// Keys of the format in `tbot.yaml`.
#[derive(serde::Deserialize)]
#[serde(default)]
struct Config {
    /// Name of the properties file, `<stem>.properties`; the other files are named after its stem.
    file: String,
}

impl Default for Config {
    fn default() -> Self {
        Self { file: "tbot.properties".to_owned() }
    }
}

impl Config {
    fn stem(&self) -> Result<&str, Error> {
        let stem = self.file.strip_suffix(".properties").unwrap_or_default();
        let allowed = |c: char| c.is_ascii_alphanumeric() || "-_.".contains(c);
        // The longest name made of the stem, `<stem>.properties`, has to stay within the 64 bytes that the host allows.
        match !stem.is_empty() && stem.len() <= 48 && !stem.starts_with('.') && stem.chars().all(allowed) {
            true => Ok(stem),
            false => Err(Error::invalid_config(
                "`file` must be a file name of letters, digits, `-`, `_` and `.` that ends in `.properties`, \
                 at most 59 long: write one such as `tbot.properties`",
            )),
        }
    }
}

struct JavaProperties;

impl Format for JavaProperties {
    type Config = Config;
    const KEYS: &'static [&'static str] = &["file"];

    fn files(config: &Config, _directory: Option<&str>) -> Result<Vec<String>, Error> {
        let stem = config.stem()?;
        let names = ["-key.pem", "-cert.pem", "-ca.pem", ".properties"];
        Ok(names.map(|end| format!("{stem}{end}")).to_vec())
    }

    fn render(config: &Config, material: &Material) -> Result<Vec<File>, Error> {
        let names = Self::files(config, material.directory.as_deref())?;
        let [key, certificate, authorities, properties] = names.as_slice() else {
            return Err(Error::internal("four files have four names"));
        };
        // Without a directory the paths are relative: whoever mounts the files decides where they are.
        let path = |name: &str| match &material.directory {
            Some(directory) => format!("{}/{name}", directory.trim_end_matches('/')),
            None => name.to_owned(),
        };
        let text = Properties::titled("written by tbot at every renewal: do not edit")
            .with("tbot.cluster", &material.cluster.name)
            .with("tbot.proxy", &material.cluster.proxy)
            .with("tbot.key.path", &path(key))
            .with("tbot.certificate.path", &path(certificate))
            .with("tbot.authorities.path", &path(authorities))
            .with("tbot.expires", &date::rfc3339(material.expires))
            .with("tbot.expires.epoch", &material.expires.to_string());
        Ok(vec![
            File::of(key, [Piece::PrivateKey(KeyEncoding::Pkcs8Pem)]),
            File::new(certificate, material.certificate()?),
            File::new(authorities, text::certificates(&material.host_authorities)),
            File::new(properties, text.to_string()),
        ])
    }
}

tbot_sdk::export_format!(JavaProperties);

#[cfg(test)]
mod tests {
    use super::*;
    use tbot_sdk::ErrorKind;
    use tbot_sdk::testing::{call, golden, sample};

    #[test]
    fn golden_files() {
        let folder = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden");
        golden(&folder, call::format_render::<JavaProperties>);
    }

    #[test]
    fn renders_the_files_it_announces() {
        for config in ["{}", r#"{"file": "a.b.properties"}"#] {
            let announced = call::format_files::<JavaProperties>(config, None).unwrap();
            let rendered = call::format_render::<JavaProperties>(config, &sample()).unwrap();
            assert!(rendered.iter().map(|file| &file.path).eq(&announced));
        }
    }

    #[test]
    fn a_file_name_is_a_plain_name() {
        for file in ["", ".properties", "../a.properties", "/a.properties", "a", ".a.properties", "a b.properties"] {
            let error = call::format_files::<JavaProperties>(&format!(r#"{{"file": "{file}"}}"#), None).unwrap_err();
            assert_eq!(error.kind, ErrorKind::InvalidConfig, "{file}");
        }
        let long = format!(r#"{{"file": "{}.properties"}}"#, "a".repeat(49));
        assert!(call::format_files::<JavaProperties>(&long, None).is_err());
    }
}
