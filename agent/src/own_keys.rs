//! The **own keys** of a writer: what tells its segments from those of another.

use std::collections::BTreeSet;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use ulid::Ulid;

/// Keys of segments that this process has written, or tried to write: an answer may have been lost. And its name, which
/// goes with each of them; names sort by birth.
#[derive(Clone)]
pub struct OwnKeys {
    writer: Ulid,
    keys: Arc<Mutex<BTreeSet<String>>>,
}

impl Default for OwnKeys {
    fn default() -> Self {
        Self { writer: Ulid::generate(), keys: Arc::default() }
    }
}

impl OwnKeys {
    /// The writer's name.
    pub fn writer(&self) -> String {
        self.writer.to_string()
    }

    /// One more.
    pub fn add(&self, key: &str) {
        self.lock().insert(key.to_owned());
    }

    /// Whether this process wrote it.
    pub fn contains(&self, key: &str) -> bool {
        self.lock().contains(key)
    }

    /// Forgets those in a folder that sort before `key`.
    pub fn forget_before(&self, folder: &str, key: &str) {
        self.lock().retain(|own| !own.starts_with(folder) || own.as_str() >= key);
    }

    fn lock(&self) -> MutexGuard<'_, BTreeSet<String>> {
        self.keys.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
