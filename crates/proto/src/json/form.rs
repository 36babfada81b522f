//! The forms of single fields in JSON: what the attributes of the generated messages name.
//!
//! Not here: messages. Invariant: `null` is read as the default of every field.

use ::base64::{
    alphabet,
    engine::{DecodePaddingMode, GeneralPurpose, GeneralPurposeConfig, general_purpose},
};
use prost::bytes::Bytes;
use serde::{Deserialize, Deserializer, Serializer, de};

use crate::time;

/// Whether a field is left out.
pub(crate) fn unset<T: Default + PartialEq>(value: &T) -> bool {
    *value == T::default()
}

/// Reads `null` as the default value.
pub(crate) fn nullable<'de, D, T>(from: D) -> Result<T, D::Error>
where
    D: Deserializer<'de>,
    T: Default + Deserialize<'de>,
{
    Ok(Option::deserialize(from)?.unwrap_or_default())
}

/// Numbers, which may be written as text.
#[derive(Debug, Default)]
pub(super) struct Number<T>(pub(super) T);

impl<'de, T: TryFrom<i64> + Default> Deserialize<'de> for Number<T> {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Number<T>, D::Error> {
        #[derive(Deserialize)]
        #[serde(untagged)]
        enum Written {
            Number(i64),
            Text(String),
            Null(()),
        }
        let number = match Written::deserialize(from)? {
            Written::Number(number) => number,
            Written::Text(text) => text.parse().map_err(de::Error::custom)?,
            Written::Null(()) => return Ok(Number::default()),
        };
        let number = T::try_from(number);
        number
            .map(Number)
            .map_err(|_| de::Error::custom("the number is out of range"))
    }
}

/// Reads `google.protobuf.UInt32Value`, a number that may be absent.
pub(crate) fn uint32<'de, D: Deserializer<'de>>(from: D) -> Result<Option<u32>, D::Error> {
    let number: Option<Number<u32>> = Option::deserialize(from)?;
    Ok(number.map(|number| number.0))
}

/// Bytes in base64.
pub(super) struct Base64(pub(super) Bytes);

impl<'de> Deserialize<'de> for Base64 {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Base64, D::Error> {
        base64::deserialize(from).map(Base64)
    }
}

/// 64-bit numbers are written as text.
pub(crate) mod int64 {
    use super::{Deserialize as _, Deserializer, Number, Serializer};

    #[allow(
        clippy::trivially_copy_pass_by_ref,
        reason = "serde passes fields by reference"
    )]
    pub(crate) fn serialize<S: Serializer>(number: &i64, into: S) -> Result<S::Ok, S::Error> {
        into.collect_str(number)
    }

    pub(crate) fn deserialize<'de, D: Deserializer<'de>>(from: D) -> Result<i64, D::Error> {
        Ok(Number::deserialize(from)?.0)
    }
}

/// Bytes are written in base64, and read in either alphabet, padded or not.
pub(crate) mod base64 {
    use ::base64::Engine as _;

    use super::{
        DecodePaddingMode, Deserializer, GeneralPurpose, GeneralPurposeConfig, Serializer,
        alphabet, de, general_purpose, nullable,
    };

    const CONFIG: GeneralPurposeConfig =
        GeneralPurposeConfig::new().with_decode_padding_mode(DecodePaddingMode::Indifferent);
    const EITHER: [GeneralPurpose; 2] = [
        GeneralPurpose::new(&alphabet::STANDARD, CONFIG),
        GeneralPurpose::new(&alphabet::URL_SAFE, CONFIG),
    ];

    pub(crate) fn serialize<S: Serializer>(
        bytes: impl AsRef<[u8]>,
        into: S,
    ) -> Result<S::Ok, S::Error> {
        into.serialize_str(&general_purpose::STANDARD.encode(bytes))
    }

    pub(crate) fn deserialize<'de, D, B>(from: D) -> Result<B, D::Error>
    where
        D: Deserializer<'de>,
        B: From<Vec<u8>>,
    {
        let text: String = nullable(from)?;
        let [standard, url_safe] = &EITHER;
        let alphabet = if text.contains(['-', '_']) {
            url_safe
        } else {
            standard
        };
        let bytes = alphabet.decode(text).map_err(de::Error::custom)?;
        Ok(bytes.into())
    }
}

/// `google.protobuf.Timestamp` is a text by RFC 3339.
pub(crate) mod timestamp {
    use prost_types::Timestamp;
    use serde::ser::Error as _;

    use super::{Deserialize as _, Deserializer, Serializer, de, time};

    #[allow(clippy::ref_option, reason = "serde passes fields by reference")]
    pub(crate) fn serialize<S: Serializer>(
        time: &Option<Timestamp>,
        into: S,
    ) -> Result<S::Ok, S::Error> {
        let Some(time) = *time else {
            return into.serialize_none();
        };
        let text = time::write_timestamp(time);
        into.serialize_str(&text.ok_or_else(|| S::Error::custom("the time is out of range"))?)
    }

    pub(crate) fn deserialize<'de, D>(from: D) -> Result<Option<Timestamp>, D::Error>
    where
        D: Deserializer<'de>,
    {
        let read = |text: String| {
            let time = time::read_timestamp(&text);
            time.ok_or_else(|| de::Error::custom("expected a time by RFC 3339"))
        };
        Option::deserialize(from)?.map(read).transpose()
    }
}

/// `google.protobuf.Duration` is a text of seconds.
pub(crate) mod duration {
    use prost_types::Duration;
    use serde::ser::Error as _;

    use super::{Deserialize as _, Deserializer, Serializer, de, time};

    #[allow(clippy::ref_option, reason = "serde passes fields by reference")]
    pub(crate) fn serialize<S: Serializer>(
        duration: &Option<Duration>,
        into: S,
    ) -> Result<S::Ok, S::Error> {
        let Some(duration) = *duration else {
            return into.serialize_none();
        };
        let text = time::write_duration(duration);
        into.serialize_str(&text.ok_or_else(|| S::Error::custom("the duration is malformed"))?)
    }

    pub(crate) fn deserialize<'de, D>(from: D) -> Result<Option<Duration>, D::Error>
    where
        D: Deserializer<'de>,
    {
        let read = |text: String| {
            let duration = time::read_duration(&text);
            duration.ok_or_else(|| de::Error::custom("expected seconds and `s`"))
        };
        Option::deserialize(from)?.map(read).transpose()
    }
}

/// `google.protobuf.Any` is written as its two fields: what it holds is not known here.
pub(crate) mod any {
    use prost_types::Any;
    use serde::Serialize;

    use super::{Deserialize, Deserializer, Serializer, base64, nullable, unset};

    #[derive(Default, Serialize, Deserialize)]
    #[serde(rename_all = "camelCase", default, deny_unknown_fields)]
    struct Packed {
        #[serde(
            alias = "type_url",
            alias = "@type",
            deserialize_with = "nullable",
            skip_serializing_if = "unset"
        )]
        type_url: String,
        #[serde(with = "base64", skip_serializing_if = "unset")]
        value: Vec<u8>,
    }

    pub(crate) fn serialize<S: Serializer>(list: &[Any], into: S) -> Result<S::Ok, S::Error> {
        let packed = list
            .iter()
            .cloned()
            .map(|Any { type_url, value }| Packed { type_url, value });
        into.collect_seq(packed)
    }

    pub(crate) fn deserialize<'de, D: Deserializer<'de>>(from: D) -> Result<Vec<Any>, D::Error> {
        let list: Vec<Packed> = nullable(from)?;
        let any = list
            .into_iter()
            .map(|Packed { type_url, value }| Any { type_url, value });
        Ok(any.collect())
    }
}
