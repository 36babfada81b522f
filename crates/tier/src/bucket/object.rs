//! Reading objects: a range that streams and goes on after a broken connection, and what the server says about one.

use std::ops::Range;

use aws_sdk_s3::primitives::ByteStream;
use bytes::Bytes;
use zimcache_store::ByteRange;
use zimcache_types::Timestamp;

use super::{Bucket, Call, Refusal, Stat, timestamp};
use crate::{Error, Operation, Result};

/// How often one read goes on after its connection broke.
const RESUMES: u32 = 3;

/// An object being read. Its bytes are not verified.
#[derive(Debug)]
pub struct Object {
    bucket: Bucket,
    name: String,
    stat: Stat,
    /// What is still to come.
    rest: Range<u64>,
    body: ByteStream,
    resumes: u32,
}

impl Bucket {
    /// Opens an object by its full name; `None` when there is none. One request.
    ///
    /// # Errors
    /// `RangeInvalid`, `NoBucket`, `Unreachable`, `Refused`.
    pub async fn get(&self, name: &str, range: ByteRange) -> Result<Option<Object>> {
        let opened = self
            .retried(|| self.open_at(name, header(range), None))
            .await;
        match opened {
            Ok(object) => Ok(Some(object)),
            Err(Refusal::Absent) => Ok(None),
            Err(refusal) => Err(refusal.into_error(Operation::Get)),
        }
    }

    /// What the server says about an object; `None` when there is none.
    ///
    /// # Errors
    /// `Unreachable`, `Refused`.
    pub async fn head(&self, name: &str) -> Result<Option<Stat>> {
        let ask = || async {
            let request = self.client().head_object().bucket(self.name()).key(name);
            self.call(Call::new(Operation::Head), request.send()).await
        };
        match self.retried(ask).await {
            Ok(answer) => Ok(Some(Stat {
                size_bytes: length(answer.content_length()),
                modified: timestamp(answer.last_modified()),
                etag: answer.e_tag().unwrap_or_default().into(),
            })),
            Err(Refusal::Absent) => Ok(None),
            Err(refusal) => Err(refusal.into_error(Operation::Head)),
        }
    }

    async fn open_at(
        &self,
        name: &str,
        range: Option<String>,
        etag: Option<&str>,
    ) -> Result<Object, Refusal> {
        let request = self
            .client()
            .get_object()
            .bucket(self.name())
            .key(name)
            .set_range(range)
            .set_if_match(etag.map(str::to_owned));
        let answer = self.call(Call::new(Operation::Get), request.send()).await?;
        let here = length(answer.content_length());
        let (first, total) = match answer.content_range().map(content_range) {
            Some(Some(place)) => place,
            Some(None) => return Err(Refusal::Broken("a content range nobody can read".into())),
            None => (0, here),
        };
        Ok(Object {
            bucket: self.clone(),
            name: name.to_owned(),
            stat: Stat {
                size_bytes: total,
                modified: timestamp(answer.last_modified()),
                etag: answer.e_tag().unwrap_or_default().into(),
            },
            rest: first..first + here,
            body: answer.body,
            resumes: 0,
        })
    }
}

impl Object {
    /// What the server says about the object.
    pub const fn stat(&self) -> &Stat {
        &self.stat
    }

    /// Which bytes of it are still to come.
    pub fn remaining(&self) -> Range<u64> {
        self.rest.clone()
    }

    /// When it was last written.
    pub const fn modified(&self) -> Timestamp {
        self.stat.modified
    }

    /// The next bytes; `None` at the end. A broken connection is taken up again where it broke, as long as the object
    /// is the same.
    ///
    /// # Errors
    /// `Unreachable`; `Contended` when the object was changed meanwhile.
    pub async fn next_chunk(&mut self) -> Option<Result<Bytes>> {
        while !self.rest.is_empty() {
            let patience = self.bucket.settings().request_timeout;
            let detail = match tokio::time::timeout(patience, self.body.next()).await {
                Ok(Some(Ok(chunk))) if chunk.is_empty() => continue,
                Ok(Some(Ok(chunk))) => return Some(self.take(chunk)),
                Ok(Some(Err(error))) => error.to_string(),
                Ok(None) => "the body ended early".to_owned(),
                Err(_) => "the body stalled".to_owned(),
            };
            if let Err(error) = self.resume(&detail).await {
                return Some(Err(error));
            }
        }
        None
    }

    fn take(&mut self, chunk: Bytes) -> Result<Bytes> {
        let length = chunk.len() as u64;
        if length > self.rest.end - self.rest.start {
            return Err(Error::Corrupt("more bytes than announced"));
        }
        self.rest.start += length;
        Ok(chunk)
    }

    async fn resume(&mut self, detail: &str) -> Result<()> {
        if self.resumes == RESUMES {
            return Err(Error::Unreachable {
                action: Operation::Get.action(),
                detail: detail.into(),
            });
        }
        self.resumes += 1;
        self.bucket.pause(self.resumes).await;
        let range = Some(format!("bytes={}-{}", self.rest.start, self.rest.end - 1));
        let etag = Some(&*self.stat.etag).filter(|etag| !etag.is_empty());
        let again = self.bucket.open_at(&self.name, range, etag).await;
        let again = again.map_err(|refusal| refusal.into_error(Operation::Get))?;
        if again.rest != self.rest {
            return Err(Error::Corrupt("another range than asked for"));
        }
        self.body = again.body;
        Ok(())
    }
}

fn length(bytes: Option<i64>) -> u64 {
    u64::try_from(bytes.unwrap_or(0)).unwrap_or(0)
}

fn header(range: ByteRange) -> Option<String> {
    match range {
        ByteRange::Full => None,
        ByteRange::From { first, last: None } => Some(format!("bytes={first}-")),
        ByteRange::From {
            first,
            last: Some(last),
        } => Some(format!("bytes={first}-{last}")),
        ByteRange::Suffix(length) => Some(format!("bytes=-{length}")),
    }
}

/// First byte and total size, of `bytes 5-9/100`.
fn content_range(text: &str) -> Option<(u64, u64)> {
    let (range, total) = text.strip_prefix("bytes ")?.split_once('/')?;
    let (first, _) = range.split_once('-')?;
    Some((first.parse().ok()?, total.parse().ok()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ranges_are_written_and_read_as_http_says() {
        let from = |first, last| ByteRange::From { first, last };
        assert_eq!(header(ByteRange::Full), None);
        assert_eq!(header(from(5, None)).unwrap(), "bytes=5-");
        assert_eq!(header(from(5, Some(9))).unwrap(), "bytes=5-9");
        assert_eq!(header(ByteRange::Suffix(3)).unwrap(), "bytes=-3");
        assert_eq!(content_range("bytes 5-9/100"), Some((5, 100)));
        assert_eq!(content_range("bytes 5-9/*"), None);
        assert_eq!(content_range("lines 5-9/100"), None);
    }
}
