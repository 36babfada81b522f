//! Polykit's remote cache: a flag. The check sends a whole artifact, because the server looks into it.

use http::Method;
use zimcache_types::{Digest, Function};

use super::{
    check::{Outcome, Probe, same},
    snippet::{Cache, Part, Snippet},
};
use crate::error::Result;

/// A block of a tar.
const BLOCK_BYTES: usize = 512;

pub(super) fn snippet(cache: &Cache) -> Snippet {
    let url = cache.at("");
    Snippet {
        parts: vec![Part::Command(format!(
            "polykit build --remote-cache-url {url}"
        ))],
        notes: vec![
            "polykit-core's HttpBackend takes the same URL, and the token. The polykit command of 0.2.0 sends nothing unless its library is used.",
        ],
    }
}

/// Keys are immutable, so what the check leaves behind can never be in the way.
pub(super) fn check(probe: &Probe<'_>) -> Result<Outcome> {
    let key = probe.hex(64);
    let path = probe.room(&format!("/v1/artifacts/{key}"));
    probe.expect(Method::GET, &path, &[], &[], &[404])?;
    let artifact = artifact(&key, probe.value());
    let stored = probe.expect(Method::PUT, &path, &[], &artifact, &[200, 201, 403])?;
    if stored.status == 403 {
        return Ok(Outcome::ReadOnly);
    }
    let answer = probe.expect(Method::GET, &path, &[], &[], &[200])?;
    same(answer.body == artifact, &path)?;
    Ok(Outcome::Works)
}

/// A tar of one output with its metadata and manifest, in a zstd frame that compresses nothing.
fn artifact(key: &str, value: &[u8]) -> Vec<u8> {
    let metadata = serde_json::json!({
        "package_name": "zimcache-check", "task_name": "check", "command": "true",
        "cache_key_hash": key, "created_at": 0, "version": 1,
    });
    let hash = Digest::of(Function::Sha256, value).hash.to_hex();
    let manifest = serde_json::json!({ "files": { "value": hash }, "total_size": value.len() });
    let mut tar = Vec::new();
    append(&mut tar, "metadata.json", metadata.to_string().as_bytes());
    append(&mut tar, "manifest.json", manifest.to_string().as_bytes());
    append(&mut tar, "outputs/value", value);
    tar.resize(tar.len() + 2 * BLOCK_BYTES, 0);
    frame(&tar)
}

/// Adds a file to a tar.
fn append(tar: &mut Vec<u8>, name: &str, content: &[u8]) {
    let mut header = [0; BLOCK_BYTES];
    let mut put = |at: usize, text: &[u8]| header[at..at + text.len()].copy_from_slice(text);
    put(0, name.as_bytes());
    put(100, b"0000644\0");
    put(108, b"0000000\0");
    put(116, b"0000000\0");
    put(124, format!("{:011o}\0", content.len()).as_bytes());
    put(136, b"00000000000\0");
    put(148, b"        ");
    put(156, b"0");
    put(257, b"ustar  \0");
    let sum: u32 = header.iter().map(|byte| u32::from(*byte)).sum();
    header[148..156].copy_from_slice(format!("{sum:06o}\0 ").as_bytes());
    tar.extend_from_slice(&header);
    tar.extend_from_slice(content);
    tar.resize(tar.len().next_multiple_of(BLOCK_BYTES), 0);
}

/// One zstd frame of one raw block (RFC 8878): magic, a content size of four bytes, the block, no checksum.
fn frame(content: &[u8]) -> Vec<u8> {
    const MAGIC: [u8; 4] = [0x28, 0xb5, 0x2f, 0xfd];
    /// Four bytes of content size, single segment.
    const DESCRIPTOR: u8 = 0b1010_0000;
    let size = content.len() as u32;
    let mut frame = MAGIC.to_vec();
    frame.push(DESCRIPTOR);
    frame.extend(size.to_le_bytes());
    // The last block, raw: bit 0 says last, bits 1 and 2 the type, the rest the size.
    frame.extend_from_slice(&((size << 3) | 1).to_le_bytes()[..3]);
    frame.extend_from_slice(content);
    frame
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_artifact_is_a_zstd_frame_of_a_tar_with_the_value() {
        let value = b"some output";
        let artifact = artifact(&"a".repeat(64), value);
        assert_eq!(&artifact[..4], [0x28, 0xb5, 0x2f, 0xfd]);
        let tar = &artifact[12..];
        assert_eq!(tar.len() % BLOCK_BYTES, 0);
        assert!(tar.windows(value.len()).any(|bytes| bytes == value));
        assert_eq!(&tar[257..262], b"ustar");
    }
}
