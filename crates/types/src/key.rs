//! Names of entries: which namespace, which dialect's key space, which key text.

use crate::Namespace;

/// Whose key space an entry lives in. Numbers are on disk: never reuse one.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
#[repr(u8)]
pub enum EntryKind {
    /// Records the store keeps for itself (unfinished uploads).
    Internal = 0,
    /// Action results of Bazel HTTP and REAPI; the key is the action digest.
    ActionResult = 1,
    /// ccache objects; the key is the path below `/ccache`.
    Ccache = 2,
}

impl EntryKind {
    /// Every kind, in number order.
    pub const ALL: [EntryKind; 3] = [
        EntryKind::Internal,
        EntryKind::ActionResult,
        EntryKind::Ccache,
    ];

    /// The number on disk.
    pub const fn number(self) -> u8 {
        self as u8
    }

    /// The inverse of [`EntryKind::number`].
    pub fn from_number(number: u8) -> Option<EntryKind> {
        Self::ALL.into_iter().find(|kind| kind.number() == number)
    }

    /// Lower-case name, a closed set: safe as a metric label.
    pub const fn as_str(self) -> &'static str {
        match self {
            EntryKind::Internal => "internal",
            EntryKind::ActionResult => "action_result",
            EntryKind::Ccache => "ccache",
        }
    }
}

/// The name of an entry.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct EntryKey {
    /// The tenant's room.
    pub namespace: Namespace,
    /// The dialect's key space.
    pub kind: EntryKind,
    /// Key text as the dialect parsed it; at most [`EntryKey::MAX_LEN`] bytes.
    pub text: Box<str>,
}

impl EntryKey {
    /// Longest key text in bytes.
    pub const MAX_LEN: usize = 1024;

    /// A key; `None` when the text is empty or too long.
    pub fn new(
        namespace: Namespace,
        kind: EntryKind,
        text: impl Into<Box<str>>,
    ) -> Option<EntryKey> {
        let text = text.into();
        let fits = !text.is_empty() && text.len() <= Self::MAX_LEN;
        fits.then_some(EntryKey {
            namespace,
            kind,
            text,
        })
    }
}
