//! S3, as any server speaks it.

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use aws_sdk_s3::Client;
use aws_sdk_s3::error::{ProvideErrorMetadata, SdkError};
use aws_sdk_s3::operation::get_object::GetObjectOutput;
use aws_sdk_s3::primitives::ByteStream;
use aws_sdk_s3::types::{CompletedMultipartUpload, CompletedPart};
use bytes::Bytes;
use tokio::sync::{RwLock, mpsc};

use super::body::{ObjectReader, PartWriter, Parts};
use super::connection::connect;
use super::{CredentialSource, Metadata, Store, StoreError, StoreSettings};
use crate::catalogue::Listed;
use crate::clock::Moment;
use crate::metrics::{Code, Metrics, Operation};

/// Metadata key that tells our own upload from another writer's when an answer was lost.
const UPLOAD: &str = "upload";

/// How often a broken download goes on where it broke.
const RESUMPTIONS: u32 = 8;

/// A bucket on an S3 server.
pub struct S3Store {
    settings: StoreSettings,
    client: RwLock<Client>,
    /// Cleared for good when the server answers that it does not know conditional writes.
    conditional: AtomicBool,
    metrics: Option<Metrics>,
}

impl S3Store {
    /// Prepares a client; nothing is asked of the server yet.
    pub async fn open(settings: StoreSettings, metrics: Option<Metrics>) -> Result<Self, StoreError> {
        let client = RwLock::new(connect(&settings).await?);
        Ok(Self { settings, client, conditional: AtomicBool::new(true), metrics })
    }

    fn endpoint(&self) -> String {
        self.settings.endpoint.clone().unwrap_or_else(|| format!("AWS S3 in {}", self.settings.region))
    }

    async fn client(&self) -> Client {
        self.client.read().await.clone()
    }

    /// Makes a call; if it is refused and the credentials are in files, reads them again and makes it once more:
    /// a rotated key must not need a restart of the control plane.
    async fn call<T, F>(&self, op: Operation, call: impl Fn(Client) -> F) -> Result<T, StoreError>
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
    fn sort<E>(&self, operation: &'static str, object: &str, error: &SdkError<E>) -> StoreError
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

    async fn put_whole(&self, key: &str, metadata: &Metadata, body: Bytes) -> Result<(), StoreError> {
        self.call(Operation::put, |client| {
            let body = body.clone();
            async move {
                let mut request = client
                    .put_object()
                    .bucket(&self.settings.bucket)
                    .key(key)
                    .body(ByteStream::from(body))
                    .set_metadata(Some(metadata.clone().into_iter().collect()));
                if self.conditional.load(Ordering::Relaxed) {
                    request = request.if_none_match("*");
                }
                request.send().await.map(drop).map_err(|error| self.sort("write", key, &error))
            }
        })
        .await
    }

    async fn put_multipart(
        &self,
        key: &str,
        metadata: &Metadata,
        first: Bytes,
        mut rest: Parts,
    ) -> Result<(), StoreError> {
        let upload = self
            .call(Operation::create_multipart, |client| async move {
                client
                    .create_multipart_upload()
                    .bucket(&self.settings.bucket)
                    .key(key)
                    .set_metadata(Some(metadata.clone().into_iter().collect()))
                    .send()
                    .await
                    .map_err(|error| self.sort("begin the upload of", key, &error))
            })
            .await?;
        let upload = upload.upload_id().unwrap_or_default().to_owned();
        let sent = self.send_parts(key, &upload, first, &mut rest).await;
        let done = match sent {
            Ok(completed) => self.unless_conditional(|| self.complete(key, &upload, completed.clone())).await,
            Err(error) => Err(error),
        };
        if done.is_err() {
            // What is left costs money and shows in no LIST; if this fails too, the bucket's lifecycle rule is left.
            let client = self.client().await;
            let aborted = client
                .abort_multipart_upload()
                .bucket(&self.settings.bucket)
                .key(key)
                .upload_id(&upload)
                .send()
                .await;
            if let Err(error) = aborted {
                tracing::warn!(
                    object = key,
                    error = innermost(&error),
                    "parts of a failed upload were left behind"
                );
            }
        }
        done
    }

    async fn send_parts(
        &self,
        key: &str,
        upload: &str,
        first: Bytes,
        rest: &mut Parts,
    ) -> Result<CompletedMultipartUpload, StoreError> {
        let mut completed = CompletedMultipartUpload::builder();
        let mut next = Some(first);
        let mut number = 0;
        while let Some(part) = next {
            number += 1;
            let sent = self
                .call(Operation::upload_part, |client| {
                    let part = part.clone();
                    async move {
                        client
                            .upload_part()
                            .bucket(&self.settings.bucket)
                            .key(key)
                            .upload_id(upload)
                            .part_number(number)
                            .body(ByteStream::from(part))
                            .send()
                            .await
                            .map_err(|error| self.sort("write a part of", key, &error))
                    }
                })
                .await?;
            completed = completed.parts(
                CompletedPart::builder()
                    .part_number(number)
                    .set_e_tag(sent.e_tag().map(str::to_owned))
                    .build(),
            );
            // Its memory goes to the part in the making.
            drop(part);
            next = rest.next().await.map_err(|_| StoreError::Abandoned(key.to_owned()))?;
        }
        Ok(completed.build())
    }

    async fn complete(
        &self,
        key: &str,
        upload: &str,
        parts: CompletedMultipartUpload,
    ) -> Result<(), StoreError> {
        self.call(Operation::complete_multipart, |client| {
            let parts = parts.clone();
            async move {
                let mut request = client
                    .complete_multipart_upload()
                    .bucket(&self.settings.bucket)
                    .key(key)
                    .upload_id(upload)
                    .multipart_upload(parts);
                if self.conditional.load(Ordering::Relaxed) {
                    request = request.if_none_match("*");
                }
                request.send().await.map(drop).map_err(|error| self.sort("publish", key, &error))
            }
        })
        .await
    }

    /// Publishes, and once more without the condition if the server answers that it does not know it.
    async fn unless_conditional<F>(&self, publish: impl Fn() -> F) -> Result<(), StoreError>
    where
        F: Future<Output = Result<(), StoreError>>,
    {
        match publish().await {
            Err(StoreError::Failed { code, .. })
                if (code == "NotImplemented" || code == "501")
                    && self.conditional.swap(false, Ordering::Relaxed) =>
            {
                tracing::info!(
                    "the store knows no conditional writes: another writer is looked for before each"
                );
                publish().await
            }
            result => result,
        }
    }

    /// Whether a conflict is with our own upload, whose answer was lost and which was sent again.
    async fn is_ours(&self, key: &str, upload: &str) -> Result<bool, StoreError> {
        Ok(self
            .head(key)
            .await?
            .is_some_and(|metadata| metadata.get(UPLOAD).is_some_and(|told| told == upload)))
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
    async fn list(&self, prefix: &str) -> Result<Vec<Listed>, StoreError> {
        (**self).list(prefix).await
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
    async fn list(&self, prefix: &str) -> Result<Vec<Listed>, StoreError> {
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

    async fn head(&self, key: &str) -> Result<Option<Metadata>, StoreError> {
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

    async fn put_new(&self, key: &str, metadata: &Metadata, mut parts: Parts) -> Result<(), StoreError> {
        let abandoned = |_| StoreError::Abandoned(key.to_owned());
        let first = parts.next().await.map_err(abandoned)?.unwrap_or_default();
        let whole = first.len() < PartWriter::SMALLEST_PART;
        if whole && parts.next().await.map_err(abandoned)?.is_some() {
            return Err(StoreError::Settings(format!("a part of {key} is smaller than S3 takes")));
        }
        let upload = ulid::Ulid::generate().to_string();
        let mut metadata = metadata.clone();
        metadata.insert(UPLOAD.to_owned(), upload.clone());
        if !self.conditional.load(Ordering::Relaxed) && self.head(key).await?.is_some() {
            return Err(StoreError::Exists(key.to_owned()));
        }
        let result = if whole {
            self.unless_conditional(|| self.put_whole(key, &metadata, first.clone())).await
        } else {
            self.put_multipart(key, &metadata, first, parts).await
        };
        match result {
            // What follows a lost answer is a conflict, an unknown upload, or whatever else the server makes of it.
            Err(error) if !matches!(error, StoreError::Abandoned(_)) => {
                match self.is_ours(key, &upload).await {
                    Ok(true) => Ok(()),
                    _ => Err(error),
                }
            }
            result => result,
        }
    }
}

/// Whether the standard chain of credentials came to its end.
fn lacks_credentials(error: &(dyn std::error::Error + 'static)) -> bool {
    std::iter::successors(Some(error), |error| error.source())
        .any(<dyn std::error::Error + 'static>::is::<aws_credential_types::provider::error::CredentialsError>)
}

/// The last error of a chain: the SDK's own words are about its inner workings.
fn innermost(error: &(dyn std::error::Error + 'static)) -> String {
    let mut last = error;
    while let Some(source) = last.source() {
        last = source;
    }
    last.to_string()
}
