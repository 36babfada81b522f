//! What a message costs: ours, whose fields of bytes share the buffer they were decoded from, beside those of the crate
//! bazel-remote-apis, whose fields are copies. `cargo bench -p zimcache-proto --bench messages`.
//!
//! Not a test: nothing fails because a figure is low. Both are measured in turn in every round, in processor time of
//! one thread, dropping what was decoded included; printed are medians and, in brackets, least and most.
#![allow(
    clippy::print_stdout,
    reason = "a command line tool answers on its standard output"
)]

use std::hint::black_box;

use bazel_remote_apis::{
    build::bazel::remote::execution::v2 as ready_made, google::bytestream as ready_made_stream,
};
use prost::{DecodeError, Message, bytes::Bytes};
use rustix::time::{ClockId, clock_gettime};
use zimcache_proto::{
    bytestream::WriteRequest,
    reapi::{BatchUpdateBlobsRequest, Digest, FindMissingBlobsRequest, batch_update_blobs_request},
};

/// Rounds of each comparison.
const ROUNDS: usize = 21;
/// Processor time of one round of one side.
const ROUND_SECONDS: f64 = 0.1;

fn main() -> Result<(), DecodeError> {
    let write = Bytes::from(write_request().encode_to_vec());
    compare(
        "decode: write of 1 MiB",
        || decode::<WriteRequest>(&write),
        || decode::<ready_made_stream::WriteRequest>(&write),
    )?;
    let look_up = Bytes::from(look_up().encode_to_vec());
    compare(
        "decode: look-up of 1000 digests",
        || decode::<FindMissingBlobsRequest>(&look_up),
        || decode::<ready_made::FindMissingBlobsRequest>(&look_up),
    )?;
    let batch = Bytes::from(batch().encode_to_vec());
    compare(
        "decode: batch of 100 x 10 KiB",
        || decode::<BatchUpdateBlobsRequest>(&batch),
        || decode::<ready_made::BatchUpdateBlobsRequest>(&batch),
    )?;
    compare(
        "decode and encode: the same",
        || decode_and_encode::<BatchUpdateBlobsRequest>(&batch),
        || decode_and_encode::<ready_made::BatchUpdateBlobsRequest>(&batch),
    )
}

fn digest(number: usize, size_bytes: i64) -> Digest {
    Digest {
        hash: format!("{number:064x}"),
        size_bytes,
    }
}

fn write_request() -> WriteRequest {
    WriteRequest {
        resource_name: format!("main/uploads/0/blobs/{:064x}/1048576", 1),
        finish_write: true,
        data: vec![7; 1 << 20].into(),
        ..WriteRequest::default()
    }
}

fn look_up() -> FindMissingBlobsRequest {
    FindMissingBlobsRequest {
        instance_name: "main".into(),
        blob_digests: (0..1000).map(|number| digest(number, 1000)).collect(),
        ..FindMissingBlobsRequest::default()
    }
}

fn batch() -> BatchUpdateBlobsRequest {
    let request = |number| batch_update_blobs_request::Request {
        digest: Some(digest(number, 10 << 10)),
        data: vec![7; 10 << 10].into(),
        ..batch_update_blobs_request::Request::default()
    };
    BatchUpdateBlobsRequest {
        instance_name: "main".into(),
        requests: (0..100).map(request).collect(),
        ..BatchUpdateBlobsRequest::default()
    }
}

fn decode<M: Message + Default>(encoded: &Bytes) -> Result<(), DecodeError> {
    black_box(M::decode(black_box(encoded.clone()))?);
    Ok(())
}

fn decode_and_encode<M: Message + Default>(encoded: &Bytes) -> Result<(), DecodeError> {
    let message = M::decode(black_box(encoded.clone()))?;
    let again = black_box(message.encode_to_vec());
    assert_eq!(again.len(), encoded.len(), "a message changed on its way");
    Ok(())
}

type Step = Result<(), DecodeError>;

fn compare(title: &str, ours: impl Fn() -> Step, theirs: impl Fn() -> Step) -> Step {
    let (mut our_micros, mut their_micros) = (Vec::new(), Vec::new());
    for _ in 0..ROUNDS {
        our_micros.push(micros(&ours)?);
        their_micros.push(micros(&theirs)?);
    }
    let pairs = their_micros.iter().zip(&our_micros);
    let ratios = pairs.map(|(theirs, ours)| theirs / ours).collect();
    println!(
        "{title:<32} ours {} µs, ready-made {} µs, ratio {}",
        spread(our_micros),
        spread(their_micros),
        spread(ratios),
    );
    Ok(())
}

/// Processor time of one step, over as many as fit a round.
fn micros(step: impl Fn() -> Step) -> Result<f64, DecodeError> {
    let (began, mut steps) = (cpu_seconds(), 0_u32);
    loop {
        // Reading the clock costs as much as a small step.
        for _ in 0..64 {
            step()?;
        }
        steps += 64;
        let took = cpu_seconds() - began;
        if took > ROUND_SECONDS {
            return Ok(took * 1e6 / f64::from(steps));
        }
    }
}

/// Processor time of this thread: decoding does not wait, so this is what it costs, whatever else runs.
fn cpu_seconds() -> f64 {
    let time = clock_gettime(ClockId::ThreadCPUTime);
    time.tv_sec as f64 + time.tv_nsec as f64 / 1e9
}

fn spread(mut numbers: Vec<f64>) -> String {
    numbers.sort_by(f64::total_cmp);
    let at = |index: usize| numbers[index];
    let (median, most) = (at(numbers.len() / 2), at(numbers.len() - 1));
    format!("{median:.3} ({:.3} to {most:.3})", at(0))
}
