//! Writing, copying and removing objects.

use aws_sdk_s3::{
    primitives::ByteStream,
    types::{CompletedMultipartUpload, CompletedPart, MetadataDirective},
};
use base64::{Engine, engine::general_purpose::STANDARD};
use bytes::Bytes;
use zimcache_types::{Digest, Function};

use super::{Bucket, Call, Refusal, timestamp};
use crate::{Operation, Result};

/// Largest object that a plain copy takes, in bytes.
const COPY_LIMIT_BYTES: u64 = 5 << 30;
/// Bytes copied by one part of a copy in parts: the most that S3 takes, so that 5 TiB are 1,024 parts.
const COPY_PART_BYTES: u64 = 5 << 30;

/// When a write may take effect.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Condition {
    /// Whatever is there.
    Always,
    /// When there is no object of this name.
    Absent,
    /// When the object has this ETag.
    Unchanged(Box<str>),
}

impl Condition {
    pub(super) fn if_none_match(&self) -> Option<String> {
        (*self == Condition::Absent).then(|| "*".to_owned())
    }

    pub(super) fn if_match(&self) -> Option<String> {
        match self {
            Condition::Unchanged(etag) => Some(etag.to_string()),
            Condition::Always | Condition::Absent => None,
        }
    }

    pub(super) fn call(&self, operation: Operation, body_bytes: u64) -> Call {
        Call {
            conditional: *self != Condition::Always,
            ..Call::with_body(operation, body_bytes)
        }
    }
}

/// What became of a copy of an object onto itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Copied {
    /// It is as young as can be.
    Yes,
    /// There is no such object.
    Absent,
}

impl Bucket {
    /// Writes a whole object once. `sha256` is that of the body; the server verifies it. Not repeated: after a broken
    /// connection nobody knows.
    pub(crate) async fn put(
        &self,
        name: &str,
        body: Bytes,
        sha256: [u8; 32],
        condition: &Condition,
    ) -> Result<(), Refusal> {
        let call = condition.call(Operation::Put, body.len() as u64);
        let request = self
            .client()
            .put_object()
            .bucket(self.name())
            .key(name)
            .checksum_sha256(STANDARD.encode(sha256))
            .content_type("application/octet-stream")
            .set_if_none_match(condition.if_none_match())
            .set_if_match(condition.if_match())
            .body(ByteStream::from(body));
        match self.call(call, request.send()).await {
            Ok(_) => Ok(()),
            // Of a write that may only replace: what it was to replace is gone.
            Err(Refusal::Absent) => Err(Refusal::Condition),
            Err(Refusal::NoBucket) if self.settings().create_bucket => {
                self.make_bucket().await?;
                Err(Refusal::Busy)
            }
            Err(refusal) => Err(refusal),
        }
    }

    /// Removes an object. That there is none is a success.
    ///
    /// # Errors
    /// `Unreachable`, `Refused`.
    pub(crate) async fn remove(&self, name: &str) -> Result<()> {
        let ask = || async {
            let request = self.client().delete_object().bucket(self.name()).key(name);
            self.call(Call::new(Operation::Delete), request.send())
                .await
        };
        match self.retried(ask).await {
            Ok(_) | Err(Refusal::Absent) => Ok(()),
            Err(refusal) => Err(refusal.into_error(Operation::Delete)),
        }
    }

    /// Makes an object young again by a copy onto itself.
    ///
    /// # Errors
    /// `Unreachable`, `Refused`.
    pub(crate) async fn renew(&self, name: &str, size_bytes: u64) -> Result<Copied> {
        let copied = match self.copy(name, size_bytes).await {
            Ok(true) => Ok(()),
            // versitygw 1.8.0 takes the copy for a change of metadata and leaves the time alone.
            Ok(false) => self.copy_in_parts(name, size_bytes).await,
            Err(refusal) => Err(refusal),
        };
        match copied {
            Ok(()) => Ok(Copied::Yes),
            Err(Refusal::Absent) => Ok(Copied::Absent),
            Err(refusal) => Err(refusal.into_error(Operation::Copy)),
        }
    }

    /// Whether a plain copy made the object younger.
    async fn copy(&self, name: &str, size_bytes: u64) -> Result<bool, Refusal> {
        if size_bytes > COPY_LIMIT_BYTES {
            return Ok(false);
        }
        let ask = || async {
            let request = self
                .client()
                .copy_object()
                .bucket(self.name())
                .key(name)
                .copy_source(self.source(name))
                .metadata_directive(MetadataDirective::Replace)
                .content_type("application/octet-stream");
            self.call(Call::new(Operation::Copy), request.send()).await
        };
        let answer = self.retried(ask).await?;
        let modified = answer.copy_object_result().and_then(|r| r.last_modified());
        let half = self.settings().ttl.unwrap_or_default() / 2;
        Ok(self.age(timestamp(modified)) < half)
    }

    async fn copy_in_parts(&self, name: &str, size_bytes: u64) -> Result<(), Refusal> {
        let upload = self.begin_parts(name).await?;
        let copied = self.copy_parts(name, &upload, size_bytes).await;
        let done = match copied {
            Ok(parts) => {
                self.end_parts(name, &upload, parts, &Condition::Always)
                    .await
            }
            Err(refusal) => Err(refusal),
        };
        if done.is_err() {
            self.abort_parts(name, &upload).await;
        }
        done
    }

    async fn copy_parts(
        &self,
        name: &str,
        upload: &str,
        size_bytes: u64,
    ) -> Result<CompletedMultipartUpload, Refusal> {
        let mut parts = CompletedMultipartUpload::builder();
        let count = size_bytes.div_ceil(COPY_PART_BYTES).max(1);
        for (number, index) in (1..).zip(0..count) {
            let first = index * COPY_PART_BYTES;
            let last = (first + COPY_PART_BYTES).min(size_bytes).saturating_sub(1);
            let range = (size_bytes > 0).then(|| format!("bytes={first}-{last}"));
            let ask = || async {
                let request = self
                    .client()
                    .upload_part_copy()
                    .bucket(self.name())
                    .key(name)
                    .upload_id(upload)
                    .part_number(number)
                    .copy_source(self.source(name))
                    .set_copy_source_range(range.clone());
                self.call(Call::new(Operation::Copy), request.send()).await
            };
            let answer = self.retried(ask).await?;
            let result = answer.copy_part_result();
            let part = CompletedPart::builder()
                .part_number(number)
                .set_e_tag(result.and_then(|part| part.e_tag()).map(str::to_owned))
                .set_checksum_sha256(result.and_then(|p| p.checksum_sha256()).map(str::to_owned));
            parts = parts.parts(part.build());
        }
        Ok(parts.build())
    }

    /// The object as the source of a copy. Names of objects need no escapes.
    fn source(&self, name: &str) -> String {
        format!("{}/{name}", self.name())
    }
}

/// The SHA-256 of a body.
pub(crate) fn sha256(body: &[u8]) -> [u8; 32] {
    let mut sum = [0; 32];
    sum.copy_from_slice(Digest::of(Function::Sha256, body).hash.as_bytes());
    sum
}
