//! Bugs that can be switched on, one at a time, to see that they are found.
//!
//! They sit around the product's parts, never in them: `saboteur` around nodes and the ways to them, `disk` around the
//! store, the rest where rings are published and followed.

/// A bug.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Bug {
    /// A disk acknowledges what it has not synced.
    AcksBeforeSync,
    /// Hints are not kept at all.
    DropsHints,
    /// Hints are settled before they are delivered.
    SettlesUndelivered,
    /// A node says that it fetched what it did not.
    FetchesNothing,
    /// A node says that it deleted a blob, and did not.
    DeletesNothing,
    /// A node says that every blob is present.
    FindsEverything,
    /// A node says that it owes nothing to one that has a new disk.
    OwesNothing,
    /// A purge forgets blobs only.
    PurgesBlobsOnly,
    /// A node answers with the value of another key.
    ServesAnotherValue,
    /// A node sends half a value and says that it is all.
    CutsBodies,
    /// A node sends a value with a wrong byte.
    FlipsBits,
    /// A node acknowledges what it did not keep.
    KeepsNothing,
    /// An older version of an entry replaces a newer one.
    OlderReplacesNewer,
    /// A deletion leaves nothing that stands against older copies.
    ForgetsDeletions,
    /// What is pinned for its hint is evicted.
    EvictsPinned,
    /// What is leased is evicted.
    EvictsLeased,
    /// The previous placement is closed before anybody has handed over.
    ClosesPreviousEarly,
    /// A gateway goes on with the first ring.
    FollowsStaleRing,
    /// A gateway gives versions by its clock, whatever nodes hold.
    VersionsByWallClock,
    /// A gateway takes silence for "absent".
    TakesSilenceForAbsence,
    /// A gateway counts a copy that it never sent.
    CountsUnsentCopies,
}

impl Bug {
    /// All of them.
    pub const ALL: [Bug; 21] = [
        Bug::AcksBeforeSync,
        Bug::DropsHints,
        Bug::SettlesUndelivered,
        Bug::FetchesNothing,
        Bug::DeletesNothing,
        Bug::FindsEverything,
        Bug::OwesNothing,
        Bug::PurgesBlobsOnly,
        Bug::ServesAnotherValue,
        Bug::CutsBodies,
        Bug::FlipsBits,
        Bug::KeepsNothing,
        Bug::OlderReplacesNewer,
        Bug::ForgetsDeletions,
        Bug::EvictsPinned,
        Bug::EvictsLeased,
        Bug::ClosesPreviousEarly,
        Bug::FollowsStaleRing,
        Bug::VersionsByWallClock,
        Bug::TakesSilenceForAbsence,
        Bug::CountsUnsentCopies,
    ];

    /// The bug of this name.
    pub fn named(name: &str) -> Option<Bug> {
        Bug::ALL.into_iter().find(|bug| format!("{bug:?}") == name)
    }
}
