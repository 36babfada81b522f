//! RepMaxCDC: cut where the Gear hash is largest, and again before that place, until the chunk is short enough.
//!
//! Written from what the specification says and from how the program it refers to behaves. With least length `m` and
//! horizon `h`, a chunk that starts at `s` ends at one of the candidates `s+m ..= s+m+h` that leave `m` bytes of the
//! blob. Take the candidate of the largest hash, the first of equals; while it is `2m` or more away, take the largest
//! among those at least `m` before it. So lengths are in `[m, 2m)`, and less only in a blob that is smaller itself.
//!
//! Only **records** can win: candidates whose hash is larger than that of every candidate before them. A record that
//! stays the last one for `m` candidates is **settled**: whatever follows, a chunk ends there, and so do the chunks
//! before it that the rule gives; the next start is that record. Almost every cut comes so, and each byte is hashed
//! once. Otherwise the horizon ends, the first chunk alone is certain, and records that an older, larger hash had
//! hidden have to be found again: that is what bytes are kept for, never more than twice `m + h` of them.

use super::{
    ParamsError,
    gear::{GEAR, Gear, WINDOW_BYTES, find, roll},
};

/// The largest least length.
const MAX_MIN_BYTES: u64 = 1 << 20;
/// The largest horizon, because it is memory that whoever sends a blob takes.
const MAX_HORIZON_BYTES: u64 = 16 << 20;
/// Bytes that are taken in at once.
const STEP_BYTES: usize = 64 << 10;

/// The parameters of RepMaxCDC.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RepMaxCdcParams {
    min_bytes: u64,
    horizon_bytes: u64,
}

impl RepMaxCdcParams {
    /// What the specification recommends: 256 KiB and eight times that.
    pub const RECOMMENDED: RepMaxCdcParams = RepMaxCdcParams {
        min_bytes: 256 << 10,
        horizon_bytes: 8 * (256 << 10),
    };

    /// Parameters of these sizes. The upper bounds are ours: they bound the memory of a chunker.
    ///
    /// # Errors
    /// [`ParamsError::Minimum`], [`ParamsError::Horizon`]
    pub const fn new(
        min_chunk_size_bytes: u64,
        horizon_size_bytes: u64,
    ) -> Result<RepMaxCdcParams, ParamsError> {
        if min_chunk_size_bytes < WINDOW_BYTES || min_chunk_size_bytes > MAX_MIN_BYTES {
            return Err(ParamsError::Minimum(min_chunk_size_bytes));
        }
        if horizon_size_bytes > MAX_HORIZON_BYTES {
            return Err(ParamsError::Horizon(horizon_size_bytes));
        }
        Ok(RepMaxCdcParams {
            min_bytes: min_chunk_size_bytes,
            horizon_bytes: horizon_size_bytes,
        })
    }

    /// The least length of a chunk.
    pub const fn min_chunk_size_bytes(&self) -> u64 {
        self.min_bytes
    }

    /// How far the search for the best place goes.
    pub const fn horizon_size_bytes(&self) -> u64 {
        self.horizon_bytes
    }

    /// The largest length: one byte less than twice the least.
    pub const fn max_chunk_size_bytes(&self) -> u64 {
        2 * self.min_bytes - 1
    }

    /// Where this many bytes are known, the chunk they start with is.
    pub(super) const fn lookahead_bytes(&self) -> u64 {
        2 * self.min_bytes + self.horizon_bytes
    }
}

/// A candidate with a larger hash than all before it.
#[derive(Debug, Clone, Copy)]
struct Record {
    at: u64,
    hash: u64,
}

/// The state from the start of the chunk that is not certain yet. Places are counted from the start of the blob.
#[derive(Debug, Clone)]
pub(super) struct RepMaxCdc {
    params: RepMaxCdcParams,
    gear: &'static Gear,
    /// Where the chunk starts.
    start: u64,
    /// In order of place and, being records, of hash.
    records: Vec<Record>,
    /// The place up to which candidates were looked at, and its hash.
    scanned: u64,
    hash: u64,
    /// Bytes that may be hashed again, and those in front of them that were not worth moving for.
    kept: Vec<u8>,
    /// The place of the first byte kept.
    kept_from: u64,
}

impl RepMaxCdc {
    pub(super) fn new(params: RepMaxCdcParams) -> RepMaxCdc {
        RepMaxCdc {
            params,
            gear: &GEAR,
            start: 0,
            records: Vec::new(),
            scanned: 0,
            hash: 0,
            kept: Vec::new(),
            kept_from: 0,
        }
    }

    pub(super) fn update(&mut self, bytes: &[u8], lengths: &mut Vec<u64>) {
        for step in bytes.chunks(STEP_BYTES) {
            self.kept.extend_from_slice(step);
            self.advance(lengths);
            self.drop_old();
        }
    }

    pub(super) fn finish(mut self, lengths: &mut Vec<u64>) {
        let (min, end) = (self.params.min_bytes, self.end());
        while end - self.start >= 2 * min {
            self.cut_first(end - min, lengths);
            self.advance(lengths);
        }
        if end > self.start {
            lengths.push(end - self.start);
        }
    }

    /// The end of what was taken in.
    fn end(&self) -> u64 {
        self.kept_from + self.kept.len() as u64
    }

    /// Tells every chunk that is certain.
    fn advance(&mut self, lengths: &mut Vec<u64>) {
        let RepMaxCdcParams {
            min_bytes: min,
            horizon_bytes: horizon,
        } = self.params;
        let end = self.end();
        while end >= self.start + min {
            let first = self.start + min;
            let last_at = match self.records.last() {
                Some(record) => record.at,
                None => self.find_first(first),
            };
            let quiet = last_at + min - 1;
            let count = self.records.len();
            self.scan(quiet.min(first + horizon).min(end));
            if self.records.len() > count {
                continue;
            }
            if self.scanned == quiet && end > quiet {
                self.settle(lengths);
            } else if end >= self.start + self.params.lookahead_bytes() {
                self.cut_first(first + horizon, lengths);
            } else {
                return;
            }
        }
    }

    /// Makes the first candidate the first record: nothing is before it.
    fn find_first(&mut self, at: u64) -> u64 {
        let window = at - WINDOW_BYTES;
        if self.scanned < window {
            (self.scanned, self.hash) = (window, 0);
        }
        self.hash = self
            .bytes(self.scanned, at)
            .iter()
            .fold(self.hash, |hash, byte| roll(self.gear, hash, *byte));
        self.scanned = at;
        let hash = self.hash;
        self.records.push(Record { at, hash });
        at
    }

    /// Looks at the candidates up to this place.
    fn scan(&mut self, to: u64) {
        if to <= self.scanned {
            return;
        }
        let Some(Record { hash: best, .. }) = self.records.last().copied() else {
            return;
        };
        let mut records = std::mem::take(&mut self.records);
        self.hash = self.collect(self.scanned, to, self.hash, best, &mut records);
        self.records = records;
        self.scanned = to;
    }

    /// Puts the records behind `from` up to `to` into `records`; gives the hash at `to`.
    fn collect(
        &self,
        from: u64,
        to: u64,
        mut hash: u64,
        mut best: u64,
        records: &mut Vec<Record>,
    ) -> u64 {
        let (mut at, mut bytes) = (from, self.bytes(from, to));
        while let Some(place) = find(self.gear, &mut hash, bytes, |hash| hash > best) {
            best = hash;
            at += place as u64 + 1;
            bytes = &bytes[place + 1..];
            records.push(Record { at, hash });
        }
        hash
    }

    /// Ends a chunk at the last record, and the chunks before it where the rule says.
    fn settle(&mut self, lengths: &mut Vec<u64>) {
        let mut cuts: Vec<u64> = self.cuts_up_to(u64::MAX).collect();
        while let Some(cut) = cuts.pop() {
            lengths.push(cut - self.start);
            self.start = cut;
        }
        self.records.clear();
    }

    /// Ends the first chunk as if no candidate were behind `limit`.
    fn cut_first(&mut self, limit: u64, lengths: &mut Vec<u64>) {
        let limit = limit.min(self.start + self.params.min_bytes + self.params.horizon_bytes);
        if let Some(cut) = self.cuts_up_to(limit).last() {
            lengths.push(cut - self.start);
            self.start = cut;
            self.find_hidden();
        }
    }

    /// From the last record up to `limit` backwards, each at least the least length before the one it follows.
    fn cuts_up_to(&self, limit: u64) -> impl Iterator<Item = u64> {
        let min = self.params.min_bytes;
        let mut limit = limit;
        let fitting = move |record: &Record| {
            let fits = record.at <= limit;
            if fits {
                limit = record.at - min;
            }
            fits.then_some(record.at)
        };
        self.records.iter().rev().filter_map(fitting)
    }

    /// After a move of the start: forgets the candidates that are too near to it now, and finds the records between
    /// the first candidate and the first record left.
    fn find_hidden(&mut self) {
        let first = self.start + self.params.min_bytes;
        let near = self.records.partition_point(|record| record.at < first);
        self.records.drain(..near);
        let known = self.records.first().map_or(self.scanned + 1, |r| r.at);
        if known <= first {
            return;
        }
        let window = self.bytes(first - WINDOW_BYTES, first);
        let roll_on = |hash, byte: &u8| roll(self.gear, hash, *byte);
        let hash = window.iter().fold(0, roll_on);
        let mut found = vec![Record { at: first, hash }];
        self.collect(first, known - 1, hash, hash, &mut found);
        self.records.splice(..0, found);
    }

    fn bytes(&self, from: u64, to: u64) -> &[u8] {
        &self.kept[(from - self.kept_from) as usize..(to - self.kept_from) as usize]
    }

    /// Forgets the bytes that no cut asks for again, once they are the larger half.
    fn drop_old(&mut self) {
        let needed_from = (self.start + 2 * self.params.min_bytes - WINDOW_BYTES).min(self.scanned);
        let old = needed_from.saturating_sub(self.kept_from) as usize;
        if old > self.kept.len() / 2 {
            self.kept.drain(..old);
            self.kept_from = needed_from;
        }
    }
}
