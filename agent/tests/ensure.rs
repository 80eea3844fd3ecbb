//! `ensure` before kine starts: leave, restore, wait or fail.

#![allow(clippy::unwrap_used, missing_docs)]

mod support;

use std::time::Duration;

use support::{Bench, Finished};
use vcluster_backup_tests::kine_shaped;
use vcluster_backup_tests::process::Process;

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
