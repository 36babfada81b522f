//! The disk behind the store, as a trait: [`RealDisk`] here, `SimDisk` in [`crate::testing`].
//!
//! All calls block. Every write is whole pages at a page boundary. Nothing written is durable before
//! [`DiskFile::sync`] of that file returned `Ok`, and no file's existence before [`Disk::sync_names`] did.
//! A failed sync is never repeated on the same file: the kernel may have dropped the pages and report success.

use std::{
    fmt::Debug,
    fs, io,
    os::{
        fd::{AsFd, OwnedFd},
        unix::fs::FileExt,
    },
    path::{Path, PathBuf},
    sync::Arc,
};

use rustix::{
    fs::{FlockOperation, Mode, OFlags},
    io::{Errno, ReadWriteFlags},
};

use super::page::{Page, page_bytes, page_bytes_mut};

/// A folder of flat files on one disk.
pub trait Disk: Send + Sync + Debug + 'static {
    /// Opens a file; `None` when it does not exist.
    fn open(&self, name: &str) -> io::Result<Option<Arc<dyn DiskFile>>>;
    /// Makes an empty file; an existing one of that name is emptied.
    fn create(&self, name: &str) -> io::Result<Arc<dyn DiskFile>>;
    /// Removes a file; absence is fine.
    fn remove(&self, name: &str) -> io::Result<()>;
    /// Names of all files, `/` between folder and file, in no order. Foreign files are listed too.
    fn list(&self) -> io::Result<Vec<String>>;
    /// Makes creations and removals durable.
    fn sync_names(&self) -> io::Result<()>;
    /// Bytes a new file could take.
    fn free_bytes(&self) -> io::Result<u64>;
}

/// An open file. Calls may run on several threads at once; overlapping writes never do.
pub trait DiskFile: Send + Sync + Debug + 'static {
    /// Reads into `buffer`; short only at the end of the file.
    fn read_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<usize>;
    /// The same from memory only; `None` when any of it would have to come from the disk.
    fn read_now(&self, buffer: &mut [u8], offset: u64) -> io::Result<Option<usize>>;
    /// Reads whole pages around the page cache, to tell a bad disk from a bad cache.
    fn read_direct(&self, pages: &mut [Page], offset: u64) -> io::Result<usize>;
    /// Writes the runs of pages one after the other from `offset`, all or an error.
    fn write_at(&self, runs: &[&[Page]], offset: u64) -> io::Result<()>;
    /// Makes everything written so far durable.
    fn sync(&self) -> io::Result<()>;
}

/// Name of the file whose lock keeps a second process out.
const LOCK_NAME: &str = "lock";

/// A folder of the machine's file system.
#[derive(Debug)]
pub struct RealDisk {
    root: PathBuf,
    direct: bool,
    _lock: fs::File,
}

/// Why a folder cannot be a store's disk.
#[derive(Debug, thiserror::Error)]
pub enum OpenDiskError {
    /// Another process has it open.
    #[error("{} is in use by another process", .0.display())]
    InUse(PathBuf),
    /// It cannot be made or opened.
    #[error("cannot open {}", path.display())]
    Io {
        /// The folder or file.
        path: PathBuf,
        /// The operating system's answer.
        #[source]
        source: io::Error,
    },
}

impl RealDisk {
    /// Opens or makes the folder and takes its lock. With `direct`, writes go around the page cache where the file
    /// system allows it.
    ///
    /// # Errors
    /// [`OpenDiskError`] when the folder is in use or cannot be used.
    pub fn open(root: &Path, direct: bool) -> Result<RealDisk, OpenDiskError> {
        let failed = |path: &Path, source| OpenDiskError::Io {
            path: path.to_owned(),
            source,
        };
        let segments = root.join("segments");
        fs::create_dir_all(&segments).map_err(|source| failed(&segments, source))?;
        let lock_path = root.join(LOCK_NAME);
        let lock = fs::File::options()
            .create(true)
            .truncate(false)
            .write(true)
            .open(&lock_path);
        let lock = lock.map_err(|source| failed(&lock_path, source))?;
        match rustix::fs::flock(&lock, FlockOperation::NonBlockingLockExclusive) {
            Ok(()) => {}
            Err(Errno::WOULDBLOCK) => return Err(OpenDiskError::InUse(root.to_owned())),
            Err(errno) => return Err(failed(&lock_path, errno.into())),
        }
        let direct = direct && probe_direct(&segments);
        Ok(RealDisk {
            root: root.to_owned(),
            direct,
            _lock: lock,
        })
    }

    /// Whether writes go around the page cache.
    pub const fn is_direct(&self) -> bool {
        self.direct
    }

    fn open_file(&self, name: &str, flags: OFlags) -> io::Result<Arc<dyn DiskFile>> {
        let path = self.root.join(name);
        let flags = flags | OFlags::RDWR | OFlags::CLOEXEC;
        let mode = Mode::from_raw_mode(0o640);
        let buffered = rustix::fs::open(&path, flags, mode)?;
        let direct_flags = OFlags::RDWR | OFlags::CLOEXEC | OFlags::DIRECT;
        let direct = if self.direct {
            Some(rustix::fs::open(&path, direct_flags, Mode::empty())?)
        } else {
            None
        };
        Ok(Arc::new(RealFile {
            buffered: buffered.into(),
            direct,
        }))
    }
}

/// Whether a direct write works in this folder (tmpfs and some overlays refuse).
fn probe_direct(folder: &Path) -> bool {
    let path = folder.join(".probe");
    let flags = OFlags::RDWR | OFlags::CREATE | OFlags::CLOEXEC | OFlags::DIRECT;
    let works = rustix::fs::open(&path, flags, Mode::from_raw_mode(0o600)).is_ok_and(|fd| {
        let page = super::page::PageBuf::zeroed(1);
        rustix::io::pwrite(&fd, page.bytes(), 0).is_ok()
    });
    fs::remove_file(&path).ok();
    works
}

impl Disk for RealDisk {
    fn open(&self, name: &str) -> io::Result<Option<Arc<dyn DiskFile>>> {
        match self.open_file(name, OFlags::empty()) {
            Ok(file) => Ok(Some(file)),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(error),
        }
    }

    fn create(&self, name: &str) -> io::Result<Arc<dyn DiskFile>> {
        self.open_file(name, OFlags::CREATE | OFlags::TRUNC)
    }

    fn remove(&self, name: &str) -> io::Result<()> {
        match fs::remove_file(self.root.join(name)) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
            _ => Ok(()),
        }
    }

    fn list(&self) -> io::Result<Vec<String>> {
        let mut names = Vec::new();
        for (folder, prefix) in [
            (self.root.clone(), ""),
            (self.root.join("segments"), "segments/"),
        ] {
            for item in fs::read_dir(folder)? {
                let item = item?;
                if item.file_type()?.is_file() {
                    names.push(format!("{prefix}{}", item.file_name().to_string_lossy()));
                }
            }
        }
        Ok(names)
    }

    fn sync_names(&self) -> io::Result<()> {
        fs::File::open(self.root.join("segments"))?.sync_all()?;
        fs::File::open(&self.root)?.sync_all()
    }

    fn free_bytes(&self) -> io::Result<u64> {
        let stat = rustix::fs::statvfs(&self.root)?;
        Ok(stat.f_bavail * stat.f_frsize)
    }
}

#[derive(Debug)]
struct RealFile {
    buffered: fs::File,
    direct: Option<OwnedFd>,
}

impl DiskFile for RealFile {
    fn read_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<usize> {
        let mut done = 0;
        while done < buffer.len() {
            match self
                .buffered
                .read_at(&mut buffer[done..], offset + done as u64)
            {
                Ok(0) => break,
                Ok(n) => done += n,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
        Ok(done)
    }

    fn read_now(&self, buffer: &mut [u8], offset: u64) -> io::Result<Option<usize>> {
        let wanted = buffer.len();
        let mut slices = [io::IoSliceMut::new(buffer)];
        match rustix::io::preadv2(&self.buffered, &mut slices, offset, ReadWriteFlags::NOWAIT) {
            Ok(n) if n == wanted => Ok(Some(n)),
            // Short: part of it is not in memory, or the file ends; the caller's blocking read tells which.
            Ok(_) | Err(Errno::AGAIN | Errno::OPNOTSUPP | Errno::NOSYS | Errno::INTR) => Ok(None),
            Err(errno) => Err(errno.into()),
        }
    }

    fn read_direct(&self, pages: &mut [Page], offset: u64) -> io::Result<usize> {
        let buffer = page_bytes_mut(pages);
        match &self.direct {
            Some(fd) => Ok(rustix::io::pread(fd, buffer, offset)?),
            None => self.read_at(buffer, offset),
        }
    }

    fn write_at(&self, runs: &[&[Page]], offset: u64) -> io::Result<()> {
        let fd = self
            .direct
            .as_ref()
            .map_or_else(|| self.buffered.as_fd(), AsFd::as_fd);
        let mut offset = offset;
        let mut runs: Vec<&[u8]> = runs.iter().map(|run| page_bytes(run)).collect();
        while !runs.is_empty() {
            let slices: Vec<_> = runs.iter().map(|run| io::IoSlice::new(run)).collect();
            let mut written = match rustix::io::pwritev(fd, &slices, offset) {
                Ok(0) => return Err(io::ErrorKind::WriteZero.into()),
                Ok(written) => written,
                Err(Errno::INTR) => continue,
                Err(errno) => return Err(errno.into()),
            };
            offset += written as u64;
            while let Some(first) = runs.first_mut() {
                if written < first.len() {
                    *first = &first[written..];
                    break;
                }
                written -= first.len();
                runs.remove(0);
            }
        }
        Ok(())
    }

    fn sync(&self) -> io::Result<()> {
        let fd = self
            .direct
            .as_ref()
            .map_or_else(|| self.buffered.as_fd(), AsFd::as_fd);
        Ok(rustix::fs::fdatasync(fd)?)
    }
}
