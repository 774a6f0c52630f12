//! Output `ssh_host`: a host certificate and the authorities of its users, for `sshd`.

use tbot_sdk::{Error, File, FileName, FormatOption, KeyEncoding, Material, Output, Piece, Request, Target, text};

/// Keys of the output in `tbot.yaml` (surface §B.6; `prefix` as in files of Teleport 12, §B.2).
#[derive(Default, serde::Deserialize)]
#[serde(default)]
struct Config {
    principals: Vec<String>,
    prefix: FileName,
    format: FormatOption,
}

struct SshHost;

impl Output for SshHost {
    type Config = Config;
    const KEYS: &'static [&'static str] = &["principals", "prefix", "format"];

    fn plan(config: &Config, _directory: Option<&str>) -> Result<Request, Error> {
        if config.principals.is_empty() {
            return Err(Error::invalid_config(
                "principals: at least one principal must be specified: write the names of this host",
            ));
        }
        let prefix = config.prefix.or("ssh_host");
        let files = ["", "-cert.pub", "-user-ca.pub"].map(|end| format!("{prefix}{end}")).to_vec();
        Ok(Request { target: Target::SshHost(config.principals.clone()), files, formats: config.format.uses() })
    }

    fn render(config: &Config, material: &Material) -> Result<Vec<File>, Error> {
        let prefix = config.prefix.or("ssh_host");
        let certificate = material.ssh_certificate.as_deref();
        let certificate = certificate.ok_or_else(|| Error::unsupported("the cluster issued no SSH certificate"))?;
        let cluster = text::plain(&material.cluster.name)?;
        let own = material.user_authorities.iter().filter(|authority| authority.cluster == material.cluster.name);
        let mut users = String::new();
        for key in own.flat_map(|authority| &authority.ssh_keys) {
            if key.chars().any(char::is_control) {
                return Err(Error::denied("an authority of users has a key that is not one line"));
            }
            users.push_str(&format!("{key} clustername={cluster}&type=user\n"));
        }
        Ok(vec![
            File::of(prefix, [Piece::PrivateKey(KeyEncoding::TraditionalPem)]),
            File::new(format!("{prefix}-cert.pub"), certificate),
            File::new(format!("{prefix}-user-ca.pub"), users),
        ])
    }
}

tbot_sdk::export_output!(SshHost);

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;
    use tbot_sdk::testing::{call, golden_output, sample};
    use tbot_sdk::{Authority, ErrorKind};

    const HERE: &str = env!("CARGO_MANIFEST_DIR");

    /// The line of the users' authority has the form that the original wrote.
    #[test]
    fn writes_what_the_original_wrote() {
        let folder = Path::new(HERE).join("../../../tests/recordings/v15/runs/oneshot-direct/files/ssh-host");
        let read = |name: &str| std::fs::read_to_string(folder.join(name)).unwrap();
        let recorded = read("ssh_host-user-ca.pub");
        let keys = recorded.lines().map(|line| line.rsplit_once(' ').unwrap().0.to_owned()).collect();
        let mut material = sample();
        material.cluster.name = "lab.example.com".into();
        material.ssh_certificate = Some(read("ssh_host-cert.pub"));
        material.user_authorities =
            vec![Authority { cluster: "lab.example.com".into(), tls_certificates: vec![], ssh_keys: keys }];
        let files = call::render::<SshHost>(r#"{"principals": ["a"]}"#, &material).unwrap();
        let text = |file: &File| match &file.pieces[0] {
            Piece::Bytes(bytes) => String::from_utf8(bytes.clone()).unwrap(),
            Piece::PrivateKey(_) => String::new(),
        };
        assert_eq!(text(&files[1]), read("ssh_host-cert.pub"));
        assert_eq!(text(&files[2]), recorded);
    }

    #[test]
    fn golden_files() {
        golden_output::<SshHost>(&Path::new(HERE).join("tests/golden"));
    }

    #[test]
    fn a_host_has_a_name() {
        for config in ["{}", r#"{"principals": []}"#] {
            let error = call::plan::<SshHost>(config, None).unwrap_err();
            assert_eq!(error.kind, ErrorKind::InvalidConfig);
            assert!(error.message.contains("at least one principal must be specified"), "{}", error.message);
        }
        let plan = call::plan::<SshHost>(r#"{"principals": ["a", "b"], "prefix": "h"}"#, None).unwrap();
        assert_eq!(plan.target, Target::SshHost(vec!["a".into(), "b".into()]));
        assert_eq!(plan.files, ["h", "h-cert.pub", "h-user-ca.pub"]);
    }
}
