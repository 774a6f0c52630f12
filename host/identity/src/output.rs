use std::collections::BTreeSet;

use zeroize::Zeroizing;

use crate::{
    Authorities, Failure, FailureKind, KeyEncoding, PrivateKey, RelativePath, SshCertificate, Timestamp,
    TlsCertificate, verify_chain,
};

/// What a certificate is for: one case for every route that the cluster knows (`tbot:output/output.target`).
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum Target {
    /// The impersonated identity itself.
    Identity {
        /// Leaf cluster that it is routed to.
        cluster: Option<String>,
        /// May it be used to ask for other certificates?
        allow_reissue: bool,
    },
    /// An application, by name.
    Application(String),
    /// A database.
    Database {
        /// Name of the database resource.
        service: String,
        /// User to connect as; may be empty.
        username: String,
        /// Database to connect to; may be empty.
        database: String,
    },
    /// A Kubernetes cluster, by name.
    Kubernetes(String),
    /// An SSH host certificate for these principals, and nothing else.
    SshHost(Vec<String>),
}

/// A format that an output asks for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FormatUse {
    /// Name in the catalog.
    pub name: String,
    /// Its configuration, JSON.
    pub config: String,
}

/// What an output plugin wants (`tbot:output/output.request`): known before anything is asked of the cluster.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OutputPlan {
    /// What to ask the cluster for.
    pub target: Target,
    /// The paths that rendering will return.
    pub files: Vec<String>,
    /// Formats to run after the output.
    pub formats: Vec<FormatUse>,
}

/// All that an output may write, but the private key (`tbot:format/material`).
#[derive(Debug, Clone)]
pub struct Material {
    /// Name of the cluster.
    pub cluster: String,
    /// `host:port` of the proxy as the cluster advertises it; may be empty.
    pub proxy: String,
    /// The routed certificate; none for an SSH host.
    pub tls: Option<TlsCertificate>,
    /// The SSH certificate.
    pub ssh: Option<SshCertificate>,
    /// The public key, an authorized_keys line without a newline.
    pub public_key: String,
    /// All authorities.
    pub authorities: std::sync::Arc<Authorities>,
    /// Absolute path of the destination, where it has one.
    pub directory: Option<String>,
    /// Absolute path of this program, for files that call it back.
    pub executable: String,
}

impl Material {
    /// When the certificate expires: an SSH host has only one for SSH. `None` where there is neither.
    pub fn expires(&self) -> Option<Timestamp> {
        let ssh = || self.ssh.as_ref().map(|ssh| ssh.before);
        self.tls.as_ref().map(|tls| tls.before).or_else(ssh)
    }
}

/// A part of a file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Piece {
    /// These bytes.
    Bytes(Vec<u8>),
    /// The private key; the host puts it there.
    PrivateKey(KeyEncoding),
}

/// A file as a plugin returned it: nothing in it is trusted yet.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RenderedFile {
    /// Wanted path.
    pub path: String,
    /// Its contents, in order.
    pub pieces: Vec<Piece>,
}

/// A file ready to be written.
#[derive(Clone)]
pub struct OutputFile {
    /// Where, inside the destination.
    pub path: RelativePath,
    /// What; may hold a key.
    pub contents: Zeroizing<Vec<u8>>,
}

impl std::fmt::Debug for OutputFile {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "OutputFile({}, {} bytes)", self.path, self.contents.len())
    }
}

/// Most files that one output may have.
const FILES: usize = 32;
/// Most bytes in one file.
const FILE_BYTES: usize = 1 << 20;

/// Checks what a plugin rendered against what it planned and puts the key in its places.
///
/// # Errors
/// [`FailureKind::Plugin`]: a path that leaves the destination, two files of one name, a file that was not planned or is missing, too many or too large.
pub fn assemble(planned: &[String], rendered: Vec<RenderedFile>, key: &PrivateKey) -> Result<Vec<OutputFile>, Failure> {
    let broken = |message: String| Failure::new(FailureKind::Plugin, message);
    if rendered.len() > FILES {
        return Err(broken(format!("returned {} files, at most {FILES} are allowed", rendered.len())));
    }
    let mut expected: BTreeSet<&str> = planned.iter().map(String::as_str).collect();
    if expected.len() != planned.len() {
        return Err(broken("planned two files of one name".into()));
    }
    let mut files = Vec::with_capacity(rendered.len());
    for file in rendered {
        let path = RelativePath::parse(&file.path)?;
        if !expected.remove(path.as_str()) {
            return Err(broken(format!("returned file `{path}` twice or without having planned it")));
        }
        let mut contents = Zeroizing::new(Vec::new());
        for piece in &file.pieces {
            match piece {
                Piece::Bytes(bytes) => contents.extend_from_slice(bytes),
                Piece::PrivateKey(encoding) => {
                    contents.extend_from_slice(key.encode(*encoding).map_err(|e| broken(e.to_string()))?.as_bytes());
                }
            }
            if contents.len() > FILE_BYTES {
                return Err(broken(format!("file `{path}` is larger than {FILE_BYTES} bytes")));
            }
        }
        files.push(OutputFile { path, contents });
    }
    match expected.first() {
        Some(missing) => Err(broken(format!("planned file `{missing}` and did not return it"))),
        None => Ok(files),
    }
}

/// What the host checks of every set it has written, on the bytes read back: the certificate belongs to the key, is signed by a
/// user authority of the cluster and is valid now.
///
/// # Errors
/// [`FailureKind::Storage`] with what does not hold.
pub fn verify_written(
    key_pem: &[u8],
    certificate_pem: &[u8],
    authorities: &Authorities,
    now: Timestamp,
) -> Result<(), Failure> {
    let broken = |e: String| Failure::new(FailureKind::Storage, format!("what was written does not verify: {e}"));
    let key = PrivateKey::from_pem(key_pem).map_err(|e| broken(e.to_string()))?;
    let certificate = TlsCertificate::parse(certificate_pem).map_err(|e| broken(e.to_string()))?;
    if !certificate.matches(key.public_key()) {
        return Err(broken("certificate and key do not belong together".into()));
    }
    verify_chain(&certificate, &authorities.user_tls(), now).map_err(|e| broken(e.to_string()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::KeyAlgorithm;

    fn file(path: &str, pieces: Vec<Piece>) -> RenderedFile {
        RenderedFile { path: path.into(), pieces }
    }

    #[test]
    fn the_key_is_put_where_the_plugin_wants_it() {
        let key = PrivateKey::generate(KeyAlgorithm::EcdsaP256).unwrap();
        let pieces = vec![
            Piece::Bytes(b"before\n".to_vec()),
            Piece::PrivateKey(KeyEncoding::Pkcs8Pem),
            Piece::Bytes(b"after".to_vec()),
        ];
        let files = assemble(&["a/b.pem".into()], vec![file("a/b.pem", pieces)], &key).unwrap();
        let text = std::str::from_utf8(&files[0].contents).unwrap();
        assert!(
            text.starts_with("before\n-----BEGIN PRIVATE KEY-----\n")
                && text.ends_with("-----END PRIVATE KEY-----\nafter")
        );
        assert!(!format!("{files:?}").contains("PRIVATE"));
    }

    #[test]
    fn a_plugin_that_lies_about_its_files_is_found_out() {
        let key = PrivateKey::generate(KeyAlgorithm::EcdsaP256).unwrap();
        let (one, two) = ("one".to_owned(), "two".to_owned());
        let big = Piece::Bytes(vec![0; FILE_BYTES + 1]);
        for (planned, rendered, words) in [
            (vec![one.clone()], vec![file("one", vec![]), file("one", vec![])], "twice"),
            (vec![one.clone(), one.clone()], vec![file("one", vec![])], "two files of one name"),
            (vec![one.clone()], vec![file("two", vec![])], "without having planned it"),
            (vec![one.clone(), two], vec![file("one", vec![])], "did not return it"),
            (vec!["../one".into()], vec![file("../one", vec![])], "begins with a dot"),
            (vec!["/etc/one".into()], vec![file("/etc/one", vec![])], "absolute"),
            (vec![one.clone()], vec![file("one", vec![big])], "larger than"),
            (vec![one], (0..=FILES).map(|n| file(&n.to_string(), vec![])).collect(), "at most 32"),
        ] {
            let refused = assemble(&planned, rendered, &key).unwrap_err();
            assert_eq!(refused.kind, FailureKind::Plugin);
            assert!(refused.message.contains(words), "{words}: {refused}");
        }
    }
}
