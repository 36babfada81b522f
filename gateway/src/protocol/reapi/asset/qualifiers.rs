//! What a request says of its URIs: what tells contents apart, what they have to be, and headers to be sent along.
//!
//! Source: the lexicon of qualifiers beside the specification, and Bazel's own names. A checksum does not tell blobs
//! apart: it is verified. Headers do not either: what was fetched with them is not remembered. Invariants: a name that is
//! not known is refused, as is one that is given twice.

use http::{HeaderName, HeaderValue};
use zimcache_proto::{asset::Qualifier, status::bad_request};

use crate::{
    assets::Kind,
    fetching::{Checksums, may_be_sent},
    grpc::{Outcome, Status},
};

const CHECKSUM: &str = "checksum.sri";
const RESOURCE_TYPE: &str = "resource_type";
/// Bazel's: what it thinks a URL means; it tells contents apart and demands nothing.
const CANONICAL_ID: &str = "bazel.canonical_id";
/// What tells contents apart.
const TELLING: [&str; 5] = [
    RESOURCE_TYPE,
    "directory",
    "vcs.branch",
    "vcs.commit",
    CANONICAL_ID,
];
/// The type of a resource that may be anything.
const ANY_BYTES: &str = "application/octet-stream";
/// Bazel's: `http_header:NAME` for every URI, `http_header_url:INDEX:NAME` for one, which wins.
const HEADER: &str = "http_header:";
const HEADER_OF_ONE: &str = "http_header_url:";

/// What a request says of its URIs.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Qualifiers {
    /// What tells contents apart, by name.
    pub(super) telling: Vec<(String, String)>,
    /// What a blob has to be.
    pub(super) checksums: Option<Checksums>,
    headers: Vec<Header>,
}

#[derive(Debug, PartialEq, Eq)]
struct Header {
    /// The URI that it is for; `None`: all.
    index: Option<usize>,
    name: HeaderName,
    value: HeaderValue,
}

impl Qualifiers {
    /// Reads those of a request with so many URIs.
    ///
    /// # Errors
    /// `INVALID_ARGUMENT`, which says what it is about.
    pub(super) fn read(kind: Kind, qualifiers: &[Qualifier], uris: usize) -> Outcome<Qualifiers> {
        let mut read = Qualifiers {
            telling: Vec::new(),
            checksums: None,
            headers: Vec::new(),
        };
        let mut names: Vec<&str> = qualifiers.iter().map(|one| one.name.as_str()).collect();
        names.sort_unstable();
        if let Some(twice) = names.windows(2).find(|pair| pair[0] == pair[1]) {
            return Err(refusal(twice[0], "is given twice"));
        }
        for one in qualifiers {
            read.take(kind, one, uris)?;
        }
        read.telling.sort_unstable();
        Ok(read)
    }

    fn take(&mut self, kind: Kind, one: &Qualifier, uris: usize) -> Outcome<()> {
        let (name, value) = (one.name.as_str(), one.value.as_str());
        let checks = name == CHECKSUM && kind == Kind::Blob;
        if checks {
            let parsed = Checksums::parse(value);
            self.checksums = Some(parsed.ok_or_else(|| refusal(name, "cannot be verified"))?);
        } else if TELLING.contains(&name) || name == CHECKSUM {
            // Of a directory nobody can tell of which bytes it was made: whoever pushed it vouches for it.
            self.telling.push((name.to_owned(), value.to_owned()));
        } else if let Some(header) = name.strip_prefix(HEADER) {
            self.add_header(None, header, one)?;
        } else if let Some(header) = name.strip_prefix(HEADER_OF_ONE) {
            let parts = header.split_once(':');
            let parts = parts.and_then(|(index, header)| Some((index.parse().ok()?, header)));
            match parts {
                Some((index, header)) if index < uris => {
                    self.add_header(Some(index), header, one)?;
                }
                _ => return Err(refusal(name, "names no URI of the request")),
            }
        } else {
            return Err(refusal(name, "not supported"));
        }
        Ok(())
    }

    fn add_header(&mut self, index: Option<usize>, name: &str, one: &Qualifier) -> Outcome<()> {
        let parsed = name.parse().ok().filter(may_be_sent);
        let parsed = parsed.ok_or_else(|| refusal(&one.name, "not supported"))?;
        let value = HeaderValue::try_from(&one.value);
        let mut value = value.map_err(|_| refusal(&one.name, "is no header's value"))?;
        value.set_sensitive(true);
        self.headers.push(Header {
            index,
            name: parsed,
            value,
        });
        Ok(())
    }

    /// The headers to be sent for the URI at this index.
    pub(super) fn headers(&self, index: usize) -> Vec<(HeaderName, HeaderValue)> {
        let mut headers: Vec<(HeaderName, HeaderValue)> = Vec::new();
        let own = self.headers.iter().filter(|one| one.index == Some(index));
        let all = self.headers.iter().filter(|one| one.index.is_none());
        for header in own.chain(all) {
            if !headers.iter().any(|(name, _)| *name == header.name) {
                headers.push((header.name.clone(), header.value.clone()));
            }
        }
        headers.sort_unstable_by(|a, b| a.0.as_str().cmp(b.0.as_str()));
        headers
    }

    /// Whether what is fetched from elsewhere, as it is, can be what these ask for.
    pub(super) fn can_be_fetched(&self) -> bool {
        let mut telling = self.telling.iter();
        telling.all(|(name, value)| match name.as_str() {
            CANONICAL_ID => true,
            RESOURCE_TYPE => value == ANY_BYTES,
            _ => false,
        })
    }
}

fn refusal(name: &str, why: &str) -> Status {
    let description = format!("\"{name}\" {why}");
    let detail = bad_request("qualifiers.name", description.clone());
    Status::invalid(format!("the qualifier {description}")).with(detail)
}

#[cfg(test)]
mod tests {
    use zimcache_proto::{Message as _, rpc::BadRequest};

    use super::*;

    const EMPTY: &str = "sha256-47DEQpj8HBSa+/TImW+5JCeuQeRkm5NMpJWZG3hSuFU=";

    fn read(kind: Kind, qualifiers: &[(&str, &str)]) -> Outcome<Qualifiers> {
        let qualifiers: Vec<Qualifier> = qualifiers
            .iter()
            .map(|(name, value)| Qualifier {
                name: (*name).to_owned(),
                value: (*value).to_owned(),
            })
            .collect();
        Qualifiers::read(kind, &qualifiers, 2)
    }

    #[test]
    fn what_tells_contents_apart_has_no_order() {
        let one = read(Kind::Blob, &[("vcs.commit", "1"), ("directory", "a")]).unwrap();
        let other = read(Kind::Blob, &[("directory", "a"), ("vcs.commit", "1")]).unwrap();
        assert_eq!(one, other);
        assert!(!one.can_be_fetched());
        let bytes = [(RESOURCE_TYPE, ANY_BYTES), (CANONICAL_ID, "x")];
        assert!(read(Kind::Blob, &bytes).unwrap().can_be_fetched());
        let git = read(Kind::Blob, &[(RESOURCE_TYPE, "application/x-git")]);
        assert!(!git.unwrap().can_be_fetched());
    }

    #[test]
    fn a_checksum_is_verified_for_blobs_and_tells_directories_apart() {
        let blob = read(Kind::Blob, &[(CHECKSUM, EMPTY)]).unwrap();
        assert_eq!(
            (blob.checksums.is_some(), blob.telling.is_empty()),
            (true, true)
        );
        let directory = read(Kind::Directory, &[(CHECKSUM, EMPTY)]).unwrap();
        assert_eq!((directory.checksums, directory.telling.len()), (None, 1));
    }

    #[test]
    fn a_header_for_one_uri_wins_over_the_one_for_all() {
        let read = read(
            Kind::Blob,
            &[
                ("http_header_url:1:accept", "one"),
                ("http_header:Accept", "all"),
                ("http_header:authorization", "secret"),
            ],
        );
        let read = read.unwrap();
        let texts = |index| {
            let headers = read.headers(index).into_iter();
            let texts = headers.map(|(name, value)| format!("{name}: {}", value.to_str().unwrap()));
            texts.collect::<Vec<_>>()
        };
        assert_eq!(texts(0), ["accept: all", "authorization: secret"]);
        assert_eq!(texts(1), ["accept: one", "authorization: secret"]);
        assert!(!format!("{read:?}").contains("secret"));
    }

    #[test]
    fn what_is_not_supported_is_named_in_the_details() {
        for (name, value) in [
            ("nobodys", "x"),
            ("http_header:host", "x"),
            ("http_header:no header", "x"),
            ("http_header:accept", "a\nb"),
            ("http_header_url:2:accept", "x"),
            ("http_header_url:accept", "x"),
            (CHECKSUM, "md5-x"),
        ] {
            let status = read(Kind::Blob, &[(name, value)]).unwrap_err().to_message();
            assert_eq!(status.code, 3, "{name}");
            let detail = BadRequest::decode(status.details[0].value.as_slice()).unwrap();
            let violation = &detail.field_violations[0];
            assert_eq!(violation.field, "qualifiers.name");
            assert!(
                violation.description.starts_with(&format!("\"{name}\"")),
                "{name}"
            );
        }
        let twice = [("directory", "a"), ("directory", "b")];
        assert!(read(Kind::Blob, &twice).is_err());
    }
}
