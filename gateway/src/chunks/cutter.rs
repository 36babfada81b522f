//! The pieces in which a blob is read, put together to its chunks.
//!
//! Pieces are shared, never copied. Not here: where the cuts are (`types::chunking`). Invariant: no more is held than the
//! chunker needs to see before it is certain, and one piece.

use std::collections::VecDeque;

use bytes::Bytes;
use zimcache_types::chunking::{Chunker, Params};

/// Puts the pieces in which a blob is read together to chunks.
#[derive(Debug)]
pub(super) struct Cutter {
    chunker: Chunker,
    /// Bytes that belong to no chunk yet.
    held: VecDeque<Bytes>,
}

impl Cutter {
    /// For a blob of which nothing was read.
    pub(super) fn new(params: Params) -> Cutter {
        Cutter {
            chunker: Chunker::new(params),
            held: VecDeque::new(),
        }
    }

    /// Takes in a piece; gives the chunks that end in it or before it.
    pub(super) fn push(&mut self, piece: Bytes) -> Vec<Vec<Bytes>> {
        let mut lengths = Vec::new();
        self.chunker.update(&piece, &mut lengths);
        self.held.push_back(piece);
        self.take(lengths)
    }

    /// The chunks behind those, at the end of the blob.
    pub(super) fn finish(mut self) -> Vec<Vec<Bytes>> {
        let mut lengths = Vec::new();
        self.chunker.clone().finish(&mut lengths);
        self.take(lengths)
    }

    fn take(&mut self, lengths: Vec<u64>) -> Vec<Vec<Bytes>> {
        lengths
            .into_iter()
            .map(|length| self.take_one(length as usize))
            .collect()
    }

    fn take_one(&mut self, length: usize) -> Vec<Bytes> {
        let (mut pieces, mut left) = (Vec::new(), length);
        while left > 0
            && let Some(first) = self.held.front_mut()
        {
            let taken = first.split_to(left.min(first.len()));
            if first.is_empty() {
                self.held.pop_front();
            }
            left -= taken.len();
            pieces.push(taken);
        }
        pieces
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use zimcache_types::chunking::{FastCdc2020Params, RepMaxCdcParams};

    use super::*;

    fn params() -> impl Strategy<Value = Params> {
        let fast = FastCdc2020Params::new(1 << 10, 0).unwrap();
        let max = RepMaxCdcParams::new(512, 4096).unwrap();
        prop_oneof![
            Just(Params::FastCdc2020(fast)),
            Just(Params::RepMaxCdc(max)),
        ]
    }

    proptest! {
        #[test]
        fn however_a_blob_is_read_its_chunks_are_the_same(
            params in params(),
            blob in proptest::collection::vec(any::<u8>(), 0..40_000),
            pieces in proptest::collection::vec(1..9_000_usize, 1..9),
        ) {
            let mut cutter = Cutter::new(params);
            let (mut chunks, mut rest) = (Vec::new(), Bytes::from(blob.clone()));
            for length in pieces.into_iter().cycle() {
                if rest.is_empty() {
                    break;
                }
                let piece = rest.split_to(length.min(rest.len()));
                chunks.extend(cutter.push(piece));
                let held: usize = cutter.held.iter().map(Bytes::len).sum();
                prop_assert!(held as u64 <= params.lookahead_bytes() + 9_000);
            }
            chunks.extend(cutter.finish());
            let lengths: Vec<u64> = chunks.iter().map(|chunk| chunk.concat().len() as u64).collect();
            prop_assert_eq!(lengths, Chunker::lengths_of(params, &blob));
            let joined: Vec<Bytes> = chunks.concat();
            prop_assert_eq!(joined.concat(), blob);
        }
    }
}
