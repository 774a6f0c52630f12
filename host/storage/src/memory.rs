use std::collections::HashMap;
use std::path::Path;
use std::sync::{Mutex, MutexGuard, PoisonError};

use async_trait::async_trait;
use identity::{Destination, Failure, OutputFile};
use zeroize::Zeroizing;

/// Files that end with the process.
#[derive(Default)]
pub struct Memory(Mutex<HashMap<String, Zeroizing<Vec<u8>>>>);

impl Memory {
    fn files(&self) -> MutexGuard<'_, HashMap<String, Zeroizing<Vec<u8>>>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[async_trait]
impl Destination for Memory {
    fn description(&self) -> String {
        "memory".into()
    }

    fn directory(&self) -> Option<&Path> {
        None
    }

    async fn prepare(&self) -> Result<(), Failure> {
        Ok(())
    }

    async fn lock(&self) -> Result<Box<dyn Send + Sync>, Failure> {
        Ok(Box::new(()))
    }

    async fn write(&self, files: Vec<OutputFile>) -> Result<(), Failure> {
        let mut kept = self.files();
        kept.extend(files.into_iter().map(|file| (file.path.to_string(), file.contents)));
        Ok(())
    }

    async fn read(&self, path: &str) -> Result<Option<Zeroizing<Vec<u8>>>, Failure> {
        Ok(self.files().get(path).cloned())
    }
}
