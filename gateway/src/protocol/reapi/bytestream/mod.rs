//! Blobs as streams of messages: `google.bytestream.ByteStream`.
//!
//! What a blob is called, plain or compressed, is in `names`. `read` gives it out in messages. `write` takes it in: the
//! messages are in `stream`, the bytes of the blob that they make in `data`, and `live` knows which writes are under way.
//! `query` says how much of one is held.

mod data;
mod live;
mod query;
mod read;
mod stream;
mod write;

pub(crate) use live::Writes;
pub(super) use query::query;
pub(super) use read::read;
pub(super) use write::write;
use zimcache_types::Namespace;

use super::names::Name;
use crate::room::Room;

/// Writes of more than so many bytes can be taken up again: the store holds whole MiB of them. For what is smaller
/// nothing is kept, nor written down.
const RESUMED_FROM: i64 = 1 << 20;

/// Where and as what a write is taken up again, if it is large enough.
fn resume_key(room: &Room<'_>, name: &Name<'_>) -> Option<(Namespace, Box<str>)> {
    if name.size_bytes <= RESUMED_FROM {
        return None;
    }
    let uuid = name.uuid.unwrap_or_default();
    let function = name.function.map_or("", |function| function.name());
    let key = format!("{function}/{}/{}/{uuid}", name.hash, name.size_bytes);
    Some((room.namespace().clone(), key.into()))
}
