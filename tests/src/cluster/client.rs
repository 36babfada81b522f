//! A client of the cluster over HTTP, as Bazel is one, whose every call is noted in a history.
//!
//! What an answer means is decided here, once: what was refused before it was sent certainly had no effect, what broke
//! off or was "unavailable" may have had it. An answer that no cache may give is a finding of its own.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use zimcache_history::{Event, History, Kind, Limits, Op, Outcome, Window};

use super::gateway::Doors;
use crate::content;
use crate::http::{Connection, Response};

/// Longest silence of a gateway: longer than it may wait for its nodes.
const SILENCE: Duration = Duration::from_secs(40);
const NAMESPACE: &str = "default";
/// How long after a fault an older version of an entry may still be read.
const CONVERGENCE: Duration = Duration::from_mins(1);

/// What all clients of a run saw.
#[derive(Debug)]
pub struct Recorder {
    begun: Instant,
    history: Mutex<History>,
    findings: Mutex<Vec<String>>,
    troubles: Mutex<Vec<(u64, String)>>,
}

impl Recorder {
    /// Nothing seen yet, of a cluster with so many gateways that evicts nothing.
    pub fn new(gateways: usize) -> Arc<Recorder> {
        let limits = Limits {
            convergence: micros(CONVERGENCE),
            may_evict: false,
            gateways: u32::try_from(gateways).unwrap_or(u32::MAX),
            clocks_apart: 0,
        };
        Arc::new(Recorder {
            begun: Instant::now(),
            history: Mutex::new(History::new(limits)),
            findings: Mutex::default(),
            troubles: Mutex::default(),
        })
    }

    /// Microseconds since the run began.
    pub fn now(&self) -> u64 {
        micros(self.begun.elapsed())
    }

    /// Notes that something was broken from then until now.
    pub fn was_broken(&self, what: &str, from: u64) {
        let window = Window {
            what: what.to_owned(),
            from,
            until: self.now(),
            // It matters only where clocks are apart.
            loses_disk: false,
        };
        self.history().faults.push(window);
    }

    /// Everything until now.
    pub fn history(&self) -> MutexGuard<'_, History> {
        self.history.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Answers that no cache may give.
    pub fn findings(&self) -> Vec<String> {
        let findings = self.findings.lock().unwrap_or_else(PoisonError::into_inner);
        findings.clone()
    }

    /// What broke off or was "unavailable" since then, in words.
    pub fn troubles_since(&self, from: u64) -> Vec<String> {
        let troubles = self.troubles.lock().unwrap_or_else(PoisonError::into_inner);
        let since = troubles.iter().filter(|(at, _)| *at >= from);
        since.map(|(_, what)| what.clone()).collect()
    }

    fn trouble(&self, what: String) {
        let mut troubles = self.troubles.lock().unwrap_or_else(PoisonError::into_inner);
        troubles.push((self.now(), what));
    }

    fn find(&self, what: String) {
        let mut findings = self.findings.lock().unwrap_or_else(PoisonError::into_inner);
        findings.push(what);
    }
}

fn micros(time: Duration) -> u64 {
    u64::try_from(time.as_micros()).unwrap_or(u64::MAX)
}

/// What became of a call.
enum Sent {
    /// It never left.
    Nowhere,
    /// No answer came, or only a part of it.
    Broken,
    Answered(Response),
}

/// A client of one gateway.
#[derive(Debug)]
pub struct Client {
    number: u32,
    gateway: usize,
    doors: Doors,
    connection: Option<Connection>,
    recorder: Arc<Recorder>,
    is_sweep: bool,
}

impl Client {
    /// A client of the gateway with this number.
    pub fn new(number: u32, gateway: usize, doors: &Doors, recorder: &Arc<Recorder>) -> Client {
        Client {
            number,
            gateway,
            doors: doors.clone(),
            connection: None,
            recorder: Arc::clone(recorder),
            is_sweep: false,
        }
    }

    /// The same, whose reads are the final ones: every one has to be answered.
    #[must_use]
    pub fn of_the_sweep(mut self) -> Client {
        self.is_sweep = true;
        self
    }

    /// Goes through another gateway from now on.
    pub fn go_through(&mut self, gateway: usize) {
        if self.gateway != gateway {
            self.gateway = gateway;
            self.connection = None;
        }
    }

    /// Stores a blob and returns its hash and what became of it.
    pub fn put_blob(&mut self, body: &[u8]) -> (String, Outcome) {
        let hash = content::sha256(body);
        let path = format!("/cas/{hash}");
        let value = Some(hash.clone());
        let outcome = self.write(Op::Put, Kind::Blob, (&hash, value), &path, Some(body));
        (hash, outcome)
    }

    /// Removes a blob.
    pub fn delete_blob(&mut self, hash: &str) -> Outcome {
        let path = format!("/cas/{hash}");
        self.write(Op::Delete, Kind::Blob, (hash, None), &path, None)
    }

    /// Reads a blob.
    pub fn get_blob(&mut self, hash: &str) -> Outcome {
        self.read(Kind::Blob, hash, &format!("/cas/{hash}"))
    }

    /// Stores an action result, whose bytes no other put of this key has.
    pub fn put_entry(&mut self, key: &str, body: &[u8]) -> Outcome {
        let path = format!("/ac/{key}");
        let value = Some(content::sha256(body));
        self.write(Op::Put, Kind::Entry, (key, value), &path, Some(body))
    }

    /// Removes an action result.
    pub fn delete_entry(&mut self, key: &str) -> Outcome {
        let path = format!("/ac/{key}");
        self.write(Op::Delete, Kind::Entry, (key, None), &path, None)
    }

    /// Reads an action result.
    pub fn get_entry(&mut self, key: &str) -> Outcome {
        self.read(Kind::Entry, key, &format!("/ac/{key}"))
    }

    fn write(
        &mut self,
        op: Op,
        kind: Kind,
        (key, value): (&str, Option<String>),
        path: &str,
        body: Option<&[u8]>,
    ) -> Outcome {
        let invoked = self.recorder.now();
        let method = if op == Op::Delete { "DELETE" } else { "PUT" };
        let outcome = match self.send(method, path, body) {
            Sent::Nowhere => Outcome::Failed,
            Sent::Broken => Outcome::Unknown,
            Sent::Answered(response) => match response.status {
                200 | 204 => Outcome::Ok,
                404 if op == Op::Delete => Outcome::Absent,
                503 | 507 => Outcome::Unknown,
                _ => {
                    self.complain(method, path, &response);
                    Outcome::Unknown
                }
            },
        };
        self.note(op, kind, (key, value), invoked, outcome);
        outcome
    }

    fn read(&mut self, kind: Kind, key: &str, path: &str) -> Outcome {
        let invoked = self.recorder.now();
        let (outcome, value) = match self.send("GET", path, None) {
            Sent::Nowhere | Sent::Broken => (Outcome::Failed, None),
            Sent::Answered(response) => match response.status {
                200 => (Outcome::Ok, Some(content::sha256(&response.body))),
                404 => (Outcome::Absent, None),
                503 => (Outcome::Failed, None),
                _ => {
                    self.complain("GET", path, &response);
                    (Outcome::Failed, None)
                }
            },
        };
        self.note(Op::Get, kind, (key, value), invoked, outcome);
        outcome
    }

    fn note(
        &self,
        op: Op,
        kind: Kind,
        (key, value): (&str, Option<String>),
        invoked: u64,
        outcome: Outcome,
    ) {
        let event = Event {
            client: self.number,
            gateway: u32::try_from(self.gateway).unwrap_or(u32::MAX),
            op,
            kind,
            namespace: NAMESPACE.to_owned(),
            key: key.to_owned(),
            value,
            invoked,
            completed: self.recorder.now(),
            outcome,
            sweep: self.is_sweep,
        };
        self.recorder.history().events.push(event);
    }

    fn complain(&self, method: &str, path: &str, response: &Response) {
        let (status, text) = (response.status, response.text());
        let text: String = text.chars().take(200).collect();
        self.recorder
            .find(format!("{method} {path}: {status} {text}"));
    }

    fn send(&mut self, method: &str, path: &str, body: Option<&[u8]>) -> Sent {
        let kept = self.connection.take();
        let is_kept = kept.is_some();
        let Some(mut connection) = kept.or_else(|| self.connect()) else {
            self.recorder
                .trouble(format!("{method} {path}: not connected"));
            return Sent::Nowhere;
        };
        match connection.request(method, path, &[], body) {
            Ok(response) => {
                if matches!(response.status, 500..) {
                    let (status, text) = (response.status, response.text());
                    self.recorder
                        .trouble(format!("{method} {path}: {status} {}", text.trim_end()));
                }
                if response.header("connection") != Some("close") {
                    self.connection = Some(connection);
                }
                Sent::Answered(response)
            }
            Err(_) if is_kept && self.doors.is_service() && !connection.answer_began() => {
                self.send(method, path, body)
            }
            Err(error) => {
                self.recorder.trouble(format!("{method} {path}: {error}"));
                if error.kind() == std::io::ErrorKind::InvalidData {
                    self.recorder.find(format!("{method} {path}: {error}"));
                }
                Sent::Broken
            }
        }
    }

    fn connect(&self) -> Option<Connection> {
        let address = self.doors.address(self.gateway)?;
        Connection::open_patiently(address, SILENCE).ok()
    }
}

/// An action result that nobody else writes: its number, and a blob that it says is its output.
pub fn action_result(number: u64, output: Option<(&str, usize)>) -> Vec<u8> {
    let mut message = Vec::new();
    if let Some((hash, length_bytes)) = output {
        let mut digest = field(1, hash.as_bytes());
        digest.push(2 << 3);
        varint(&mut digest, length_bytes as u64);
        let mut file = field(1, b"out");
        file.extend(field(2, &digest));
        message.extend(field(2, &file));
    }
    // Standard output, as it is.
    message.extend(field(5, format!("run {number}").as_bytes()));
    message
}

/// A field of bytes in a protocol buffer message.
fn field(number: u8, bytes: &[u8]) -> Vec<u8> {
    let mut field = vec![number << 3 | 2];
    varint(&mut field, bytes.len() as u64);
    field.extend_from_slice(bytes);
    field
}

fn varint(to: &mut Vec<u8>, mut number: u64) {
    while number >= 0x80 {
        to.push(number as u8 | 0x80);
        number >>= 7;
    }
    to.push(number as u8);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_action_result_is_a_message_of_its_number_and_its_output() {
        assert_eq!(action_result(7, None), b"\x2a\x05run 7");
        let with_output = action_result(7, Some(("ab", 300)));
        let expected = b"\x12\x0e\x0a\x03out\x12\x07\x0a\x02ab\x10\xac\x02\x2a\x05run 7";
        assert_eq!(with_output, expected);
    }
}
