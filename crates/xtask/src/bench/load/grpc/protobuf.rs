//! The least of Protocol Buffers that requests are written and answers are checked with.
//!
//! Written for the generator alone: an implementation apart from the servers' shows when those misunderstand.

use anyhow::{Context, Result, bail};

/// A field's value.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Value<'a> {
    /// A number.
    Number(u64),
    /// Text, bytes or a message.
    Bytes(&'a [u8]),
}

/// Appends a variable-length number.
pub(super) fn put_varint(out: &mut Vec<u8>, mut value: u64) {
    while value >= 0x80 {
        out.push(value as u8 | 0x80);
        value >>= 7;
    }
    out.push(value as u8);
}

/// Appends a number field; 0 is the default and left out, as everybody does.
pub(super) fn put_number(out: &mut Vec<u8>, field: u32, value: u64) {
    if value != 0 {
        put_varint(out, u64::from(field) << 3);
        put_varint(out, value);
    }
}

/// Appends a text, bytes or message field.
pub(super) fn put_bytes(out: &mut Vec<u8>, field: u32, value: &[u8]) {
    put_head(out, field, value.len());
    out.extend_from_slice(value);
}

/// Appends what comes before a text, bytes or message field of this length.
pub(super) fn put_head(out: &mut Vec<u8>, field: u32, length: usize) {
    put_varint(out, u64::from(field) << 3 | 2);
    put_varint(out, length as u64);
}

/// The fields of a message, in order.
#[derive(Debug)]
pub(super) struct Fields<'a>(&'a [u8]);

impl<'a> Fields<'a> {
    /// Of a message.
    pub(super) const fn of(message: &'a [u8]) -> Fields<'a> {
        Fields(message)
    }

    fn next_field(&mut self) -> Result<(u32, Value<'a>)> {
        let key = self.varint()?;
        let value = match key & 7 {
            0 => Value::Number(self.varint()?),
            1 => Value::Bytes(self.take(8)?),
            2 => {
                let length = self.varint()?;
                Value::Bytes(self.take(length as usize)?)
            }
            5 => Value::Bytes(self.take(4)?),
            kind => bail!("wire type {kind} is unknown"),
        };
        Ok(((key >> 3) as u32, value))
    }

    fn varint(&mut self) -> Result<u64> {
        let mut value = 0;
        for place in 0..10 {
            let byte = self.take(1)?[0];
            value |= u64::from(byte & 0x7F) << (7 * place);
            if byte < 0x80 {
                return Ok(value);
            }
        }
        bail!("a number is longer than ten bytes")
    }

    fn take(&mut self, length: usize) -> Result<&'a [u8]> {
        let (taken, rest) = self
            .0
            .split_at_checked(length)
            .context("a message is cut short")?;
        self.0 = rest;
        Ok(taken)
    }
}

impl<'a> Iterator for Fields<'a> {
    type Item = Result<(u32, Value<'a>)>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.0.is_empty() {
            return None;
        }
        let field = self.next_field();
        if field.is_err() {
            self.0 = &[];
        }
        Some(field)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_written_is_read_back() {
        let mut message = Vec::new();
        put_number(&mut message, 1, 300);
        put_number(&mut message, 2, 0);
        put_bytes(&mut message, 20, b"abc");
        assert_eq!(message, [0x08, 0xAC, 0x02, 0xA2, 0x01, 3, b'a', b'b', b'c']);
        let fields: Vec<_> = Fields::of(&message).map(Result::unwrap).collect();
        let wanted = [(1, Value::Number(300)), (20, Value::Bytes(b"abc"))];
        assert_eq!(fields, wanted);
    }

    #[test]
    fn a_message_that_is_cut_short_is_an_error_and_ends() {
        for broken in [&[0x0A_u8, 5, 1][..], &[0x08, 0x80], &[0x0B]] {
            let read: Vec<_> = Fields::of(broken).collect();
            assert!(matches!(read[..], [Err(_)]), "{broken:?}");
        }
    }
}
