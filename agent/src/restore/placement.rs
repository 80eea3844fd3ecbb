//! **Placement**: a finished database takes the target's place. Until then the target is untouched, and what
//! it was is kept.

use std::fs::{self, File};
use std::io;
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};

use tempfile::NamedTempFile;

use crate::clock::Moment;

/// A step of placement that failed, and on what.
#[derive(Debug, thiserror::Error)]
#[error("cannot {step} {path}")]
pub struct PlacementError {
    step: &'static str,
    path: PathBuf,
    #[source]
    source: io::Error,
}

impl PlacementError {
    fn of(step: &'static str, path: &Path) -> impl FnOnce(io::Error) -> Self {
        let path = path.to_owned();
        move |source| Self { step, path, source }
    }
}

/// An empty file in the target's folder, so that the rename at the end is atomic. It vanishes if it is not
/// placed.
pub fn scratch_beside(target: &Path) -> Result<NamedTempFile, PlacementError> {
    let folder = folder(target);
    fs::create_dir_all(&folder).map_err(PlacementError::of("make the folder", &folder))?;
    tempfile::Builder::new()
        .prefix(".vcluster-backup-restore-")
        .tempfile_in(&folder)
        .map_err(PlacementError::of("make a scratch file in", &folder))
}

/// Puts `database` in the target's place. An old database goes to `TARGET.before-restore-<time>` with the WAL
/// that belongs to it; the path is returned.
pub fn place(database: NamedTempFile, target: &Path, now: Moment) -> Result<Option<PathBuf>, PlacementError> {
    let folder = folder(target);
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
    database
        .persist(target)
        .map_err(|error| PlacementError::of("put the restored database at", target)(error.error))?;
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
    if (mine.uid(), mine.gid()) != (like.uid(), like.gid()) {
        std::os::unix::fs::fchown(file, Some(like.uid()), Some(like.gid()))?;
    }
    Ok(())
}

fn folder(target: &Path) -> PathBuf {
    match target.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => parent.to_owned(),
        _ => PathBuf::from("."),
    }
}

/// `path` with something after its name.
pub fn with_suffix(path: &Path, suffix: &str) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(suffix);
    PathBuf::from(name)
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
