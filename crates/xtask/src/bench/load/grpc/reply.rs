//! What a call must be answered, and whether it was.
//!
//! Statuses and lengths are checked for every answer. One answer in [`SAMPLE`] is kept whole and compared byte for byte
//! or digest for digest, so that a server that answers nonsense fast does not win and the generator stays cheap.

use anyhow::{Context, Result, bail, ensure};
use zimcache_types::{Digest, Function, Hash};

use super::{
    super::super::corpus::Blob,
    calls::PREFIX_BYTES,
    headers::Statuses,
    protobuf::{Fields, Value},
};

/// One answer in so many is looked at whole; prime, so that it does not keep step with a list.
const SAMPLE: u64 = 61;
/// Answers up to this length are kept whole always.
const SHORT_BYTES: usize = 4 << 10;
/// Memory of this size is used again for the next answer.
const HELD_BYTES: usize = 1 << 20;
/// What an answer may carry beside what it must: statuses, metadata of the server's own.
const SLACK_BYTES: u64 = 1 << 10;

/// What a call must be answered.
#[derive(Debug)]
pub(super) enum Expect {
    /// Success.
    Anything,
    /// Exactly these are missing.
    Missing {
        /// Length of a message that names them.
        reply_bytes: usize,
        /// Their hashes.
        absent: Vec<Hash>,
    },
    /// So many blobs were stored.
    Stored(usize),
    /// So many bytes were stored.
    Committed(u64),
    /// A batch of this blob.
    Batched(Blob),
    /// A stream of this blob.
    Streamed(Blob),
    /// An action result naming these.
    Outputs(Vec<Hash>),
}

impl Expect {
    /// Whether the answer's bytes are what the call is about.
    pub(super) const fn is_download(&self) -> bool {
        matches!(self, Expect::Batched(_) | Expect::Streamed(_))
    }
}

/// An answer as it arrives.
#[derive(Debug)]
pub(super) struct Reply {
    /// Bytes of the messages with their prefixes.
    bytes: u64,
    /// The first of them.
    held: Vec<u8>,
    keep: usize,
    /// What headers and trailers said.
    pub(super) statuses: Statuses,
}

impl Reply {
    /// To the call with this running number, which expects this.
    pub(super) fn new(number: u64, expect: &Expect, mut held: Vec<u8>) -> Reply {
        held.clear();
        held.shrink_to(HELD_BYTES);
        let whole = number.is_multiple_of(SAMPLE) || matches!(expect, Expect::Stored(2..));
        Reply {
            bytes: 0,
            held,
            keep: if whole { usize::MAX } else { SHORT_BYTES },
            statuses: Statuses::default(),
        }
    }

    /// Takes the next bytes.
    pub(super) fn feed(&mut self, bytes: &[u8]) {
        self.bytes += bytes.len() as u64;
        let room = self.keep.saturating_sub(self.held.len()).min(bytes.len());
        self.held.extend_from_slice(&bytes[..room]);
    }

    /// Gives the memory back for the next call.
    pub(super) fn into_held(self) -> Vec<u8> {
        self.held
    }

    /// Checks a complete answer.
    pub(super) fn check(&self, expect: &Expect) -> Result<(), String> {
        let Statuses {
            http,
            grpc,
            message,
        } = &self.statuses;
        if *http != Some(200) || *grpc != Some(0) {
            let message = message.as_deref().unwrap_or_default();
            return Err(format!(
                "a call was answered with HTTP status {http:?}, gRPC status {grpc:?} {message}"
            ));
        }
        self.check_messages(expect)
            .map_err(|error| format!("{error:#}"))
    }

    fn check_messages(&self, expect: &Expect) -> Result<()> {
        let least = match expect {
            Expect::Missing { reply_bytes, .. } => {
                let right = (*reply_bytes + PREFIX_BYTES) as u64;
                ensure!(self.bytes == right, "wrong blobs are said to be missing");
                right
            }
            Expect::Batched(blob) | Expect::Streamed(blob) => blob.length,
            Expect::Outputs(hashes) => hashes.len() as u64 * 64,
            Expect::Anything | Expect::Stored(_) | Expect::Committed(_) => 0,
        };
        // A stream has a prefix and a field's head per message; nobody sends less than 4 KiB in one.
        let most = least + least / 256 + SLACK_BYTES;
        let lengths_fit = matches!(expect, Expect::Anything | Expect::Stored(_))
            || (least..=most).contains(&self.bytes);
        ensure!(lengths_fit, "{} bytes instead of {least}", self.bytes);
        if self.bytes > self.held.len() as u64 {
            return Ok(());
        }
        let messages = messages(&self.held)?;
        match expect {
            Expect::Anything => Ok(()),
            Expect::Missing { absent, .. } => check_missing(&messages, absent),
            Expect::Stored(count) => check_stored(&messages, *count),
            Expect::Committed(bytes) => check_committed(&messages, *bytes),
            Expect::Batched(blob) => check_batched(&messages, blob),
            Expect::Streamed(blob) => check_streamed(&messages, blob),
            Expect::Outputs(hashes) => check_outputs(&messages, hashes),
        }
    }
}

/// The messages of an answer without their prefixes.
fn messages(mut bytes: &[u8]) -> Result<Vec<&[u8]>> {
    let mut messages = Vec::new();
    while !bytes.is_empty() {
        let ([packed, length @ ..], rest) = bytes
            .split_first_chunk::<PREFIX_BYTES>()
            .context("a prefix is cut short")?;
        ensure!(*packed == 0, "a message is compressed");
        let (message, rest) = rest
            .split_at_checked(u32::from_be_bytes(*length) as usize)
            .context("a message is cut short")?;
        messages.push(message);
        bytes = rest;
    }
    Ok(messages)
}

/// The one message of an answer.
fn only<'a>(messages: &[&'a [u8]]) -> Result<&'a [u8]> {
    match messages {
        [message] => Ok(message),
        _ => bail!("{} messages instead of one", messages.len()),
    }
}

/// The fields of this number that are texts, bytes or messages.
fn each(message: &[u8], number: u32) -> Result<Vec<&[u8]>> {
    let mut found = Vec::new();
    for field in Fields::of(message) {
        if let (field, Value::Bytes(bytes)) = field?
            && field == number
        {
            found.push(bytes);
        }
    }
    Ok(found)
}

fn hash_in(digest: &[u8]) -> Result<Hash> {
    let texts = each(digest, 1)?;
    let text = texts.first().context("a digest has no hash")?;
    Ok(Hash::parse(Function::Sha256, std::str::from_utf8(text)?)?)
}

fn check_missing(messages: &[&[u8]], absent: &[Hash]) -> Result<()> {
    let mut found = each(only(messages)?, 2)?
        .into_iter()
        .map(hash_in)
        .collect::<Result<Vec<Hash>>>()?;
    let mut wanted = absent.to_vec();
    found.sort_by(|a, b| a.as_bytes().cmp(b.as_bytes()));
    wanted.sort_by(|a, b| a.as_bytes().cmp(b.as_bytes()));
    ensure!(found == wanted, "wrong blobs are said to be missing");
    Ok(())
}

/// Every status in a batch's answer is there or left out as a success is, and none is an error.
fn check_stored(messages: &[&[u8]], count: usize) -> Result<()> {
    let responses = each(only(messages)?, 1)?;
    ensure!(responses.len() == count, "an answer for another batch");
    for response in responses {
        check_status(response, 2)?;
    }
    Ok(())
}

fn check_status(response: &[u8], number: u32) -> Result<()> {
    for status in each(response, number)? {
        for field in Fields::of(status) {
            if let (1, Value::Number(code)) = field? {
                ensure!(code == 0, "a blob of a batch has status {code}");
            }
        }
    }
    Ok(())
}

fn check_committed(messages: &[&[u8]], bytes: u64) -> Result<()> {
    let committed = Fields::of(only(messages)?)
        .next()
        .context("nothing was committed")??;
    ensure!(
        committed == (1, Value::Number(bytes)),
        "committed are {committed:?}, not {bytes}"
    );
    Ok(())
}

fn check_batched(messages: &[&[u8]], blob: &Blob) -> Result<()> {
    let responses = each(only(messages)?, 1)?;
    let [response] = responses[..] else {
        bail!("an answer for another batch");
    };
    check_status(response, 3)?;
    check_body(&each(response, 2)?, blob)
}

fn check_streamed(messages: &[&[u8]], blob: &Blob) -> Result<()> {
    let mut pieces = Vec::new();
    for message in messages {
        pieces.extend(each(message, 10)?);
    }
    check_body(&pieces, blob)
}

fn check_body(pieces: &[&[u8]], blob: &Blob) -> Result<()> {
    let found = Digest::of(Function::Sha256, &pieces.concat());
    ensure!(found.hash == blob.hash, "a blob has the wrong bytes");
    Ok(())
}

fn check_outputs(messages: &[&[u8]], wanted: &[Hash]) -> Result<()> {
    let mut found = Vec::new();
    for file in each(only(messages)?, 2)? {
        let digests = each(file, 2)?;
        found.push(hash_in(
            digests.first().context("an output has no digest")?,
        )?);
    }
    ensure!(found == wanted, "an action result names other outputs");
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::super::{
        super::super::corpus::Payload,
        protobuf::{put_bytes, put_number},
    };
    use super::*;

    fn reply(number: u64, expect: &Expect, message: &[u8]) -> Result<(), String> {
        let mut reply = Reply::new(number, expect, Vec::new());
        reply.statuses.http = Some(200);
        reply.statuses.grpc = Some(0);
        reply.feed(&[0]);
        reply.feed(&(message.len() as u32).to_be_bytes());
        reply.feed(message);
        reply.check(expect)
    }

    fn digest(blob: &Blob) -> Vec<u8> {
        let mut digest = Vec::new();
        put_bytes(&mut digest, 1, blob.hash.to_hex().as_bytes());
        put_number(&mut digest, 2, blob.length);
        digest
    }

    #[test]
    fn a_status_that_is_no_success_is_an_error() {
        for (http, grpc) in [(500, Some(0)), (200, Some(14)), (200, None)] {
            let mut reply = Reply::new(0, &Expect::Anything, Vec::new());
            reply.statuses.http = Some(http);
            reply.statuses.grpc = grpc;
            assert!(reply.check(&Expect::Anything).is_err());
        }
        assert_eq!(reply(0, &Expect::Anything, b""), Ok(()));
    }

    #[test]
    fn missing_blobs_must_be_the_absent_ones() {
        let blobs = Payload::new(64).uniform(3, 64, 1);
        let expect = Expect::Missing {
            reply_bytes: 2 * (digest(&blobs[0]).len() + 2),
            absent: vec![blobs[0].hash, blobs[1].hash],
        };
        let say = |named: &[usize]| {
            let mut message = Vec::new();
            for &place in named {
                put_bytes(&mut message, 2, &digest(&blobs[place]));
            }
            reply(0, &expect, &message)
        };
        assert_eq!(say(&[1, 0]), Ok(()));
        assert!(say(&[1]).is_err(), "one too few");
        assert!(say(&[1, 2]).is_err(), "another one");
    }

    #[test]
    fn a_blob_must_have_its_bytes() {
        let payload = Payload::new(5_000);
        let blob = payload.uniform(1, 5_000, 1)[0];
        let expect = Expect::Batched(blob);
        let say = |number, body: &[u8]| {
            let mut response = Vec::new();
            put_bytes(&mut response, 1, &digest(&blob));
            put_bytes(&mut response, 2, body);
            let mut message = Vec::new();
            put_bytes(&mut message, 1, &response);
            reply(number, &expect, &message)
        };
        let body = payload.body(&blob);
        assert_eq!(say(0, &body), Ok(()));
        assert!(say(0, &[1; 5_000]).is_err(), "a sample");
        assert_eq!(say(1, &[1; 5_000]), Ok(()), "not a sample");
        assert!(say(1, &body[..4_000]).is_err(), "too short");
    }

    #[test]
    fn a_blob_of_a_batch_that_failed_is_an_error() {
        for (code, right) in [(0, true), (8, false)] {
            let mut status = Vec::new();
            put_number(&mut status, 1, code);
            let mut response = Vec::new();
            put_bytes(&mut response, 2, &status);
            let mut message = Vec::new();
            put_bytes(&mut message, 1, &response);
            assert_eq!(reply(1, &Expect::Stored(1), &message).is_ok(), right);
        }
        assert!(reply(1, &Expect::Stored(1), b"").is_err());
    }

    #[test]
    fn an_upload_must_be_committed_whole() {
        let mut message = Vec::new();
        put_number(&mut message, 1, 99);
        assert_eq!(reply(1, &Expect::Committed(99), &message), Ok(()));
        assert!(reply(1, &Expect::Committed(100), &message).is_err());
    }
}
