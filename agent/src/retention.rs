//! **Retention**: what is kept of a backup.

use std::time::Duration;

/// The rules. The window is counted back from the newest capture, not from now: a cluster asleep for a month
/// keeps its backups.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Retention {
    /// Every revision stays restorable this far back.
    pub window: Duration,
    /// So many newest snapshots.
    pub last: u32,
    /// One snapshot of each of so many hours.
    pub hourly: u32,
    /// One of each of so many days.
    pub daily: u32,
    /// One of each of so many weeks.
    pub weekly: u32,
    /// One of each of so many months.
    pub monthly: u32,
}
