//! Tar and docker-archive, as far as images need them: what is written is the same for the same content.

use std::{fs, path::Path};

use anyhow::{Context, Result, ensure};
use serde_json::{Value, json};
use sha2::{Digest as _, Sha256};

const BLOCK_BYTES: usize = 512;
/// Longest path in the plain header.
const NAME_BYTES: usize = 100;
const USER: &str = "65532:65532";
const PROGRAM_MODE: u32 = 0o777;
const FOLDER: u8 = b'5';
const FILE: u8 = b'0';
const LINK: u8 = b'2';

/// A tar of files that belong to root and have no times.
#[derive(Debug, Default)]
pub(super) struct Tape {
    bytes: Vec<u8>,
}

impl Tape {
    pub(super) fn folder(&mut self, path: &str, mode: u32) -> Result<()> {
        self.header(path, mode, 0, FOLDER, "")
    }

    pub(super) fn link(&mut self, path: &str, to: &str) -> Result<()> {
        self.header(path, PROGRAM_MODE, 0, LINK, to)
    }

    pub(super) fn file(&mut self, path: &str, bytes: &[u8], mode: u32) -> Result<()> {
        self.header(path, mode, bytes.len(), FILE, "")?;
        self.bytes.extend_from_slice(bytes);
        let full = self.bytes.len().next_multiple_of(BLOCK_BYTES);
        self.bytes.resize(full, 0);
        Ok(())
    }

    /// The tar with the two empty blocks that end it.
    pub(super) fn end(mut self) -> Vec<u8> {
        let full = self.bytes.len() + 2 * BLOCK_BYTES;
        self.bytes.resize(full, 0);
        self.bytes
    }

    fn header(&mut self, path: &str, mode: u32, size: usize, kind: u8, to: &str) -> Result<()> {
        ensure!(
            path.len() < NAME_BYTES && to.len() < NAME_BYTES,
            "the path {path} is too long for an image"
        );
        let mut block = [0_u8; BLOCK_BYTES];
        let mut put = |at: usize, bytes: &[u8]| block[at..at + bytes.len()].copy_from_slice(bytes);
        put(0, path.as_bytes());
        put(100, format!("{mode:07o}").as_bytes());
        put(108, b"0000000");
        put(116, b"0000000");
        put(124, format!("{size:011o}").as_bytes());
        put(136, b"00000000000");
        put(148, b"        ");
        put(156, &[kind]);
        put(157, to.as_bytes());
        put(257, b"ustar\x0000");
        let sum: u32 = block.iter().copied().map(u32::from).sum();
        block[148..156].copy_from_slice(format!("{sum:06o}\0 ").as_bytes());
        self.bytes.extend_from_slice(&block);
        Ok(())
    }
}

/// An image of one layer.
#[derive(Debug)]
pub(super) struct Image<'a> {
    pub(super) name: String,
    pub(super) title: &'a str,
    pub(super) version: &'a str,
    pub(super) entry_point: &'a str,
    pub(super) layer: Vec<u8>,
}

/// Writes an image as docker-archive.
pub(super) fn write(image: &Image<'_>, file: &Path) -> Result<()> {
    let layer = sha256(&image.layer);
    let config = serde_json::to_vec(&config(image, &layer))?;
    let (config_name, layer_name) = (
        format!("{}.json", sha256(&config)),
        format!("{layer}/layer.tar"),
    );
    let manifest = json!([{
        "Config": config_name, "RepoTags": [image.name], "Layers": [layer_name],
    }]);
    let mut tape = Tape::default();
    tape.file(&config_name, &config, 0o644)?;
    tape.file(&layer_name, &image.layer, 0o644)?;
    tape.file("manifest.json", &serde_json::to_vec(&manifest)?, 0o644)?;
    fs::write(file, tape.end()).with_context(|| format!("cannot write {}", file.display()))
}

fn config(image: &Image<'_>, layer: &str) -> Value {
    json!({
        "architecture": architecture(),
        "os": "linux",
        "config": {
            "User": USER,
            "Env": ["PATH=/usr/bin"],
            "Entrypoint": [image.entry_point],
            "WorkingDir": "/",
            "Labels": {
                "org.opencontainers.image.title": image.title,
                "org.opencontainers.image.version": image.version,
                "org.opencontainers.image.licenses": "Apache-2.0",
            },
        },
        "rootfs": { "type": "layers", "diff_ids": [format!("sha256:{layer}")] },
        "history": [{ "created_by": "cargo xtask images" }],
    })
}

/// As images name it.
fn architecture() -> &'static str {
    match std::env::consts::ARCH {
        "x86_64" => "amd64",
        "aarch64" => "arm64",
        other => other,
    }
}

fn sha256(bytes: &[u8]) -> String {
    use std::fmt::Write as _;
    let mut text = String::with_capacity(64);
    for byte in Sha256::digest(bytes) {
        // Writing to a string cannot fail.
        let _ = write!(text, "{byte:02x}");
    }
    text
}

#[cfg(test)]
mod tests {
    use std::process::Command;

    use super::*;

    #[test]
    fn tar_reads_what_was_written() {
        let mut tape = Tape::default();
        tape.folder("a/", 0o755).expect("a folder");
        tape.file("a/b", b"content", 0o644).expect("a file");
        tape.link("a/c", "/a/b").expect("a link");
        let folder = tempfile::tempdir().expect("a folder");
        let file = folder.path().join("x.tar");
        fs::write(&file, tape.end()).expect("written");
        let list = Command::new("tar")
            .args(["-tvf"])
            .arg(&file)
            .output()
            .expect("tar");
        let text = String::from_utf8_lossy(&list.stdout).into_owned();
        let lines: Vec<_> = text.lines().collect();
        assert!(list.status.success(), "{list:?}");
        assert!(
            lines[0].starts_with("drwxr-xr-x 0/0") && lines[0].ends_with(" a/"),
            "{text}"
        );
        assert!(
            lines[1].contains("7 1970-01-01") && lines[1].ends_with(" a/b"),
            "{text}"
        );
        assert!(lines[2].ends_with("a/c -> /a/b"), "{text}");
    }

    #[test]
    fn a_path_that_does_not_fit_is_refused() {
        assert!(Tape::default().folder(&"x".repeat(100), 0o755).is_err());
    }
}
