//! **Metrics**, prefix `vcluster_backup_`. Series start at zero; labels come from closed sets.

use std::sync::atomic::{AtomicI64, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use prometheus_client::encoding::text::encode;
use prometheus_client::encoding::{EncodeLabelSet, EncodeLabelValue};
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::Histogram;
use prometheus_client::metrics::info::Info;
use prometheus_client::registry::Registry;

use crate::cost::Usage;

/// What an object is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, EncodeLabelValue)]
pub enum Kind {
    /// A complete database.
    #[allow(non_camel_case_types)]
    snapshot,
    /// Rows.
    #[allow(non_camel_case_types)]
    segment,
    /// Rows again, of several segments in one.
    #[allow(non_camel_case_types)]
    merged,
    /// Files beside the database.
    #[allow(non_camel_case_types)]
    files,
}

/// Which revision a gauge tells.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, EncodeLabelValue)]
pub enum RevisionKind {
    /// In the database.
    #[allow(non_camel_case_types)]
    live,
    /// In the bucket.
    #[allow(non_camel_case_types)]
    shipped,
    /// History at or below it may be gone from the database.
    #[allow(non_camel_case_types)]
    compact,
}

/// How an upload ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, EncodeLabelValue)]
pub enum Outcome {
    /// Published.
    #[allow(non_camel_case_types)]
    ok,
    /// Not published.
    #[allow(non_camel_case_types)]
    error,
}

/// A call to the store.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, EncodeLabelValue)]
#[allow(non_camel_case_types, missing_docs)] // spelled as the label
pub enum Operation {
    list,
    head,
    get,
    put,
    delete,
    create_multipart,
    upload_part,
    complete_multipart,
}

impl Operation {
    const ALL: [Self; 8] = [
        Self::list,
        Self::head,
        Self::get,
        Self::put,
        Self::delete,
        Self::create_multipart,
        Self::upload_part,
        Self::complete_multipart,
    ];
}

/// How the store answered.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, EncodeLabelValue)]
#[allow(non_camel_case_types)] // spelled as the label
pub enum Code {
    /// As asked.
    ok,
    /// 401 or 403.
    refused,
    /// 404.
    not_found,
    /// 409 or 412.
    conflict,
    /// No answer.
    unreachable,
    /// Anything else.
    error,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, EncodeLabelSet)]
struct RequestLabels {
    op: Operation,
    code: Code,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, EncodeLabelSet)]
struct RevisionLabels {
    kind: RevisionKind,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, EncodeLabelSet)]
struct KindLabels {
    kind: Kind,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, EncodeLabelSet)]
struct UploadLabels {
    kind: Kind,
    result: Outcome,
}

/// All series.
#[derive(Clone)]
pub struct Metrics {
    registry: Arc<Registry>,
    last_success: Gauge<f64, AtomicU64>,
    lag: Gauge<f64, AtomicU64>,
    restorable_from: Gauge<f64, AtomicU64>,
    last_verify: Gauge<f64, AtomicU64>,
    last_verify_ok: Gauge<i64, AtomicI64>,
    revision: Family<RevisionLabels, Gauge<i64, AtomicI64>>,
    uploaded_bytes: Family<KindLabels, Counter>,
    uploads: Family<UploadLabels, Counter>,
    requests: Family<RequestLabels, Counter>,
    snapshot_duration: Histogram,
    read_transaction: Histogram,
    started: Instant,
    /// Since when there is a change that is not in the bucket.
    behind_since: Arc<Mutex<Option<Instant>>>,
    /// All requests and all bytes, as [`Usage`] sums them up.
    used: Arc<(AtomicU64, AtomicU64)>,
}

impl Default for Metrics {
    fn default() -> Self {
        let mut registry = Registry::with_prefix("vcluster_backup");
        let metrics = Self {
            registry: Arc::default(),
            last_success: Gauge::default(),
            lag: Gauge::default(),
            restorable_from: Gauge::default(),
            last_verify: Gauge::default(),
            last_verify_ok: Gauge::default(),
            revision: Family::default(),
            uploaded_bytes: Family::default(),
            uploads: Family::default(),
            requests: Family::default(),
            snapshot_duration: Histogram::new([0.1, 0.5, 1.0, 5.0, 10.0, 30.0, 60.0, 300.0]),
            // The budget is 0.1 s; kine's users notice a tenth of it.
            started: Instant::now(),
            behind_since: Arc::default(),
            used: Arc::default(),
            read_transaction: Histogram::new([0.0005, 0.001, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 1.0]),
        };
        for kind in [RevisionKind::live, RevisionKind::shipped, RevisionKind::compact] {
            let _ = metrics.revision.get_or_create(&RevisionLabels { kind });
        }
        for op in Operation::ALL {
            let _ = metrics.requests.get_or_create(&RequestLabels { op, code: Code::ok });
        }
        for kind in [Kind::snapshot, Kind::segment, Kind::merged, Kind::files] {
            let _ = metrics.uploaded_bytes.get_or_create(&KindLabels { kind });
            for result in [Outcome::ok, Outcome::error] {
                let _ = metrics.uploads.get_or_create(&UploadLabels { kind, result });
            }
        }
        let mut gauge = |name: &str, help: &str, gauge: &Gauge<f64, AtomicU64>| {
            registry.register(name, help, gauge.clone());
        };
        gauge(
            "last_success_timestamp_seconds",
            "When everything that was due was last in the bucket",
            &metrics.last_success,
        );
        gauge("lag_seconds", "Age of the oldest change that is not in the bucket", &metrics.lag);
        gauge(
            "restorable_from_timestamp_seconds",
            "The oldest point that can be restored",
            &metrics.restorable_from,
        );
        gauge(
            "last_verify_timestamp_seconds",
            "When this backup was last verified; 0 if it never was",
            &metrics.last_verify,
        );
        registry.register(
            "last_verify_ok",
            "Whether that found nothing wrong",
            metrics.last_verify_ok.clone(),
        );
        registry.register("revision", "Kubernetes revisions", metrics.revision.clone());
        registry.register("uploaded_bytes", "Bytes published", metrics.uploaded_bytes.clone());
        registry.register("uploads", "Objects published or failed", metrics.uploads.clone());
        registry.register(
            "s3_requests",
            "Calls to the store; repetitions within one call are not counted",
            metrics.requests.clone(),
        );
        registry.register(
            "snapshot_duration_seconds",
            "From the first read to the published object",
            metrics.snapshot_duration.clone(),
        );
        registry.register(
            "read_transaction_seconds",
            "How long the database was read at a time",
            metrics.read_transaction.clone(),
        );
        registry.register("build", "The program", Info::new(vec![("version", env!("CARGO_PKG_VERSION"))]));
        Self { registry: Arc::new(registry), ..metrics }
    }
}

impl Metrics {
    /// In the OpenMetrics text form.
    pub fn encode(&self) -> String {
        let mut text = String::new();
        // It grows between two turns of the replicator too.
        let since = *self.behind_since.lock().unwrap_or_else(PoisonError::into_inner);
        self.lag.set(since.map_or(0.0, |since| since.elapsed().as_secs_f64()));
        // Writing to a String cannot fail.
        let _ = encode(&mut text, &self.registry);
        text
    }

    /// A read transaction ended.
    pub fn read_transaction(&self, lasted: Duration) {
        self.read_transaction.observe(lasted.as_secs_f64());
    }

    /// A snapshot was published.
    pub fn snapshot(&self, bytes: u64, took: Duration) {
        self.published(Kind::snapshot, bytes);
        self.snapshot_duration.observe(took.as_secs_f64());
    }

    /// An object was published.
    pub fn published(&self, kind: Kind, bytes: u64) {
        self.used.1.fetch_add(bytes, Ordering::Relaxed);
        self.uploads.get_or_create(&UploadLabels { kind, result: Outcome::ok }).inc();
        self.uploaded_bytes.get_or_create(&KindLabels { kind }).inc_by(bytes);
    }

    /// An object was not published.
    pub fn failed(&self, kind: Kind) {
        self.uploads.get_or_create(&UploadLabels { kind, result: Outcome::error }).inc();
    }

    /// The store was called.
    pub fn request(&self, op: Operation, code: Code) {
        self.used.0.fetch_add(1, Ordering::Relaxed);
        self.requests.get_or_create(&RequestLabels { op, code }).inc();
    }

    /// What was asked of the store so far.
    pub fn usage(&self) -> Usage {
        let (requests, bytes) = (self.used.0.load(Ordering::Relaxed), self.used.1.load(Ordering::Relaxed));
        Usage { requests, bytes, observed: self.started.elapsed() }
    }

    /// A revision moved.
    pub fn revision(&self, kind: RevisionKind, revision: crate::revision::Revision) {
        self.revision.get_or_create(&RevisionLabels { kind }).set(revision.to_sql());
    }

    /// Everything that was due is in the bucket.
    pub fn success(&self, now: crate::clock::Moment) {
        self.last_success.set(seconds(now));
    }

    /// The age of the oldest change that is not in the bucket.
    pub fn lag(&self, lag: Duration) {
        let since = Instant::now().checked_sub(lag).filter(|_| !lag.is_zero());
        *self.behind_since.lock().unwrap_or_else(PoisonError::into_inner) = since;
    }

    /// When the backup was last verified, and whether nothing was wrong; `None` if it never was.
    pub fn verified(&self, last: Option<(crate::clock::Moment, bool)>) {
        self.last_verify.set(last.map_or(0.0, |(at, _)| seconds(at)));
        self.last_verify_ok.set(last.map_or(0, |(_, passed)| i64::from(passed)));
    }

    /// The oldest point that can be restored.
    pub fn restorable_from(&self, moment: crate::clock::Moment) {
        self.restorable_from.set(seconds(moment));
    }
}

#[allow(clippy::cast_precision_loss)] // milliseconds since 1970 fit 53 bits for 285,000 years
fn seconds(moment: crate::clock::Moment) -> f64 {
    moment.millis() as f64 / 1000.0
}
