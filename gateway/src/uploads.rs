//! Blobs on their way in.
//!
//! Invariants: a body is always verified, also when the blob exists, and nothing of it is visible before; what an
//! interrupted upload left behind is used only under the name it was left under.

use bytes::Bytes;
use zimcache_store::{self as store, BlobWriter, CreateOptions};
use zimcache_types::{Digest, Namespace};

use crate::{
    Error,
    cache::{Cache, Chunks, Named},
    error::Result,
};

/// Bodies up to this size are kept until their digest verified, to be tried under the other hash functions that have
/// hashes of the same length.
const KEPT_BYTES: u64 = 1 << 20;

/// How a blob is stored.
#[derive(Debug, Clone, Copy, Default)]
pub struct Put<'a> {
    /// The blob starts with a lease.
    pub lease: bool,
    /// The name under which the upload is taken up again if it is interrupted. It costs nothing before the store holds
    /// the first MiB.
    pub resume_as: Option<&'a str>,
}

impl Put<'_> {
    /// Under a lease, all at once.
    pub const LEASED: Put<'static> = Put {
        lease: true,
        resume_as: None,
    };
}

impl Cache {
    /// Stores a blob. A hash whose function is not certain is right when any that has hashes of its length gives it: the
    /// likeliest one in this namespace verifies while the body streams, and a body of up to 1 MiB is tried under the
    /// others.
    ///
    /// # Errors
    /// `Invalid` when the body has another hash or size or is cut short, `TooLarge`, `Timeout`, `OutOfSpace`,
    /// `Unavailable`.
    pub async fn put_blob(
        &self,
        namespace: &Namespace,
        named: &Named,
        put: Put<'_>,
        body: &mut impl Chunks,
    ) -> Result<()> {
        self.check_size(named.digest.size_bytes)?;
        let mut readings = self.readings(namespace, named);
        let likeliest = readings.next().unwrap_or(named.digest);
        let mut writer = self.create_blob(namespace, likeliest, put).await?;
        if put.resume_as.is_some() {
            body.begin_at(writer.offset())?;
        }
        let mut kept = Kept::from(writer.offset());
        while let Some(chunk) = body.next().await {
            let chunk = chunk?;
            kept.push(&chunk);
            writer.write(chunk).await?;
        }
        let Err(failure) = writer.commit().await else {
            self.functions.learn(namespace, likeliest.hash.function());
            return Ok(());
        };
        let chunks = kept.after(&failure).ok_or(failure)?;
        let again = Put {
            resume_as: None,
            ..put
        };
        for digest in readings {
            let mut writer = self.create_blob(namespace, digest, again).await?;
            for chunk in &chunks {
                writer.write(chunk.clone()).await?;
            }
            if settled(writer.commit().await)? {
                self.functions.learn(namespace, digest.hash.function());
                return Ok(());
            }
        }
        Err(Error::WrongHash)
    }

    /// How many bytes of an interrupted upload are held.
    ///
    /// # Errors
    /// `Unavailable` when the store cannot tell or takes no writes.
    pub async fn held_bytes(
        &self,
        namespace: &Namespace,
        named: &Named,
        resume_as: &str,
    ) -> Result<u64> {
        let likeliest = self.readings(namespace, named).next();
        let put = Put {
            resume_as: Some(resume_as),
            ..Put::default()
        };
        let writer = self.create_blob(namespace, likeliest.unwrap_or(named.digest), put);
        Ok(writer.await?.offset())
    }

    async fn create_blob(
        &self,
        namespace: &Namespace,
        digest: Digest,
        put: Put<'_>,
    ) -> Result<Box<dyn BlobWriter>> {
        let options = CreateOptions {
            limit_bytes: Some(self.max_value_bytes),
            lease: put.lease,
            resume_as: put.resume_as.map(Box::from),
        };
        Ok(self.blobs.create(namespace, &digest, options).await?)
    }
}

/// The chunks of a body that is still small enough to be tried again.
#[derive(Debug)]
struct Kept {
    chunks: Vec<Bytes>,
    /// Of the body so far, with what was held before it.
    bytes: u64,
    whole: bool,
}

impl Kept {
    /// For a body that begins at this byte. Only a whole one can be tried again.
    const fn from(first: u64) -> Kept {
        Kept {
            chunks: Vec::new(),
            bytes: first,
            whole: first == 0,
        }
    }

    fn push(&mut self, chunk: &Bytes) {
        self.bytes = self.bytes.saturating_add(chunk.len() as u64);
        self.whole &= self.bytes <= KEPT_BYTES;
        if self.whole {
            self.chunks.push(chunk.clone());
        } else {
            self.chunks = Vec::new();
        }
    }

    /// All chunks, when the failure was the hash and nothing had to be let go.
    fn after(self, failure: &store::Error) -> Option<Vec<Bytes>> {
        let wrong_hash = matches!(failure, store::Error::DigestMismatch { .. });
        (wrong_hash && self.whole).then_some(self.chunks)
    }
}

/// Whether a commit succeeded; a wrong hash only means no.
fn settled(committed: store::Result<u64>) -> Result<bool> {
    match committed {
        Ok(_) => Ok(true),
        Err(store::Error::DigestMismatch { .. }) => Ok(false),
        Err(error) => Err(error.into()),
    }
}
