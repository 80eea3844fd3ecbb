//! **Unpacking**: files out of an archive to where they were. The whole archive is read and checked before the first
//! file is written; what was there and differs is kept; nothing is written through a symbolic link.

use std::collections::{BTreeMap, BTreeSet};
use std::ffi::OsStr;
use std::fs::{self, DirBuilder, File, Metadata, Permissions};
use std::io::{self, Read, Write as _};
use std::ops::Range;
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::fs::{DirBuilderExt as _, MetadataExt as _, PermissionsExt as _, fchown, lchown, symlink};
use std::path::{Component, Path, PathBuf};
use std::time::{Duration, SystemTime};

use tar::{Archive, EntryType};

use super::pack::{FILE_MODE, FOLDER_MODE};
use super::{BEFORE_RESTORE, Exceptions, FilesError, Included, LARGEST};
use crate::clock::Moment;
use crate::database::with_suffix;
use crate::scratch;

/// What became of an archive's entries.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Unpacked {
    /// Files and symbolic links that were written, and folders that were made.
    pub written: Vec<PathBuf>,
    /// Those that were there as the archive has them; mode and owner were set.
    pub unchanged: Vec<PathBuf>,
    /// Where what differed was moved.
    pub kept: Vec<PathBuf>,
    /// Entries (as absolute paths) that are not included, or are the database's.
    pub skipped: Vec<PathBuf>,
}

/// An entry of the archive.
struct Member {
    kind: Kind,
    mode: u32,
    owner: (u32, u32),
    mtime: u64,
}

enum Kind {
    Folder,
    /// Where its content lies in the archive.
    File(Range<usize>),
    Symlink(PathBuf),
}

impl Included {
    /// Restores below `root` what lies at or below an included path and is not the database. What is there with
    /// another content goes to `NAME.before-restore-<now>`. Owners are set where the process may.
    pub fn unpack(&self, tar: impl Read, root: &Path, now: Moment) -> Result<Unpacked, FilesError> {
        let mut archive = Vec::new();
        // Twice what is packed: names longer than a header's take blocks of their own. To the end: an envelope
        // tells damage there.
        let read = tar.take(LARGEST * 2).read_to_end(&mut archive).map_err(FilesError::Archive)?;
        if read as u64 == LARGEST * 2 {
            return Err(FilesError::Archive(io::Error::other("it is larger than this program makes them")));
        }
        let members = members(&archive)?;
        let root = fs::canonicalize(root).map_err(FilesError::write("find the folder", root))?;
        let mut placing = Placing {
            root,
            exceptions: self.exceptions(),
            stamp: format!("{BEFORE_RESTORE}{}", now.to_string().replace(':', "-")),
            archive: &archive,
            folders: BTreeSet::new(),
            done: Unpacked::default(),
        };
        for (path, member) in &members {
            match self.above(path) {
                Some(included) if !placing.exceptions.hold(path) => placing.place(path, included, member)?,
                _ => placing.done.skipped.push(path.clone()),
            }
        }
        placing.finish(&members)
    }
}

/// All entries by absolute path, so that a folder comes before what lies in it.
fn members(archive: &[u8]) -> Result<BTreeMap<PathBuf, Member>, FilesError> {
    let mut members = BTreeMap::new();
    for entry in Archive::new(archive).entries().map_err(FilesError::Archive)? {
        let entry = entry.map_err(FilesError::Archive)?;
        let name = PathBuf::from(OsStr::from_bytes(&entry.path_bytes()));
        let refused = |reason| FilesError::Refused { entry: name.clone(), reason };
        if name.as_os_str().is_empty() || !name.components().all(|part| matches!(part, Component::Normal(_)))
        {
            return Err(refused("is no path below the root"));
        }
        let header = entry.header();
        let kind = match header.entry_type() {
            EntryType::Directory => Kind::Folder,
            EntryType::Regular => {
                let from = usize::try_from(entry.raw_file_position()).ok();
                let size = usize::try_from(entry.size()).ok();
                let range = from.zip(size).and_then(|(from, size)| Some(from..from.checked_add(size)?));
                let range = range.filter(|range| range.end <= archive.len());
                Kind::File(range.ok_or_else(|| FilesError::Archive(io::ErrorKind::UnexpectedEof.into()))?)
            }
            EntryType::Symlink => {
                let target = entry.link_name_bytes().filter(|target| !target.is_empty());
                let target = target.ok_or_else(|| refused("points to nothing"))?;
                Kind::Symlink(PathBuf::from(OsStr::from_bytes(&target)))
            }
            _ => return Err(refused("is neither file, folder nor symbolic link")),
        };
        let number = |number: io::Result<u64>| {
            number.ok().and_then(|number| u32::try_from(number).ok()).ok_or_else(|| refused("has no owner"))
        };
        let member = Member {
            mode: header.mode().map_err(FilesError::Archive)?,
            owner: (number(header.uid())?, number(header.gid())?),
            mtime: header.mtime().map_err(FilesError::Archive)?,
            kind,
        };
        // By components: without the slash at a folder's end.
        let path = Path::new("/").components().chain(name.components()).collect();
        if members.insert(path, member).is_some() {
            return Err(refused("comes twice"));
        }
    }
    Ok(members)
}

struct Placing<'a> {
    root: PathBuf,
    exceptions: Exceptions<'a>,
    /// The suffix of what is moved aside.
    stamp: String,
    archive: &'a [u8],
    /// Those in which something changed.
    folders: BTreeSet<PathBuf>,
    done: Unpacked,
}

impl Placing<'_> {
    /// Places one entry; a folder's mode waits until all is in it.
    fn place(&mut self, path: &Path, included: &Path, member: &Member) -> Result<(), FilesError> {
        let folder = self.folder(path, included)?;
        let target = self.target(path);
        // By another name of its folder it would still be the database.
        let real = fs::canonicalize(&folder).map_err(FilesError::write("look at", &folder))?;
        if self.exceptions.hold(&real.join(path.file_name().unwrap_or_default())) {
            self.done.skipped.push(path.to_owned());
            return Ok(());
        }
        let there = look(&target)?;
        match &member.kind {
            Kind::Folder => {
                if there.as_ref().is_some_and(Metadata::is_dir) {
                    self.done.unchanged.push(target);
                    return Ok(());
                }
                self.move_aside(&target, there.is_some())?;
                // Nobody looks into it before it is whole.
                DirBuilder::new()
                    .mode(0o700)
                    .create(&target)
                    .map_err(FilesError::write("make the folder", &target))?;
            }
            Kind::Symlink(to) => {
                let is_same = there.as_ref().is_some_and(Metadata::is_symlink)
                    && fs::read_link(&target).is_ok_and(|there| there == *to);
                if !is_same {
                    self.move_aside(&target, there.is_some())?;
                    symlink(to, &target).map_err(FilesError::write("make the symbolic link", &target))?;
                }
                let (uid, gid) = member.owner;
                permitted(lchown(&target, Some(uid), Some(gid)))
                    .map_err(FilesError::write("set the owner of", &target))?;
                if is_same {
                    self.done.unchanged.push(target);
                    return Ok(());
                }
            }
            Kind::File(range) => {
                let content = &self.archive[range.clone()];
                if there.as_ref().is_some_and(|there| holds(&target, there, content)) {
                    let file =
                        File::open(&target).map_err(FilesError::write("set owner and mode of", &target))?;
                    set(&file, member, FILE_MODE)
                        .map_err(FilesError::write("set owner and mode of", &target))?;
                    self.done.unchanged.push(target);
                    return Ok(());
                }
                let scratch = write(&folder, content, member)
                    .map_err(FilesError::write("write the content of", &target))?;
                self.move_aside(&target, there.is_some())?;
                scratch
                    .persist_noclobber(&target)
                    .map_err(|error| FilesError::write("put the restored file at", &target)(error.error))?;
            }
        }
        self.folders.insert(folder);
        self.done.written.push(target);
        Ok(())
    }

    /// The folder that an entry goes to, made if it is missing. No symbolic link at or below the included path is
    /// followed, for an earlier entry may have brought it; above, where the operator named the path, one that stays
    /// in the root is.
    fn folder(&mut self, path: &Path, included: &Path) -> Result<PathBuf, FilesError> {
        let mut above: Vec<&Path> = path.ancestors().skip(1).collect();
        above.reverse();
        let mut made_like = self.root.clone();
        for part in above.into_iter().skip(1) {
            let target = self.target(part);
            let in_the_way = || FilesError::InTheWay { path: self.target(path), in_the_way: target.clone() };
            match look(&target)? {
                Some(there) if there.is_dir() => {}
                Some(there) if there.is_symlink() && !part.starts_with(included) => {
                    let real = fs::canonicalize(&target).map_err(|_| in_the_way())?;
                    if !real.starts_with(&self.root) || !real.is_dir() {
                        return Err(in_the_way());
                    }
                }
                Some(_) => return Err(in_the_way()),
                None => {
                    DirBuilder::new()
                        .mode(0o755)
                        .create(&target)
                        .and_then(|()| own_like(&target, &made_like))
                        .map_err(FilesError::write("make the folder", &target))?;
                    self.folders.insert(made_like);
                }
            }
            made_like = target;
        }
        Ok(made_like)
    }

    fn target(&self, path: &Path) -> PathBuf {
        self.root.join(path.strip_prefix("/").unwrap_or(path))
    }

    fn move_aside(&mut self, target: &Path, is_there: bool) -> Result<(), FilesError> {
        if is_there {
            let kept = with_suffix(target, &self.stamp);
            fs::rename(target, &kept).map_err(FilesError::write("move aside", target))?;
            self.done.kept.push(kept);
        }
        Ok(())
    }

    /// Sets the folders' modes, the innermost first, and sees to it that all is on the disk.
    fn finish(self, members: &BTreeMap<PathBuf, Member>) -> Result<Unpacked, FilesError> {
        let placed: BTreeSet<&PathBuf> = self.done.written.iter().chain(&self.done.unchanged).collect();
        for (path, member) in members.iter().rev() {
            let target = self.target(path);
            if matches!(member.kind, Kind::Folder) && placed.contains(&target) {
                File::open(&target)
                    .and_then(|folder| set(&folder, member, FOLDER_MODE))
                    .map_err(FilesError::write("set owner and mode of", &target))?;
            }
        }
        for folder in &self.folders {
            File::open(folder)
                .and_then(|folder| folder.sync_all())
                .map_err(FilesError::write("sync the folder", folder))?;
        }
        Ok(self.done)
    }
}

/// What is at a path, a symbolic link as such.
fn look(path: &Path) -> Result<Option<Metadata>, FilesError> {
    match fs::symlink_metadata(path) {
        Ok(there) => Ok(Some(there)),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(FilesError::write("look at", path)(error)),
    }
}

fn holds(target: &Path, there: &Metadata, content: &[u8]) -> bool {
    there.is_file()
        && there.len() == content.len() as u64
        && fs::read(target).is_ok_and(|there| there == content)
}

/// A scratch file in the same folder, whole and on the disk. It is readable by its owner alone until it is.
fn write(folder: &Path, content: &[u8], member: &Member) -> io::Result<tempfile::NamedTempFile> {
    let mut scratch = tempfile::Builder::new().prefix(&scratch::prefix()).tempfile_in(folder)?;
    scratch.write_all(content)?;
    if let Some(time) = SystemTime::UNIX_EPOCH.checked_add(Duration::from_secs(member.mtime)) {
        scratch.as_file().set_modified(time)?;
    }
    set(scratch.as_file(), member, FILE_MODE)?;
    scratch.as_file().sync_all()?;
    Ok(scratch)
}

/// The owner before the mode: a change of owner takes set-gid away. What is right already is left, for it may be
/// another user's.
fn set(file: &File, member: &Member, mask: u32) -> io::Result<()> {
    let there = file.metadata()?;
    if (there.uid(), there.gid()) != member.owner {
        permitted(fchown(file, Some(member.owner.0), Some(member.owner.1)))?;
    }
    let mode = member.mode & mask;
    if file.metadata()?.mode() & 0o7777 == mode {
        return Ok(());
    }
    file.set_permissions(Permissions::from_mode(mode))
}

fn own_like(folder: &Path, like: &Path) -> io::Result<()> {
    let like = fs::metadata(like)?;
    permitted(lchown(folder, Some(like.uid()), Some(like.gid())))
}

/// Only root gives files away; in a user namespace an owner may be unknown.
fn permitted(changed: io::Result<()>) -> io::Result<()> {
    match changed {
        Err(error)
            if matches!(error.kind(), io::ErrorKind::PermissionDenied | io::ErrorKind::InvalidInput) =>
        {
            Ok(())
        }
        changed => changed,
    }
}
