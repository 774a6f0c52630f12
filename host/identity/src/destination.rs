use std::path::Path;

use async_trait::async_trait;
use zeroize::Zeroizing;

use crate::{Failure, OutputFile};

/// Where a set of files lives. One set is one unit: readers of the next start see all of it or all of the one before.
#[async_trait]
pub trait Destination: Send + Sync {
    /// As log lines name it: `directory: /opt/machine-id`.
    fn description(&self) -> String;
    /// The absolute path where it has one.
    fn directory(&self) -> Option<&Path>;
    /// Creates what is missing, finishes a switch that was interrupted, and proves that writing would succeed.
    ///
    /// # Errors
    /// [`crate::FailureKind::Storage`].
    async fn prepare(&self) -> Result<(), Failure>;
    /// Takes the exclusive lock, held until the guard is dropped. For the bot's own storage.
    ///
    /// # Errors
    /// [`crate::FailureKind::Storage`] when another process holds it.
    async fn lock(&self) -> Result<Box<dyn Send + Sync>, Failure>;
    /// Replaces the whole set, durably: when this returns, a crash cannot bring the old set back.
    ///
    /// # Errors
    /// [`crate::FailureKind::Storage`]. Before the set was committed, the one before is still in place; afterwards, the next call completes it.
    async fn write(&self, files: Vec<OutputFile>) -> Result<(), Failure>;
    /// One file's contents as a reader would see it, `None` where there is none.
    ///
    /// # Errors
    /// [`crate::FailureKind::Storage`].
    async fn read(&self, path: &str) -> Result<Option<Zeroizing<Vec<u8>>>, Failure>;
}
