//! The content of one simulated file: what readers see, what is durable, and what is in between.
//!
//! Unit is the 4 KiB block. Between two syncs each block remembers everything written to it; a power cut keeps, block
//! by block, any one of these or the last durable content. Blocks are shared, so that copying a disk is cheap.

use std::{
    collections::BTreeMap,
    sync::{Arc, LazyLock},
};

use super::rng::SimRng;
use crate::engine::page::PAGE;

/// Content of one block; `None` is a hole that reads as zeros.
type Block = Option<Arc<[u8; PAGE]>>;

/// Written zeros take room on the disk but need it only once in RAM.
static ZEROS: LazyLock<Arc<[u8; PAGE]>> = LazyLock::new(|| Arc::new([0; PAGE]));

/// Content of one file.
#[derive(Debug, Clone, Default)]
pub(super) struct Blocks {
    visible: Vec<Block>,
    durable: Vec<Block>,
    /// Everything written to a block since the last sync, oldest first.
    pending: BTreeMap<usize, Vec<Block>>,
    len: u64,
    durable_len: u64,
    /// A sync of this file failed; another write or sync of it would be a mistake of the store.
    pub(super) sync_failed: bool,
    /// It took the place of a durable file of that name, whose end it is once it is synced.
    pub(super) truncates: bool,
}

impl Blocks {
    /// A file with this content, all durable.
    pub(super) fn from_bytes(bytes: &[u8]) -> Blocks {
        let visible: Vec<Block> = bytes
            .chunks(PAGE)
            .map(|chunk| Some(block_of(chunk)))
            .collect();
        Blocks {
            durable: visible.clone(),
            visible,
            len: bytes.len() as u64,
            durable_len: bytes.len() as u64,
            ..Blocks::default()
        }
    }

    /// A new file; `truncates` when it empties one of its name.
    pub(super) fn created(truncates: bool) -> Blocks {
        Blocks {
            truncates,
            ..Blocks::default()
        }
    }

    /// Bytes it takes on the disk.
    pub(super) fn allocated_bytes(&self) -> u64 {
        self.visible.iter().flatten().count() as u64 * PAGE as u64
    }

    /// How many more bytes it would take after a write there.
    pub(super) fn growth_bytes(&self, offset: u64, len: u64) -> u64 {
        let first = (offset / PAGE as u64) as usize;
        let count = (len / PAGE as u64) as usize;
        let held = self.visible.iter().skip(first).take(count);
        (count - held.flatten().count()) as u64 * PAGE as u64
    }

    /// Reads what a process sees.
    pub(super) fn read(&self, buffer: &mut [u8], offset: u64) -> usize {
        read_blocks(&self.visible, self.len, buffer, offset)
    }

    /// Reads what the disk itself holds: the newest write of each block, except those a failed sync forgot.
    pub(super) fn read_direct(&self, buffer: &mut [u8], offset: u64) -> usize {
        let first = (offset / PAGE as u64) as usize;
        let count = buffer.len().div_ceil(PAGE);
        let seen = (first..first + count).map(|index| match self.pending.get(&index) {
            Some(_) => self.visible.get(index).cloned().flatten(),
            None => self.durable.get(index).cloned().flatten(),
        });
        let seen: Vec<Block> = seen.collect();
        let len = self.len.saturating_sub(offset);
        read_blocks(&seen, len, buffer, 0)
    }

    /// Writes whole pages; not durable yet.
    pub(super) fn write(&mut self, bytes: &[u8], offset: u64) {
        let first = (offset / PAGE as u64) as usize;
        let end = first + bytes.len() / PAGE;
        if self.visible.len() < end {
            self.visible.resize(end, None);
        }
        for (index, chunk) in (first..).zip(bytes.chunks_exact(PAGE)) {
            let block = Some(block_of(chunk));
            self.visible[index].clone_from(&block);
            self.pending.entry(index).or_default().push(block);
        }
        self.len = self.len.max(offset + bytes.len() as u64);
    }

    /// Makes everything written durable.
    pub(super) fn sync(&mut self) {
        if self.durable.len() < self.visible.len() {
            self.durable.resize(self.visible.len(), None);
        }
        for index in std::mem::take(&mut self.pending).into_keys() {
            self.durable[index].clone_from(&self.visible[index]);
        }
        self.durable_len = self.len;
    }

    /// What a failed sync does: forgets which blocks are dirty.
    pub(super) fn forget_dirty(&mut self) {
        self.pending.clear();
    }

    /// Changes bytes behind everybody's back, durably.
    pub(super) fn tamper(&mut self, offset: u64, change: impl Fn(&mut u8), count: u64) {
        for position in offset..(offset + count).min(self.len) {
            let index = (position / PAGE as u64) as usize;
            let within = (position % PAGE as u64) as usize;
            for blocks in [&mut self.visible, &mut self.durable] {
                if let Some(block) = blocks.get_mut(index) {
                    let shared = block.get_or_insert_with(|| Arc::new([0; PAGE]));
                    change(&mut Arc::make_mut(shared)[within]);
                }
            }
        }
    }

    /// The file as found after a power cut: each unsynced block as it was at any moment since the last sync.
    pub(super) fn after_crash(&self, rng: &mut SimRng) -> Blocks {
        let mut blocks = self.durable.clone();
        let mut len = self.durable_len;
        // The length is metadata of its own: it may have arrived without the data, which then reads as zeros.
        if self.len > len && rng.permille(300) {
            len += rng.below((self.len - len) / PAGE as u64 + 1) * PAGE as u64;
        }
        // Whole-file outcomes first (nothing arrived, everything did), as uniform subsets hardly ever show them.
        let keep_chance: u16 = *rng.pick(&[0, 100, 500, 500, 500, 900, 1000]);
        for (index, versions) in &self.pending {
            if !rng.permille(keep_chance) {
                continue;
            }
            if blocks.len() <= *index {
                blocks.resize(index + 1, None);
            }
            blocks[*index].clone_from(rng.pick(versions));
            len = len.max((*index as u64 + 1) * PAGE as u64).min(self.len);
        }
        blocks.resize((len as usize).div_ceil(PAGE), None);
        Blocks {
            durable: blocks.clone(),
            visible: blocks,
            len,
            durable_len: len,
            ..Blocks::default()
        }
    }

    /// The file as a new process finds it after the old one was killed.
    pub(super) fn after_kill(&self) -> Blocks {
        Blocks {
            sync_failed: false,
            ..self.clone()
        }
    }

    /// All bytes.
    pub(super) fn to_bytes(&self) -> Vec<u8> {
        let mut bytes = vec![0; self.len as usize];
        self.read(&mut bytes, 0);
        bytes
    }
}

fn block_of(bytes: &[u8]) -> Arc<[u8; PAGE]> {
    if bytes.iter().all(|byte| *byte == 0) {
        return Arc::clone(&ZEROS);
    }
    let mut block = [0; PAGE];
    block[..bytes.len()].copy_from_slice(bytes);
    Arc::new(block)
}

fn read_blocks(blocks: &[Block], len: u64, buffer: &mut [u8], offset: u64) -> usize {
    let end = len.min(offset + buffer.len() as u64);
    let mut position = offset;
    while position < end {
        let index = (position / PAGE as u64) as usize;
        let within = (position % PAGE as u64) as usize;
        let count = (PAGE - within).min((end - position) as usize);
        let start = (position - offset) as usize;
        let target = &mut buffer[start..start + count];
        match blocks.get(index) {
            Some(Some(block)) => target.copy_from_slice(&block[within..within + count]),
            _ => target.fill(0),
        }
        position += count as u64;
    }
    end.saturating_sub(offset) as usize
}
