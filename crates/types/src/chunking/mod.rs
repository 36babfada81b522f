//! Content-defined chunking: cutting a blob where its bytes say, so that versions of a file share most chunks.
//!
//! The functions and their parameters are those of the Remote Execution API, cut for cut: client and server save
//! nothing unless they cut alike. A [`Chunker`] sees a blob once, in slices of any size, and tells lengths; it hands
//! out no bytes, so that its caller decides whether to keep or to read again what is not yet in a chunk. Memory is
//! bounded by the parameters. Not here: digests of chunks, and who stores them.

mod fastcdc2020;
mod gear;
mod repmaxcdc;

pub use fastcdc2020::FastCdc2020Params;
pub use repmaxcdc::RepMaxCdcParams;

use fastcdc2020::FastCdc2020;
use repmaxcdc::RepMaxCdc;

/// Why parameters were refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum ParamsError {
    /// FastCDC's average.
    #[error("average chunk size of {0} bytes is not a power of two from 1 KiB to 1 MiB")]
    Average(u64),
    /// RepMaxCDC's minimum.
    #[error("minimum chunk size of {0} bytes is not from 64 bytes to 1 MiB")]
    Minimum(u64),
    /// RepMaxCDC's horizon.
    #[error("horizon of {0} bytes is over 16 MiB")]
    Horizon(u64),
}

/// A chunking function with its parameters.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Params {
    /// FastCDC as published in 2020.
    FastCdc2020(FastCdc2020Params),
    /// RepMaxCDC.
    RepMaxCdc(RepMaxCdcParams),
}

impl Params {
    /// Enum number in `build.bazel.remote.execution.v2.ChunkingFunction`.
    pub const fn number(&self) -> i32 {
        match self {
            Params::FastCdc2020(_) => 1,
            Params::RepMaxCdc(_) => 2,
        }
    }

    /// No chunk is smaller, save the last one of FastCDC and the only one of a small blob.
    pub const fn min_chunk_size_bytes(&self) -> u64 {
        match self {
            Params::FastCdc2020(params) => params.min_chunk_size_bytes(),
            Params::RepMaxCdc(params) => params.min_chunk_size_bytes(),
        }
    }

    /// No chunk is larger.
    pub const fn max_chunk_size_bytes(&self) -> u64 {
        match self {
            Params::FastCdc2020(params) => params.max_chunk_size_bytes(),
            Params::RepMaxCdc(params) => params.max_chunk_size_bytes(),
        }
    }

    /// Whether a blob of this size is to be cut at all. A smaller one travels whole.
    pub const fn cuts(&self, size_bytes: u64) -> bool {
        match self {
            Params::FastCdc2020(params) => size_bytes >= params.max_chunk_size_bytes(),
            Params::RepMaxCdc(params) => size_bytes > params.max_chunk_size_bytes(),
        }
    }

    /// More bytes than this are never taken in without a chunk being told.
    pub const fn lookahead_bytes(&self) -> u64 {
        match self {
            Params::FastCdc2020(params) => params.max_chunk_size_bytes(),
            Params::RepMaxCdc(params) => params.lookahead_bytes(),
        }
    }
}

/// Cuts one blob.
///
/// The lengths told add up to the bytes taken in, less at most [`Params::lookahead_bytes`] while more may come.
#[derive(Debug, Clone)]
pub struct Chunker(Algorithm);

#[derive(Debug, Clone)]
enum Algorithm {
    FastCdc2020(FastCdc2020),
    RepMaxCdc(RepMaxCdc),
}

impl Chunker {
    /// A chunker that has seen no byte.
    pub fn new(params: Params) -> Chunker {
        Chunker(match params {
            Params::FastCdc2020(params) => Algorithm::FastCdc2020(FastCdc2020::new(params)),
            Params::RepMaxCdc(params) => Algorithm::RepMaxCdc(RepMaxCdc::new(params)),
        })
    }

    /// Takes in the next bytes of the blob; puts the length of every chunk that is certain now behind `lengths`.
    pub fn update(&mut self, bytes: &[u8], lengths: &mut Vec<u64>) {
        match &mut self.0 {
            Algorithm::FastCdc2020(chunker) => chunker.update(bytes, lengths),
            Algorithm::RepMaxCdc(chunker) => chunker.update(bytes, lengths),
        }
    }

    /// Ends the blob; puts the lengths of what is left behind `lengths`. A blob without bytes has no chunks.
    pub fn finish(self, lengths: &mut Vec<u64>) {
        match self.0 {
            Algorithm::FastCdc2020(chunker) => chunker.finish(lengths),
            Algorithm::RepMaxCdc(chunker) => chunker.finish(lengths),
        }
    }

    /// The lengths of the chunks of a blob that is there as a whole.
    pub fn lengths_of(params: Params, blob: &[u8]) -> Vec<u64> {
        let (mut chunker, mut lengths) = (Chunker::new(params), Vec::new());
        chunker.update(blob, &mut lengths);
        chunker.finish(&mut lengths);
        lengths
    }
}

#[cfg(test)]
mod tests;
