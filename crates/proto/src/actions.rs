//! `github.actions.results.api.v1`: the cache service of GitHub Actions, as its clients call it.
//!
//! Read and written in both of Twirp's forms: protocol buffers and their JSON, where a name may be written either way
//! and a 64-bit number as text. Unknown fields are skipped. The metadata of a request is not looked into: who calls is
//! told by the credential.

use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// Asks where to upload an entry.
#[derive(Clone, PartialEq, prost::Message, Deserialize)]
#[serde(default)]
pub struct CreateCacheEntryRequest {
    /// Name of the entry.
    #[prost(string, tag = "2")]
    #[serde(deserialize_with = "or_default")]
    pub key: String,
    /// What the entry is made by and for; entries of other versions are never found.
    #[prost(string, tag = "3")]
    #[serde(deserialize_with = "or_default")]
    pub version: String,
}

/// Where to upload an entry.
#[derive(Clone, PartialEq, prost::Message, Serialize)]
pub struct CreateCacheEntryResponse {
    /// Whether it may be uploaded.
    #[prost(bool, tag = "1")]
    pub ok: bool,
    /// Where to.
    #[prost(string, tag = "2")]
    pub signed_upload_url: String,
}

/// Says that an entry is uploaded.
#[derive(Clone, PartialEq, prost::Message, Deserialize)]
#[serde(default)]
pub struct FinalizeCacheEntryUploadRequest {
    /// As in [`CreateCacheEntryRequest`].
    #[prost(string, tag = "2")]
    #[serde(deserialize_with = "or_default")]
    pub key: String,
    /// Size in bytes of what was uploaded.
    #[prost(int64, tag = "3")]
    #[serde(alias = "sizeBytes", deserialize_with = "number_or_text")]
    pub size_bytes: i64,
    /// As in [`CreateCacheEntryRequest`].
    #[prost(string, tag = "4")]
    #[serde(deserialize_with = "or_default")]
    pub version: String,
}

/// An entry that can be found from now on.
#[derive(Clone, PartialEq, prost::Message, Serialize)]
pub struct FinalizeCacheEntryUploadResponse {
    /// Whether it can.
    #[prost(bool, tag = "1")]
    pub ok: bool,
    /// Identity of the entry.
    #[prost(int64, tag = "2")]
    #[serde(serialize_with = "as_text")]
    pub entry_id: i64,
}

/// Looks for an entry.
#[derive(Clone, PartialEq, prost::Message, Deserialize)]
#[serde(default)]
pub struct GetCacheEntryDownloadUrlRequest {
    /// The name wanted most.
    #[prost(string, tag = "2")]
    #[serde(deserialize_with = "or_default")]
    pub key: String,
    /// Beginnings of names that will do, most wanted first.
    #[prost(string, repeated, tag = "3")]
    #[serde(alias = "restoreKeys", deserialize_with = "or_default")]
    pub restore_keys: Vec<String>,
    /// As in [`CreateCacheEntryRequest`].
    #[prost(string, tag = "4")]
    #[serde(deserialize_with = "or_default")]
    pub version: String,
}

/// An entry that was found.
#[derive(Clone, PartialEq, prost::Message, Serialize)]
pub struct GetCacheEntryDownloadUrlResponse {
    /// Whether there is one.
    #[prost(bool, tag = "1")]
    pub ok: bool,
    /// Where it can be downloaded.
    #[prost(string, tag = "2")]
    pub signed_download_url: String,
    /// Its name.
    #[prost(string, tag = "3")]
    pub matched_key: String,
}

/// `null` is what is meant when nothing is said.
fn or_default<'de, D, T>(deserializer: D) -> Result<T, D::Error>
where
    D: Deserializer<'de>,
    T: Default + Deserialize<'de>,
{
    Ok(Option::deserialize(deserializer)?.unwrap_or_default())
}

#[derive(Deserialize)]
#[serde(untagged)]
enum NumberOrText<'a> {
    Number(i64),
    Text(#[serde(borrow)] std::borrow::Cow<'a, str>),
}

fn number_or_text<'de, D: Deserializer<'de>>(deserializer: D) -> Result<i64, D::Error> {
    match Option::deserialize(deserializer)? {
        None => Ok(0),
        Some(NumberOrText::Number(number)) => Ok(number),
        Some(NumberOrText::Text(text)) => text.parse().map_err(serde::de::Error::custom),
    }
}

#[allow(clippy::trivially_copy_pass_by_ref, reason = "what serde calls")]
fn as_text<S: Serializer>(number: &i64, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.collect_str(number)
}

#[cfg(test)]
mod tests {
    use prost::Message;

    use super::*;

    #[test]
    fn field_numbers_are_those_of_the_service() {
        let create = CreateCacheEntryRequest {
            key: "k".into(),
            version: "v".into(),
        };
        assert_eq!(create.encode_to_vec(), b"\x12\x01k\x1a\x01v");
        let finalize = FinalizeCacheEntryUploadRequest {
            key: "k".into(),
            size_bytes: 300,
            version: "v".into(),
        };
        assert_eq!(finalize.encode_to_vec(), b"\x12\x01k\x18\xac\x02\x22\x01v");
        let get = GetCacheEntryDownloadUrlRequest {
            key: "k".into(),
            restore_keys: vec!["r".into(), "s".into()],
            version: "v".into(),
        };
        assert_eq!(get.encode_to_vec(), b"\x12\x01k\x1a\x01r\x1a\x01s\x22\x01v");
        let found = GetCacheEntryDownloadUrlResponse {
            ok: true,
            signed_download_url: "u".into(),
            matched_key: "m".into(),
        };
        assert_eq!(found.encode_to_vec(), b"\x08\x01\x12\x01u\x1a\x01m");
        let done = FinalizeCacheEntryUploadResponse {
            ok: true,
            entry_id: 5,
        };
        assert_eq!(done.encode_to_vec(), b"\x08\x01\x10\x05");
        let made = CreateCacheEntryResponse {
            ok: true,
            signed_upload_url: "u".into(),
        };
        assert_eq!(made.encode_to_vec(), b"\x08\x01\x12\x01u");
    }

    #[test]
    fn json_is_read_in_both_spellings_and_numbers_also_as_text() {
        for text in [
            r#"{"key":"k","size_bytes":300,"version":"v"}"#,
            r#"{"key":"k","sizeBytes":"300","version":"v","metadata":{"x":[1]}}"#,
        ] {
            let read: FinalizeCacheEntryUploadRequest = serde_json::from_str(text).unwrap();
            assert_eq!((read.key.as_str(), read.size_bytes), ("k", 300), "{text}");
        }
        for text in [
            r#"{"key":"k","restore_keys":["a","b"]}"#,
            r#"{"key":"k","restoreKeys":["a","b"],"version":null}"#,
        ] {
            let read: GetCacheEntryDownloadUrlRequest = serde_json::from_str(text).unwrap();
            assert_eq!(read.restore_keys, ["a", "b"], "{text}");
            assert_eq!(read.version, "");
        }
        for text in [
            r#"{"size_bytes":"x"}"#,
            r#"{"size_bytes":1.5}"#,
            r#"{"key":7}"#,
            "7",
        ] {
            assert!(
                serde_json::from_str::<FinalizeCacheEntryUploadRequest>(text).is_err(),
                "{text}"
            );
        }
    }

    #[test]
    fn json_is_written_with_the_names_of_the_service() {
        let done = FinalizeCacheEntryUploadResponse {
            ok: true,
            entry_id: 5,
        };
        let text = serde_json::to_string(&done).unwrap();
        assert_eq!(text, r#"{"ok":true,"entry_id":"5"}"#);
        let none = serde_json::to_string(&GetCacheEntryDownloadUrlResponse::default()).unwrap();
        assert_eq!(
            none,
            r#"{"ok":false,"signed_download_url":"","matched_key":""}"#
        );
    }
}
