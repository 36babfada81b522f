//! What is in an image: a program, the libraries that the loader would take for it, and the few files they look for.
//!
//! Invariants: paths are sorted, owned by root, without times, so that the same files are the same layer.

use std::{
    collections::BTreeMap,
    fs,
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context, Result, ensure};

use super::archive::Tape;

const PROGRAM: u32 = 0o755;
const FILE: u32 = 0o644;
/// Everybody may write here; only what is mounted can be written to when the root is read-only.
const SHARED: u32 = 0o1777;
const CERTIFICATES: &str = "/etc/ssl/certs/ca-certificates.crt";
const PASSWD: &str =
    "root:x:0:0:root:/:/sbin/nologin\nzimcache:x:65532:65532:zimcache:/tmp:/sbin/nologin\n";
const GROUP: &str = "root:x:0:\nzimcache:x:65532:\n";
/// Names are looked up in `/etc/hosts`, then by DNS.
const NSSWITCH: &str = "passwd: files\ngroup: files\nhosts: files dns\n";

enum Entry {
    Folder(u32),
    File { bytes: Vec<u8>, mode: u32 },
    Link(String),
}

/// The files of an image by their paths.
pub(super) struct Content {
    entries: BTreeMap<String, Entry>,
    /// Files of this machine that are part of it, for the bill of materials.
    pub(super) from_system: Vec<PathBuf>,
}

impl Content {
    /// Only what every image has.
    pub(super) fn new() -> Content {
        let mut content = Content {
            entries: BTreeMap::new(),
            from_system: Vec::new(),
        };
        for (path, text) in [
            ("/etc/passwd", PASSWD),
            ("/etc/group", GROUP),
            ("/etc/nsswitch.conf", NSSWITCH),
        ] {
            content.file(path, text.as_bytes().to_vec(), FILE);
        }
        content
            .entries
            .insert("tmp/".to_owned(), Entry::Folder(SHARED));
        content
    }

    /// A program without its symbols, and its libraries.
    pub(super) fn program(&mut self, file: &Path, path: &str) -> Result<()> {
        ensure!(file.is_file(), "{} does not exist", file.display());
        for library in libraries(file)? {
            let bytes = fs::read(&library).with_context(|| library.clone())?;
            self.file(&library, bytes, PROGRAM);
            self.from_system.push(library.into());
        }
        self.from_system.push(file.to_owned());
        self.file(path, stripped(file)?, PROGRAM);
        Ok(())
    }

    /// Another name of a file.
    pub(super) fn link(&mut self, path: &str, to: &str) {
        self.entry(path, Entry::Link(to.to_owned()));
    }

    /// The authorities that the system trusts.
    pub(super) fn certificates(&mut self) -> Result<()> {
        let bytes = fs::read(CERTIFICATES)
            .context("no certificates of authorities: install ca-certificates")?;
        self.file(CERTIFICATES, bytes, FILE);
        Ok(())
    }

    /// All of it as one uncompressed layer.
    pub(super) fn layer(&self) -> Result<Vec<u8>> {
        let mut tape = Tape::default();
        for (path, entry) in &self.entries {
            match entry {
                Entry::Folder(mode) => tape.folder(path, *mode)?,
                Entry::File { bytes, mode } => tape.file(path, bytes, *mode)?,
                Entry::Link(to) => tape.link(path, to)?,
            }
        }
        Ok(tape.end())
    }

    fn file(&mut self, path: &str, bytes: Vec<u8>, mode: u32) {
        self.entry(path, Entry::File { bytes, mode });
    }

    /// Puts an entry in its place, and the folders above it.
    fn entry(&mut self, path: &str, entry: Entry) {
        let path = path.trim_start_matches('/');
        for (at, _) in path.match_indices('/') {
            let folder = path[..=at].to_owned();
            self.entries.entry(folder).or_insert(Entry::Folder(PROGRAM));
        }
        self.entries.insert(path.to_owned(), entry);
    }
}

/// The libraries of a program and their loader, as `ldd` finds them.
fn libraries(file: &Path) -> Result<Vec<String>> {
    let output = Command::new("ldd")
        .arg(file)
        .output()
        .context("cannot run ldd")?;
    let text = String::from_utf8_lossy(&output.stdout);
    if !output.status.success() {
        let complaint = String::from_utf8_lossy(&output.stderr);
        ensure!(
            complaint.contains("not a dynamic executable"),
            "ldd: {complaint}"
        );
        return Ok(Vec::new());
    }
    parse_ldd(&text)
}

/// Lines such as `libc.so.6 => /lib/libc.so.6 (0x7f)` and `/lib64/ld-linux-x86-64.so.2 (0x7f)`; the kernel's own
/// library has no path.
fn parse_ldd(text: &str) -> Result<Vec<String>> {
    let mut found = Vec::new();
    for line in text.lines() {
        ensure!(!line.contains("not found"), "a library is missing: {line}");
        let place = line.split(" => ").last().unwrap_or_default().trim();
        if let Some(path) = place.split(' ').next().filter(|path| path.starts_with('/')) {
            found.push(path.to_owned());
        }
    }
    Ok(found)
}

fn stripped(file: &Path) -> Result<Vec<u8>> {
    let folder = tempfile::tempdir()?;
    let copy = folder.path().join("stripped");
    let output = Command::new("strip")
        .args(["--strip-all", "-o"])
        .args([&copy, file])
        .output()
        .context("cannot run strip: install binutils")?;
    let complaint = String::from_utf8_lossy(&output.stderr);
    ensure!(output.status.success(), "strip: {complaint}");
    Ok(fs::read(copy)?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn libraries_and_loader_are_found_in_what_ldd_says() {
        let text = "\tlinux-vdso.so.1 (0x00007f)\n\tlibc.so.6 => /lib/x86_64-linux-gnu/libc.so.6 (0x00007f)\n\
                    \t/lib64/ld-linux-x86-64.so.2 (0x00007f)\n";
        let found = parse_ldd(text).expect("paths");
        assert_eq!(
            found,
            [
                "/lib/x86_64-linux-gnu/libc.so.6",
                "/lib64/ld-linux-x86-64.so.2"
            ]
        );
    }

    #[test]
    fn a_missing_library_is_a_failure() {
        assert!(parse_ldd("\tlibzim.so => not found\n").is_err());
    }

    #[test]
    fn the_same_files_in_another_order_are_the_same_layer() {
        let layer = |paths: [&str; 2]| {
            let mut content = Content::new();
            for path in paths {
                content.file(path, path.as_bytes()[..2].to_vec(), FILE);
            }
            content.layer().expect("a layer")
        };
        let (first, second) = (layer(["/a/x", "/a/y"]), layer(["/a/y", "/a/x"]));
        assert_eq!(first, second);
    }
}
