//! A backup and its way back: what was acknowledged is there again, row by row.

#![allow(clippy::unwrap_used, missing_docs)]

mod support;

use std::path::Path;
use std::time::{Duration, Instant};

use rusqlite::Connection;
use support::{BUCKET, Bench, finish, get, until};
use vcluster_backup_tests::kine_shaped::{self, Load};
use vcluster_backup_tests::process::Process;
use vcluster_backup_tests::s3::Fault;

/// Every acknowledged write in `expected` is in the database with its revision, name and value.
#[track_caller]
fn assert_holds(database: &Path, expected: &std::collections::BTreeMap<i64, kine_shaped::Row>) {
    assert_eq!(kine_shaped::integrity(database).unwrap(), "ok");
    let found = kine_shaped::rows(database).unwrap();
    for (revision, row) in expected {
        assert_eq!(found.get(revision), Some(row), "revision {revision}");
    }
}

#[tokio::test]
async fn a_snapshot_under_load_holds_every_row_that_was_acknowledged() {
    let bench = Bench::new().await;
    let database = bench.path("state.db");
    kine_shaped::create(&database, 2000, 1000).unwrap();
    let load = Load::start(&database, 400, 500, false);
    until("writing", || load.acknowledged().len() > 50).await;
    for round in 0..5 {
        let acknowledged = load.acknowledged();
        bench.snapshot(&database, &[]).await;
        let name = format!("out-{round}.db");
        bench.restore(&name, &[]).await.ended(0);
        assert_holds(&bench.path(&name), &acknowledged);
    }
    load.stop().unwrap();
}

/// Compaction deletes rows behind the copy's back: none of them may come back, and none that lives may be missing.
#[tokio::test]
async fn a_snapshot_under_compaction_is_one_moment() {
    let bench = Bench::new().await;
    let database = bench.path("state.db");
    kine_shaped::create(&database, 2000, 1000).unwrap();
    let load = Load::start(&database, 400, 500, true);
    until("writing", || load.acknowledged().len() > 600).await;
    for round in 0..5 {
        let acknowledged = load.acknowledged();
        bench.snapshot(&database, &[]).await;
        let name = format!("out-{round}.db");
        bench.restore(&name, &[]).await.ended(0);
        let restored = Connection::open(bench.path(&name)).unwrap();
        let newest: std::collections::BTreeMap<_, _> =
            acknowledged.iter().map(|(revision, (key, value))| (key, (revision, value))).collect();
        for (key, (revision, value)) in newest {
            let (id, found): (i64, Vec<u8>) = restored
                .query_row(
                    "SELECT id, value FROM kine WHERE name = ?1 ORDER BY id DESC LIMIT 1",
                    [key],
                    |row| Ok((row.get(0)?, row.get(1)?)),
                )
                .unwrap();
            assert!(id > *revision || (id == *revision && found == *value), "{key} at {revision}");
        }
        assert_eq!(kine_shaped::integrity(&bench.path(&name)).unwrap(), "ok");
        let superseded_below_compaction: i64 = restored
            .query_row(
                "SELECT count(*) FROM kine AS later JOIN kine AS earlier ON earlier.id = later.prev_revision
                 WHERE later.prev_revision <> 0 AND later.name <> 'compact_rev_key'
                   AND later.id <= (SELECT prev_revision FROM kine WHERE name = 'compact_rev_key')",
                [],
                |row| row.get(0),
            )
            .unwrap();
        assert_eq!(superseded_below_compaction, 0, "rows that compaction had removed came back");
    }
    load.stop().unwrap();
}

#[tokio::test]
async fn the_restored_revision_is_above_all_that_were_seen() {
    let bench = Bench::new().await;
    let database = bench.path("state.db");
    kine_shaped::create(&database, 100, 100).unwrap();
    let before = kine_shaped::rows(&database).unwrap();
    bench.snapshot(&database, &["--name", "first", "--keep", "90d"]).await;
    Load::start(&database, 200, 100, false).stop().unwrap();
    bench.snapshot(&database, &[]).await;
    let listed = bench.run(&["list", "--json"]).await.ended(0).json();
    let timeline = &listed["timelines"][0];
    assert_eq!(listed["timelines"].as_array().unwrap().len(), 1, "the database went on: {listed}");
    let newest = timeline["restorable"]["to"]["revision"].as_i64().unwrap();
    assert_eq!(timeline["pins"][0]["name"], "first");
    // An older point is chosen by pin, revision and time alike.
    let oldest = &timeline["restorable"]["from"];
    let (revision, at) = (oldest["revision"].to_string(), oldest["captured"].as_str().unwrap());
    for (name, point) in
        [("pin", ["--pin", "first"]), ("rev", ["--revision", &revision]), ("at", ["--at", at])]
    {
        bench.restore(name, &point).await.ended(0);
        let restored = Connection::open(bench.path(name)).unwrap();
        let highest: i64 = restored.query_row("SELECT max(id) FROM kine", [], |row| row.get(0)).unwrap();
        assert_eq!(highest, newest + 1000, "{name}");
        assert_eq!(kine_shaped::rows(&bench.path(name)).unwrap(), before, "{name}");
    }
}

#[tokio::test]
async fn an_existing_database_is_kept_when_it_is_replaced() {
    let bench = Bench::new().await;
    kine_shaped::create(&bench.path("state.db"), 10, 10).unwrap();
    bench.snapshot(&bench.path("state.db"), &[]).await;
    std::fs::write(bench.path("target.db"), "what was there").unwrap();
    std::fs::write(bench.path("target.db-wal"), "and its wal").unwrap();
    bench.restore("target.db", &["--force"]).await.ended(0);
    assert_holds(&bench.path("target.db"), &kine_shaped::rows(&bench.path("state.db")).unwrap());
    let kept: Vec<String> = std::fs::read_dir(bench.folder.path())
        .unwrap()
        .map(|entry| entry.unwrap().file_name().to_string_lossy().into_owned())
        .filter(|name| name.contains(".before-restore-"))
        .collect();
    assert_eq!(kept.len(), 2, "{kept:?}");
}

#[tokio::test]
async fn any_sqlite_file_can_be_backed_up() {
    let bench = Bench::new().await;
    for (name, mode) in [("wal.db", "WAL"), ("rollback.db", "DELETE")] {
        let database = bench.path(name);
        let connection = Connection::open(&database).unwrap();
        connection.pragma_update(None, "journal_mode", mode).unwrap();
        connection.execute_batch("CREATE TABLE t (a); INSERT INTO t VALUES (1), ('two'), (x'03')").unwrap();
        bench.snapshot(&database, &["--prefix", name]).await;
        let out = format!("out-{name}");
        bench.restore(&out, &["--prefix", name]).await.ended(0);
        let restored = Connection::open(bench.path(&out)).unwrap();
        let rows: i64 = restored.query_row("SELECT count(*) FROM t", [], |row| row.get(0)).unwrap();
        assert_eq!(rows, 3, "{name}");
    }
}

#[tokio::test]
async fn an_object_is_decrypted_from_bucket_and_file_alike() {
    let bench = Bench::new().await;
    kine_shaped::create(&bench.path("state.db"), 20, 100).unwrap();
    let key = bench.snapshot(&bench.path("state.db"), &["--prefix", "some/folder"]).await;
    std::fs::copy(bench.s3.object(BUCKET, &key), bench.path("object.age")).unwrap();
    let below = key.strip_prefix("some/folder/").unwrap();
    for (object, name) in [(key.as_str(), "key.db"), (below, "below.db"), ("object.age", "file.db")] {
        let args = ["decrypt", object, "--prefix", "some/folder", "--output", name, "--identity-file"];
        bench
            .run(&[&args[..], &["other.txt"]].concat())
            .await
            .refused(12, &[object, "is not encrypted to any identity at hand"]);
        assert!(!bench.path(name).exists());
        bench.run(&[&args[..], &["key.txt"]].concat()).await.ended(0);
        assert_holds(&bench.path(name), &kine_shaped::rows(&bench.path("state.db")).unwrap());
    }
    bench
        .run(&["decrypt", "no-such-object", "--identity-file", "key.txt"])
        .await
        .refused(10, &["no object no-such-object"]);
}

#[tokio::test]
async fn a_passphrase_alone_is_enough() {
    let bench = Bench::new().await;
    kine_shaped::create(&bench.path("state.db"), 20, 100).unwrap();
    let with = |passphrase: &str, args: &[&str]| {
        let mut command = bench.command(args);
        command.env("ENC_KEY", passphrase);
        finish(command)
    };
    for _ in 0..2 {
        with("open sesame", &["snapshot", "--database", "state.db"]).await.ended(0);
    }
    let wrapped = bench.s3.keys(BUCKET).unwrap().into_iter().filter(|key| key.starts_with("keys/")).count();
    assert_eq!(wrapped, 1, "the identity is made once");
    with("wrong", &["snapshot", "--database", "state.db"])
        .await
        .refused(12, &["ENC_KEY does not open keys/"]);
    with("wrong", &["restore", "--output", "out.db"]).await.refused(12, &["ENC_KEY does not open keys/"]);
    with("open sesame", &["restore", "--output", "out.db"]).await.ended(0);
    assert_holds(&bench.path("out.db"), &kine_shaped::rows(&bench.path("state.db")).unwrap());
    let identity = with("open sesame", &["keygen", "--passphrase"]).await.ended(0).stdout;
    std::fs::write(bench.path("key.txt"), identity).unwrap();
    bench.restore("out2.db", &[]).await.ended(0);
}

#[tokio::test]
async fn objects_of_the_go_program_are_listed_restored_and_decrypted() {
    use ring::aead::{AES_256_GCM, Aad, LessSafeKey, Nonce, UnboundKey};
    let bench = Bench::new().await;
    kine_shaped::create(&bench.path("state.db"), 20, 100).unwrap();
    let key = ring::digest::digest(&ring::digest::SHA256, b"12345");
    let key = LessSafeKey::new(UnboundKey::new(&AES_256_GCM, key.as_ref()).unwrap());
    let mut body = std::fs::read(bench.path("state.db")).unwrap();
    key.seal_in_place_append_tag(Nonce::assume_unique_for_key([7; 12]), Aad::empty(), &mut body).unwrap();
    let object = "backup_20240314120000.db.enc";
    std::fs::write(bench.s3.object(BUCKET, object), [vec![7; 12], body].concat()).unwrap();
    let listed = bench.run(&["list", "--json"]).await.ended(0).json();
    assert_eq!(listed["seedObjects"][0]["key"], object);
    // Its own flags, with one dash.
    let seed = |passphrase: &str, verb: &str| {
        let args = [verb, "-backupFile", object, "-encKey", passphrase, "-bucketName", BUCKET];
        finish(bench.command(&args))
    };
    seed("1234", "-restore").await.refused(12, &[object, "wrong passphrase"]);
    seed("12345", "-restore").await.ended(0);
    let rows = kine_shaped::rows(&bench.path("state.db")).unwrap();
    assert_holds(&bench.path(&format!("{object}.restore")), &rows);
    let mut command = bench.command(&["restore", "--output", "out.db", "--latest"]);
    command.env("ENC_KEY", "12345");
    finish(command).await.ended(0);
    assert_holds(&bench.path("out.db"), &rows);
}

#[tokio::test]
async fn run_ships_changes_and_pins_reads_its_settings_again_and_ships_the_last_at_the_end() {
    let bench = Bench::new().await;
    let database = bench.path("state.db");
    let recipient = bench.recipient();
    std::fs::write(bench.path("config.yaml"), "snapshotInterval: 1h\nsyncInterval: 100ms\n").unwrap();
    let args = ["run", "--config", "config.yaml", "--database", "state.db", "--recipient", &recipient];
    let listen = format!("127.0.0.1:{}", vcluster_backup_tests::port::free().unwrap());
    let mut agent = Process::start("agent", bench.command(&args).args(["--listen", &listen])).unwrap();
    agent
        .until("waiting", Duration::from_secs(20), async || {
            get(&listen, "/readyz").await.starts_with("HTTP/1.1 503")
        })
        .await
        .unwrap();
    // The sidecar starts before the control plane has written anything.
    kine_shaped::create(&database, 10, 10).unwrap();
    agent
        .until("ready", Duration::from_secs(20), async || {
            get(&listen, "/readyz").await.starts_with("HTTP/1.1 200")
        })
        .await
        .unwrap();
    let snapshots = || bench.s3.keys(BUCKET).unwrap().iter().filter(|key| key.contains("/snapshot/")).count();
    assert_eq!(snapshots(), 1);
    let load = Load::start(&database, 100, 100, false);
    until("writing", || load.acknowledged().len() > 20).await;
    std::fs::write(bench.path("config.yaml"), "syncInterval: 100ms\npins: [{name: before-upgrade}]\n")
        .unwrap();
    until("pinned", || bench.s3.keys(BUCKET).unwrap().iter().any(|key| key.contains("/pin/before-upgrade/")))
        .await;
    let metrics = get(&listen, "/metrics").await;
    assert!(
        metrics.contains("vcluster_backup_uploads_total{kind=\"snapshot\",result=\"ok\"} 2"),
        "{metrics}"
    );
    let rows = load.stop().unwrap();
    // SQLite's last connection removes the -wal: it is there as long as the agent holds its lock.
    assert!(bench.path("state.db-wal").exists(), "the agent lost its lock on the database");
    let ended = agent.stop(Duration::from_secs(10)).await.unwrap();
    assert_eq!(ended.code(), Some(0));
    bench.restore("out.db", &[]).await.ended(0);
    assert_holds(&bench.path("out.db"), &rows);
    let timelines =
        bench.run(&["list", "--json"]).await.ended(0).json()["timelines"].as_array().unwrap().len();
    assert_eq!(timelines, 1);
}

/// A bucket that accepts connections and never answers: the kubelet gives a pod 15 seconds.
#[tokio::test]
async fn told_to_stop_it_stops_in_time_whatever_the_bucket_does() {
    let bench = Bench::new().await;
    kine_shaped::create(&bench.path("state.db"), 10, 10).unwrap();
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let endpoint = format!("http://{}", listener.local_addr().unwrap());
    let (seen, mut asked) = tokio::sync::mpsc::channel(100);
    tokio::spawn(async move {
        while let Ok((socket, _)) = listener.accept().await {
            let _ = seen.send(socket).await;
        }
    });
    let recipient = bench.recipient();
    let args = ["run", "--database", "state.db", "--recipient", &recipient, "--shutdown-grace", "2s"];
    let agent = Process::start("agent", bench.command(&args).env("ENDPOINT", endpoint)).unwrap();
    let socket = asked.recv().await;
    assert!(socket.is_some());
    let begin = Instant::now();
    assert_eq!(agent.stop(Duration::from_secs(10)).await.unwrap().code(), Some(1));
    assert!(begin.elapsed() < Duration::from_secs(5), "{:?}", begin.elapsed());
}

/// The same name for a later point means the later one.
#[tokio::test]
async fn a_pin_that_is_given_twice_is_the_later_point() {
    let bench = Bench::new().await;
    let database = bench.path("state.db");
    // 1000 has one digit more than 999: the names of pins sort the other way round.
    kine_shaped::create(&database, 990, 10).unwrap();
    bench.snapshot(&database, &["--name", "nightly"]).await;
    let load = Load::start(&database, 200, 10, false);
    until("writing", || load.acknowledged().len() > 20).await;
    let rows = load.stop().unwrap();
    bench.snapshot(&database, &["--name", "nightly"]).await;
    bench.restore("out.db", &["--pin", "nightly"]).await.ended(0);
    assert_holds(&bench.path("out.db"), &rows);
}

/// Nothing new, nothing uploaded; a restart goes on the same timeline.
#[tokio::test]
async fn an_unchanged_database_costs_no_upload() {
    let bench = Bench::new().await;
    kine_shaped::create(&bench.path("state.db"), 10, 10).unwrap();
    let recipient = bench.recipient();
    let once = ["run", "--once", "--database", "state.db", "--recipient", &recipient, "--owner", "ns/a/uid"];
    bench.run(&once).await.ended(0);
    let keys = bench.s3.keys(BUCKET).unwrap();
    bench.run(&once).await.ended(0);
    assert_eq!(bench.s3.keys(BUCKET).unwrap(), keys);
    // Another owner's database, the same rows: never on this timeline.
    bench
        .run(&["run", "--once", "--database", "state.db", "--recipient", &recipient, "--owner", "ns/b/uid"])
        .await
        .ended(0);
    assert_eq!(bench.s3.keys(BUCKET).unwrap().len(), keys.len() + 1);
}

#[tokio::test]
async fn a_network_that_fails_costs_time_and_nothing_else() {
    let bench = Bench::new().await;
    let database = bench.path("state.db");
    // Several parts of 5 MiB each.
    kine_shaped::create(&database, 4000, 16_000).unwrap();
    for fault in [
        Fault::Drop,
        Fault::Status(503),
        Fault::Status(500),
        Fault::LoseAnswer,
        Fault::Slow(Duration::from_millis(300)),
    ] {
        bench.s3.fail(|method, path| *method == hyper::Method::PUT && path.contains("partNumber=2"), fault);
        bench.s3.fail(|method, path| *method == hyper::Method::POST && path.contains("uploadId"), fault);
        bench.s3.fail(|method, path| *method == hyper::Method::GET && path.contains("list-type"), fault);
        bench.s3.fail(
            |method, path| *method == hyper::Method::GET && path.contains(".db.zst.age"),
            Fault::CutBody,
        );
        bench.snapshot(&database, &[]).await;
        bench.restore("out.db", &["--force"]).await.ended(0);
        assert!(bench.s3.all_met(), "{fault:?} was not met: {:?}", bench.s3.requests());
        assert_holds(&bench.path("out.db"), &kine_shaped::rows(&database).unwrap());
    }
}
