//! `build.bazel.remote.execution.v2`: what a cache speaks with Bazel and its kin.
//!
//! The types are generated; here is what a description in `.proto` cannot say. Byte fields share the decoded buffer.
//! Reserved and unknown fields are skipped when reading. What an action result is made of has a form in JSON, too: the
//! rules are in [`json`](crate::json).

pub use crate::generated::reapi::*;

impl ActionResult {
    /// The numbers of its fields.
    pub const FIELDS: std::ops::RangeInclusive<u32> = 2..=12;
}

#[cfg(test)]
mod tests {
    use prost::{Message, bytes::Bytes};

    use super::*;
    use crate::{Any, Timestamp};

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
                    value: b"v".to_vec(),
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
                    unix_mode: Some(7),
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
