//! The **own keys** of a process: what tells its segments from those of another writer.

use std::collections::BTreeSet;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// Keys of segments that this process has written, or tried to write: an answer may have been lost.
#[derive(Clone, Default)]
pub struct OwnKeys(Arc<Mutex<BTreeSet<String>>>);

impl OwnKeys {
    /// One more.
    pub fn add(&self, key: &str) {
        self.lock().insert(key.to_owned());
    }

    /// Whether this process wrote it.
    pub fn contains(&self, key: &str) -> bool {
        self.lock().contains(key)
    }

    /// Those that begin with this.
    pub fn beginning_with(&self, prefix: &str) -> Vec<String> {
        let keys = self.lock();
        keys.range(prefix.to_owned()..).take_while(|key| key.starts_with(prefix)).cloned().collect()
    }

    /// Forgets those in a folder that sort before `key`.
    pub fn forget_before(&self, folder: &str, key: &str) {
        self.lock().retain(|own| !own.starts_with(folder) || own.as_str() >= key);
    }

    fn lock(&self) -> MutexGuard<'_, BTreeSet<String>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
