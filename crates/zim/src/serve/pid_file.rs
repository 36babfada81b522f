//! The file that says which process serves; it goes with the process.

use std::{
    fs,
    path::{Path, PathBuf},
    process,
};

use crate::error::{Error, Result};

/// Removes the file when dropped.
#[derive(Debug)]
pub(super) struct PidFile(Option<PathBuf>);

impl PidFile {
    /// Writes it, where one is asked for.
    pub(super) fn write(path: Option<&Path>) -> Result<PidFile> {
        if let Some(path) = path {
            let text = format!("{}\n", process::id());
            fs::write(path, text).map_err(|source| Error::WriteFile {
                path: path.to_owned(),
                source,
            })?;
        }
        Ok(PidFile(path.map(Path::to_owned)))
    }
}

impl Drop for PidFile {
    fn drop(&mut self) {
        if let Some(path) = &self.0 {
            fs::remove_file(path).ok();
        }
    }
}
