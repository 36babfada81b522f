//! `build.bazel.remote.execution.v2`: digests, action results, directories.
//!
//! Byte fields share the decoded buffer where prost can. Reserved and unknown fields are skipped when reading. What an
//! action result is made of has a form in JSON, too: the rules are in [`json`].

use prost::bytes::Bytes;
use serde::{Deserialize, Serialize};

use crate::json::{self, nullable, unset};

/// The name of a blob: lower-case hex of the hash, and the size.
#[derive(Clone, PartialEq, Eq, Hash, prost::Message, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default, deny_unknown_fields)]
pub struct Digest {
    /// Lower-case hex.
    #[prost(string, tag = "1")]
    #[serde(deserialize_with = "nullable", skip_serializing_if = "unset")]
    pub hash: String,
    /// Size in bytes.
    #[prost(int64, tag = "2")]
    #[serde(
        alias = "size_bytes",
        with = "json::int64",
        skip_serializing_if = "unset"
    )]
    pub size_bytes: i64,
}

/// What an action left behind.
#[derive(Clone, PartialEq, prost::Message)]
pub struct ActionResult {
    /// Files written.
    #[prost(message, repeated, tag = "2")]
    pub output_files: Vec<OutputFile>,
    /// Symbolic links to files (older clients).
    #[prost(message, repeated, tag = "10")]
    pub output_file_symlinks: Vec<OutputSymlink>,
    /// Symbolic links.
    #[prost(message, repeated, tag = "12")]
    pub output_symlinks: Vec<OutputSymlink>,
    /// Directories written.
    #[prost(message, repeated, tag = "3")]
    pub output_directories: Vec<OutputDirectory>,
    /// Symbolic links to directories (older clients).
    #[prost(message, repeated, tag = "11")]
    pub output_directory_symlinks: Vec<OutputSymlink>,
    /// Exit code.
    #[prost(int32, tag = "4")]
    pub exit_code: i32,
    /// Standard output, inline.
    #[prost(bytes = "bytes", tag = "5")]
    pub stdout_raw: Bytes,
    /// Standard output, as a blob.
    #[prost(message, optional, tag = "6")]
    pub stdout_digest: Option<Digest>,
    /// Standard error, inline.
    #[prost(bytes = "bytes", tag = "7")]
    pub stderr_raw: Bytes,
    /// Standard error, as a blob.
    #[prost(message, optional, tag = "8")]
    pub stderr_digest: Option<Digest>,
    /// How and where it ran.
    #[prost(message, optional, tag = "9")]
    pub execution_metadata: Option<ExecutedActionMetadata>,
}

impl ActionResult {
    /// The field numbers above.
    pub const FIELDS: std::ops::RangeInclusive<u32> = 2..=12;
}

/// A file that an action wrote.
#[derive(Clone, PartialEq, prost::Message, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default, deny_unknown_fields)]
pub struct OutputFile {
    /// Path below the working directory.
    #[prost(string, tag = "1")]
    #[serde(deserialize_with = "nullable", skip_serializing_if = "unset")]
    pub path: String,
    /// The content.
    #[prost(message, optional, tag = "2")]
    #[serde(skip_serializing_if = "unset")]
    pub digest: Option<Digest>,
    /// Whether it may be executed.
    #[prost(bool, tag = "4")]
    #[serde(
        alias = "is_executable",
        deserialize_with = "nullable",
        skip_serializing_if = "unset"
    )]
    pub is_executable: bool,
    /// The content, inline.
    #[prost(bytes = "bytes", tag = "5")]
    #[serde(with = "json::base64", skip_serializing_if = "unset")]
    pub contents: Bytes,
    /// Further properties.
    #[prost(message, optional, tag = "7")]
    #[serde(alias = "node_properties", skip_serializing_if = "unset")]
    pub node_properties: Option<NodeProperties>,
}

/// A directory that an action wrote.
#[derive(Clone, PartialEq, Eq, Hash, prost::Message, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default, deny_unknown_fields)]
pub struct OutputDirectory {
    /// Path below the working directory; empty names the working directory itself.
    #[prost(string, tag = "1")]
    #[serde(deserialize_with = "nullable", skip_serializing_if = "unset")]
    pub path: String,
    /// The encoded [`Tree`].
    #[prost(message, optional, tag = "3")]
    #[serde(alias = "tree_digest", skip_serializing_if = "unset")]
    pub tree_digest: Option<Digest>,
    /// Whether the tree's children come parents first.
    #[prost(bool, tag = "4")]
    #[serde(
        alias = "is_topologically_sorted",
        deserialize_with = "nullable",
        skip_serializing_if = "unset"
    )]
    pub is_topologically_sorted: bool,
    /// The encoded [`Directory`] at the root.
    #[prost(message, optional, tag = "5")]
    #[serde(alias = "root_directory_digest", skip_serializing_if = "unset")]
    pub root_directory_digest: Option<Digest>,
}

/// A symbolic link that an action wrote.
#[derive(Clone, PartialEq, prost::Message, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default, deny_unknown_fields)]
pub struct OutputSymlink {
    /// Path below the working directory.
    #[prost(string, tag = "1")]
    #[serde(deserialize_with = "nullable", skip_serializing_if = "unset")]
    pub path: String,
    /// Where it points.
    #[prost(string, tag = "2")]
    #[serde(deserialize_with = "nullable", skip_serializing_if = "unset")]
    pub target: String,
    /// Further properties.
    #[prost(message, optional, tag = "4")]
    #[serde(alias = "node_properties", skip_serializing_if = "unset")]
    pub node_properties: Option<NodeProperties>,
}

/// A whole directory tree in one message.
#[derive(Clone, PartialEq, prost::Message)]
pub struct Tree {
    /// The root directory.
    #[prost(message, optional, tag = "1")]
    pub root: Option<Directory>,
    /// Every other directory, in any order.
    #[prost(message, repeated, tag = "2")]
    pub children: Vec<Directory>,
}

/// One directory.
#[derive(Clone, PartialEq, prost::Message)]
pub struct Directory {
    /// Files.
    #[prost(message, repeated, tag = "1")]
    pub files: Vec<FileNode>,
    /// Directories.
    #[prost(message, repeated, tag = "2")]
    pub directories: Vec<DirectoryNode>,
    /// Symbolic links.
    #[prost(message, repeated, tag = "3")]
    pub symlinks: Vec<SymlinkNode>,
    /// Further properties.
    #[prost(message, optional, tag = "5")]
    pub node_properties: Option<NodeProperties>,
}

/// A file in a directory.
#[derive(Clone, PartialEq, prost::Message)]
pub struct FileNode {
    /// One path segment.
    #[prost(string, tag = "1")]
    pub name: String,
    /// The content.
    #[prost(message, optional, tag = "2")]
    pub digest: Option<Digest>,
    /// Whether it may be executed.
    #[prost(bool, tag = "4")]
    pub is_executable: bool,
    /// Further properties.
    #[prost(message, optional, tag = "6")]
    pub node_properties: Option<NodeProperties>,
}

/// A directory in a directory.
#[derive(Clone, PartialEq, Eq, Hash, prost::Message)]
pub struct DirectoryNode {
    /// One path segment.
    #[prost(string, tag = "1")]
    pub name: String,
    /// The encoded [`Directory`].
    #[prost(message, optional, tag = "2")]
    pub digest: Option<Digest>,
}

/// A symbolic link in a directory.
#[derive(Clone, PartialEq, prost::Message)]
pub struct SymlinkNode {
    /// One path segment.
    #[prost(string, tag = "1")]
    pub name: String,
    /// Where it points.
    #[prost(string, tag = "2")]
    pub target: String,
    /// Further properties.
    #[prost(message, optional, tag = "4")]
    pub node_properties: Option<NodeProperties>,
}

/// Properties beyond name and content.
#[derive(Clone, PartialEq, prost::Message, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default, deny_unknown_fields)]
pub struct NodeProperties {
    /// Free pairs.
    #[prost(message, repeated, tag = "1")]
    #[serde(deserialize_with = "nullable", skip_serializing_if = "unset")]
    pub properties: Vec<NodeProperty>,
    /// Time of the last change.
    #[prost(message, optional, tag = "2")]
    #[serde(skip_serializing_if = "unset")]
    pub mtime: Option<Timestamp>,
    /// Permission bits.
    #[prost(message, optional, tag = "3")]
    #[serde(alias = "unix_mode", skip_serializing_if = "unset")]
    pub unix_mode: Option<UInt32Value>,
}

/// One free pair.
#[derive(Clone, PartialEq, Eq, Hash, prost::Message, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default, deny_unknown_fields)]
pub struct NodeProperty {
    /// Name.
    #[prost(string, tag = "1")]
    #[serde(deserialize_with = "nullable", skip_serializing_if = "unset")]
    pub name: String,
    /// Value.
    #[prost(string, tag = "2")]
    #[serde(deserialize_with = "nullable", skip_serializing_if = "unset")]
    pub value: String,
}

/// How and where an action ran.
#[derive(Clone, PartialEq, prost::Message, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default, deny_unknown_fields)]
pub struct ExecutedActionMetadata {
    /// Who ran it.
    #[prost(string, tag = "1")]
    #[serde(deserialize_with = "nullable", skip_serializing_if = "unset")]
    pub worker: String,
    /// When it was queued.
    #[prost(message, optional, tag = "2")]
    #[serde(alias = "queued_timestamp", skip_serializing_if = "unset")]
    pub queued_timestamp: Option<Timestamp>,
    /// When the worker took it.
    #[prost(message, optional, tag = "3")]
    #[serde(alias = "worker_start_timestamp", skip_serializing_if = "unset")]
    pub worker_start_timestamp: Option<Timestamp>,
    /// When the worker was done, uploads included.
    #[prost(message, optional, tag = "4")]
    #[serde(alias = "worker_completed_timestamp", skip_serializing_if = "unset")]
    pub worker_completed_timestamp: Option<Timestamp>,
    /// When the worker began to fetch inputs.
    #[prost(message, optional, tag = "5")]
    #[serde(alias = "input_fetch_start_timestamp", skip_serializing_if = "unset")]
    pub input_fetch_start_timestamp: Option<Timestamp>,
    /// When it had them.
    #[prost(message, optional, tag = "6")]
    #[serde(
        alias = "input_fetch_completed_timestamp",
        skip_serializing_if = "unset"
    )]
    pub input_fetch_completed_timestamp: Option<Timestamp>,
    /// When the command started.
    #[prost(message, optional, tag = "7")]
    #[serde(alias = "execution_start_timestamp", skip_serializing_if = "unset")]
    pub execution_start_timestamp: Option<Timestamp>,
    /// When it ended.
    #[prost(message, optional, tag = "8")]
    #[serde(alias = "execution_completed_timestamp", skip_serializing_if = "unset")]
    pub execution_completed_timestamp: Option<Timestamp>,
    /// When the upload of outputs began.
    #[prost(message, optional, tag = "9")]
    #[serde(alias = "output_upload_start_timestamp", skip_serializing_if = "unset")]
    pub output_upload_start_timestamp: Option<Timestamp>,
    /// When it was done.
    #[prost(message, optional, tag = "10")]
    #[serde(
        alias = "output_upload_completed_timestamp",
        skip_serializing_if = "unset"
    )]
    pub output_upload_completed_timestamp: Option<Timestamp>,
    /// What clients keep for themselves.
    #[prost(message, repeated, tag = "11")]
    #[serde(
        alias = "auxiliary_metadata",
        deserialize_with = "nullable",
        skip_serializing_if = "unset"
    )]
    pub auxiliary_metadata: Vec<Any>,
    /// Time the command took in the worker's own measure.
    #[prost(message, optional, tag = "12")]
    #[serde(alias = "virtual_execution_duration", skip_serializing_if = "unset")]
    pub virtual_execution_duration: Option<Duration>,
}

/// `google.protobuf.Timestamp`.
#[derive(Clone, Copy, PartialEq, Eq, Hash, prost::Message)]
pub struct Timestamp {
    /// Seconds since the Unix epoch.
    #[prost(int64, tag = "1")]
    pub seconds: i64,
    /// Nanoseconds, 0 to 999 999 999.
    #[prost(int32, tag = "2")]
    pub nanos: i32,
}

/// `google.protobuf.Duration`.
#[derive(Clone, Copy, PartialEq, Eq, Hash, prost::Message)]
pub struct Duration {
    /// Seconds.
    #[prost(int64, tag = "1")]
    pub seconds: i64,
    /// Nanoseconds, of the same sign.
    #[prost(int32, tag = "2")]
    pub nanos: i32,
}

/// `google.protobuf.Any`.
#[derive(Clone, PartialEq, Eq, Hash, prost::Message, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default, deny_unknown_fields)]
pub struct Any {
    /// What the bytes are.
    #[prost(string, tag = "1")]
    #[serde(
        alias = "type_url",
        alias = "@type",
        deserialize_with = "nullable",
        skip_serializing_if = "unset"
    )]
    pub type_url: String,
    /// The bytes.
    #[prost(bytes = "bytes", tag = "2")]
    #[serde(with = "json::base64", skip_serializing_if = "unset")]
    pub value: Bytes,
}

/// `google.protobuf.UInt32Value`.
#[derive(Clone, Copy, PartialEq, Eq, Hash, prost::Message)]
pub struct UInt32Value {
    /// The number.
    #[prost(uint32, tag = "1")]
    pub value: u32,
}

#[cfg(test)]
mod tests {
    use prost::Message;

    use super::*;

    #[test]
    fn an_action_result_has_exactly_these_bytes() {
        let result = ActionResult {
            output_files: vec![OutputFile {
                path: "a".into(),
                digest: Some(Digest {
                    hash: "b".into(),
                    size_bytes: 3,
                }),
                is_executable: true,
                contents: Bytes::from_static(b"c"),
                node_properties: None,
            }],
            output_directories: vec![OutputDirectory {
                path: "d".into(),
                tree_digest: Some(Digest::default()),
                is_topologically_sorted: true,
                root_directory_digest: Some(Digest::default()),
            }],
            output_symlinks: vec![OutputSymlink {
                path: "e".into(),
                target: "f".into(),
                node_properties: Some(NodeProperties::default()),
            }],
            exit_code: 1,
            stdout_raw: Bytes::from_static(b"o"),
            stdout_digest: Some(Digest::default()),
            stderr_raw: Bytes::from_static(b"e"),
            stderr_digest: Some(Digest::default()),
            execution_metadata: Some(ExecutedActionMetadata {
                worker: "w".into(),
                auxiliary_metadata: vec![Any {
                    type_url: "t".into(),
                    value: Bytes::from_static(b"v"),
                }],
                ..ExecutedActionMetadata::default()
            }),
            ..ActionResult::default()
        };
        let file = b"\x12\x0f\x0a\x01a\x12\x05\x0a\x01b\x10\x03\x20\x01\x2a\x01c";
        let link = b"\x62\x08\x0a\x01e\x12\x01f\x22\x00";
        let directory = b"\x1a\x09\x0a\x01d\x1a\x00\x20\x01\x2a\x00";
        let streams = b"\x20\x01\x2a\x01o\x32\x00\x3a\x01e\x42\x00";
        let metadata = b"\x4a\x0b\x0a\x01w\x5a\x06\x0a\x01t\x12\x01v";
        let mut sorted: Vec<_> = crate::wire::fields(&result.encode_to_vec().into())
            .map(Result::unwrap)
            .collect();
        let expected = [&file[..], directory, streams, metadata, link].concat();
        let by_number: Vec<_> = crate::wire::fields(&expected.clone().into())
            .map(Result::unwrap)
            .collect();
        sorted.sort_by_key(|(number, _)| *number);
        assert_eq!(sorted, by_number);
        assert_eq!(ActionResult::decode(&expected[..]), Ok(result));
    }

    #[test]
    fn a_tree_has_exactly_these_bytes() {
        let directory = Directory {
            files: vec![FileNode {
                name: "f".into(),
                digest: Some(Digest::default()),
                is_executable: true,
                node_properties: Some(NodeProperties {
                    properties: vec![],
                    mtime: Some(Timestamp {
                        seconds: 1,
                        nanos: 2,
                    }),
                    unix_mode: Some(UInt32Value { value: 7 }),
                }),
            }],
            directories: vec![DirectoryNode {
                name: "d".into(),
                digest: Some(Digest::default()),
            }],
            symlinks: vec![SymlinkNode {
                name: "s".into(),
                target: "t".into(),
                node_properties: None,
            }],
            node_properties: None,
        };
        let file =
            b"\x0a\x13\x0a\x01f\x12\x00\x20\x01\x32\x0a\x12\x04\x08\x01\x10\x02\x1a\x02\x08\x07";
        let encoded = [
            &file[..],
            b"\x12\x05\x0a\x01d\x12\x00",
            b"\x1a\x06\x0a\x01s\x12\x01t",
        ]
        .concat();
        assert_eq!(directory.encode_to_vec(), encoded);
        let tree = Tree {
            root: Some(Directory::default()),
            children: vec![directory],
        };
        let expected = [&b"\x0a\x00\x12"[..], &[encoded.len() as u8], &encoded].concat();
        assert_eq!(tree.encode_to_vec(), expected);
    }
}
