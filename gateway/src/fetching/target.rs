//! A URL that could be fetched, taken apart once: what is allowed, what is looked up and what is sent are the same parts.
//!
//! Invariants: http or https, a host, no user information; the path has no dot segments, in whatever spelling, so that
//! nobody behind a proxy resolves it to another place than the one that was allowed.

use std::{fmt, str::FromStr};

use http::{Uri, uri::PathAndQuery};
use percent_encoding::percent_decode_str;
use zimcache_config::AssetsConfig;

/// A URL that could be fetched.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Target {
    pub(super) https: bool,
    /// In lower case; an IPv6 address has no brackets.
    pub(super) host: String,
    pub(super) port: u16,
    pub(super) path: PathAndQuery,
}

impl Target {
    /// Takes a URL apart; `None` when it is none of these.
    pub(crate) fn parse(text: &str) -> Option<Target> {
        let uri = Uri::from_str(text).ok()?;
        let https = match uri.scheme_str()? {
            "http" => false,
            "https" => true,
            _ => return None,
        };
        let authority = uri.authority()?;
        if authority.as_str().contains('@') {
            return None;
        }
        let host = authority.host();
        let inside = host
            .strip_prefix('[')
            .and_then(|host| host.strip_suffix(']'));
        let port = match authority.as_str().strip_prefix(host)?.strip_prefix(':') {
            Some(port) => port.parse().ok()?,
            None if https => 443,
            None => 80,
        };
        let path = uri.path_and_query()?.clone();
        let is_plain = !host.is_empty() && port != 0 && !has_dot_segments(path.path());
        is_plain.then(|| Target {
            https,
            host: inside.unwrap_or(host).to_ascii_lowercase(),
            port,
            path,
        })
    }

    /// Whether the operator allows to fetch it.
    pub(crate) fn is_allowed(&self, rules: &AssetsConfig) -> bool {
        let path = self.path.path();
        let mut prefixes = rules.fetch_from.iter();
        prefixes.any(|prefix| prefix.covers(self.https, &self.host, self.port, path))
    }

    /// Whether it is on the same server, so that what was meant for one may be sent to the other.
    pub(super) fn has_origin_of(&self, other: &Target) -> bool {
        (self.https, &self.host, self.port) == (other.https, &other.host, other.port)
    }

    /// Where a redirect from here leads; `None` when it leads nowhere.
    pub(super) fn follow(&self, location: &str) -> Option<Target> {
        let path = self.path.path();
        let directory = path.rfind('/').map_or("/", |end| &path[..=end]);
        let before_path = location.split(['/', '?', '#']).next()?;
        if before_path.contains(':') {
            Target::parse(location)
        } else if location.starts_with("//") {
            Target::parse(&format!("{}:{location}", self.scheme()))
        } else if location.starts_with('/') {
            Target::parse(&format!("{self}{location}"))
        } else if location.starts_with('?') {
            Target::parse(&format!("{self}{path}{location}"))
        } else {
            Target::parse(&format!("{self}{directory}{location}"))
        }
    }

    const fn scheme(&self) -> &'static str {
        if self.https { "https" } else { "http" }
    }

    /// Host, and port where it is not the usual one.
    pub(super) fn authority(&self) -> String {
        let host = if self.host.contains(':') {
            format!("[{}]", self.host)
        } else {
            self.host.clone()
        };
        match (self.https, self.port) {
            (true, 443) | (false, 80) => host,
            (_, port) => format!("{host}:{port}"),
        }
    }
}

/// Its server, without the path: that may hold what is nobody else's business.
impl fmt::Display for Target {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}://{}", self.scheme(), self.authority())
    }
}

fn has_dot_segments(path: &str) -> bool {
    let decoded = percent_decode_str(path).decode_utf8_lossy();
    let mut segments = decoded.split(['/', '\\']);
    segments.any(|segment| matches!(segment, "." | ".."))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn target(text: &str) -> Target {
        Target::parse(text).unwrap_or_else(|| panic!("{text}"))
    }

    #[test]
    fn a_url_is_taken_apart() {
        let plain = target("HTTPS://GitHub.com/a?b=c#d");
        assert_eq!(
            (plain.https, &*plain.host, plain.port),
            (true, "github.com", 443)
        );
        assert_eq!(plain.path, "/a?b=c");
        assert_eq!(plain.authority(), "github.com");
        let address = target("http://[::1]:8080");
        assert_eq!((&*address.host, address.port), ("::1", 8080));
        assert_eq!(address.to_string(), "http://[::1]:8080");
        assert_eq!(address.path, "/");
    }

    #[test]
    fn what_could_mean_two_places_is_no_url() {
        for bad in [
            "",
            "/a",
            "urn:fdc:buildstream.build:2020:artifact:a",
            "ftp://host/",
            "file:///etc/passwd",
            "http://user:password@host/",
            "http://allowed.example@other.example/",
            "http://host:/",
            "http://host:0/",
            "http://host:65536/",
            "http://ho st/",
            "http://host/a/../b",
            "http://host/a/%2e%2E/b",
            "http://host/a/..%2fb",
            "http://host/a/..\\b",
            "http://host/a/.",
        ] {
            assert_eq!(Target::parse(bad), None, "{bad}");
        }
        target("http://host/a..b/...");
    }

    #[test]
    fn redirects_lead_where_a_browser_would_go() {
        let here = target("https://host:1/a/b?c");
        for (location, expected) in [
            ("http://other/x", "http://other/x"),
            ("//other/x", "https://other/x"),
            ("/x?y", "https://host:1/x?y"),
            ("?y", "https://host:1/a/b?y"),
            ("x:y/z", ""),
            ("x/y:z", "https://host:1/a/x/y:z"),
            ("x", "https://host:1/a/x"),
            ("../x", ""),
            ("javascript:x", ""),
        ] {
            assert_eq!(
                here.follow(location),
                Target::parse(expected),
                "{location:?}"
            );
        }
    }

    #[test]
    fn only_the_same_scheme_host_and_port_are_the_same_server() {
        let here = target("https://host/a");
        assert!(here.has_origin_of(&target("https://HOST:443/b")));
        for other in ["http://host/a", "https://host:444/a", "https://a.host/a"] {
            assert!(!here.has_origin_of(&target(other)), "{other}");
        }
    }

    #[test]
    fn only_what_begins_as_allowed_is_allowed() {
        let rules = AssetsConfig {
            fetch_from: vec!["https://host/files/".parse().unwrap()],
            ..AssetsConfig::default()
        };
        assert!(target("https://host/files/a").is_allowed(&rules));
        assert!(!target("https://host/other").is_allowed(&rules));
        assert!(!target("https://host/files/a").is_allowed(&AssetsConfig::default()));
    }
}
