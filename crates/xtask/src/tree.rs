//! The files of the checkout, as the other chores see them: path relative to the root, and text where it is text.
//!
//! Invariants: build folders (marked by `CACHEDIR.TAG`), `.git` and fuzzing output are never entered; the order is by path.

use std::{
    fs,
    path::{Path, PathBuf},
};

use anyhow::{Context, Result, bail};

/// A file of the checkout.
#[derive(Debug)]
pub(crate) struct File {
    /// Path below the root, with `/`.
    pub(crate) path: String,
    /// Size in bytes.
    pub(crate) size_bytes: u64,
    /// Content; `None` if it is not UTF-8.
    pub(crate) text: Option<String>,
}

impl File {
    /// Whether it is Rust source.
    pub(crate) fn is_rust(&self) -> bool {
        self.extension() == Some("rs")
    }

    /// What follows the last dot of the name.
    pub(crate) fn extension(&self) -> Option<&str> {
        Path::new(&self.path).extension()?.to_str()
    }

    /// Content, empty if it is not text.
    pub(crate) fn text(&self) -> &str {
        self.text.as_deref().unwrap_or_default()
    }

    /// Whether `cargo xtask gen` wrote it.
    pub(crate) fn is_generated(&self) -> bool {
        self.path.contains("/generated/")
    }

    /// Whether the whole file is for tests, benchmarks, examples or fuzzing.
    pub(crate) fn is_test(&self) -> bool {
        let folder = |name: &str| self.path.split('/').any(|part| part == name);
        folder("tests")
            || folder("e2e")
            || folder("benches")
            || folder("examples")
            || folder("fuzz")
            || folder("testing")
            || self.path.ends_with("/tests.rs")
            || self.path.ends_with("/testing.rs")
    }
}

/// The checkout.
#[derive(Debug)]
pub(crate) struct Tree {
    /// The folder of the workspace manifest.
    pub(crate) root: PathBuf,
    /// Every file.
    pub(crate) files: Vec<File>,
}

impl Tree {
    /// Reads the checkout that the current folder lies in.
    pub(crate) fn find() -> Result<Self> {
        let here = std::env::current_dir().context("no current folder")?;
        let is_root = |dir: &&Path| {
            fs::read_to_string(dir.join("Cargo.toml"))
                .is_ok_and(|manifest| manifest.lines().any(|line| line == "[workspace]"))
        };
        match here.ancestors().find(is_root) {
            Some(root) => Self::read(root),
            None => bail!("{} is in no workspace", here.display()),
        }
    }

    /// Reads the checkout at `root`.
    pub(crate) fn read(root: &Path) -> Result<Self> {
        let mut files = Vec::new();
        read_folder(root, "", &mut files)?;
        files.sort_by(|a, b| a.path.cmp(&b.path));
        Ok(Self {
            root: root.to_owned(),
            files,
        })
    }

    /// The file at a path below the root.
    pub(crate) fn get(&self, path: &str) -> Option<&File> {
        self.files.iter().find(|file| file.path == path)
    }

    /// Every Rust file.
    pub(crate) fn rust(&self) -> impl Iterator<Item = &File> {
        self.files.iter().filter(|file| file.is_rust())
    }
}

fn read_folder(folder: &Path, prefix: &str, files: &mut Vec<File>) -> Result<()> {
    for item in fs::read_dir(folder).with_context(|| format!("cannot list {prefix:?}"))? {
        let item = item?;
        let path = format!("{prefix}{}", item.file_name().to_string_lossy());
        let kind = item.file_type()?;
        if kind.is_dir() {
            if !is_output(&path, &item.path()) {
                read_folder(&item.path(), &format!("{path}/"), files)?;
            }
        } else if kind.is_file() {
            let bytes = fs::read(item.path()).with_context(|| format!("cannot read {path}"))?;
            files.push(File {
                path,
                size_bytes: bytes.len() as u64,
                text: String::from_utf8(bytes).ok(),
            });
        }
    }
    Ok(())
}

fn is_output(path: &str, folder: &Path) -> bool {
    path == ".git"
        || path == "target"
        || path.ends_with("fuzz/artifacts")
        || path.ends_with("fuzz/target")
        || folder.join("CACHEDIR.TAG").exists()
}
