//! The log: every change shipped, and the database back at any revision of it.

#![allow(clippy::unwrap_used, missing_docs)]

mod support;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use support::{BUCKET, Bench, get, until};
use vcluster_backup_tests::kine_shaped::{self, Load, Row};
use vcluster_backup_tests::process::Process;
use vcluster_backup_tests::s3::Fault;

fn keys(bench: &Bench, folder: &str) -> Vec<String> {
    let keys = bench.s3.keys(BUCKET).unwrap_or_default();
    keys.into_iter().filter(|key| key.contains(folder)).collect()
}

/// The last revision of a segment, as its name tells it.
fn end(key: &str) -> i64 {
    key.rsplit('/').next().unwrap().split('-').nth(1).unwrap().parse().unwrap()
}

fn shipped(bench: &Bench) -> i64 {
    keys(bench, "/log/").iter().map(|key| end(key)).max().unwrap_or(0)
}

fn run(bench: &Bench, more: &[&str]) -> Process {
    run_on(bench, "state.db", more)
}

fn run_on(bench: &Bench, database: &str, more: &[&str]) -> Process {
    let recipient = bench.recipient();
    let mut args = vec!["run", "--database", database, "--recipient", &recipient, "--sync-interval", "100ms"];
    args.extend_from_slice(more);
    Process::start("agent", &mut bench.command(&args)).unwrap()
}

async fn stop(agent: Process) {
    let ended = agent.stop(Duration::from_secs(10)).await.unwrap();
    assert_eq!(ended.code(), Some(0));
}

/// Ships a first snapshot and some segments of one write each; the rows at the end.
async fn written(bench: &Bench, segments: usize) -> BTreeMap<i64, Row> {
    let database = bench.path("state.db");
    kine_shaped::create(&database, 10, 10).unwrap();
    let agent = run(bench, &[]);
    until("the first snapshot", || keys(bench, "/snapshot/").len() == 1).await;
    for number in 0..segments {
        let revision = kine_shaped::put(
            &database,
            &format!("/registry/secrets/s{number}"),
            number.to_string().as_bytes(),
        );
        let revision = revision.unwrap();
        until("shipped", || shipped(bench) == revision).await;
    }
    stop(agent).await;
    kine_shaped::rows(&database).unwrap()
}

fn up_to(rows: &BTreeMap<i64, Row>, revision: i64) -> BTreeMap<i64, Row> {
    rows.range(..=revision).map(|(id, row)| (*id, row.clone())).collect()
}

#[tokio::test]
async fn every_change_is_shipped_and_any_revision_comes_back() {
    let bench = Bench::new().await;
    kine_shaped::create(&bench.path("state.db"), 10, 10).unwrap();
    let agent = run(&bench, &["--snapshot-interval", "1s"]);
    until("the first snapshot", || keys(&bench, "/snapshot/").len() == 1).await;
    let load = Load::start(&bench.path("state.db"), 100, 100, false);
    until("snapshots", || keys(&bench, "/snapshot/").len() >= 3).await;
    let rows = load.stop().unwrap();
    stop(agent).await;
    let all = kine_shaped::rows(&bench.path("state.db")).unwrap();
    let newest = *rows.last_key_value().unwrap().0;
    assert_eq!(shipped(&bench), newest, "the last write is in the bucket");
    let ids: Vec<i64> = rows.keys().copied().collect();
    for revision in ids.iter().step_by(ids.len() / 7).chain([&newest]) {
        let out = format!("out-{revision}.db");
        bench.restore(&out, &["--revision", &revision.to_string(), "--force"]).await.ended(0);
        assert_eq!(kine_shaped::rows(&bench.path(&out)).unwrap(), up_to(&all, *revision), "at {revision}");
    }
    let listed = bench.run(&["list", "--json"]).await.ended(0).json();
    let timeline = &listed["timelines"][0];
    assert_eq!(listed["timelines"].as_array().unwrap().len(), 1);
    assert_eq!(timeline["restorable"]["to"]["revision"].as_i64(), Some(newest));
    assert!(timeline["segments"]["count"].as_u64().unwrap() > 5, "{timeline}");
    bench
        .restore("out.db", &["--revision", &(newest + 1).to_string()])
        .await
        .refused(10, &["cannot be restored", &format!("to revision {newest}")]);
}

#[tokio::test]
async fn leases_and_events_wait_until_something_else_takes_them_along() {
    let bench = Bench::new().await;
    let database = bench.path("state.db");
    kine_shaped::create(&database, 10, 10).unwrap();
    let agent = run(&bench, &["--idle-interval", "1h"]);
    until("the first snapshot", || keys(&bench, "/snapshot/").len() == 1).await;
    for number in 0..5 {
        kine_shaped::put(&database, "/registry/leases/kube-system/x", &[number]).unwrap();
        kine_shaped::put(&database, "/registry/events/default/x", &[number]).unwrap();
        tokio::time::sleep(Duration::from_millis(150)).await;
    }
    assert_eq!(keys(&bench, "/log/"), Vec::<String>::new());
    let revision = kine_shaped::put(&database, "/registry/pods/default/x", b"x").unwrap();
    until("shipped", || shipped(&bench) == revision).await;
    assert_eq!(keys(&bench, "/log/").len(), 1);
    // A planned stop ships leases too.
    let revision = kine_shaped::put(&database, "/registry/leases/kube-system/x", b"last").unwrap();
    stop(agent).await;
    assert_eq!(shipped(&bench), revision);
}

#[tokio::test]
async fn a_bad_segment_stops_a_restore_or_ends_it_there() {
    let bench = Bench::new().await;
    let rows = written(&bench, 6).await;
    let segments = keys(&bench, "/log/");
    let bad = &segments[3];
    let path = bench.s3.object(BUCKET, bad);
    let mut bytes = std::fs::read(&path).unwrap();
    let last = bytes.len() - 1;
    bytes[last] ^= 1;
    std::fs::write(&path, bytes).unwrap();
    bench.restore("out.db", &[]).await.refused(12, &[bad, "damaged or was tampered with"]);
    assert!(!bench.path("out.db").exists());
    let good = end(&segments[2]);
    let partial = bench.restore("out.db", &["--on-damage", "last-good"]).await;
    partial.refused(3, &[&format!("revisions after {good} up to revision {}", shipped(&bench)), bad]);
    assert_eq!(kine_shaped::rows(&bench.path("out.db")).unwrap(), up_to(&rows, good));
    // What does not need it is not touched by it.
    bench.restore("before.db", &["--revision", &good.to_string()]).await.ended(0);
}

#[tokio::test]
async fn an_older_snapshot_and_the_log_replace_a_bad_one() {
    let bench = Bench::new().await;
    written(&bench, 2).await;
    bench.snapshot(&bench.path("state.db"), &[]).await;
    let agent = run(&bench, &[]);
    let revision = kine_shaped::put(&bench.path("state.db"), "/registry/pods/x", b"x").unwrap();
    until("shipped", || shipped(&bench) == revision).await;
    stop(agent).await;
    let snapshots = keys(&bench, "/snapshot/");
    assert_eq!(snapshots.len(), 2, "the snapshot was taken on the same timeline: {snapshots:?}");
    std::fs::write(bench.s3.object(BUCKET, &snapshots[1]), "not what it was").unwrap();
    bench.restore("out.db", &[]).await.refused(12, &[&snapshots[1]]);
    bench.restore("out.db", &["--on-damage", "last-good"]).await.ended(0);
    assert_eq!(
        kine_shaped::rows(&bench.path("out.db")).unwrap(),
        kine_shaped::rows(&bench.path("state.db")).unwrap()
    );
}

/// Compaction passed what was shipped while the agent was away: what lies between is gone, and it says so.
#[tokio::test]
async fn a_gap_begins_a_new_timeline() {
    let bench = Bench::new().await;
    let before = written(&bench, 2).await;
    let database = bench.path("state.db");
    let mut newest = 0;
    for number in 0..20 {
        newest = kine_shaped::put(&database, "/registry/pods/x", &[number]).unwrap();
    }
    kine_shaped::compact_to(&database, newest - 2).unwrap();
    let agent = run(&bench, &[]);
    until("another timeline", || keys(&bench, "/snapshot/").len() == 2).await;
    stop(agent).await;
    let listed = bench.run(&["list", "--json"]).await.ended(0).json();
    assert_eq!(listed["timelines"].as_array().unwrap().len(), 2);
    let last = *before.last_key_value().unwrap().0;
    for (revision, code) in [(last, 0), (last + 3, 10), (newest, 0)] {
        let finished = bench.restore("out.db", &["--revision", &revision.to_string(), "--force"]).await;
        finished.ended(code);
    }
}

/// A database that was put in the place of the one that is shipped is another history.
#[tokio::test]
async fn a_replaced_database_begins_a_new_timeline() {
    let bench = Bench::new().await;
    let database = bench.path("state.db");
    kine_shaped::create(&database, 10, 10).unwrap();
    // Other values: a longer database that begins with the same rows would go this one on.
    kine_shaped::create(&bench.path("other.db"), 30, 20).unwrap();
    let agent = run(&bench, &[]);
    until("the first snapshot", || keys(&bench, "/snapshot/").len() == 1).await;
    std::fs::rename(bench.path("other.db"), &database).unwrap();
    until("another timeline", || keys(&bench, "/snapshot/").len() == 2).await;
    let revision = kine_shaped::put(&database, "/registry/pods/x", b"x").unwrap();
    until("shipped", || shipped(&bench) == revision).await;
    stop(agent).await;
    bench.restore("out.db", &[]).await.ended(0);
    assert_eq!(kine_shaped::rows(&bench.path("out.db")).unwrap(), kine_shaped::rows(&database).unwrap());
}

#[tokio::test]
async fn once_ships_what_is_new_since_the_last_time() {
    let bench = Bench::new().await;
    let database = bench.path("state.db");
    kine_shaped::create(&database, 10, 10).unwrap();
    let recipient = bench.recipient();
    let args = ["run", "--once", "--database", "state.db", "--recipient", &recipient];
    bench.run(&args).await.ended(0);
    assert_eq!((keys(&bench, "/snapshot/").len(), keys(&bench, "/log/").len()), (1, 0));
    let revision = kine_shaped::put(&database, "/registry/pods/x", b"x").unwrap();
    bench.run(&args).await.ended(0);
    assert_eq!((keys(&bench, "/snapshot/").len(), shipped(&bench)), (1, revision));
    let requests = bench.s3.requests().len();
    bench.run(&args).await.ended(0);
    assert_eq!((keys(&bench, "/snapshot/").len(), keys(&bench, "/log/").len()), (1, 1));
    let puts =
        bench.s3.requests().split_off(requests).into_iter().filter(|request| request.starts_with("PUT"));
    assert_eq!(puts.collect::<Vec<_>>(), Vec::<String>::new(), "nothing changed, nothing is uploaded");
}

fn files(folder: &Path) -> BTreeMap<PathBuf, Vec<u8>> {
    let names = ["token", "pki/ca.key", "pki/deep/sa.pub"];
    names.iter().map(|name| (folder.join(name), name.as_bytes().to_vec())).collect()
}

#[tokio::test]
async fn files_beside_the_database_come_back_with_it() {
    use std::os::unix::fs::PermissionsExt as _;
    let bench = Bench::new().await;
    // As the pod has it: everything in one volume.
    let data = bench.path("data");
    std::fs::create_dir_all(data.join("pki/deep")).unwrap();
    let database = data.join("state.db");
    kine_shaped::create(&database, 10, 10).unwrap();
    for (path, content) in files(&data) {
        std::fs::write(&path, content).unwrap();
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o600)).unwrap();
    }
    let (database_text, data_text) = (database.to_str().unwrap(), data.to_str().unwrap());
    let include = ["--include", &format!("{data_text}/token,{data_text}/pki")];
    let agent = run_on(&bench, database_text, &include);
    until("files", || keys(&bench, "/files/").len() == 1).await;
    std::fs::write(data.join("token"), "changed").unwrap();
    until("changed files", || keys(&bench, "/files/").len() == 2).await;
    stop(agent).await;
    // Started again, what is there already is not shipped again.
    let agent = run_on(&bench, database_text, &include);
    let revision = kine_shaped::put(&database, "/registry/pods/x", b"x").unwrap();
    until("shipped", || shipped(&bench) == revision).await;
    stop(agent).await;
    assert_eq!(keys(&bench, "/files/").len(), 2);
    std::fs::remove_dir_all(&data).unwrap();
    let args =
        [&["ensure", "--database", database_text, "--identity-file", "key.txt"][..], &include[..]].concat();
    let told = bench.run(&args).await.ended(0);
    assert!(told.stdout.contains("files beside the database were written"), "{}", told.stdout);
    for (path, content) in files(&data) {
        let expected = if path.ends_with("token") { b"changed".to_vec() } else { content };
        assert_eq!(std::fs::read(&path).unwrap(), expected, "{}", path.display());
        assert_eq!(std::fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
    }
    // An operator elsewhere gets them beside the output, not over the files of the machine.
    let told = bench.restore("elsewhere.db", &[]).await.ended(0);
    assert!(told.stderr.contains("files beside the database"), "{}", told.stderr);
    let beside = bench.path(&format!("elsewhere.db.files{}", data.join("token").display()));
    assert_eq!(std::fs::read(beside).unwrap(), b"changed");
    let listed = bench.run(&["list", "--json"]).await.ended(0).json();
    assert_eq!(listed["timelines"][0]["files"].as_array().unwrap().len(), 2);
}

/// Two copies of one database, both shipped to one place.
#[tokio::test]
async fn of_two_writers_one_stops() {
    let bench = Bench::new().await;
    let database = bench.path("state.db");
    written(&bench, 2).await;
    std::fs::copy(&database, bench.path("copy.db")).unwrap();
    let mut agents = vec![run(&bench, &[]), run_on(&bench, "copy.db", &[])];
    for agent in &mut agents {
        // Before either has shipped anything that the other has not.
        let log = agent.log_file();
        until("resumed", || std::fs::read_to_string(&log).unwrap().contains("goes on this timeline")).await;
    }
    let begin = Instant::now();
    let mut number = 0;
    let stopped = 'both: loop {
        assert!(begin.elapsed() < Duration::from_secs(40), "both go on");
        number += 1;
        kine_shaped::put(&database, &format!("/registry/pods/a{number}"), b"a").unwrap();
        // Not in the same millisecond: this server lets two conditional writes of one name pass if they race.
        tokio::time::sleep(Duration::from_millis(37)).await;
        kine_shaped::put(&bench.path("copy.db"), &format!("/registry/pods/b{number}"), b"b").unwrap();
        for (index, agent) in agents.iter_mut().enumerate() {
            if let Ok(status) = agent.wait(Duration::from_millis(150)).await {
                assert_eq!(status.code(), Some(11), "{}", agent.log());
                assert!(agent.log().contains("written by another agent"), "{}", agent.log());
                break 'both index;
            }
        }
    };
    let survivor = agents.swap_remove(1 - stopped);
    let path = if stopped == 0 { bench.path("copy.db") } else { database };
    let last = kine_shaped::put(&path, "/registry/pods/last", b"last").unwrap();
    stop(survivor).await;
    bench.restore("out.db", &[]).await.ended(0);
    let (restored, expected) =
        (kine_shaped::rows(&bench.path("out.db")).unwrap(), kine_shaped::rows(&path).unwrap());
    assert_eq!(restored, expected, "the history of the one that went on, up to {last}");
    // It ran long enough to say what a day costs.
    let listed = bench.run(&["list", "--json"]).await.ended(0).json();
    let cost = &listed["timelines"][0]["cost"];
    assert!(
        cost["requestsPerDay"].as_u64() > Some(0) && cost["observedSeconds"].as_u64() >= Some(10),
        "{listed}"
    );
}

/// The answer to an upload is lost, it is sent again and refused, and whose the object is cannot be asked.
#[tokio::test]
async fn a_lost_answer_is_not_another_writer() {
    let bench = Bench::new().await;
    let database = bench.path("state.db");
    kine_shaped::create(&database, 10, 10).unwrap();
    let agent = run(&bench, &[]);
    until("the first snapshot", || keys(&bench, "/snapshot/").len() == 1).await;
    bench.s3.fail(|method, uri| method == hyper::Method::PUT && uri.contains("/log/"), Fault::LoseAnswer);
    bench.s3.fail(|method, _| method == hyper::Method::HEAD, Fault::Status(403));
    for number in 0..3 {
        let revision = kine_shaped::put(&database, "/registry/pods/x", &[number]).unwrap();
        until("shipped", || shipped(&bench) == revision).await;
        tokio::time::sleep(Duration::from_millis(300)).await;
    }
    assert!(bench.s3.all_met());
    stop(agent).await;
    bench.restore("out.db", &[]).await.ended(0);
    assert_eq!(kine_shaped::rows(&bench.path("out.db")).unwrap(), kine_shaped::rows(&database).unwrap());
}

#[tokio::test]
async fn an_outage_is_told_and_caught_up_with() {
    let bench = Bench::new().await;
    let database = bench.path("state.db");
    kine_shaped::create(&database, 10, 10).unwrap();
    let listen = format!("127.0.0.1:{}", vcluster_backup_tests::port::free().unwrap());
    let agent = run(&bench, &["--listen", &listen]);
    until("the first snapshot", || keys(&bench, "/snapshot/").len() == 1).await;
    for _ in 0..15 {
        bench.s3.fail(|_, _| true, Fault::Status(503));
    }
    let mut newest = 0;
    for number in 0..50 {
        newest = kine_shaped::put(&database, &format!("/registry/pods/{number}"), b"x").unwrap();
    }
    let begin = Instant::now();
    while !get(&listen, "/status").await.contains("Failing") {
        assert!(begin.elapsed() < Duration::from_secs(30), "the outage is not told");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    assert!(get(&listen, "/readyz").await.starts_with("HTTP/1.1 503"));
    until("caught up", || shipped(&bench) == newest).await;
    assert!(bench.s3.all_met());
    stop(agent).await;
    bench.restore("out.db", &["--revision", &(newest - 20).to_string()]).await.ended(0);
}
