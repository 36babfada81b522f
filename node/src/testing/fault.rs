//! What can go wrong on a simulated disk, and what it remembers of the calls it got.

use std::{fmt, io, sync::Arc};

/// A kind of call to a disk or a file of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum OpKind {
    /// `Disk::open`.
    Open,
    /// `Disk::create`.
    Create,
    /// `Disk::remove`.
    Remove,
    /// `Disk::list`.
    List,
    /// `Disk::sync_names`.
    SyncNames,
    /// `DiskFile::read_at`, `read_now` and `read_direct`.
    Read,
    /// `DiskFile::write_at`.
    Write,
    /// `DiskFile::sync`.
    Sync,
}

impl OpKind {
    /// Whether a power cut after this call can leave something else than one before it.
    pub const fn changes(self) -> bool {
        !matches!(self, OpKind::Open | OpKind::List | OpKind::Read)
    }
}

/// What happens instead of what was asked.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum FaultKind {
    /// The call fails with this error number (`EIO` is 5, `ENOSPC` 28, `EMFILE` 24) and does nothing.
    Errno(i32),
    /// A sync fails with `EIO`, and the kernel forgets the dirty blocks: they stay readable from memory, later
    /// syncs report success, but a power cut or a read around the page cache shows the old ones.
    LyingSync,
    /// A write reports success and does nothing.
    LostWrite,
    /// A write lands this many pages away from where it should.
    MisdirectedWrite(i64),
    /// A read delivers its bytes with one bit wrong; the disk itself is fine.
    FlippedRead,
}

/// A rule: which calls go wrong, and how.
#[derive(Debug, Clone)]
pub struct Fault {
    /// Which kind of call.
    pub op: OpKind,
    /// Only files whose name contains this.
    pub name_contains: String,
    /// So many matching calls pass first.
    pub skip: u64,
    /// Then so many go wrong.
    pub times: u64,
    /// How.
    pub kind: FaultKind,
}

impl Fault {
    /// The error number of an input or output error.
    pub const EIO: i32 = 5;

    /// Every call of a kind fails from now on.
    pub fn always(op: OpKind, kind: FaultKind) -> Fault {
        Fault {
            op,
            name_contains: String::new(),
            skip: 0,
            times: u64::MAX,
            kind,
        }
    }

    /// The call after `skip` more of its kind goes wrong, once.
    pub fn once(op: OpKind, skip: u64, kind: FaultKind) -> Fault {
        Fault {
            skip,
            times: 1,
            ..Fault::always(op, kind)
        }
    }

    /// The same for files whose name contains this only.
    #[must_use]
    pub fn on(self, name_contains: &str) -> Fault {
        Fault {
            name_contains: name_contains.to_owned(),
            ..self
        }
    }

    /// Whether this call goes wrong. Counts it.
    pub(super) fn strikes(&mut self, op: OpKind, name: &str) -> bool {
        if self.op != op || !name.contains(&self.name_contains) {
            return false;
        }
        if self.skip > 0 {
            self.skip -= 1;
            return false;
        }
        let strikes = self.times > 0;
        self.times = self.times.saturating_sub(1);
        strikes
    }
}

/// One call a disk got.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Operation {
    /// Its number, from 0.
    pub number: u64,
    /// What was asked.
    pub kind: OpKind,
    /// Of which file; empty for the disk as a whole.
    pub name: Arc<str>,
    /// Where in it, in bytes.
    pub offset: u64,
    /// How many bytes.
    pub len: u64,
    /// Whether and how it went wrong.
    pub fault: Option<FaultKind>,
}

impl fmt::Display for Operation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Operation {
            number,
            kind,
            name,
            offset,
            len,
            fault,
        } = self;
        write!(f, "#{number} {kind:?} {name}")?;
        if matches!(kind, OpKind::Read | OpKind::Write) {
            write!(f, " {offset}+{len}")?;
        }
        fault.map_or(Ok(()), |fault| write!(f, " [{fault:?}]"))
    }
}

/// The error of every call to a disk without power.
pub(super) fn power_is_off() -> io::Error {
    io::Error::other("power is off")
}
