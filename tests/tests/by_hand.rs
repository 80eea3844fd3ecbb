//! **By hand**: what `restore` gives, `age`, `zstd` and `sqlite3` give as well, without a program of ours.

use std::process::Command;
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use vcluster_backup_tests::history::History;
use vcluster_backup_tests::kine::{Compaction, Kine};
use vcluster_backup_tests::restored::Restored;
use vcluster_backup_tests::site::{BUCKET, IDENTITY_FILE, Site};
use vcluster_backup_tests::toolbox::Tools;
use vcluster_backup_tests::writer::{Load, Writer};

/// From a snapshot ($1) to a database ($2) as of a revision ($3): every segment that goes on where the database ends.
/// Names sort in the order in which segments are applied, and tell what they hold.
const RESTORE: &str = r#"
set -euo pipefail
shopt -s nullglob
snapshot=$1 database=$2 last=$3
"$AGE" -d -i key.txt "$snapshot" | "$ZSTD" -q -d > "$database"
name=${snapshot##*/}
covered=$((10#${name%%-*}))
applied=0
for segment in bucket/*/log/*; do
    name=${segment##*/}
    IFS=- read -r from to rest <<< "$name"
    from=$((10#$from)) to=$((10#$to))
    if ((to <= covered || to > last)); then continue; fi
    if ((from > covered)); then echo "no segment holds what follows revision $covered" >&2; exit 1; fi
    "$AGE" -d -i key.txt "$segment" | "$ZSTD" -q -d | "$SQLITE3" -safe "$database"
    covered=$to applied=$((applied + 1))
done
if ((covered != last)); then echo "the segments end at revision $covered, not at $last" >&2; exit 1; fi
echo "$database: $applied segments applied to ${snapshot##*/}"
"#;

/// What two databases ($@) hold, as text, but for the gap above a restored one's last revision.
const DUMP: &str = r#"
set -euo pipefail
for database in "$@"; do
    "$SQLITE3" "$database" "DELETE FROM kine WHERE name LIKE 'gap-%'; UPDATE sqlite_sequence SET seq = (SELECT max(id) FROM kine);"
    "$SQLITE3" "$database" .dump > "$database.sql"
done
"#;

/// The tools of an operator without ours.
struct Hands<'a> {
    site: &'a Site,
}

impl Hands<'_> {
    fn bash(&self, script: &str, args: &[&str]) -> Result<()> {
        let tools = self.site.tools();
        let output = Command::new("bash")
            .args(["-c", script, "bash"])
            .args(args)
            .env("AGE", tools.path("age")?)
            .env("ZSTD", tools.path("zstd")?)
            .env("SQLITE3", tools.path("sqlite3")?)
            .current_dir(self.site.path(""))
            .output()?;
        let told = String::from_utf8_lossy(&output.stdout) + String::from_utf8_lossy(&output.stderr);
        print!("{told}");
        ensure!(output.status.success(), "by hand {args:?}: {}\n{told}", output.status);
        Ok(())
    }

    /// The bucket as a folder, `bucket/`; the keys in it.
    async fn download(&self) -> Result<Vec<String>> {
        let mut keys = Vec::new();
        for (key, _) in self.site.minio().list(BUCKET, "").await? {
            let path = self.site.path("bucket").join(&key);
            std::fs::create_dir_all(path.parent().context("a key without a folder")?)?;
            std::fs::write(path, self.site.minio().read(BUCKET, &key).await?)?;
            keys.push(key);
        }
        Ok(keys)
    }

    /// Fails unless both are the same database to the row.
    fn compare(&self, by_hand: &str, restored: &str) -> Result<()> {
        self.bash(DUMP, &[by_hand, restored])?;
        let dump = |name: &str| std::fs::read_to_string(self.site.path(&format!("{name}.sql")));
        let (by_hand, restored) = (dump(by_hand)?, dump(restored)?);
        ensure!(by_hand.contains("/registry/configmaps/"), "an empty dump");
        let different = by_hand.lines().zip(restored.lines()).find(|(a, b)| a != b);
        let short = |line: &str| line.chars().take(200).collect::<String>();
        let different = different.map(|(a, b)| format!("by hand  {}\nrestored {}", short(a), short(b)));
        ensure!(by_hand == restored, "the dumps differ, first in\n{}", different.unwrap_or_default());
        Ok(())
    }
}

/// Revision of a snapshot, or the last one of a segment.
fn revision(key: &str) -> Result<i64> {
    let name = key.rsplit('/').next().unwrap_or_default();
    let place = usize::from(key.contains("/log/"));
    let number = name.split('-').nth(place).with_context(|| format!("{key} tells no revision"))?;
    number.parse().with_context(|| format!("{key} tells no revision"))
}

/// A site with history in its bucket: snapshots, and segments after each of them.
async fn with_history(tools: Tools) -> Result<(Site, History)> {
    let site = Site::start(tools).await?;
    let compaction = Compaction { interval: Duration::from_secs(2), retain: 500 };
    let kine = Kine::start(site.tools(), &site.database(), Some(compaction)).await?;
    let sidecar = site.sidecar(&["--sync-interval", "200ms", "--snapshot-interval", "5s"]).await?;
    let writer = Writer::start(&kine, Load::default()).await?;
    tokio::time::sleep(Duration::from_secs(8)).await;
    sidecar.terminate()?;
    let history = writer.stop().await?;
    ensure!(kine.stop().await?.success(), "kine failed");
    sidecar.ended().await?;
    Ok((site, history))
}

#[tokio::test]
async fn the_same_database_comes_out() -> Result<()> {
    let Some(tools) = Tools::with(["minio", "mc", "kine", "age", "zstd", "sqlite3"]) else { return Ok(()) };
    let (site, history) = with_history(tools).await?;
    let hands = Hands { site: &site };
    let keys = hands.download().await?;
    let of_kind = |kind: &str| keys.iter().filter(|key| key.contains(kind)).cloned().collect::<Vec<_>>();
    let (snapshots, segments) = (of_kind("/snapshot/"), of_kind("/log/"));
    ensure!(snapshots.len() > 1 && segments.len() > 10, "too little to test with: {keys:#?}");
    let (oldest, newest) = (&snapshots[0], &snapshots[snapshots.len() - 1]);
    let restore = async |name: &str, revision: i64| Restored::revision(&site, name, revision).await;
    let by_hand = |from: &str, name: &str, to: i64| {
        hands.bash(RESTORE, &[&format!("bucket/{from}"), name, &to.to_string()])?;
        Restored::read(&site.path(name))
    };

    // All of it, from the newest snapshot.
    by_hand(newest, "newest.db", history.newest())?.is_exactly(&history, history.newest())?;
    restore("restored.db", history.newest()).await?.is_exactly(&history, history.newest())?;
    hands.compare("newest.db", "restored.db")?;

    // From the oldest: history that kine had compacted before the newest is there too, but every key is the same.
    by_hand(oldest, "oldest.db", history.newest())?.is_exactly(&history, history.newest())?;

    // To the end of a segment between the two, and of one after the newest.
    for (from, to) in [(oldest, revision(newest)?), (newest, i64::MAX)] {
        let within = |key: &&String| {
            revision(key).is_ok_and(|at| revision(from).is_ok_and(|from| from < at && at < to))
        };
        let ends: Vec<&String> = segments.iter().filter(within).collect();
        let end = revision(ends.get(ends.len() / 2).context("no segment follows the snapshot")?)?;
        // Another snapshot may lie between them, from which `restore` begins.
        let begin =
            snapshots.iter().rfind(|key| revision(key).is_ok_and(|at| at <= end)).context("no snapshot")?;
        by_hand(begin, "between.db", end)?.is_exactly(&history, end)?;
        restore("restored.db", end).await?.is_exactly(&history, end)?;
        hands.compare("between.db", "restored.db")?;
    }
    Ok(())
}

/// One snapshot and nothing else, as `snapshot` takes it.
#[tokio::test]
async fn a_snapshot_alone_is_a_database() -> Result<()> {
    let Some(tools) = Tools::with(["minio", "mc", "kine", "age", "zstd", "sqlite3"]) else { return Ok(()) };
    let site = Site::start(tools).await?;
    let kine = Kine::start(site.tools(), &site.database(), None).await?;
    let writer = Writer::start(&kine, Load::default()).await?;
    tokio::time::sleep(Duration::from_secs(2)).await;
    let recipient = vcluster_backup_tests::vcluster::RECIPIENT;
    let key = site.run(&["snapshot", "--recipient", recipient]).await?.text().trim().to_owned();
    writer.stop().await?;
    let hands = Hands { site: &site };
    hands.download().await?;
    hands.bash(RESTORE, &[&format!("bucket/{key}"), "by-hand.db", &revision(&key)?.to_string()])?;
    site.run(&["restore", "--output", "restored.db", "--identity-file", IDENTITY_FILE]).await?;
    hands.compare("by-hand.db", "restored.db")
}
