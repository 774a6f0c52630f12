//! OpenSSH's client configuration (surface §C.3).

use crate::text::plain;
use crate::{Error, Material};

/// What host certificates OpenSSH is to accept of a cluster that signs RSA keys only, strongest first (surface §C.3).
const HOST_KEY_ALGORITHMS: &str = "    HostKeyAlgorithms rsa-sha2-512-cert-v01@openssh.com,rsa-sha2-256-cert-v01@openssh.com,ssh-rsa-cert-v01@openssh.com\n";

/// As which release of the original wrote it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SshConfigStyle {
    /// 12: the own cluster only, the proxy without its port, RSA certificates accepted by name.
    V12,
    /// 13 and later: every leaf cluster as well.
    V13,
}

/// The OpenSSH client configuration of the files in `directory`, as the original writes it.
///
/// # Errors
/// [`Error::unsupported`] where the proxy has no public address, [`Error::invalid_config`] for a path that OpenSSH cannot read,
/// [`Error::denied`] for a cluster's name that could break out of its line.
pub fn ssh_config(directory: &str, material: &Material, style: SshConfigStyle) -> Result<String, Error> {
    let (directory, tbot) = (path(directory)?, path(&material.executable)?);
    let (host, port) = proxy(material)?;
    let folder = match directory.contains(' ') {
        true => format!("\"{directory}\""),
        false => directory.clone(),
    };
    let mut clusters = vec![plain(&material.cluster.name)?];
    let leaves = if style == SshConfigStyle::V12 { &[][..] } else { &material.host_authorities };
    for authority in leaves {
        let name = plain(&authority.cluster)?;
        if !clusters.contains(&name) {
            clusters.push(name);
        }
    }
    let (accepted, address) = match style {
        SshConfigStyle::V12 => ("    PubkeyAcceptedAlgorithms +ssh-rsa-cert-v01@openssh.com\n", host.to_owned()),
        SshConfigStyle::V13 => ("", format!("{host}:{port}")),
    };
    // Newer clusters have hosts with other keys, and the line is gone there: such a cluster is known by the keys that it wants of us.
    let hosts = if material.public_key.starts_with("ssh-rsa ") { HOST_KEY_ALGORITHMS } else { "" };
    let mut text = format!("# Begin generated Teleport configuration for {host} by tbot\n\n");
    for cluster in clusters {
        text.push_str(&format!(
            "# Common flags for all {cluster} hosts
Host *.{cluster} {host}
    UserKnownHostsFile \"{directory}/known_hosts\"
    IdentityFile \"{directory}/key\"
    CertificateFile \"{directory}/key-cert.pub\"
{accepted}{hosts}
# Flags for all {cluster} hosts except the proxy
Host *.{cluster} !{host}
    Port 3022
    ProxyCommand \"{tbot}\" proxy --destination-dir={folder} --proxy={address} ssh --cluster={cluster}  %r@%h:%p

"
        ));
    }
    text.push_str("# End generated Teleport configuration\n");
    Ok(text)
}

/// Host and port of the proxy.
///
/// # Errors
/// [`Error::unsupported`] where it has no public address.
pub fn proxy(material: &Material) -> Result<(&str, u16), Error> {
    let address = material.cluster.proxy.as_str();
    let parts = address.rsplit_once(':').and_then(|(host, port)| Some((plain(host).ok()?, port.parse().ok()?)));
    parts.ok_or_else(|| {
        Error::unsupported(format!("proxy {address:?} has no usable public address: set `public_addr` of the proxy"))
    })
}

/// A path that OpenSSH and the shell it starts read as it is.
fn path(text: &str) -> Result<String, Error> {
    match text.chars().any(|c| c.is_control() || "\"\\$`".contains(c)) {
        true => Err(Error::invalid_config(format!(
            "path {text:?} cannot be written into `ssh_config`: choose another, or write `ssh_config: off`"
        ))),
        false => Ok(text.replace('%', "%%")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ErrorKind;
    use crate::testing::sample;

    #[test]
    fn a_path_cannot_leave_its_line() {
        for directory in ["/a\"b", "/a\nProxyCommand x", "/a$HOME", "/a`id`", "/a\\b"] {
            let error = ssh_config(directory, &sample(), SshConfigStyle::V13).unwrap_err();
            assert_eq!(error.kind, ErrorKind::InvalidConfig, "{directory}");
        }
        let spaced = ssh_config("/a b/100%", &sample(), SshConfigStyle::V13).unwrap();
        assert!(spaced.contains("IdentityFile \"/a b/100%%/key\"\n"), "{spaced}");
        assert!(spaced.contains("--destination-dir=\"/a b/100%%\" --proxy"), "{spaced}");
    }

    #[test]
    fn a_cluster_with_newer_keys_is_not_held_to_rsa() {
        let mut material = sample();
        assert!(ssh_config("/opt", &material, SshConfigStyle::V13).unwrap().contains("HostKeyAlgorithms rsa-sha2-512"));
        material.public_key = "ecdsa-sha2-nistp256 UFVCTElD".into();
        assert!(!ssh_config("/opt", &material, SshConfigStyle::V13).unwrap().contains("HostKeyAlgorithms"));
    }

    #[test]
    fn a_cluster_name_cannot_leave_its_line() {
        let mut material = sample();
        material.host_authorities[1].cluster = "x\n    ProxyCommand id".into();
        assert_eq!(ssh_config("/opt", &material, SshConfigStyle::V13).unwrap_err().kind, ErrorKind::Denied);
    }

    #[test]
    fn a_proxy_has_a_host_and_a_port() {
        let mut material = sample();
        for address in ["", "proxy", "proxy:", ":443", "proxy:99999", "a b:443"] {
            material.cluster.proxy = address.into();
            assert_eq!(proxy(&material).unwrap_err().kind, ErrorKind::Unsupported, "{address}");
        }
        material.cluster.proxy = "[::1]:3080".into();
        assert_eq!(proxy(&material).unwrap(), ("[::1]", 3080));
    }
}
