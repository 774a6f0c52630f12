//! Format `pem-bundle`: key, certificate and authorities in one file, in the order that a server wants.

use tbot_sdk::{Authority, Error, File, FileName, Format, KeyEncoding, Material, Piece, text};

/// Keys of the format in `tbot.yaml`.
#[derive(serde::Deserialize)]
#[serde(default)]
struct Config {
    file_name: FileName,
    order: Vec<Part>,
}

impl Default for Config {
    /// HAProxy's order.
    fn default() -> Self {
        Self { file_name: FileName::default(), order: vec![Part::Certificate, Part::Key, Part::HostAuthorities] }
    }
}

/// What may stand in the file.
#[derive(Clone, Copy, PartialEq, serde::Deserialize)]
#[serde(rename_all = "kebab-case")]
enum Part {
    Key,
    Certificate,
    HostAuthorities,
    UserAuthorities,
    DatabaseAuthorities,
}

struct PemBundle;

impl Format for PemBundle {
    type Config = Config;
    const KEYS: &'static [&'static str] = &["file_name", "order"];

    fn files(config: &Config, _directory: Option<&str>) -> Result<Vec<String>, Error> {
        let twice = config.order.iter().enumerate().any(|(at, part)| config.order[..at].contains(part));
        if config.order.is_empty() || twice {
            return Err(Error::invalid_config(
                "`order` must name parts, each once: write a list such as `[certificate, key, host-authorities]`",
            ));
        }
        Ok(vec![config.file_name.or("bundle.pem").to_owned()])
    }

    fn render(config: &Config, material: &Material) -> Result<Vec<File>, Error> {
        let authorities = |all: &[Authority]| Piece::text(text::certificates(all));
        let piece = |part: &Part| match part {
            Part::Key => Ok(Piece::PrivateKey(KeyEncoding::TraditionalPem)),
            Part::Certificate => material.certificate().map(Piece::text),
            Part::HostAuthorities => Ok(authorities(&material.host_authorities)),
            Part::UserAuthorities => Ok(authorities(&material.user_authorities)),
            Part::DatabaseAuthorities => Ok(authorities(&material.database_authorities)),
        };
        Ok(vec![File {
            path: config.file_name.or("bundle.pem").to_owned(),
            pieces: config.order.iter().map(piece).collect::<Result<_, Error>>()?,
        }])
    }
}

tbot_sdk::export_format!(PemBundle);

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;
    use tbot_sdk::ErrorKind;
    use tbot_sdk::testing::{call, golden_format};

    #[test]
    fn golden_files() {
        golden_format::<PemBundle>(&Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden"));
    }

    #[test]
    fn an_order_names_each_part_once() {
        for order in ["[]", r#"["key", "key"]"#, r#"["keys"]"#, "7"] {
            let error = call::format_files::<PemBundle>(&format!(r#"{{"order": {order}}}"#), None).unwrap_err();
            assert_eq!(error.kind, ErrorKind::InvalidConfig, "{order}");
            assert!(error.message.contains("`order`"), "{}", error.message);
        }
    }
}
