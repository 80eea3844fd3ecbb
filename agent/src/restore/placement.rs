//! **Placement**: a finished database takes the target's place. Until then the target is untouched, and what
//! it was is kept.

use std::fs::{self, File};
use std::io;
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};

use tempfile::NamedTempFile;

use crate::clock::Moment;
use crate::database::{is_open_elsewhere, with_suffix};
use crate::scratch;

/// Why nothing was placed.
#[derive(Debug, thiserror::Error)]
pub enum PlacementError {
    /// A step failed.
    #[error("cannot {step} {path}: check the volume's space and rights")]
    Step {
        /// What was tried.
        step: &'static str,
        /// On what.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// A control plane runs on the target.
    #[error(
        "{0} is in use: stop the control plane first, it would go on writing to the file that is moved aside"
    )]
    InUse(PathBuf),
    /// A database appeared where there was none.
    #[error("{0} has appeared meanwhile: it was left as it is")]
    Appeared(PathBuf),
}

impl PlacementError {
    fn of(step: &'static str, path: &Path) -> impl FnOnce(io::Error) -> Self {
        let path = path.to_owned();
        move |source| Self::Step { step, path, source }
    }
}

/// An empty file in the target's folder, so that the rename at the end is atomic. It vanishes if it is not
/// placed.
pub fn scratch_beside(target: &Path) -> Result<NamedTempFile, PlacementError> {
    let folder = folder(target);
    fs::create_dir_all(&folder).map_err(PlacementError::of("make the folder", &folder))?;
    tempfile::Builder::new()
        .prefix(&scratch::prefix())
        .tempfile_in(&folder)
        .map_err(PlacementError::of("make a scratch file in", &folder))
}

/// Refuses a target that another process has open.
pub fn check_unused(target: &Path) -> Result<(), PlacementError> {
    if is_open_elsewhere(target) { Err(PlacementError::InUse(target.to_owned())) } else { Ok(()) }
}

/// Puts `database` in the target's place. An old database goes to `TARGET.before-restore-<time>` with the WAL
/// that belongs to it; the path is returned.
pub fn place(database: NamedTempFile, target: &Path, now: Moment) -> Result<Option<PathBuf>, PlacementError> {
    let folder = folder(target);
    check_unused(target)?;
    copy_ownership(database.as_file(), target, &folder)
        .map_err(PlacementError::of("set owner and mode of", database.path()))?;
    database.as_file().sync_all().map_err(PlacementError::of("sync", database.path()))?;
    let stamp = now.to_string().replace(':', "-");
    let mut kept = None;
    // The database first: a -wal without its database is nothing, a database without its -wal has lost rows.
    for suffix in ["", "-wal", "-shm", "-journal"] {
        let from = with_suffix(target, suffix);
        if !from.exists() {
            continue;
        }
        let to = with_suffix(&with_suffix(target, &format!(".before-restore-{stamp}")), suffix);
        fs::rename(&from, &to).map_err(PlacementError::of("move aside", &from))?;
        if suffix.is_empty() {
            kept = Some(to);
        }
    }
    database.persist_noclobber(target).map_err(|error| match error.error.kind() {
        io::ErrorKind::AlreadyExists => PlacementError::Appeared(target.to_owned()),
        _ => PlacementError::of("put the restored database at", target)(error.error),
    })?;
    File::open(&folder)
        .and_then(|folder| folder.sync_all())
        .map_err(PlacementError::of("sync the folder", &folder))?;
    Ok(kept)
}

/// Owner and mode as the old database had them; without one the folder's owner, and nobody else may read.
fn copy_ownership(file: &File, target: &Path, folder: &Path) -> io::Result<()> {
    let (like, mode) = match fs::metadata(target) {
        Ok(old) => {
            let mode = old.permissions().mode() & 0o777;
            (old, mode)
        }
        Err(_) => (fs::metadata(folder)?, 0o600),
    };
    file.set_permissions(fs::Permissions::from_mode(mode))?;
    let mine = file.metadata()?;
    if (mine.uid(), mine.gid()) == (like.uid(), like.gid()) {
        return Ok(());
    }
    match std::os::unix::fs::fchown(file, Some(like.uid()), Some(like.gid())) {
        // A volume's root belongs to root; who may not give files away runs as the control plane's own user.
        Err(error) if error.kind() == io::ErrorKind::PermissionDenied && !target.exists() => Ok(()),
        changed => changed,
    }
}

fn folder(target: &Path) -> PathBuf {
    match target.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => parent.to_owned(),
        _ => PathBuf::from("."),
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use std::io::Write as _;

    use super::*;

    #[test]
    fn the_old_database_is_kept_with_its_wal() {
        let folder = tempfile::tempdir().unwrap();
        let target = folder.path().join("state.db");
        fs::write(&target, "old").unwrap();
        fs::write(with_suffix(&target, "-wal"), "wal").unwrap();
        fs::set_permissions(&target, fs::Permissions::from_mode(0o640)).unwrap();
        let mut new = scratch_beside(&target).unwrap();
        new.write_all(b"new").unwrap();
        let kept = place(new, &target, Moment::from_millis(0)).unwrap().unwrap();
        assert_eq!(fs::read(&target).unwrap(), b"new");
        assert_eq!(fs::metadata(&target).unwrap().permissions().mode() & 0o777, 0o640);
        assert_eq!(fs::read(&kept).unwrap(), b"old");
        assert_eq!(fs::read(with_suffix(&kept, "-wal")).unwrap(), b"wal");
        assert!(!with_suffix(&target, "-wal").exists());
    }

    #[test]
    fn what_is_not_placed_vanishes() {
        let folder = tempfile::tempdir().unwrap();
        drop(scratch_beside(&folder.path().join("sub/state.db")).unwrap());
        assert_eq!(fs::read_dir(folder.path().join("sub")).unwrap().count(), 0);
    }
}
