//! Output `identity`: the bot's impersonated identity for SSH, `tsh`, `tctl` and the API clients.

use tbot_sdk::{
    BaseNames, Error, File, FormatOption, IdentityTarget, Material, Output, Request, SshConfigStyle, Target, proxy,
    ssh_config, text,
};

/// Keys of the output in `tbot.yaml` (surface §B.6, §B.7).
#[derive(Default, serde::Deserialize)]
#[serde(default)]
struct Config {
    cluster: String,
    ssh_config: SshConfig,
    allow_reissue: bool,
    format: FormatOption,
    #[serde(flatten)]
    names: BaseNames,
}

impl Config {
    /// Where `ssh_config` is wanted and possible: its lines need absolute paths.
    fn ssh_directory<'a>(&self, directory: Option<&'a str>) -> Option<&'a str> {
        directory.filter(|_| self.ssh_config != SshConfig::Off)
    }
}

/// YAML 1.1 takes `on` and `off` for booleans, YAML 1.2 for words.
#[derive(Default, Clone, Copy, PartialEq, serde::Deserialize)]
#[serde(try_from = "serde_json::Value")]
enum SshConfig {
    #[default]
    On,
    Off,
    /// As Teleport 12 wrote it: what a file of the first schema means.
    V12,
}

impl TryFrom<serde_json::Value> for SshConfig {
    type Error = &'static str;

    fn try_from(value: serde_json::Value) -> Result<Self, Self::Error> {
        match (value.as_bool(), value.as_str()) {
            (Some(true), _) | (_, Some("on" | "")) => Ok(Self::On),
            (Some(false), _) | (_, Some("off")) => Ok(Self::Off),
            (_, Some("v12")) => Ok(Self::V12),
            _ => Err("must be `on`, `off` or `v12`"),
        }
    }
}

struct Identity;

impl Output for Identity {
    type Config = Config;
    const KEYS: &'static [&'static str] = &[
        "cluster",
        "ssh_config",
        "allow_reissue",
        "format",
        "identity_file",
        "host_ca_path",
        "user_ca_path",
        "database_ca_path",
    ];

    fn plan(config: &Config, directory: Option<&str>) -> Result<Request, Error> {
        let names = &config.names;
        let more: &[&str] = match config.ssh_directory(directory) {
            Some(_) => &["known_hosts", "ssh_config", names.identity_file()],
            None => &["known_hosts", names.identity_file()],
        };
        let cluster = Some(config.cluster.clone()).filter(|name| !name.is_empty());
        let target = Target::Identity(IdentityTarget { cluster, allow_reissue: config.allow_reissue });
        Ok(Request { target, files: names.paths(more), formats: config.format.uses() })
    }

    fn render(config: &Config, material: &Material) -> Result<Vec<File>, Error> {
        let (host, _) = proxy(material)?;
        let mut files = config.names.files(material);
        let (known, style) = match config.ssh_config {
            SshConfig::V12 => (material.own_host_authorities(), SshConfigStyle::V12),
            SshConfig::On | SshConfig::Off => (material.host_authorities.clone(), SshConfigStyle::V13),
        };
        files.push(File::new("known_hosts", text::known_hosts(Some(host), &known)?));
        if let Some(directory) = config.ssh_directory(material.directory.as_deref()) {
            files.push(File::new("ssh_config", ssh_config(directory, material, style)?));
        }
        files.push(text::identity_file(config.names.identity_file(), material)?);
        Ok(files)
    }
}

tbot_sdk::export_output!(Identity);

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;
    use tbot_sdk::testing::{call, golden_output, output_as_recorded, recorded_files, sample};

    const HERE: &str = env!("CARGO_MANIFEST_DIR");

    /// The same files with the same bytes as the original wrote them on a real cluster, private key included.
    #[test]
    fn writes_what_the_original_wrote() {
        for (run, directory) in [
            ("oneshot-direct/files/identity", "/opt/machine-id/identity"),
            ("gen-mismatch/files/a", "/opt/machine-id/a"),
        ] {
            let folder = Path::new(HERE).join("../../../tests/recordings/v15/runs").join(run);
            let planned = output_as_recorded::<Identity>(&folder, directory, "localhost:3080", "{}");
            assert_eq!(planned.len(), recorded_files(&folder), "{run}");
        }
        let folder = Path::new(HERE).join("../../../tests/recordings/v12/runs/seed-database/files/e");
        let config = r#"{"ssh_config": "v12"}"#;
        let planned = output_as_recorded::<Identity>(&folder, "/opt/machine-id/e", "localhost:4080", config);
        assert_eq!(planned.len(), recorded_files(&folder));
    }

    #[test]
    fn golden_files() {
        golden_output::<Identity>(&Path::new(HERE).join("tests/golden"));
    }

    #[test]
    fn a_leaf_cluster_is_a_route() {
        let target = |config: &str| call::plan::<Identity>(config, None).unwrap().target;
        let routed = |cluster: Option<&str>, allow_reissue| {
            Target::Identity(IdentityTarget { cluster: cluster.map(str::to_owned), allow_reissue })
        };
        assert_eq!(target("{}"), routed(None, false));
        assert_eq!(target(r#"{"cluster": "leaf.example.com"}"#), routed(Some("leaf.example.com"), false));
        assert_eq!(target(r#"{"cluster": "", "allow_reissue": true}"#), routed(None, true));
    }

    #[test]
    fn ssh_config_is_a_word_or_a_boolean() {
        for (value, there) in
            [("\"on\"", true), ("true", true), ("\"off\"", false), ("false", false), ("null", true), ("\"v12\"", true)]
        {
            let config = format!(r#"{{"ssh_config": {value}}}"#);
            let planned = call::plan::<Identity>(&config, Some("/opt/machine-id/out")).unwrap().files;
            assert_eq!(planned.iter().any(|path| path == "ssh_config"), there, "{value}");
            let rendered = call::render::<Identity>(&config, &sample()).unwrap();
            assert!(rendered.iter().map(|file| &file.path).eq(&planned), "{value}");
        }
        let error = call::plan::<Identity>(r#"{"ssh_config": "maybe"}"#, None).unwrap_err();
        assert_eq!(error.message, "`ssh_config`: must be `on`, `off` or `v12`");
    }

    #[test]
    fn without_a_directory_there_is_no_ssh_config() {
        let material = Material { directory: None, ..sample() };
        let planned = call::plan::<Identity>("{}", None).unwrap().files;
        let rendered = call::render::<Identity>("{}", &material).unwrap();
        assert!(rendered.iter().map(|file| &file.path).eq(&planned));
        assert!(planned.iter().all(|path| path != "ssh_config"), "{planned:?}");
    }
}
