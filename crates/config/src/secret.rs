//! A secret given as a setting. It is never shown: not in logs, not by `--print-config`.

use std::fmt;

use serde::{Deserialize, Deserializer, Serialize, Serializer, de::Error};

/// Shown in place of the secret.
const HIDDEN: &str = "(hidden)";

/// A secret text.
#[derive(Clone, PartialEq, Eq)]
pub struct Secret(String);

impl Secret {
    pub(crate) fn new(text: String) -> Secret {
        Secret(text)
    }

    /// The secret itself; do not log it.
    pub fn reveal(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(HIDDEN)
    }
}

impl Serialize for Secret {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(HIDDEN)
    }
}

impl<'de> Deserialize<'de> for Secret {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Secret, D::Error> {
        let text = String::deserialize(deserializer)?;
        if text.is_empty() {
            return Err(D::Error::custom("no secret"));
        }
        Ok(Secret(text))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_secret_is_shown_nowhere() {
        let secret: Secret = secret_of("correct horse");
        assert_eq!(format!("{secret:?}"), HIDDEN);
        assert_eq!(
            toml::Value::try_from(&secret).unwrap().as_str(),
            Some(HIDDEN)
        );
        assert_eq!(secret.reveal(), "correct horse");
    }

    fn secret_of(text: &str) -> Secret {
        toml::Value::String(text.to_owned()).try_into().unwrap()
    }
}
