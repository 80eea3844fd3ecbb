//! Bad input: a clear error, its exit code, and nothing lost on either side.

#![allow(clippy::unwrap_used, missing_docs)]

mod support;

use std::collections::BTreeMap;
use std::path::Path;

use support::{BUCKET, Bench, finish};
use vcluster_backup_tests::kine_shaped;
use vcluster_backup_tests::s3::{Fault, SECRET_KEY};

/// Every file below a folder, with its bytes.
fn contents(folder: &Path) -> BTreeMap<String, Vec<u8>> {
    let mut found = BTreeMap::new();
    for entry in std::fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            found.extend(contents(&path));
        } else {
            found.insert(path.display().to_string(), std::fs::read(&path).unwrap());
        }
    }
    found
}

#[tokio::test]
async fn a_source_that_is_no_database_is_refused_and_left_alone() {
    let bench = Bench::new().await;
    std::fs::write(bench.path("text.db"), "not a database at all").unwrap();
    std::fs::write(bench.path("empty.db"), "").unwrap();
    let recipient = bench.recipient();
    let before = contents(bench.folder.path());
    for (database, words) in [
        ("missing.db", vec!["there is no database at missing.db", "--database"]),
        ("text.db", vec!["text.db is not a SQLite database", "--database"]),
        ("empty.db", vec!["empty.db is empty"]),
        ("/", vec!["/ is not a SQLite database"]),
    ] {
        bench.run(&["snapshot", "--database", database, "--recipient", &recipient]).await.refused(1, &words);
        bench
            .run(&["run", "--once", "--database", database, "--recipient", &recipient])
            .await
            .refused(1, &words);
    }
    assert_eq!(contents(bench.folder.path()), before);
    assert_eq!(bench.s3.keys(BUCKET).unwrap(), Vec::<String>::new());
}

#[tokio::test]
async fn a_bucket_that_cannot_be_used_is_told_with_the_way_out() {
    let bench = Bench::new().await;
    kine_shaped::create(&bench.path("state.db"), 10, 100).unwrap();
    let recipient = bench.recipient();
    let snapshot = ["snapshot", "--database", "state.db", "--recipient", &recipient];
    for (flags, code, words) in [
        (vec!["--endpoint", "http://127.0.0.1:1"], 1, vec!["cannot reach http://127.0.0.1:1", "--endpoint"]),
        (vec!["--secret-key", "wrong-secret"], 1, vec!["SignatureDoesNotMatch", "the secret key is wrong"]),
        (vec!["--access-key", "AKIDOTHER"], 1, vec!["refused to list backups", "the policy must allow it"]),
        (vec!["--bucket", "no-such-bucket"], 1, vec!["no bucket no-such-bucket", "create it"]),
        (vec!["--bucket", ""], 2, vec!["the bucket is needed", "BUCKET_NAME"]),
        (vec!["--endpoint", "no url"], 2, vec!["no url"]),
        (vec!["--ca-file", "missing.pem"], 2, vec!["missing.pem"]),
        (vec!["--access-key-file", "a"], 2, vec!["--secret-key-file"]),
    ] {
        let args: Vec<&str> = snapshot.iter().copied().chain(flags.iter().copied()).collect();
        let finished = bench.run(&args).await;
        assert!(!finished.stderr.contains("wrong-secret"), "{}", finished.stderr);
        finished.refused(code, &words);
    }
    assert_eq!(bench.s3.keys(BUCKET).unwrap(), Vec::<String>::new());
}

#[tokio::test]
async fn wrong_keys_and_settings_are_refused() {
    let bench = Bench::new().await;
    kine_shaped::create(&bench.path("state.db"), 10, 100).unwrap();
    std::fs::write(bench.path("config.yaml"), "syncInterval: 1s\nsnapshotIntervall: 1h\n").unwrap();
    let secret = std::fs::read_to_string(bench.path("key.txt")).unwrap();
    for (args, words) in [
        (vec!["snapshot", "--database", "state.db"], vec!["no recipient is given", "--recipient"]),
        (
            vec!["snapshot", "--database", "state.db", "--recipient", "age1nonsense"],
            vec!["age1nonsense", "keygen"],
        ),
        (vec!["snapshot", "--database", "state.db", "--recipient", secret.trim()], vec!["keep it secret"]),
        (
            vec!["run", "--config", "config.yaml", "--database", "state.db"],
            vec!["config.yaml", "snapshotIntervall"],
        ),
        (vec!["run", "--sync-interval", "soon"], vec!["'soon' is not a length of time", "500ms"]),
        (vec!["restore", "--output", "x.db", "--at", "yesterday"], vec!["'yesterday' is not a time"]),
        (vec!["restore", "--output", "x.db", "--latest", "--revision", "3"], vec!["--revision"]),
        (vec!["snapshot", "--name", "Not A Name"], vec!["is not a name for a pin"]),
        (vec!["nonsense"], vec!["nonsense"]),
    ] {
        let finished = bench.run(&args).await;
        assert!(!finished.stderr.contains(secret.trim()), "{}", finished.stderr);
        finished.refused(2, &words);
    }
}

#[tokio::test]
async fn a_restore_that_cannot_be_done_leaves_the_target_as_it_was() {
    let bench = Bench::new().await;
    kine_shaped::create(&bench.path("state.db"), 200, 500).unwrap();
    bench.snapshot(&bench.path("state.db"), &["--signing-key-file", "signing-key"]).await;
    std::fs::write(bench.path("target.db"), "what was there").unwrap();
    let before = contents(bench.folder.path());
    let unsigned = "A".repeat(43);
    for (flags, code, words) in [
        (vec![], 13, vec!["target.db exists", "--force"]),
        (vec!["--force", "--revision", "999999"], 10, vec!["revision 999999 cannot be restored", "list"]),
        (vec!["--force", "--at", "2001-01-01T00:00:00Z"], 10, vec!["2001-01-01", "cannot be restored"]),
        (vec!["--force", "--pin", "no-such-pin"], 10, vec!["no pin has this name"]),
        (vec!["--force", "--prefix", "elsewhere"], 10, vec!["no backup in backups/elsewhere"]),
        (vec!["--force", "--expect-at-least", "100000"], 12, vec!["rolled back"]),
        (vec!["--force", "--signer", &unsigned], 12, vec!["is not signed by"]),
    ] {
        bench.restore("target.db", &flags).await.refused(code, &words);
        assert_eq!(contents(bench.folder.path()), before, "after {flags:?}");
    }
    bench
        .run(&["restore", "--output", "target.db", "--force", "--identity-file", "other.txt"])
        .await
        .refused(12, &["is not encrypted to any identity at hand"]);
    bench.run(&["restore", "--output", "target.db", "--force"]).await.refused(2, &["no identity is given"]);
    bench.restore("target.db", &["--if-not-exists"]).await.ended(0);
    bench.restore("target.db", &["--force", "--prefix", "elsewhere", "--if-backup-exists"]).await.ended(0);
    bench.restore("target.db", &["--force", "--dry-run"]).await.ended(0);
    assert_eq!(contents(bench.folder.path()), before);
}

/// Cut, swapped, forged and unsigned objects.
#[tokio::test]
async fn objects_that_are_not_what_they_seem_are_refused() {
    let bench = Bench::new().await;
    let database = bench.path("state.db");
    kine_shaped::create(&database, 500, 500).unwrap();
    let signed = ["--signing-key-file", "signing-key"];
    let key = bench.snapshot(&database, &signed).await;
    let object = bench.s3.object(BUCKET, &key);
    let whole = std::fs::read(&object).unwrap();
    let mut changed = whole.clone();
    changed[whole.len() / 2] ^= 1;
    let mut longer = whole.clone();
    longer.extend_from_slice(b"more");
    // Whoever can write to the bucket knows the recipient, and so can make an age file, but cannot sign.
    kine_shaped::create(&bench.path("forged.db"), 10, 10).unwrap();
    let forged_key = bench.snapshot(&bench.path("forged.db"), &["--prefix", "forgery"]).await;
    let forged = std::fs::read(bench.s3.object(BUCKET, &forged_key)).unwrap();
    for (what, bytes, words) in [
        ("cut", whole[..whole.len() - 1000].to_vec(), vec!["is damaged or was tampered with"]),
        ("empty", Vec::new(), vec!["is damaged or was tampered with"]),
        ("changed", changed, vec!["is damaged or was tampered with"]),
        ("longer", longer, vec!["is damaged or was tampered with"]),
        ("another one's", forged, vec!["was swapped"]),
    ] {
        std::fs::write(&object, bytes).unwrap();
        bench.restore("target.db", &signed).await.refused(12, &words);
        assert!(!bench.path("target.db").exists(), "{what}");
        assert_eq!(std::fs::read_dir(bench.folder.path()).unwrap().filter(is_scratch).count(), 0, "{what}");
    }
    // A forgery under its own name is whole in itself; the pinned signer is what it lacks.
    bench
        .restore("target.db", &["--prefix", "forgery", "--signing-key-file", "signing-key"])
        .await
        .refused(12, &["is not signed by"]);
    std::fs::write(&object, whole).unwrap();
    bench.restore("target.db", &signed).await.ended(0);
}

#[allow(clippy::trivially_copy_pass_by_ref)]
fn is_scratch(entry: &std::io::Result<std::fs::DirEntry>) -> bool {
    entry.as_ref().unwrap().file_name().to_string_lossy().starts_with(".vcluster-backup")
}

/// No file of the process may grow beyond a limit: what a full disk looks like to it.
#[tokio::test]
async fn a_full_disk_is_told_and_leaves_nothing_behind() {
    let bench = Bench::new().await;
    kine_shaped::create(&bench.path("state.db"), 3000, 1000).unwrap();
    let recipient = bench.recipient();
    bench.snapshot(&bench.path("state.db"), &[]).await;
    std::fs::create_dir(bench.path("scratch")).unwrap();
    let limited = |args: &str| {
        // SIGXFSZ would end the process; a full disk only fails the write.
        let script = format!("trap '' XFSZ; ulimit -f 1000; exec \"$0\" {args}");
        let agent = bench.command(&[]);
        let mut command = std::process::Command::new("bash");
        command.args(["-c", &script]).arg(agent.get_program()).env_clear();
        for (name, value) in agent.get_envs() {
            command.env(name, value.unwrap_or_default());
        }
        command.env("TMPDIR", bench.path("scratch")).current_dir(bench.folder.path());
        command
    };
    let before = contents(bench.folder.path());
    finish(limited(&format!("snapshot --database state.db --recipient {recipient}")))
        .await
        .refused(1, &["is the disk full?", "TMPDIR"]);
    finish(limited("restore --output target.db --identity-file key.txt"))
        .await
        .refused(1, &["is the disk full?", "The target was not touched"]);
    assert_eq!(contents(bench.folder.path()), before);
    assert_eq!(bench.s3.keys(BUCKET).unwrap().len(), 1);
}

/// Names in a bucket are not signed: one that claims an absurd revision must not use up all that there are.
#[tokio::test]
async fn a_forged_name_cannot_exhaust_the_revisions() {
    let bench = Bench::new().await;
    kine_shaped::create(&bench.path("state.db"), 10, 10).unwrap();
    bench.snapshot(&bench.path("state.db"), &[]).await;
    let forged = |revision: &str| format!("01M89ER3K288255RR264YVVVGY/snapshot/{revision:0>20}-1.db.zst.age");
    for revision in ["9223372036854775000", "18446744073709551615"] {
        let object = bench.s3.object(BUCKET, &forged(revision));
        std::fs::create_dir_all(object.parent().unwrap()).unwrap();
        std::fs::write(object, "").unwrap();
    }
    let listed = bench.run(&["list", "--json"]).await.ended(0).json();
    assert_eq!(listed["timelines"][0]["snapshots"].as_array().unwrap().len(), 1, "no revision is above i64");
    let timeline = listed["timelines"][1]["timeline"].as_str().unwrap();
    bench
        .restore("out.db", &["--timeline", timeline])
        .await
        .refused(12, &["revision 9223372036854775000", "forged"]);
    assert!(!bench.path("out.db").exists());
}

#[tokio::test]
async fn a_database_in_use_is_not_replaced() {
    let bench = Bench::new().await;
    kine_shaped::create(&bench.path("state.db"), 10, 10).unwrap();
    bench.snapshot(&bench.path("state.db"), &[]).await;
    let load = kine_shaped::Load::start(&bench.path("state.db"), 50, 10, false);
    while load.acknowledged().is_empty() {
        tokio::time::sleep(std::time::Duration::from_millis(10)).await;
    }
    bench
        .restore("state.db", &["--force"])
        .await
        .refused(1, &["state.db is in use", "stop the control plane"]);
    load.stop().unwrap();
    bench.restore("state.db", &["--force"]).await.ended(0);
}

/// What is deleted is told before and after, and a policy that lets nothing be deleted is told with the way out.
#[tokio::test]
async fn prune_says_what_it_could_not_delete() {
    let bench = Bench::new().await;
    let database = bench.path("state.db");
    kine_shaped::create(&database, 10, 10).unwrap();
    let mut snapshots = Vec::new();
    for number in 0..3 {
        kine_shaped::put(&database, "/registry/pods/x", &[number]).unwrap();
        snapshots.push(bench.snapshot(&database, &[]).await);
    }
    let keys = || bench.s3.keys(BUCKET).unwrap();
    let before = keys();
    let none =
        "--pitr-window=0s --keep-last=1 --keep-hourly=0 --keep-daily=0 --keep-weekly=0 --keep-monthly=0";
    let prune: Vec<&str> = ["prune"].into_iter().chain(none.split(' ')).collect();
    let with = |more: &'static [&'static str]| [&prune[..], more].concat();
    let told = bench.run(&with(&["--dry-run", "--json"])).await.ended(0).json();
    assert_eq!(keys(), before, "a dry run deletes nothing");
    let action = |key: &str| {
        let objects = told["objects"].as_array().unwrap();
        objects.iter().find(|object| object["key"] == key).unwrap()["action"].clone()
    };
    let actions: Vec<_> = snapshots.iter().map(|key| action(key)).collect();
    assert_eq!(actions, ["delete", "delete", "keep"]);
    // The first refusal tells enough.
    bench.s3.fail(|method, _| method == "DELETE", Fault::Refuse("AccessDenied"));
    let refused = bench.run(&prune).await;
    assert!(refused.stderr.contains("0 of 2 objects deleted"), "{}", refused.stderr);
    refused.refused(1, &[&snapshots[1], "AccessDenied", "AppendOnly", "--append-only"]);
    assert_eq!(keys(), before);
    // One that is refused by itself stops no other.
    bench.s3.fail(
        |method, uri| method == "DELETE" && uri.contains("/snapshot/"),
        Fault::Slow(std::time::Duration::ZERO),
    );
    bench.s3.fail(|method, _| method == "DELETE", Fault::Refuse("AccessDenied"));
    bench.run(&prune).await.refused(1, &["1 of 2 objects deleted", &snapshots[0]]);
    assert_eq!(keys().len(), before.len() - 1);
    bench.run(&prune).await.refused(0, &["1 of 1 objects deleted"]);
    bench.restore("out.db", &[]).await.ended(0);
}

#[tokio::test]
async fn prune_has_nothing_to_do_twice() {
    let bench = Bench::new().await;
    let database = bench.path("state.db");
    bench.run(&["prune"]).await.refused(0, &["nothing to prune"]);
    kine_shaped::create(&database, 10, 10).unwrap();
    bench.snapshot(&database, &["--name", "kept"]).await;
    kine_shaped::put(&database, "/registry/pods/x", b"1").unwrap();
    bench.snapshot(&database, &["--name", "over", "--keep", "1s"]).await;
    kine_shaped::put(&database, "/registry/pods/x", b"2").unwrap();
    bench.snapshot(&database, &[]).await;
    tokio::time::sleep(std::time::Duration::from_millis(1100)).await;
    let prune = "prune --pitr-window=0s --keep-last=1 --keep-hourly=0 --keep-daily=0 --keep-weekly=0 --keep-monthly=0";
    let prune: Vec<&str> = prune.split(' ').collect();
    let told = bench.run(&prune).await.ended(0);
    assert!(told.stderr.contains("2 of 2 objects deleted"), "{}", told.stderr);
    assert!(
        told.stdout.contains("pin kept") && told.stdout.contains("the pin's time is over"),
        "{}",
        told.stdout
    );
    bench.run(&prune).await.refused(0, &["nothing to prune"]);
    bench.restore("kept.db", &["--pin", "kept"]).await.ended(0);
    bench.restore("over.db", &["--pin", "over"]).await.refused(10, &["no pin has this name"]);
    bench.restore("newest.db", &[]).await.ended(0);
}

#[tokio::test]
async fn decrypt_overwrites_nothing() {
    let bench = Bench::new().await;
    kine_shaped::create(&bench.path("state.db"), 10, 10).unwrap();
    let key = bench.snapshot(&bench.path("state.db"), &[]).await;
    let before = std::fs::read(bench.path("state.db")).unwrap();
    let decrypt = ["decrypt", &key, "--identity-file", "key.txt", "--output"];
    bench
        .run(&[&decrypt[..], &["state.db"]].concat())
        .await
        .refused(13, &["state.db exists", "left as it is"]);
    assert_eq!(std::fs::read(bench.path("state.db")).unwrap(), before);
    let signer = "A".repeat(43);
    bench
        .run(&[&decrypt[..], &["new.db", "--signer", &signer]].concat())
        .await
        .refused(2, &["decrypt checks no signature"]);
    assert!(!bench.path("new.db").exists());
}

#[tokio::test]
async fn secrets_are_in_no_output() {
    let bench = Bench::new().await;
    kine_shaped::create(&bench.path("state.db"), 50, 100).unwrap();
    let identity = std::fs::read_to_string(bench.path("key.txt")).unwrap();
    let passphrase = "correct-horse-battery";
    let mut told = String::new();
    // A mistake beside a secret: the lines around it are not shown.
    let config = format!("bucket: b\nencKey: {passphrase}\nsyncIntervall: 1s\nsecretKey: {SECRET_KEY}\n");
    std::fs::write(bench.path("config.yaml"), config).unwrap();
    let wrong = bench.run(&["run", "--config", "config.yaml"]).await.ended(2);
    assert!(wrong.stderr.contains("syncIntervall") && wrong.stderr.contains("line 3"), "{}", wrong.stderr);
    told += &wrong.stderr;
    for args in [
        vec!["snapshot", "--database", "state.db"],
        vec!["list"],
        vec!["restore", "--output", "out.db"],
        vec!["restore", "--output", "out2.db", "--identity-file", "key.txt"],
        vec!["run", "--once", "--database", "state.db", "--signing-key-file", "signing-key"],
        vec!["restore", "--output", "out3.db", "--endpoint", "http://127.0.0.1:1"],
        vec!["--help"],
        vec!["restore", "--help"],
    ] {
        let mut command = bench.command(&args);
        command.env("ENC_KEY", passphrase).env("TRACE", "1").env("VCB_LOG_LEVEL", "trace");
        let finished = finish(command).await;
        told += &(finished.stdout + &finished.stderr);
    }
    assert!(told.len() > 1000, "nothing was traced: {told}");
    for secret in [SECRET_KEY, identity.trim(), passphrase, &"B".repeat(42)] {
        assert!(!told.contains(secret), "{secret} is in: {told}");
    }
}
