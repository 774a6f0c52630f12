//! The certificate that a tunnel shows: read anew for every connection, from a destination that something else keeps fresh.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use identity::{Clock, Destination, Failure, FailureKind, PrivateKey, TlsCertificate};
use zeroize::Zeroizing;

/// A writer needs far less to replace both files; a reader that sees two generations looks again after this time.
const SWITCH: Duration = Duration::from_millis(100);

/// A certificate and its key, which belong together.
pub struct Credential {
    /// The routed certificate.
    pub tls: TlsCertificate,
    /// Its key.
    pub key: PrivateKey,
    files: Files,
}

/// Contents of `key` and `tlscert`.
type Files = (Zeroizing<Vec<u8>>, Zeroizing<Vec<u8>>);

/// Where a tunnel's certificate comes from.
pub struct Credentials {
    source: Arc<dyn Destination>,
    clock: Arc<dyn Clock>,
    last: Mutex<Option<Arc<Credential>>>,
}

impl Credentials {
    /// From `key` and `tlscert` in `source`, which is only read.
    pub fn new(source: Arc<dyn Destination>, clock: Arc<dyn Clock>) -> Self {
        Self { source, clock, last: Mutex::default() }
    }

    /// As messages name it: `directory: /opt/machine-id`.
    pub fn description(&self) -> String {
        self.source.description()
    }

    /// What is there now. The last usable pair stands in while its successor is half written or cannot be read.
    ///
    /// # Errors
    /// [`FailureKind::Unavailable`] while there is none yet, [`FailureKind::Expired`], [`FailureKind::Storage`].
    pub async fn current(&self) -> Result<Arc<Credential>, Failure> {
        let last = self.last.lock().unwrap_or_else(PoisonError::into_inner).clone();
        let credential = match (self.newest(last.as_ref()).await, last) {
            (Ok(newest), _) => newest,
            (Err(_), Some(last)) if self.clock.now() < last.tls.before => last,
            (Err(failure), _) => return Err(failure),
        };
        if self.clock.now() >= credential.tls.before {
            let message = format!(
                "the certificate in {} expired at {}: see that `tbot start` runs, and what it logs",
                self.description(),
                credential.tls.before
            );
            return Err(Failure::new(FailureKind::Expired, message));
        }
        *self.last.lock().unwrap_or_else(PoisonError::into_inner) = Some(credential.clone());
        Ok(credential)
    }

    /// How long a certificate is still good.
    pub(crate) fn left(&self, credential: &Credential) -> Duration {
        credential.tls.before.since(self.clock.now())
    }

    /// The authorities of the cluster's hosts, PEM.
    ///
    /// # Errors
    /// As [`Credentials::current`].
    pub async fn authorities(&self) -> Result<Vec<String>, Failure> {
        let file = self.file("teleport-host-ca.crt").await?;
        Ok(vec![String::from_utf8_lossy(&file).into_owned()])
    }

    async fn newest(&self, last: Option<&Arc<Credential>>) -> Result<Arc<Credential>, Failure> {
        let first = self.files().await?;
        if let Some(last) = last.filter(|last| last.files == first) {
            return Ok(last.clone());
        }
        match self.parse(first) {
            Ok(credential) => Ok(Arc::new(credential)),
            Err(_) => {
                tokio::time::sleep(SWITCH).await;
                self.parse(self.files().await?).map(Arc::new)
            }
        }
    }

    async fn files(&self) -> Result<Files, Failure> {
        Ok((self.file("key").await?, self.file("tlscert").await?))
    }

    async fn file(&self, name: &str) -> Result<Zeroizing<Vec<u8>>, Failure> {
        self.source.read(name).await?.ok_or_else(|| {
            let message =
                format!("{} holds no `{name}` yet: see that `tbot start` runs, and what it logs", self.description());
            Failure::new(FailureKind::Unavailable, message)
        })
    }

    fn parse(&self, files: Files) -> Result<Credential, Failure> {
        let broken = |name: &str, e: &dyn std::fmt::Display| {
            Failure::new(FailureKind::Storage, format!("`{name}` in {}: {e}", self.description()))
        };
        let key = PrivateKey::from_pem(&files.0).map_err(|e| broken("key", &e))?;
        let tls = TlsCertificate::parse(&files.1).map_err(|e| broken("tlscert", &e))?;
        if !tls.matches(key.public_key()) {
            return Err(broken("tlscert", &"it is not the certificate of `key`: is something else writing there?"));
        }
        Ok(Credential { tls, key, files })
    }
}
