//! The folder of everything written while measuring.
//!
//! Invariant: it is on a real disk, empty between rows, and gone at the end; folders of runs that were killed go too.

use std::{
    fs,
    path::{Path, PathBuf},
    thread,
    time::Duration,
};

use anyhow::{Result, bail};

/// The folder of everything written while measuring; removed at the end.
pub(super) struct DataFolder(PathBuf);

impl DataFolder {
    /// Makes one of its own; also removes those of runs that were killed.
    pub(super) fn create(parent: &Path) -> Result<DataFolder> {
        const PREFIX: &str = "bench-data-";
        fs::create_dir_all(parent)?;
        for item in fs::read_dir(parent)? {
            let item = item?;
            let name = item.file_name();
            let Some(pid) = name.to_str().and_then(|name| name.strip_prefix(PREFIX)) else {
                continue;
            };
            if !Path::new("/proc").join(pid).exists() {
                fs::remove_dir_all(item.path())?;
            }
        }
        let folder = parent.join(format!("{PREFIX}{}", std::process::id()));
        fs::create_dir(&folder)?;
        Ok(DataFolder(folder))
    }

    /// Where it is.
    pub(super) fn path(&self) -> &Path {
        &self.0
    }
}

impl Drop for DataFolder {
    fn drop(&mut self) {
        if let Err(error) = fs::remove_dir_all(&self.0) {
            println!("cannot remove {}: {error}", self.0.display());
        }
    }
}

/// Removes everything in the folder and waits until the disk has taken note.
pub(super) fn empty(folder: &Path) -> Result<()> {
    for item in fs::read_dir(folder)? {
        let path = item?.path();
        if let Err(error) = fs::remove_dir_all(&path) {
            bail!("cannot remove {}: {error}", path.display());
        }
    }
    // Freed blocks are written back now, not during the next row.
    rustix::fs::sync();
    thread::sleep(Duration::from_millis(500));
    Ok(())
}
