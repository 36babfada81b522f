//! What this node has of its own, as the others are to see it.
//!
//! The store remembers that a blob was deleted. The others hear nothing of that: to them it is a blob that is not here,
//! or its deletion would be served as a value, and be handed over to where the blob was put again.

use zimcache_store::{
    ByteRange, Record, RecordInfo, RecordKey, RecordKind, Result, Walk, WalkMark,
};

use crate::{copies::PAGE, member::Inner};

impl Inner {
    /// Opens what is under a key, deletions of entries included.
    pub(crate) async fn open(&self, key: &RecordKey, range: ByteRange) -> Result<Option<Record>> {
        let record = self.parts.replica.open_record(key, range).await?;
        Ok(record.and_then(|record| record.unless_deleted_blob(key)))
    }

    /// The next records of a walk, and where to go on.
    pub(crate) async fn walk(
        &self,
        which: Walk,
        after: Option<WalkMark>,
    ) -> Result<(Vec<RecordInfo>, Option<WalkMark>)> {
        let (mut records, next) = self.parts.replica.walk(which, after, PAGE).await?;
        records
            .retain(|record| !(record.deleted && matches!(record.key.kind, RecordKind::Blob(_))));
        Ok((records, next))
    }
}
