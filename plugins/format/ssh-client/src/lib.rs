//! Format `ssh-client`: what every destination of Teleport 12 held for OpenSSH beside everything else.

use tbot_sdk::{Error, File, Format, Material, SshConfigStyle, proxy, ssh_config, text};

/// No key: what Teleport 12 wrote.
#[derive(serde::Deserialize)]
struct Config {}

struct SshClient;

impl Format for SshClient {
    type Config = Config;
    const KEYS: &'static [&'static str] = &[];

    fn files(_: &Config, directory: Option<&str>) -> Result<Vec<String>, Error> {
        let more = directory.map(|_| "ssh_config".to_owned());
        Ok(["known_hosts".to_owned()].into_iter().chain(more).collect())
    }

    fn render(_: &Config, material: &Material) -> Result<Vec<File>, Error> {
        let (host, _) = proxy(material)?;
        let known_hosts = text::known_hosts(Some(host), &material.own_host_authorities())?;
        let mut files = vec![File::new("known_hosts", known_hosts)];
        if let Some(directory) = &material.directory {
            files.push(File::new("ssh_config", ssh_config(directory, material, SshConfigStyle::V12)?));
        }
        Ok(files)
    }
}

tbot_sdk::export_format!(SshClient);

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;
    use tbot_sdk::testing::{format_as_recorded, golden_format};

    /// The same files with the same bytes as the original wrote them on real clusters.
    #[test]
    fn writes_what_the_original_wrote() {
        let folder =
            Path::new(env!("CARGO_MANIFEST_DIR")).join("../../../tests/recordings/v12/runs/seed-database/files/e");
        let paths = ["known_hosts", "ssh_config"];
        format_as_recorded::<SshClient>(&folder, "/opt/machine-id/e", "localhost:4080", &paths);
    }

    #[test]
    fn golden_files() {
        golden_format::<SshClient>(&Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden"));
    }
}
