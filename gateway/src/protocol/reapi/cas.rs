//! Which blobs are missing: `ContentAddressableStorage.FindMissingBlobs`.
//!
//! The call that clients send most, with thousands of digests at once. So the request is walked where it lies, without
//! a string per digest, the store answers from its index, and what is missing is answered with the very bytes in which
//! it was asked. "Present" is a lease. Other calls about blobs: `batch`, `tree`, `chunks`, `bytestream`.

use std::ops::Range;

use bytes::Bytes;
use http::Response;
use prost::encoding::{WireType, decode_key, decode_varint};

use super::{digests, room_of};
use crate::{
    body::Body,
    call::Call,
    grpc::{self, Messages, Outcome, Pieces, Status},
};

/// Number of `missing_blob_digests` in the answer.
const MISSING: u32 = 2;
/// Fewest bytes that a digest takes in a request.
const LEAST_DIGEST_BYTES: usize = 40;

/// Answers `FindMissingBlobs`.
pub(super) async fn find_missing(call: Call<'_>) -> Outcome<Response<Body>> {
    call.principal().await?;
    let shared = call.shared;
    let message = Messages::new(call.upload, &shared.messages).only().await?;
    let request = Request::read(&message).ok_or_else(malformed)?;
    let reader = digests::Reader::new(&shared.config, request.function)?;
    let room = room_of(&call, request.instance_name).await?;
    let mut digests = Vec::with_capacity(request.digests.len());
    let mut certain = true;
    for place in &request.digests {
        let (hash, size) = hash_and_size(&message[place.clone()]).ok_or_else(malformed)?;
        let named = reader.parts(hash, size).map_err(Status::invalid)?;
        certain &= named.certain;
        digests.push(named.digest);
    }
    let missing = room.missing_blobs(&digests, certain).await?;
    let mut answer = Pieces::with_capacity(0);
    let absent = request
        .digests
        .iter()
        .zip(missing)
        .filter(|(_, gone)| *gone);
    for (place, _) in absent {
        answer.small_field(MISSING, &message[place.clone()]);
    }
    Ok(grpc::unary_pieces(answer))
}

/// A request, as places in its message.
#[derive(Debug, PartialEq, Eq)]
struct Request<'a> {
    instance_name: &'a str,
    /// Where each digest lies.
    digests: Vec<Range<usize>>,
    function: i32,
}

impl Request<'_> {
    /// Finds the fields; `None` when the message is none.
    fn read(message: &Bytes) -> Option<Request<'_>> {
        let mut request = Request {
            instance_name: "",
            digests: Vec::with_capacity(message.len() / LEAST_DIGEST_BYTES),
            function: 0,
        };
        let mut rest: &[u8] = message;
        while !rest.is_empty() {
            let (number, wire_type) = decode_key(&mut rest).ok()?;
            match (number, wire_type) {
                (1 | 2, WireType::LengthDelimited) => {
                    let length = usize::try_from(decode_varint(&mut rest).ok()?).ok()?;
                    let start = message.len() - rest.len();
                    let (value, behind) = rest.split_at_checked(length)?;
                    rest = behind;
                    if number == 1 {
                        request.instance_name = str::from_utf8(value).ok()?;
                    } else {
                        request.digests.push(start..start + length);
                    }
                }
                // An enum is a 32-bit number, however long it was written.
                (3, WireType::Varint) => request.function = decode_varint(&mut rest).ok()? as i32,
                _ => skip(wire_type, &mut rest)?,
            }
        }
        Some(request)
    }
}

/// Reads an encoded digest where it lies.
fn hash_and_size(mut encoded: &[u8]) -> Option<(&[u8], i64)> {
    let (mut hash, mut size) = (&[][..], 0);
    while !encoded.is_empty() {
        match decode_key(&mut encoded).ok()? {
            (1, WireType::LengthDelimited) => {
                let length = usize::try_from(decode_varint(&mut encoded).ok()?).ok()?;
                let (value, behind) = encoded.split_at_checked(length)?;
                (hash, encoded) = (value, behind);
            }
            (2, WireType::Varint) => size = decode_varint(&mut encoded).ok()?.cast_signed(),
            (_, wire_type) => skip(wire_type, &mut encoded)?,
        }
    }
    Some((hash, size))
}

/// Skips the value of a field that has no meaning here.
fn skip(wire_type: WireType, rest: &mut &[u8]) -> Option<()> {
    let length = match wire_type {
        WireType::Varint => decode_varint(rest).ok().map(|_| 0)?,
        WireType::SixtyFourBit => 8,
        WireType::ThirtyTwoBit => 4,
        WireType::LengthDelimited => usize::try_from(decode_varint(rest).ok()?).ok()?,
        WireType::StartGroup | WireType::EndGroup => return None,
    };
    *rest = rest.split_at_checked(length)?.1;
    Some(())
}

fn malformed() -> Status {
    Status::invalid("the message does not decode")
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use zimcache_proto::{
        Message as _,
        reapi::{self, FindMissingBlobsRequest},
    };

    use super::*;

    proptest! {
        #[test]
        fn a_request_is_read_as_it_was_written(
            instance_name in "[a-z/]{0,9}",
            digests in proptest::collection::vec(("[0-9a-f]{0,64}", any::<i64>()), 0..9),
            digest_function in 0..11,
        ) {
            let blob_digests = digests.iter().map(|(hash, size_bytes)| reapi::Digest {
                hash: hash.clone(),
                size_bytes: *size_bytes,
            });
            let request = FindMissingBlobsRequest {
                instance_name: instance_name.clone(),
                blob_digests: blob_digests.collect(),
                digest_function,
            };
            let message = Bytes::from(request.encode_to_vec());
            let read = Request::read(&message).unwrap();
            prop_assert_eq!(read.instance_name, instance_name);
            prop_assert_eq!(read.function, digest_function);
            let found = read.digests.iter().map(|at| hash_and_size(&message[at.clone()]).unwrap());
            let written = digests.iter().map(|(hash, size)| (hash.as_bytes(), *size));
            prop_assert!(found.eq(written));
        }

        #[test]
        fn no_bytes_break_the_walk(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
            let message = Bytes::from(bytes);
            if let Some(request) = Request::read(&message) {
                for place in request.digests {
                    hash_and_size(&message[place]);
                }
            }
        }
    }
}
