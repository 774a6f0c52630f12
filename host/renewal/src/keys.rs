//! Private keys, made off the async threads.

use std::sync::Arc;

use identity::{Failure, FailureKind, KeyAlgorithm, PrivateKey};
use tokio::sync::Semaphore;

/// Makes keys on blocking threads, at most one for each core at a time: an RSA key is 30–150 ms of CPU.
#[derive(Clone)]
pub(crate) struct KeyMaker(Arc<Semaphore>);

impl KeyMaker {
    pub(crate) fn new() -> Self {
        let cores = std::thread::available_parallelism().map_or(1, usize::from);
        Self(Arc::new(Semaphore::new(cores)))
    }

    /// A new key of `algorithm`.
    pub(crate) async fn make(&self, algorithm: KeyAlgorithm) -> Result<Arc<PrivateKey>, Failure> {
        let internal = |message: String| Failure::new(FailureKind::Internal, message);
        if algorithm != KeyAlgorithm::Rsa2048 {
            return PrivateKey::generate(algorithm).map(Arc::new).map_err(|e| internal(e.to_string()));
        }
        let _permit = self.0.acquire().await.map_err(|e| internal(e.to_string()))?;
        let key = tokio::task::spawn_blocking(move || PrivateKey::generate(algorithm)).await;
        key.map_err(|e| internal(e.to_string()))?.map(Arc::new).map_err(|e| internal(e.to_string()))
    }
}
