//! Values of the local store, in the form in which a peer gives and takes them.

use std::sync::Arc;

use async_trait::async_trait;
use bytes::Bytes;
use zimcache_link::{Body, Found, Result, Writing};
use zimcache_store::{Pins, Reader, Record, RecordWriter, Written};

/// A value being read.
#[derive(Debug)]
struct Local {
    reader: Reader,
    _busy: Arc<()>,
}

#[async_trait]
impl Body for Local {
    async fn next(&mut self) -> Option<Result<Bytes>> {
        let chunk = self.reader.next_chunk().await?;
        Some(chunk.map_err(Into::into))
    }
}

/// A record of ours, as the answer to a read. `is_unsure`: whether this node may have missed a newer version.
pub(crate) fn found(record: Record, is_unsure: bool, busy: &Arc<()>) -> Found {
    Found::Yes {
        head: record.head,
        created: record.created,
        pins: record.pins,
        total_bytes: record.value.total_bytes(),
        is_unsure,
        body: Box::new(Local {
            reader: record.value,
            _busy: Arc::clone(busy),
        }),
    }
}

/// A value being written.
#[derive(Debug)]
pub(crate) struct Taking {
    pub(crate) writer: Box<dyn RecordWriter>,
    /// Whether all that is new has to go to the durable tier.
    pub(crate) dirty: bool,
    pub(crate) _busy: Arc<()>,
}

#[async_trait]
impl Writing for Taking {
    fn offset(&self) -> u64 {
        self.writer.offset()
    }

    async fn write(&mut self, chunk: Bytes) -> Result<()> {
        Ok(self.writer.write(chunk).await?)
    }

    async fn commit(self: Box<Self>, pins: Pins) -> Result<Written> {
        let pins = Pins {
            dirty: pins.dirty || self.dirty,
            hint: pins.hint,
        };
        Ok(self.writer.commit(pins).await?)
    }
}
