//! Polykit's artifacts, written anew: zstd of a tar of metadata, manifest and outputs, right or wrong in one chosen way.

use serde_json::{Map, Value, json};

use crate::content;
use crate::zstd_frames;

const TAR_BLOCK_BYTES: usize = 512;

/// An artifact to be; its parts can be made not to fit each other before it is packed.
#[derive(Debug, Clone)]
pub struct Artifact {
    /// The key inside; the one it is sent under must be the same.
    pub key: String,
    /// Path below `outputs/` and content.
    pub files: Vec<(String, Vec<u8>)>,
    /// Path and SHA-256 as the manifest lists them.
    pub listed: Vec<(String, String)>,
    /// Sum of the sizes as the manifest says it.
    pub total_size: u64,
    /// Members left out of the archive.
    pub left_out: Vec<&'static str>,
}

impl Artifact {
    /// A sound artifact of two files.
    pub fn new(key: &str, bytes: usize) -> Artifact {
        let files = vec![
            ("dist/bundle.bin".to_owned(), content::body(11, bytes)),
            ("dist/note.txt".to_owned(), b"made by a test\n".to_vec()),
        ];
        let digest = |(path, bytes): &(String, Vec<u8>)| (path.clone(), content::sha256(bytes));
        Artifact {
            key: key.to_owned(),
            listed: files.iter().map(digest).collect(),
            total_size: files.iter().map(|(_, bytes)| bytes.len() as u64).sum(),
            files,
            left_out: Vec::new(),
        }
    }

    /// The archive before its compression.
    pub fn tar(&self) -> Vec<u8> {
        let mut tar = Vec::new();
        let metadata = json!({
            "package_name": "sample", "task_name": "build", "command": "make",
            "cache_key_hash": self.key, "created_at": 1_700_000_000_u64, "version": 1,
        });
        let pairs = self
            .listed
            .iter()
            .map(|(path, hash)| (path.clone(), json!(hash)));
        let files: Map<String, Value> = pairs.collect();
        let manifest = json!({ "files": files, "total_size": self.total_size });
        for (name, value) in [("metadata.json", metadata), ("manifest.json", manifest)] {
            if !self.left_out.contains(&name) {
                push_member(&mut tar, name, value.to_string().as_bytes());
            }
        }
        for (path, bytes) in &self.files {
            push_member(&mut tar, &format!("outputs/{path}"), bytes);
        }
        tar.resize(tar.len() + 2 * TAR_BLOCK_BYTES, 0);
        tar
    }

    /// What is sent.
    pub fn pack(&self) -> Vec<u8> {
        zstd_frames::compress(&self.tar())
    }
}

/// A regular file in a tar archive: a header of fields at fixed places, the content, zeros up to the next block.
fn push_member(tar: &mut Vec<u8>, name: &str, content: &[u8]) {
    let mut header = [0_u8; TAR_BLOCK_BYTES];
    let mut field = |at: usize, text: &str| {
        header[at..at + text.len()].copy_from_slice(text.as_bytes());
    };
    field(0, name);
    field(100, "0000000\0");
    field(108, "0000000\0");
    field(116, "0000000\0");
    field(124, &format!("{:011o}\0", content.len()));
    field(136, "00000000000\0");
    field(148, "        ");
    field(156, "0");
    field(257, "ustar\0");
    field(263, "00");
    let sum: u32 = header.iter().map(|byte| u32::from(*byte)).sum();
    header[148..156].copy_from_slice(format!("{sum:06o}\0 ").as_bytes());
    tar.extend(header);
    tar.extend(content);
    tar.resize(tar.len().next_multiple_of(TAR_BLOCK_BYTES), 0);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn members_begin_on_block_borders_with_a_sum_of_their_header() {
        let tar = Artifact::new("k", 600).tar();
        assert_eq!(tar.len() % TAR_BLOCK_BYTES, 0);
        assert!(tar.starts_with(b"metadata.json\0"));
        let mut header = tar[..TAR_BLOCK_BYTES].to_vec();
        let written = String::from_utf8_lossy(&header[148..154]).into_owned();
        header[148..156].fill(b' ');
        let sum: u32 = header.iter().map(|byte| u32::from(*byte)).sum();
        assert_eq!(u32::from_str_radix(&written, 8), Ok(sum));
    }
}
