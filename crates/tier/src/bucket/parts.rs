//! Large objects, uploaded in parts: a few at a time, each held in memory until the server has it.
//!
//! Nothing is visible before the last request, which carries the condition. A failure aborts the upload. Memory is
//! taken from a common budget before a part is read, and one part at a time, so that uploads cannot block each other.

use async_trait::async_trait;
use aws_sdk_s3::{
    primitives::ByteStream,
    types::{ChecksumAlgorithm, CompletedMultipartUpload, CompletedPart},
};
use base64::{Engine, engine::general_purpose::STANDARD};
use bytes::Bytes;
use futures_util::{StreamExt, stream::FuturesUnordered};
use tokio::{sync::OwnedSemaphorePermit, task::JoinHandle};
use zimcache_telemetry::task;

use super::{Bucket, Call, Condition, Refusal, sha256};
use crate::{Error, Operation, Result, budget::Budget};

/// Size of a part in bytes, unless the object is too large for that.
pub(crate) const PART_BYTES: u64 = 8 << 20;
/// S3 takes no more parts than this.
const MAX_PARTS: u64 = 10_000;
/// Parts of one object on their way at a time.
const IN_FLIGHT: usize = 4;

/// Where the bytes of a large object come from.
#[async_trait]
pub(crate) trait PartSource: Send {
    /// The next bytes, exactly so many; fewer only at the end, none behind it.
    async fn part(&mut self, size_bytes: u64) -> Result<Bytes>;
}

/// How large the parts of an object of this size are.
fn part_size(size_bytes: u64) -> u64 {
    PART_BYTES.max(size_bytes.div_ceil(MAX_PARTS).next_multiple_of(1 << 20))
}

type Running = FuturesUnordered<JoinHandle<Result<CompletedPart, Refusal>>>;

impl Bucket {
    /// Uploads an object in parts. `Ok(Err(Condition))` and the like when the last request was refused.
    pub(crate) async fn put_parts(
        &self,
        name: &str,
        size_bytes: u64,
        source: &mut dyn PartSource,
        memory: &Budget,
        condition: &Condition,
    ) -> Result<Result<(), Refusal>> {
        let upload = match self.begin_parts(name).await {
            Ok(upload) => upload,
            Err(refusal) => return Ok(Err(refusal)),
        };
        let sent = self
            .send_parts(name, &upload, size_bytes, source, memory)
            .await;
        let done = match sent {
            Ok(Ok(parts)) => Ok(self.end_parts(name, &upload, parts, condition).await),
            Ok(Err(refusal)) => Ok(Err(refusal)),
            Err(error) => Err(error),
        };
        if !matches!(done, Ok(Ok(()))) {
            self.abort_parts(name, &upload).await;
        }
        done
    }

    pub(super) async fn begin_parts(&self, name: &str) -> Result<String, Refusal> {
        let ask = || async {
            let request = self
                .client()
                .create_multipart_upload()
                .bucket(self.name())
                .key(name)
                .checksum_algorithm(ChecksumAlgorithm::Sha256)
                .content_type("application/octet-stream");
            self.call(Call::new(Operation::Multipart), request.send())
                .await
        };
        let answer = self.retried(ask).await?;
        let id = answer.upload_id().map(str::to_owned);
        id.ok_or_else(|| Refusal::Broken("an upload without a name".into()))
    }

    /// Sends all parts; `Ok(Err(..))` when the server refuses one, `Err` when there are no bytes to send.
    async fn send_parts(
        &self,
        name: &str,
        upload: &str,
        size_bytes: u64,
        source: &mut dyn PartSource,
        memory: &Budget,
    ) -> Result<Result<CompletedMultipartUpload, Refusal>> {
        let size = part_size(size_bytes);
        let count = usize::try_from(size_bytes.div_ceil(size)).unwrap_or(usize::MAX);
        let mut running = Running::new();
        let mut done = Vec::with_capacity(count);
        let mut number = 0;
        while done.len() < count {
            if usize::try_from(number).unwrap_or(0) < count && running.len() < IN_FLIGHT {
                let room = memory.take(size).await?;
                number += 1;
                let body = source.part(size).await?;
                running.push(self.spawn_part(name, upload, number, body, room));
                continue;
            }
            match running.next().await {
                Some(Ok(Ok(part))) => done.push(part),
                Some(Ok(Err(refusal))) => return Ok(Err(refusal)),
                Some(Err(_)) | None => return Err(Error::Stopping),
            }
        }
        done.sort_by_key(CompletedPart::part_number);
        let parts = CompletedMultipartUpload::builder().set_parts(Some(done));
        Ok(Ok(parts.build()))
    }

    fn spawn_part(
        &self,
        name: &str,
        upload: &str,
        number: i32,
        body: Bytes,
        room: OwnedSemaphorePermit,
    ) -> JoinHandle<Result<CompletedPart, Refusal>> {
        let bucket = self.clone();
        let (name, upload) = (name.to_owned(), upload.to_owned());
        task::spawn("upload of a part", async move {
            let sent = bucket.put_part(&name, &upload, number, body).await;
            drop(room);
            sent
        })
    }

    async fn put_part(
        &self,
        name: &str,
        upload: &str,
        number: i32,
        body: Bytes,
    ) -> Result<CompletedPart, Refusal> {
        let sum = STANDARD.encode(sha256(&body));
        let call = Call::with_body(Operation::Multipart, body.len() as u64);
        let ask = || async {
            let request = self
                .client()
                .upload_part()
                .bucket(self.name())
                .key(name)
                .upload_id(upload)
                .part_number(number)
                .checksum_sha256(&sum)
                .body(ByteStream::from(body.clone()));
            self.call(call, request.send()).await
        };
        let answer = self.retried(ask).await?;
        let part = CompletedPart::builder()
            .part_number(number)
            .set_e_tag(answer.e_tag().map(str::to_owned))
            .checksum_sha256(sum.clone());
        Ok(part.build())
    }

    pub(super) async fn end_parts(
        &self,
        name: &str,
        upload: &str,
        parts: CompletedMultipartUpload,
        condition: &Condition,
    ) -> Result<(), Refusal> {
        let request = self
            .client()
            .complete_multipart_upload()
            .bucket(self.name())
            .key(name)
            .upload_id(upload)
            .multipart_upload(parts)
            .set_if_none_match(condition.if_none_match())
            .set_if_match(condition.if_match());
        // The server puts the object together before it answers: time as for a large body.
        let call = condition.call(Operation::Multipart, 64 << 20);
        self.call(call, request.send()).await.map(|_| ())
    }

    /// Gives an upload up. What cannot be aborted now falls to the bucket's rules or to the sweep.
    pub(super) async fn abort_parts(&self, name: &str, upload: &str) {
        let request = self
            .client()
            .abort_multipart_upload()
            .bucket(self.name())
            .key(name)
            .upload_id(upload);
        let aborted = self
            .call(Call::new(Operation::Multipart), request.send())
            .await;
        if let Err(refusal) = aborted {
            tracing::debug!(?refusal, "an unfinished upload is left behind");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_object_has_more_parts_than_s3_takes() {
        assert_eq!(part_size(17 << 20), PART_BYTES);
        for size in [80_u64 << 30, 1 << 40, 5 << 40] {
            assert!(size.div_ceil(part_size(size)) <= MAX_PARTS, "{size}");
            assert!(part_size(size) <= size / MAX_PARTS + (1 << 20));
        }
    }
}
