//! Output `application`: a certificate for one application, under the names that HTTP clients and the Teleport tools expect.

use tbot_sdk::{BaseNames, Error, File, FormatOption, KeyEncoding, Material, Output, Piece, Request, Target, text};

/// Keys of the output in `tbot.yaml` (surface §B.6).
#[derive(Default, serde::Deserialize)]
#[serde(default)]
struct Config {
    app_name: String,
    specific_tls_naming: bool,
    format: FormatOption,
    #[serde(flatten)]
    names: BaseNames,
}

struct Application;

impl Output for Application {
    type Config = Config;
    const KEYS: &'static [&'static str] = &[
        "app_name",
        "specific_tls_naming",
        "format",
        "identity_file",
        "host_ca_path",
        "user_ca_path",
        "database_ca_path",
    ];

    fn plan(config: &Config, _directory: Option<&str>) -> Result<Request, Error> {
        if config.app_name.is_empty() {
            return Err(Error::invalid_config("app_name must not be empty: write the name of an application"));
        }
        let more: &[&str] = match config.specific_tls_naming {
            true => &[config.names.identity_file(), "tls.crt", "tls.key", "tls.cas"],
            false => &[config.names.identity_file()],
        };
        Ok(Request {
            target: Target::Application(config.app_name.clone()),
            files: config.names.paths(more),
            formats: config.format.uses(),
        })
    }

    fn render(config: &Config, material: &Material) -> Result<Vec<File>, Error> {
        let mut files = config.names.files(material);
        files.push(text::identity_file(config.names.identity_file(), material)?);
        if config.specific_tls_naming {
            files.push(File::new("tls.crt", material.certificate()?));
            files.push(File::of("tls.key", [Piece::PrivateKey(KeyEncoding::TraditionalPem)]));
            files.push(File::new("tls.cas", text::certificates(&material.host_authorities)));
        }
        Ok(files)
    }
}

tbot_sdk::export_output!(Application);

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;
    use tbot_sdk::ErrorKind;
    use tbot_sdk::testing::{call, golden_output, output_as_recorded, recorded_files};

    const HERE: &str = env!("CARGO_MANIFEST_DIR");

    /// The same files with the same bytes as the original wrote them on a real cluster, private key included.
    #[test]
    fn writes_what_the_original_wrote() {
        for (run, config) in [
            ("oneshot-direct/files/app", r#"{"app_name": "grafana-example"}"#),
            ("oneshot-direct/files/app-tcp", r#"{"app_name": "tcp-example"}"#),
            ("oneshot-direct/files/app-tls", r#"{"app_name": "grafana-example", "specific_tls_naming": true}"#),
            ("daemon-proxy/files/app", r#"{"app_name": "grafana-example"}"#),
        ] {
            let folder = Path::new(HERE).join("../../../tests/recordings/v15/runs").join(run);
            let planned = output_as_recorded::<Application>(&folder, "/opt/machine-id/app", "localhost:3080", config);
            assert_eq!(planned.len(), recorded_files(&folder), "{run}");
        }
    }

    #[test]
    fn golden_files() {
        golden_output::<Application>(&Path::new(HERE).join("tests/golden"));
    }

    #[test]
    fn an_application_has_a_name() {
        for config in ["{}", r#"{"app_name": ""}"#, r#"{"app_name": null}"#] {
            let error = call::plan::<Application>(config, None).unwrap_err();
            assert_eq!(error.kind, ErrorKind::InvalidConfig);
            assert!(error.message.starts_with("app_name must not be empty"), "{}", error.message);
        }
    }

    #[test]
    fn asks_for_the_application_and_names_the_format() {
        let plan =
            call::plan::<Application>(r#"{"app_name": "a", "format": {"name": "p", "file": "x"}}"#, None).unwrap();
        assert_eq!(plan.target, Target::Application("a".into()));
        assert_eq!((plan.formats[0].name.as_str(), plan.formats[0].config.as_str()), ("p", r#"{"file":"x"}"#));
    }
}
