//! `ensure` before kine starts: leave, restore, wait or fail.

#![allow(clippy::unwrap_used, missing_docs)]

mod support;

use std::time::Duration;

use support::{Bench, Finished};
use vcluster_backup_tests::kine_shaped;
use vcluster_backup_tests::process::Process;
use vcluster_backup_tests::s3::{ACCESS_KEY, SECRET_KEY};

const OWNER: &str = "vcluster-team-a-prod/prod/uid-1";

impl Bench {
    async fn ensure(&self, more: &[&str]) -> Finished {
        let mut args = vec!["ensure", "--database", "volume/state.db"];
        if !more.contains(&"--owner") {
            args.extend(["--owner", OWNER]);
        }
        if !more.contains(&"--identity-file") {
            args.extend(["--identity-file", "key.txt"]);
        }
        args.extend_from_slice(more);
        self.run(&args).await
    }

    async fn with_backup() -> Self {
        let bench = Self::new().await;
        kine_shaped::create(&bench.path("state.db"), 30, 100).unwrap();
        bench.snapshot(&bench.path("state.db"), &["--owner", OWNER]).await;
        std::fs::create_dir(bench.path("volume")).unwrap();
        bench
    }

    fn is_back(&self) -> bool {
        let database = self.path("volume/state.db");
        database.exists()
            && kine_shaped::rows(&database).unwrap() == kine_shaped::rows(&self.path("state.db")).unwrap()
    }
}

#[tokio::test]
async fn a_new_cluster_starts_empty() {
    let bench = Bench::new().await;
    let finished = bench.ensure(&[]).await.ended(0);
    assert!(finished.stdout.contains("a new control plane starts"), "{}", finished.stdout);
    assert_eq!(finished.stdout.lines().count(), 1);
    assert!(!bench.path("volume/state.db").exists());
}

#[tokio::test]
async fn a_lost_database_comes_back_and_a_whole_one_is_left() {
    let bench = Bench::with_backup().await;
    let finished = bench.ensure(&[]).await.ended(0);
    assert!(finished.stdout.contains("restored revision 31"), "{}", finished.stdout);
    assert!(bench.is_back());
    let before = std::fs::read(bench.path("volume/state.db")).unwrap();
    let finished = bench.ensure(&[]).await.ended(0);
    assert!(finished.stdout.contains("left as it is"), "{}", finished.stdout);
    // A whole database does not need the bucket.
    bench.ensure(&["--endpoint", "http://127.0.0.1:1"]).await.ended(0);
    assert_eq!(std::fs::read(bench.path("volume/state.db")).unwrap(), before);
}

#[tokio::test]
async fn a_damaged_or_rolled_back_database_stops_the_start_unless_it_may_be_restored() {
    let bench = Bench::with_backup().await;
    std::fs::write(bench.path("volume/state.db"), "garbage").unwrap();
    bench.ensure(&[]).await.refused(1, &["is damaged", "--auto-restore damaged"]);
    assert_eq!(std::fs::read(bench.path("volume/state.db")).unwrap(), b"garbage");
    bench.ensure(&["--auto-restore", "empty,damaged"]).await.ended(0);
    assert!(bench.is_back());
    std::fs::remove_file(bench.path("volume/state.db")).unwrap();
    kine_shaped::create(&bench.path("volume/state.db"), 10, 100).unwrap();
    bench.ensure(&[]).await.refused(1, &["was rolled back", "--auto-restore behind"]);
    bench.ensure(&["--auto-restore", "behind"]).await.ended(0);
    assert!(bench.is_back());
}

#[tokio::test]
async fn an_empty_volume_waits_for_the_bucket() {
    let bench = Bench::with_backup().await;
    let args = ["ensure", "--database", "volume/state.db", "--identity-file", "key.txt"];
    let away = "http://127.0.0.1:1";
    let mut waiting = Process::start("ensure", bench.command(&args).env("ENDPOINT", away)).unwrap();
    // It tries again, and does not end.
    let tried = |log: String| log.matches("could bury a backup").count();
    let log = waiting.log_file();
    waiting
        .until("trying again", Duration::from_mins(1), async || {
            tried(std::fs::read_to_string(&log).unwrap_or_default()) >= 2
        })
        .await
        .unwrap();
    assert!(!bench.path("volume/state.db").exists());
    assert_eq!(waiting.stop(Duration::from_secs(5)).await.unwrap().code(), Some(1));
    let finished = bench.ensure(&["--on-unreachable", "start", "--endpoint", away]).await.ended(0);
    assert!(finished.stdout.contains("starts empty"), "{}", finished.stdout);
}

/// Starting empty may be allowed; starting on a damaged database never is.
#[tokio::test]
async fn a_damaged_database_is_never_started_on() {
    let bench = Bench::with_backup().await;
    std::fs::write(bench.path("volume/state.db"), "garbage").unwrap();
    let args = ["ensure", "--database", "volume/state.db", "--on-unreachable", "start"];
    let away = "http://127.0.0.1:1";
    let mut waiting = Process::start("ensure", bench.command(&args).env("ENDPOINT", away)).unwrap();
    let log = waiting.log_file();
    waiting
        .until("trying again", Duration::from_mins(1), async || {
            std::fs::read_to_string(&log).unwrap_or_default().contains("it is tried again")
        })
        .await
        .unwrap();
    assert_eq!(waiting.stop(Duration::from_secs(5)).await.unwrap().code(), Some(1));
}

/// A snapshot that someone took by hand, without saying whose it is, must not hide the sidecar's.
#[tokio::test]
async fn this_owners_backup_is_found_below_anothers() {
    let bench = Bench::with_backup().await;
    kine_shaped::create(&bench.path("other.db"), 5, 10).unwrap();
    bench.snapshot(&bench.path("other.db"), &[]).await;
    bench.snapshot(&bench.path("other.db"), &["--owner", "vcluster-team-b-x/x/uid"]).await;
    bench.ensure(&[]).await.ended(0);
    assert!(bench.is_back());
}

/// Clients have seen more than the bucket has: the revision goes on above that too.
#[tokio::test]
async fn a_restore_over_a_newer_database_goes_on_above_it() {
    let bench = Bench::with_backup().await;
    kine_shaped::create(&bench.path("volume/state.db"), 5000, 10).unwrap();
    std::fs::write(bench.path("config.yaml"), "restore: {id: back, latest: true}\n").unwrap();
    bench.ensure(&["--config", "config.yaml"]).await.ended(0);
    let restored = rusqlite::Connection::open(bench.path("volume/state.db")).unwrap();
    let highest: i64 = restored.query_row("SELECT max(id) FROM kine", [], |row| row.get(0)).unwrap();
    assert_eq!(highest, 5001 + 1000);
}

/// Whatever is wrong with the way to the bucket, a sound control plane starts.
#[tokio::test]
async fn a_whole_database_starts_without_the_bucket() {
    let bench = Bench::with_backup().await;
    kine_shaped::create(&bench.path("volume/state.db"), 50, 10).unwrap();
    for flags in [
        ["--endpoint", "http://127.0.0.1:1"],
        ["--endpoint", "no url"],
        ["--bucket", "no-such-bucket"],
        ["--ca-file", "missing.pem"],
    ] {
        let finished = bench.ensure(&flags).await.ended(0);
        assert!(finished.stdout.contains("left as it is"), "{flags:?}: {}", finished.stdout);
    }
}

#[tokio::test]
async fn a_restore_waits_for_the_identity() {
    let bench = Bench::with_backup().await;
    let args =
        ["ensure", "--database", "volume/state.db", "--owner", OWNER, "--identity-file", "handed-over.txt"];
    let mut waiting = Process::start("ensure", &mut bench.command(&args)).unwrap();
    let log = waiting.log_file();
    waiting
        .until("awaiting the key", Duration::from_secs(20), async || {
            std::fs::read_to_string(&log).unwrap_or_default().contains("AwaitingKey")
        })
        .await
        .unwrap();
    assert!(!bench.is_back());
    std::fs::rename(bench.path("key.txt"), bench.path("handed-over.txt")).unwrap();
    assert_eq!(waiting.wait(Duration::from_secs(20)).await.unwrap().code(), Some(0));
    assert!(bench.is_back());
}

#[tokio::test]
async fn a_backup_of_another_owner_is_not_taken() {
    let bench = Bench::with_backup().await;
    for owner in ["vcluster-team-a-prod/prod/uid-2", "vcluster-team-b-prod/prod/uid-1"] {
        let finished = bench.ensure(&["--owner", owner]).await.ended(0);
        assert!(finished.stdout.contains("a timeline of its own"), "{}", finished.stdout);
        assert!(!bench.path("volume/state.db").exists());
    }
    bench.ensure(&["--owner", "vcluster-team-b-prod/prod/uid-1", "--adopt", "same-name"]).await.ended(0);
    assert!(!bench.path("volume/state.db").exists(), "another name is never adopted");
    bench.ensure(&["--owner", "vcluster-team-a-prod/prod/uid-2", "--adopt", "same-name"]).await.ended(0);
    assert!(bench.is_back());
}

#[tokio::test]
async fn a_restore_that_is_asked_for_is_done_once_per_id() {
    let bench = Bench::with_backup().await;
    kine_shaped::create(&bench.path("volume/state.db"), 500, 100).unwrap();
    std::fs::write(bench.path("config.yaml"), "restore: {id: oops, latest: true}\n").unwrap();
    let finished = bench.ensure(&["--config", "config.yaml"]).await.ended(0);
    assert!(finished.stdout.contains("restore oops was asked for"), "{}", finished.stdout);
    assert!(bench.is_back());
    let finished = bench.ensure(&["--config", "config.yaml"]).await.ended(0);
    assert!(finished.stdout.contains("left as it is"), "{}", finished.stdout);
}

impl Bench {
    /// Another cluster's backup in a bucket of its own; its rows are in `source.db`.
    async fn with_source(&self) {
        std::fs::create_dir(self.s3.object("source", "")).unwrap();
        kine_shaped::create(&self.path("source.db"), 60, 50).unwrap();
        let place = ["--bucket", "source", "--prefix", "team-a/old", "--owner", "team-a/old/uid-0"];
        self.snapshot(
            &self.path("source.db"),
            &[&place[..], &["--signing-key-file", "signing-key"]].concat(),
        )
        .await;
        // Someone else's in the same place, and newer.
        kine_shaped::create(&self.path("foreign.db"), 2000, 5).unwrap();
        let place = ["--bucket", "source", "--prefix", "team-a/old", "--owner", "team-a/foreign"];
        self.snapshot(&self.path("foreign.db"), &place).await;
    }

    fn ask(&self, restore: &str) {
        std::fs::write(self.path("config.yaml"), format!("restore: {restore}\n")).unwrap();
    }

    fn restored_from_source(&self) -> bool {
        let database = self.path("volume/state.db");
        database.exists()
            && kine_shaped::rows(&database).unwrap() == kine_shaped::rows(&self.path("source.db")).unwrap()
    }
}

const FROM: &str =
    "bucket: source, prefix: team-a/old, owner: team-a/old, accessKeyFile: ak, secretKeyFile: sk";

#[tokio::test]
async fn another_backup_comes_back_here_and_the_own_one_goes_on() {
    let bench = Bench::with_backup().await;
    bench.with_source().await;
    // Clients of this cluster have seen more than either backup of the source holds.
    kine_shaped::create(&bench.path("volume/state.db"), 20, 10).unwrap();
    kine_shaped::create(&bench.path("more.db"), 7000, 5).unwrap();
    bench.snapshot(&bench.path("more.db"), &["--owner", OWNER]).await;
    bench.ask(&format!("{{id: clone, latest: true, from: {{{FROM}}}}}"));
    let args = ["ensure", "--database", "volume/state.db", "--owner", OWNER, "--identity-file", "key.txt"];
    let mut command = bench.command(&[&args[..], &["--config", "config.yaml"]].concat());
    let mut waiting = Process::start("ensure", &mut command).unwrap();
    let log = waiting.log_file();
    let until_waiting = async || std::fs::read_to_string(&log).unwrap_or_default().contains("AwaitingKey");
    waiting.until("awaiting the credentials", Duration::from_secs(20), until_waiting).await.unwrap();
    for (name, text) in [("ak", ACCESS_KEY), ("sk", SECRET_KEY)] {
        std::fs::write(bench.path(name), text).unwrap();
    }
    assert_eq!(waiting.wait(Duration::from_secs(20)).await.unwrap().code(), Some(0), "{}", waiting.log());
    assert!(waiting.log().contains("restore clone was asked for"), "{}", waiting.log());
    assert!(bench.restored_from_source());
    let restored = rusqlite::Connection::open(bench.path("volume/state.db")).unwrap();
    let highest: i64 = restored.query_row("SELECT max(id) FROM kine", [], |row| row.get(0)).unwrap();
    assert_eq!(highest, 7001 + 1000);
    drop(restored);
    let finished = bench.ensure(&["--config", "config.yaml"]).await.ended(0);
    assert!(finished.stdout.contains("left as it is"), "{}", finished.stdout);
    // The own backup goes on, as a new timeline in its own bucket.
    let source = bench.s3.keys("source").unwrap();
    let recipient = bench.recipient();
    let once =
        ["run", "--once", "--database", "volume/state.db", "--recipient", &recipient, "--owner", OWNER];
    bench.run(&once).await.ended(0);
    assert_eq!(bench.s3.keys("source").unwrap(), source);
    bench.restore("out.db", &[]).await.ended(0);
    assert_eq!(
        kine_shaped::rows(&bench.path("out.db")).unwrap().range(..=61).collect::<Vec<_>>(),
        kine_shaped::rows(&bench.path("source.db")).unwrap().iter().collect::<Vec<_>>()
    );
}

#[tokio::test]
async fn a_source_that_is_not_what_was_asked_for_is_refused() {
    let bench = Bench::with_backup().await;
    bench.with_source().await;
    kine_shaped::create(&bench.path("volume/state.db"), 20, 10).unwrap();
    let before = std::fs::read(bench.path("volume/state.db")).unwrap();
    for (point, from, code, words) in [
        ("revision: 999999", "bucket: source, prefix: team-a/old", 10, vec!["revision 999999", "cannot be"]),
        ("latest: true", "bucket: source, prefix: nowhere", 10, vec!["restore.from names", "source/nowhere"]),
        ("latest: true", "bucket: source, prefix: team-a/old, owner: team-b/old", 10, vec!["of team-b/old"]),
        ("latest: true", "bucket: source, prefix: team-a/old, owner: team-a/old/uid-9", 10, vec!["uid-9"]),
        ("latest: true", "bucket: source, accessKeyFile: ak", 2, vec!["go together"]),
        ("latest: true", "bucket: ''", 2, vec!["restore.from.bucket"]),
        ("latest: true", "bucket: source, prefix: team-a/old, secret: x", 2, vec!["unknown field"]),
    ] {
        bench.ask(&format!("{{id: clone, {point}, from: {{{from}}}}}"));
        bench.ensure(&["--config", "config.yaml"]).await.refused(code, &words);
    }
    let signer = "A".repeat(43);
    bench.ask(&format!(
        "{{id: clone, latest: true, from: {{bucket: source, prefix: team-a/old, owner: team-a/old, signer: \
         '{signer}'}}}}"
    ));
    bench.ensure(&["--config", "config.yaml"]).await.refused(12, &["is not signed by"]);
    assert_eq!(std::fs::read(bench.path("volume/state.db")).unwrap(), before);
}

/// A restore that waits for its key is taken back, or another one is asked for.
#[tokio::test]
async fn what_is_asked_for_may_change_while_it_waits() {
    let bench = Bench::with_backup().await;
    kine_shaped::create(&bench.path("volume/state.db"), 500, 100).unwrap();
    let before = kine_shaped::rows(&bench.path("volume/state.db")).unwrap();
    let args = ["ensure", "--database", "volume/state.db", "--owner", OWNER, "--config", "config.yaml"];
    for (now, is_back) in [("{}\n", false), ("restore: {id: other, revision: 31}\n", true)] {
        bench.ask("{id: oops, latest: true}");
        let mut command = bench.command(&[&args[..], &["--identity-file", "later.txt"]].concat());
        let mut waiting = Process::start("ensure", &mut command).unwrap();
        let log = waiting.log_file();
        let until_waiting =
            async || std::fs::read_to_string(&log).unwrap_or_default().contains("AwaitingKey");
        waiting.until("awaiting the key", Duration::from_secs(20), until_waiting).await.unwrap();
        std::fs::write(bench.path("config.yaml"), now).unwrap();
        if is_back {
            tokio::time::sleep(Duration::from_secs(3)).await;
            std::fs::rename(bench.path("key.txt"), bench.path("later.txt")).unwrap();
        }
        assert_eq!(waiting.wait(Duration::from_secs(20)).await.unwrap().code(), Some(0), "{}", waiting.log());
        assert_eq!(bench.is_back(), is_back);
        assert!(is_back || kine_shaped::rows(&bench.path("volume/state.db")).unwrap() == before);
    }
    assert_eq!(std::fs::read_to_string(bench.path("volume/state.db.restored")).unwrap(), "other");
}
