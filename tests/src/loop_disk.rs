//! A small ext4 file system in a file, mounted through a loop device: it can be filled, and its power can be cut.
//!
//! Needs root, loop devices and python3; [`LoopDisk::unavailable`] says what is missing. The cut is the file system's
//! own shutdown request without a flush of its log: what was not synced is gone, the journal is replayed at the next
//! mount. It does not drop direct writes that reached the image. Dropping the guard unmounts.

use std::io::Read as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail, ensure};
use tempfile::TempDir;

use crate::environment::scratch;
use crate::process::{Tool, has_program, said};

const TOOL_SECONDS: u32 = 60;
const UNMOUNT_LIMIT: Duration = Duration::from_secs(20);

const FILL_STEP_BYTES: u64 = 16 << 10;

/// FS_IOC_SHUTDOWN with FS_IOC_SHUTDOWN_FLAGS_NOLOGFLUSH (2). Rust needs `unsafe` for an ioctl of one's own.
const POWER_CUT: &str = "
import fcntl, os, struct, sys
folder = os.open(sys.argv[1], os.O_RDONLY)
print(flush=True)
sys.stdin.readline()
fcntl.ioctl(folder, 0x8004587D, struct.pack('I', 2))
";

/// A mounted loop file system.
#[derive(Debug)]
pub struct LoopDisk {
    folder: TempDir,
    mounted: bool,
}

impl LoopDisk {
    /// Why loop disks cannot be had here, or `None` when they can.
    ///
    /// # Errors
    /// When even a temporary folder cannot be had.
    pub fn unavailable() -> Result<Option<String>> {
        for program in ["mkfs.ext4", "mount", "umount", "python3"] {
            if !has_program(program) {
                return Ok(Some(format!("{program} is not installed")));
            }
        }
        if !rustix::process::geteuid().is_root() {
            return Ok(Some("not root".to_owned()));
        }
        Ok(match LoopDisk::new(16) {
            Ok(_) => None,
            Err(error) => Some(format!("no loop mounts: {error:#}")),
        })
    }

    /// Makes and mounts a file system of so many MiB.
    ///
    /// # Errors
    /// When making or mounting fails.
    pub fn new(size_mib: u64) -> Result<LoopDisk> {
        let mut disk = LoopDisk {
            folder: scratch("loop")?,
            mounted: false,
        };
        std::fs::create_dir(disk.path())?;
        std::fs::File::create(disk.image())?.set_len(size_mib << 20)?;
        // No reserved blocks: a full disk is full for root too.
        Tool::new("mkfs.ext4", TOOL_SECONDS)
            .args(["-q", "-F", "-m", "0"])
            .args([disk.image()])
            .run_ok()?;
        disk.mount()?;
        Ok(disk)
    }

    fn image(&self) -> PathBuf {
        self.folder.path().join("image")
    }

    /// The folder it is mounted at.
    pub fn path(&self) -> PathBuf {
        self.folder.path().join("mount")
    }

    /// Cuts the power: unsynced data is gone, every further access fails until [`LoopDisk::remount`]. `last` runs when
    /// everything is ready, right before the cut.
    ///
    /// # Errors
    /// When the file system refuses.
    pub fn cut_power(&self, last: impl FnOnce()) -> Result<()> {
        let mut cutter = Command::new("python3")
            .args(["-c", POWER_CUT])
            .arg(self.path())
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()?;
        let ready = cutter.stdout.as_mut().context("its output")?;
        ready.read_exact(&mut [0])?;
        last();
        // Closing its input is the signal.
        drop(cutter.stdin.take());
        let status = cutter.wait()?;
        ensure!(status.success(), "the power could not be cut: {status}");
        Ok(())
    }

    /// Unmounts and mounts again, which replays the journal.
    ///
    /// # Errors
    /// When a process still uses it, or the mount fails.
    pub fn remount(&mut self) -> Result<()> {
        self.unmount()?;
        self.mount()
    }

    fn mount(&mut self) -> Result<()> {
        Tool::new("mount", TOOL_SECONDS)
            .args(["-o", "loop"])
            .args([self.image(), self.path()])
            .run_ok()?;
        self.mounted = true;
        Ok(())
    }

    fn unmount(&mut self) -> Result<()> {
        let begun = Instant::now();
        loop {
            let output = Tool::new("umount", TOOL_SECONDS)
                .args([self.path()])
                .run()?;
            if output.status.success() {
                self.mounted = false;
                return Ok(());
            }
            // The kernel may still be closing files of a process that was just killed.
            if begun.elapsed() > UNMOUNT_LIMIT {
                bail!("umount: {}", said(&output));
            }
            std::thread::sleep(Duration::from_millis(50));
        }
    }
}

impl Drop for LoopDisk {
    fn drop(&mut self) {
        if self.mounted && self.unmount().is_err() {
            // Detach it at least, so that it goes with its last user.
            let _ = Tool::new("umount", TOOL_SECONDS)
                .args([Path::new("-l"), &self.path()])
                .run();
        }
    }
}

/// Fills a file system until so many bytes are left, with one file that can be removed again.
///
/// # Errors
/// Those of the file system.
pub fn fill(folder: &Path, leave_bytes: u64) -> Result<PathBuf> {
    let space = rustix::fs::statvfs(folder).context("statvfs")?;
    let mut take = (space.f_bavail * space.f_frsize).saturating_sub(leave_bytes);
    let path = folder.join("ballast");
    let file = std::fs::File::create(&path)?;
    let flags = rustix::fs::FallocateFlags::empty();
    // The file's own metadata needs a few blocks, too.
    while let Err(error) = rustix::fs::fallocate(&file, flags, 0, take) {
        if error != rustix::io::Errno::NOSPC || take < FILL_STEP_BYTES {
            return Err(error).context("taking the free space");
        }
        take -= FILL_STEP_BYTES;
    }
    file.sync_all()?;
    Ok(path)
}
