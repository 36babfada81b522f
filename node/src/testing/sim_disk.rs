//! A disk in RAM that behaves as badly as real ones may: [`SimDisk`].
//!
//! What is not synced survives a power cut block by block, name by name, as the seed decides. Calls fail by rule
//! ([`Fault`]), power goes off at a chosen call, space ends at a chosen size. Everything is seeded; there is no time.
//! Clones are the same disk; [`SimDisk::after_crash`] and [`SimDisk::after_kill`] give new ones, so that what is left
//! of an old store cannot write to the disk its successor uses. One lock guards all: calls never overlap.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap, VecDeque},
    io,
    sync::Arc,
};

use parking_lot::{Mutex, MutexGuard};

use super::{
    blocks::Blocks,
    fault::{Fault, FaultKind, OpKind, Operation, power_is_off},
    rng::SimRng,
    sim_file::SimFile,
};
use crate::engine::disk::{Disk, DiskFile};

/// How many of the last calls are remembered.
const LOG_LEN: usize = 4096;

/// A simulated disk.
#[derive(Debug, Clone)]
pub struct SimDisk(Arc<Mutex<State>>);

/// How often a disk was asked to do what.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct DiskCounts {
    /// All calls.
    pub operations: u64,
    /// Calls after which a power cut may leave something else than before: the points at which one is worth trying.
    pub changes: u64,
    /// Writes.
    pub writes: u64,
    /// Bytes of them.
    pub written_bytes: u64,
    /// Syncs of files.
    pub syncs: u64,
    /// Writes to and syncs of files whose sync had failed before. A store must have none.
    pub used_after_failed_sync: u64,
}

pub(super) struct State {
    pub(super) rng: SimRng,
    pub(super) names: BTreeMap<Arc<str>, u64>,
    pub(super) durable_names: BTreeMap<Arc<str>, u64>,
    pub(super) files: HashMap<u64, Blocks>,
    next_file: u64,
    pub(super) used_bytes: u64,
    pub(super) capacity_bytes: u64,
    pub(super) read_now_miss_permille: u16,
    faults: Vec<Fault>,
    /// So many more changes until the power goes off.
    cut_after: Option<u64>,
    pub(super) off: bool,
    log: VecDeque<Operation>,
    pub(super) counts: DiskCounts,
}

impl std::fmt::Debug for State {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("State")
            .field("files", &self.names.len())
            .field("off", &self.off)
            .field("counts", &self.counts)
            .finish_non_exhaustive()
    }
}

impl SimDisk {
    /// An empty disk of 1 TiB.
    pub fn new(seed: u64) -> SimDisk {
        SimDisk(Arc::new(Mutex::new(State::new(seed))))
    }

    /// Ends the space at so many bytes.
    pub fn set_capacity(&self, bytes: u64) {
        self.0.lock().capacity_bytes = bytes;
    }

    /// Lets so many in a thousand reads find their bytes not in memory.
    pub fn set_read_now_misses(&self, permille: u16) {
        self.0.lock().read_now_miss_permille = permille;
    }

    /// Adds a rule by which calls go wrong.
    pub fn inject(&self, fault: Fault) {
        self.0.lock().faults.push(fault);
    }

    /// Ends all rules.
    pub fn heal(&self) {
        self.0.lock().faults.clear();
    }

    /// Lets the power go off in the middle of the change after `changes` more of them.
    pub fn cut_power_after(&self, changes: u64) {
        self.0.lock().cut_after = Some(changes);
    }

    /// Turns the power off now: every call fails from here on.
    pub fn cut_power(&self) {
        self.0.lock().off = true;
    }

    /// Whether the power is off.
    pub fn is_off(&self) -> bool {
        self.0.lock().off
    }

    /// What has been asked so far.
    pub fn counts(&self) -> DiskCounts {
        self.0.lock().counts
    }

    /// The last calls, oldest first.
    pub fn log(&self) -> Vec<Operation> {
        self.0.lock().log.iter().cloned().collect()
    }

    /// Cuts the power and gives the disk as found afterwards: of every unsynced block any state since its last sync,
    /// of every name either state. The rules end.
    #[must_use]
    pub fn after_crash(&self, seed: u64) -> SimDisk {
        let mut old = self.0.lock();
        old.off = true;
        let mut rng = SimRng::new(seed);
        let mut new = old.successor(seed);
        let every_name: BTreeSet<_> = old.names.keys().chain(old.durable_names.keys()).collect();
        for name in every_name {
            let (now, durable) = (old.names.get(name), old.durable_names.get(name));
            let kept = if rng.permille(500) { now } else { durable };
            if let Some(blocks) = kept.and_then(|id| old.files.get(id)) {
                new.add_file(name, blocks.after_crash(&mut rng));
            }
        }
        new.durable_names = new.names.clone();
        SimDisk(Arc::new(Mutex::new(new)))
    }

    /// The disk as a new process finds it after the old one was killed: everything written is there, nothing more
    /// is durable than before. The old process cannot reach it. The rules end.
    #[must_use]
    pub fn after_kill(&self, seed: u64) -> SimDisk {
        let mut old = self.0.lock();
        old.off = true;
        let mut new = old.successor(seed);
        new.names = old.names.clone();
        new.durable_names = old.durable_names.clone();
        new.next_file = old.next_file;
        new.used_bytes = old.used_bytes;
        let files = old
            .files
            .iter()
            .map(|(id, blocks)| (*id, blocks.after_kill()));
        new.files = files.collect();
        SimDisk(Arc::new(Mutex::new(new)))
    }

    /// The whole content of a file, as a process sees it; `None` when there is none.
    pub fn file_bytes(&self, name: &str) -> Option<Vec<u8>> {
        let state = self.0.lock();
        state.file(name).map(Blocks::to_bytes)
    }

    /// Puts a file there durably, as somebody with another program would.
    pub fn plant_file(&self, name: &str, bytes: &[u8]) {
        let mut state = self.0.lock();
        let id = state.add_file(name, Blocks::from_bytes(bytes));
        state.durable_names.insert(name.into(), id);
    }

    /// Flips one bit of a file durably, as ageing flash does.
    pub fn flip_bit(&self, name: &str, offset: u64, bit: u8) {
        self.tamper(name, offset, 1, |byte| *byte ^= 1 << (bit % 8));
    }

    /// Zeroes bytes of a file durably.
    pub fn zero(&self, name: &str, offset: u64, count: u64) {
        self.tamper(name, offset, count, |byte| *byte = 0);
    }

    /// Names of all files.
    pub fn names(&self) -> Vec<String> {
        let state = self.0.lock();
        state.names.keys().map(ToString::to_string).collect()
    }

    /// Everything about the disk.
    pub(super) fn state(&self) -> MutexGuard<'_, State> {
        self.0.lock()
    }

    fn tamper(&self, name: &str, offset: u64, count: u64, change: impl Fn(&mut u8)) {
        let mut state = self.0.lock();
        let id = state.names.get(name).copied();
        if let Some(blocks) = id.and_then(|id| state.files.get_mut(&id)) {
            blocks.tamper(offset, change, count);
        }
    }

    /// Notes a call, decides whether it goes wrong, and makes it.
    pub(super) fn call<T>(
        &self,
        kind: OpKind,
        target: (&Arc<str>, u64, u64),
        act: impl FnOnce(&mut State, Option<FaultKind>) -> io::Result<T>,
    ) -> io::Result<T> {
        let mut state = self.0.lock();
        if state.off {
            return Err(power_is_off());
        }
        let fault = state.note(kind, target);
        let cut = kind.changes() && state.count_change();
        let synced = matches!(kind, OpKind::Sync | OpKind::SyncNames);
        let outcome = match fault {
            // A sync that the cut interrupts has done nothing for sure; what of it was done, the seed decides.
            _ if cut && synced => Err(power_is_off()),
            Some(FaultKind::Errno(number)) if kind != OpKind::Sync => {
                Err(io::Error::from_raw_os_error(number))
            }
            fault => act(&mut state, fault),
        };
        if cut {
            state.off = true;
            return Err(power_is_off());
        }
        outcome
    }
}

impl State {
    /// An empty disk with the same settings.
    fn successor(&self, seed: u64) -> State {
        State {
            capacity_bytes: self.capacity_bytes,
            read_now_miss_permille: self.read_now_miss_permille,
            ..State::new(seed)
        }
    }

    fn new(seed: u64) -> State {
        State {
            rng: SimRng::new(seed),
            names: BTreeMap::new(),
            durable_names: BTreeMap::new(),
            files: HashMap::new(),
            next_file: 0,
            used_bytes: 0,
            capacity_bytes: 1 << 40,
            read_now_miss_permille: 0,
            faults: Vec::new(),
            cut_after: None,
            off: false,
            log: VecDeque::new(),
            counts: DiskCounts::default(),
        }
    }

    /// Puts a file under a name, in place of any other.
    fn add_file(&mut self, name: &str, blocks: Blocks) -> u64 {
        let id = self.next_file;
        self.next_file += 1;
        self.used_bytes -= self.file(name).map_or(0, Blocks::allocated_bytes);
        self.used_bytes += blocks.allocated_bytes();
        self.files.insert(id, blocks);
        self.names.insert(name.into(), id);
        id
    }

    fn file(&self, name: &str) -> Option<&Blocks> {
        self.files.get(self.names.get(name)?)
    }

    fn note(
        &mut self,
        kind: OpKind,
        (name, offset, len): (&Arc<str>, u64, u64),
    ) -> Option<FaultKind> {
        // Every rule counts the call; the first that strikes decides.
        let struck: Vec<FaultKind> = self
            .faults
            .iter_mut()
            .filter_map(|fault| fault.strikes(kind, name).then_some(fault.kind))
            .collect();
        let fault = struck.first().copied();
        if self.log.len() == LOG_LEN {
            self.log.pop_front();
        }
        self.log.push_back(Operation {
            number: self.counts.operations,
            kind,
            name: Arc::clone(name),
            offset,
            len,
            fault,
        });
        self.counts.operations += 1;
        fault
    }

    /// Counts a change; true when the power goes off in the middle of it.
    fn count_change(&mut self) -> bool {
        self.counts.changes += 1;
        match &mut self.cut_after {
            Some(0) => true,
            Some(left) => {
                *left -= 1;
                false
            }
            None => false,
        }
    }

    pub(super) fn flip_sometimes(&mut self, fault: Option<FaultKind>, buffer: &mut [u8]) {
        if fault == Some(FaultKind::FlippedRead) && !buffer.is_empty() {
            let position = self.rng.index(buffer.len());
            buffer[position] ^= 1 << self.rng.below(8);
        }
    }
}

impl Disk for SimDisk {
    fn open(&self, name: &str) -> io::Result<Option<Arc<dyn DiskFile>>> {
        let name: Arc<str> = name.into();
        self.call(OpKind::Open, (&name, 0, 0), |state, _| {
            let id = state.names.get(&name).copied();
            Ok(id.map(|id| self.handle(&name, id)))
        })
    }

    fn create(&self, name: &str) -> io::Result<Arc<dyn DiskFile>> {
        let name: Arc<str> = name.into();
        self.call(OpKind::Create, (&name, 0, 0), |state, _| {
            let id = state.add_file(&name, Blocks::created(state.file(&name).is_some()));
            Ok(self.handle(&name, id))
        })
    }

    fn remove(&self, name: &str) -> io::Result<()> {
        let name: Arc<str> = name.into();
        self.call(OpKind::Remove, (&name, 0, 0), |state, _| {
            state.used_bytes -= state.file(&name).map_or(0, Blocks::allocated_bytes);
            state.names.remove(&name);
            Ok(())
        })
    }

    fn list(&self) -> io::Result<Vec<String>> {
        self.call(OpKind::List, (&"".into(), 0, 0), |state, _| {
            Ok(state.names.keys().map(ToString::to_string).collect())
        })
    }

    fn sync_names(&self) -> io::Result<()> {
        self.call(OpKind::SyncNames, (&"".into(), 0, 0), |state, _| {
            state.durable_names = state.names.clone();
            Ok(())
        })
    }

    fn free_bytes(&self) -> io::Result<u64> {
        let state = self.0.lock();
        if state.off {
            return Err(power_is_off());
        }
        Ok(state.capacity_bytes.saturating_sub(state.used_bytes))
    }
}

impl SimDisk {
    fn handle(&self, name: &Arc<str>, id: u64) -> Arc<dyn DiskFile> {
        Arc::new(SimFile {
            disk: self.clone(),
            name: Arc::clone(name),
            id,
        })
    }
}
