//! The **traffic** to the store, by the agent's own count or by the store's: what a backup costs.

use std::collections::BTreeMap;
use std::fmt;

use crate::metrics::Metrics;

/// Operations that upload: as the agent names them, and as MinIO does.
const UPLOADS: [&str; 8] = [
    "put",
    "create_multipart",
    "upload_part",
    "complete_multipart",
    "PutObject",
    "NewMultipartUpload",
    "PutObjectPart",
    "CompleteMultipartUpload",
];

/// Requests and bytes since the agent's start, or between two looks.
#[derive(Debug, Default, Clone, PartialEq, Eq)]
pub struct Traffic {
    /// Requests by operation.
    pub requests: BTreeMap<String, u64>,
    /// Bytes uploaded, by kind of object.
    pub uploaded: BTreeMap<String, u64>,
}

impl Traffic {
    /// As the agent's metrics tell it.
    pub fn of(metrics: &Metrics) -> Self {
        let counted = |name, label| {
            metrics.by(name, label).into_iter().map(|(key, value)| (key, whole(value))).collect()
        };
        Self {
            requests: counted("vcluster_backup_s3_requests_total", "op"),
            uploaded: counted("vcluster_backup_uploaded_bytes_total", "kind"),
        }
    }

    /// As the MinIO tells it, of all its clients. Bytes are of whole requests, heads as well.
    pub fn at(store: &Metrics) -> Self {
        let received = whole(store.sum("minio_api_requests_traffic_received_bytes", &[]));
        let requests = store.by("minio_api_requests_total", "name");
        Self {
            requests: requests.into_iter().map(|(name, count)| (name, whole(count))).collect(),
            uploaded: [("received".to_owned(), received)].into(),
        }
    }

    /// What came to it since `before`.
    #[must_use]
    pub fn since(&self, before: &Self) -> Self {
        let difference = |now: &BTreeMap<String, u64>, before: &BTreeMap<String, u64>| {
            let grown = |(key, count): (&String, &u64)| {
                (key.clone(), count.saturating_sub(before.get(key).copied().unwrap_or(0)))
            };
            now.iter().map(grown).filter(|(_, count)| *count > 0).collect()
        };
        Self {
            requests: difference(&self.requests, &before.requests),
            uploaded: difference(&self.uploaded, &before.uploaded),
        }
    }

    /// Requests of one operation.
    pub fn count(&self, operation: &str) -> u64 {
        self.requests.get(operation).copied().unwrap_or(0)
    }

    /// Requests that upload something; of those a provider's bill consists.
    pub fn uploads(&self) -> u64 {
        UPLOADS.map(|operation| self.count(operation)).iter().sum()
    }

    /// All bytes uploaded.
    pub fn bytes(&self) -> u64 {
        self.uploaded.values().sum()
    }
}

/// `12345 bytes (segment 12345); requests: put 60, delete 4`.
impl fmt::Display for Traffic {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let list = |counts: &BTreeMap<String, u64>| {
            let words: Vec<String> = counts.iter().map(|(key, count)| format!("{key} {count}")).collect();
            if words.is_empty() { "none".to_owned() } else { words.join(", ") }
        };
        write!(f, "{} bytes ({}); requests: {}", self.bytes(), list(&self.uploaded), list(&self.requests))
    }
}

/// Counters are whole numbers, written as such or with a point.
#[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss)]
fn whole(value: f64) -> u64 {
    value.round() as u64
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_difference_is_what_came_to_it() -> anyhow::Result<()> {
        let at = |put: u32, bytes: u32| {
            Metrics::parse(&format!(
                "vcluster_backup_s3_requests_total{{op=\"put\",code=\"ok\"}} {put}\n\
                 vcluster_backup_s3_requests_total{{op=\"list\",code=\"ok\"}} 1\n\
                 vcluster_backup_uploaded_bytes_total{{kind=\"segment\"}} {bytes}\n"
            ))
        };
        let grown = Traffic::of(&at(7, 500)?).since(&Traffic::of(&at(3, 200)?));
        assert_eq!((grown.count("put"), grown.count("list"), grown.bytes()), (4, 0, 300));
        assert_eq!(grown.to_string(), "300 bytes (segment 300); requests: put 4");
        Ok(())
    }
}
