//! Names of objects: `v1/<namespace>/<function>/<aa>/<id>` for blobs, `v1/<namespace>/e/<kind>/<aa>/<id>` for entries.
//!
//! Made, never taken from clients: the id is 64 hexadecimal digits of the record key, `aa` its first two. A slash in a
//! namespace becomes `!`, which no namespace has, so that no namespace's folder lies inside another's.

use std::fmt::Write;

use zimcache_store::{RecordKey, RecordKind};
use zimcache_types::{EntryKind, Function, Namespace};

/// Folder of entries; no digest function has this name.
const ENTRIES: &str = "e";

/// Names of objects under one prefix.
#[derive(Debug, Clone)]
pub(crate) struct Keys {
    root: String,
}

impl Keys {
    pub(crate) fn new(prefix: &str) -> Keys {
        let prefix = prefix.trim_matches('/');
        let root = match prefix {
            "" => "v1/".to_owned(),
            prefix => format!("{prefix}/v1/"),
        };
        Keys { root }
    }

    /// What every name starts with.
    pub(crate) fn root(&self) -> &str {
        &self.root
    }

    /// What the names of a namespace start with.
    pub(crate) fn namespace(&self, namespace: &Namespace) -> String {
        format!("{}{}/", self.root, namespace.as_str().replace('/', "!"))
    }

    /// The name of a record.
    pub(crate) fn object(&self, key: &RecordKey) -> String {
        let mut name = self.namespace(&key.namespace);
        match key.kind {
            RecordKind::Blob(function) => name.push_str(function.name()),
            RecordKind::Entry(kind) => {
                name.push_str(ENTRIES);
                name.push('/');
                name.push_str(kind.as_str());
            }
        }
        let hex = hex(&key.id);
        // Writing to a string does not fail.
        let _ = write!(name, "/{}/{hex}", &hex[..2]);
        name
    }

    /// The inverse of [`Keys::object`]; `None` for what we did not name.
    pub(crate) fn parse(&self, name: &str) -> Option<RecordKey> {
        let mut parts = name.strip_prefix(&self.root)?.split('/');
        let namespace = Namespace::new(&parts.next()?.replace('!', "/")).ok()?;
        let kind = match parts.next()? {
            ENTRIES => RecordKind::Entry(entry_kind(parts.next()?)?),
            function => RecordKind::Blob(Function::from_name(function)?),
        };
        let (folder, digits) = (parts.next()?, parts.next()?);
        let id = unhex(digits)?;
        let ours = digits.starts_with(folder) && folder.len() == 2 && parts.next().is_none();
        ours.then_some(RecordKey {
            namespace,
            kind,
            id,
        })
    }
}

fn entry_kind(name: &str) -> Option<EntryKind> {
    EntryKind::ALL
        .into_iter()
        .find(|kind| kind.as_str() == name)
}

fn hex(id: &[u8; 32]) -> String {
    id.iter().fold(String::with_capacity(64), |mut text, byte| {
        let _ = write!(text, "{byte:02x}");
        text
    })
}

fn unhex(digits: &str) -> Option<[u8; 32]> {
    let lower = |c: u8| c.is_ascii_digit() || (b'a'..=b'f').contains(&c);
    if digits.len() != 64 || !digits.bytes().all(lower) {
        return None;
    }
    let mut id = [0; 32];
    for (byte, at) in id.iter_mut().zip((0..64).step_by(2)) {
        *byte = u8::from_str_radix(&digits[at..at + 2], 16).ok()?;
    }
    Some(id)
}

#[cfg(test)]
mod tests {
    use zimcache_types::{Digest, EntryKey};

    use super::*;

    fn namespace(name: &str) -> Namespace {
        Namespace::new(name).unwrap()
    }

    #[test]
    fn names_read_back_as_the_record_they_were_made_of() {
        let keys = Keys::new("/clusters/one/");
        for function in Function::ALL {
            let digest = Digest::of(function, b"a body");
            let key = RecordKey::blob(&namespace("team-1/ios"), &digest);
            let name = keys.object(&key);
            assert!(name.starts_with("clusters/one/v1/team-1!ios/"), "{name}");
            assert_eq!(keys.parse(&name), Some(key));
        }
        for kind in EntryKind::ALL {
            let key = EntryKey::new(namespace("e"), kind, "../../x").unwrap();
            let key = RecordKey::entry(&key);
            assert_eq!(keys.parse(&keys.object(&key)), Some(key));
        }
    }

    #[test]
    fn no_namespace_lies_inside_another() {
        let keys = Keys::new("");
        let blob = |name| {
            keys.object(&RecordKey::blob(
                &namespace(name),
                &Digest::of(Function::Sha256, b"x"),
            ))
        };
        let outer = keys.namespace(&namespace("a"));
        assert!(blob("a").starts_with(&outer));
        for other in ["a/sha256", "a/e", "ab", "a.", "a/b"] {
            assert!(!blob(other).starts_with(&outer), "{other}");
        }
    }

    #[test]
    fn names_that_are_not_ours_are_passed_over() {
        let keys = Keys::new("p");
        let good = keys.object(&RecordKey::blob(
            &Namespace::default(),
            &Digest::of(Function::Sha256, b"x"),
        ));
        assert!(keys.parse(&good).is_some());
        for bad in [
            good.replace("p/v1", "p/v2"),
            good.replace("sha256", "sha255"),
            format!("{good}/x"),
            good.to_uppercase(),
            good[..good.len() - 1].to_owned(),
            "p/v1/".to_owned(),
        ] {
            assert!(keys.parse(&bad).is_none(), "{bad}");
        }
    }
}
