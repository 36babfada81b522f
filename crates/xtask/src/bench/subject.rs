//! Who is measured, and what each of them means by "stored".

use clap::ValueEnum;
use serde::{Deserialize, Serialize};

/// Someone who is measured.
#[derive(
    Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, ValueEnum,
)]
#[serde(rename_all = "kebab-case")]
pub(super) enum Subject {
    /// Our server.
    Zimcache,
    /// bazel-remote, the peer most alike.
    BazelRemote,
    /// nginx: a file server that checks nothing.
    Nginx,
    /// bb-storage of Buildbarn, which syncs every five minutes.
    BbStorage,
    /// bb-storage of Buildbarn, which syncs every second.
    BbStorageSecond,
    /// NativeLink.
    NativeLink,
    /// Our gateways and nodes.
    Cluster,
    /// The S3 server behind them, asked directly.
    S3,
    /// The same, asked by as many readers at once as the cluster is.
    S3Crowd,
    /// Our store, called directly.
    Store,
    /// One file per blob, called directly.
    FilePerBlob,
    /// A server that only answers, to find the generator's own limit.
    NullServer,
    /// Our load generator.
    Generator,
    /// The load generator wrk, as a check of ours.
    Wrk,
}

impl Subject {
    /// Its name for people.
    pub(super) const fn name(self) -> &'static str {
        match self {
            Subject::Zimcache => "ZimCache",
            Subject::BazelRemote => "bazel-remote",
            Subject::Nginx => "nginx",
            Subject::BbStorage => "bb-storage",
            Subject::BbStorageSecond => "bb-storage, epoch 1 s",
            Subject::NativeLink => "NativeLink",
            Subject::Cluster => "ZimCache cluster",
            Subject::S3 => "S3 directly",
            Subject::S3Crowd => "S3 directly, as many readers",
            Subject::Store => "ZimCache's store",
            Subject::FilePerBlob => "file per blob",
            Subject::NullServer => "null server",
            Subject::Generator => "our generator",
            Subject::Wrk => "wrk",
        }
    }

    /// Whether rows are measured without it where its program is missing.
    pub(super) const fn is_optional(self) -> bool {
        matches!(
            self,
            Subject::BbStorage | Subject::BbStorageSecond | Subject::NativeLink
        )
    }

    /// What has happened when it says that an upload succeeded.
    pub(super) const fn acknowledgement(self) -> &'static str {
        match self {
            Subject::Zimcache | Subject::Store => {
                "SHA-256 verified, data and record synced to disk (fdatasync)"
            }
            Subject::Cluster => {
                "the same on two of three nodes (`quorum`, the default); a copy in S3 follows"
            }
            Subject::BazelRemote => "SHA-256 verified, file synced, its folder not",
            Subject::Nginx => "nothing verified, nothing synced",
            Subject::BbStorage => {
                "digest verified; synced within its epoch of 300 s: what came last may be lost"
            }
            Subject::BbStorageSecond => {
                "digest verified; synced within its epoch of 1 s: what came last may be lost"
            }
            Subject::NativeLink => "digest verified, file synced, its folder not",
            Subject::FilePerBlob => {
                "SHA-256 verified; file synced (fdatasync), renamed, folder synced"
            }
            Subject::S3
            | Subject::S3Crowd
            | Subject::NullServer
            | Subject::Generator
            | Subject::Wrk => "not a cache",
        }
    }

    /// What a read checks.
    pub(super) const fn read_check(self) -> &'static str {
        match self {
            Subject::Zimcache | Subject::Cluster | Subject::Store => {
                "checksum of every 64 KiB and the whole key"
            }
            Subject::BbStorage | Subject::BbStorageSecond => "the digest",
            Subject::BazelRemote | Subject::Nginx | Subject::NativeLink | Subject::FilePerBlob => {
                "nothing"
            }
            Subject::S3
            | Subject::S3Crowd
            | Subject::NullServer
            | Subject::Generator
            | Subject::Wrk => "not a cache",
        }
    }
}
