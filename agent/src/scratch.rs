//! **Scratch files**: named by the process that makes them, so that what a killed one left behind is found and removed.
//! They hold a database in the clear, and a volume has room for only so many.

use std::ffi::OsStr;
use std::fs::File;
use std::io;
use std::path::{Path, PathBuf};

use tempfile::{NamedTempFile, TempDir};

const NAME: &str = ".vcluster-backup-";

/// How the names of this process's scratch files begin.
pub fn prefix() -> String {
    format!("{NAME}{}-", std::process::id())
}

/// Where they are, but for those that are to take a database's place.
pub fn folder() -> PathBuf {
    std::env::temp_dir()
}

/// An empty one that SQLite can open by its name; it vanishes when it is dropped.
pub fn named() -> io::Result<NamedTempFile> {
    tempfile::Builder::new().prefix(&prefix()).tempfile_in(folder())
}

/// An empty folder that only this user may enter; it vanishes with all that is in it when it is dropped.
pub fn directory() -> io::Result<TempDir> {
    tempfile::Builder::new().prefix(&prefix()).tempdir_in(folder())
}

/// An empty one without a name: it vanishes with the process, however that ends.
pub fn unnamed() -> io::Result<File> {
    tempfile::tempfile_in(folder())
}

/// Whether a name is a scratch file's, of whatever process.
pub fn is_scratch(name: &OsStr) -> bool {
    name.as_encoded_bytes().starts_with(NAME.as_bytes())
}

/// Removes scratch files whose process is gone. To be called before this process makes one: in a pod every process has
/// the same number, and what bears ours was left by the one before.
pub fn remove_stale(folder: &Path) {
    let Ok(entries) = std::fs::read_dir(folder) else { return };
    for entry in entries.flatten() {
        let name = entry.file_name();
        let Some(maker) = maker(&name.to_string_lossy()) else { continue };
        let is_gone = maker == std::process::id() || !Path::new(&format!("/proc/{maker}")).exists();
        let is_folder = entry.file_type().is_ok_and(|kind| kind.is_dir());
        let remove = if is_folder { std::fs::remove_dir_all } else { std::fs::remove_file };
        if is_gone && remove(&entry.path()).is_ok() {
            tracing::info!(file = %entry.path().display(), "removed a scratch file that was left behind");
        }
    }
}

fn maker(name: &str) -> Option<u32> {
    name.strip_prefix(NAME)?.split('-').next()?.parse().ok()
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn only_what_nobody_uses_is_removed() {
        let folder = tempfile::tempdir().unwrap();
        // Process 1 is always there; this number is above the kernel's highest.
        let [own, gone, used, foreign] =
            [prefix() + "a", format!("{NAME}4194305-b"), format!("{NAME}1-c"), ".other-4194305-d".to_owned()];
        for name in [&own, &used, &foreign] {
            std::fs::write(folder.path().join(name), "").unwrap();
        }
        std::fs::create_dir(folder.path().join(&gone)).unwrap();
        std::fs::write(folder.path().join(&gone).join("state.db"), "").unwrap();
        remove_stale(folder.path());
        assert!(!folder.path().join(own).exists() && !folder.path().join(gone).exists());
        assert!(folder.path().join(used).exists() && folder.path().join(foreign).exists());
    }
}
