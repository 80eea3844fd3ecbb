//! **Uploading** to S3: whole or in parts, published by one conditional request, and recognised as ours when its
//! answer was lost.

use std::sync::atomic::Ordering;

use aws_sdk_s3::primitives::ByteStream;
use aws_sdk_s3::types::{CompletedMultipartUpload, CompletedPart};
use bytes::Bytes;

use super::body::{PartWriter, Parts};
use super::s3::{S3Store, innermost};
use super::{Metadata, StoreError};
use crate::metrics::Operation;

/// Metadata key that tells our own upload from another writer's when an answer was lost.
const UPLOAD: &str = "upload";

/// An object of more is not sent twice to find something out.
const PROBE_BYTES: usize = 64 << 10;

impl S3Store {
    pub(super) async fn put_new(
        &self,
        key: &str,
        metadata: &Metadata,
        mut parts: Parts,
    ) -> Result<(), StoreError> {
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
            let put = self.unless_conditional(|| self.put_whole(key, &metadata, first.clone())).await;
            if put.is_ok() && first.len() <= PROBE_BYTES {
                self.probe(key, &metadata, first).await;
            }
            put
        } else {
            self.put_multipart(key, &metadata, first, parts).await
        };
        match result {
            // What follows a lost answer is a conflict, an unknown upload, or whatever else the server makes of it.
            Err(error) if !matches!(error, StoreError::Abandoned(_)) => {
                match self.is_ours(key, &upload).await {
                    Ok(true) => Ok(()),
                    // Whose the object is could not be asked: no word of another writer.
                    Err(unknown) if matches!(error, StoreError::Exists(_)) => Err(unknown),
                    _ => Err(error),
                }
            }
            result => result,
        }
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

    /// Finds out, once, whether the server honours the condition: the same object under the same key must be refused. If
    /// it is taken instead, the object is what it was.
    async fn probe(&self, key: &str, metadata: &Metadata, body: Bytes) {
        if !self.is_lasting()
            || !self.conditional.load(Ordering::Relaxed)
            || self.probed.load(Ordering::Relaxed)
        {
            return;
        }
        match self.put_whole(key, metadata, body).await {
            Ok(()) => {
                self.conditional.store(false, Ordering::Relaxed);
                tracing::info!(
                    "the store does not honour conditional writes: another writer is looked for before each"
                );
            }
            Err(StoreError::Exists(_)) => {
                self.probed.store(true, Ordering::Relaxed);
                tracing::info!("the store honours conditional writes");
            }
            // It is asked again after the next upload.
            Err(error) => {
                tracing::debug!(%error, "whether the store honours conditional writes is not known yet");
            }
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

    /// Whether a conflict is with our own upload, whose answer was lost and which was sent again.
    async fn is_ours(&self, key: &str, upload: &str) -> Result<bool, StoreError> {
        Ok(self
            .head(key)
            .await?
            .is_some_and(|metadata| metadata.get(UPLOAD).is_some_and(|told| told == upload)))
    }
}
