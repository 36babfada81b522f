//! A promise that was broken, with the call that shows it.

use std::fmt;

use crate::Event;

/// What was promised.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Rule {
    /// Bytes are those of a value of this key.
    WrongBytes,
    /// What was refused is not there.
    Refused,
    /// Nothing is there before somebody put it.
    Early,
    /// What was deleted does not come back.
    Resurrected,
    /// A newer acknowledged value replaces an older one.
    Stale,
    /// An acknowledged entry is there.
    LostEntry,
    /// An acknowledged blob is there.
    LostBlob,
    /// "Missing" is said only of what is missing.
    FalselyMissing,
    /// "Present" is said only of what is there.
    FalselyPresent,
    /// When all is well every call is answered.
    Unreadable,
    /// When all is well all gateways answer alike.
    Disagreement,
    /// The sweep asks for every acknowledged key through every gateway: a mistake of the test.
    Unswept,
    /// No two puts of a key have the same value: a mistake of the test.
    Reused,
}

/// A promise that was broken.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Violation {
    /// Which.
    pub rule: Rule,
    /// The call that shows it.
    pub event: Event,
    /// The call that it contradicts.
    pub because: Option<Event>,
}

impl Violation {
    pub(crate) fn new(rule: Rule, event: &Event, because: Option<Event>) -> Violation {
        Violation {
            rule,
            event: event.clone(),
            because,
        }
    }
}

impl fmt::Display for Violation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?}: ", self.rule)?;
        line(&self.event, f)?;
        match &self.because {
            Some(because) => {
                f.write_str(" after ")?;
                line(because, f)
            }
            None => Ok(()),
        }
    }
}

/// A call in one line.
fn line(event: &Event, f: &mut fmt::Formatter<'_>) -> fmt::Result {
    write!(
        f,
        "client {} through gateway {}: {:?} {:?} {}/{} = {} -> {:?} in {}..{} us",
        event.client,
        event.gateway,
        event.op,
        event.kind,
        event.namespace,
        event.key,
        event.value.as_deref().unwrap_or("-"),
        event.outcome,
        event.invoked,
        event.completed,
    )?;
    if event.sweep {
        f.write_str(" (sweep)")?;
    }
    Ok(())
}
