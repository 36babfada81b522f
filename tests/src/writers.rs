//! Load on a server: many connections that write blobs and entries, note what was acknowledged, and a sweep that
//! judges a server by the notes.
//!
//! A connection that breaks ends its writer: the server was killed. 503 and 507 are counted and tolerated: the caller
//! decides whether the disk gave a reason. Anything else unexpected is a finding.

use std::io;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;

use anyhow::{Context as _, Result, anyhow, bail};

use crate::content::{self, Random};
use crate::http::Connection;
use crate::ledger::{Expectations, Ledger, State, entry_value};

const KEYS_PER_WRITER: u64 = 8;
const SWEEP_CONNECTIONS: usize = 8;
/// One in so many of the blobs that an earlier sweep has seen is read again.
const KNOWN_SAMPLED: usize = 16;
/// Findings kept as text; the rest is counted only.
const FINDINGS_SHOWN: usize = 8;

/// What writers did.
#[derive(Debug, Default, Clone)]
pub struct Tally {
    /// Acknowledged blobs.
    pub blobs: u64,
    /// Acknowledged writes and deletions of entries.
    pub entries: u64,
    /// Payload bytes acknowledged.
    pub payload_bytes: u64,
    /// Reads of own blobs during the load.
    pub reads: u64,
    /// Writes refused with 503 or 507.
    pub refused: u64,
    /// Everything that must not happen.
    pub findings: Vec<String>,
}

impl Tally {
    /// Turns findings into an error.
    ///
    /// # Errors
    /// Their count and the first ones.
    pub fn demand_clean(&self) -> Result<()> {
        if self.findings.is_empty() {
            return Ok(());
        }
        let shown = &self.findings[..self.findings.len().min(FINDINGS_SHOWN)];
        let all = self.findings.len();
        bail!("{all} findings during the load:\n  {}", shown.join("\n  "))
    }

    /// Adds another tally.
    pub fn add(&mut self, other: Tally) {
        self.blobs += other.blobs;
        self.entries += other.entries;
        self.payload_bytes += other.payload_bytes;
        self.reads += other.reads;
        self.refused += other.refused;
        self.findings.extend(other.findings);
    }
}

/// A running load. Dropping it asks the writers to stop, without waiting.
#[derive(Debug)]
pub struct Load {
    stop: Arc<AtomicBool>,
    writers: Vec<JoinHandle<Result<Tally>>>,
}

impl Load {
    /// Starts `writers` connections against a server.
    pub fn start(address: SocketAddr, ledger: &Arc<Ledger>, seed: u64, writers: u64) -> Load {
        let stop = Arc::new(AtomicBool::new(false));
        let spawn = |number: u64| {
            let (ledger, stop) = (Arc::clone(ledger), Arc::clone(&stop));
            std::thread::spawn(move || {
                let random = Random::new(seed ^ number.rotate_left(32));
                Writer::open(address, ledger, number, random).run(&stop)
            })
        };
        Load {
            writers: (0..writers).map(spawn).collect(),
            stop,
        }
    }

    /// Waits until every writer has ended: by the stop flag, or because the server went away.
    ///
    /// # Errors
    /// When a writer itself failed (its ledger, not the server).
    pub fn finish(mut self) -> Result<Tally> {
        self.stop.store(true, Ordering::Relaxed);
        let mut tally = Tally::default();
        for writer in std::mem::take(&mut self.writers) {
            tally.add(writer.join().map_err(|_| anyhow!("a writer panicked"))??);
        }
        Ok(tally)
    }
}

impl Drop for Load {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
    }
}

struct Writer {
    connection: Option<Connection>,
    ledger: Arc<Ledger>,
    number: u64,
    random: Random,
    recent: Option<(String, usize)>,
    tally: Tally,
}

impl Writer {
    fn open(address: SocketAddr, ledger: Arc<Ledger>, number: u64, random: Random) -> Writer {
        Writer {
            // The server may be dead before the last writer has connected.
            connection: Connection::open(address).ok(),
            ledger,
            number,
            random,
            recent: None,
            tally: Tally::default(),
        }
    }

    fn run(mut self, stop: &AtomicBool) -> Result<Tally> {
        while !stop.load(Ordering::Relaxed) && self.connection.is_some() {
            match self.random.below(100) {
                0..70 => self.put_blob()?,
                70..88 => self.put_entry()?,
                88..92 => self.delete_entry()?,
                _ => self.read_blob(),
            }
        }
        Ok(self.tally)
    }

    /// The status of the answer, or `None` when the connection is gone.
    fn send(&mut self, method: &str, path: &str, body: Option<&[u8]>) -> Option<(u16, Vec<u8>)> {
        let connection = self.connection.as_mut()?;
        match connection.request(method, path, &[], body) {
            Ok(response) => Some((response.status, response.body)),
            Err(error) => {
                if error.kind() == io::ErrorKind::InvalidData {
                    self.tally
                        .findings
                        .push(format!("{method} {path}: {error}"));
                }
                self.connection = None;
                None
            }
        }
    }

    fn put_blob(&mut self) -> Result<()> {
        let length_bytes = self.random.blob_size_bytes();
        let body = content::body(self.random.next_u64(), length_bytes);
        let hash = content::sha256(&body);
        let Some((status, text)) = self.send("PUT", &format!("/cas/{hash}"), Some(&body)) else {
            return Ok(());
        };
        match status {
            200 => {
                self.ledger.blob_acked(&hash, length_bytes)?;
                self.tally.blobs += 1;
                self.tally.payload_bytes += length_bytes as u64;
                self.recent = Some((hash, length_bytes));
            }
            503 | 507 => self.tally.refused += 1,
            _ => self.find(&format!("PUT of a blob: {status}"), &text),
        }
        Ok(())
    }

    fn key(&mut self) -> String {
        let slot = self.random.below(KEYS_PER_WRITER);
        let name = format!("writer {} entry {slot}", self.number);
        content::sha256(name.as_bytes())[..40].to_owned()
    }

    fn put_entry(&mut self) -> Result<()> {
        let (key, sequence) = (self.key(), self.ledger.next_sequence());
        let value = entry_value(sequence);
        self.ledger.entry_begun(&key, State::Value(sequence));
        let Some((status, text)) = self.send("PUT", &entry_path(&key), Some(&value)) else {
            return Ok(());
        };
        match status {
            200 => {
                self.ledger.entry_acked(&key, State::Value(sequence))?;
                self.tally.entries += 1;
                self.tally.payload_bytes += value.len() as u64;
            }
            503 | 507 => self.tally.refused += 1,
            _ => self.find(&format!("PUT of an entry: {status}"), &text),
        }
        Ok(())
    }

    fn delete_entry(&mut self) -> Result<()> {
        let key = self.key();
        self.ledger.entry_begun(&key, State::Absent);
        let Some((status, text)) = self.send("DELETE", &entry_path(&key), None) else {
            return Ok(());
        };
        match status {
            200 | 204 | 404 => {
                self.ledger.entry_acked(&key, State::Absent)?;
                self.tally.entries += 1;
            }
            503 | 507 => self.tally.refused += 1,
            _ => self.find(&format!("DELETE of an entry: {status}"), &text),
        }
        Ok(())
    }

    fn read_blob(&mut self) {
        let Some((hash, length_bytes)) = self.recent.clone() else {
            return;
        };
        let Some((status, body)) = self.send("GET", &format!("/cas/{hash}"), None) else {
            return;
        };
        self.tally.reads += 1;
        if status == 200 && content::sha256(&body) != hash {
            self.tally.findings.push(format!("wrong bytes for {hash}"));
        }
        if status != 200 && status != 503 {
            self.find(
                &format!("GET of acknowledged blob {hash} of {length_bytes} bytes: {status}"),
                &body,
            );
        }
    }

    fn find(&mut self, what: &str, body: &[u8]) {
        let body = String::from_utf8_lossy(&body[..body.len().min(200)]);
        self.tally.findings.push(format!("{what} {body}"));
    }
}

fn entry_path(key: &str) -> String {
    format!("/ccache/{key}")
}

/// What a sweep over everything acknowledged found.
#[derive(Debug, Default)]
pub struct Verdict {
    /// Blobs and entries read.
    pub checked: usize,
    /// Acknowledged and gone.
    pub lost: Vec<String>,
    /// Answered with other bytes, an older state, or a failure.
    pub wrong: Vec<String>,
}

impl Verdict {
    fn note(&mut self, found: Found) {
        self.checked += 1;
        match found {
            Found::Right => {}
            Found::Lost(text) => self.lost.push(text),
            Found::Wrong(text) => self.wrong.push(text),
        }
    }

    /// Turns anything lost or wrong into an error.
    ///
    /// # Errors
    /// The counts and the first findings.
    pub fn demand_clean(&self) -> Result<()> {
        if self.lost.is_empty() && self.wrong.is_empty() {
            return Ok(());
        }
        let first = |list: &[String]| list[..list.len().min(FINDINGS_SHOWN)].join("\n  ");
        bail!(
            "of {} acknowledged: {} lost, {} wrong\n  {}\n  {}",
            self.checked,
            self.lost.len(),
            self.wrong.len(),
            first(&self.lost),
            first(&self.wrong)
        )
    }
}

/// Reads what the ledger promises from a quiet server and notes which of several possible states was seen: all entries,
/// all blobs after the first `known` ones, and every 16th of those.
///
/// # Errors
/// When the ledger or a connection fails; findings are in the verdict.
pub fn sweep(address: SocketAddr, ledger: &Ledger, known: usize) -> Result<Verdict> {
    let mut expectations = ledger.expectations()?;
    let mut number = 0;
    expectations.blobs.retain(|_| {
        number += 1;
        number > known || (number + known).is_multiple_of(KNOWN_SAMPLED)
    });
    let entries: Vec<&String> = expectations.entries.keys().collect();
    let next = AtomicUsize::new(0);
    let verdict = Mutex::new(Verdict::default());
    std::thread::scope(|scope| -> Result<()> {
        let worker = || -> Result<()> {
            let mut connection = Connection::open(address).context("connecting for the sweep")?;
            loop {
                let at = next.fetch_add(1, Ordering::Relaxed);
                let found = if let Some((hash, length_bytes)) = expectations.blobs.get(at) {
                    check_blob(&mut connection, hash, *length_bytes)?
                } else if let Some(key) = entries.get(at - expectations.blobs.len()) {
                    check_entry(&mut connection, key, &expectations, ledger)?
                } else {
                    return Ok(());
                };
                verdict
                    .lock()
                    .unwrap_or_else(PoisonError::into_inner)
                    .note(found);
            }
        };
        let workers: Vec<_> = (0..SWEEP_CONNECTIONS)
            .map(|_| scope.spawn(worker))
            .collect();
        for worker in workers {
            worker.join().map_err(|_| anyhow!("a sweeper panicked"))??;
        }
        Ok(())
    })?;
    Ok(verdict.into_inner().unwrap_or_else(PoisonError::into_inner))
}

enum Found {
    Right,
    Lost(String),
    Wrong(String),
}

fn check_blob(connection: &mut Connection, hash: &str, length_bytes: usize) -> Result<Found> {
    let response = connection
        .request("GET", &format!("/cas/{hash}"), &[], None)
        .with_context(|| format!("reading blob {hash} of {length_bytes} bytes"))?;
    let name = format!("blob {hash} of {length_bytes} bytes");
    Ok(match response.status {
        200 if content::sha256(&response.body) == hash => Found::Right,
        200 => Found::Wrong(format!("{name}: other bytes")),
        404 => Found::Lost(name),
        status => Found::Wrong(format!("{name}: status {status} {}", response.text())),
    })
}

fn check_entry(
    connection: &mut Connection,
    key: &str,
    expectations: &Expectations,
    ledger: &Ledger,
) -> Result<Found> {
    let response = connection
        .request("GET", &entry_path(key), &[], None)
        .with_context(|| format!("reading entry {key}"))?;
    let expected = &expectations.entries[key];
    let shows = |state: &State| match *state {
        State::Absent => response.status == 404,
        State::Value(sequence) => response.status == 200 && response.body == entry_value(sequence),
    };
    let mut states = expected.possible.iter().chain([&expected.certain]);
    if let Some(seen) = states.find(|state| shows(state)) {
        ledger.entry_seen(key, *seen);
        return Ok(Found::Right);
    }
    let text = format!(
        "entry {key}: status {}, {} bytes, expected {} or one of {:?}",
        response.status,
        response.body.len(),
        expected.certain,
        expected.possible
    );
    Ok(if response.status == 404 {
        Found::Lost(text)
    } else {
        Found::Wrong(text)
    })
}
