//! What is recorded, and its form on disk: a JSON document a line.
//!
//! Times are microseconds since the run began, of one clock for all clients.

use std::io::{self, BufRead, Write};

use serde::{Deserialize, Serialize};

use crate::Window;

/// What a key names.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Kind {
    /// Bytes whose key is their hash.
    Blob,
    /// A name whose value may be replaced.
    Entry,
}

/// What a client asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Op {
    /// Stores a value.
    Put,
    /// Removes one.
    Delete,
    /// Reads one, to its last byte.
    Get,
    /// Asks whether a blob is there.
    Find,
    /// Removes everything in a namespace; the key is empty and the kind does not matter.
    Purge,
}

/// How a call ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Outcome {
    /// Acknowledged; a read has its whole value, a find was told "present".
    Ok,
    /// There is nothing: a definite miss, a find that was told "missing", a deletion that found nothing.
    Absent,
    /// It certainly had no effect: refused before anything was stored. A read that failed, or broke off.
    Failed,
    /// It may have had its effect or may still have it: a timeout, a broken connection, "unavailable" for a write.
    Unknown,
}

/// A call of a client.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Event {
    /// Who called.
    pub client: u32,
    /// Through which gateway.
    pub gateway: u32,
    /// What for.
    pub op: Op,
    /// What the key names.
    pub kind: Kind,
    /// In which namespace.
    pub namespace: String,
    /// Of a blob its hash.
    pub key: String,
    /// What was put, or what a read returned: of a blob the hash of the bytes, of an entry what no other put has, read
    /// out of the bytes; for bytes that nobody wrote anything else, such as their hash.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub value: Option<String>,
    /// When it was called, in microseconds.
    pub invoked: u64,
    /// When it ended, in microseconds.
    pub completed: u64,
    /// How it ended.
    pub outcome: Outcome,
    /// Whether it belongs to the final sweep, when nothing is broken any more and everything had time to converge.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub sweep: bool,
}

/// What was promised.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Limits {
    /// How long after a fault entries may still be read in an older version, in microseconds.
    pub convergence: u64,
    /// Whether the stores may have evicted what is not leased: then a miss proves nothing.
    pub may_evict: bool,
    /// How many gateways the sweep has to ask, numbered from 0.
    pub gateways: u32,
    /// How far the clocks of two gateways may be apart, in microseconds.
    #[serde(default)]
    pub clocks_apart: u64,
}

/// What clients saw in one run.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct History {
    /// What was promised.
    pub limits: Limits,
    /// When something was broken.
    pub faults: Vec<Window>,
    /// The calls, in any order.
    pub events: Vec<Event>,
}

/// Why lines are no history.
#[derive(Debug, thiserror::Error)]
pub enum ParseError {
    /// They cannot be read.
    #[error("the history cannot be read")]
    Io(#[from] io::Error),
    /// One of them is nothing that belongs here.
    #[error("line {line} of the history makes no sense")]
    Line {
        /// Its number, from 1.
        line: usize,
        /// What is wrong with it.
        source: serde_json::Error,
    },
    /// The line with the limits is missing.
    #[error("the history does not say what was promised")]
    NoLimits,
}

/// A line of the file.
#[derive(Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
enum Line<L, F, E> {
    Limits(L),
    Fault(F),
    Event(E),
}

type Borrowed<'a> = Line<&'a Limits, &'a Window, &'a Event>;
type Owned = Line<Limits, Window, Event>;

impl History {
    /// A history in which nothing has happened yet.
    pub const fn new(limits: Limits) -> History {
        History {
            limits,
            faults: Vec::new(),
            events: Vec::new(),
        }
    }

    /// Every key with an acknowledged put, in order: what the final sweep has to read.
    pub fn acknowledged(&self) -> Vec<(Kind, &str, &str)> {
        let puts = self.events.iter();
        let puts = puts.filter(|event| event.op == Op::Put && event.outcome == Outcome::Ok);
        let mut keys: Vec<_> = puts.map(Event::place).collect();
        keys.sort_unstable();
        keys.dedup();
        keys
    }

    /// Writes the history, a line each.
    ///
    /// # Errors
    /// Those of the writer.
    pub fn write(&self, mut to: impl Write) -> io::Result<()> {
        let mut line = |line: Borrowed<'_>| {
            serde_json::to_writer(&mut to, &line)?;
            to.write_all(b"\n")
        };
        line(Line::Limits(&self.limits))?;
        self.faults
            .iter()
            .try_for_each(|fault| line(Line::Fault(fault)))?;
        self.events
            .iter()
            .try_for_each(|event| line(Line::Event(event)))
    }

    /// Reads what was written.
    ///
    /// # Errors
    /// [`ParseError`].
    pub fn read(from: impl BufRead) -> Result<History, ParseError> {
        let (mut limits, mut faults, mut events) = (None, Vec::new(), Vec::new());
        for (number, text) in from.lines().enumerate() {
            let parsed = serde_json::from_str::<Owned>(&text?);
            match parsed.map_err(|source| ParseError::Line {
                line: number + 1,
                source,
            })? {
                Line::Limits(found) => limits = Some(found),
                Line::Fault(fault) => faults.push(fault),
                Line::Event(event) => events.push(event),
            }
        }
        Ok(History {
            limits: limits.ok_or(ParseError::NoLimits)?,
            faults,
            events,
        })
    }
}

impl Event {
    /// What it is about.
    pub(crate) fn place(&self) -> (Kind, &str, &str) {
        (self.kind, &self.namespace, &self.key)
    }

    /// Whether it may have changed something.
    pub(crate) fn has_effect(&self) -> bool {
        matches!(self.op, Op::Put | Op::Delete | Op::Purge) && self.outcome != Outcome::Failed
    }
}
