use std::fs::Permissions;
use std::io::Write;
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _, chown, symlink};

use tar::{Builder, EntryType, Header};
use tempfile::TempDir;

use super::*;
use crate::clock::Moment;

const NOW: Moment = Moment::from_millis(0);
const KEPT: &str = ".before-restore-1970-01-01T00-00-00.000Z";

/// A folder that stands for the machine, with a control plane's files and its database in it.
struct Machine(TempDir);

impl Machine {
    fn new() -> Self {
        let machine = Self(tempfile::tempdir().unwrap());
        fs::create_dir_all(machine.at("data/pki/etcd")).unwrap();
        for (name, content, mode) in [
            ("data/token", "token", 0o600),
            ("data/pki/ca.crt", "certificate", 0o644),
            ("data/pki/etcd/ca.key", "key", 0o400),
            ("data/state.db", "database", 0o600),
        ] {
            fs::write(machine.at(name), content).unwrap();
            fs::set_permissions(machine.at(name), Permissions::from_mode(mode)).unwrap();
        }
        symlink("ca.crt", machine.at("data/pki/link")).unwrap();
        fs::set_permissions(machine.at("data/pki/etcd"), Permissions::from_mode(0o2750)).unwrap();
        machine
    }

    fn at(&self, name: &str) -> PathBuf {
        self.0.path().canonicalize().unwrap().join(name)
    }

    fn included(&self, names: &[&str]) -> Included {
        Included::new(names.iter().map(|name| self.at(name)), Some(&self.at("data/state.db"))).unwrap()
    }

    fn packed(&self, names: &[&str]) -> (Vec<u8>, Packed) {
        let mut tar = Vec::new();
        let packed = self.included(names).pack(&mut tar).unwrap();
        assert_eq!((packed.bytes, packed.digest), (tar.len() as u64, crate::signing::Digest::of(&tar)));
        (tar, packed)
    }

    /// Where a file of this machine goes below another root.
    fn below(&self, root: &Path, name: &str) -> PathBuf {
        root.join(self.at(name).strip_prefix("/").unwrap())
    }
}

/// The names in an archive, from the machine's folder on.
fn names(machine: &Machine, tar: &[u8]) -> Vec<String> {
    let machine = machine.at("").strip_prefix("/").unwrap().to_owned();
    let mut archive = tar::Archive::new(tar);
    let path = |entry: io::Result<tar::Entry<&[u8]>>| entry.unwrap().path().unwrap().into_owned();
    let name = |path: PathBuf| path.strip_prefix(&machine).unwrap().to_string_lossy().into_owned();
    archive.entries().unwrap().map(path).map(name).collect()
}

/// An archive as no program of ours makes it.
fn forged(entries: &[(&str, EntryType, &str)]) -> Vec<u8> {
    let mut builder = Builder::new(Vec::new());
    for (name, kind, content) in entries {
        let mut header = Header::new_gnu();
        header.as_old_mut().name[..name.len()].copy_from_slice(name.as_bytes());
        header.set_entry_type(*kind);
        header.set_mode(0o644);
        header.set_uid(0);
        header.set_gid(0);
        header.set_mtime(0);
        let is_file = matches!(kind, EntryType::Regular);
        if !is_file {
            header.as_old_mut().linkname[..content.len()].copy_from_slice(content.as_bytes());
        }
        let content = if is_file { content.as_bytes() } else { b"" };
        header.set_size(content.len() as u64);
        header.set_cksum();
        builder.append(&header, content).unwrap();
    }
    builder.into_inner().unwrap()
}

fn text(path: impl AsRef<Path>) -> String {
    fs::read_to_string(path).unwrap()
}

fn kept(path: &Path) -> PathBuf {
    crate::database::with_suffix(path, KEPT)
}

fn mode(path: impl AsRef<Path>) -> u32 {
    fs::symlink_metadata(path).unwrap().mode() & 0o7777
}

#[test]
fn what_is_packed_comes_back_with_mode_owner_and_time() {
    let (machine, root) = (Machine::new(), tempfile::tempdir().unwrap());
    let may_give_away = chown(machine.at("data/token"), Some(1234), Some(2345)).is_ok();
    let old = std::time::SystemTime::UNIX_EPOCH + std::time::Duration::from_secs(1_000_000);
    fs::File::open(machine.at("data/token")).unwrap().set_modified(old).unwrap();
    let included = machine.included(&["data/token", "data/pki", "data/pki/etcd"]);
    let (tar, packed) = machine.packed(&["data/token", "data/pki", "data/pki/etcd"]);
    assert_eq!(packed.entries, 6);

    let unpacked = included.unpack(tar.as_slice(), root.path(), NOW).unwrap();
    assert_eq!((unpacked.written.len(), unpacked.kept.len(), unpacked.skipped.len()), (6, 0, 0));
    let at = |name: &str| machine.below(root.path(), name);
    assert_eq!((text(at("data/token")), mode(at("data/token"))), ("token".to_owned(), 0o600));
    assert_eq!((text(at("data/pki/link")), mode(at("data/pki/ca.crt"))), ("certificate".to_owned(), 0o644));
    assert_eq!((mode(at("data/pki/etcd/ca.key")), mode(at("data/pki/etcd"))), (0o400, 0o2750));
    assert_eq!(fs::read_link(at("data/pki/link")).unwrap(), Path::new("ca.crt"));
    let token = fs::metadata(at("data/token")).unwrap();
    assert_eq!(token.modified().unwrap(), old);
    if may_give_away {
        assert_eq!((token.uid(), token.gid()), (1234, 2345));
    }

    // Once more: all is there.
    fs::set_permissions(at("data/token"), Permissions::from_mode(0o666)).unwrap();
    let again = included.unpack(tar.as_slice(), root.path(), NOW).unwrap();
    assert_eq!((again.unchanged.len(), again.written, again.kept), (6, vec![], vec![]));
    assert_eq!(mode(at("data/token")), 0o600);
}

#[test]
fn what_differs_is_kept() {
    let (machine, root) = (Machine::new(), tempfile::tempdir().unwrap());
    let (tar, _) = machine.packed(&["data/pki", "data/token"]);
    let at = |name: &str| machine.below(root.path(), name);
    fs::create_dir_all(at("data/pki/link")).unwrap();
    fs::write(at("data/token"), "other").unwrap();
    symlink("/etc", at("data/pki/etcd")).unwrap();
    let unpacked = machine.included(&["data"]).unpack(tar.as_slice(), root.path(), NOW).unwrap();
    assert_eq!(unpacked.kept.len(), 3);
    assert_eq!((text(at("data/token")), text(kept(&at("data/token")))), ("token".into(), "other".into()));
    assert!(kept(&at("data/pki/link")).is_dir() && at("data/pki/etcd/ca.key").is_file());
    assert_eq!(fs::read_link(kept(&at("data/pki/etcd"))).unwrap(), Path::new("/etc"));
    assert!(!Path::new("/etc/ca.key").exists());
}

#[test]
fn the_same_files_give_the_same_bytes() {
    let machine = Machine::new();
    let (first, packed) = machine.packed(&["data/pki", "data/token"]);
    // A folder's time is not packed; files that are not packed come and go in it.
    fs::write(machine.at("data/pki/.vcluster-backup-1-x"), "").unwrap();
    fs::remove_file(machine.at("data/pki/.vcluster-backup-1-x")).unwrap();
    let old = std::time::SystemTime::UNIX_EPOCH;
    fs::File::open(machine.at("data/pki")).unwrap().set_modified(old).unwrap();
    let (second, again) = machine.packed(&["data/token", "data/pki"]);
    assert!(first == second && packed == again);

    let included = machine.included(&["data/pki", "data/token"]);
    assert_eq!(included.fingerprint().unwrap(), packed.fingerprint);
    let mut seen = vec![packed.fingerprint];
    let mut changed = || {
        let fingerprint = included.fingerprint().unwrap();
        assert!(!seen.contains(&fingerprint));
        seen.push(fingerprint);
    };
    fs::write(machine.at("data/token"), "longer").unwrap();
    changed();
    fs::set_permissions(machine.at("data/token"), Permissions::from_mode(0o640)).unwrap();
    changed();
    fs::write(machine.at("data/other"), "longer").unwrap();
    fs::rename(machine.at("data/other"), machine.at("data/token")).unwrap();
    changed();
    fs::write(machine.at("data/pki/new"), "").unwrap();
    changed();
    fs::remove_file(machine.at("data/pki/link")).unwrap();
    changed();
}

#[test]
fn missing_paths_are_no_error() {
    let machine = Machine::new();
    let included = machine.included(&["data/later", "gone/below/it", "data/token/below"]);
    let none = included.fingerprint().unwrap();
    assert_eq!(included.pack(io::sink()).unwrap().entries, 0);
    fs::write(machine.at("data/later"), "").unwrap();
    assert_ne!(included.fingerprint().unwrap(), none);
    assert_eq!(included.pack(io::sink()).unwrap().entries, 1);
}

#[test]
fn the_database_is_neither_packed_nor_restored() {
    let (machine, root) = (Machine::new(), tempfile::tempdir().unwrap());
    for name in ["state.db-wal", "state.db-shm", "state.db-journal", "state.db.restored", "state.db-x.lock"] {
        fs::write(machine.at("data").join(name), "").unwrap();
    }
    fs::write(machine.at(&format!("data/state.db{KEPT}-wal")), "").unwrap();
    fs::write(machine.at(&format!("data/token{KEPT}")), "").unwrap();
    fs::write(machine.at("data/.vcluster-backup-7-abc"), "").unwrap();
    fs::write(machine.at("data/state.dbx"), "another").unwrap();
    fs::write(machine.at("data/pki/state.db"), "another").unwrap();
    symlink("data", machine.at("mount")).unwrap();
    let theirs = ["", "/pki", "/pki/ca.crt", "/pki/etcd", "/pki/etcd/ca.key", "/pki/link", "/pki/state.db"];
    let theirs: Vec<&str> = theirs.into_iter().chain(["/state.dbx", "/token"]).collect();
    let before = machine.included(&["data"]).fingerprint().unwrap();
    for folder in ["data", "mount"] {
        let (tar, _) = machine.packed(&[folder]);
        assert_eq!(
            names(&machine, &tar),
            theirs.iter().map(|name| format!("{folder}{name}")).collect::<Vec<_>>()
        );
    }
    assert_eq!(machine.packed(&["data/state.db", "mount/state.db-wal"]).1.entries, 0);
    fs::write(machine.at("data/state.db-wal"), "grown").unwrap();
    assert_eq!(machine.included(&["data"]).fingerprint().unwrap(), before);

    // Nor if the archive has it.
    let name = machine.at("data/state.db");
    let tar = forged(&[(name.strip_prefix("/").unwrap().to_str().unwrap(), EntryType::Regular, "forged")]);
    let unpacked = machine.included(&["data"]).unpack(tar.as_slice(), root.path(), NOW).unwrap();
    assert_eq!((unpacked.skipped, unpacked.written), (vec![name.clone()], vec![]));
    let elsewhere = Included::new([machine.at("mount")], Some(&name)).unwrap();
    let name = machine.at("mount/state.db");
    let tar = forged(&[(name.strip_prefix("/").unwrap().to_str().unwrap(), EntryType::Regular, "forged")]);
    elsewhere.unpack(tar.as_slice(), Path::new("/"), NOW).unwrap_err();
    assert_eq!(text(name), "database");
}

#[test]
fn only_what_is_included_is_restored() {
    let root = tempfile::tempdir().unwrap();
    let tar = forged(&[
        ("data/token", EntryType::Regular, "token"),
        ("data/tokens", EntryType::Regular, "no"),
        ("etc/passwd", EntryType::Regular, "no"),
    ]);
    let included = Included::new([PathBuf::from("/data/token")], None).unwrap();
    let unpacked = included.unpack(tar.as_slice(), root.path(), NOW).unwrap();
    assert_eq!(unpacked.skipped, [PathBuf::from("/data/tokens"), PathBuf::from("/etc/passwd")]);
    assert_eq!(text(root.path().join("data/token")), "token");
    assert!(!root.path().join("etc").exists());
}

#[test]
fn a_hostile_archive_writes_nothing() {
    let outside = tempfile::tempdir().unwrap();
    let elsewhere = outside.path().to_str().unwrap();
    let file = EntryType::Regular;
    let good = ("data/a", file, "a");
    for (name, entries) in [
        ("up", vec![good, ("data/../../up", file, "x")]),
        ("up at the end", vec![good, ("data/x/..", file, "x")]),
        ("absolute", vec![good, ("/data/x", file, "x")]),
        ("from here", vec![good, ("./data/x", file, "x")]),
        ("no name", vec![good, ("", file, "x")]),
        ("twice", vec![good, ("data/b", file, "b"), ("data/b/", EntryType::Directory, "")]),
        ("hard link", vec![good, ("data/b", EntryType::Link, "/etc/passwd")]),
        ("device", vec![good, ("data/b", EntryType::Block, "")]),
        ("fifo", vec![good, ("data/b", EntryType::Fifo, "")]),
        ("link to nothing", vec![good, ("data/b", EntryType::Symlink, "")]),
        ("sparse", vec![good, ("data/b", EntryType::GNUSparse, "")]),
    ] {
        let root = tempfile::tempdir().unwrap();
        let included = Included::new([PathBuf::from("/data")], None).unwrap();
        let tar = forged(&entries);
        let refused = included.unpack(tar.as_slice(), root.path(), NOW);
        assert!(refused.is_err(), "{name}");
        assert_eq!(fs::read_dir(root.path()).unwrap().count(), 0, "{name}");
    }
    // Through a symbolic link that the archive brought.
    let root = tempfile::tempdir().unwrap();
    let included = Included::new([PathBuf::from("/data")], None).unwrap();
    let tar = forged(&[("data/b", EntryType::Symlink, elsewhere), ("data/b/c", file, "x")]);
    let refused = included.unpack(tar.as_slice(), root.path(), NOW);
    assert!(matches!(refused, Err(FilesError::InTheWay { .. })), "{refused:?}");
    let tar = forged(&[("data", EntryType::Symlink, elsewhere), ("data/c", file, "x")]);
    let root = tempfile::tempdir().unwrap();
    assert!(included.unpack(tar.as_slice(), root.path(), NOW).is_err());
    // Above what is included, out of the root.
    let root = tempfile::tempdir().unwrap();
    symlink(elsewhere, root.path().join("var")).unwrap();
    let deeper = Included::new([PathBuf::from("/var/run")], None).unwrap();
    let tar = forged(&[("var/run/c", file, "x")]);
    assert!(deeper.unpack(tar.as_slice(), root.path(), NOW).is_err());
    assert_eq!(fs::read_dir(outside.path()).unwrap().count(), 0);
    // But within it an operator may have laid one.
    fs::remove_file(root.path().join("var")).unwrap();
    fs::create_dir(root.path().join("real")).unwrap();
    symlink("real", root.path().join("var")).unwrap();
    deeper.unpack(tar.as_slice(), root.path(), NOW).unwrap();
    assert_eq!(text(root.path().join("real/run/c")), "x");
}

#[test]
fn a_damaged_archive_writes_nothing() {
    let machine = Machine::new();
    let (tar, _) = machine.packed(&["data"]);
    let mut flipped = tar.clone();
    flipped[150] ^= 1;
    for damaged in [&flipped, &tar[..700].to_vec(), &b"not a tar at all".repeat(64)] {
        let root = tempfile::tempdir().unwrap();
        let error = machine.included(&["data"]).unpack(damaged.as_slice(), root.path(), NOW).unwrap_err();
        assert!(matches!(error, FilesError::Archive(_)), "{error}");
        assert_eq!(fs::read_dir(root.path()).unwrap().count(), 0);
    }
}

#[test]
fn an_archive_stays_whole_while_a_file_grows_and_shrinks() {
    let machine = Machine::new();
    let stop = std::sync::atomic::AtomicBool::new(false);
    let path = machine.at("data/pki/ca.crt");
    std::thread::scope(|scope| {
        scope.spawn(|| {
            let mut length = 0_usize;
            while !stop.load(std::sync::atomic::Ordering::Relaxed) {
                length = (length + 7919) % 100_000;
                fs::write(&path, vec![b'x'; length]).unwrap();
            }
        });
        for _ in 0..200 {
            let (tar, packed) = machine.packed(&["data/pki"]);
            let mut archive = tar::Archive::new(tar.as_slice());
            let whole = archive.entries().unwrap().collect::<Result<Vec<_>, _>>().unwrap();
            assert_eq!(whole.len(), packed.entries);
            assert_eq!(packed.entries, 5);
        }
        stop.store(true, std::sync::atomic::Ordering::Relaxed);
    });
}

#[test]
fn what_is_no_file_is_passed_over() {
    let machine = Machine::new();
    nix::unistd::mkfifo(&machine.at("data/pki/fifo"), nix::sys::stat::Mode::S_IRWXU).unwrap();
    let _socket = std::os::unix::net::UnixListener::bind(machine.at("data/pki/socket")).unwrap();
    assert_eq!(machine.packed(&["data/pki"]).1.entries, 5);
    assert_eq!(machine.packed(&["data/pki/fifo"]).1.entries, 0);
}

#[test]
fn what_is_too_large_is_refused_before_it_is_read() {
    let machine = Machine::new();
    fs::File::create(machine.at("data/pki/large")).unwrap().set_len(LARGEST).unwrap();
    let error = machine.included(&["data/pki"]).pack(io::sink()).unwrap_err().to_string();
    assert!(error.contains("64 MiB") && error.contains("data/pki"), "{error}");
}

#[test]
fn a_path_is_named_from_the_root_on() {
    for path in ["token", "/data/../token", "", "./token"] {
        assert!(Included::new([PathBuf::from(path)], None).is_err(), "{path}");
    }
    let paths = ["/data/pki/", "/data//pki/etcd", "/data/pki2", "/data/pki"].map(PathBuf::from);
    let included = Included::new(paths, None).unwrap();
    assert_eq!(included.paths, ["/data/pki", "/data/pki2"].map(PathBuf::from));
    assert!(Included::new([], None).unwrap().is_empty());
}

#[test]
fn long_names_and_a_named_link_come_back() {
    let (machine, root) = (Machine::new(), tempfile::tempdir().unwrap());
    let long = format!("data/pki/{}/{}", "f".repeat(120), "g".repeat(200));
    fs::create_dir_all(machine.at(&long).parent().unwrap()).unwrap();
    fs::write(machine.at(&long), "long").unwrap();
    symlink("x".repeat(150), machine.at("data/pki/far")).unwrap();
    symlink("token", machine.at("data/current")).unwrap();
    let names = ["data/pki", "data/current"];
    let (tar, _) = machine.packed(&names);
    machine.included(&names).unpack(tar.as_slice(), root.path(), NOW).unwrap();
    assert_eq!(text(machine.below(root.path(), &long)), "long");
    let far = fs::read_link(machine.below(root.path(), "data/pki/far")).unwrap();
    assert_eq!(far.as_os_str().len(), 150);
    assert_eq!(text(machine.below(root.path(), "data/current")), "token");
}

#[test]
fn a_failed_writer_fails_the_archive() {
    struct Full;
    impl Write for Full {
        fn write(&mut self, _: &[u8]) -> io::Result<usize> {
            Err(io::ErrorKind::StorageFull.into())
        }
        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }
    let machine = Machine::new();
    assert!(matches!(machine.included(&["data"]).pack(Full), Err(FilesError::Out(_))));
}
