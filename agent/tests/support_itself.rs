//! The tests' own bucket and kine: what the property tests rest on.

#![allow(clippy::unwrap_used, missing_docs)]

mod support;

use std::collections::BTreeMap;
use std::io::Read as _;

use support::memory_store::{Conditional, Faults, MemoryStore};
use support::model::{self, Among, History, State, Step};
use support::random::Random;
use vcluster_backup::store::{Metadata, Parts, Store, StoreError};

async fn put(store: &MemoryStore, key: &str, content: &'static str) -> Result<(), StoreError> {
    store.put_new(key, &Metadata::new(), Parts::whole(content.into())).await
}

async fn read(store: &MemoryStore, key: &str) -> std::io::Result<Vec<u8>> {
    let mut reader = store.get(key).await.map_err(std::io::Error::other)?;
    tokio::task::spawn_blocking(move || {
        let mut content = Vec::new();
        reader.read_to_end(&mut content)?;
        Ok(content)
    })
    .await
    .unwrap()
}

fn only(fault: fn(&mut Faults) -> &mut u32) -> Faults {
    let mut faults = Faults::NONE;
    *fault(&mut faults) = 1000;
    faults
}

#[tokio::test]
async fn a_bucket_without_faults_does_what_it_is_told() {
    let store = MemoryStore::default();
    let long = "0123456789".repeat(777).leak();
    for key in ["b", "a/2", "a/1", "a/3", "c"] {
        put(&store, key, long).await.unwrap();
    }
    let listed = async |prefix, after| {
        let listed = store.list(prefix, after).await.unwrap();
        listed.into_iter().map(|object| object.key).collect::<Vec<_>>()
    };
    assert_eq!(listed("a/", None).await, ["a/1", "a/2", "a/3"]);
    assert_eq!(listed("a/", Some("a/1")).await, ["a/2", "a/3"]);
    assert_eq!(listed("a/", Some("a/1x")).await, ["a/2", "a/3"]);
    assert_eq!(listed("a/", Some("0")).await, ["a/1", "a/2", "a/3"]);
    assert_eq!(listed("a/", Some("b")).await, [""; 0]);
    assert_eq!(listed("", Some("a/3")).await, ["b", "c"]);
    assert_eq!(read(&store, "b").await.unwrap(), long.as_bytes());
    assert!(matches!(put(&store, "b", "").await, Err(StoreError::Exists(_))));
    store.delete("b").await.unwrap();
    assert!(matches!(store.get("b").await, Err(StoreError::NotFound(_))));
    let calls = store.calls();
    assert_eq!((calls.put, calls.list, calls.get, calls.delete), (6, 6, 2, 1));
}

#[tokio::test]
async fn answers_get_lost_and_uploads_come_late() {
    let store = MemoryStore::default();
    store.set_faults(only(|faults| &mut faults.before));
    assert!(put(&store, "before", "").await.is_err() && store.list("", None).await.is_err());
    store.set_faults(only(|faults| &mut faults.lost));
    assert!(matches!(put(&store, "lost", "").await, Err(StoreError::Unreachable { .. })));
    store.set_faults(only(|faults| &mut faults.recognised));
    put(&store, "recognised", "").await.unwrap();
    store.set_faults(only(|faults| &mut faults.late));
    assert!(put(&store, "late", "first").await.is_err());
    assert_eq!(store.keys(), ["lost", "recognised"]);
    store.set_faults(Faults::NONE);
    put(&store, "late", "second").await.unwrap_err();
    assert_eq!((store.object("late").unwrap(), store.under_way()), ("first".into(), 0));
    store.set_faults(only(|faults| &mut faults.broken));
    store.insert("long", "x".repeat(5000));
    assert!(read(&store, "long").await.is_err());

    for (conditional, then) in
        [(Conditional::Honoured, "second"), (Conditional::Unknown, "first"), (Conditional::Ignored, "first")]
    {
        let store = MemoryStore::default();
        store.set_conditional(conditional);
        store.set_faults(Faults { late_by: 1000, ..only(|faults| &mut faults.late) });
        put(&store, "key", "first").await.unwrap_err();
        store.set_faults(Faults::NONE);
        put(&store, "key", "second").await.unwrap();
        store.settle();
        assert_eq!(store.object("key").unwrap(), then, "{conditional:?}");
        assert_eq!(store.overwritten().len(), usize::from(then == "first"));
        assert_eq!(put(&store, "key", "third").await.is_ok(), conditional == Conditional::Ignored);
    }
    // What was deleted comes back.
    let faults = Faults { late_by: 1000, ..only(|faults| &mut faults.duplicated) };
    let store = MemoryStore::new(faults, Random::new(0));
    put(&store, "key", "").await.unwrap();
    store.delete("key").await.unwrap();
    assert_eq!((store.keys().len(), store.under_way()), (0, 1));
    store.settle();
    assert_eq!(store.keys(), ["key"]);
    assert!(store.overwritten().is_empty());
    assert_eq!(store.copy().keys(), store.keys());
}

#[tokio::test]
async fn a_crash_lasts_until_it_is_over() {
    for (during, keys) in [(false, 2), (true, 3)] {
        let store = MemoryStore::default();
        if during {
            store.crash_during(3);
        } else {
            store.crash_after(3);
        }
        for (key, works) in [("1", true), ("2", true), ("3", false), ("4", false)] {
            assert_eq!(put(&store, key, "").await.is_ok(), works, "{key}");
            assert_eq!(store.is_crashed(), !works);
        }
        store.revive();
        assert_eq!(store.list("", None).await.unwrap().len(), keys);
    }
}

#[tokio::test]
async fn a_seed_decides_every_fault() {
    let run = async |seed| {
        let store = MemoryStore::new(Faults::MANY, Random::new(seed));
        let mut results = Vec::new();
        for number in 0..200 {
            let key = format!("{}", number % 50);
            results.push(put(&store, &key, "x").await.is_ok());
            results.push(store.delete(&format!("{}", number % 7)).await.is_ok());
        }
        (results, store.keys())
    };
    assert_eq!(run(1).await, run(1).await);
    assert_ne!(run(1).await, run(2).await);
}

#[test]
fn a_seed_decides_the_whole_history() {
    let folder = tempfile::tempdir().unwrap();
    let run = |name: &str, seed| {
        let mut history = History::create(&folder.path().join(name), seed);
        let steps = history.steps(300);
        (steps, model::rows(history.connection()))
    };
    let first = run("a", 7);
    assert_eq!(first, run("b", 7));
    assert_ne!(first, run("c", 8));
    assert!(folder.path().join("a").exists());
}

#[test]
fn a_history_is_what_kine_would_have_written() {
    let folder = tempfile::tempdir().unwrap();
    let (mut kinds, mut seen) = (BTreeMap::<&str, u32>::new(), 0);
    for seed in 0..20 {
        let mut history = History::create(&folder.path().join(seed.to_string()), seed);
        let mut states = BTreeMap::<i64, State>::new();
        for _ in 0..300 {
            let before = history.state();
            let step = history.step();
            let (kind, revision) = match step {
                Step::Created(at) => ("created", at),
                Step::Updated(at) => ("updated", at),
                Step::Deleted(at) => ("deleted", at),
                Step::Recreated(at) => ("recreated", at),
                Step::Compacted(_) | Step::Nothing => ("compacted", 0),
            };
            *kinds.entry(kind).or_default() += 1;
            let after = history.state();
            if revision == 0 {
                assert_eq!(before, after, "compaction changed what a client sees");
                continue;
            }
            assert_eq!(revision, history.revision());
            let changed = after.iter().filter(|(key, seen)| before.get(*key) != Some(seen)).count();
            let gone = before.keys().filter(|key| !after.contains_key(*key)).count();
            assert_eq!((changed, gone), if kind == "deleted" { (0, 1) } else { (1, 0) });
            states.insert(revision, after);
        }
        let compacted = model::compact_revision(history.connection());
        for (at, was) in states.range(compacted..) {
            assert_eq!(&model::state(history.connection(), Some(*at)), was, "seed {seed} at {at}");
            seen += 1;
        }
        let rows = model::rows(history.connection());
        for row in rows.values().filter(|row| rows.contains_key(&row.prev_revision)) {
            assert_eq!(row.old_value, rows[&row.prev_revision].value);
        }
        history.gap(history.revision() + 1000);
        assert!(history.state().keys().all(|key| key.starts_with('/') && history.keys().contains(key)));
    }
    assert!(kinds.len() == 5 && kinds.values().all(|count| *count > 20), "{kinds:?}");
    assert!(seen > 200, "{seen}");
}

#[test]
fn writes_keep_to_the_keys_asked_for() {
    let folder = tempfile::tempdir().unwrap();
    let mut history = History::create(&folder.path().join("state.db"), 3);
    assert_eq!(history.keys().len(), 40);
    let is_idle = |key: &str| {
        ["leases", "masterleases", "peerserverleases", "events"]
            .iter()
            .any(|kind| key.starts_with(&format!("/registry/{kind}/")))
    };
    for _ in 0..100 {
        history.write(Among::Idle);
    }
    assert!(model::rows(history.connection()).values().all(|row| is_idle(&row.name)));
    let last = history.revision();
    for _ in 0..100 {
        history.write(Among::Busy);
    }
    assert!(model::rows(history.connection()).range(last + 1..).all(|(_, row)| !is_idle(&row.name)));
}
