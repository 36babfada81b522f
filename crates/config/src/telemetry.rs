//! Settings of traces: where they are sent, and how many.

use std::{fmt, str::FromStr};

use serde::{Deserialize, Deserializer, Serialize, Serializer, de};

use crate::{
    field::settings,
    problem::{Checks, Problems},
};

/// Which share of something is chosen, from 0 to 1, in millionths.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct SampleRatio(u32);

const MILLION: f64 = 1e6;

impl SampleRatio {
    /// One in ten.
    pub const TENTH: SampleRatio = SampleRatio(100_000);

    /// The ratio as a number.
    pub fn as_f64(self) -> f64 {
        f64::from(self.0) / MILLION
    }

    fn new(ratio: f64) -> Option<SampleRatio> {
        #[allow(clippy::cast_sign_loss, reason = "it is from 0 to a million")]
        let millionths = || (ratio * MILLION).round() as u32;
        (0.0..=1.0)
            .contains(&ratio)
            .then(|| SampleRatio(millionths()))
    }
}

/// Why something is no ratio.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("not a number from 0 to 1")]
pub struct SampleRatioError;

impl FromStr for SampleRatio {
    type Err = SampleRatioError;

    fn from_str(text: &str) -> Result<SampleRatio, SampleRatioError> {
        let ratio = text.trim().parse().ok().and_then(SampleRatio::new);
        ratio.ok_or(SampleRatioError)
    }
}

impl Serialize for SampleRatio {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_f64(self.as_f64())
    }
}

impl<'de> Deserialize<'de> for SampleRatio {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<SampleRatio, D::Error> {
        struct Ratio;

        impl de::Visitor<'_> for Ratio {
            type Value = SampleRatio;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a number from 0 to 1")
            }

            fn visit_f64<E: de::Error>(self, ratio: f64) -> Result<SampleRatio, E> {
                SampleRatio::new(ratio).ok_or_else(|| E::custom(SampleRatioError))
            }

            fn visit_i64<E: de::Error>(self, ratio: i64) -> Result<SampleRatio, E> {
                self.visit_f64(ratio as f64)
            }

            fn visit_u64<E: de::Error>(self, ratio: u64) -> Result<SampleRatio, E> {
                self.visit_f64(ratio as f64)
            }

            fn visit_str<E: de::Error>(self, text: &str) -> Result<SampleRatio, E> {
                text.parse().map_err(E::custom)
            }
        }

        deserializer.deserialize_any(Ratio)
    }
}

settings! {
    /// Traces: the way of single requests through gateway, node and bucket.
    pub struct TelemetryConfig in "telemetry" {
        /// Receiver of OTLP over gRPC that traces are sent to; absent, none are made.
        otlp_endpoint: Option<String> = None,
            accepts "a URL such as http://collector:4317", flag "--otlp-endpoint";
        /// Which share of requests is traced. Whoever sends a `traceparent` decides for that request.
        sample_ratio: SampleRatio = SampleRatio::TENTH,
            accepts "a number from 0 to 1", flag "--sample-ratio";
    }
}

impl TelemetryConfig {
    /// Checks every setting.
    ///
    /// # Errors
    /// All problems at once.
    pub fn validate(&self) -> Result<(), Problems> {
        let mut checks = Checks::new(Self::FIELDS);
        if let Some(url) = &self.otlp_endpoint {
            let host = ["http://", "https://"]
                .iter()
                .find_map(|scheme| url.strip_prefix(scheme));
            checks.require(
                "otlp_endpoint",
                host.is_some_and(|host| !host.is_empty()),
                url,
            );
        }
        checks.finish()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ratios_come_as_numbers_or_text_and_lie_between_nothing_and_all() {
        for (text, expected) in [("0.25", 0.25), ("1", 1.0), ("\"0.5\"", 0.5), ("0", 0.0)] {
            let config: TelemetryConfig =
                toml::from_str(&format!("sample-ratio = {text}")).unwrap();
            assert!(
                (config.sample_ratio.as_f64() - expected).abs() < 1e-9,
                "{text}"
            );
            let again = toml::from_str(&toml::to_string(&config).unwrap());
            assert_eq!(config, again.unwrap());
        }
        for text in ["1.5", "-0.1", "nan", "\"many\""] {
            let config = toml::from_str::<TelemetryConfig>(&format!("sample-ratio = {text}"));
            assert!(config.is_err(), "{text}");
        }
    }

    #[test]
    fn an_endpoint_is_a_url() {
        let with = |url: &str| TelemetryConfig {
            otlp_endpoint: Some(url.to_owned()),
            ..TelemetryConfig::default()
        };
        assert!(with("http://collector:4317").validate().is_ok());
        for wrong in ["collector:4317", "https://", "grpc://collector"] {
            assert_eq!(with(wrong).validate().unwrap_err().0.len(), 1, "{wrong}");
        }
    }
}
