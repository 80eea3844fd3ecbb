//! S3, as any server speaks it.

use std::sync::atomic::AtomicBool;
use std::time::Duration;

use aws_sdk_s3::Client;
use aws_sdk_s3::error::{ProvideErrorMetadata, SdkError};
use aws_sdk_s3::operation::get_object::GetObjectOutput;
use tokio::sync::{RwLock, mpsc};

use super::body::{ObjectReader, Parts};
use super::connection::connect;
use super::{CredentialSource, Metadata, Store, StoreError, StoreSettings};
use crate::catalogue::Listed;
use crate::clock::Moment;
use crate::metrics::{Code, Metrics, Operation};

/// How often a broken download goes on where it broke.
const RESUMPTIONS: u32 = 8;

/// A bucket on an S3 server.
pub struct S3Store {
    pub(super) settings: StoreSettings,
    client: RwLock<Client>,
    /// Cleared for good when the server answers that it does not know conditional writes.
    pub(super) conditional: AtomicBool,
    /// Set once the server has shown that it honours them.
    pub(super) probed: AtomicBool,
    metrics: Option<Metrics>,
}

impl S3Store {
    /// Prepares a client; nothing is asked of the server yet.
    pub async fn open(settings: StoreSettings, metrics: Option<Metrics>) -> Result<Self, StoreError> {
        let client = RwLock::new(connect(&settings).await?);
        Ok(Self {
            settings,
            client,
            conditional: AtomicBool::new(true),
            probed: AtomicBool::new(false),
            metrics,
        })
    }

    /// Whether this process stays and writes: only then it pays to find out what the server honours.
    pub(super) fn is_lasting(&self) -> bool {
        self.metrics.is_some()
    }

    fn endpoint(&self) -> String {
        self.settings.endpoint.clone().unwrap_or_else(|| format!("AWS S3 in {}", self.settings.region))
    }

    pub(super) async fn client(&self) -> Client {
        self.client.read().await.clone()
    }

    /// Makes a call; if it is refused and the credentials are in files, reads them again and makes it once more:
    /// a rotated key must not need a restart of the control plane.
    pub(super) async fn call<T, F>(&self, op: Operation, call: impl Fn(Client) -> F) -> Result<T, StoreError>
    where
        F: Future<Output = Result<T, StoreError>>,
    {
        let counted = |result: Result<T, StoreError>| {
            if let Some(metrics) = &self.metrics {
                metrics.request(op, result.as_ref().err().map_or(Code::ok, StoreError::code));
            }
            result
        };
        match counted(call(self.client().await).await) {
            Err(StoreError::Refused { .. })
                if matches!(self.settings.credentials, CredentialSource::Files { .. }) =>
            {
                let client = connect(&self.settings).await?;
                *self.client.write().await = client.clone();
                counted(call(client).await)
            }
            result => result,
        }
    }

    /// Sorts the SDK's errors by type and code.
    pub(super) fn sort<E>(&self, operation: &'static str, object: &str, error: &SdkError<E>) -> StoreError
    where
        E: ProvideErrorMetadata + std::error::Error + 'static,
    {
        let endpoint = self.endpoint();
        let object = object.to_owned();
        match error {
            SdkError::ServiceError(answer) => {
                let status = answer.raw().status().as_u16();
                let code = answer.err().code().map_or_else(|| status.to_string(), str::to_owned);
                let message = answer.err().message().unwrap_or_default().to_owned();
                match (code.as_str(), status) {
                    ("NoSuchBucket", _) => {
                        StoreError::NoBucket { bucket: self.settings.bucket.clone(), endpoint }
                    }
                    ("NoSuchKey" | "NotFound", _) | (_, 404) => StoreError::NotFound(object),
                    // 409 is no verdict: another request on this key was under way.
                    ("PreconditionFailed", _) | (_, 412) => StoreError::Exists(object),
                    (_, 401 | 403) => StoreError::Refused { operation, object, endpoint, code },
                    _ => StoreError::Failed { operation, object, endpoint, code, message },
                }
            }
            _ if lacks_credentials(error) => StoreError::NoCredentials,
            SdkError::ConstructionFailure(_) => StoreError::Settings(format!(
                "the request to {operation} {object} cannot be made: {}",
                innermost(error)
            )),
            _ => StoreError::Unreachable { operation, object, endpoint, cause: innermost(error) },
        }
    }

    async fn get_from(
        &self,
        key: &str,
        from: u64,
        etag: Option<&str>,
    ) -> Result<GetObjectOutput, StoreError> {
        self.call(Operation::get, |client| async move {
            let mut request = client.get_object().bucket(&self.settings.bucket).key(key);
            if from > 0 {
                request = request.range(format!("bytes={from}-"));
            }
            if let Some(etag) = etag {
                request = request.if_match(etag);
            }
            request.send().await.map_err(|error| self.sort("read", key, &error))
        })
        .await
    }
}

impl Store for std::sync::Arc<S3Store> {
    async fn list(&self, prefix: &str, after: Option<&str>) -> Result<Vec<Listed>, StoreError> {
        (**self).list(prefix, after).await
    }

    async fn head(&self, key: &str) -> Result<Option<Metadata>, StoreError> {
        (**self).head(key).await
    }

    /// See [`Store::get`].
    async fn get(&self, key: &str) -> Result<ObjectReader, StoreError> {
        let first = self.get_from(key, 0, None).await?;
        let size = first.content_length().and_then(|size| u64::try_from(size).ok()).unwrap_or(0);
        let etag = first.e_tag().map(str::to_owned);
        let (sender, receiver) = mpsc::channel(4);
        let (store, key) = (self.clone(), key.to_owned());
        tokio::spawn(async move {
            let mut body = first.body;
            let (mut got, mut resumed) = (0, 0);
            loop {
                match body.next().await {
                    Some(Ok(chunk)) => {
                        got += chunk.len() as u64;
                        if sender.send(Ok(chunk)).await.is_err() {
                            return; // The reader has seen enough.
                        }
                    }
                    None if got >= size => return,
                    broken => {
                        resumed += 1;
                        let next = if resumed > RESUMPTIONS {
                            let cause = match broken {
                                Some(Err(error)) => innermost(&error),
                                _ => format!("it ended after {got} of {size} bytes"),
                            };
                            let (object, endpoint) = (key.clone(), store.endpoint());
                            Err(StoreError::Unreachable { operation: "read", object, endpoint, cause })
                        } else {
                            tokio::time::sleep(Duration::from_millis(100 << resumed.min(6))).await;
                            store.get_from(&key, got, etag.as_deref()).await
                        };
                        match next {
                            Ok(output) => body = output.body,
                            Err(error) => {
                                // If nobody listens, nobody needs to know.
                                let _ = sender.send(Err(error)).await;
                                return;
                            }
                        }
                    }
                }
            }
        });
        Ok(ObjectReader::new(size, receiver))
    }

    async fn put_new(&self, key: &str, metadata: &Metadata, parts: Parts) -> Result<(), StoreError> {
        (**self).put_new(key, metadata, parts).await
    }

    async fn delete(&self, key: &str) -> Result<(), StoreError> {
        self.call(Operation::delete, |client| async move {
            let deleted = client.delete_object().bucket(&self.settings.bucket).key(key).send().await;
            match deleted.map_err(|error| self.sort("delete", key, &error)) {
                Ok(_) | Err(StoreError::NotFound(_)) => Ok(()),
                Err(error) => Err(error),
            }
        })
        .await
    }
}

impl S3Store {
    async fn list(&self, prefix: &str, after: Option<&str>) -> Result<Vec<Listed>, StoreError> {
        let mut listed = Vec::new();
        let mut next: Option<String> = None;
        loop {
            let page = self
                .call(Operation::list, |client| {
                    let next = next.clone();
                    async move {
                        client
                            .list_objects_v2()
                            .bucket(&self.settings.bucket)
                            .prefix(prefix)
                            .set_start_after(after.map(str::to_owned))
                            .set_continuation_token(next)
                            .send()
                            .await
                            .map_err(|error| match self.sort("list", &self.settings.bucket, &error) {
                                StoreError::NotFound(bucket) => {
                                    StoreError::NoBucket { bucket, endpoint: self.endpoint() }
                                }
                                other => other,
                            })
                    }
                })
                .await?;
            for object in page.contents() {
                let (Some(key), Some(size)) = (object.key(), object.size()) else { continue };
                listed.push(Listed {
                    key: key.to_owned(),
                    size: u64::try_from(size).unwrap_or(0),
                    modified: object
                        .last_modified()
                        .and_then(|time| time.to_millis().ok())
                        .map(Moment::from_millis),
                });
            }
            next = page.next_continuation_token().map(str::to_owned);
            if next.is_none() || page.is_truncated() != Some(true) {
                return Ok(listed);
            }
        }
    }

    pub(super) async fn head(&self, key: &str) -> Result<Option<Metadata>, StoreError> {
        self.call(Operation::head, |client| async move {
            let answer = client.head_object().bucket(&self.settings.bucket).key(key).send().await;
            match answer.map_err(|error| self.sort("look at", key, &error)) {
                Ok(output) => Ok(Some(
                    output.metadata().map(|map| map.clone().into_iter().collect()).unwrap_or_default(),
                )),
                Err(StoreError::NotFound(_)) => Ok(None),
                Err(error) => Err(error),
            }
        })
        .await
    }
}

/// Whether the standard chain of credentials came to its end.
fn lacks_credentials(error: &(dyn std::error::Error + 'static)) -> bool {
    std::iter::successors(Some(error), |error| error.source())
        .any(<dyn std::error::Error + 'static>::is::<aws_credential_types::provider::error::CredentialsError>)
}

/// The last error of a chain: the SDK's own words are about its inner workings.
pub(super) fn innermost(error: &(dyn std::error::Error + 'static)) -> String {
    let mut last = error;
    while let Some(source) = last.source() {
        last = source;
    }
    last.to_string()
}
