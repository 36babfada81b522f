//! Blobs of an action result in the answer itself, where the client asks for them.
//!
//! A client may ask for standard output, standard error and files by path; the server may leave out what it likes. Here
//! that is what does not fit in [`MOST_BYTES`] together, and what cannot be read just now. Invariant: the result keeps
//! every byte it has, fields unknown to us included; content is added behind what is there.

use std::{collections::HashSet, iter, ops::Range};

use bytes::Bytes;
use futures_util::{StreamExt as _, stream};
use prost::encoding::{WireType, encode_key, encode_varint};
use zimcache_proto::{
    reapi::GetActionResultRequest,
    wire::{Field, slices},
};
use zimcache_store::ByteRange;
use zimcache_types::Digest;

use crate::{
    action::{OutputFile, RawDigest},
    cache::Named,
    grpc::Pieces,
    room::Room,
};

/// Most bytes that are added to an answer.
const MOST_BYTES: u64 = 1 << 20;
/// Results longer than this are answered as they are: with what is added they stay well below 4 MiB.
const MOST_RESULT_BYTES: usize = 2 << 20;
/// How many blobs are read at once.
const AT_ONCE: usize = 16;

/// Numbers of fields of an action result.
const OUTPUT_FILE: u32 = 2;
const STDOUT_RAW: u32 = 5;
const STDOUT_DIGEST: u32 = 6;
const STDERR_RAW: u32 = 7;
const STDERR_DIGEST: u32 = 8;
/// Number of `contents` in an output file.
const CONTENTS: u32 = 5;

/// Where content goes.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Place {
    /// Behind the result, as this field.
    Stream(u32),
    /// Into an output file.
    File {
        /// Where its field lies in the result.
        field: Range<usize>,
        /// Where the file itself begins there.
        start: usize,
    },
}

/// A blob that is wanted inline.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Wish {
    place: Place,
    blob: Digest,
}

/// What the client wants inline of this result, and can have.
pub(super) fn wishes(request: &GetActionResultRequest, action: &Named, result: &[u8]) -> Vec<Wish> {
    let paths = &request.inline_output_files;
    let asked = request.inline_stdout || request.inline_stderr || !paths.is_empty();
    if !asked || result.len() > MOST_RESULT_BYTES {
        return Vec::new();
    }
    let paths = paths.iter().map(String::as_str).collect();
    let mut left = MOST_BYTES;
    let granted = |wish: &Wish| {
        let size = wish.blob.size_bytes.unwrap_or(u64::MAX);
        let fits = size > 0 && size <= left;
        left -= if fits { size } else { 0 };
        fits
    };
    let named = asked_for(request, &paths, result).into_iter();
    let wishes = named.filter_map(|(place, digest)| {
        let blob = digest.under(action.function()).ok()?;
        Some(Wish { place, blob })
    });
    wishes.filter(granted).collect()
}

/// What of it is in the result by digest only.
fn asked_for<'a>(
    request: &GetActionResultRequest,
    paths: &HashSet<&str>,
    result: &'a [u8],
) -> Vec<(Place, RawDigest<'a>)> {
    let (mut files, mut streams, mut inline) = (Vec::new(), Vec::new(), Vec::new());
    for (field, number, value) in located(result) {
        match number {
            OUTPUT_FILE if !paths.is_empty() => {
                let file = OutputFile::read(value).ok();
                let wanted = file.filter(|it| it.inlined_bytes == 0 && paths.contains(it.path));
                let start = field.end - value.len();
                let digest = wanted.and_then(|file| file.digest);
                files.extend(digest.map(|digest| (Place::File { field, start }, digest)));
            }
            STDOUT_DIGEST if request.inline_stdout => streams.push((STDOUT_RAW, value)),
            STDERR_DIGEST if request.inline_stderr => streams.push((STDERR_RAW, value)),
            STDOUT_RAW | STDERR_RAW if !value.is_empty() => inline.push(number),
            _ => {}
        }
    }
    let streams = streams.into_iter().filter_map(|(raw, value)| {
        let digest = RawDigest::read(value).ok()?;
        (!inline.contains(&raw)).then_some((Place::Stream(raw), digest))
    });
    streams.chain(files).collect()
}

/// The result with the content of these blobs; without those that cannot be read now.
pub(super) async fn grant(
    room: &Room<'_>,
    action: &Named,
    wishes: Vec<Wish>,
    result: &Bytes,
) -> Pieces {
    let reading = stream::iter(wishes).map(|wish| read(room, action.certain, wish));
    let granted: Vec<_> = reading.buffered(AT_ONCE).collect().await;
    let (mut added, mut streams) = (0, Vec::new());
    let mut answer = Pieces::with_capacity(result.len());
    for (place, content) in granted.into_iter().flatten() {
        match place {
            Place::Stream(number) => streams.push((number, content)),
            Place::File { field, start } => {
                answer.raw(&result.slice(added..field.start));
                let file = with_contents(&result[start..field.end], &content);
                answer.small_field(OUTPUT_FILE, &file);
                added = field.end;
            }
        }
    }
    answer.raw(&result.slice(added..));
    for (number, content) in streams {
        answer.small_field(number, &content);
    }
    answer
}

async fn read(room: &Room<'_>, certain: bool, wish: Wish) -> Option<(Place, Bytes)> {
    let named = Named {
        digest: wish.blob,
        certain,
    };
    let reader = room.open_blob(&named, ByteRange::Full).await.ok()??;
    let content = reader.read_all(MOST_BYTES).await.ok()?;
    Some((wish.place, content))
}

fn with_contents(file: &[u8], content: &[u8]) -> Vec<u8> {
    let mut whole = Vec::with_capacity(file.len() + content.len() + 8);
    whole.extend_from_slice(file);
    encode_key(CONTENTS, WireType::LengthDelimited, &mut whole);
    encode_varint(content.len() as u64, &mut whole);
    whole.extend_from_slice(content);
    whole
}

/// The fields with bytes in them: where each lies, its number and value.
fn located(message: &[u8]) -> impl Iterator<Item = (Range<usize>, u32, &[u8])> {
    let mut walk = slices(message);
    let mut start = 0;
    let fields = iter::from_fn(move || {
        let (number, value) = walk.next()?.ok()?;
        let end = message.len() - walk.rest().len();
        let field = start..end;
        start = end;
        Some((field, number, value))
    });
    fields.filter_map(|(field, number, value)| match value {
        Field::Bytes(value) => Some((field, number, value)),
        Field::Number(_) | Field::Fixed(_) => None,
    })
}
