//! Folders of samples: copying one to a place where a tool may write, and the digests of what the tool made there.

use std::collections::BTreeMap;
use std::io;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result};

use crate::content;

/// A committed sample, such as `gradle`.
pub fn fixture(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("fixtures")
        .join(name)
}

/// Copies a folder with everything in it.
///
/// # Errors
/// Those of the file system.
pub fn copy(from: &Path, to: &Path) -> Result<()> {
    std::fs::create_dir_all(to)?;
    for item in std::fs::read_dir(from).with_context(|| format!("reading {}", from.display()))? {
        let item = item?;
        let target = to.join(item.file_name());
        if item.file_type()?.is_dir() {
            copy(&item.path(), &target)?;
        } else {
            std::fs::copy(item.path(), target)?;
        }
    }
    Ok(())
}

/// Removes a folder with everything in it; it may be absent.
///
/// # Errors
/// Those of the file system.
pub fn wipe(folder: &Path) -> Result<()> {
    match std::fs::remove_dir_all(folder) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => {
            Err(error).with_context(|| format!("removing {}", folder.display()))
        }
        _ => Ok(()),
    }
}

/// The SHA-256 of every file below a folder whose relative path is wanted.
///
/// # Errors
/// Those of the file system.
pub fn digests(root: &Path, wanted: impl Fn(&Path) -> bool) -> Result<BTreeMap<PathBuf, String>> {
    let mut found = BTreeMap::new();
    let mut folders = vec![root.to_owned()];
    while let Some(folder) = folders.pop() {
        for item in std::fs::read_dir(&folder)? {
            let path = item?.path();
            if path.is_dir() {
                folders.push(path);
                continue;
            }
            let name = path.strip_prefix(root)?.to_owned();
            if wanted(&name) {
                found.insert(name, content::sha256(&std::fs::read(&path)?));
            }
        }
    }
    Ok(found)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_copy_has_the_same_digests_and_a_wiped_folder_is_gone() {
        let scratch = tempfile::tempdir().expect("a folder");
        let copied = scratch.path().join("copied");
        copy(&fixture("bazel"), &copied).expect("copied");
        let all = |_: &Path| true;
        let digests = (
            digests(&fixture("bazel"), all).expect("digests"),
            digests(&copied, all).expect("digests"),
        );
        assert_eq!(digests.0, digests.1);
        assert!(digests.0.len() >= 2);
        wipe(&copied).expect("wiped");
        wipe(&copied).expect("wiped twice");
        assert!(!copied.exists());
    }
}
