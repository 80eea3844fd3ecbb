//! A **writer**: load on kine in the background, and the record of every write that was acknowledged.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicI64, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};
use tokio::task::JoinHandle;

use crate::history::{Failure, History, Write};
use crate::kine::{Client, Kine};

/// Where the writer's keys are.
pub const PREFIX: &str = "/registry/configmaps/default/";

/// What is written.
#[derive(Debug, Clone, Copy)]
pub struct Load {
    /// Transactions per second.
    pub rate: u32,
    /// The longest value, bytes; the shortest is a tenth of it.
    pub value_bytes: usize,
    /// Decides keys, values and order.
    pub seed: u64,
}

impl Default for Load {
    /// What a busy control plane does; objects of a kilobyte or two are usual.
    fn default() -> Self {
        Self { rate: 200, value_bytes: 2000, seed: 1 }
    }
}

/// Writes until kine has compacted so many times, and every checkpoint that follows a compaction is over; or until a write
/// fails.
pub async fn through_compactions(kine: &Kine, load: Load, count: usize) -> Result<History> {
    let (begin, before) = (Instant::now(), kine.compactions());
    let writer = Writer::start(kine, load).await?;
    while kine.compactions() < before + count && !writer.is_over() {
        ensure!(begin.elapsed() < Duration::from_mins(5), "kine compacts too seldom");
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    // kine tells of a compaction before its checkpoint begins. A write that this holds up is waited for.
    tokio::time::sleep(Duration::from_secs(1)).await;
    writer.stop().await
}

/// A running writer. Dropped, it stops without a word.
pub struct Writer {
    stop: Arc<AtomicBool>,
    newest: Arc<AtomicI64>,
    task: JoinHandle<Result<History>>,
}

impl Writer {
    /// Starts to write.
    pub async fn start(kine: &Kine, load: Load) -> Result<Self> {
        ensure!(load.rate > 0 && load.value_bytes >= 10, "a load without load: {load:?}");
        let client = kine.client().await?;
        let (stop, newest) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicI64::new(0)));
        let task = tokio::spawn(write(client, load, Arc::clone(&stop), Arc::clone(&newest)));
        Ok(Self { stop, newest, task })
    }

    /// The newest acknowledged revision so far.
    pub fn newest(&self) -> i64 {
        self.newest.load(Ordering::SeqCst)
    }

    /// Whether it has stopped by itself: a write failed.
    pub fn is_over(&self) -> bool {
        self.task.is_finished()
    }

    /// Stops after the write that is under way, and tells all that was written.
    pub async fn stop(mut self) -> Result<History> {
        self.stop.store(true, Ordering::SeqCst);
        (&mut self.task).await.context("the writer panicked")?
    }
}

impl Drop for Writer {
    fn drop(&mut self) {
        self.task.abort();
    }
}

async fn write(
    mut client: Client,
    load: Load,
    stop: Arc<AtomicBool>,
    newest: Arc<AtomicI64>,
) -> Result<History> {
    let mut random = Random(load.seed);
    let mut history = History::default();
    // Keys that are alive, and their revisions.
    let mut alive: Vec<(String, i64)> = Vec::new();
    let mut created = 0_u64;
    let mut tick = tokio::time::interval(Duration::from_secs(1) / load.rate);
    while !stop.load(Ordering::SeqCst) {
        tick.tick().await;
        let dice = random.below(10);
        let asked = Instant::now();
        // More is made than deleted, so that the database grows; at first there is nothing to change.
        let (key, value, answer) = if dice < 4 || alive.len() < 10 {
            created += 1;
            let (key, value) = (format!("{PREFIX}load-{created:06}"), random.value(load.value_bytes));
            let answer = client.create(&key, &value).await;
            alive.push((key.clone(), 0));
            (key, Some(value), answer)
        } else {
            let place = random.below(alive.len());
            let last = alive.len() - 1;
            alive.swap(place, last);
            let (key, revision) = alive[last].clone();
            if dice < 9 {
                let value = random.value(load.value_bytes);
                let answer = client.update(&key, &value, revision).await;
                (key, Some(value), answer)
            } else {
                (key.clone(), None, client.delete(&key, revision).await)
            }
        };
        let took = asked.elapsed();
        let revision = match answer {
            Ok(revision) => revision,
            Err(error) => {
                history.unanswered = Some(Failure { error: format!("{error:#}"), took });
                break;
            }
        };
        // In all three cases the key stands last.
        if value.is_none() {
            alive.pop();
        } else if let Some(last) = alive.last_mut() {
            last.1 = revision;
        }
        history.acknowledged.push(Write { revision, key, value, took });
        newest.store(revision, Ordering::SeqCst);
    }
    Ok(history)
}

/// splitmix64: small, and the same for the same seed everywhere.
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    /// A number below `end`.
    fn below(&mut self, end: usize) -> usize {
        usize::try_from(self.next() % end.max(1) as u64).unwrap_or(0)
    }

    /// A value of half text, half noise: it compresses about as API objects do. Any byte may be in it.
    fn value(&mut self, longest: usize) -> Vec<u8> {
        let length = longest / 10 + self.below(longest - longest / 10 + 1);
        let mut value = b"k8s\0\n\x0f\n\x02v1\x12\tConfigMap".to_vec();
        while value.len() < length {
            value.extend_from_slice(b"app.kubernetes.io/managed-by");
            value.extend((0..4).flat_map(|_| self.next().to_le_bytes()));
        }
        value.truncate(length);
        value
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_seed_is_one_load() {
        let (mut a, mut b, mut c) = (Random(7), Random(7), Random(8));
        let (value, same, other) = (a.value(500), b.value(500), c.value(500));
        assert_eq!(value, same);
        assert_ne!(value, other);
        assert!((50..=500).contains(&value.len()));
    }
}
