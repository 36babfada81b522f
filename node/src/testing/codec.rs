//! The codecs as the store uses them, for the benchmark and for fuzzing: nothing of a store around them.

use zimcache_config::Compression;

use crate::engine::{
    codec::{Codec, is_marked_compressed, looks_random},
    record::{Encoding, MAX_PAYLOAD},
};

/// One codec, chosen as the setting chooses.
#[derive(Debug)]
pub struct CodecProbe(Codec);

impl CodecProbe {
    /// The codec of this setting.
    pub fn new(mode: Compression) -> CodecProbe {
        CodecProbe(Codec::new(mode))
    }

    /// Whether the store would try this payload; costs what the test costs.
    pub fn would_try(&self, raw: &[u8]) -> bool {
        self.0.takes(raw.len()) && !is_marked_compressed(raw) && !looks_random(&[raw])
    }

    /// The payload as it would be stored, and the number of its encoding; `None`: as it came.
    pub fn encode(&self, raw: &[u8]) -> Option<(u8, Vec<u8>)> {
        self.0
            .encode(raw, |encoding, stored| (encoding as u8, stored.to_vec()))
    }

    /// Decodes into exactly `raw`; `false` when it is not a frame of that many bytes.
    pub fn decode(&self, encoding: u8, stored: &[u8], raw: &mut [u8]) -> bool {
        Encoding::from_number(encoding).is_some_and(|encoding| self.0.decode(encoding, stored, raw))
    }
}

/// A frame decodes to the size that is asked for, or not at all, and what is encoded decodes to itself. The first byte
/// chooses the codec, the next three the size.
pub(super) fn frame(data: &[u8]) {
    let Some((front, stored)) = data.split_at_checked(4) else {
        return;
    };
    let size = usize::from(front[1]) << (front[2] % 13) | usize::from(front[3]);
    let mode = if front[0].is_multiple_of(2) {
        Compression::Zstd
    } else {
        Compression::Lz4
    };
    let probe = CodecProbe::new(mode);
    let mut raw = vec![0; size.min(MAX_PAYLOAD)];
    let encoding = 1 + front[0] % 2;
    let _whatever_it_is = probe.decode(encoding, stored, &mut raw);
    if let Some((encoding, again)) = probe.encode(stored) {
        let mut back = vec![0; stored.len()];
        assert!(probe.decode(encoding, &again, &mut back), "does not decode");
        assert!(back == stored, "decodes to something else");
    }
}
