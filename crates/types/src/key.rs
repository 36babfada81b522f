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
    /// Gradle's build cache; the key is Gradle's.
    Gradle = 3,
    /// Maven's build cache extension; the key is the path below `/maven`.
    Maven = 4,
    /// Nx's remote cache; the key is Nx's task hash.
    Nx = 5,
    /// Turborepo's artifacts; the key is the task hash.
    Turborepo = 6,
    /// Files of WebDAV clients (sccache); the key is the path below `/webdav`.
    WebDav = 7,
    /// GitHub Actions cache entries; the key is the version and the key.
    ActionsCache = 8,
    /// Pieces of GitHub Actions cache entries that are not finished; the key is the upload and the piece.
    ActionsBlock = 9,
    /// Builder's artifacts; the key is Builder's.
    Builder = 10,
    /// Polykit's artifacts; the key is Polykit's.
    Polykit = 11,
    /// Metro's artifacts, as Plasma serves them; the key is hex.
    Metro = 12,
    /// What is known under a URI (Remote Asset API); the key is a hash of the URI and what was said of it.
    Asset = 13,
    /// Into which chunks blobs are cut; the key is the blob and the chunking function.
    Chunks = 14,
}

impl EntryKind {
    /// Every kind, in number order.
    pub const ALL: [EntryKind; 15] = [
        EntryKind::Internal,
        EntryKind::ActionResult,
        EntryKind::Ccache,
        EntryKind::Gradle,
        EntryKind::Maven,
        EntryKind::Nx,
        EntryKind::Turborepo,
        EntryKind::WebDav,
        EntryKind::ActionsCache,
        EntryKind::ActionsBlock,
        EntryKind::Builder,
        EntryKind::Polykit,
        EntryKind::Metro,
        EntryKind::Asset,
        EntryKind::Chunks,
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
            EntryKind::Gradle => "gradle",
            EntryKind::Maven => "maven",
            EntryKind::Nx => "nx",
            EntryKind::Turborepo => "turborepo",
            EntryKind::WebDav => "webdav",
            EntryKind::ActionsCache => "actions_cache",
            EntryKind::ActionsBlock => "actions_block",
            EntryKind::Builder => "builder",
            EntryKind::Polykit => "polykit",
            EntryKind::Metro => "metro",
            EntryKind::Asset => "asset",
            EntryKind::Chunks => "chunks",
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
