//! An open file of a [`SimDisk`], and what writing and syncing do to it.
//!
//! A file outlives its name, as on Unix. Not here: the content itself (`blocks`).

use std::{io, sync::Arc};

use super::{
    SimDisk,
    blocks::Blocks,
    fault::{Fault, FaultKind, OpKind},
    sim_disk::State,
};
use crate::engine::{
    disk::DiskFile,
    page::{PAGE, Page, page_bytes, page_bytes_mut},
};

/// An open file of a [`SimDisk`].
#[derive(Debug)]
pub(super) struct SimFile {
    pub(super) disk: SimDisk,
    pub(super) name: Arc<str>,
    pub(super) id: u64,
}

impl SimFile {
    fn call<T>(
        &self,
        kind: OpKind,
        (offset, len): (u64, u64),
        act: impl FnOnce(&mut State, Option<FaultKind>) -> io::Result<T>,
    ) -> io::Result<T> {
        self.disk.call(kind, (&self.name, offset, len), act)
    }

    fn read(
        &self,
        buffer: &mut [u8],
        offset: u64,
        how: fn(&Blocks, &mut [u8], u64) -> usize,
    ) -> io::Result<usize> {
        self.call(
            OpKind::Read,
            (offset, buffer.len() as u64),
            |state, fault| {
                let blocks = state.files.get(&self.id);
                let count = blocks.map_or(0, |blocks| how(blocks, buffer, offset));
                state.flip_sometimes(fault, &mut buffer[..count]);
                Ok(count)
            },
        )
    }
}

impl DiskFile for SimFile {
    fn read_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<usize> {
        self.read(buffer, offset, Blocks::read)
    }

    fn read_now(&self, buffer: &mut [u8], offset: u64) -> io::Result<Option<usize>> {
        let mut state = self.disk.state();
        let chance = state.read_now_miss_permille;
        let absent = chance > 0 && state.rng.permille(chance);
        drop(state);
        if absent {
            return Ok(None);
        }
        let wanted = buffer.len();
        let count = self.read(buffer, offset, Blocks::read)?;
        Ok((count == wanted).then_some(count))
    }

    fn read_direct(&self, pages: &mut [Page], offset: u64) -> io::Result<usize> {
        self.read(page_bytes_mut(pages), offset, Blocks::read_direct)
    }

    fn write_at(&self, runs: &[&[Page]], offset: u64) -> io::Result<()> {
        let bytes: Vec<u8> = runs
            .iter()
            .flat_map(|run| page_bytes(run))
            .copied()
            .collect();
        let len = bytes.len() as u64;
        if !offset.is_multiple_of(PAGE as u64) {
            return Err(io::ErrorKind::InvalidInput.into());
        }
        self.call(OpKind::Write, (offset, len), |state, fault| {
            let offset = match fault {
                Some(FaultKind::LostWrite) => return Ok(()),
                Some(FaultKind::MisdirectedWrite(pages)) => {
                    offset.saturating_add_signed(pages.saturating_mul(4096))
                }
                _ => offset,
            };
            state.write(self.id, &bytes, offset)
        })
    }

    fn sync(&self) -> io::Result<()> {
        self.call(OpKind::Sync, (0, 0), |state, fault| {
            state.sync(self.id, &self.name, fault)
        })
    }
}

impl State {
    fn write(&mut self, id: u64, bytes: &[u8], offset: u64) -> io::Result<()> {
        let Some(blocks) = self.files.get_mut(&id) else {
            return Err(io::ErrorKind::NotFound.into());
        };
        let growth = blocks.growth_bytes(offset, bytes.len() as u64);
        if growth > 0 && self.used_bytes + growth > self.capacity_bytes {
            return Err(io::ErrorKind::StorageFull.into());
        }
        self.used_bytes += growth;
        self.counts.used_after_failed_sync += u64::from(blocks.sync_failed);
        self.counts.writes += 1;
        self.counts.written_bytes += bytes.len() as u64;
        blocks.write(bytes, offset);
        Ok(())
    }

    fn sync(&mut self, id: u64, name: &Arc<str>, fault: Option<FaultKind>) -> io::Result<()> {
        let Some(blocks) = self.files.get_mut(&id) else {
            return Ok(());
        };
        self.counts.syncs += 1;
        self.counts.used_after_failed_sync += u64::from(blocks.sync_failed);
        if let Some(fault) = fault {
            blocks.sync_failed = true;
            if fault == FaultKind::LyingSync {
                blocks.forget_dirty();
            }
            let number = match fault {
                FaultKind::Errno(number) => number,
                _ => Fault::EIO,
            };
            return Err(io::Error::from_raw_os_error(number));
        }
        blocks.sync();
        // Emptying an existing file is a change of that file, not of a name: its sync makes it durable.
        let truncates = std::mem::take(&mut blocks.truncates);
        if truncates && self.names.get(name) == Some(&id) && self.durable_names.contains_key(name) {
            self.durable_names.insert(Arc::clone(name), id);
        }
        Ok(())
    }
}
