//! Which entry a client gets: the one it names, else the newest whose name begins as it will do with.

use zimcache_store::{ByteRange, EntryInfo};
use zimcache_types::EntryKind;

use super::names::{self, Name};
use crate::{Error, error::Result, room::Room};

/// Most beginnings that one request may name.
const MAX_BEGINNINGS: usize = 32;
/// Entries looked at for one beginning, in pages: the newest of so many is found, of more one of the newest.
const PAGE: usize = 1_000;
const MAX_PAGES: usize = 10;

/// The key of the entry to give, if there is one.
///
/// # Errors
/// `Invalid` when a name is none; `Unavailable` when the store fails.
pub(super) async fn find<'b>(
    room: &Room<'_>,
    wanted: Name<'_>,
    beginnings: impl ExactSizeIterator<Item = &'b str>,
) -> Result<Option<String>> {
    if beginnings.len() > MAX_BEGINNINGS {
        return Err(Error::Request("too many keys to restore from"));
    }
    if exists(room, wanted).await? {
        return Ok(Some(wanted.key.to_owned()));
    }
    for beginning in beginnings {
        names::check_key(beginning)?;
        if let Some(key) = newest(room, wanted.version, beginning).await? {
            return Ok(Some(key));
        }
    }
    Ok(None)
}

/// Whether there is an entry of this name.
///
/// # Errors
/// `Unavailable` when the store fails.
pub(super) async fn exists(room: &Room<'_>, name: Name<'_>) -> Result<bool> {
    let kind = EntryKind::ActionsCache;
    let found = room.open_entry(kind, &name.text(), ByteRange::Full).await?;
    Ok(found.is_some())
}

async fn newest(room: &Room<'_>, version: &str, beginning: &str) -> Result<Option<String>> {
    let kind = EntryKind::ActionsCache;
    let prefix = Name {
        version,
        key: beginning,
    }
    .text();
    let (mut after, mut newest): (Option<Box<str>>, Option<EntryInfo>) = (None, None);
    for _ in 0..MAX_PAGES {
        let rows = room
            .list_entries(kind, &prefix, after.as_deref(), PAGE)
            .await?;
        let full = rows.len() == PAGE;
        after = rows.last().map(|row| row.text.clone());
        let age = |row: &EntryInfo| (row.created, row.version);
        newest = rows.into_iter().chain(newest).max_by_key(age);
        if !full {
            break;
        }
    }
    Ok(newest.and_then(|row| Some(Name::parse(&row.text).ok()?.key.to_owned())))
}
