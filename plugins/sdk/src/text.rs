//! Texts that more than one output writes (surface §C.1).

use crate::{Authority, Error, File, KeyEncoding, Material, Piece};

/// All TLS certificates of these authorities, PEM, in the cluster's order, each ending in a newline.
pub fn certificates(authorities: &[Authority]) -> String {
    authorities.iter().flat_map(|authority| &authority.tls_certificates).map(|pem| ended(pem)).collect()
}

/// One `known_hosts` line for each key of an authority that signs hosts: trusted for `first` (if any) and for the cluster and all
/// names below it.
///
/// # Errors
/// [`Error::denied`] where a name or key could break out of its line.
pub fn known_hosts(first: Option<&str>, authorities: &[Authority]) -> Result<String, Error> {
    let mut lines = String::new();
    for authority in authorities {
        let cluster = plain(&authority.cluster)?;
        let first = first.map(|host| plain(host).map(|host| format!("{host},"))).transpose()?.unwrap_or_default();
        for key in &authority.ssh_keys {
            if key.chars().any(char::is_control) {
                return Err(Error::denied(format!(
                    "an authority of cluster `{cluster}` has a key that is not one line"
                )));
            }
            lines.push_str(&format!("@cert-authority {first}{cluster},*.{cluster} {key} type=host\n"));
        }
    }
    Ok(lines)
}

/// The "identity file" of `tsh`, `tctl` and the API clients: everything in one.
///
/// # Errors
/// As [`known_hosts`].
pub fn identity_file(path: &str, material: &Material) -> Result<File, Error> {
    let mut rest = material.ssh_certificate.as_deref().map(ended).unwrap_or_default();
    rest.push_str(&ended(material.certificate()?));
    rest.push_str(&known_hosts(None, &material.host_authorities)?);
    rest.push_str(&certificates(&material.host_authorities));
    Ok(File::of(path, [Piece::PrivateKey(KeyEncoding::TraditionalPem), Piece::text(rest)]))
}

/// `name` where it can stand in a line of configuration without ending a word: names of leaf clusters are chosen by others.
///
/// # Errors
/// [`Error::denied`].
pub fn plain(name: &str) -> Result<&str, Error> {
    let allowed = |c: char| c.is_ascii_alphanumeric() || ".-_:[]".contains(c);
    match name.chars().all(allowed) && !name.is_empty() {
        true => Ok(name),
        false => Err(Error::denied(format!("{name:?} is no name of a host or cluster: rename it"))),
    }
}

fn ended(text: &str) -> String {
    match text.ends_with('\n') || text.is_empty() {
        true => text.to_owned(),
        false => format!("{text}\n"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing;

    #[test]
    fn every_key_of_every_cluster_has_a_line() {
        let material = testing::sample();
        let lines = known_hosts(Some("proxy.example.com"), &material.host_authorities).unwrap();
        assert_eq!(
            lines,
            "@cert-authority proxy.example.com,root.example.com,*.root.example.com ssh-rsa SE9TVDE= type=host\n\
             @cert-authority proxy.example.com,root.example.com,*.root.example.com ssh-rsa SE9TVDI= type=host\n\
             @cert-authority proxy.example.com,leaf.example.com,*.leaf.example.com ssh-rsa TEVBRg== type=host\n"
        );
    }

    #[test]
    fn a_name_cannot_leave_its_line() {
        for name in ["a\nHost *", "a b", "", "a\"b", "a,b", "*"] {
            let mut material = testing::sample();
            material.host_authorities[1].cluster = name.into();
            assert_eq!(known_hosts(None, &material.host_authorities).unwrap_err().kind, crate::ErrorKind::Denied);
            assert!(identity_file("identity", &material).is_err());
        }
        let mut material = testing::sample();
        material.host_authorities[0].ssh_keys[0].push_str("\n* ssh-rsa evil");
        assert!(known_hosts(None, &material.host_authorities).is_err());
    }

    #[test]
    fn certificates_keep_their_order_and_are_whole_lines() {
        let mut material = testing::sample();
        let whole = certificates(&material.host_authorities);
        material.host_authorities[0].tls_certificates[0].pop();
        assert_eq!(certificates(&material.host_authorities), whole);
        assert_eq!(whole.matches("BEGIN").count(), 3);
    }
}
