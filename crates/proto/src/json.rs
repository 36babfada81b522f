//! Action results as JSON, by the rules for protocol buffers in JSON (<https://protobuf.dev/programming-guides/json/>).
//!
//! Names in lowerCamelCase (read also as they stand in the specification), 64-bit numbers as text, fields of their
//! default value left out, bytes in base64 of either alphabet. `google.protobuf.Any` is written as its two fields,
//! because its content cannot be known here. JSON with a field that we do not know is refused, because it would be
//! lost; a field of the binary form that we do not know has no name, and is left out.
//!
//! Both ways one output at a time is in memory beside the two texts; the messages an action result is made of are read
//! and written by attributes that `cargo xtask gen` gives them. Not here: whether a result is acceptable.

pub(crate) mod form;

use std::fmt;

use base64::{Engine as _, engine::general_purpose};
use prost::{
    DecodeError, Message,
    bytes::{Bytes, BytesMut},
    encoding,
};
use serde::{
    Deserialize, Deserializer, Serialize,
    de::{self, DeserializeSeed, MapAccess, SeqAccess, Visitor},
};

use self::form::{Base64, Number};
use crate::{
    reapi::{
        ActionResult, Digest, ExecutedActionMetadata, OutputDirectory, OutputFile, OutputSymlink,
    },
    wire::{Field, Malformed, fields},
};

/// The JSON is no action result.
pub use serde_json::Error as ReadError;

/// A binary action result cannot be written as JSON.
#[derive(Debug)]
pub struct WriteError;

impl fmt::Display for WriteError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("the action result has no form in JSON")
    }
}

impl std::error::Error for WriteError {}

impl From<Malformed> for WriteError {
    fn from(_: Malformed) -> WriteError {
        WriteError
    }
}

impl From<DecodeError> for WriteError {
    fn from(_: DecodeError) -> WriteError {
        WriteError
    }
}

impl From<serde_json::Error> for WriteError {
    fn from(_: serde_json::Error) -> WriteError {
        WriteError
    }
}

/// Makes the binary form of an action result in JSON.
///
/// # Errors
/// When the text is no JSON, or JSON of something else.
pub fn read_action_result(json: &[u8]) -> Result<Bytes, ReadError> {
    let mut reader = serde_json::Deserializer::from_slice(json);
    let encoded = reader.deserialize_map(ActionResultVisitor)?;
    reader.end()?;
    Ok(encoded)
}

/// Makes JSON of an encoded action result.
///
/// # Errors
/// When it does not decode, or has a time that cannot be written.
pub fn write_action_result(encoded: &Bytes) -> Result<Vec<u8>, WriteError> {
    let mut single = ActionResult::default();
    for field in fields(encoded) {
        match field? {
            (4, Field::Number(code)) => single.exit_code = code as i32,
            (5, Field::Bytes(raw)) => single.stdout_raw = raw,
            (6, Field::Bytes(digest)) => merge(&mut single.stdout_digest, digest)?,
            (7, Field::Bytes(raw)) => single.stderr_raw = raw,
            (8, Field::Bytes(digest)) => merge(&mut single.stderr_digest, digest)?,
            (9, Field::Bytes(metadata)) => merge(&mut single.execution_metadata, metadata)?,
            _ => {}
        }
    }
    let mut object = Object(vec![b'{']);
    object.each::<OutputFile>("outputFiles", encoded, 2)?;
    object.each::<OutputSymlink>("outputFileSymlinks", encoded, 10)?;
    object.each::<OutputSymlink>("outputSymlinks", encoded, 12)?;
    object.each::<OutputDirectory>("outputDirectories", encoded, 3)?;
    object.each::<OutputSymlink>("outputDirectorySymlinks", encoded, 11)?;
    if single.exit_code != 0 {
        object.field("exitCode", &single.exit_code)?;
    }
    object.raw("stdoutRaw", &single.stdout_raw)?;
    object.some("stdoutDigest", single.stdout_digest.as_ref())?;
    object.raw("stderrRaw", &single.stderr_raw)?;
    object.some("stderrDigest", single.stderr_digest.as_ref())?;
    object.some("executionMetadata", single.execution_metadata.as_ref())?;
    object.0.push(b'}');
    Ok(object.0)
}

/// A message that comes in pieces is their sum.
fn merge<M: Message + Default>(into: &mut Option<M>, piece: Bytes) -> Result<(), DecodeError> {
    into.get_or_insert_default().merge(piece)
}

/// An object being written.
struct Object(Vec<u8>);

impl Object {
    fn name(&mut self, name: &str) -> Result<(), WriteError> {
        if self.0.len() > 1 {
            self.0.push(b',');
        }
        serde_json::to_writer(&mut self.0, name)?;
        self.0.push(b':');
        Ok(())
    }

    fn field(&mut self, name: &str, value: &impl Serialize) -> Result<(), WriteError> {
        self.name(name)?;
        Ok(serde_json::to_writer(&mut self.0, value)?)
    }

    fn some(&mut self, name: &str, value: Option<&impl Serialize>) -> Result<(), WriteError> {
        value.map_or(Ok(()), |value| self.field(name, value))
    }

    fn raw(&mut self, name: &str, value: &Bytes) -> Result<(), WriteError> {
        if value.is_empty() {
            return Ok(());
        }
        self.field(name, &general_purpose::STANDARD.encode(value))
    }

    /// Every message with this field number.
    fn each<M>(&mut self, name: &str, encoded: &Bytes, number: u32) -> Result<(), WriteError>
    where
        M: Message + Default + Serialize,
    {
        let mut first = true;
        for field in fields(encoded) {
            let (number_of_field, Field::Bytes(message)) = field? else {
                continue;
            };
            if number_of_field != number {
                continue;
            }
            if first {
                self.name(name)?;
            }
            self.0.push(if first { b'[' } else { b',' });
            first = false;
            serde_json::to_writer(&mut self.0, &M::decode(message)?)?;
        }
        if !first {
            self.0.push(b']');
        }
        Ok(())
    }
}

/// Encodes an action result field by field as it is read.
struct ActionResultVisitor;

impl<'de> Visitor<'de> for ActionResultVisitor {
    type Value = Bytes;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an action result")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Bytes, A::Error> {
        let mut out = BytesMut::new();
        let mut single = ActionResult::default();
        while let Some(name) = map.next_key::<String>()? {
            let out = &mut out;
            match &*name {
                "outputFiles" | "output_files" => {
                    map.next_value_seed(Each::<OutputFile>::new(2, out))?;
                }
                "outputFileSymlinks" | "output_file_symlinks" => {
                    map.next_value_seed(Each::<OutputSymlink>::new(10, out))?;
                }
                "outputSymlinks" | "output_symlinks" => {
                    map.next_value_seed(Each::<OutputSymlink>::new(12, out))?;
                }
                "outputDirectories" | "output_directories" => {
                    map.next_value_seed(Each::<OutputDirectory>::new(3, out))?;
                }
                "outputDirectorySymlinks" | "output_directory_symlinks" => {
                    map.next_value_seed(Each::<OutputSymlink>::new(11, out))?;
                }
                _ => read_single(&name, &mut map, &mut single)?,
            }
        }
        single.encode(&mut out).map_err(de::Error::custom)?;
        Ok(out.freeze())
    }
}

/// Reads a field that comes once.
fn read_single<'de, A: MapAccess<'de>>(
    name: &str,
    map: &mut A,
    into: &mut ActionResult,
) -> Result<(), A::Error> {
    match name {
        "exitCode" | "exit_code" => into.exit_code = map.next_value::<Number<i32>>()?.0,
        "stdoutRaw" | "stdout_raw" => into.stdout_raw = map.next_value::<Base64>()?.0,
        "stdoutDigest" | "stdout_digest" => {
            into.stdout_digest = map.next_value::<Option<Digest>>()?;
        }
        "stderrRaw" | "stderr_raw" => into.stderr_raw = map.next_value::<Base64>()?.0,
        "stderrDigest" | "stderr_digest" => {
            into.stderr_digest = map.next_value::<Option<Digest>>()?;
        }
        "executionMetadata" | "execution_metadata" => {
            into.execution_metadata = map.next_value::<Option<ExecutedActionMetadata>>()?;
        }
        _ => return Err(de::Error::custom(format_args!("unknown field `{name}`"))),
    }
    Ok(())
}

/// Encodes the messages of a list as they are read.
struct Each<'a, M> {
    number: u32,
    out: &'a mut BytesMut,
    message: std::marker::PhantomData<M>,
}

impl<'a, M> Each<'a, M> {
    fn new(number: u32, out: &'a mut BytesMut) -> Each<'a, M> {
        let message = std::marker::PhantomData;
        Each {
            number,
            out,
            message,
        }
    }
}

impl<'de, M: Message + Deserialize<'de>> DeserializeSeed<'de> for Each<'_, M> {
    type Value = ();

    fn deserialize<D: Deserializer<'de>>(self, from: D) -> Result<(), D::Error> {
        from.deserialize_any(self)
    }
}

impl<'de, M: Message + Deserialize<'de>> Visitor<'de> for Each<'_, M> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a list")
    }

    fn visit_unit<E>(self) -> Result<(), E> {
        Ok(())
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<(), A::Error> {
        while let Some(message) = list.next_element::<M>()? {
            encoding::message::encode(self.number, &message, self.out);
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use proptest::{collection::vec, option, prelude::*};

    use super::*;
    use crate::{
        Any, Duration, Timestamp,
        reapi::{NodeProperties, NodeProperty},
    };

    const EMPTY: &str = "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855";

    fn read(json: &str) -> ActionResult {
        ActionResult::decode(read_action_result(json.as_bytes()).unwrap()).unwrap()
    }

    fn write(result: &ActionResult) -> String {
        let json = write_action_result(&result.encode_to_vec().into()).unwrap();
        String::from_utf8(json).unwrap()
    }

    #[test]
    fn what_moon_sends_comes_back_as_it_was() {
        let json = format!(
            r#"{{"outputFiles":[{{"path":"dist/empty","digest":{{"hash":"{EMPTY}"}},"nodeProperties":{{"mtime":"2026-11-21T02:42:38.844974723+00:00","unixMode":33188}}}}],"stdoutDigest":{{"hash":"{EMPTY}","sizeBytes":"13"}},"executionMetadata":{{"worker":"moon","outputUploadStartTimestamp":"2026-11-21T02:42:38.854775970+00:00"}}}}"#
        );
        let result = read(&json);
        assert_eq!(result.output_files[0].path, "dist/empty");
        let properties = result.output_files[0].node_properties.clone().unwrap();
        assert_eq!(properties.unix_mode, Some(33188));
        assert_eq!(result.stdout_digest.as_ref().unwrap().size_bytes, 13);
        assert_eq!(write(&result), json);
    }

    #[test]
    fn defaults_are_left_out_and_an_empty_message_is_not() {
        let mut result = ActionResult::default();
        assert_eq!(write(&result), "{}");
        result.execution_metadata = Some(ExecutedActionMetadata::default());
        result.output_symlinks = vec![OutputSymlink::default()];
        let json = r#"{"outputSymlinks":[{}],"executionMetadata":{}}"#;
        assert_eq!(write(&result), json);
        assert_eq!(read(json), result);
    }

    #[test]
    fn other_ways_to_write_the_same_are_read() {
        let expected = ActionResult {
            exit_code: -3,
            stdout_raw: Bytes::from_static(b"\xfb\xff\xfe"),
            stderr_digest: Some(Digest {
                hash: "ab".into(),
                size_bytes: 7,
            }),
            ..ActionResult::default()
        };
        for json in [
            r#"{"exitCode":-3,"stdoutRaw":"+//+","stderrDigest":{"hash":"ab","sizeBytes":"7"}}"#,
            r#"{"exit_code":"-3","stdout_raw":"-__-","stderr_digest":{"hash":"ab","size_bytes":7}}"#,
            r#" {"exitCode":-3,"stdoutRaw":"+//+","outputFiles":null,"outputSymlinks":[],"stderrRaw":null,
                "stdoutDigest":null,"stderrDigest":{"hash":"ab","sizeBytes":7}} "#,
        ] {
            assert_eq!(read(json), expected, "{json}");
        }
        assert_eq!(&read(r#"{"stdoutRaw":"YQ"}"#).stdout_raw[..], b"a");
        assert_eq!(&read(r#"{"stdoutRaw":"YQ=="}"#).stdout_raw[..], b"a");
        assert_eq!(read(r#"{"exitCode":null}"#), ActionResult::default());
    }

    #[test]
    fn what_is_no_action_result_is_refused_and_says_where() {
        for (json, what) in [
            ("", "EOF"),
            ("[]", "an action result"),
            ("{} {}", "trailing"),
            (r#"{"exitCode":1.5}"#, "did not match"),
            (r#"{"exitCode":2147483648}"#, "out of range"),
            (r#"{"outputs":[]}"#, "unknown field `outputs`"),
            (r#"{"outputFiles":[{"name":"a"}]}"#, "unknown field `name`"),
            (r#"{"outputFiles":{}}"#, "a list"),
            (r#"{"outputFiles":[null]}"#, "null"),
            (r#"{"stdoutRaw":"*"}"#, "line 1 column"),
            (r#"{"stdoutDigest":{"sizeBytes":"x"}}"#, "invalid digit"),
            (
                r#"{"executionMetadata":{"queuedTimestamp":"now"}}"#,
                "RFC 3339",
            ),
            (
                r#"{"executionMetadata":{"virtualExecutionDuration":"1"}}"#,
                "seconds",
            ),
            (
                r#"{"outputFiles":[{"nodeProperties":{"unixMode":-1}}]}"#,
                "out of range",
            ),
        ] {
            let error = read_action_result(json.as_bytes()).unwrap_err().to_string();
            assert!(error.contains(what), "{json}: {error}");
        }
    }

    #[test]
    fn what_has_no_form_in_json_is_told_and_unknown_fields_are_left_out() {
        let late = ActionResult {
            execution_metadata: Some(ExecutedActionMetadata {
                queued_timestamp: Some(Timestamp {
                    seconds: i64::MAX,
                    nanos: 0,
                }),
                ..ExecutedActionMetadata::default()
            }),
            ..ActionResult::default()
        };
        assert!(write_action_result(&late.encode_to_vec().into()).is_err());
        assert!(write_action_result(&Bytes::from_static(b"\x12\x05")).is_err());
        let unknown = Bytes::from_static(b"\x20\x07\x9a\x06\x01x");
        assert_eq!(write_action_result(&unknown).unwrap(), br#"{"exitCode":7}"#);
    }

    #[test]
    fn a_message_in_pieces_is_written_as_their_sum() {
        let pieces = b"\x32\x04\x0a\x02ab\x32\x02\x10\x07";
        let json = write_action_result(&Bytes::from_static(pieces)).unwrap();
        assert_eq!(json, br#"{"stdoutDigest":{"hash":"ab","sizeBytes":"7"}}"#);
    }

    prop_compose! {
        fn digests()(hash in "[0-9a-f]{0,6}", size_bytes: i64) -> Digest {
            Digest { hash, size_bytes }
        }
    }

    prop_compose! {
        fn times()(seconds in -62_135_596_800_i64..=253_402_300_799, nanos in 0..1_000_000_000) -> Timestamp {
            Timestamp { seconds, nanos }
        }
    }

    prop_compose! {
        fn properties()(
            properties in vec(("\\PC{0,4}", "\\PC{0,4}"), 0..3),
            mtime in option::of(times()),
            unix_mode: Option<u32>,
        ) -> NodeProperties {
            let pairs = properties.into_iter();
            NodeProperties {
                properties: pairs.map(|(name, value)| NodeProperty { name, value }).collect(),
                mtime,
                unix_mode,
            }
        }
    }

    prop_compose! {
        fn files()(
            path in "\\PC{0,8}",
            digest in option::of(digests()),
            is_executable: bool,
            contents in vec(any::<u8>(), 0..8),
            node_properties in option::of(properties()),
        ) -> OutputFile {
            OutputFile { path, digest, is_executable, contents: contents.into(), node_properties }
        }
    }

    prop_compose! {
        fn links()(
            path in "\\PC{0,8}",
            target in "\\PC{0,8}",
            node_properties in option::of(properties()),
        ) -> OutputSymlink {
            OutputSymlink { path, target, node_properties }
        }
    }

    prop_compose! {
        fn directories()(
            path in "\\PC{0,8}",
            tree_digest in option::of(digests()),
            is_topologically_sorted: bool,
            root_directory_digest in option::of(digests()),
        ) -> OutputDirectory {
            OutputDirectory { path, tree_digest, is_topologically_sorted, root_directory_digest }
        }
    }

    prop_compose! {
        fn metadata()(
            worker in "\\PC{0,8}",
            times in vec(option::of(times()), 9),
            any in vec(("[a-z./]{0,8}", vec(any::<u8>(), 0..8)), 0..2),
            took in option::of((0..315_576_000_000_i64, 0..1_000_000_000)),
        ) -> ExecutedActionMetadata {
            let any = any.into_iter();
            let pack = |(type_url, value): (String, Vec<u8>)| Any { type_url, value };
            ExecutedActionMetadata {
                worker,
                queued_timestamp: times[0],
                worker_start_timestamp: times[1],
                worker_completed_timestamp: times[2],
                input_fetch_start_timestamp: times[3],
                input_fetch_completed_timestamp: times[4],
                execution_start_timestamp: times[5],
                execution_completed_timestamp: times[6],
                output_upload_start_timestamp: times[7],
                output_upload_completed_timestamp: times[8],
                auxiliary_metadata: any.map(pack).collect(),
                virtual_execution_duration: took.map(|(seconds, nanos)| Duration { seconds, nanos }),
            }
        }
    }

    prop_compose! {
        fn results()(
            output_files in vec(files(), 0..3),
            links in vec(vec(links(), 0..2), 3),
            output_directories in vec(directories(), 0..3),
            exit_code: i32,
            streams in vec((vec(any::<u8>(), 0..8), option::of(digests())), 2),
            execution_metadata in option::of(metadata()),
        ) -> ActionResult {
            ActionResult {
                output_files,
                output_file_symlinks: links[0].clone(),
                output_symlinks: links[1].clone(),
                output_directories,
                output_directory_symlinks: links[2].clone(),
                exit_code,
                stdout_raw: streams[0].0.clone().into(),
                stdout_digest: streams[0].1.clone(),
                stderr_raw: streams[1].0.clone().into(),
                stderr_digest: streams[1].1.clone(),
                execution_metadata,
            }
        }
    }

    proptest! {
        #[test]
        fn every_result_is_the_same_after_a_way_through_json(result in results()) {
            prop_assert_eq!(read(&write(&result)), result);
        }

        #[test]
        fn no_bytes_break_the_reader_or_the_writer(bytes in vec(any::<u8>(), 0..200)) {
            let _ = read_action_result(&bytes);
            let _ = write_action_result(&bytes.into());
        }
    }
}
