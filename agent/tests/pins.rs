//! Pins that the configuration file asks for are made promptly, and again when one of before does not count.

#![allow(clippy::unwrap_used, missing_docs)]

mod support;

use std::time::{Duration, Instant};

use support::{BUCKET, Bench, get, until};
use vcluster_backup::clock::{Clock, Moment};
use vcluster_backup_tests::kine_shaped;
use vcluster_backup_tests::process::Process;

/// When each pin of a name was captured, as its names tell it.
fn captured(bench: &Bench, name: &str) -> Vec<Moment> {
    let keys = bench.s3.keys(BUCKET).unwrap();
    let of = |key: &String| key.contains(&format!("/pin/{name}/"));
    let moment = |key: &String| Moment::from_millis(key.rsplit('-').next().unwrap().parse().unwrap());
    let mut found: Vec<Moment> = keys.iter().filter(|key| of(key)).map(moment).collect();
    found.sort();
    found
}

struct Agent {
    process: Process,
    listen: String,
}

async fn start(bench: &Bench) -> Agent {
    let recipient = bench.recipient();
    let listen = format!("127.0.0.1:{}", vcluster_backup_tests::port::free().unwrap());
    let args = ["run", "--config", "config.yaml", "--database", "state.db", "--recipient", &recipient];
    let mut process = Process::start("agent", bench.command(&args).args(["--listen", &listen])).unwrap();
    process
        .until("ready", Duration::from_secs(20), async || {
            get(&listen, "/readyz").await.starts_with("HTTP/1.1 200")
        })
        .await
        .unwrap();
    Agent { process, listen }
}

async fn told(agent: &Agent) -> serde_json::Value {
    let page = get(&agent.listen, "/status").await;
    serde_json::from_str(page.split_once("\r\n\r\n").unwrap().1).unwrap()
}

fn config(bench: &Bench, pins: &str) {
    std::fs::write(bench.path("config.yaml"), format!("snapshotInterval: 1h\npins: [{pins}]\n")).unwrap();
}

#[tokio::test]
async fn a_pin_is_made_within_seconds_and_told() {
    let bench = Bench::new().await;
    kine_shaped::create(&bench.path("state.db"), 10, 10).unwrap();
    config(&bench, "");
    let agent = start(&bench).await;
    assert_eq!(told(&agent).await["pins"], serde_json::json!({}));
    // At rest, while leases alone are pending, and after a write.
    for name in ["at-rest", "idle", "busy"] {
        match name {
            "idle" => drop(kine_shaped::put(&bench.path("state.db"), "/registry/leases/kube-system/x", b"x")),
            "busy" => drop(kine_shaped::put(&bench.path("state.db"), "/registry/pods/default/x", b"x")),
            _ => {}
        }
        let begin = Instant::now();
        config(&bench, &format!("{{name: {name}}}"));
        until("pinned", || captured(&bench, name).len() == 1).await;
        println!("{name}: pinned {:.1} s after the file changed", begin.elapsed().as_secs_f64());
        assert!(begin.elapsed() < Duration::from_secs(5), "{:?}", begin.elapsed());
        tokio::time::sleep(Duration::from_millis(500)).await;
        let told = told(&agent).await;
        assert_eq!(told["pins"][name], captured(&bench, name)[0].to_string(), "{told}");
        assert_eq!(told["pins"].as_object().unwrap().len(), 1, "what is no longer asked for is not told");
    }
    agent.process.stop(Duration::from_secs(10)).await.unwrap();
}

#[tokio::test]
async fn a_pin_of_before_is_made_anew() {
    let bench = Bench::new().await;
    kine_shaped::create(&bench.path("state.db"), 10, 10).unwrap();
    config(&bench, "{name: before-2}");
    let agent = start(&bench).await;
    until("pinned", || captured(&bench, "before-2").len() == 1).await;
    // Nothing was written since, and still the old one does not count.
    let since = Clock::SYSTEM.now();
    config(&bench, &format!("{{name: before-2, since: \"{since}\"}}"));
    until("pinned again", || captured(&bench, "before-2").len() == 2).await;
    assert!(captured(&bench, "before-2")[1] >= since);
    // A time to come is waited for, and costs no snapshots until then.
    let later = Clock::SYSTEM.now().plus(Duration::from_secs(6));
    config(&bench, &format!("{{name: before-2, since: \"{later}\"}}"));
    tokio::time::sleep(Duration::from_secs(3)).await;
    assert_eq!(told(&agent).await["pins"], serde_json::json!({}), "none that counts is made");
    until("pinned later", || captured(&bench, "before-2").len() == 3).await;
    assert!(captured(&bench, "before-2")[2] >= later);
    tokio::time::sleep(Duration::from_secs(1)).await;
    let snapshots = bench.s3.keys(BUCKET).unwrap().iter().filter(|key| key.contains("/snapshot/")).count();
    assert_eq!(snapshots, 3);
    agent.process.stop(Duration::from_secs(10)).await.unwrap();
    // A restart finds it.
    let agent = start(&bench).await;
    assert_eq!(told(&agent).await["pins"]["before-2"], captured(&bench, "before-2")[2].to_string());
    agent.process.stop(Duration::from_secs(10)).await.unwrap();
    assert_eq!(captured(&bench, "before-2").len(), 3);
}

/// A restore begins a new timeline; the name stays with the point that it was given to.
#[tokio::test]
async fn a_name_does_not_move_to_a_new_timeline() {
    let bench = Bench::new().await;
    let database = bench.path("state.db");
    kine_shaped::create(&database, 10, 10).unwrap();
    config(&bench, "{name: before-migration}");
    let agent = start(&bench).await;
    until("pinned", || captured(&bench, "before-migration").len() == 1).await;
    let before = kine_shaped::rows(&database).unwrap();
    kine_shaped::put(&database, "/registry/pods/default/migrated", b"x").unwrap();
    agent.process.stop(Duration::from_secs(10)).await.unwrap();
    bench.restore("state.db", &["--force"]).await.ended(0);
    let agent = start(&bench).await;
    until("another timeline", || {
        bench.s3.keys(BUCKET).unwrap().iter().filter(|key| key.contains("/snapshot/")).count() >= 2
    })
    .await;
    tokio::time::sleep(Duration::from_secs(1)).await;
    agent.process.stop(Duration::from_secs(10)).await.unwrap();
    assert_eq!(captured(&bench, "before-migration").len(), 1);
    bench.restore("out.db", &["--pin", "before-migration"]).await.ended(0);
    assert_eq!(kine_shaped::rows(&bench.path("out.db")).unwrap(), before);
}
