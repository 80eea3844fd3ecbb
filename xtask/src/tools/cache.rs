//! The **cache**: `<user's cache>/vcluster-backup/tools/<name>-<version>/<name>`, shared by all clones. What lies there
//! is a program or a folder of files.
//!
//! A folder that is there is whole: it is filled under another name and renamed at the end. Two clones that
//! want the same tool at once take turns by a lock file, so that it is built once.

use std::fs::{self, File, TryLockError};
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result, anyhow};

use super::Missing;
use crate::command;

/// Where tools are kept.
pub struct Cache {
    folder: PathBuf,
}

impl Cache {
    /// That of the user: `$XDG_CACHE_HOME`, else `~/.cache`.
    pub fn of_user() -> Result<Self> {
        let absolute =
            |name: &str| std::env::var_os(name).map(PathBuf::from).filter(|path| path.is_absolute());
        let base = absolute("XDG_CACHE_HOME")
            .or_else(|| absolute("HOME").map(|home| home.join(".cache")))
            .context("no place for the tools: set HOME or XDG_CACHE_HOME to an absolute path")?;
        Ok(Self { folder: base.join("vcluster-backup/tools") })
    }

    /// The program `name` in this version. If it is not there, `fill` puts it into the empty folder that it is
    /// given, under its name.
    pub fn program<F>(
        &self,
        name: &str,
        version: &str,
        say: &mut dyn FnMut(&str),
        fill: F,
    ) -> Result<PathBuf, Missing>
    where
        F: FnOnce(&Path, &mut dyn FnMut(&str)) -> Result<(), Missing>,
    {
        self.entry((name, version), ("program", command::is_program), say, fill)
    }

    /// The same of a folder of files.
    pub fn files<F>(
        &self,
        name: &str,
        version: &str,
        say: &mut dyn FnMut(&str),
        fill: F,
    ) -> Result<PathBuf, Missing>
    where
        F: FnOnce(&Path, &mut dyn FnMut(&str)) -> Result<(), Missing>,
    {
        self.entry((name, version), ("folder", Path::is_dir), say, fill)
    }

    fn entry<F>(
        &self,
        (name, version): (&str, &str),
        (what, is_it): (&str, fn(&Path) -> bool),
        say: &mut dyn FnMut(&str),
        fill: F,
    ) -> Result<PathBuf, Missing>
    where
        F: FnOnce(&Path, &mut dyn FnMut(&str)) -> Result<(), Missing>,
    {
        let title = format!("{name}-{version}");
        let folder = self.folder.join(&title);
        let entry = folder.join(name);
        if is_it(&entry) {
            return Ok(entry);
        }
        let _turn = self.turn(&title, say)?;
        if is_it(&entry) {
            return Ok(entry);
        }
        // Whatever lies under either name is the rest of an installation that was interrupted.
        let scratch = self.folder.join(format!(".{title}.partial"));
        for rest in [&scratch, &folder] {
            remove(rest)?;
        }
        fs::create_dir_all(&scratch).with_context(|| format!("cannot make {}", scratch.display()))?;
        let filled = fill(&scratch, say).and_then(|()| {
            if is_it(&scratch.join(name)) {
                Ok(())
            } else {
                Err(Missing::Failed(anyhow!("the recipe left no {what} {name} in {}", scratch.display())))
            }
        });
        if let Err(why) = filled {
            // The cause is worth more than a scratch folder that cannot be removed.
            let _ = remove(&scratch);
            return Err(why);
        }
        fs::rename(&scratch, &folder).with_context(|| format!("cannot move {title} into place"))?;
        Ok(entry)
    }

    /// The exclusive right to install `title`, until dropped.
    fn turn(&self, title: &str, say: &mut dyn FnMut(&str)) -> Result<File> {
        fs::create_dir_all(&self.folder).with_context(|| format!("cannot make {}", self.folder.display()))?;
        let path = self.folder.join(format!(".{title}.lock"));
        let lock = File::create(&path).with_context(|| format!("cannot write {}", path.display()))?;
        match lock.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => {
                say("waiting: another process is installing it");
                lock.lock().with_context(|| format!("cannot lock {}", path.display()))?;
            }
            Err(TryLockError::Error(error)) => {
                return Err(error).with_context(|| format!("cannot lock {}", path.display()));
            }
        }
        Ok(lock)
    }
}

fn remove(folder: &Path) -> Result<()> {
    match fs::remove_dir_all(folder) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
            Err(error).with_context(|| format!("cannot remove {}", folder.display()))
        }
        _ => Ok(()),
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use std::os::unix::fs::PermissionsExt as _;
    use std::sync::atomic::{AtomicUsize, Ordering};

    use super::*;

    fn write_program(path: &Path) {
        fs::write(path, "#!/bin/sh\n").unwrap();
        fs::set_permissions(path, fs::Permissions::from_mode(0o755)).unwrap();
    }

    #[test]
    fn two_that_want_it_at_once_install_it_once() {
        let folder = tempfile::tempdir().unwrap();
        let built = AtomicUsize::new(0);
        std::thread::scope(|scope| {
            for _ in 0..4 {
                scope.spawn(|| {
                    let cache = Cache { folder: folder.path().to_owned() };
                    let program = cache.program("tool", "v1", &mut |_| {}, |folder, _| {
                        built.fetch_add(1, Ordering::SeqCst);
                        std::thread::sleep(std::time::Duration::from_millis(50));
                        write_program(&folder.join("tool"));
                        Ok(())
                    });
                    assert!(command::is_program(&program.ok().unwrap()));
                });
            }
        });
        assert_eq!(built.into_inner(), 1);
    }

    #[test]
    fn a_failed_installation_leaves_nothing_that_looks_whole() {
        let folder = tempfile::tempdir().unwrap();
        let cache = Cache { folder: folder.path().to_owned() };
        let failed = cache.program("tool", "v1", &mut |_| {}, |folder, _| {
            write_program(&folder.join("tool"));
            Err(Missing::Failed(anyhow!("broken half way")))
        });
        assert_eq!(failed.err().unwrap().to_string(), "broken half way");
        assert!(!folder.path().join("tool-v1").exists());
        let empty = cache.program("tool", "v1", &mut |_| {}, |_, _| Ok(()));
        assert!(empty.err().unwrap().to_string().contains("left no program tool"));
        // A folder without its program is not taken for an installation either.
        fs::create_dir_all(folder.path().join("tool-v1")).unwrap();
        let program = cache.program("tool", "v1", &mut |_| {}, |folder, _| {
            write_program(&folder.join("tool"));
            Ok(())
        });
        assert_eq!(program.ok().unwrap(), folder.path().join("tool-v1/tool"));
        // Nor is a program taken for a folder of files.
        let files = cache.files("tool", "v1", &mut |_| {}, |folder, _| {
            fs::create_dir(folder.join("tool")).context("no folder")?;
            Ok(())
        });
        assert!(files.ok().unwrap().is_dir());
    }
}
