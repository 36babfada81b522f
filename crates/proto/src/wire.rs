//! Walking an encoded message field by field, without decoding what it holds.
//!
//! For messages that may be large or hostile: nothing is allocated per field, and nested bytes share the buffer. Not
//! here: what a field means. Invariant: the walk ends at the first malformed byte with an error, and groups, which no
//! message of ours has, are malformed.

use std::fmt;

use prost::{
    bytes::{Buf, Bytes},
    encoding::{WireType, decode_key, decode_varint},
};

/// The bytes are no message.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Malformed;

impl fmt::Display for Malformed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("malformed protocol buffer message")
    }
}

impl std::error::Error for Malformed {}

impl From<prost::DecodeError> for Malformed {
    fn from(_: prost::DecodeError) -> Malformed {
        Malformed
    }
}

/// The value of a field, as far as the wire tells; `B` is how bytes are held.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Field<B = Bytes> {
    /// A number of variable length.
    Number(u64),
    /// A number of four or eight bytes.
    Fixed(u64),
    /// A string, bytes or a message.
    Bytes(B),
}

impl<B> Field<B> {
    fn map<T>(self, hold: impl FnOnce(B) -> T) -> Field<T> {
        match self {
            Field::Number(number) => Field::Number(number),
            Field::Fixed(number) => Field::Fixed(number),
            Field::Bytes(bytes) => Field::Bytes(hold(bytes)),
        }
    }
}

/// The fields of a message in the order they were written: number and value.
pub fn fields(message: &Bytes) -> Fields {
    Fields(message.clone())
}

/// The same for a message that is only looked at: nothing is counted, nothing allocated.
pub fn slices(message: &[u8]) -> Slices<'_> {
    Slices(message)
}

/// Iterator made by [`fields`].
#[derive(Debug, Clone)]
pub struct Fields(Bytes);

impl Iterator for Fields {
    type Item = Result<(u32, Field), Malformed>;

    fn next(&mut self) -> Option<Self::Item> {
        let mut slices = Slices(&self.0);
        let next = slices.next()?;
        let rest = slices.0.len();
        let held = next.map(|(number, field)| {
            let shared = |bytes: &[u8]| self.0.slice_ref(bytes);
            (number, field.map(shared))
        });
        self.0.advance(self.0.len() - rest);
        Some(held)
    }
}

/// Iterator made by [`slices`].
#[derive(Debug, Clone)]
pub struct Slices<'a>(&'a [u8]);

impl<'a> Slices<'a> {
    /// What lies behind the fields taken so far; nothing behind a malformed one.
    pub const fn rest(&self) -> &'a [u8] {
        self.0
    }
}

impl<'a> Iterator for Slices<'a> {
    type Item = Result<(u32, Field<&'a [u8]>), Malformed>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.0.is_empty() {
            return None;
        }
        let field = next_field(&mut self.0);
        if field.is_err() {
            self.0 = &[];
        }
        Some(field)
    }
}

fn next_field<'a>(rest: &mut &'a [u8]) -> Result<(u32, Field<&'a [u8]>), Malformed> {
    let (number, wire_type) = decode_key(rest)?;
    let field = match wire_type {
        WireType::Varint => Field::Number(decode_varint(rest)?),
        WireType::SixtyFourBit => Field::Fixed(u64::from_le_bytes(take(rest)?)),
        WireType::ThirtyTwoBit => Field::Fixed(u32::from_le_bytes(take(rest)?).into()),
        WireType::LengthDelimited => {
            let length = usize::try_from(decode_varint(rest)?).map_err(|_| Malformed)?;
            let (bytes, behind) = rest.split_at_checked(length).ok_or(Malformed)?;
            *rest = behind;
            Field::Bytes(bytes)
        }
        WireType::StartGroup | WireType::EndGroup => return Err(Malformed),
    };
    Ok((number, field))
}

fn take<const N: usize>(rest: &mut &[u8]) -> Result<[u8; N], Malformed> {
    let (raw, behind) = rest.split_first_chunk().ok_or(Malformed)?;
    *rest = behind;
    Ok(*raw)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use prost::Message as _;

    use super::*;
    use crate::reapi::Digest;

    #[test]
    fn fields_come_in_the_order_they_were_written() {
        let digest = Digest {
            hash: "ab".into(),
            size_bytes: 300,
        };
        let walked: Vec<_> = fields(&digest.encode_to_vec().into()).collect();
        assert_eq!(
            walked,
            [
                Ok((1, Field::Bytes(Bytes::from_static(b"ab")))),
                Ok((2, Field::Number(300)))
            ]
        );
    }

    #[test]
    fn lengths_that_lie_and_groups_end_the_walk() {
        for bad in [
            &[0x0a, 0x05, 1][..],
            &[0x0b, 0x0c],
            &[0x0c],
            &[0x0d, 1, 2],
            &[0x09, 1],
            &[0xff],
            &[0x08],
            &[0x00, 0x00],
        ] {
            let mut walk = fields(&Bytes::copy_from_slice(bad));
            assert_eq!(walk.next(), Some(Err(Malformed)), "{bad:?}");
            assert_eq!(walk.next(), None);
        }
    }

    proptest! {
        #[test]
        fn no_bytes_break_the_walk(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
            let message = Bytes::from(bytes);
            prop_assert!(fields(&message).count() <= message.len());
            let held = slices(&message).map(|field| field.map(|(number, field)| {
                (number, field.map(Bytes::copy_from_slice))
            }));
            prop_assert!(fields(&message).eq(held));
        }

        #[test]
        fn the_walk_reads_back_what_prost_writes(hash in "[a-f0-9]{0,64}", size_bytes in 1_i64..) {
            let message = Digest { hash: hash.clone(), size_bytes }.encode_to_vec().into();
            let last = fields(&message).last();
            prop_assert_eq!(last, Some(Ok((2, Field::Number(size_bytes.cast_unsigned())))));
        }
    }
}
