//! A real C code base to compile: zlib and zstd, as the crates `libz-sys` and `zstd-sys` carry them.
//!
//! The crates come through cargo itself, once; the C files are kept in the user's cache folder.

use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result, bail};

use crate::environment::cache_folder;
use crate::folders;
use crate::process::Tool;

/// A C code base from a crate.
#[derive(Debug, Clone, Copy)]
pub struct CodeBase {
    crate_name: &'static str,
    version: &'static str,
    /// Folders inside the crate whose `.c` files are compiled; their parent is copied whole.
    root: &'static str,
    folders: &'static [&'static str],
}

/// zlib: 15 files, compiled in a few seconds.
pub const ZLIB: CodeBase = CodeBase {
    crate_name: "libz-sys",
    version: "1.1.31",
    root: "src/zlib",
    folders: &["."],
};

/// zstd: about 40 files, larger ones.
pub const ZSTD: CodeBase = CodeBase {
    crate_name: "zstd-sys",
    version: "2.0.16+zstd.1.5.7",
    root: "zstd/lib",
    folders: &["common", "compress", "decompress", "dictBuilder"],
};

impl CodeBase {
    /// Copies the code base into a folder.
    ///
    /// # Errors
    /// When it can neither be found in the cache folder nor fetched.
    pub fn copy_to(&self, folder: &Path) -> Result<()> {
        folders::copy(&self.kept()?, folder)
    }

    /// The `.c` files relative to the copied folder, sorted.
    ///
    /// # Errors
    /// When the folder cannot be read.
    pub fn c_files(&self, folder: &Path) -> Result<Vec<String>> {
        let mut files = Vec::new();
        for part in self.folders {
            for item in std::fs::read_dir(folder.join(part))? {
                let name = item?.file_name().to_string_lossy().into_owned();
                if Path::new(&name).extension().is_some_and(|end| end == "c") {
                    files.push(match *part {
                        "." => name,
                        part => format!("{part}/{name}"),
                    });
                }
            }
        }
        files.sort();
        if files.len() < 10 {
            bail!("{} has only {} C files", self.crate_name, files.len());
        }
        Ok(files)
    }

    /// The copy in the user's cache folder, made when missing.
    fn kept(&self) -> Result<PathBuf> {
        let sources = cache_folder()?.join("sources");
        let kept = sources.join(format!("{}-{}", self.crate_name, self.version));
        if kept.is_dir() {
            return Ok(kept);
        }
        std::fs::create_dir_all(&sources)?;
        let fetched = self.fetch()?;
        // A rename at the end: a copy that was interrupted must not look whole.
        let partial = tempfile::tempdir_in(&sources)?;
        let copy = partial.path().join("copy");
        folders::copy(&fetched.join(self.root), &copy)?;
        match std::fs::rename(&copy, &kept) {
            Err(error) if !kept.is_dir() => Err(error).context("keeping C sources"),
            _ => Ok(kept),
        }
    }

    /// Lets cargo download the crate for a throw-away manifest; returns the crate's folder.
    fn fetch(&self) -> Result<PathBuf> {
        let folder = tempfile::tempdir()?;
        let manifest = format!(
            "[package]\nname = \"sources\"\nversion = \"0.0.0\"\nedition = \"2021\"\n\
             [lib]\npath = \"lib.rs\"\n[dependencies]\n{} = \"={}\"\n",
            self.crate_name, self.version
        );
        std::fs::write(folder.path().join("Cargo.toml"), manifest)?;
        std::fs::write(folder.path().join("lib.rs"), "")?;
        let output = Tool::new("cargo", 300)
            .args(["metadata", "--format-version", "1"])
            .current_dir(folder.path())
            .run_ok()?;
        let metadata: serde_json::Value = serde_json::from_slice(&output.stdout)?;
        let packages = metadata["packages"].as_array().context("packages")?;
        let package = packages.iter().find(|p| p["name"] == self.crate_name);
        let manifest = package.and_then(|p| p["manifest_path"].as_str());
        let manifest = manifest.with_context(|| format!("{} in the metadata", self.crate_name))?;
        let parent = Path::new(manifest).parent().context("the crate's folder")?;
        Ok(parent.to_owned())
    }
}
