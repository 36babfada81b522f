//! Cuts are those of other implementations, whatever the slices, and an insertion changes few of them.

use std::collections::HashSet;

use proptest::prelude::*;

use super::*;
use gear::{GEAR, roll};

/// Bytes that look random and are the same everywhere: BLAKE3's stream behind the hash of nothing.
fn noise(size: usize) -> Vec<u8> {
    let mut bytes = vec![0; size];
    blake3::Hasher::new().finalize_xof().fill(&mut bytes);
    bytes
}

fn fast(average: u64, seed: u32) -> Params {
    Params::FastCdc2020(FastCdc2020Params::new(average, seed).unwrap())
}

fn rep_max(min: u64, horizon: u64) -> Params {
    Params::RepMaxCdc(RepMaxCdcParams::new(min, horizon).unwrap())
}

/// The lengths that the `fastcdc` library finds in a blob that lies in one piece.
fn lengths_by_library(average: u64, seed: u32, blob: &[u8]) -> Vec<u64> {
    use fastcdc::v2020::{FastCDC, Normalization::Level2};
    let average = average as usize;
    let (min, max) = (average / 4, average * 4);
    FastCDC::with_level_and_seed(blob, min, average, max, Level2, seed.into())
        .map(|chunk| chunk.length as u64)
        .collect()
}

/// RepMaxCDC as its definition puts it: every candidate is hashed anew for every chunk.
fn lengths_by_definition(min: usize, horizon: usize, blob: &[u8]) -> Vec<u64> {
    let hash_at = |at: usize| {
        let window = &blob[at - 64..at];
        window.iter().fold(0, |hash, byte| roll(&GEAR, hash, *byte))
    };
    let (mut lengths, mut start) = (Vec::new(), 0);
    while blob.len() - start >= 2 * min {
        let first = start + min;
        let mut last = (first + horizon).min(blob.len() - min);
        let cut = loop {
            // Of equal hashes `max_by_key` takes the last, which is the first place when going backwards.
            let best = (first..=last).rev().max_by_key(|at| hash_at(*at)).unwrap();
            if best < first + min {
                break best;
            }
            last = best - min;
        };
        lengths.push((cut - start) as u64);
        start = cut;
    }
    lengths.extend(Some((blob.len() - start) as u64).filter(|rest| *rest > 0));
    lengths
}

fn chunks<'a>(lengths: &[u64], mut blob: &'a [u8]) -> Vec<&'a [u8]> {
    let mut cut = |length: &u64| {
        let (chunk, rest) = blob.split_at(*length as usize);
        blob = rest;
        chunk
    };
    let chunks = lengths.iter().map(&mut cut).collect();
    assert!(blob.is_empty(), "the lengths miss {} bytes", blob.len());
    chunks
}

#[test]
fn the_gear_numbers_are_the_published_ones() {
    assert_eq!(GEAR[0], 0x3b5d_3c7d_207e_37dc);
    assert_eq!(GEAR[1], 0x784d_68ba_9112_3086);
    assert_eq!(GEAR[255], 0xaabd_2b2a_4515_04e1);
}

#[test]
fn fastcdc_cuts_like_the_library_at_every_average_with_and_without_a_seed() {
    let noise = noise(20 << 20);
    for average in (10..=20).map(|bits| 1 << bits) {
        let blob = &noise[..average as usize * 20 - 3];
        for seed in [0, 666, u32::MAX] {
            let lengths = Chunker::lengths_of(fast(average, seed), blob);
            assert!(lengths.len() > 10, "{average}: {}", lengths.len());
            assert_eq!(lengths, lengths_by_library(average, seed, blob));
        }
    }
}

#[test]
fn fastcdc_cuts_where_nothing_fits_at_four_times_the_average() {
    let zeros = vec![0; 4 * 4096 * 2 + 1];
    let lengths = Chunker::lengths_of(fast(4096, 0), &zeros);
    assert_eq!(lengths, [16_384, 16_384, 1]);
}

/// Lengths that another implementation of RepMaxCDC gives for the same bytes.
#[test]
fn repmaxcdc_cuts_like_the_program_that_the_specification_refers_to() {
    let cases: [(u64, &[u64]); 3] = [
        (0, &[1024, 1024, 1024, 1024, 1024, 1024, 1024, 1024]),
        (500, &[1092, 1026, 1326, 1180, 1164, 1134, 1041, 1160]),
        (8192, &[1646, 1798, 1180, 2036, 1303, 1160, 1504, 1814]),
    ];
    let ends: [(usize, &[u64]); 3] = [
        (58, &[1024, 1024, 1024, 1632]),
        (49, &[1147, 1223, 1194, 1512]),
        (44, &[2032, 1156, 1126]),
    ];
    for ((horizon, first), (count, last)) in cases.into_iter().zip(ends) {
        let lengths = Chunker::lengths_of(rep_max(1024, horizon), &noise(60_000));
        assert_eq!(lengths.len(), count, "horizon {horizon}");
        assert!(lengths.starts_with(first), "horizon {horizon}");
        assert!(lengths.ends_with(last), "horizon {horizon}");
    }
}

#[test]
fn what_is_behind_the_lookahead_does_not_move_a_cut() {
    let blob = noise(100_000);
    for params in [fast(1024, 0), rep_max(1024, 512), rep_max(1024, 8192)] {
        let whole = Chunker::lengths_of(params, &blob);
        let (mut chunker, mut told) = (Chunker::new(params), Vec::new());
        let known = params.lookahead_bytes() as usize;
        chunker.update(&blob[..known], &mut told);
        assert!(!told.is_empty() && whole.starts_with(&told), "{params:?}");
        chunker.update(&vec![0; known], &mut told);
        chunker.finish(&mut told);
        assert_eq!(told[0], whole[0], "{params:?}");
        assert_ne!(told[..], whole[..told.len()], "{params:?}");
    }
}

#[test]
fn after_an_insertion_the_cuts_are_the_same_again() {
    let before = noise(1 << 20);
    let mut after = before.clone();
    after.splice(300_000..300_000, *b"thirteen more");
    for params in [fast(4096, 0), rep_max(2048, 16_384)] {
        let old: HashSet<&[u8]> = chunks(&Chunker::lengths_of(params, &before), &before)
            .into_iter()
            .collect();
        let lengths = Chunker::lengths_of(params, &after);
        let new = chunks(&lengths, &after);
        let fresh = new.iter().filter(|chunk| !old.contains(*chunk)).count();
        assert!(
            (1..=8).contains(&fresh),
            "{params:?}: {fresh} of {}",
            new.len()
        );
        assert_eq!(old.len(), new.len(), "{params:?}");
    }
}

#[test]
fn a_small_blob_is_one_chunk_and_an_empty_one_is_none() {
    for params in [fast(1024, 0), rep_max(64, 1000)] {
        assert_eq!(Chunker::lengths_of(params, b""), []);
        let least = params.min_chunk_size_bytes();
        for size in [1, least - 1, least] {
            let lengths = Chunker::lengths_of(params, &noise(size as usize));
            assert_eq!(lengths, [size], "{params:?}");
        }
        assert!(!params.cuts(least));
        assert!(params.cuts(params.max_chunk_size_bytes() + 1));
    }
}

#[test]
fn parameters_out_of_bounds_are_refused() {
    for average in [0, 512, 1025, 3 << 10, (1 << 20) + 1, 2 << 20, u64::MAX] {
        let refused = FastCdc2020Params::new(average, 0);
        assert_eq!(refused, Err(ParamsError::Average(average)));
    }
    for min in [0, 63, (1 << 20) + 1, u64::MAX] {
        let refused = RepMaxCdcParams::new(min, 0);
        assert_eq!(refused, Err(ParamsError::Minimum(min)));
    }
    let refused = RepMaxCdcParams::new(64, (16 << 20) + 1);
    assert_eq!(refused, Err(ParamsError::Horizon((16 << 20) + 1)));
}

#[test]
fn the_recommended_parameters_are_such_as_would_be_taken() {
    let fast = FastCdc2020Params::RECOMMENDED;
    let same = FastCdc2020Params::new(fast.avg_chunk_size_bytes(), fast.seed());
    assert_eq!(same, Ok(fast));
    let rep_max = RepMaxCdcParams::RECOMMENDED;
    let same = RepMaxCdcParams::new(rep_max.min_chunk_size_bytes(), rep_max.horizon_size_bytes());
    assert_eq!(same, Ok(rep_max));
    assert_eq!(Params::FastCdc2020(fast).number(), 1);
    assert_eq!(Params::RepMaxCdc(rep_max).number(), 2);
}

/// Bodies of three sorts: noise, runs and repetitions, and two letters only, where hashes are equal often.
fn body() -> impl Strategy<Value = Vec<u8>> {
    let run = (any::<u8>(), 1..2000usize).prop_map(|(byte, length)| vec![byte; length]);
    let piece = prop::collection::vec(any::<u8>(), 1..600);
    let pieces = (piece, 1..6usize).prop_map(|(piece, times)| piece.repeat(times));
    let mixed = prop::collection::vec(prop_oneof![run, pieces], 0..30);
    prop_oneof![
        prop::collection::vec(any::<u8>(), 0..30_000),
        prop::collection::vec(0..2u8, 0..30_000),
        mixed.prop_map(|parts| parts.concat()),
    ]
}

fn params() -> impl Strategy<Value = Params> {
    let averages = (10..13u32, any::<u32>());
    prop_oneof![
        averages.prop_map(|(bits, seed)| fast(1 << bits, seed)),
        (64..700u64, 0..6000u64).prop_map(|(min, horizon)| rep_max(min, horizon)),
    ]
}

proptest! {
    #[test]
    fn slices_of_any_size_give_the_same_cuts(
        blob in body(),
        params in params(),
        sizes in prop::collection::vec(1..5000usize, 1..20),
    ) {
        let (mut chunker, mut lengths) = (Chunker::new(params), Vec::new());
        let (mut rest, mut sizes) = (&blob[..], sizes.iter().cycle());
        while !rest.is_empty() {
            let (slice, behind) = rest.split_at(rest.len().min(*sizes.next().unwrap()));
            chunker.update(slice, &mut lengths);
            rest = behind;
            let open = (blob.len() - rest.len()) as u64 - lengths.iter().sum::<u64>();
            prop_assert!(open <= params.lookahead_bytes());
        }
        chunker.finish(&mut lengths);
        prop_assert_eq!(lengths, Chunker::lengths_of(params, &blob));
    }

    #[test]
    fn chunks_are_as_long_as_promised_and_lack_no_byte(blob in body(), params in params()) {
        let lengths = Chunker::lengths_of(params, &blob);
        prop_assert_eq!(lengths.iter().sum::<u64>(), blob.len() as u64);
        let (min, max) = (params.min_chunk_size_bytes(), params.max_chunk_size_bytes());
        prop_assert!(lengths.iter().all(|length| *length <= max));
        let last_may_be_short = matches!(params, Params::FastCdc2020(_)) || lengths.len() == 1;
        let checked = lengths.len() - usize::from(last_may_be_short && !lengths.is_empty());
        prop_assert!(lengths[..checked].iter().all(|length| *length >= min));
    }

    #[test]
    fn fastcdc_cuts_like_the_library(blob in body(), bits in 10..13u32, seed in any::<u32>()) {
        let lengths = Chunker::lengths_of(fast(1 << bits, seed), &blob);
        prop_assert_eq!(lengths, lengths_by_library(1 << bits, seed, &blob));
    }

    #[test]
    fn repmaxcdc_cuts_by_its_definition(blob in body(), min in 64..700u64, horizon in 0..6000u64) {
        let lengths = Chunker::lengths_of(rep_max(min, horizon), &blob);
        prop_assert_eq!(lengths, lengths_by_definition(min as usize, horizon as usize, &blob));
    }
}
