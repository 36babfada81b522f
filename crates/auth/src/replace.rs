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
pub struct Place {
    path: PathBuf,
    folder_path: PathBuf,
    folder: File,
}

impl Place {
    /// Waits for the other writers; makes the folder if it is not there.
    ///
    /// # Errors
    /// When the folder cannot be used.
    pub fn lock(path: &Path) -> Result<Place> {
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
    ///
    /// # Errors
    /// When the disk fails; the old text stays then.
    pub fn replace(&self, text: &str) -> Result<()> {
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

#[cfg(test)]
mod tests {
    use std::{os::unix::fs::symlink, thread};

    use super::*;

    fn folder() -> (tempfile::TempDir, PathBuf) {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("tokens.toml");
        (folder, path)
    }

    fn put(path: &Path, text: &str) -> Result<()> {
        Place::lock(path)?.replace(text)
    }

    fn mode(path: &Path) -> u32 {
        fs::metadata(path).unwrap().permissions().mode() & 0o777
    }

    #[test]
    fn a_file_that_is_not_there_is_no_failure() {
        let (_folder, path) = folder();
        assert!(read(&path).unwrap().is_none());
    }

    #[test]
    fn a_new_file_is_its_owners_alone_and_nothing_else_is_left() {
        let (folder, path) = folder();
        put(&path, "one").unwrap();
        put(&path, "two").unwrap();
        assert_eq!(read(&path).unwrap().unwrap(), "two");
        assert_eq!(mode(&path), 0o600);
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 1);
    }

    #[test]
    fn the_group_goes_on_reading_and_nobody_else_does() {
        let (_folder, path) = folder();
        fs::write(&path, "one").unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(0o664)).unwrap();
        put(&path, "two").unwrap();
        assert_eq!(mode(&path), 0o640);
    }

    #[test]
    fn what_a_crash_left_is_swept_away() {
        let (folder, path) = folder();
        let left = folder.path().join(".tokens.toml.new");
        fs::write(&left, "half").unwrap();
        put(&path, "one").unwrap();
        assert!(!left.exists());
        assert_eq!(read(&path).unwrap().unwrap(), "one");
    }

    #[test]
    fn a_link_stays_a_link() {
        let (folder, path) = folder();
        let target = folder.path().join("real.toml");
        fs::write(&target, "one").unwrap();
        symlink(&target, &path).unwrap();
        put(&path, "two").unwrap();
        assert!(fs::symlink_metadata(&path).unwrap().is_symlink());
        assert_eq!(fs::read_to_string(&target).unwrap(), "two");
    }

    #[test]
    fn a_folder_that_is_not_there_is_made_and_one_that_cannot_be_is_named() {
        let (folder, path) = folder();
        let below = folder.path().join("a/b/tokens.toml");
        put(&below, "one").unwrap();
        assert_eq!(read(&below).unwrap().unwrap(), "one");
        put(&path, "a file").unwrap();
        let told = put(&path.join("tokens.toml"), "one").unwrap_err();
        assert!(told.to_string().contains("tokens.toml"), "{told}");
    }

    #[test]
    fn a_file_that_is_too_large_is_not_read() {
        let (_folder, path) = folder();
        fs::write(&path, vec![b'x'; LIMIT_BYTES as usize + 1]).unwrap();
        assert!(matches!(read(&path), Err(Error::TooLarge { .. })));
        fs::write(&path, vec![b'x'; LIMIT_BYTES as usize]).unwrap();
        assert!(read(&path).unwrap().is_some());
    }

    #[test]
    fn writers_take_turns() {
        let (_folder, path) = folder();
        let add = || {
            for _ in 0..20 {
                let place = Place::lock(&path).unwrap();
                let text = read(&path).unwrap().unwrap_or_default();
                place.replace(&(text + "x")).unwrap();
            }
        };
        thread::scope(|scope| {
            for _ in 0..4 {
                scope.spawn(add);
            }
        });
        assert_eq!(read(&path).unwrap().unwrap(), "x".repeat(80));
    }
}
