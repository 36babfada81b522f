//! Bytes in the pieces in which they arrived.
//!
//! Taking bytes off the front shares the pieces; only bytes that span pieces and are wanted in one are copied.

use std::collections::VecDeque;

use prost::bytes::{Buf, Bytes, BytesMut};

/// Bytes in pieces, none of them empty.
#[derive(Debug, Default, Clone)]
pub struct Rope {
    pieces: VecDeque<Bytes>,
    length: usize,
}

impl Rope {
    /// Adds a piece at the end.
    pub fn push(&mut self, piece: Bytes) {
        if !piece.is_empty() {
            self.length += piece.len();
            self.pieces.push_back(piece);
        }
    }

    /// How many bytes there are.
    pub const fn len(&self) -> usize {
        self.length
    }

    /// Whether there are none.
    pub const fn is_empty(&self) -> bool {
        self.length == 0
    }

    /// The pieces, in order.
    pub fn pieces(&self) -> impl Iterator<Item = &[u8]> {
        self.pieces.iter().map(|piece| &**piece)
    }

    /// Takes the first piece, or as much of it as is wanted; empty when there is none.
    pub fn take_piece(&mut self, most: usize) -> Bytes {
        let Some(first) = self.pieces.front_mut() else {
            return Bytes::new();
        };
        let taken = if first.len() <= most {
            self.pieces.pop_front().unwrap_or_default()
        } else {
            first.split_to(most)
        };
        self.length -= taken.len();
        taken
    }

    /// Takes so many bytes in one piece; all there are when there are fewer.
    pub fn take_bytes(&mut self, wanted: usize) -> Bytes {
        let wanted = wanted.min(self.length);
        if self
            .pieces
            .front()
            .is_none_or(|first| first.len() >= wanted)
        {
            return self.take_piece(wanted);
        }
        let mut joined = BytesMut::with_capacity(wanted);
        while joined.len() < wanted {
            joined.extend_from_slice(&self.take_piece(wanted - joined.len()));
        }
        joined.freeze()
    }
}

impl Buf for Rope {
    fn remaining(&self) -> usize {
        self.length
    }

    fn chunk(&self) -> &[u8] {
        self.pieces.front().map_or(&[], |piece| piece)
    }

    fn advance(&mut self, mut count: usize) {
        assert!(count <= self.length, "advanced past the end of a rope");
        while count > 0 {
            count -= self.take_piece(count).len();
        }
    }

    fn copy_to_bytes(&mut self, length: usize) -> Bytes {
        assert!(length <= self.length, "copied past the end of a rope");
        self.take_bytes(length)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rope(pieces: &[&'static [u8]]) -> Rope {
        let mut rope = Rope::default();
        for piece in pieces {
            rope.push(Bytes::from_static(piece));
        }
        rope
    }

    #[test]
    fn bytes_are_copied_only_where_they_span_pieces() {
        let whole: &'static [u8] = b"abcdef";
        let mut rope = rope(&[whole, b"", b"gh", b"i"]);
        assert_eq!(rope.len(), 9);
        let front = rope.take_bytes(4);
        assert_eq!(
            (front.as_ref(), front.as_ptr()),
            (&b"abcd"[..], whole.as_ptr())
        );
        assert_eq!(rope.take_bytes(4), "efgh");
        assert_eq!(rope.take_bytes(7), "i");
        assert_eq!((rope.take_bytes(1).len(), rope.len()), (0, 0));
    }

    #[test]
    fn it_reads_like_one_buffer() {
        let mut rope = rope(&[b"\x00\x01", b"\x02", b"\x03rest"]);
        assert_eq!(rope.get_u32(), 0x0001_0203);
        rope.advance(1);
        assert_eq!(rope.copy_to_bytes(3), "est");
    }
}
