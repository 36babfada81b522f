//! Rates as people write them: `100/s`, `100/m`, `10/s burst 100`.

use std::{fmt, str::FromStr};

use serde::{Deserialize, Deserializer, Serialize, Serializer, de::Error};

/// How many requests a bucket gives back over time, and how many it holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Rate {
    /// Requests per period.
    pub requests: u32,
    /// The period.
    pub per: Period,
    /// Requests that may come at once.
    pub burst: u32,
}

/// The period of a rate.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Period {
    /// A second.
    Second,
    /// A minute.
    Minute,
    /// An hour.
    Hour,
}

impl Period {
    const ALL: [(&'static str, Period); 3] = [
        ("s", Period::Second),
        ("m", Period::Minute),
        ("h", Period::Hour),
    ];

    /// Its length in seconds.
    pub const fn seconds(self) -> u32 {
        match self {
            Period::Second => 1,
            Period::Minute => 60,
            Period::Hour => 3_600,
        }
    }

    fn name(self) -> &'static str {
        Self::ALL
            .into_iter()
            .find(|(_, it)| *it == self)
            .map_or("s", |(name, _)| name)
    }
}

/// Why a text is no rate.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0:?} is not a rate; write 100/s, 100/m or 10/s burst 100")]
pub struct RateError(String);

impl FromStr for Rate {
    type Err = RateError;

    fn from_str(text: &str) -> Result<Rate, RateError> {
        let refused = || RateError(text.to_owned());
        let (rate, burst) = match text.split_once("burst") {
            Some((rate, burst)) => (rate.trim(), Some(burst.trim())),
            None => (text.trim(), None),
        };
        let (requests, period) = rate.split_once('/').ok_or_else(refused)?;
        let requests: u32 = requests.trim().parse().map_err(|_| refused())?;
        let known = Period::ALL
            .into_iter()
            .find(|(name, _)| *name == period.trim());
        let (_, per) = known.ok_or_else(refused)?;
        let burst = match burst {
            None => requests,
            Some(digits) => digits.parse().map_err(|_| refused())?,
        };
        if requests == 0 || burst == 0 {
            return Err(refused());
        }
        Ok(Rate {
            requests,
            per,
            burst,
        })
    }
}

impl fmt::Display for Rate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.requests, self.per.name())?;
        if self.burst != self.requests {
            write!(f, " burst {}", self.burst)?;
        }
        Ok(())
    }
}

impl Serialize for Rate {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Rate {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Rate, D::Error> {
        String::deserialize(deserializer)?
            .parse()
            .map_err(D::Error::custom)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rates_read_back_as_they_are_written() {
        for text in ["100/s", "100/m", "5000/h", "10/s burst 100"] {
            assert_eq!(text.parse::<Rate>().unwrap().to_string(), text);
        }
        let rate: Rate = " 10 / s  burst 100 ".parse().unwrap();
        assert_eq!(
            (rate.requests, rate.per, rate.burst),
            (10, Period::Second, 100)
        );
    }

    #[test]
    fn nonsense_is_refused() {
        for bad in [
            "",
            "10",
            "0/s",
            "10/y",
            "10/s burst",
            "10/s burst 0",
            "-1/s",
            "1.5/s",
        ] {
            assert!(bad.parse::<Rate>().is_err(), "{bad}");
        }
    }
}
