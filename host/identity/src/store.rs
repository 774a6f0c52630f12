use std::collections::HashMap;
use std::sync::Arc;

use sha2::{Digest, Sha256};
use zeroize::Zeroizing;

use crate::{
    CertificateError, Certificates, Failure, FailureKind, Identity, KeyEncoding, OutputFile, PrivateKey, RelativePath,
};

/// The names under which the bot's identity is kept, the original's own (surface §D.1), in the order they are written.
pub const STORE_FILES: [&str; 7] =
    ["key", "key.pub", "key-cert.pub", "sshcacerts", "tlscacerts", "tlscert", "tokenhash"];
/// The file that says which identity a renewal was asked for with, until something is known of the answer. The original ignores it.
pub const RENEWAL_FILE: &str = ".tbot-renewal";

/// An identity as it was found in storage: its parts fit together, but its time may be over.
#[derive(Debug)]
pub struct Stored {
    /// The identity.
    pub identity: Identity,
    /// Lower-case hex SHA-256 of the token it was joined with.
    pub token_hash: String,
    /// A renewal was asked for with it, and nothing is known of the answer.
    pub renewal_asked: bool,
}

impl Identity {
    /// The files of the bot's own storage, names and contents as the original's, so that a user can switch back (surface §D.1).
    ///
    /// # Errors
    /// [`FailureKind::Internal`] where the key cannot be encoded.
    pub fn files(&self, token_hash: &str) -> Result<Vec<OutputFile>, Failure> {
        let key = self
            .key
            .encode(KeyEncoding::TraditionalPem)
            .map_err(|e| Failure::new(FailureKind::Internal, e.to_string()))?;
        let contents: [Vec<u8>; 7] = [
            key.as_bytes().to_vec(),
            format!("{}\n", self.key.public_key().ssh_line()).into_bytes(),
            self.ssh.line.clone().into_bytes(),
            self.ssh_authorities.join("$").into_bytes(),
            self.tls_authorities.join("$").into_bytes(),
            self.tls.pem.clone().into_bytes(),
            token_hash.as_bytes().to_vec(),
        ];
        let files = STORE_FILES.into_iter().zip(contents);
        Ok(files
            .map(|(name, contents)| OutputFile {
                path: RelativePath::literal(name),
                contents: Zeroizing::new(contents),
            })
            .collect())
    }

    /// As [`Identity::files`], with the note that a renewal is asked for with it, or no longer. The note names the certificate, so that it
    /// says nothing of whichever identity is stored later, by whomever.
    ///
    /// # Errors
    /// As [`Identity::files`].
    pub fn files_asking(&self, token_hash: &str, asked: bool) -> Result<Vec<OutputFile>, Failure> {
        let mut files = self.files(token_hash)?;
        let note = if asked { self.fingerprint().into_bytes() } else { Vec::new() };
        files.push(OutputFile { path: RelativePath::literal(RENEWAL_FILE), contents: Zeroizing::new(note) });
        Ok(files)
    }

    /// Lower-case hex SHA-256 of the certificate.
    fn fingerprint(&self) -> String {
        hex(&Sha256::digest(&self.tls.der))
    }
}

/// Puts a stored identity together from its files. `None` where one is missing or empty: there is no identity, as the original sees it.
///
/// # Errors
/// What is damaged: an operator has to look before anything is overwritten.
pub fn load(files: &HashMap<&str, Zeroizing<Vec<u8>>>) -> Result<Option<Stored>, CertificateError> {
    let text = |name: &str| {
        let bytes = files.get(name).filter(|bytes| !bytes.is_empty());
        bytes.map(|bytes| String::from_utf8_lossy(bytes).into_owned())
    };
    let (Some(key), Some(ssh), Some(ssh_authorities), Some(tls_authorities), Some(tls)) =
        (files.get("key"), text("key-cert.pub"), text("sshcacerts"), text("tlscacerts"), text("tlscert"))
    else {
        return Ok(None);
    };
    if key.is_empty() {
        return Ok(None);
    }
    let key = PrivateKey::from_pem(key).map_err(|_| CertificateError::Key)?;
    let parts = |joined: String| joined.split('$').map(str::to_owned).collect();
    let certificates =
        Certificates { ssh, tls, tls_authorities: parts(tls_authorities), ssh_authorities: parts(ssh_authorities) };
    let identity = Identity::unverified(Arc::new(key), certificates)?;
    let renewal_asked = text(RENEWAL_FILE).is_some_and(|note| note.trim() == identity.fingerprint());
    Ok(Some(Stored { identity, token_hash: text("tokenhash").unwrap_or_default().trim().to_owned(), renewal_asked }))
}

/// The hash under which storage remembers a token: lower-case hex SHA-256.
pub fn token_hash(token: &str) -> String {
    hex(&Sha256::digest(token.as_bytes()))
}

pub(crate) fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn recorded(run: &str) -> HashMap<&'static str, Zeroizing<Vec<u8>>> {
        let folder = format!("{}/../../tests/recordings/v15/runs/{run}", env!("CARGO_MANIFEST_DIR"));
        let read = |name: &str| Zeroizing::new(std::fs::read(format!("{folder}/{name}")).unwrap());
        STORE_FILES.into_iter().map(|name| (name, read(name))).collect()
    }

    /// The original's storage reads, and writing it again gives the same bytes: a user can switch in both directions.
    #[test]
    fn the_originals_storage_reads_and_writes_back_byte_for_byte() {
        let files = recorded("oneshot-direct/files/store");
        let stored = load(&files).unwrap().unwrap();
        assert_eq!(stored.identity.user(), "bot-robot3");
        assert_eq!(stored.identity.cluster(), "lab.example.com");
        assert!(stored.identity.tls.subject.renewable());
        assert_eq!(stored.identity.tls.subject.generation(), 1);
        for file in stored.identity.files(&stored.token_hash).unwrap() {
            let original = &files[file.path.as_str()];
            assert!(*file.contents == **original, "{} differs", file.path);
        }
        let key = PrivateKey::from_pem(&files["key"]).unwrap();
        let certificates = Certificates {
            ssh: String::from_utf8(files["key-cert.pub"].to_vec()).unwrap(),
            tls: stored.identity.tls.pem.clone(),
            tls_authorities: stored.identity.tls_authorities.clone(),
            ssh_authorities: vec![],
        };
        let at = stored.identity.tls.after;
        Identity::new(Arc::new(key), certificates, at).unwrap();
    }

    #[test]
    fn a_note_of_a_renewal_is_about_one_identity_only() {
        let by_name = |files: Vec<OutputFile>| -> HashMap<_, _> {
            let named = |name: &str| STORE_FILES.into_iter().chain([RENEWAL_FILE]).find(|own| *own == name).unwrap();
            files.into_iter().map(|file| (named(file.path.as_str()), file.contents)).collect()
        };
        let one = load(&recorded("oneshot-direct/files/store")).unwrap().unwrap();
        assert!(!one.renewal_asked);
        let asked = by_name(one.identity.files_asking(&one.token_hash, true).unwrap());
        assert!(load(&asked).unwrap().unwrap().renewal_asked);
        let answered = by_name(one.identity.files_asking(&one.token_hash, false).unwrap());
        assert!(!load(&answered).unwrap().unwrap().renewal_asked);
        // As after the original has renewed in the same place.
        let mut other = recorded("daemon-proxy/files/store");
        other.insert(RENEWAL_FILE, asked[RENEWAL_FILE].clone());
        assert!(!load(&other).unwrap().unwrap().renewal_asked);
    }

    #[test]
    fn an_empty_or_missing_file_means_no_identity() {
        let mut files = recorded("oneshot-direct/files/store");
        files.insert("tlscert", Zeroizing::new(vec![]));
        assert!(load(&files).unwrap().is_none());
        files.remove("tlscert");
        assert!(load(&files).unwrap().is_none());
    }

    #[test]
    fn a_key_of_another_identity_is_refused() {
        let mut files = recorded("oneshot-direct/files/store");
        let other = recorded("daemon-proxy/files/store");
        files.insert("key", other["key"].clone());
        assert_eq!(load(&files).unwrap_err(), CertificateError::Key);
        files.insert("key", Zeroizing::new(b"-----BEGIN nonsense".to_vec()));
        assert!(load(&files).is_err());
    }
}
