//! The S3 server, asked and watched: what its log says it was asked, a signed read of an object; objects laid into
//! its folder.

use std::{
    cell::Cell,
    fs,
    net::SocketAddr,
    path::{Path, PathBuf},
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, ensure};
use zimcache_types::{Clock, Digest, Function, Hash, SystemClock, Timestamp};

use super::super::{
    client,
    corpus::{Blob, Payload},
    text,
};
use crate::cluster::{BUCKET, S3_SECRET, S3_USER};

/// The S3 server's region when it is told none.
const REGION: &str = "us-east-1";
/// How long a request may take to get into the log.
const LOG_LIMIT: Duration = Duration::from_secs(10);
/// What operations are called in the log.
const OPERATION: &str = " s3_";

/// What the S3 server was asked, by its log.
#[derive(Debug)]
pub(super) struct Requests {
    log: PathBuf,
    address: SocketAddr,
    marks: Cell<u64>,
    seen: Cell<usize>,
}

impl Requests {
    pub(super) const fn new(log: PathBuf, address: SocketAddr) -> Requests {
        Requests {
            log,
            address,
            marks: Cell::new(0),
            seen: Cell::new(0),
        }
    }

    /// The operations since this was asked last. A request of ours marks the end: when it is in the log, so is what came
    /// before it.
    pub(super) fn since_last(&self) -> Result<Vec<String>> {
        self.marks.set(self.marks.get() + 1);
        let mark = format!("/{BUCKET}/mark-{}", self.marks.get());
        client::get(self.address, &mark)?;
        let start = Instant::now();
        loop {
            let log = String::from_utf8_lossy(&fs::read(&self.log)?).into_owned();
            let new = log.get(self.seen.get()..).unwrap_or_default();
            let line = format!(" {mark} ");
            if let Some(at) = new.find(&line) {
                let end = new[at..].find('\n').map_or(new.len(), |end| at + end + 1);
                self.seen.set(self.seen.get() + end);
                return Ok(operations(&new[..end], &line));
            }
            ensure!(start.elapsed() < LOG_LIMIT, "the S3 server logs nothing");
            thread::sleep(Duration::from_millis(1));
        }
    }
}

/// The operations in some lines of the log, but for a mark.
fn operations(lines: &str, mark: &str) -> Vec<String> {
    let lines = lines.lines().filter(|line| !line.contains(mark));
    let operation = |line: &str| Some(line.split_once(OPERATION)?.1.split(' ').next()?.to_owned());
    lines.filter_map(operation).collect()
}

/// The key of the only object whose name is this hash.
pub(super) fn key_of(bucket: &Path, hash: &Hash) -> Result<String> {
    let mut folders = vec![bucket.to_owned()];
    while let Some(folder) = folders.pop() {
        for item in fs::read_dir(folder)? {
            let path = item?.path();
            if path.is_dir() {
                folders.push(path);
            } else if path.ends_with(hash.to_hex())
                && let Ok(key) = path.strip_prefix(bucket)
            {
                return Ok(key.to_string_lossy().into_owned());
            }
        }
    }
    anyhow::bail!("the bucket has no {hash}");
}

/// Lays objects into the folder of the bucket, beside one that was uploaded and named as it is.
pub(super) fn lay(bucket: &Path, like: &Blob, payload: &Payload, blobs: &[Blob]) -> Result<()> {
    let uploaded = bucket.join(key_of(bucket, &like.hash)?);
    let all = uploaded
        .ancestors()
        .nth(2)
        .context("the object lies elsewhere")?;
    for blob in blobs {
        let name = blob.hash.to_hex();
        let folder = all.join(&name[..2]);
        fs::create_dir_all(&folder)?;
        fs::write(folder.join(&name), payload.body(blob))?;
    }
    Ok(())
}

/// A read of an object, signed for now (AWS signature version 4).
pub(super) fn signed_get(address: SocketAddr, key: &str) -> String {
    signed_get_at(address, key, SystemClock.now())
}

fn signed_get_at(address: SocketAddr, key: &str, now: Timestamp) -> String {
    const SIGNED: &str = "host;x-amz-content-sha256;x-amz-date";
    let day = text::day(now).replace('-', "");
    let seconds = now.0 / 1_000 % 86_400;
    let stamp = format!(
        "{day}T{:02}{:02}{:02}Z",
        seconds / 3_600,
        seconds / 60 % 60,
        seconds % 60
    );
    let path = format!("/{BUCKET}/{key}");
    let canonical = format!(
        "GET\n{path}\n\nhost:{address}\nx-amz-content-sha256:UNSIGNED-PAYLOAD\nx-amz-date:{stamp}\n\n{SIGNED}\n\
         UNSIGNED-PAYLOAD"
    );
    let scope = format!("{day}/{REGION}/s3/aws4_request");
    let hash = Digest::of(Function::Sha256, canonical.as_bytes()).hash;
    let to_sign = format!("AWS4-HMAC-SHA256\n{stamp}\n{scope}\n{}", hash.to_hex());
    let key = format!("AWS4{S3_SECRET}").into_bytes();
    let words = [&*day, REGION, "s3", "aws4_request"];
    let key = words.into_iter().fold(key, |key, word| {
        hmac(&key, word.as_bytes()).as_bytes().to_vec()
    });
    let signature = hmac(&key, to_sign.as_bytes()).to_hex();
    format!(
        "GET {path} HTTP/1.1\r\nHost: {address}\r\nX-Amz-Content-Sha256: UNSIGNED-PAYLOAD\r\n\
         X-Amz-Date: {stamp}\r\nAuthorization: AWS4-HMAC-SHA256 Credential={S3_USER}/{scope}, \
         SignedHeaders={SIGNED}, Signature={signature}\r\n\r\n"
    )
}

/// HMAC-SHA-256 with a key of at most a block.
fn hmac(key: &[u8], message: &[u8]) -> Hash {
    let padded = |with: u8| -> Vec<u8> {
        let block = (0..64).map(|at| key.get(at).copied().unwrap_or_default() ^ with);
        block.collect()
    };
    let inner = Digest::of(Function::Sha256, &[&padded(0x36), message].concat()).hash;
    Digest::of(
        Function::Sha256,
        &[&padded(0x5c), inner.as_bytes()].concat(),
    )
    .hash
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_message_is_authenticated_as_its_standard_says() {
        // RFC 4231, test case 2.
        assert_eq!(
            hmac(b"Jefe", b"what do ya want for nothing?").to_hex(),
            "5bdcc146bf60754e6a042426089575c75a003f089d2739839dec58b964ec3843"
        );
    }

    #[test]
    fn operations_are_read_from_the_log_but_for_the_mark() {
        let lines = "log starts\n\
            - zimcache [21/November/2026:12:48:34 +0000] 127.0.0.1 u V5 s3_GetObject a /zimcache/a 200 - 0\n\
            - zimcache [21/November/2026:12:48:35 +0000] 127.0.0.1 - V6 s3_GetObject m /zimcache/mark-1 403 x\n";
        assert_eq!(operations(lines, " /zimcache/mark-1 "), ["GetObject"]);
    }
}
