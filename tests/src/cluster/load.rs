//! Load on a cluster: clients that write, read and delete blobs and action results through all gateways, each call
//! noted; and the sweep that reads everything at the end.

use std::collections::{HashSet, VecDeque};
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::Duration;

use anyhow::{Result, anyhow, bail};
use zimcache_history::{Kind, Op, Outcome, check};

use super::client::{Client, Recorder, action_result};
use super::gateway::Doors;
use crate::content::{self, Random};

/// Keys of action results, which all clients share.
const ENTRIES: u64 = 64;
/// Blobs that clients remember to read again.
const REMEMBERED: usize = 20_000;
const SWEEPERS: u32 = 4;
/// Violations shown; the rest is counted only.
const SHOWN: usize = 12;

/// What the clients of a load do.
#[derive(Debug, Clone, Copy)]
pub struct Mix {
    /// How many clients.
    pub clients: u32,
    /// The mean pause of a client between two calls.
    pub pause: Duration,
    /// Of a hundred calls, those that delete something.
    pub deletes: u64,
    /// Of a hundred calls, those that write something.
    pub writes: u64,
    /// What the usual sizes are divided by.
    pub smaller: usize,
}

impl Default for Mix {
    fn default() -> Mix {
        Mix {
            clients: 8,
            pause: Duration::from_millis(20),
            deletes: 4,
            writes: 40,
            smaller: 1,
        }
    }
}

/// Blobs that were acknowledged: hash and length.
#[derive(Debug, Default)]
struct Known(Mutex<VecDeque<(String, usize)>>);

impl Known {
    fn add(&self, hash: String, length: usize) {
        let mut known = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if known.len() == REMEMBERED {
            known.pop_front();
        }
        known.push_back((hash, length));
    }

    fn any(&self, random: &mut Random) -> Option<(String, usize)> {
        let known = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let count = known.len() as u64;
        (count > 0).then(|| known[random.below(count) as usize].clone())
    }

    fn take(&self, random: &mut Random) -> Option<(String, usize)> {
        let mut known = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let count = known.len() as u64;
        let at = (count > 0).then(|| random.below(count) as usize)?;
        known.swap_remove_back(at)
    }
}

/// What all clients of a load share.
#[derive(Debug)]
struct Shared {
    known: Known,
    runs: AtomicU64,
    stop: AtomicBool,
    mix: Mix,
}

/// A running load. Dropping it asks the clients to stop, without waiting.
#[derive(Debug)]
pub struct Load {
    shared: Arc<Shared>,
    clients: Vec<JoinHandle<()>>,
}

impl Load {
    /// Starts the clients.
    pub fn start(doors: &Doors, recorder: &Arc<Recorder>, seed: u64, mix: Mix) -> Load {
        let shared = Arc::new(Shared {
            known: Known::default(),
            // No value that an earlier load has written: each call writes one at most.
            runs: AtomicU64::new(1 + recorder.history().events.len() as u64),
            stop: AtomicBool::new(false),
            mix,
        });
        let start = |number: u32| {
            let gateway = number as usize % doors.count().max(1);
            let client = Client::new(number, gateway, doors, recorder);
            let (shared, doors) = (Arc::clone(&shared), doors.clone());
            let mut random = Random::new(seed ^ u64::from(number).rotate_left(32));
            std::thread::spawn(move || run(client, &doors, &shared, &mut random))
        };
        Load {
            clients: (0..mix.clients).map(start).collect(),
            shared,
        }
    }

    /// Stops the clients and waits for their last answers.
    ///
    /// # Errors
    /// When a client panicked.
    pub fn finish(mut self) -> Result<()> {
        self.shared.stop.store(true, Ordering::Relaxed);
        for client in std::mem::take(&mut self.clients) {
            client.join().map_err(|_| anyhow!("a client panicked"))?;
        }
        Ok(())
    }
}

impl Drop for Load {
    fn drop(&mut self) {
        self.shared.stop.store(true, Ordering::Relaxed);
    }
}

fn run(mut client: Client, doors: &Doors, shared: &Shared, random: &mut Random) {
    let gateways = doors.count().max(1) as u64;
    while !shared.stop.load(Ordering::Relaxed) {
        // Mostly the same gateway; others now and then, so that each reads what the others wrote.
        if random.below(20) == 0 {
            client.go_through(random.below(gateways) as usize);
        }
        call(&mut client, shared, random);
        let pause = shared.mix.pause.as_micros() as u64 * 2;
        std::thread::sleep(Duration::from_micros(random.below(pause.max(1))));
    }
}

fn call(client: &mut Client, shared: &Shared, random: &mut Random) {
    let (deletes, writes) = (shared.mix.deletes, shared.mix.writes);
    let is_blob = random.below(100) < 65;
    let choice = random.below(100);
    if choice < deletes {
        delete(client, shared, random, is_blob);
    } else if choice < deletes + writes {
        write(client, shared, random, is_blob);
    } else if is_blob {
        if let Some((hash, _)) = shared.known.any(random) {
            client.get_blob(&hash);
        }
    } else {
        client.get_entry(&entry_key(random));
    }
}

fn delete(client: &mut Client, shared: &Shared, random: &mut Random, is_blob: bool) {
    if !is_blob {
        client.delete_entry(&entry_key(random));
    } else if let Some((hash, _)) = shared.known.take(random) {
        client.delete_blob(&hash);
    }
}

fn write(client: &mut Client, shared: &Shared, random: &mut Random, is_blob: bool) {
    if is_blob {
        let length = (random.blob_size_bytes() / shared.mix.smaller).max(1);
        let body = content::body(random.next_u64(), length);
        let (hash, outcome) = client.put_blob(&body);
        if outcome == Outcome::Ok {
            shared.known.add(hash, length);
        }
        return;
    }
    let number = shared.runs.fetch_add(1, Ordering::Relaxed);
    // An action result whose output somebody deleted is no hit, so it is named only where nothing is deleted.
    let output = if shared.mix.deletes == 0 {
        shared.known.any(random)
    } else {
        None
    };
    let output = output.as_ref().map(|(hash, length)| (&**hash, *length));
    client.put_entry(&entry_key(random), &action_result(number, output));
}

fn entry_key(random: &mut Random) -> String {
    content::sha256(format!("action {}", random.below(ENTRIES)).as_bytes())
}

/// Reads everything that was ever acknowledged through every gateway, as the final sweep of the history.
///
/// # Errors
/// When a reader panicked.
pub fn sweep(doors: &Doors, recorder: &Arc<Recorder>) -> Result<usize> {
    let keys = acknowledged(recorder);
    read_all(doors, recorder, &keys, true)?;
    Ok(keys.len())
}

/// Every key with an acknowledged put.
pub fn acknowledged(recorder: &Recorder) -> Vec<(Kind, String)> {
    let history = recorder.history();
    let keys = history.acknowledged().into_iter();
    keys.map(|(kind, _, key)| (kind, key.to_owned())).collect()
}

/// Every key that was acknowledged and that nobody tried to delete: a deletion that failed may have reached some nodes,
/// and what is deleted cannot be proven absent while nodes or the bucket are away.
pub fn never_deleted(recorder: &Recorder) -> Vec<(Kind, String)> {
    let history = recorder.history();
    let deletions = history.events.iter().filter(|event| event.op == Op::Delete);
    let deleted: HashSet<_> = deletions.map(|event| (event.kind, &*event.key)).collect();
    let keys = history.acknowledged().into_iter();
    let keys = keys.map(|(kind, _, key)| (kind, key));
    let kept = keys.filter(|key| !deleted.contains(key));
    kept.map(|(kind, key)| (kind, key.to_owned())).collect()
}

/// Reads these keys through every gateway, noted like every other call, and judged as the sweep if it is that.
///
/// # Errors
/// When a reader panicked.
pub fn read_all(
    doors: &Doors,
    recorder: &Arc<Recorder>,
    keys: &[(Kind, String)],
    is_sweep: bool,
) -> Result<()> {
    for gateway in 0..doors.count() {
        let next = AtomicUsize::new(0);
        std::thread::scope(|scope| -> Result<()> {
            let reader = |number: u32| {
                let client = Client::new(1_000 + number, gateway, doors, recorder);
                let mut client = if is_sweep {
                    client.of_the_sweep()
                } else {
                    client
                };
                while let Some((kind, key)) = keys.get(next.fetch_add(1, Ordering::Relaxed)) {
                    match kind {
                        Kind::Blob => client.get_blob(key),
                        Kind::Entry => client.get_entry(key),
                    };
                }
            };
            let readers: Vec<_> = (0..SWEEPERS)
                .map(|number| scope.spawn(move || reader(number)))
                .collect();
            for reader in readers {
                reader.join().map_err(|_| anyhow!("a reader panicked"))?;
            }
            Ok(())
        })?;
    }
    Ok(())
}

/// Judges everything that was seen.
///
/// # Errors
/// Answers that no cache may give, and those that break a promise.
pub fn demand_clean(recorder: &Recorder) -> Result<()> {
    let findings = recorder.findings();
    if !findings.is_empty() {
        let shown = findings[..findings.len().min(SHOWN)].join("\n  ");
        bail!(
            "{} answers that nobody may give:\n  {shown}",
            findings.len()
        );
    }
    let history = recorder.history();
    let violations = check(&history);
    if violations.is_empty() {
        return Ok(());
    }
    let shown = violations.iter().take(SHOWN).map(ToString::to_string);
    let shown = shown.collect::<Vec<_>>().join("\n  ");
    bail!("{} promises broken:\n  {shown}", violations.len())
}

/// How many calls ended how.
#[derive(Debug, Default, Clone, Copy)]
pub struct Tally {
    /// All calls.
    pub calls: usize,
    /// Writes that were acknowledged.
    pub acknowledged: usize,
    /// Writes with an unknown outcome, or refused.
    pub not_acknowledged: usize,
    /// Reads that found something.
    pub hits: usize,
    /// Reads that found nothing.
    pub misses: usize,
    /// Reads that failed.
    pub failed_reads: usize,
}

/// Counts what was noted from then to then, in microseconds of the run.
pub fn tally(recorder: &Recorder, from: u64, until: u64) -> Tally {
    let mut tally = Tally::default();
    let history = recorder.history();
    let events = history.events.iter();
    for event in events.filter(|event| (from..until).contains(&event.invoked) && !event.sweep) {
        tally.calls += 1;
        let is_read = event.op == Op::Get;
        *match (is_read, event.outcome) {
            (false, Outcome::Ok | Outcome::Absent) => &mut tally.acknowledged,
            (false, _) => &mut tally.not_acknowledged,
            (true, Outcome::Ok) => &mut tally.hits,
            (true, Outcome::Absent) => &mut tally.misses,
            (true, _) => &mut tally.failed_reads,
        } += 1;
    }
    tally
}
