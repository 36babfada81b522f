//! Compression of payloads: whether it pays, how, and back again. Every record is a frame of its own.
//!
//! What is too small, carries the mark of a compressed format, or looks random in a sample is left alone, and so is
//! what does not shrink by an eighth. Decoding writes at most the size the record declares, and that size exactly, or
//! the record is corrupt; the output is the window, so no frame can ask for more memory. Why these codecs:
//! `docs/adr/0006-records-are-compressed-one-by-one.md`.
//! Not here: what is compressed when (`packing`), who decodes (`encoded`).

use std::{fmt, sync::Arc};

use parking_lot::Mutex;
use tokio::sync::Semaphore;
use zimcache_config::Compression;

use super::record::{Encoding, MAX_PAYLOAD};

/// Payloads up to this size stay as they are.
const MIN_BYTES: usize = 1 << 10;
/// Below this size `auto` takes LZ4: what zstd saves more is less than what records are padded by.
const AUTO_ZSTD_FROM: usize = 4 << 10;
/// The fastest of zstd's levels that makes matches and literals both smaller.
const ZSTD_LEVEL: i32 = 1;
/// Bytes looked at to tell random bytes from others, in so many places.
const SAMPLE_BYTES: usize = 4 << 10;
const SAMPLE_PLACES: usize = 8;
/// Bits a byte above which a sample counts as random. Order-0 coding saves less than a sixteenth of it.
const RANDOM_BITS: f32 = 7.5;
/// Coders kept for reuse.
const CODERS_KEPT: usize = 16;

/// First bytes of formats that are compressed already.
const COMPRESSED: [&[u8]; 19] = [
    b"\x1f\x8b",           // gzip
    b"\x28\xb5\x2f\xfd",   // zstd
    b"\x04\x22\x4d\x18",   // LZ4
    b"\xfd7zXZ\0",         // xz
    b"BZh",                // bzip2
    b"PK\x03\x04",         // zip, jar, aar, wheel
    b"7z\xbc\xaf\x27\x1c", // 7-Zip
    b"Rar!",               // RAR
    b"LZIP",               // lzip
    b"\x89PNG",            // PNG
    b"\xff\xd8\xff",       // JPEG
    b"GIF8",               // GIF
    b"wOF2",               // WOFF2
    b"wOFF",               // WOFF
    b"OggS",               // Ogg
    b"ID3",                // MP3
    b"fLaC",               // FLAC
    b"\x1a\x45\xdf\xa3",   // Matroska
    b"\xcc\xac",           // ccache, whose payload is zstd
];

/// Codecs and their memory, shared by everything that writes or reads.
pub(crate) struct Codec {
    mode: Compression,
    idle: Mutex<Vec<Coder>>,
    /// As many payloads are compressed at once as there are processors.
    pub(crate) jobs: Arc<Semaphore>,
}

impl fmt::Debug for Codec {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Codec({:?})", self.mode)
    }
}

/// The memory of one compression or decompression.
#[derive(Default)]
struct Coder {
    compressor: Option<zstd::bulk::Compressor<'static>>,
    decompressor: Option<zstd::bulk::Decompressor<'static>>,
    output: Vec<u8>,
}

impl Codec {
    /// Codecs for this setting.
    pub(crate) fn new(mode: Compression) -> Codec {
        let processors = std::thread::available_parallelism().map_or(2, usize::from);
        Codec {
            mode,
            idle: Mutex::default(),
            jobs: Arc::new(Semaphore::new(processors)),
        }
    }

    /// Whether compressing a payload of so many bytes may pay at all.
    pub(crate) const fn takes(&self, bytes: usize) -> bool {
        !matches!(self.mode, Compression::Off) && bytes > MIN_BYTES
    }

    /// The codec for a payload of so many bytes.
    const fn choice(&self, bytes: usize) -> Encoding {
        match self.mode {
            Compression::Off => Encoding::Identity,
            Compression::Lz4 => Encoding::Lz4,
            Compression::Auto if bytes < AUTO_ZSTD_FROM => Encoding::Lz4,
            Compression::Zstd | Compression::Auto => Encoding::Zstd,
        }
    }

    /// Compresses a payload and hands the result to `take`; `None` when it did not shrink by an eighth.
    pub(crate) fn encode<R>(
        &self,
        raw: &[u8],
        take: impl FnOnce(Encoding, &[u8]) -> R,
    ) -> Option<R> {
        let most = raw.len() - raw.len().div_ceil(8);
        let encoding = self.choice(raw.len());
        let mut coder = self.coder();
        let length = match encoding {
            Encoding::Identity => None,
            Encoding::Zstd => coder.zstd(raw, most),
            Encoding::Lz4 => coder.lz4(raw),
        };
        let kept = length.filter(|length| *length <= most);
        let taken = kept.map(|length| take(encoding, &coder.output[..length]));
        self.give_back(coder);
        taken
    }

    /// Decodes a payload into exactly `raw`; `false` when it is not a frame of that many bytes.
    #[must_use]
    pub(crate) fn decode(&self, encoding: Encoding, stored: &[u8], raw: &mut [u8]) -> bool {
        match encoding {
            Encoding::Identity => {
                let fits = stored.len() == raw.len();
                if fits {
                    raw.copy_from_slice(stored);
                }
                fits
            }
            Encoding::Lz4 => {
                lz4_flex::block::decompress_into(stored, raw).is_ok_and(|n| n == raw.len())
            }
            Encoding::Zstd => {
                let mut coder = self.coder();
                let fits = coder.unzstd(stored, raw);
                self.give_back(coder);
                fits
            }
        }
    }

    fn coder(&self) -> Coder {
        self.idle.lock().pop().unwrap_or_default()
    }

    fn give_back(&self, coder: Coder) {
        let mut idle = self.idle.lock();
        if idle.len() < CODERS_KEPT {
            idle.push(coder);
        }
    }
}

impl Coder {
    fn zstd(&mut self, raw: &[u8], most: usize) -> Option<usize> {
        if self.compressor.is_none() {
            self.compressor = zstd::bulk::Compressor::new(ZSTD_LEVEL).ok();
        }
        self.output.resize(MAX_PAYLOAD, 0);
        let output = &mut self.output[..most];
        self.compressor
            .as_mut()?
            .compress_to_buffer(raw, output)
            .ok()
    }

    fn lz4(&mut self, raw: &[u8]) -> Option<usize> {
        let most = lz4_flex::block::get_maximum_output_size(raw.len());
        if self.output.len() < most {
            self.output.resize(most, 0);
        }
        lz4_flex::block::compress_into(raw, &mut self.output).ok()
    }

    fn unzstd(&mut self, stored: &[u8], raw: &mut [u8]) -> bool {
        if self.decompressor.is_none() {
            self.decompressor = zstd::bulk::Decompressor::new().ok();
        }
        let Some(decompressor) = &mut self.decompressor else {
            return false;
        };
        let expected = raw.len();
        let decoded = decompressor.decompress_to_buffer(stored, raw);
        decoded.is_ok_and(|length| length == expected)
    }
}

/// Whether a value that starts like this is compressed already, by the mark of its format.
pub(crate) fn is_marked_compressed(start: &[u8]) -> bool {
    COMPRESSED.iter().any(|mark| start.starts_with(mark))
}

/// Whether a payload in these pieces looks random in a sample of it.
pub(crate) fn looks_random<P: AsRef<[u8]>>(pieces: &[P]) -> bool {
    let total: usize = pieces.iter().map(|piece| piece.as_ref().len()).sum();
    let mut counts = [0u16; 256];
    let mut sampled = 0;
    let window = SAMPLE_BYTES / SAMPLE_PLACES;
    let step = (total / SAMPLE_PLACES).max(window);
    let mut start = 0usize;
    for piece in pieces {
        let piece = piece.as_ref();
        // Windows begin at multiples of `step`; one that crosses into the next piece is cut.
        let mut at = start.next_multiple_of(step) - start;
        while at < piece.len() && sampled < SAMPLE_BYTES {
            let end = (at + window)
                .min(piece.len())
                .min(at + SAMPLE_BYTES - sampled);
            for byte in &piece[at..end] {
                counts[usize::from(*byte)] += 1;
            }
            sampled += end - at;
            at += step;
        }
        start += piece.len();
    }
    bits_per_byte(&counts, sampled) > RANDOM_BITS
}

/// Shannon's entropy of a histogram.
#[allow(clippy::cast_precision_loss, reason = "a few thousand at most")]
fn bits_per_byte(counts: &[u16; 256], total: usize) -> f32 {
    let total = total.max(1) as f32;
    let weighted = counts.iter().filter(|count| **count > 0).map(|count| {
        let count = f32::from(*count);
        count * count.log2()
    });
    total.log2() - weighted.sum::<f32>() / total
}

/// Most bytes of a block inside a zstd frame.
const ZSTD_BLOCK: usize = 128 << 10;
/// Bytes in front of the blocks of a frame made by [`wrap_in_zstd`].
const ZSTD_FRONT: usize = 9;

/// Bytes that a payload has as a zstd frame of raw blocks.
pub(crate) const fn wrapped_len(raw: usize) -> usize {
    let blocks = raw.div_ceil(ZSTD_BLOCK);
    let blocks = if blocks == 0 { 1 } else { blocks };
    ZSTD_FRONT + 3 * blocks + raw
}

/// A payload as a zstd frame of raw blocks: how a part that did not shrink goes out beside parts that did.
pub(crate) fn wrap_in_zstd(raw: &[u8]) -> Vec<u8> {
    const SINGLE_SEGMENT_SIZE_IN_4: u8 = 0b1010_0000;
    let mut frame = Vec::with_capacity(wrapped_len(raw.len()));
    frame.extend_from_slice(&[0x28, 0xb5, 0x2f, 0xfd, SINGLE_SEGMENT_SIZE_IN_4]);
    frame.extend_from_slice(&(raw.len() as u32).to_le_bytes());
    let mut rest = raw;
    loop {
        let (block, behind) = rest.split_at(rest.len().min(ZSTD_BLOCK));
        let header = (block.len() as u32) << 3 | u32::from(behind.is_empty());
        frame.extend_from_slice(&header.to_le_bytes()[..3]);
        frame.extend_from_slice(block);
        rest = behind;
        if rest.is_empty() {
            return frame;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::SimRng;

    fn text(len: usize) -> Vec<u8> {
        let line = |n: usize| {
            format!(
                "pub fn function_{}(argument: u{}) {{}}\n",
                n * 7919 % 1000,
                n % 64
            )
        };
        let mut bytes: Vec<u8> = (0..).flat_map(|n| line(n).into_bytes()).take(len).collect();
        bytes.truncate(len);
        bytes
    }

    fn noise(len: usize) -> Vec<u8> {
        let mut rng = SimRng::new(7);
        (0..len).map(|_| rng.below(256) as u8).collect()
    }

    #[test]
    fn what_is_encoded_decodes_to_itself() {
        for (mode, encoding) in [
            (Compression::Zstd, Encoding::Zstd),
            (Compression::Lz4, Encoding::Lz4),
        ] {
            let codec = Codec::new(mode);
            for len in [1025, 4096, 70_000, MAX_PAYLOAD] {
                let raw = text(len);
                let stored = codec.encode(&raw, |with, stored| {
                    assert_eq!(with, encoding);
                    stored.to_vec()
                });
                let stored = stored.expect("source text shrinks");
                assert!(stored.len() < len * 7 / 8, "{len} {}", stored.len());
                let mut back = vec![0; len];
                assert!(codec.decode(encoding, &stored, &mut back));
                assert!(back == raw);
            }
        }
    }

    #[test]
    fn a_frame_of_another_size_is_refused_and_writes_no_further() {
        for mode in [Compression::Zstd, Compression::Lz4] {
            let codec = Codec::new(mode);
            let raw = text(50_000);
            let (encoding, stored) = codec
                .encode(&raw, |encoding, stored| (encoding, stored.to_vec()))
                .expect("source text shrinks");
            for lie in [0, 1, 49_999, 50_001, MAX_PAYLOAD] {
                let mut output = vec![0; lie];
                assert!(
                    !codec.decode(encoding, &stored, &mut output),
                    "{mode:?} {lie}"
                );
            }
            for cut in [0, 1, stored.len() / 2, stored.len() - 1] {
                let mut output = vec![0; 50_000];
                assert!(
                    !codec.decode(encoding, &stored[..cut], &mut output),
                    "{mode:?} {cut}"
                );
            }
        }
    }

    #[test]
    fn random_and_marked_bytes_are_told_from_others() {
        for len in [1025, 4096, 100_000, MAX_PAYLOAD] {
            assert!(looks_random(&[noise(len)]), "{len}");
            assert!(!looks_random(&[text(len)]), "{len}");
            let pieces: Vec<Vec<u8>> = noise(len).chunks(700).map(<[u8]>::to_vec).collect();
            assert!(looks_random(&pieces), "{len} in pieces");
        }
        assert!(is_marked_compressed(b"PK\x03\x04\x14\0"));
        assert!(!is_marked_compressed(b"\x7fELF"));
    }

    #[test]
    fn noise_is_not_kept_encoded() {
        for mode in [Compression::Auto, Compression::Zstd, Compression::Lz4] {
            let codec = Codec::new(mode);
            assert!(
                codec.encode(&noise(100_000), |_, _| ()).is_none(),
                "{mode:?}"
            );
        }
    }

    #[test]
    fn a_wrapped_payload_is_a_zstd_frame_of_the_length_foretold() {
        for len in [0, 1, ZSTD_BLOCK, ZSTD_BLOCK + 1, MAX_PAYLOAD] {
            let raw = noise(len);
            let frame = wrap_in_zstd(&raw);
            assert_eq!(frame.len(), wrapped_len(len));
            let back = zstd::bulk::decompress(&frame, MAX_PAYLOAD).unwrap();
            assert!(back == raw, "{len}");
        }
    }
}
