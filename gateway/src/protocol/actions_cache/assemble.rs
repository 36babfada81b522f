//! From the pieces of an upload to an entry that can be found, and what happens to pieces that nobody finishes.
//!
//! Pieces stream into the entry in order; nothing is in memory but a chunk. Not here: how pieces come (`blob`, `v1`).
//! Invariants: an entry is visible as a whole or not at all, and never replaces one; pieces that are a day old are
//! dropped, because their URL has long expired.

use std::{collections::VecDeque, time::Duration};

use bytes::Bytes;
use futures_util::future::join_all;
use zimcache_store::{self as store, ByteRange, EntryMeta, Precondition, Reader};
use zimcache_types::{EntryKind, Timestamp};

use super::names::{self, Name, UploadId};
use crate::{Error, body::Held, cache::Chunks, error::Result, room::Room};

/// Most pieces of one upload; what Azure allows.
pub(super) const MAX_PIECES: usize = 50_000;
/// Longest list of pieces in bytes.
pub(super) const MAX_LIST_BYTES: u64 = 8 << 20;
/// Pieces deleted at once.
const DELETED_AT_ONCE: usize = 32;
/// Most old pieces dropped by one sweep.
const SWEPT_AT_ONCE: usize = 256;
/// How old an unfinished upload gets.
const UNFINISHED: Duration = Duration::from_hours(24);

/// Makes the entry of an upload, and drops its pieces. `size` is what the client says it sent.
///
/// # Errors
/// `Conflict` when there is such an entry; `Invalid` when a piece or the end is missing.
pub(super) async fn finish(
    room: &Room<'_>,
    id: &UploadId,
    name: Name<'_>,
    size: Option<u64>,
) -> Result<u64> {
    let pieces = pieces(room, id).await?;
    let version = publish(room, name, &pieces, size).await?;
    discard(room, id, pieces).await?;
    Ok(version)
}

/// The keys of the pieces in order: of the blocks where a list of them came, else of the whole.
async fn pieces(room: &Room<'_>, id: &UploadId) -> Result<Vec<String>> {
    let Some(list) = open(room, &id.list()).await? else {
        return Ok(vec![id.whole()]);
    };
    let list = list.read_all(MAX_LIST_BYTES).await?;
    let blocks = String::from_utf8_lossy(&list);
    Ok(blocks.lines().map(|block| id.block(block)).collect())
}

/// Makes an entry of pieces, in this order.
///
/// # Errors
/// As [`finish`].
pub(super) async fn publish(
    room: &Room<'_>,
    name: Name<'_>,
    pieces: &[String],
    size: Option<u64>,
) -> Result<u64> {
    let mut assembly = Assembly {
        room,
        pieces: pieces.iter().collect(),
        piece: None,
        size,
        sent: 0,
    };
    let (kind, meta) = (EntryKind::ActionsCache, EntryMeta::default());
    room.put_entry_if(
        kind,
        &name.text(),
        meta,
        Precondition::Absent,
        &mut assembly,
    )
    .await
}

/// Drops the pieces of an upload.
///
/// # Errors
/// `Unavailable` when the store takes no writes.
pub(super) async fn discard(room: &Room<'_>, id: &UploadId, mut keys: Vec<String>) -> Result<()> {
    keys.extend([id.whole(), id.list(), id.name()]);
    keys.sort_unstable();
    keys.dedup();
    delete_all(room, &keys).await
}

async fn delete_all(room: &Room<'_>, keys: &[String]) -> Result<()> {
    for keys in keys.chunks(DELETED_AT_ONCE) {
        let deletions = keys
            .iter()
            .map(|key| room.delete_entry(EntryKind::ActionsBlock, key));
        for deleted in join_all(deletions).await {
            deleted?;
        }
    }
    Ok(())
}

/// Drops what was begun a day ago and never finished. A bounded number: the oldest come first.
///
/// # Errors
/// `Unavailable` when the store fails.
pub(super) async fn sweep(room: &Room<'_>, now: Timestamp) -> Result<()> {
    let limit = Timestamp(now.0.saturating_sub(UNFINISHED.as_millis() as u64));
    let oldest = names::oldest(limit);
    let list = |prefix| room.list_entries(EntryKind::ActionsBlock, prefix, None, SWEPT_AT_ONCE);
    let pieces = list("")
        .await?
        .into_iter()
        .filter(|row| *row.text < *oldest);
    let reservations = list(names::RESERVATIONS).await?.into_iter();
    let reservations = reservations.filter(|row| row.created < limit);
    let old: Vec<String> = pieces
        .chain(reservations)
        .map(|row| row.text.into())
        .collect();
    delete_all(room, &old).await
}

/// Opens a piece.
///
/// # Errors
/// `Unavailable` when the store fails.
pub(super) async fn open(room: &Room<'_>, key: &str) -> Result<Option<Reader>> {
    let found = room
        .open_entry(EntryKind::ActionsBlock, key, ByteRange::Full)
        .await?;
    Ok(found.map(|entry| entry.value))
}

/// Stores a short text among the pieces.
///
/// # Errors
/// `Conflict` when the precondition does not hold; `Unavailable` when the store takes no writes.
pub(super) async fn note(
    room: &Room<'_>,
    key: &str,
    text: String,
    precondition: Precondition,
) -> Result<()> {
    let (kind, meta) = (EntryKind::ActionsBlock, EntryMeta::default());
    let mut text = Held::new(text);
    room.put_entry_if(kind, key, meta, precondition, &mut text)
        .await?;
    Ok(())
}

/// Reads back what [`note`] stored.
///
/// # Errors
/// `Unavailable` when the store fails.
pub(super) async fn noted(room: &Room<'_>, key: &str) -> Result<Option<String>> {
    const LONGEST: u64 = 4 << 10;
    let Some(reader) = open(room, key).await? else {
        return Ok(None);
    };
    let text = reader.read_all(LONGEST).await?;
    Ok(String::from_utf8(text.into()).ok())
}

/// The pieces of an upload as one body.
#[derive(Debug)]
struct Assembly<'a> {
    room: &'a Room<'a>,
    pieces: VecDeque<&'a String>,
    piece: Option<Reader>,
    size: Option<u64>,
    sent: u64,
}

impl Assembly<'_> {
    async fn step(&mut self) -> Result<Option<Bytes>> {
        loop {
            if let Some(piece) = &mut self.piece
                && let Some(chunk) = piece.next_chunk().await
            {
                let chunk = chunk?;
                self.sent += chunk.len() as u64;
                return Ok(Some(chunk));
            }
            let Some(key) = self.pieces.pop_front() else {
                break;
            };
            let piece = open(self.room, key).await?;
            self.piece = Some(piece.ok_or(Error::Request("a piece was not uploaded"))?);
        }
        match self.size {
            Some(size) if size != self.sent => Err(Error::Store(store::Error::SizeMismatch {
                expected: size,
                actual: self.sent,
            })),
            _ => Ok(None),
        }
    }
}

impl Chunks for Assembly<'_> {
    async fn next(&mut self) -> Option<Result<Bytes>> {
        self.step().await.transpose()
    }

    fn announced_bytes(&self) -> Option<u64> {
        self.size
    }
}
