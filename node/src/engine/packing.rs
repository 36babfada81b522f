//! Values made smaller on their way in, before they reach a lane: a lane only lays out, writes and syncs.
//!
//! Small ones are compressed where they are, larger ones on a thread that may take its time, so that no async thread
//! and no lane waits for a codec. The body was hashed as it came; what is stored decodes to exactly that.

use std::sync::Arc;

use bytes::Bytes;
use tokio::task::JoinHandle;
use zimcache_store::{Error, Result};

use super::{
    buffers::PartBuf,
    codec::{is_marked_compressed, looks_random},
    record::Encoding,
    shared::Shared,
};

/// Largest value compressed on an async thread: a few dozen microseconds.
const AT_ONCE_BYTES: usize = 16 << 10;

/// A part with the codec. Dropping it ends it: what was not sent to a lane is never written.
#[derive(Debug)]
pub(crate) enum Packing {
    Done(Encoding, PartBuf),
    Running(JoinHandle<(Encoding, PartBuf)>),
}

impl Packing {
    /// Whether [`Packing::finish`] answers at once.
    pub(crate) fn is_done(&self) -> bool {
        match self {
            Packing::Done(..) => true,
            Packing::Running(handle) => handle.is_finished(),
        }
    }

    /// How the part is to be stored.
    pub(crate) async fn finish(self) -> Result<(Encoding, PartBuf)> {
        match self {
            Packing::Done(encoding, part) => Ok((encoding, part)),
            Packing::Running(handle) => handle.await.map_err(|_| Error::Stopping),
        }
    }
}

impl Shared {
    /// A small value as it is to be stored.
    pub(crate) async fn pack_pieces(
        self: &Arc<Self>,
        pieces: Vec<Bytes>,
    ) -> Result<(Encoding, Vec<Bytes>)> {
        let total: usize = pieces.iter().map(Bytes::len).sum();
        let marked = pieces
            .first()
            .is_some_and(|first| is_marked_compressed(first));
        if !self.codec.takes(total) || marked || looks_random(&pieces) {
            return Ok((Encoding::Identity, pieces));
        }
        if total <= AT_ONCE_BYTES {
            return Ok(self.pack_now(pieces, total));
        }
        let shared = Arc::clone(self);
        let packing = self.on_a_codec_thread(move || shared.pack_now(pieces, total));
        packing.await?.await.map_err(|_| Error::Stopping)
    }

    fn pack_now(&self, pieces: Vec<Bytes>, total: usize) -> (Encoding, Vec<Bytes>) {
        let joined;
        let raw = if let [one] = pieces.as_slice() {
            one
        } else {
            let mut all = Vec::with_capacity(total);
            for piece in &pieces {
                all.extend_from_slice(piece);
            }
            joined = Bytes::from(all);
            &joined
        };
        let packed = self.codec.encode(raw, |encoding, stored| {
            (encoding, vec![Bytes::copy_from_slice(stored)])
        });
        packed.unwrap_or((Encoding::Identity, pieces))
    }

    /// A part as it is to be stored, in its own buffer. `opaque`: its value is known not to shrink.
    pub(crate) async fn pack_part(
        self: &Arc<Self>,
        part: PartBuf,
        opaque: bool,
    ) -> Result<(Encoding, PartBuf)> {
        self.start_packing(part, opaque).await?.finish().await
    }

    /// Hands a part to the codec.
    pub(crate) async fn start_packing(
        self: &Arc<Self>,
        mut part: PartBuf,
        opaque: bool,
    ) -> Result<Packing> {
        if opaque || !self.may_shrink(&part) {
            return Ok(Packing::Done(Encoding::Identity, part));
        }
        let shared = Arc::clone(self);
        let pack = move || {
            let packed = shared.codec.encode(part.payload(), |encoding, stored| {
                (encoding, stored.to_vec())
            });
            let Some((encoding, stored)) = packed else {
                return (Encoding::Identity, part);
            };
            part.replace(&stored);
            (encoding, part)
        };
        self.on_a_codec_thread(pack).await.map(Packing::Running)
    }

    /// Whether a sample of a part gives hope.
    fn may_shrink(&self, part: &PartBuf) -> bool {
        self.codec.takes(part.filled()) && !looks_random(&[part.payload()])
    }

    /// Starts work as soon as a processor is free for it.
    async fn on_a_codec_thread<R: Send + 'static>(
        &self,
        work: impl FnOnce() -> R + Send + 'static,
    ) -> Result<JoinHandle<R>> {
        let job = Arc::clone(&self.codec.jobs).acquire_owned().await;
        let job = job.map_err(|_| Error::Stopping)?;
        Ok(tokio::task::spawn_blocking(move || {
            let done = work();
            drop(job);
            done
        }))
    }
}
