//! The **database**: kine's `state.db`, read and never touched.
//!
//! kine runs `PRAGMA wal_checkpoint(FULL)` after every compaction, with a busy timeout of 30 s
//! (pkg/drivers/sqlite): whoever holds a read transaction then stops every write of the control plane. So
//! this module opens read-only, never checkpoints (not even on close), keeps no read transaction between
//! calls, and times each one. It keeps its connection open: a plain `open`/`close` of the file elsewhere in the
//! process would drop SQLite's POSIX locks.

mod copy;
mod feed;
mod generic;
mod kine;

use std::fs::File;
use std::io::Read as _;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use rusqlite::config::DbConfig;
use rusqlite::{Connection, OpenFlags};

use crate::header::DatabaseKind;

pub use copy::{Copied, copy};
pub use feed::{Feed, News};
pub use kine::{LIVE_REVISION, Position};

/// First bytes of every SQLite file (sqlite.org/fileformat2.html §1.3).
const MAGIC: &[u8; 16] = b"SQLite format 3\0";

/// Why the database could not be read.
#[derive(Debug, thiserror::Error)]
pub enum DatabaseError {
    /// Nothing at the path.
    #[error("there is no database at {0}: name it with --database, or start the control plane first")]
    Missing(PathBuf),
    /// Something else at the path.
    #[error("{0} is not a SQLite database: nothing was read from it; check --database")]
    NotSqlite(PathBuf),
    /// A file of no bytes, or one without tables: kine has not written it yet.
    #[error("{0} is empty: the control plane has not written to it yet")]
    Empty(PathBuf),
    /// Cannot be opened or read.
    #[error("cannot read {path}: the agent must run as the user that the control plane runs as")]
    Read {
        /// The database.
        path: PathBuf,
        /// Why.
        #[source]
        source: std::io::Error,
    },
    /// SQLite's own error.
    #[error(
        "SQLite cannot read {path}: check its folder's rights, the agent runs as the control plane's user"
    )]
    Sqlite {
        /// The database.
        path: PathBuf,
        /// Why.
        #[source]
        source: rusqlite::Error,
    },
    /// The scratch file could not be written.
    #[error(
        "cannot write the scratch copy {path}: is the disk full? TMPDIR names the folder for scratch files"
    )]
    Scratch {
        /// The scratch file.
        path: PathBuf,
        /// Why.
        #[source]
        source: rusqlite::Error,
    },
    /// kine replaced, vacuumed or compacted it faster than it could be copied.
    #[error("{0} changed faster than it could be copied: it will be tried again")]
    Restless(PathBuf),
    /// Compaction went beyond what the log in the bucket goes on from.
    #[error("compaction passed the last shipped revision of {0} while it was copied: it will be tried again")]
    Passed(PathBuf),
    /// Whoever wanted the copy no longer does.
    #[error("the copy was given up")]
    GivenUp,
}

impl DatabaseError {
    /// Whether the file itself is broken.
    pub fn is_damage(&self) -> bool {
        let Self::Sqlite { source, .. } = self else { return false };
        matches!(
            source.sqlite_error_code(),
            Some(rusqlite::ErrorCode::DatabaseCorrupt | rusqlite::ErrorCode::NotADatabase)
        )
    }
}

/// Called with the length of every read transaction.
pub type ReadObserver = Arc<dyn Fn(Duration) + Send + Sync>;

/// A database that is open for reading.
pub struct Database {
    path: PathBuf,
    connection: Connection,
    kind: DatabaseKind,
    observer: ReadObserver,
    /// Opened while nobody had it open: true as long as no `-wal` appears.
    immutable: bool,
    /// Another file may come to lie at the path, or this one be written while it was thought at rest.
    file: FileState,
}

/// A database shared with the threads that may block on it.
pub type SharedDatabase = Arc<Mutex<Database>>;

/// The database, also after a panic elsewhere: it is only read.
pub fn lock(database: &SharedDatabase) -> MutexGuard<'_, Database> {
    database.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Database {
    /// Opens the database at `path`, which must be a SQLite file with at least one table.
    pub fn open(path: &Path, observer: ReadObserver) -> Result<Self, DatabaseError> {
        let (file, wal_mode) = look(path)?;
        let sqlite = |source| DatabaseError::Sqlite { path: path.to_owned(), source };
        // A WAL database without its -wal is open nowhere (kine makes one at its first read), and a read-only open
        // would create -wal and -shm, or fail on a read-only mount: `immutable` does neither.
        let immutable = wal_mode && !wal(path).exists();
        let connection = Connection::open_with_flags(
            uri(path, immutable),
            OpenFlags::SQLITE_OPEN_READ_ONLY | OpenFlags::SQLITE_OPEN_URI | OpenFlags::SQLITE_OPEN_NO_MUTEX,
        )
        .map_err(sqlite)?;
        connection.set_db_config(DbConfig::SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE, true).map_err(sqlite)?;
        connection.busy_timeout(Duration::from_secs(5)).map_err(sqlite)?;
        // 1 MiB: the agent reads each page once, and its memory is the tenant's.
        connection.pragma_update(None, "cache_size", -1024).map_err(sqlite)?;
        let kind = match kind(&connection) {
            Ok(Some(kind)) => kind,
            Ok(None) => return Err(DatabaseError::Empty(path.to_owned())),
            Err(error) if error.sqlite_error_code() == Some(rusqlite::ErrorCode::NotADatabase) => {
                return Err(DatabaseError::NotSqlite(path.to_owned()));
            }
            Err(error) => return Err(sqlite(error)),
        };
        Ok(Self { path: path.to_owned(), connection, kind, observer, immutable, file })
    }

    /// What wrote it.
    pub fn kind(&self) -> DatabaseKind {
        self.kind
    }

    /// Where it lies.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Whether this connection still reads the file at its path under locks. False once kine has opened a
    /// database that was opened at rest, or has replaced the file: then it must be opened again.
    pub fn is_current(&self) -> bool {
        let Ok(now) = std::fs::metadata(&self.path).map(|metadata| FileState::of(&metadata)) else {
            return false;
        };
        // An immutable connection keeps what it has read: it must notice a writer that came and went.
        let untouched = now == self.file && !wal(&self.path).exists();
        if self.immutable { untouched } else { now.inode == self.file.inode }
    }

    /// Opens the database anew if this connection no longer reads it under locks.
    pub fn refresh(&mut self) -> Result<(), DatabaseError> {
        if !self.is_current() {
            // Closed first: an `immutable` connection takes no part in SQLite's bookkeeping of POSIX locks, so its
            // close would drop those of a connection that is already open.
            self.connection = Connection::open_in_memory()
                .map_err(|source| DatabaseError::Sqlite { path: self.path.clone(), source })?;
            *self = Self::open(&self.path, self.observer.clone())?;
        }
        Ok(())
    }

    /// What SQLite's own check finds wrong; `None` if the database is sound. Reads the whole file: for a database
    /// at rest only.
    pub fn damage(&self) -> Result<Option<String>, DatabaseError> {
        let checked = self.read(|c| c.query_row("PRAGMA quick_check(1)", [], |row| row.get::<_, String>(0)));
        match checked {
            // The first line names the database as SQLite calls it, the last tells what is wrong.
            Ok(verdict) => {
                Ok((verdict != "ok").then(|| verdict.lines().last().unwrap_or_default().to_owned()))
            }
            Err(error) if error.is_damage() => Ok(Some(error.to_string())),
            Err(error) => Err(error),
        }
    }

    /// A number that changes whenever another connection has changed the database.
    pub fn data_version(&self) -> Result<i64, DatabaseError> {
        self.read(|connection| connection.query_row("PRAGMA data_version", [], |row| row.get(0)))
    }

    /// Runs one read transaction and tells the observer how long it lasted.
    fn read<T>(&self, work: impl FnOnce(&Connection) -> rusqlite::Result<T>) -> Result<T, DatabaseError> {
        let began = Instant::now();
        let result = self.connection.unchecked_transaction().and_then(|transaction| {
            let value = work(&transaction)?;
            transaction.finish()?;
            Ok(value)
        });
        (self.observer)(began.elapsed());
        let value = result.map_err(|source| DatabaseError::Sqlite { path: self.path.clone(), source });
        self.check_untorn()?;
        value
    }

    /// What was read without locks may be torn if someone has written meanwhile: it does not count then.
    fn check_untorn(&self) -> Result<(), DatabaseError> {
        if self.immutable && !self.is_current() {
            return Err(DatabaseError::Restless(self.path.clone()));
        }
        Ok(())
    }
}

/// What tells one state of a file from another without opening it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct FileState {
    /// Device and inode.
    inode: (u64, u64),
    size: u64,
    /// Seconds and nanoseconds.
    modified: (i64, i64),
}

impl FileState {
    fn of(metadata: &std::fs::Metadata) -> Self {
        Self {
            inode: (metadata.dev(), metadata.ino()),
            size: metadata.size(),
            modified: (metadata.mtime(), metadata.mtime_nsec()),
        }
    }
}

/// Opens an empty scratch database: no journal, no syncing, a small cache. It is read once and thrown away.
fn open_scratch(scratch: &Path) -> rusqlite::Result<Connection> {
    let connection = Connection::open(scratch)?;
    connection.pragma_update(None, "journal_mode", "OFF")?;
    connection.pragma_update(None, "synchronous", "OFF")?;
    connection.pragma_update(None, "cache_size", -2048)?;
    Ok(connection)
}

/// Whether there is a SQLite file at all, before SQLite (which would take any missing file for an empty
/// database) is asked; which file it is, and whether it is in WAL mode.
fn look(path: &Path) -> Result<(FileState, bool), DatabaseError> {
    let read = |source: std::io::Error| match source.kind() {
        std::io::ErrorKind::NotFound => DatabaseError::Missing(path.to_owned()),
        _ => DatabaseError::Read { path: path.to_owned(), source },
    };
    // Safe by hand here alone: no connection of this process is open on it yet.
    let file = File::open(path).map_err(read)?;
    let metadata = file.metadata().map_err(read)?;
    if !metadata.is_file() {
        return Err(DatabaseError::NotSqlite(path.to_owned()));
    }
    let mut first = Vec::new();
    file.take(20).read_to_end(&mut first).map_err(read)?;
    if first.is_empty() {
        return Err(DatabaseError::Empty(path.to_owned()));
    }
    if !first.starts_with(MAGIC) {
        return Err(DatabaseError::NotSqlite(path.to_owned()));
    }
    // Byte 18, the write version, is 2 for WAL (sqlite.org/fileformat2.html §1.3.3).
    Ok((FileState::of(&metadata), first.get(18) == Some(&2)))
}

/// `None` while there is no table.
fn kind(connection: &Connection) -> rusqlite::Result<Option<DatabaseKind>> {
    let mut tables = connection.prepare(
        "SELECT name FROM sqlite_schema WHERE type = 'table' AND name NOT LIKE 'sqlite\\_%' ESCAPE '\\'",
    )?;
    let tables: Vec<String> = tables.query_map([], |row| row.get(0))?.collect::<Result<_, _>>()?;
    Ok(match tables.as_slice() {
        [] => None,
        // Alone: whatever a further table held would be missing from the log.
        [table] if table == "kine" && kine::has_its_columns(connection)? => Some(DatabaseKind::Kine),
        _ => Some(DatabaseKind::Generic),
    })
}

/// Whether another process has the database at `path` open: in WAL mode SQLite holds a lock on it all the while. To be
/// asked while this process has it closed, for the look by hand would drop its own locks.
#[allow(clippy::cast_possible_truncation)] // the constants are 0, 1 and 2
pub fn is_open_elsewhere(path: &Path) -> bool {
    let Ok(file) = File::open(path) else { return false };
    let mut lock = nix::libc::flock {
        l_type: nix::libc::F_WRLCK as nix::libc::c_short,
        l_whence: nix::libc::SEEK_SET as nix::libc::c_short,
        l_start: 0,
        l_len: 0,
        l_pid: 0,
    };
    // Only asked for, never taken: a read-only mount allows that too.
    match nix::fcntl::fcntl(&file, nix::fcntl::FcntlArg::F_GETLK(&mut lock)) {
        Ok(_) => lock.l_type != nix::libc::F_UNLCK as nix::libc::c_short,
        // What knows no locks cannot be asked; the -wal is there as long as a connection is.
        Err(_) => wal(path).exists(),
    }
}

/// `path` with something after its name: what SQLite keeps beside a database.
pub fn with_suffix(path: &Path, suffix: &str) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(suffix);
    PathBuf::from(name)
}

fn wal(path: &Path) -> PathBuf {
    with_suffix(path, "-wal")
}

/// An SQLite URI (sqlite.org/uri.html), with the bytes escaped that a path may hold and a URI may not.
fn uri(path: &Path, immutable: bool) -> String {
    use std::fmt::Write as _;
    use std::os::unix::ffi::OsStrExt as _;
    let mut uri = "file:".to_owned();
    for byte in path.as_os_str().as_bytes() {
        if byte.is_ascii_alphanumeric() || b"/._-".contains(byte) {
            uri.push(char::from(*byte));
        } else {
            // Writing to a String cannot fail.
            let _ = write!(uri, "%{byte:02X}");
        }
    }
    uri.push_str("?mode=ro");
    if immutable {
        uri.push_str("&immutable=1");
    }
    uri
}
