//! Parameters of the operator's pages: `name=value&…`, percent-encoded. A plus sign is a plus sign.

use percent_encoding::percent_decode_str;

use crate::{Error, error::Result};

/// The query of a URL.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Query<'a>(&'a str);

impl<'a> Query<'a> {
    pub(crate) fn of(head: &'a http::request::Parts) -> Query<'a> {
        Query::new(head.uri.query().unwrap_or_default())
    }

    pub(crate) const fn new(text: &'a str) -> Query<'a> {
        Query(text)
    }

    /// The first value of this name; an empty one is none.
    ///
    /// # Errors
    /// [`Error::Request`] when it is no text.
    pub(crate) fn get(self, name: &str) -> Result<Option<String>> {
        let pairs = self.0.split('&').filter_map(|pair| pair.split_once('='));
        let mut values = pairs.filter(|(own, _)| *own == name);
        let Some((_, value)) = values.next().filter(|(_, value)| !value.is_empty()) else {
            return Ok(None);
        };
        let decoded = percent_decode_str(value).decode_utf8();
        let text = decoded.map_err(|_| Error::Request("a parameter is not UTF-8"))?;
        Ok(Some(text.into_owned()))
    }

    /// A number from 1 to `most`, or `usual` where there is none.
    ///
    /// # Errors
    /// [`Error::Request`] when it is no number; a larger one counts as `most`.
    pub(crate) fn limit(self, usual: usize, most: usize) -> Result<usize> {
        let Some(text) = self.get("limit")? else {
            return Ok(usual);
        };
        let digits = text.bytes().all(|c| c.is_ascii_digit());
        let limit = text.parse().unwrap_or(usize::MAX).min(most);
        if digits && limit > 0 {
            Ok(limit)
        } else {
            Err(Error::Request("limit is not a number from 1 on"))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_are_decoded_and_the_first_of_a_name_counts() {
        let query = Query::new("a=1&key=x%2Fy%20z+&key=2&empty=&flag");
        assert_eq!(query.get("a").unwrap().as_deref(), Some("1"));
        assert_eq!(query.get("key").unwrap().as_deref(), Some("x/y z+"));
        assert_eq!(query.get("empty").unwrap(), None);
        assert_eq!(query.get("flag").unwrap(), None);
        assert!(Query::new("a=%ff").get("a").is_err());
    }

    #[test]
    fn limits_are_numbers_and_bounded() {
        let limit = |text| Query::new(text).limit(10, 100);
        assert_eq!(limit("").unwrap(), 10);
        assert_eq!(limit("limit=7").unwrap(), 7);
        assert_eq!(limit("limit=99999999999999999999999").unwrap(), 100);
        for bad in ["limit=0", "limit=-1", "limit=x"] {
            assert!(limit(bad).is_err(), "{bad}");
        }
    }
}
