//! A **bucket in memory** that fails as a real one does, when a seed says so: calls that never arrive, answers that get
//! lost, uploads that arrive late or twice, a process that is gone from one call on.

#![allow(dead_code, clippy::unwrap_used, missing_docs)]

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicI64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard};

use bytes::Bytes;
use tokio::sync::mpsc;
use vcluster_backup::catalogue::Listed;
use vcluster_backup::clock::Moment;
use vcluster_backup::store::{Metadata, ObjectReader, Parts, Store, StoreError};

pub use super::faults::Faults;
use super::random::Random;

/// Small, so that a reader needs several.
const CHUNK: usize = 1000;

/// What the server makes of `If-None-Match: *`.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Conditional {
    #[default]
    Honoured,
    /// It says that it does not know it: the client looks with a HEAD first, and a late upload overwrites.
    Unknown,
    /// It takes it and overwrites all the same.
    Ignored,
}

/// Calls so far, failed ones as well.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Calls {
    pub list: usize,
    pub head: usize,
    pub get: usize,
    pub put: usize,
    pub delete: usize,
}

impl Calls {
    pub fn total(self) -> usize {
        self.list + self.head + self.get + self.put + self.delete
    }
}

/// Clones share the bucket.
#[derive(Clone)]
pub struct MemoryStore(Arc<Mutex<Bucket>>);

struct Bucket {
    objects: BTreeMap<String, Object>,
    calls: Calls,
    faults: Faults,
    random: Random,
    conditional: Conditional,
    gone_from: Option<usize>,
    /// This call is done, and its answer lost.
    last_done: Option<usize>,
    /// Uploads under way, by the call before which they arrive.
    under_way: Vec<(usize, String, Object)>,
    overwritten: Vec<String>,
    /// Milliseconds; without one it does not say when it took an object.
    clock: Option<&'static AtomicI64>,
}

#[derive(Clone)]
struct Object {
    bytes: Bytes,
    metadata: Metadata,
    modified: Option<Moment>,
}

#[derive(Clone, Copy)]
enum Operation {
    List,
    Head,
    Get,
    Put,
    Delete,
}

enum Fate {
    Done,
    Failed,
    Lost,
    Recognised,
    Late(usize),
    Duplicated(usize),
    Broken,
}

/// Without faults.
impl Default for MemoryStore {
    fn default() -> Self {
        Self::new(Faults::NONE, Random::new(0))
    }
}

impl MemoryStore {
    pub fn new(faults: Faults, random: Random) -> Self {
        Self(Arc::new(Mutex::new(Bucket {
            objects: BTreeMap::new(),
            calls: Calls::default(),
            faults,
            random,
            conditional: Conditional::Honoured,
            gone_from: None,
            last_done: None,
            under_way: vec![],
            overwritten: vec![],
            clock: None,
        })))
    }

    pub fn set_clock(&self, clock: &'static AtomicI64) {
        self.bucket().clock = Some(clock);
    }

    fn bucket(&self) -> MutexGuard<'_, Bucket> {
        self.0.lock().unwrap()
    }

    pub fn set_faults(&self, faults: Faults) {
        self.bucket().faults = faults;
    }

    pub fn set_conditional(&self, conditional: Conditional) {
        self.bucket().conditional = conditional;
    }

    /// The n-th call from now on (counted from 1) fails, and all after it.
    pub fn crash_after(&self, n: usize) {
        let mut bucket = self.bucket();
        bucket.gone_from = Some(bucket.calls.total() + n);
        bucket.last_done = None;
    }

    /// As [`Self::crash_after`], but the n-th call is done before its answer is lost.
    pub fn crash_during(&self, n: usize) {
        self.crash_after(n);
        let mut bucket = self.bucket();
        bucket.last_done = bucket.gone_from;
    }

    /// Whether a crash has happened and is not over.
    pub fn is_crashed(&self) -> bool {
        let bucket = self.bucket();
        bucket.gone_from.is_some_and(|gone| bucket.calls.total() >= gone)
    }

    /// Calls work again. What was under way is still under way.
    pub fn revive(&self) {
        self.bucket().gone_from = None;
    }

    /// What is under way arrives now.
    pub fn settle(&self) {
        self.bucket().arrive(usize::MAX);
    }

    pub fn under_way(&self) -> usize {
        self.bucket().under_way.len()
    }

    pub fn calls(&self) -> Calls {
        self.bucket().calls
    }

    /// Keys whose object was replaced by an upload, once for each time.
    pub fn overwritten(&self) -> Vec<String> {
        self.bucket().overwritten.clone()
    }

    /// All keys, in order; no call.
    pub fn keys(&self) -> Vec<String> {
        self.bucket().objects.keys().cloned().collect()
    }

    /// An object's bytes; no call.
    pub fn object(&self, key: &str) -> Option<Bytes> {
        self.bucket().objects.get(key).map(|object| object.bytes.clone())
    }

    /// Puts an object there behind everybody's back.
    pub fn insert(&self, key: &str, bytes: impl Into<Bytes>) {
        let object = Object { bytes: bytes.into(), metadata: Metadata::new(), modified: None };
        self.bucket().objects.insert(key.to_owned(), object);
    }

    /// Changes an object's bytes behind everybody's back.
    #[track_caller]
    pub fn change(&self, key: &str, change: impl FnOnce(&mut Vec<u8>)) {
        let mut bucket = self.bucket();
        let Some(object) = bucket.objects.get_mut(key) else { panic!("there is no {key}") };
        let mut bytes = object.bytes.to_vec();
        change(&mut bytes);
        object.bytes = bytes.into();
    }

    /// Takes an object away behind everybody's back.
    pub fn remove(&self, key: &str) -> Option<Bytes> {
        self.bucket().objects.remove(key).map(|object| object.bytes)
    }

    /// The bucket as it is now, on its own and without faults: for a look by somebody else.
    pub fn copy(&self) -> Self {
        let copy = Self::default();
        copy.bucket().objects = self.bucket().objects.clone();
        copy
    }
}

impl Bucket {
    /// Counts a call and decides what becomes of it. Each draws as many numbers, whatever it is.
    fn begin(&mut self, operation: Operation) -> Fate {
        *match operation {
            Operation::List => &mut self.calls.list,
            Operation::Head => &mut self.calls.head,
            Operation::Get => &mut self.calls.get,
            Operation::Put => &mut self.calls.put,
            Operation::Delete => &mut self.calls.delete,
        } += 1;
        let (call, faults) = (self.calls.total(), self.faults);
        self.arrive(call);
        let (mut drawn, late) = (self.random.number() % 1000, self.random.below(faults.late_by.max(1)) + 1);
        if let Some(gone) = self.gone_from
            && call >= gone
        {
            return if self.last_done == Some(call) { Fate::Lost } else { Fate::Failed };
        }
        for (per_mille, fate) in [
            (faults.before, Fate::Failed),
            (faults.lost, Fate::Lost),
            (faults.recognised, Fate::Recognised),
            (faults.late, Fate::Late(call + late)),
            (faults.duplicated, Fate::Duplicated(call + late)),
            (faults.broken, Fate::Broken),
        ] {
            if drawn < u64::from(per_mille) {
                return fate;
            }
            drawn -= u64::from(per_mille);
        }
        Fate::Done
    }

    /// Uploads that were under way until this call.
    fn arrive(&mut self, call: usize) {
        let (now, later) =
            std::mem::take(&mut self.under_way).into_iter().partition(|(due, ..)| *due <= call);
        self.under_way = later;
        let mut now: Vec<(usize, String, Object)> = now;
        now.sort_by_key(|(due, ..)| *due);
        for (_, key, object) in now {
            if self.conditional != Conditional::Honoured || !self.objects.contains_key(&key) {
                self.store(key, object);
            }
        }
    }

    fn publish(&mut self, key: &str, object: Object) -> Result<(), StoreError> {
        if self.conditional != Conditional::Ignored && self.objects.contains_key(key) {
            return Err(StoreError::Exists(key.to_owned()));
        }
        self.store(key.to_owned(), object);
        Ok(())
    }

    fn store(&mut self, key: String, object: Object) {
        if self.objects.insert(key.clone(), object).is_some() {
            self.overwritten.push(key);
        }
    }
}

/// As `S3Store` tells it.
fn unreachable(operation: &'static str, object: &str) -> StoreError {
    StoreError::Unreachable {
        operation,
        object: object.to_owned(),
        endpoint: "memory".to_owned(),
        cause: "a fault that the test asked for".to_owned(),
    }
}

impl Store for MemoryStore {
    async fn list(&self, prefix: &str, after: Option<&str>) -> Result<Vec<Listed>, StoreError> {
        let mut bucket = self.bucket();
        if matches!(bucket.begin(Operation::List), Fate::Failed | Fate::Lost) {
            return Err(unreachable("list", prefix));
        }
        let from = after.map_or(prefix, |after| after.max(prefix));
        let behind = |key: &String| after.is_none_or(|after| key.as_str() > after);
        Ok(bucket
            .objects
            .range(from.to_owned()..)
            .filter(|(key, _)| behind(key))
            .take_while(|(key, _)| key.starts_with(prefix))
            .map(|(key, object)| Listed {
                key: key.clone(),
                size: object.bytes.len() as u64,
                modified: object.modified,
            })
            .collect())
    }

    async fn head(&self, key: &str) -> Result<Option<Metadata>, StoreError> {
        let mut bucket = self.bucket();
        match bucket.begin(Operation::Head) {
            Fate::Failed | Fate::Lost => Err(unreachable("look at", key)),
            _ => Ok(bucket.objects.get(key).map(|object| object.metadata.clone())),
        }
    }

    async fn get(&self, key: &str) -> Result<ObjectReader, StoreError> {
        let mut bucket = self.bucket();
        let fate = bucket.begin(Operation::Get);
        if matches!(fate, Fate::Failed | Fate::Lost) {
            return Err(unreachable("read", key));
        }
        let Some(object) = bucket.objects.get(key) else { return Err(StoreError::NotFound(key.to_owned())) };
        let size = object.bytes.len();
        let end = if matches!(fate, Fate::Broken) { size / 2 } else { size };
        let (sender, receiver) = mpsc::channel(size / CHUNK + 2);
        let mut rest = object.bytes.slice(..end);
        while !rest.is_empty() {
            let chunk = rest.split_to(rest.len().min(CHUNK));
            sender.try_send(Ok(chunk)).unwrap();
        }
        if end < size {
            sender.try_send(Err(unreachable("read", key))).unwrap();
        }
        Ok(ObjectReader::new(size as u64, receiver))
    }

    async fn put_new(&self, key: &str, metadata: &Metadata, mut parts: Parts) -> Result<(), StoreError> {
        let mut bytes = Vec::new();
        while let Some(part) = parts.next().await.map_err(|_| StoreError::Abandoned(key.to_owned()))? {
            bytes.extend_from_slice(&part);
        }
        let mut bucket = self.bucket();
        let fate = bucket.begin(Operation::Put);
        let modified = bucket.clock.map(|clock| Moment::from_millis(clock.load(Ordering::SeqCst)));
        let object = Object { bytes: bytes.into(), metadata: metadata.clone(), modified };
        match fate {
            Fate::Done | Fate::Broken => bucket.publish(key, object),
            Fate::Failed => Err(unreachable("write", key)),
            Fate::Lost => {
                // What would have been answered, nobody knows.
                let _ = bucket.publish(key, object);
                Err(unreachable("write", key))
            }
            Fate::Recognised => {
                bucket.calls.head += 1;
                bucket.publish(key, object)
            }
            Fate::Late(due) => {
                bucket.under_way.push((due, key.to_owned(), object));
                Err(unreachable("write", key))
            }
            Fate::Duplicated(due) => {
                bucket.under_way.push((due, key.to_owned(), object.clone()));
                bucket.publish(key, object)
            }
        }
    }

    async fn delete(&self, key: &str) -> Result<(), StoreError> {
        let mut bucket = self.bucket();
        let fate = bucket.begin(Operation::Delete);
        if matches!(fate, Fate::Failed) {
            return Err(unreachable("delete", key));
        }
        bucket.objects.remove(key);
        if matches!(fate, Fate::Lost) { Err(unreachable("delete", key)) } else { Ok(()) }
    }
}
