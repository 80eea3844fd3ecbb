//! `verify`: a sound backup passes, and whatever is wrong with one is found, named and recorded.

#![allow(clippy::unwrap_used, missing_docs)]

mod support;

use std::io::Read as _;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use rusqlite::Connection;
use support::memory_store::MemoryStore;
use support::world::World;
use support::{BUCKET, Bench, Finished, finish, get, until};
use vcluster_backup::envelope;
use vcluster_backup::error::{Exit, exit_of};
use vcluster_backup::header::Header;
use vcluster_backup::key::{Identities, Recipients};
use vcluster_backup::object_name::{ObjectName, Prefix};
use vcluster_backup::replicator::log::{Log, Shipped};
use vcluster_backup::restore::Keys;
use vcluster_backup::restore::plan::Target;
use vcluster_backup::segment;
use vcluster_backup::signing::{Signer, Signers, SigningKey};
use vcluster_backup::verify::{Blame, Depth, Finding, VerifyError, record, verify};
use vcluster_backup_tests::kine_shaped;
use vcluster_backup_tests::process::Process;
use vcluster_backup_tests::s3::Fault;

const SIGNED: [&str; 2] = ["--signing-key-file", "signing-key"];

/// A backup of one snapshot and three segments, signed.
async fn with_segments() -> Bench {
    let bench = Bench::new().await;
    let database = bench.path("state.db");
    kine_shaped::create(&database, 30, 200).unwrap();
    std::fs::create_dir(bench.path("scratch")).unwrap();
    for number in 0..4 {
        once(&bench).await;
        kine_shaped::put(&database, "/registry/pods/default/x", &[number]).unwrap();
    }
    assert_eq!(keys(&bench, "/log/").len(), 3);
    bench
}

async fn once(bench: &Bench) {
    let recipient = bench.recipient();
    let run = ["run", "--once", "--database", "state.db", "--recipient", &recipient];
    bench.run(&[&run[..], &SIGNED].concat()).await.ended(0);
}

fn keys(bench: &Bench, folder: &str) -> Vec<String> {
    let keys = bench.s3.keys(BUCKET).unwrap_or_default();
    keys.into_iter().filter(|key| key.contains(folder)).collect()
}

/// A drill with its scratch files in a folder of their own, which must be empty afterwards.
async fn drill(bench: &Bench, more: &[&str]) -> Finished {
    let mut command = bench.command(&[&["verify", "--json"], &SIGNED[..], more].concat());
    command.env("TMPDIR", bench.path("scratch"));
    let finished = finish(command).await;
    assert_eq!(std::fs::read_dir(bench.path("scratch")).unwrap().count(), 0, "a scratch file is left");
    finished
}

const WITH_KEY: [&str; 2] = ["--identity-file", "key.txt"];

#[tokio::test]
async fn a_sound_backup_passes_and_the_result_is_recorded() {
    let bench = with_segments().await;
    let revision = 34;
    for (more, depth, rows, words) in [
        (vec!["--identity-file", "key.txt"], "full", Some(34), "was restored and checked, 34 rows"),
        (vec!["--identity-file", "key.txt", "--quick"], "quick", None, "4 objects that lead to revision 34"),
        (vec!["--quick"], "names", None, "all that can be told without an identity"),
        (vec!["--identity-file", "key.txt", "--revision", "33"], "full", Some(33), "revision 33"),
    ] {
        let found = drill(&bench, &more).await.ended(0).json();
        assert_eq!((&found["result"], &found["depth"]), (&"ok".into(), &depth.into()), "{found}");
        assert_eq!(found["rows"].as_i64(), rows, "{found}");
        assert_eq!(found["newest"]["revision"].as_i64(), Some(revision), "{found}");
        let record = found["record"].as_str().unwrap();
        assert!(record.contains("/verify/") && record.ends_with("-ok"), "{record}");
        let told = std::fs::read_to_string(bench.s3.object(BUCKET, record)).unwrap();
        assert!(told.contains(words) && told.trim().lines().count() == 1, "{told}");
    }
    let told = bench.run(&["verify", "--identity-file", "key.txt"]).await.ended(0).stdout;
    assert!(told.starts_with("ok: timeline 01") && told.contains("old"), "{told}");
    // The record is in nobody's way.
    bench.restore("out.db", &SIGNED).await.ended(0);
}

/// Writes a segment again under its own name, signed by someone who knows the recipient alone.
fn forge(bench: &Bench, key: &str) {
    let identities = Identities::read(&bench.path("key.txt")).unwrap();
    let object = std::fs::read(bench.s3.object(BUCKET, key)).unwrap();
    let name = ObjectName::parse(&Prefix::default(), key).unwrap();
    let read = segment::read(&name, &object[..], &identities, &Signers::default(), &mut |_| {
        Ok::<_, envelope::OpenError>(())
    });
    let (header, mut text) = (read.unwrap(), String::new());
    let mut plain = zstd::Decoder::new(envelope::decrypt(&identities, &object[..]).unwrap()).unwrap();
    plain.read_to_string(&mut text).unwrap();
    let body = text.split_once("BEGIN;\n").unwrap().1.rsplit_once("COMMIT;\n").unwrap().0;
    let forger = signing_key('C');
    let header = Header { signer: Some(forger.signer()), ..header };
    let recipients = Recipients::parse(&[bench.recipient()]).unwrap();
    let mut sealed = Vec::new();
    segment::seal(&header, &mut body.as_bytes(), &recipients, Some(&forger), &mut sealed).unwrap();
    std::fs::write(bench.s3.object(BUCKET, key), sealed).unwrap();
}

fn signing_key(letter: char) -> SigningKey {
    SigningKey::parse(&format!("{}A", letter.to_string().repeat(42))).unwrap()
}

/// What is done to an object.
type Spoil<'s> = Box<dyn Fn() + 's>;

#[tokio::test]
async fn whatever_is_wrong_is_found_named_and_recorded() {
    let bench = with_segments().await;
    let segments = keys(&bench, "/log/");
    let (snapshot, middle) = (keys(&bench, "/snapshot/").remove(0), segments[1].clone());
    let flip = |key: &str| {
        let path = bench.s3.object(BUCKET, key);
        let mut bytes = std::fs::read(&path).unwrap();
        let place = bytes.len() - 20;
        bytes[place] ^= 1;
        std::fs::write(path, bytes).unwrap();
    };
    let spoilt: [(&str, &str, Spoil, i32, &str); 5] = [
        ("a flipped byte", &middle, Box::new(|| flip(&middle)), 3, "damaged"),
        ("a flipped byte in the snapshot", &snapshot, Box::new(|| flip(&snapshot)), 3, "damaged"),
        (
            "a missing segment",
            &middle,
            Box::new(|| std::fs::remove_file(bench.s3.object(BUCKET, &middle)).unwrap()),
            3,
            "is missing",
        ),
        ("a forged segment", &middle, Box::new(|| forge(&bench, &middle)), 12, "is not signed by"),
        (
            "a swapped segment",
            &middle,
            Box::new(|| {
                let other = std::fs::read(bench.s3.object(BUCKET, &segments[2])).unwrap();
                std::fs::write(bench.s3.object(BUCKET, &middle), other).unwrap();
            }),
            12,
            "was swapped",
        ),
    ];
    for (what, key, spoil, code, words) in &spoilt {
        let whole = std::fs::read(bench.s3.object(BUCKET, key)).unwrap();
        spoil();
        for more in [&WITH_KEY[..], &[&WITH_KEY[..], &["--quick"]].concat()] {
            let finished = drill(&bench, more).await;
            assert_eq!(finished.code, Some(*code), "{what}, {more:?}: {}", finished.stderr);
            let found = finished.json();
            // What is missing is told by what comes after it.
            let named = if *what == "a missing segment" { &segments[2] } else { *key };
            assert!(
                finished.stderr.contains(words) && finished.stderr.contains(named),
                "{}",
                finished.stderr
            );
            assert!(finished.stderr.contains("`vcluster-backup"), "no way out: {}", finished.stderr);
            let record = found["record"].as_str().unwrap();
            assert!(record.ends_with("-failed"), "{record}");
            let told = std::fs::read_to_string(bench.s3.object(BUCKET, record)).unwrap();
            assert!(told.contains(words) && told.trim().lines().count() == 1, "{told}");
        }
        std::fs::write(bench.s3.object(BUCKET, key), whole).unwrap();
        drill(&bench, &WITH_KEY).await.ended(0);
    }
    // Names alone tell of a gap and of an empty object.
    let whole = std::fs::read(bench.s3.object(BUCKET, &middle)).unwrap();
    std::fs::write(bench.s3.object(BUCKET, &middle), "").unwrap();
    drill(&bench, &["--quick"]).await.refused(3, &["it is empty"]);
    std::fs::remove_file(bench.s3.object(BUCKET, &middle)).unwrap();
    drill(&bench, &["--quick"]).await.refused(3, &["is missing", &segments[2]]);
    // Nor does a restore pass over it in silence.
    bench.restore("out.db", &[]).await.refused(12, &["is missing", &segments[2], "last-good"]);
    bench.restore("out.db", &["--on-damage", "last-good"]).await.refused(3, &["is missing"]);
    std::fs::write(bench.s3.object(BUCKET, &middle), whole).unwrap();
}

#[tokio::test]
async fn what_is_no_verdict_is_not_recorded() {
    let bench = with_segments().await;
    drill(&bench, &["--identity-file", "other.txt"]).await.refused(12, &["any identity at hand"]);
    drill(&bench, &[]).await.refused(2, &["no identity is given"]);
    drill(&bench, &["--prefix", "elsewhere", "--quick"]).await.refused(10, &["no backup in"]);
    drill(&bench, &["--revision", "999", "--quick"]).await.refused(10, &["cannot be restored"]);
    drill(&bench, &["--endpoint", "http://127.0.0.1:1", "--quick"]).await.refused(1, &["cannot reach"]);
    assert_eq!(keys(&bench, "/verify/"), Vec::<String>::new());
    // A store that takes no record: the verdict stands all the same.
    let record =
        |method: &hyper::Method, path: &str| *method == hyper::Method::PUT && path.contains("/verify/");
    bench.s3.fail(record, Fault::Refuse("AccessDenied"));
    let finished = drill(&bench, &WITH_KEY).await;
    assert!(finished.stderr.contains("not recorded"), "{}", finished.stderr);
    assert!(finished.ended(0).json()["record"].is_null());
    assert!(bench.s3.all_met());
}

#[tokio::test]
async fn told_to_stop_it_leaves_nothing_behind() {
    let bench = Bench::new().await;
    kine_shaped::create(&bench.path("state.db"), 20_000, 2000).unwrap();
    bench.snapshot(&bench.path("state.db"), &[]).await;
    std::fs::create_dir(bench.path("scratch")).unwrap();
    let mut command = bench.command(&["verify", "--identity-file", "key.txt"]);
    let drill = Process::start("verify", command.env("TMPDIR", bench.path("scratch"))).unwrap();
    let files = || std::fs::read_dir(bench.path("scratch")).unwrap().count();
    until("restoring", || files() > 0).await;
    assert_eq!(drill.stop(Duration::from_secs(5)).await.unwrap().code(), Some(1));
    assert_eq!(files(), 0);
    assert_eq!(keys(&bench, "/verify/"), Vec::<String>::new());
}

#[tokio::test]
async fn the_running_agent_tells_what_came_of_it() {
    let bench = with_segments().await;
    drill(&bench, &WITH_KEY).await.ended(0);
    let listen = format!("127.0.0.1:{}", vcluster_backup_tests::port::free().unwrap());
    let recipient = bench.recipient();
    let args = ["run", "--database", "state.db", "--recipient", &recipient, "--listen", &listen];
    let more = ["--snapshot-interval", "1s", "--sync-interval", "100ms"];
    let mut command = bench.command(&[&args[..], &more, &SIGNED].concat());
    let mut agent = Process::start("agent", &mut command).unwrap();
    let metrics = async |expected: &str| get(&listen, "/metrics").await.contains(expected);
    let deadline = Duration::from_secs(20);
    let passed = "vcluster_backup_last_verify_ok 1\n";
    agent.until("told at the start", deadline, async || metrics(passed).await).await.unwrap();
    assert!(!metrics("vcluster_backup_last_verify_timestamp_seconds 0.0\n").await);
    assert!(get(&listen, "/status").await.contains("\"lastVerifyResult\":\"ok\""));
    // A failure is told with the next snapshot.
    let middle = &keys(&bench, "/log/")[1];
    let whole = std::fs::read(bench.s3.object(BUCKET, middle)).unwrap();
    std::fs::write(bench.s3.object(BUCKET, middle), "").unwrap();
    drill(&bench, &[&WITH_KEY[..], &["--quick", "--revision", "34"]].concat()).await.ended(3);
    std::fs::write(bench.s3.object(BUCKET, middle), whole).unwrap();
    kine_shaped::put(&bench.path("state.db"), "/registry/pods/default/x", b"more").unwrap();
    let failed = "vcluster_backup_last_verify_ok 0\n";
    agent.until("told of the failure", deadline, async || metrics(failed).await).await.unwrap();
    let status = get(&listen, "/status").await;
    assert!(status.contains("\"lastVerifyResult\":\"failed: ") && status.contains(middle), "{status}");
    assert_eq!(agent.stop(Duration::from_secs(10)).await.unwrap().code(), Some(0));
}

/// A history whose recipient and signing key were replaced half-way.
async fn rotated() -> (MemoryStore, [age::x25519::Identity; 2], [Signer; 2]) {
    let mut world = World::new(1);
    let mut agent = world.start_agent();
    let [old, new] = [signing_key('A'), signing_key('B')].map(Arc::new);
    let identity = age::x25519::Identity::generate();
    agent.log.capture.signing_key = Some(old.clone());
    agent.log.begin(&agent.database).await.unwrap();
    ship(&mut world, &mut agent.log, &agent.database).await;
    agent.log.capture.signing_key = Some(new.clone());
    agent.log.capture.recipients = Recipients::parse(&[identity.to_public().to_string()]).unwrap();
    ship(&mut world, &mut agent.log, &agent.database).await;
    (world.store.clone(), [world.identity.clone(), identity], [old.signer(), new.signer()])
}

async fn ship(
    world: &mut World,
    log: &mut Log<MemoryStore>,
    database: &vcluster_backup::database::SharedDatabase,
) {
    for _ in 0..3 {
        for _ in 0..5 {
            world.pass(1000);
            world.write();
        }
        let shipped = log.ship(database).await.unwrap();
        assert!(matches!(shipped, Shipped::Segment { .. }), "{shipped:?}");
    }
}

async fn found(
    store: &MemoryStore,
    identities: &[&age::x25519::Identity],
    signers: &[Signer],
    depth: fn(Keys) -> Depth,
) -> Result<Finding, VerifyError> {
    let identities = identities.iter().map(|identity| (*identity).clone()).collect::<Vec<_>>();
    let signers = Signers::from(signers.to_vec());
    let keys = Keys { identities: Arc::new(Identities::from(identities)), signers };
    verify(store, &Prefix::new("p"), "p", &Target::Latest, &depth(keys)).await
}

#[tokio::test]
async fn a_history_of_replaced_keys_needs_all_of_them() {
    let (store, [old, new], [old_signer, new_signer]) = rotated().await;
    for depth in [Depth::Full, Depth::Quick] {
        for signers in [&[][..], &[old_signer, new_signer]] {
            let both = found(&store, &[&new, &old], signers, depth).await.unwrap();
            assert!(both.passed() && both.objects == 7, "{both:?}");
        }
        for (identities, signers) in
            [(vec![&old], vec![]), (vec![&old, &new], vec![old_signer]), (vec![&old, &new], vec![new_signer])]
        {
            let refused = found(&store, &identities, &signers, depth).await.unwrap();
            assert_eq!(Exit::from(&refused), Exit::WrongKey, "{refused:?}");
            assert_eq!(refused.problem.unwrap().blame, Blame::Tampering);
        }
        // Not even the snapshot: it is the identity that is wrong, and no verdict.
        let Err(error) = found(&store, &[&new], &[], depth).await else { panic!("opened") };
        assert!(error.to_string().contains("any identity at hand"), "{error}");
        assert_eq!(exit_of(&error.into()), Exit::WrongKey);
    }
}

/// The newest record counts, and its words are one line whatever someone put there.
#[tokio::test]
async fn the_last_record_is_read() {
    let (store, [old, new], _) = rotated().await;
    let prefix = Prefix::new("p");
    let finding = found(&store, &[&old, &new], &[], Depth::Quick).await.unwrap();
    let timeline = finding.timeline;
    assert_eq!(record::last(&store, &prefix, timeline).await.unwrap(), None);
    let at = vcluster_backup::clock::Moment::from_millis;
    record::write(&store, &prefix, &finding, at(1000)).await.unwrap();
    let last = record::last(&store, &prefix, timeline).await.unwrap().unwrap();
    assert_eq!((last.at, last.result().as_str()), (at(1000), "ok"));
    let failed = ObjectName::Verification { timeline, at: at(2000), revision: 7.into(), passed: false };
    store.insert(&prefix.key(&failed), Bytes::from("one\ntwo\u{1b}[31m\n"));
    let last = record::last(&store, &prefix, timeline).await.unwrap().unwrap();
    assert_eq!((last.at, last.result().as_str()), (at(2000), "failed: one two [31m"));
}

/// Nothing of a drill touches the bucket but its record, nor anything of a database elsewhere.
#[tokio::test]
async fn a_drill_changes_nothing() {
    let bench = with_segments().await;
    let database = std::fs::read(bench.path("state.db")).unwrap();
    let before = bench.s3.keys(BUCKET).unwrap();
    drill(&bench, &[&WITH_KEY[..], &["--database", "state.db"]].concat()).await.ended(0);
    assert_eq!(std::fs::read(bench.path("state.db")).unwrap(), database);
    assert_eq!(bench.s3.keys(BUCKET).unwrap().len(), before.len() + 1);
    let open = Connection::open(bench.path("state.db")).unwrap();
    let gaps: i64 =
        open.query_row("SELECT count(*) FROM kine WHERE name LIKE 'gap-%'", [], |row| row.get(0)).unwrap();
    assert_eq!(gaps, 0);
}
