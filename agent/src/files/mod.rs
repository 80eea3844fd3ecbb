//! The **files** beside the database: what a control plane needs to come back as itself and what kine does not hold
//! (its token, its certificates). One tar holds them all; its names are the absolute paths without the first `/`.
//!
//! ```text
//!  --include paths ──fingerprint──► changed? ──pack──► tar ──► (zstd, age, bucket) ──► tar ──unpack──► root
//! ```
//!
//! The database itself is never in it, nor anything of ours: it has its own way into the bucket, and a copy taken from
//! under kine would be torn.

mod pack;
mod unpack;

use std::ffi::OsStr;
use std::fs;
use std::io;
use std::path::{Component, Path, PathBuf};

use crate::scratch;

pub use pack::{Fingerprint, Packed};
pub use unpack::Unpacked;

/// Bytes of one archive. Tokens and certificates come to some hundred KiB; what is larger was named by mistake, and
/// would be shipped whole at each change.
const LARGEST: u64 = 64 << 20;

/// How what a restore moved aside is marked, here as in [`crate::restore`].
const BEFORE_RESTORE: &str = ".before-restore-";

/// Why files could not be packed or restored.
#[derive(Debug, thiserror::Error)]
pub enum FilesError {
    /// A path that is not what it says.
    #[error("--include {0} is no absolute path without '..': name the file or folder from the root on")]
    Path(PathBuf),
    /// A file could not be looked at or read.
    #[error(
        "cannot {step} {path}: give the agent's user the right to read it, or take it out of --include; the files beside the database are not backed up until then"
    )]
    Read {
        /// What was tried.
        step: &'static str,
        /// On what.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// More than an archive takes.
    #[error(
        "the files of --include come to more than {} MiB (counted up to {path}): they are for tokens and certificates, name less; none of them is backed up until then",
        LARGEST >> 20
    )]
    TooLarge {
        /// Where the limit was passed.
        path: PathBuf,
    },
    /// The archive's bytes could not be written on.
    #[error("cannot write the archive of the files beside the database")]
    Out(#[source] io::Error),
    /// The archive could not be read to its end.
    #[error(
        "the archive of the files beside the database cannot be read: no file was written; take an older one (`vcluster-backup list`)"
    )]
    Archive(#[source] io::Error),
    /// The archive asks for what no archive of ours does.
    #[error(
        "the archive of the files beside the database was refused, its entry {entry} {reason}: no file was written; it was not made by this program, find out who can write to the bucket"
    )]
    Refused {
        /// Its name as it stands there.
        entry: PathBuf,
        /// What is wrong.
        reason: &'static str,
    },
    /// Something on the disk is in the way.
    #[error("cannot restore {path}: {in_the_way} is no folder; move it away and restore again")]
    InTheWay {
        /// What should be restored.
        path: PathBuf,
        /// A symbolic link, which is not followed, or a file.
        in_the_way: PathBuf,
    },
    /// A file could not be written.
    #[error("cannot {step} {path}: check the volume's space and rights, then restore again")]
    Write {
        /// What was tried.
        step: &'static str,
        /// On what.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
}

impl FilesError {
    fn read(step: &'static str, path: &Path) -> impl FnOnce(io::Error) -> Self {
        let path = path.to_owned();
        move |source| Self::Read { step, path, source }
    }

    fn write(step: &'static str, path: &Path) -> impl FnOnce(io::Error) -> Self {
        let path = path.to_owned();
        move |source| Self::Write { step, path, source }
    }
}

/// What was named with `--include`, without the database.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Included {
    /// Sorted; none lies in another.
    paths: Vec<PathBuf>,
    database: Option<PathBuf>,
}

impl Included {
    /// These paths and what lies below them, but for `database` and the files that belong to it. The paths need not
    /// be there (yet); the database's is made absolute.
    pub fn new(
        paths: impl IntoIterator<Item = PathBuf>,
        database: Option<&Path>,
    ) -> Result<Self, FilesError> {
        let mut named = Vec::new();
        for path in paths {
            let mut components = path.components();
            let is_plain = components.next() == Some(Component::RootDir)
                && components.all(|component| matches!(component, Component::Normal(_)));
            if !is_plain {
                return Err(FilesError::Path(path));
            }
            // Without double or trailing slashes.
            named.push(path.components().collect::<PathBuf>());
        }
        named.sort();
        let mut paths: Vec<PathBuf> = Vec::new();
        for path in named {
            if !paths.iter().any(|known| path.starts_with(known)) {
                paths.push(path);
            }
        }
        let database = database
            .map(|database| std::path::absolute(database).map_err(FilesError::read("find", database)))
            .transpose()?;
        Ok(Self { paths, database })
    }

    /// Whether there is nothing to look after.
    pub fn is_empty(&self) -> bool {
        self.paths.is_empty()
    }

    /// The included path that an absolute path lies at or below.
    fn above(&self, path: &Path) -> Option<&Path> {
        self.paths.iter().find(|included| path.starts_with(included)).map(PathBuf::as_path)
    }

    /// What must be neither packed nor restored.
    fn exceptions(&self) -> Exceptions<'_> {
        let database = self.database.as_deref();
        let folder = database.and_then(Path::parent);
        Exceptions {
            folder,
            real_folder: folder.and_then(|folder| fs::canonicalize(folder).ok()),
            database: database.and_then(Path::file_name),
        }
    }
}

/// The database and all that bears our names, as they lie on the disk now.
struct Exceptions<'a> {
    folder: Option<&'a Path>,
    /// Without symbolic links: a volume may be mounted at one path and named by another.
    real_folder: Option<PathBuf>,
    database: Option<&'a OsStr>,
}

impl Exceptions<'_> {
    fn hold(&self, path: &Path) -> bool {
        let Some(name) = path.file_name() else { return false };
        if scratch::is_scratch(name) || contains(name, BEFORE_RESTORE.as_bytes()) {
            return true;
        }
        let folder = path.parent();
        let is_beside = folder.is_some() && (folder == self.folder || folder == self.real_folder.as_deref());
        is_beside && self.database.is_some_and(|database| belongs_to(name, database))
    }
}

/// `state.db`, `state.db-wal`, `state.db.restored` and the like.
fn belongs_to(name: &OsStr, database: &OsStr) -> bool {
    let rest = name.as_encoded_bytes().strip_prefix(database.as_encoded_bytes());
    rest.is_some_and(|rest| matches!(rest.first(), None | Some(b'-' | b'.')))
}

fn contains(name: &OsStr, part: &[u8]) -> bool {
    name.as_encoded_bytes().windows(part.len()).any(|window| window == part)
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests;
