//! Where Redis is: `redis://host`, `rediss://`, `redis+unix:///path`, `redis+sentinel://host,host/master`.
//!
//! Invariant: passwords are never shown; what is printed and logged has `***` in their place. Not here: connecting, and
//! anything of the client library.

use std::{
    fmt::{self, Write},
    path::PathBuf,
    str::FromStr,
};

use serde::{Deserialize, Deserializer, Serialize, Serializer, de::Error};

use crate::Secret;

/// Shown in place of a password.
const HIDDEN: &str = "***";
const REDIS_PORT: u16 = 6379;
const SENTINEL_PORT: u16 = 26379;
const SENTINEL_PASSWORD: &str = "sentinel-password";

/// Where a Redis is, and how to log in.
#[derive(Clone, PartialEq, Eq)]
pub struct RedisUrl {
    /// The way there.
    pub place: RedisPlace,
    /// User, where the server knows more than one.
    pub user: Option<String>,
    /// Password of the servers.
    pub password: Option<Secret>,
    /// Number of the database.
    pub database: u32,
}

/// The way to a Redis.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum RedisPlace {
    /// One server.
    Server {
        /// Its address.
        at: HostPort,
        /// Speak TLS.
        tls: bool,
    },
    /// A server on this machine.
    Socket(PathBuf),
    /// Whichever server the sentinels call the master.
    Sentinels {
        /// Any of them.
        at: Vec<HostPort>,
        /// Name of the master.
        master: String,
        /// Speak TLS, with sentinels and servers.
        tls: bool,
        /// Password of the sentinels.
        password: Option<Secret>,
    },
}

/// A host, in lower case and without brackets, and a port.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HostPort {
    /// Name or address.
    pub host: String,
    /// Port.
    pub port: u16,
}

/// Why a text is no such URL. It does not repeat the text, which may hold a password.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("this is no URL of a Redis, such as redis://:password@host:6379/0")]
pub struct RedisUrlError;

impl FromStr for RedisUrl {
    type Err = RedisUrlError;

    fn from_str(text: &str) -> Result<RedisUrl, RedisUrlError> {
        parse(text.trim()).ok_or(RedisUrlError)
    }
}

fn parse(text: &str) -> Option<RedisUrl> {
    let (scheme, rest) = text.split_once("://")?;
    let (rest, query) = match rest.split_once('?') {
        Some((rest, query)) => (rest, Some(query)),
        None => (rest, None),
    };
    let (authority, path) = rest.split_at(rest.find('/').unwrap_or(rest.len()));
    let (login, hosts) = authority.rsplit_once('@').unwrap_or(("", authority));
    let (user, password) = parse_login(login)?;
    let (place, database) = match scheme {
        "redis" | "rediss" if query.is_none() => {
            let at = parse_host(hosts, REDIS_PORT)?;
            let tls = scheme == "rediss";
            (RedisPlace::Server { at, tls }, path.strip_prefix('/'))
        }
        "redis+unix" if hosts.is_empty() => {
            let socket = decoded(path)?;
            let database = query.map(|query| query.strip_prefix("db="));
            let place = RedisPlace::Socket(PathBuf::from(socket));
            (
                (path.len() > 1).then_some(place)?,
                database.unwrap_or(Some("")),
            )
        }
        "redis+sentinel" | "rediss+sentinel" => {
            parse_sentinels(hosts, path, query, scheme.starts_with("rediss"))?
        }
        _ => return None,
    };
    let database = match database.unwrap_or_default() {
        "" => 0,
        digits => digits.parse().ok()?,
    };
    Some(RedisUrl {
        place,
        user,
        password,
        database,
    })
}

type Login = (Option<String>, Option<Secret>);

fn parse_login(login: &str) -> Option<Login> {
    let (user, password) = match login.split_once(':') {
        Some((user, password)) => (user, Some(Secret::new(decoded(password)?))),
        None => (login, None),
    };
    let user = decoded(user)?;
    Some(((!user.is_empty()).then_some(user), password))
}

fn parse_sentinels<'a>(
    hosts: &str,
    path: &'a str,
    query: Option<&str>,
    tls: bool,
) -> Option<(RedisPlace, Option<&'a str>)> {
    let at: Option<Vec<_>> = hosts
        .split(',')
        .map(|host| parse_host(host, SENTINEL_PORT))
        .collect();
    let path = path.strip_prefix('/')?;
    let (master, database) = match path.split_once('/') {
        Some((master, database)) => (master, Some(database)),
        None => (path, None),
    };
    let password = match query {
        None => None,
        Some(query) => {
            let (name, password) = query.split_once('=')?;
            let password = (name == SENTINEL_PASSWORD).then_some(password)?;
            Some(Secret::new(decoded(password)?))
        }
    };
    let place = RedisPlace::Sentinels {
        at: at?,
        master: decoded(master)?,
        tls,
        password,
    };
    (!master.is_empty()).then_some((place, database))
}

fn parse_host(text: &str, default: u16) -> Option<HostPort> {
    let (host, port) = match text.rsplit_once(':') {
        Some((host, port)) if !port.ends_with(']') => (host, port.parse().ok()?),
        _ => (text, default),
    };
    let bracketed = host
        .strip_prefix('[')
        .and_then(|host| host.strip_suffix(']'));
    let plain = |c: char| c.is_ascii_alphanumeric() || ".-_".contains(c);
    let host = match bracketed {
        Some(address) => address.parse::<std::net::Ipv6Addr>().ok()?.to_string(),
        None if !host.is_empty() && host.chars().all(plain) => host.to_ascii_lowercase(),
        None => return None,
    };
    (port != 0).then_some(HostPort { host, port })
}

/// The text without percent signs.
fn decoded(text: &str) -> Option<String> {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let Some((first, after)) = rest.split_first() {
        rest = after;
        if *first != b'%' {
            bytes.push(*first);
            continue;
        }
        let (digits, after) = rest.split_at_checked(2)?;
        let digits = std::str::from_utf8(digits).ok()?;
        let plain = digits.bytes().all(|digit| digit.is_ascii_hexdigit());
        bytes.push(u8::from_str_radix(plain.then_some(digits)?, 16).ok()?);
        rest = after;
    }
    String::from_utf8(bytes).ok()
}

/// The text with percent signs for what has a meaning in a URL.
fn encoded(text: &str) -> String {
    let mut shown = String::new();
    for byte in text.bytes() {
        if byte.is_ascii_alphanumeric() || b"-._~/".contains(&byte) {
            shown.push(char::from(byte));
        } else {
            // Writing to a String cannot fail.
            write!(shown, "%{byte:02X}").ok();
        }
    }
    shown
}

impl fmt::Display for HostPort {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.host.contains(':') {
            return write!(f, "[{}]:{}", self.host, self.port);
        }
        write!(f, "{}:{}", self.host, self.port)
    }
}

impl fmt::Display for RedisUrl {
    /// As it is written, but for passwords.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match &self.place {
            RedisPlace::Server { tls: false, .. } => "redis://",
            RedisPlace::Server { tls: true, .. } => "rediss://",
            RedisPlace::Socket(_) => "redis+unix://",
            RedisPlace::Sentinels { tls: false, .. } => "redis+sentinel://",
            RedisPlace::Sentinels { tls: true, .. } => "rediss+sentinel://",
        })?;
        if let Some(user) = &self.user {
            f.write_str(&encoded(user))?;
        }
        if self.password.is_some() {
            write!(f, ":{HIDDEN}")?;
        }
        if self.user.is_some() || self.password.is_some() {
            f.write_str("@")?;
        }
        let database = self.database;
        match &self.place {
            RedisPlace::Server { at, .. } => write!(f, "{at}/{database}"),
            RedisPlace::Socket(path) => {
                write!(f, "{}?db={database}", encoded(&path.to_string_lossy()))
            }
            RedisPlace::Sentinels {
                at,
                master,
                password,
                ..
            } => {
                let hosts: Vec<_> = at.iter().map(ToString::to_string).collect();
                let master = encoded(master).replace('/', "%2F");
                write!(f, "{}/{master}/{database}", hosts.join(","))?;
                match password {
                    Some(_) => write!(f, "?{SENTINEL_PASSWORD}={HIDDEN}"),
                    None => Ok(()),
                }
            }
        }
    }
}

impl fmt::Debug for RedisUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl Serialize for RedisUrl {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for RedisUrl {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<RedisUrl, D::Error> {
        String::deserialize(deserializer)?
            .parse()
            .map_err(D::Error::custom)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn url(text: &str) -> RedisUrl {
        text.parse().unwrap()
    }

    #[test]
    fn urls_read_back_as_they_are_shown_when_they_hold_no_password() {
        for (text, shown) in [
            ("redis://Cache", "redis://cache:6379/0"),
            ("redis://10.0.0.7:7000/3", "redis://10.0.0.7:7000/3"),
            ("rediss://[::1]", "rediss://[::1]:6379/0"),
            ("redis://me@a/", "redis://me@a:6379/0"),
            (
                "redis+unix:///run/redis.sock",
                "redis+unix:///run/redis.sock?db=0",
            ),
            ("redis+unix:///a%20b?db=4", "redis+unix:///a%20b?db=4"),
            (
                "redis+sentinel://a,b:7/zim",
                "redis+sentinel://a:26379,b:7/zim/0",
            ),
            (
                "rediss+sentinel://a/a%2Fb/2",
                "rediss+sentinel://a:26379/a%2Fb/2",
            ),
        ] {
            assert_eq!(url(text).to_string(), shown);
            assert_eq!(url(shown), url(text), "{shown}");
        }
    }

    #[test]
    fn passwords_are_kept_and_shown_nowhere() {
        for text in [
            "redis://:s3%40cret@host/1",
            "rediss://me:s3%40cret@host",
            "redis+unix://:s3%40cret@/run/redis.sock",
            "redis+sentinel://:s3%40cret@host/zim?sentinel-password=s3cret",
        ] {
            let url = url(text);
            assert_eq!(url.password.as_ref().map(Secret::reveal), Some("s3@cret"));
            assert!(!format!("{:?}", url.place).contains("s3"));
            let value = toml::Value::try_from(&url).unwrap();
            for shown in [format!("{url:?}"), url.to_string(), value.to_string()] {
                assert!(shown.contains(":***@"), "{shown}");
                assert!(!shown.contains("s3"), "{shown}");
            }
        }
        let url = url("redis+sentinel://host/zim?sentinel-password=a%3Db");
        let RedisPlace::Sentinels { password, .. } = &url.place else {
            panic!("{url}");
        };
        assert_eq!(password.as_ref().map(Secret::reveal), Some("a=b"));
    }

    #[test]
    fn nonsense_is_refused_without_repeating_it() {
        for bad in [
            "",
            "host:6379",
            "http://host",
            "redis://",
            "redis://host:0",
            "redis://host:x",
            "redis://host/x",
            "redis://host?db=1",
            "redis://a,b",
            "redis://:%zz@host",
            "redis+unix://",
            "redis+unix:///",
            "redis+unix://host/path",
            "redis+sentinel://host",
            "redis+sentinel://host/",
            "redis+sentinel:///zim",
            "redis+sentinel://host/zim?password=x",
        ] {
            assert!(bad.parse::<RedisUrl>().is_err(), "{bad}");
        }
        let error = "redis//:secret@host".parse::<RedisUrl>().unwrap_err();
        assert!(!error.to_string().contains("secret"));
    }
}
