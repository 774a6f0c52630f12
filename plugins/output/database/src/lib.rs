//! Output `database`: a certificate for one database, and what its clients want to read.

use tbot_sdk::{BaseNames, Database, Error, File, FormatOption, Material, Output, Request, Target, text};

/// Keys of the output in `tbot.yaml` (surface §B.6).
#[derive(Default, serde::Deserialize)]
#[serde(default)]
struct Config {
    service: String,
    username: String,
    database: String,
    format: FormatOption,
    #[serde(flatten)]
    names: BaseNames,
}

struct DatabaseOutput;

impl Output for DatabaseOutput {
    type Config = Config;
    const KEYS: &'static [&'static str] = &[
        "service",
        "username",
        "database",
        "format",
        "identity_file",
        "host_ca_path",
        "user_ca_path",
        "database_ca_path",
    ];

    fn plan(config: &Config, _directory: Option<&str>) -> Result<Request, Error> {
        if config.service.is_empty() {
            return Err(Error::invalid_config("service must not be empty: write the name of a database service"));
        }
        let target = Target::Database(Database {
            service: config.service.clone(),
            username: config.username.clone(),
            database: config.database.clone(),
        });
        Ok(Request {
            target,
            files: config.names.paths(&[config.names.identity_file()]),
            formats: config.format.uses(),
        })
    }

    fn render(config: &Config, material: &Material) -> Result<Vec<File>, Error> {
        let mut files = config.names.files(material);
        files.push(text::identity_file(config.names.identity_file(), material)?);
        Ok(files)
    }
}

tbot_sdk::export_output!(DatabaseOutput);

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;
    use tbot_sdk::ErrorKind;
    use tbot_sdk::testing::{call, golden_output, output_as_recorded};

    const HERE: &str = env!("CARGO_MANIFEST_DIR");

    /// The same files with the same bytes as the original wrote them on real clusters, private key included.
    #[test]
    fn writes_what_the_original_wrote() {
        for (run, proxy) in
            [("v15/runs/oneshot-direct/files/db", "localhost:3080"), ("v12/runs/direct/files/a", "localhost:4080")]
        {
            let folder = Path::new(HERE).join("../../../tests/recordings").join(run);
            let config = r#"{"service": "example-server"}"#;
            let planned = output_as_recorded::<DatabaseOutput>(&folder, "/opt/machine-id/db", proxy, config);
            assert_eq!(planned.len(), 8);
        }
    }

    #[test]
    fn golden_files() {
        golden_output::<DatabaseOutput>(&Path::new(HERE).join("tests/golden"));
    }

    #[test]
    fn a_database_has_a_service_and_may_have_formats() {
        let error = call::plan::<DatabaseOutput>(r#"{"username": "alice"}"#, None).unwrap_err();
        assert_eq!(error.kind, ErrorKind::InvalidConfig);
        assert!(error.message.starts_with("service must not be empty"), "{}", error.message);
        let config = r#"{"service": "s", "username": "u", "database": "d", "format": ["mongo", {"name": "tls", "prefix": "x"}]}"#;
        let plan = call::plan::<DatabaseOutput>(config, None).unwrap();
        let database = Database { service: "s".into(), username: "u".into(), database: "d".into() };
        assert_eq!(plan.target, Target::Database(database));
        let formats: Vec<_> =
            plan.formats.iter().map(|format| (format.name.as_str(), format.config.as_str())).collect();
        assert_eq!(formats, [("mongo", "{}"), ("tls", r#"{"prefix":"x"}"#)]);
    }

    #[test]
    fn files_of_teleport_12_renamed_the_base_files() {
        let config = r#"{"service": "s", "identity_file": "id", "host_ca_path": "h", "user_ca_path": "u", "database_ca_path": "d"}"#;
        let planned = call::plan::<DatabaseOutput>(config, None).unwrap().files;
        assert_eq!(planned, ["key-cert.pub", "tlscert", "key", "key.pub", "h", "u", "d", "id"]);
    }
}
