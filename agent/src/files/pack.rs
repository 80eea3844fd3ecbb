//! **Packing**: the included files as they are now, always in the same bytes, and the cheap look that tells whether
//! they may have changed.

use std::fs::{self, File, Metadata, OpenOptions};
use std::io::{self, Read as _, Write};
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::fs::{MetadataExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};

use nix::fcntl::OFlag;
use tar::{Builder, EntryType, Header};

use super::{FilesError, Included, LARGEST};
use crate::signing::{Digest, Hasher};

/// tar's block: each entry takes one for its header, and its content is filled up to a whole one.
const BLOCK: u64 = 512;

/// Nobody becomes another user by a file out of a bucket: set-uid and set-gid are not kept.
pub(super) const FILE_MODE: u32 = 0o777;

/// Kubernetes sets set-gid on a volume's folders (`fsGroup`).
pub(super) const FOLDER_MODE: u32 = 0o3777;

/// What stat tells of all included files. The same again: nothing has changed. Folders count by their entries, not by
/// their times, which change with files that are not ours to pack.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Fingerprint(Digest);

/// What was packed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Packed {
    /// Files, folders and symbolic links.
    pub entries: usize,
    /// Of the tar.
    pub bytes: u64,
    /// Of the tar: the same files give the same.
    pub digest: Digest,
    /// Taken before the files were read: what changes later shows.
    pub fingerprint: Fingerprint,
}

/// One entry to pack.
struct Found {
    path: PathBuf,
    metadata: Metadata,
    /// Named outright: what a symbolic link points to is meant.
    named: bool,
}

impl Included {
    /// Looks at every included file by stat alone. A path that is missing is no error.
    pub fn fingerprint(&self) -> Result<Fingerprint, FilesError> {
        Ok(fingerprint(&self.find()?))
    }

    /// Writes a tar of what is there now.
    pub fn pack(&self, out: impl Write) -> Result<Packed, FilesError> {
        let found = self.find()?;
        let fingerprint = fingerprint(&found);
        let mut builder = Builder::new(Hashing { out, hasher: Hasher::default(), bytes: 0 });
        let mut entries = 0;
        for found in &found {
            if builder.get_ref().bytes > LARGEST {
                return Err(FilesError::TooLarge { path: found.path.clone() });
            }
            entries += usize::from(append(&mut builder, found)?);
        }
        let mut tar = builder.into_inner().map_err(FilesError::Out)?;
        tar.flush().map_err(FilesError::Out)?;
        Ok(Packed { entries, bytes: tar.bytes, digest: tar.hasher.finish(), fingerprint })
    }

    /// Everything to pack, sorted: a folder comes before what lies in it.
    fn find(&self) -> Result<Vec<Found>, FilesError> {
        let exceptions = self.exceptions();
        let (mut all, mut size) = (Vec::new(), 0_u64);
        for named in &self.paths {
            let Some(metadata) = there(fs::metadata(named)).map_err(FilesError::read("look at", named))?
            else {
                continue;
            };
            let Some(real) = there(fs::canonicalize(named)).map_err(FilesError::read("look at", named))?
            else {
                continue;
            };
            // Each with its path as the exceptions have it: below a named path no symbolic link is followed.
            let mut open = vec![(Found { path: named.clone(), metadata, named: true }, real)];
            while let Some((found, real)) = open.pop() {
                if exceptions.hold(&real) || exceptions.hold(&found.path) {
                    continue;
                }
                size += BLOCK;
                if found.metadata.is_dir() {
                    for (path, metadata) in folder(&found.path)? {
                        let real = real.join(path.file_name().unwrap_or_default());
                        open.push((Found { path, metadata, named: false }, real));
                    }
                } else if found.metadata.is_file() {
                    size = size.saturating_add(found.metadata.len().div_ceil(BLOCK).saturating_mul(BLOCK));
                } else if !found.metadata.is_symlink() {
                    tracing::debug!(path = %found.path.display(), "neither file nor folder: not backed up");
                    continue;
                }
                if size > LARGEST {
                    return Err(FilesError::TooLarge { path: found.path });
                }
                all.push(found);
            }
        }
        all.sort_by(|one, other| one.path.cmp(&other.path));
        Ok(all)
    }
}

/// What lies in a folder; nothing if it is gone.
fn folder(path: &Path) -> Result<Vec<(PathBuf, Metadata)>, FilesError> {
    let mut children = Vec::new();
    let Some(entries) = there(fs::read_dir(path)).map_err(FilesError::read("list", path))? else {
        return Ok(children);
    };
    for entry in entries {
        let path = entry.map_err(FilesError::read("list", path))?.path();
        let metadata = there(fs::symlink_metadata(&path)).map_err(FilesError::read("look at", &path))?;
        children.extend(metadata.map(|metadata| (path, metadata)));
    }
    Ok(children)
}

/// A file may go while it is looked at.
fn there<T>(result: io::Result<T>) -> io::Result<Option<T>> {
    match result {
        Ok(there) => Ok(Some(there)),
        Err(error) if matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory) => {
            Ok(None)
        }
        Err(error) => Err(error),
    }
}

fn fingerprint(all: &[Found]) -> Fingerprint {
    let mut hasher = Hasher::default();
    for Found { path, metadata, .. } in all {
        let path = path.as_os_str().as_bytes();
        hasher.update(&path.len().to_le_bytes());
        hasher.update(path);
        for number in [metadata.mode(), metadata.uid(), metadata.gid()] {
            hasher.update(&number.to_le_bytes());
        }
        hasher.update(&metadata.ino().to_le_bytes());
        if !metadata.is_dir() {
            hasher.update(&metadata.len().to_le_bytes());
            hasher.update(&metadata.mtime().to_le_bytes());
            hasher.update(&metadata.mtime_nsec().to_le_bytes());
        }
    }
    Fingerprint(hasher.finish())
}

/// Appends an entry; `false` if it is gone.
fn append(builder: &mut Builder<impl Write>, found: &Found) -> Result<bool, FilesError> {
    let path = &found.path;
    let Ok(name) = path.strip_prefix("/") else { return Ok(false) };
    if name.as_os_str().is_empty() {
        return Ok(false); // The root itself; what lies in it follows.
    }
    if found.metadata.is_dir() {
        let mut header = header(EntryType::Directory, &found.metadata, FOLDER_MODE);
        header.set_mtime(0);
        builder.append_data(&mut header, name, io::empty()).map_err(FilesError::Out)?;
    } else if found.metadata.is_symlink() {
        let Some(target) = there(fs::read_link(path)).map_err(FilesError::read("read", path))? else {
            return Ok(false);
        };
        let mut header = header(EntryType::Symlink, &found.metadata, FILE_MODE);
        header.set_mtime(0);
        builder.append_link(&mut header, name, target).map_err(FilesError::Out)?;
    } else {
        let Some((content, metadata)) = read(found)? else { return Ok(false) };
        let mut header = header(EntryType::Regular, &metadata, FILE_MODE);
        header.set_size(content.len() as u64);
        builder.append_data(&mut header, name, content.as_slice()).map_err(FilesError::Out)?;
    }
    Ok(true)
}

fn header(kind: EntryType, metadata: &Metadata, mode: u32) -> Header {
    let mut header = Header::new_gnu();
    header.set_entry_type(kind);
    header.set_mode(metadata.mode() & mode);
    header.set_uid(metadata.uid().into());
    header.set_gid(metadata.gid().into());
    header.set_mtime(u64::try_from(metadata.mtime()).unwrap_or(0));
    header.set_size(0);
    header
}

/// Reads a file whole before its header is written: it may grow or shrink meanwhile, and the header must tell what
/// follows. `None` if it is gone or is a file no more.
fn read(found: &Found) -> Result<Option<(Vec<u8>, Metadata)>, FilesError> {
    let path = &found.path;
    // A fifo in the file's place would wait for its writer; a symbolic link would lead out of what was named.
    let mut flags = OFlag::O_NONBLOCK;
    flags.set(OFlag::O_NOFOLLOW, !found.named);
    let opened = there(OpenOptions::new().read(true).custom_flags(flags.bits()).open(path))
        .map_err(FilesError::read("read", path))?;
    let Some(file) = opened else { return Ok(None) };
    let metadata = file.metadata().map_err(FilesError::read("look at", path))?;
    if !metadata.is_file() {
        return Ok(None);
    }
    read_whole(file, path, LARGEST).map(|content| Some((content, metadata)))
}

fn read_whole(file: File, path: &Path, largest: u64) -> Result<Vec<u8>, FilesError> {
    let mut content = Vec::new();
    file.take(largest + 1).read_to_end(&mut content).map_err(FilesError::read("read", path))?;
    if content.len() as u64 > largest {
        return Err(FilesError::TooLarge { path: path.to_owned() });
    }
    Ok(content)
}

/// Passes bytes on and keeps their digest.
struct Hashing<W> {
    out: W,
    hasher: Hasher,
    bytes: u64,
}

impl<W: Write> Write for Hashing<W> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let taken = self.out.write(bytes)?;
        self.hasher.update(&bytes[..taken]);
        self.bytes += taken as u64;
        Ok(taken)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.out.flush()
    }
}
