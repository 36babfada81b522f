//! Reading a small file, and replacing it so that a crash leaves the old one or the new one, never half of one.
//!
//! Writers take turns by a lock on the folder, which leaves no lock file behind. The new file keeps the owner of the
//! old one: who runs the server goes on reading what root changed.

use std::{
    fs::{self, File, OpenOptions},
    io::{self, ErrorKind, Read as _, Write as _},
    os::unix::fs::{MetadataExt as _, OpenOptionsExt as _, PermissionsExt as _, fchown},
    path::{Path, PathBuf},
};

use crate::error::{Error, Result};

/// Largest file that is read, in bytes: some 40 000 tokens.
const LIMIT_BYTES: u64 = 16 << 20;
/// Only the owner reads and writes the file.
const OWNER_ONLY: u32 = 0o600;
/// The right of the group to read, which is kept where somebody gave it.
const GROUP_READS: u32 = 0o040;

/// The text of a file; `None` when there is none.
pub(crate) fn read(path: &Path) -> Result<Option<String>> {
    let file = match File::open(path) {
        Ok(file) => file,
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(Error::io("open", path)(error)),
    };
    let mut text = String::new();
    let mut limited = file.take(LIMIT_BYTES + 1);
    limited
        .read_to_string(&mut text)
        .map_err(Error::io("read", path))?;
    if text.len() as u64 > LIMIT_BYTES {
        return Err(Error::TooLarge {
            path: path.to_owned(),
            limit: LIMIT_BYTES,
        });
    }
    Ok(Some(text))
}

/// A file of which this process is the only writer, as long as it holds this.
#[derive(Debug)]
pub(crate) struct Place {
    path: PathBuf,
    folder_path: PathBuf,
    folder: File,
}

impl Place {
    /// Waits for the other writers; makes the folder if it is not there.
    pub(crate) fn lock(path: &Path) -> Result<Place> {
        // A link stays a link: what it leads to is replaced.
        let path = fs::canonicalize(path).unwrap_or_else(|_| path.to_owned());
        let folder_path = match path.parent() {
            Some(folder) if !folder.as_os_str().is_empty() => folder.to_owned(),
            _ => PathBuf::from("."),
        };
        fs::create_dir_all(&folder_path).map_err(Error::io("make the folder", &folder_path))?;
        let folder =
            File::open(&folder_path).map_err(Error::io("open the folder", &folder_path))?;
        folder
            .lock()
            .map_err(Error::io("lock the folder", &folder_path))?;
        Ok(Place {
            path,
            folder_path,
            folder,
        })
    }

    /// Puts the text in the file's place.
    pub(crate) fn replace(&self, text: &str) -> Result<()> {
        let new_path = self.new_path();
        let written = self.write(&new_path, text);
        if written.is_err() {
            // The failure matters more than what is left of the new file.
            fs::remove_file(&new_path).ok();
        }
        written?;
        self.folder
            .sync_all()
            .map_err(Error::io("sync the folder", &self.folder_path))
    }

    fn write(&self, new_path: &Path, text: &str) -> Result<()> {
        // Left over by a crash; nobody else writes here now.
        if let Err(error) = fs::remove_file(new_path)
            && error.kind() != ErrorKind::NotFound
        {
            return Err(Error::io("remove", new_path)(error));
        }
        let mut options = OpenOptions::new();
        options.write(true).create_new(true).mode(OWNER_ONLY);
        let mut new = options
            .open(new_path)
            .map_err(Error::io("write", &self.path))?;
        self.keep_owner(&new)
            .map_err(Error::io("keep the owner of", &self.path))?;
        new.write_all(text.as_bytes())
            .and_then(|()| new.sync_all())
            .map_err(Error::io("write", &self.path))?;
        fs::rename(new_path, &self.path).map_err(Error::io("replace", &self.path))
    }

    /// Beside the file, because only then renaming is atomic.
    fn new_path(&self) -> PathBuf {
        let name = self.path.file_name().unwrap_or_default();
        let name = format!(".{}.new", name.to_string_lossy());
        self.folder_path.join(name)
    }

    /// The owner and group of the file that is replaced. A file that root makes belongs to the folder's owner.
    fn keep_owner(&self, new: &File) -> io::Result<()> {
        let made = new.metadata()?;
        let model = match fs::metadata(&self.path) {
            Ok(old) => {
                let mode = OWNER_ONLY | (old.permissions().mode() & GROUP_READS);
                new.set_permissions(fs::Permissions::from_mode(mode))?;
                old
            }
            Err(_) if made.uid() == 0 => self.folder.metadata()?,
            Err(_) => return Ok(()),
        };
        if (model.uid(), model.gid()) == (made.uid(), made.gid()) {
            return Ok(());
        }
        fchown(new, Some(model.uid()), Some(model.gid()))
    }
}
