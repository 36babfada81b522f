//! What a client knows that the server promised: a file, synced before an acknowledgement counts, and the judgement of
//! a restarted server by it.
//!
//! Blobs: each acknowledged one must come back whole. Entries: the last acknowledged state, or one of the operations
//! begun after it whose outcome nobody knows; once seen, it must stay. One writer owns a key, so there are no races.
//! Line formats: `blob HASH LENGTH`, `begin KEY STATE`, `ack KEY STATE`, `seen KEY STATE`; a STATE is a sequence
//! number or `absent`.

use std::collections::HashMap;
use std::fs::{File, OpenOptions};
use std::io::{BufRead as _, BufReader, Write as _};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};

use anyhow::{Context as _, Result, bail};

use crate::content::{self, Random};

/// What an entry may be.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum State {
    /// Never written or deleted.
    Absent,
    /// The value with this sequence number.
    Value(u64),
}

impl std::fmt::Display for State {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            State::Absent => formatter.write_str("absent"),
            State::Value(sequence) => write!(formatter, "{sequence}"),
        }
    }
}

impl State {
    fn parse(text: &str) -> Result<State> {
        if text == "absent" {
            return Ok(State::Absent);
        }
        Ok(State::Value(text.parse().context("a sequence number")?))
    }
}

/// The bytes of an entry's value with this sequence number.
pub fn entry_value(sequence: u64) -> Vec<u8> {
    let seed = sequence ^ 0xe47e_0000_0000_0000;
    content::body(seed, Random::new(seed).blob_size_bytes().max(16))
}

#[derive(Debug, Default)]
struct Pending {
    bytes: Vec<u8>,
    lines: u64,
}

#[derive(Debug)]
struct Synced {
    file: File,
    lines: u64,
}

/// The client's synced notes. Shared by all writers of a test.
#[derive(Debug)]
pub struct Ledger {
    path: PathBuf,
    pending: Mutex<Pending>,
    synced: Mutex<Synced>,
    sequence: AtomicU64,
    /// Acknowledgements are not noted.
    deaf: AtomicBool,
}

impl Ledger {
    /// A new, empty ledger at this path.
    ///
    /// # Errors
    /// Those of the file system.
    pub fn create(path: &Path) -> Result<Ledger> {
        let file = OpenOptions::new().create_new(true).append(true).open(path);
        Ok(Ledger {
            path: path.to_owned(),
            pending: Mutex::default(),
            synced: Mutex::new(Synced {
                file: file.with_context(|| format!("creating {}", path.display()))?,
                lines: 0,
            }),
            sequence: AtomicU64::new(1),
            deaf: AtomicBool::new(false),
        })
    }

    /// A sequence number that nobody else gets.
    pub fn next_sequence(&self) -> u64 {
        self.sequence.fetch_add(1, Ordering::Relaxed)
    }

    /// Notes an acknowledged blob; returns once the note is synced.
    ///
    /// # Errors
    /// Those of the file system.
    pub fn blob_acked(&self, hash: &str, length_bytes: usize) -> Result<()> {
        if self.deaf.load(Ordering::SeqCst) {
            return Ok(());
        }
        let line = self.note(&format!("blob {hash} {length_bytes}\n"));
        self.sync(line)
    }

    /// From now on acknowledgements are not noted, or again: after a real power cut nobody hears them.
    pub fn hear(&self, acknowledgements: bool) {
        self.deaf.store(!acknowledgements, Ordering::SeqCst);
    }

    /// Notes that an operation that makes an entry so is about to begin.
    pub fn entry_begun(&self, key: &str, state: State) {
        self.note(&format!("begin {key} {state}\n"));
    }

    /// Notes that it was acknowledged; returns once the note is synced.
    ///
    /// # Errors
    /// Those of the file system.
    pub fn entry_acked(&self, key: &str, state: State) -> Result<()> {
        if self.deaf.load(Ordering::SeqCst) {
            return Ok(());
        }
        let line = self.note(&format!("ack {key} {state}\n"));
        self.sync(line)
    }

    /// Notes that an entry was seen so while nobody wrote it: it must stay so.
    pub fn entry_seen(&self, key: &str, state: State) {
        self.note(&format!("seen {key} {state}\n"));
    }

    fn note(&self, line: &str) -> u64 {
        let mut pending = lock(&self.pending);
        pending.bytes.extend_from_slice(line.as_bytes());
        pending.lines += 1;
        pending.lines
    }

    /// One sync serves all who wait for it.
    fn sync(&self, line: u64) -> Result<()> {
        let mut synced = lock(&self.synced);
        if synced.lines >= line {
            return Ok(());
        }
        let (bytes, lines) = {
            let mut pending = lock(&self.pending);
            (std::mem::take(&mut pending.bytes), pending.lines)
        };
        synced.file.write_all(&bytes)?;
        synced.file.sync_data()?;
        synced.lines = lines;
        Ok(())
    }

    /// Reads the file again: what the server must be able to show now.
    ///
    /// # Errors
    /// When the file cannot be read or is malformed.
    pub fn expectations(&self) -> Result<Expectations> {
        let all = lock(&self.pending).lines;
        self.sync(all)?;
        let mut expectations = Expectations::default();
        for line in BufReader::new(File::open(&self.path)?).lines() {
            expectations.apply(&line?)?;
        }
        Ok(expectations)
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    // The data behind both locks is whole at every step, so a writer that panicked does no harm.
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// What an entry may show.
#[derive(Debug, Clone)]
pub struct EntryExpectation {
    /// The last acknowledged or seen state.
    pub certain: State,
    /// States of operations begun later, with an unknown outcome.
    pub possible: Vec<State>,
}

/// What the server must be able to show.
#[derive(Debug, Default)]
pub struct Expectations {
    /// Acknowledged blobs in that order: hash and length.
    pub blobs: Vec<(String, usize)>,
    /// Entries by key.
    pub entries: HashMap<String, EntryExpectation>,
}

impl Expectations {
    fn apply(&mut self, line: &str) -> Result<()> {
        let words: Vec<&str> = line.split(' ').collect();
        let [kind, key, value] = words[..] else {
            bail!("a ledger line of {} words: {line}", words.len());
        };
        if kind == "blob" {
            self.blobs.push((key.to_owned(), value.parse()?));
            return Ok(());
        }
        let state = State::parse(value)?;
        let entry = self.entries.entry(key.to_owned());
        let entry = entry.or_insert(EntryExpectation {
            certain: State::Absent,
            possible: Vec::new(),
        });
        match kind {
            "begin" => entry.possible.push(state),
            "ack" | "seen" => {
                entry.certain = state;
                entry.possible.clear();
            }
            _ => bail!("a ledger line of kind {kind}"),
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_operation_without_an_answer_is_possible_until_a_later_one_is_acknowledged() -> Result<()>
    {
        let folder = tempfile::tempdir()?;
        let ledger = Ledger::create(&folder.path().join("ledger"))?;
        ledger.entry_begun("k", State::Value(1));
        ledger.entry_acked("k", State::Value(1))?;
        ledger.entry_begun("k", State::Absent);
        let expected = ledger.expectations()?.entries["k"].clone();
        assert_eq!(expected.certain, State::Value(1));
        assert_eq!(expected.possible, [State::Absent]);
        ledger.entry_seen("k", State::Absent);
        let expected = ledger.expectations()?.entries["k"].clone();
        assert_eq!(expected.certain, State::Absent);
        assert!(expected.possible.is_empty());
        Ok(())
    }
}
