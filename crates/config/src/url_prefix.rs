//! The beginning of URLs, as people allow them: `https://github.com/`, `http://mirror.example:8080/files`.
//!
//! Invariants: scheme, host and port are compared whole, so that `https://github.com` never covers
//! `https://github.com.evil.example`; a path covers itself and what lies below it. Not here: parsing the URLs that are
//! compared with it.

use std::{fmt, str::FromStr};

use serde::{Deserialize, Deserializer, Serialize, Serializer, de::Error};

/// The beginning of URLs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct UrlPrefix {
    https: bool,
    /// In lower case; an IPv6 address has no brackets.
    host: String,
    port: u16,
    /// Begins with a slash.
    path: String,
    text: String,
}

/// Why a text is no beginning of URLs.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0:?} is no beginning of URLs such as https://mirror.example/files/")]
pub struct UrlPrefixError(String);

impl UrlPrefix {
    /// Whether a URL of these parts begins so. The host is in lower case, without brackets; the path begins with a
    /// slash and has no dot segments.
    pub fn covers(&self, https: bool, host: &str, port: u16, path: &str) -> bool {
        let same_place = (https, host, port) == (self.https, &*self.host, self.port);
        let below = path.strip_prefix(self.path.as_str());
        let whole = self.path.ends_with('/');
        same_place && below.is_some_and(|rest| whole || rest.is_empty() || rest.starts_with('/'))
    }
}

impl FromStr for UrlPrefix {
    type Err = UrlPrefixError;

    fn from_str(text: &str) -> Result<UrlPrefix, UrlPrefixError> {
        parse(text.trim()).ok_or_else(|| UrlPrefixError(text.to_owned()))
    }
}

fn parse(text: &str) -> Option<UrlPrefix> {
    let plain = |c: char| c.is_ascii_graphic() && !"?#@*\\".contains(c);
    if !text.chars().all(plain) {
        return None;
    }
    let (https, rest) = match text.strip_prefix("https://") {
        Some(rest) => (true, rest),
        None => (false, text.strip_prefix("http://")?),
    };
    let (authority, path) = rest.split_at(rest.find('/').unwrap_or(rest.len()));
    let (host, port) = match authority.rsplit_once(':') {
        Some((host, port)) if !port.ends_with(']') => (host, port.parse().ok()?),
        _ => (authority, if https { 443 } else { 80 }),
    };
    let host = match host.strip_prefix('[') {
        Some(address) => address.strip_suffix(']')?,
        None if host.contains(':') => return None,
        None => host,
    };
    let dots = path.split('/').any(|part| matches!(part, "." | ".."));
    if host.is_empty() || port == 0 || dots {
        return None;
    }
    Some(UrlPrefix {
        https,
        host: host.to_ascii_lowercase(),
        port,
        path: if path.is_empty() { "/" } else { path }.to_owned(),
        text: text.to_owned(),
    })
}

impl fmt::Display for UrlPrefix {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

impl Serialize for UrlPrefix {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for UrlPrefix {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<UrlPrefix, D::Error> {
        String::deserialize(deserializer)?
            .parse()
            .map_err(D::Error::custom)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn prefix(text: &str) -> UrlPrefix {
        text.parse().unwrap()
    }

    #[test]
    fn a_prefix_covers_its_own_host_alone() {
        let all = prefix("https://GitHub.com");
        assert!(all.covers(true, "github.com", 443, "/a/b"));
        for (https, host, port) in [
            (false, "github.com", 443),
            (true, "github.com.evil.example", 443),
            (true, "evil.github.com", 443),
            (true, "github.com", 8443),
        ] {
            assert!(!all.covers(https, host, port, "/a"), "{host}:{port}");
        }
    }

    #[test]
    fn a_path_covers_itself_and_what_lies_below() {
        for text in ["http://[::1]:81/files", "http://[::1]:81/files/"] {
            let files = prefix(text);
            assert!(files.covers(false, "::1", 81, "/files/a"), "{text}");
            for path in ["/", "/filesystem", "/other/files/"] {
                assert!(!files.covers(false, "::1", 81, path), "{text} {path}");
            }
        }
        assert!(prefix("http://h/files").covers(false, "h", 80, "/files"));
        assert!(!prefix("http://h/files/").covers(false, "h", 80, "/files"));
    }

    #[test]
    fn what_is_no_beginning_of_urls_is_refused() {
        for bad in [
            "",
            "github.com",
            "ftp://host/",
            "https://",
            "https:///path",
            "https://user@host/",
            "https://*.example/",
            "https://host:0/",
            "https://host:99999/",
            "https://host:/",
            "https://::1/",
            "https://[::1/",
            "https://host/a/../b",
            "https://host/?q",
            "https://host/#f",
            "https://ho st/",
            "https://höst/",
        ] {
            assert!(bad.parse::<UrlPrefix>().is_err(), "{bad}");
        }
        assert_eq!(prefix(" https://Host/a ").to_string(), "https://Host/a");
    }
}
