//! FastCDC as published in 2020: cut behind the first byte whose Gear hash has zeros where a mask has ones.
//!
//! The mask is strict up to the average length and loose behind it, which keeps lengths near the average
//! (normalization level 2). Nothing is hashed below the minimum. The state is one hash and one length: a chunk may
//! come in any number of slices and no byte is kept. The `fastcdc` library cuts the same, but wants a chunk in one
//! piece; the tests compare with it.
//!
//! The paper rolls two bytes at a time. What is left of that here: a byte at an even place counts only when another
//! one follows in the blob.

use super::{
    ParamsError,
    gear::{GEAR, Gear, find},
};

/// The least average.
const MIN_AVERAGE_BYTES: u64 = 1 << 10;
/// The largest average.
const MAX_AVERAGE_BYTES: u64 = 1 << 20;
/// How many doublings of the average the strict mask is above it, and the loose one below.
const NORMALIZATION: u32 = 2;

/// The masks of the authors' program, by the chunk size that each gives: 256 bytes, 512 bytes, … 4 MiB.
const MASKS: [u64; 15] = [
    0x0000_0018_0003_5300,
    0x0000_0190_0035_3000,
    0x0000_5900_0353_0000,
    0x0000_d900_0353_0000,
    0x0000_d901_0353_0000,
    0x0000_d903_0353_0000,
    0x0000_d903_1353_0000,
    0x0000_d90f_0353_0000,
    0x0000_d903_0353_7000,
    0x0000_d907_0353_7000,
    0x0000_d907_0753_7000,
    0x0000_d917_0753_7000,
    0x0000_d917_4753_7000,
    0x0000_d917_6753_7000,
    0x0000_d937_6753_7000,
];
/// The binary logarithm of the first mask's chunk size.
const FIRST_MASK: u32 = 8;

/// The parameters of FastCDC.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct FastCdc2020Params {
    average_bytes: u64,
    seed: u32,
}

impl FastCdc2020Params {
    /// What the specification recommends: 512 KiB without a seed.
    pub const RECOMMENDED: FastCdc2020Params = FastCdc2020Params {
        average_bytes: 512 << 10,
        seed: 0,
    };

    /// Parameters of this average, a power of two because other averages have no masks that everybody agrees on.
    ///
    /// # Errors
    /// [`ParamsError::Average`]
    pub const fn new(
        avg_chunk_size_bytes: u64,
        seed: u32,
    ) -> Result<FastCdc2020Params, ParamsError> {
        let average = avg_chunk_size_bytes;
        if average < MIN_AVERAGE_BYTES || average > MAX_AVERAGE_BYTES || !average.is_power_of_two()
        {
            return Err(ParamsError::Average(average));
        }
        Ok(FastCdc2020Params {
            average_bytes: average,
            seed,
        })
    }

    /// The usual length of a chunk.
    pub const fn avg_chunk_size_bytes(&self) -> u64 {
        self.average_bytes
    }

    /// What the numbers of the Gear hash are mixed with.
    pub const fn seed(&self) -> u32 {
        self.seed
    }

    /// The least length: a quarter of the average.
    pub const fn min_chunk_size_bytes(&self) -> u64 {
        self.average_bytes / 4
    }

    /// The largest length: four times the average.
    pub const fn max_chunk_size_bytes(&self) -> u64 {
        self.average_bytes * 4
    }

    fn masks(self) -> (u64, u64) {
        let bits = self.average_bytes.ilog2() - FIRST_MASK;
        let mask = |bits: u32| MASKS[bits as usize];
        (mask(bits + NORMALIZATION), mask(bits - NORMALIZATION))
    }
}

/// The state within one chunk.
#[derive(Debug, Clone)]
pub(super) struct FastCdc2020 {
    params: FastCdc2020Params,
    strict: u64,
    loose: u64,
    gear: Box<Gear>,
    /// Bytes of this chunk so far.
    length: u64,
    hash: u64,
    /// The last byte fits, at an even place: the chunk ends before it as soon as another one follows.
    fits: bool,
}

impl FastCdc2020 {
    pub(super) fn new(params: FastCdc2020Params) -> FastCdc2020 {
        let (strict, loose) = params.masks();
        let seed = u64::from(params.seed);
        FastCdc2020 {
            params,
            strict,
            loose,
            gear: Box::new(GEAR.map(|number| number ^ seed)),
            length: 0,
            hash: 0,
            fits: false,
        }
    }

    pub(super) fn update(&mut self, mut bytes: &[u8], lengths: &mut Vec<u64>) {
        while !bytes.is_empty() {
            if self.fits {
                lengths.push(self.length - 1);
                self.restart(1);
            }
            let min = self.params.min_chunk_size_bytes();
            if self.length < min {
                let skipped = (bytes.len() as u64).min(min - self.length);
                self.length += skipped;
                bytes = &bytes[skipped as usize..];
                continue;
            }
            let used = self.scan(bytes);
            bytes = &bytes[used..];
            if self.fits && self.length.is_multiple_of(2) {
                // An odd place: the byte that fits is the first of the next chunk.
                lengths.push(self.length - 1);
                self.restart(1);
            } else if self.length == self.params.max_chunk_size_bytes() {
                lengths.push(self.length);
                self.restart(0);
            }
        }
    }

    pub(super) fn finish(self, lengths: &mut Vec<u64>) {
        if self.length > 0 {
            lengths.push(self.length);
        }
    }

    /// Hashes up to a byte that fits, the end of the mask's range or the end of the slice; says how many bytes.
    fn scan(&mut self, bytes: &[u8]) -> usize {
        let average = self.params.avg_chunk_size_bytes();
        let (mask, end) = if self.length < average {
            (self.strict, average)
        } else {
            (self.loose, self.params.max_chunk_size_bytes())
        };
        let range = &bytes[..(bytes.len() as u64).min(end - self.length) as usize];
        let fitting = find(&self.gear, &mut self.hash, range, |hash| hash & mask == 0);
        let used = fitting.map_or(range.len(), |place| place + 1);
        self.fits = fitting.is_some();
        self.length += used as u64;
        used
    }

    fn restart(&mut self, length: u64) {
        self.length = length;
        self.hash = 0;
        self.fits = false;
    }
}
