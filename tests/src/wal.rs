//! The **WAL** of a database, measured: how many bytes SQLite wrote to it, which is what a backup by pages has to ship.
//!
//! Only `-wal` is opened, which carries no locks; the database and `-shm` are left alone.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt as _;
use std::path::{Path, PathBuf};
use std::time::Duration;

use tokio::task::JoinHandle;

/// Between two looks. What is written in the last of them before SQLite begins the file anew is not seen.
const PAUSE: Duration = Duration::from_millis(100);
/// Header of the file (sqlite.org/fileformat2.html#the_write_ahead_log).
const HEADER: u64 = 32;
/// Header of each frame, before its page.
const FRAME_HEADER: u64 = 24;

/// A WAL that is looked at. Dropped, it is no more.
pub struct Wal {
    task: JoinHandle<Count>,
    stop: tokio::sync::watch::Sender<bool>,
}

#[derive(Debug, Default, Clone, Copy)]
struct Count {
    /// Of which run through the file the frames are.
    salts: [u8; 8],
    /// Frames of this run that were seen.
    frames: u64,
    /// Bytes of all runs so far.
    bytes: u64,
}

impl Wal {
    /// Begins to measure; what is in the file already does not count.
    pub fn measure(database: &Path) -> Self {
        let path = path(database);
        let (stop, mut stopped) = tokio::sync::watch::channel(false);
        let task = tokio::spawn(async move {
            let mut count = Count::default();
            // No file yet: it begins empty.
            let _ = count.look(&path);
            count.bytes = 0;
            while !*stopped.borrow_and_update() {
                let _ = tokio::time::timeout(PAUSE, stopped.changed()).await;
                // A file that is not there, or ends early, is one that SQLite is about to begin.
                let _ = count.look(&path);
            }
            count
        });
        Self { task, stop }
    }

    /// The bytes written to it meanwhile.
    pub async fn written(mut self) -> anyhow::Result<u64> {
        self.stop.send_replace(true);
        Ok((&mut self.task).await?.bytes)
    }
}

impl Drop for Wal {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl Count {
    /// Counts the frames that came since the last look.
    fn look(&mut self, path: &Path) -> io::Result<()> {
        let file = File::open(path)?;
        let mut header = [0; 24];
        file.read_exact_at(&mut header, 0)?;
        let page = u64::from(u32::from_be_bytes([header[8], header[9], header[10], header[11]]));
        let salts: [u8; 8] = std::array::from_fn(|place| header[16 + place]);
        if salts != self.salts {
            (self.salts, self.frames) = (salts, 0);
        }
        let frame = FRAME_HEADER + page;
        loop {
            let mut header = [0; 16];
            file.read_exact_at(&mut header, HEADER + self.frames * frame)?;
            if header[8..] != self.salts {
                return Ok(());
            }
            self.frames += 1;
            self.bytes += frame;
        }
    }
}

fn path(database: &Path) -> PathBuf {
    let mut name = database.as_os_str().to_owned();
    name.push("-wal");
    name.into()
}

#[cfg(test)]
mod tests {
    use anyhow::Result;
    use rusqlite::Connection;

    use super::*;

    #[tokio::test]
    async fn every_frame_counts_once() -> Result<()> {
        let folder = tempfile::tempdir()?;
        let database = folder.path().join("some.db");
        let connection = Connection::open(&database)?;
        connection.pragma_update(None, "journal_mode", "WAL")?;
        connection.execute_batch("CREATE TABLE t (a BLOB); INSERT INTO t VALUES (zeroblob(10000))")?;
        let wal = Wal::measure(&database);
        tokio::time::sleep(Duration::from_millis(50)).await;
        let mut expected = 0;
        for _ in 0..3 {
            let before = std::fs::metadata(path(&database))?.len();
            connection.execute_batch("INSERT INTO t VALUES (zeroblob(10000))")?;
            expected += std::fs::metadata(path(&database))?.len() - before;
        }
        tokio::time::sleep(2 * PAUSE).await;
        // SQLite begins the file anew, and writes over the old frames.
        connection.query_row("PRAGMA wal_checkpoint(RESTART)", [], |_| Ok(()))?;
        connection.execute_batch("UPDATE t SET a = zeroblob(1) WHERE rowid = 1")?;
        let written = wal.written().await?;
        anyhow::ensure!(expected > 30_000, "{expected}");
        anyhow::ensure!((expected + 4096..expected + 6 * 4120).contains(&written), "{written}, {expected}");
        Ok(())
    }
}
