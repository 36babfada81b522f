//! What is known under a URI: which blob or directory it means, since when, and what has to be there with it.
//!
//! One entry per URI and digest function, whose key is a hash of everything that tells assets apart; the readable start
//! of the URI stands in front of it for people. Not here: the Remote Asset API (`protocol::reapi::asset`), fetching from
//! elsewhere (`fetching`). Invariants: an asset is a hit only when it and everything it refers to is present, and then
//! all of it is leased; what may be secret in a URI (a user, a query) is in no key.

use bytes::Bytes;
use prost::Message;
use zimcache_proto::reapi;
use zimcache_store::{ByteRange, EntryMeta, Precondition};
use zimcache_types::{Digest, EntryKey, EntryKind, Function, Hash, Namespace, Timestamp};

use crate::{
    Error,
    action::{DirectoryReference, References},
    body::Held,
    cache::{Cache, Named, alarm},
    completeness::Found,
    error::Result,
};

/// Most blobs and directories that an asset may refer to.
pub(crate) const MOST_REFERENCES: usize = 10_000;
/// Largest record: so many digests of the longest hash fit well.
const MOST_RECORD_BYTES: u64 = 4 << 20;
/// How much of a URI stands in a key.
const SHOWN_BYTES: usize = 256;

/// What a URI means.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) enum Kind {
    Blob,
    Directory,
}

impl Kind {
    const fn as_str(self) -> &'static str {
        match self {
            Kind::Blob => "blob",
            Kind::Directory => "directory",
        }
    }
}

/// What tells assets apart.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(crate) struct Name {
    pub(crate) kind: Kind,
    pub(crate) uri: String,
    /// Names and values of qualifiers, in order.
    pub(crate) qualifiers: Vec<(String, String)>,
}

impl Name {
    fn key(&self, namespace: &Namespace, function: Function) -> Result<EntryKey> {
        let mut told = vec![function.number()];
        let qualifiers = self.qualifiers.iter();
        let texts = qualifiers.flat_map(|(name, value)| [name, value]);
        for text in std::iter::once(&self.uri).chain(texts) {
            told.extend((text.len() as u64).to_le_bytes());
            told.extend(text.as_bytes());
        }
        let hash = Digest::of(Function::Sha256, &told).hash;
        let text = format!("{}/{}#{hash}", self.kind.as_str(), shown(&self.uri));
        EntryKey::new(namespace.clone(), EntryKind::Asset, text)
            .ok_or(Error::Key("the URI is too long"))
    }
}

/// The start of a URI, as far as it may be shown.
fn shown(uri: &str) -> &str {
    let start = uri.split(['?', '#']).next().unwrap_or_default();
    if start.contains('@') {
        return "";
    }
    &start[..start.floor_char_boundary(SHOWN_BYTES)]
}

/// What is known of an asset.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Asset {
    /// The blob, or the directory at the root.
    pub(crate) digest: Digest,
    /// Blobs and directories that have to be there with it, of the same function.
    pub(crate) blobs: Vec<Digest>,
    pub(crate) directories: Vec<Digest>,
    /// When it was pushed, or when fetching it began.
    pub(crate) since: Timestamp,
    /// When it ends to be an answer.
    pub(crate) expires: Option<Timestamp>,
}

/// A record as it is stored.
#[derive(Clone, PartialEq, Message)]
struct Saved {
    #[prost(uint32, tag = "1")]
    function: u32,
    #[prost(message, optional, tag = "2")]
    digest: Option<reapi::Digest>,
    #[prost(message, repeated, tag = "3")]
    blobs: Vec<reapi::Digest>,
    #[prost(message, repeated, tag = "4")]
    directories: Vec<reapi::Digest>,
    #[prost(uint64, tag = "5")]
    since_millis: u64,
    #[prost(uint64, optional, tag = "6")]
    expires_millis: Option<u64>,
}

impl Asset {
    fn encode(&self) -> Bytes {
        let all = |digests: &[Digest]| digests.iter().map(message).collect();
        let saved = Saved {
            function: u32::from(self.digest.hash.function().number()),
            digest: Some(message(&self.digest)),
            blobs: all(&self.blobs),
            directories: all(&self.directories),
            since_millis: self.since.0,
            expires_millis: self.expires.map(|at| at.0),
        };
        saved.encode_to_vec().into()
    }

    /// `None` when these bytes are no record.
    fn decode(encoded: Bytes) -> Option<Asset> {
        let saved = Saved::decode(encoded).ok()?;
        let number = u8::try_from(saved.function).ok()?;
        let function = Function::from_number(number)?;
        let read = |digest: &reapi::Digest| {
            let hash = Hash::parse(function, &digest.hash).ok()?;
            let size = u64::try_from(digest.size_bytes).ok()?;
            Some(Digest::sized(hash, size))
        };
        Some(Asset {
            digest: read(&saved.digest?)?,
            blobs: saved.blobs.iter().map(read).collect::<Option<_>>()?,
            directories: saved.directories.iter().map(read).collect::<Option<_>>()?,
            since: Timestamp(saved.since_millis),
            expires: saved.expires_millis.map(Timestamp),
        })
    }

    /// Everything that has to be there.
    fn references(&self, kind: Kind) -> References {
        let mut references = References {
            blobs: self.blobs.clone(),
            directories: self.directories.iter().map(root).collect(),
            ..References::default()
        };
        match kind {
            Kind::Blob => references.blobs.push(self.digest),
            Kind::Directory => references.directories.push(root(&self.digest)),
        }
        references
    }
}

fn message(digest: &Digest) -> reapi::Digest {
    reapi::Digest {
        hash: digest.hash.to_hex(),
        size_bytes: digest.size_bytes.unwrap_or(0).cast_signed(),
    }
}

fn root(digest: &Digest) -> DirectoryReference {
    DirectoryReference {
        tree: None,
        root: Some(*digest),
    }
}

impl Cache {
    /// An asset, if it is known, began no earlier than `oldest`, has not expired, and everything it refers to is
    /// present. That is leased.
    ///
    /// # Errors
    /// `Unavailable` when the store cannot tell.
    pub(crate) async fn asset(
        &self,
        namespace: &Namespace,
        name: &Name,
        function: Function,
        oldest: Timestamp,
        now: Timestamp,
    ) -> Result<Option<Asset>> {
        let key = name.key(namespace, function)?;
        let Some(entry) = self.open_entry(&key, ByteRange::Full).await? else {
            return Ok(None);
        };
        let turn = self.turn_for(entry.value.remaining_bytes()).await;
        let read = entry.value.read_all(MOST_RECORD_BYTES).await;
        drop(turn);
        let Some(bytes) = alarm(read.map(Some), &key.text)? else {
            return Ok(None);
        };
        let fits = |asset: &Asset| {
            let expired = asset.expires.is_some_and(|at| at <= now);
            asset.since >= oldest && !expired
        };
        let Some(asset) = Asset::decode(bytes).filter(fits) else {
            return Ok(None);
        };
        let references = asset.references(name.kind);
        let found = self.find_all(namespace, references, true).await?;
        Ok((found == Found::All).then_some(asset))
    }

    /// Remembers an asset under all of these names. It has to be present; of what it refers to, only what is present is
    /// kept in mind.
    ///
    /// # Errors
    /// As [`Cache::put_entry`].
    pub(crate) async fn push_asset(
        &self,
        namespace: &Namespace,
        names: &[Name],
        mut asset: Asset,
    ) -> Result<Found> {
        let kind = names.first().map_or(Kind::Blob, |name| name.kind);
        let (blobs, directories) = (
            std::mem::take(&mut asset.blobs),
            std::mem::take(&mut asset.directories),
        );
        let own = asset.references(kind);
        let found = self.find_all(namespace, own, true).await?;
        if found != Found::All {
            return Ok(found);
        }
        let missing = self.missing_blobs(namespace, &blobs, true).await?;
        let present = blobs.into_iter().zip(missing);
        asset.blobs = present
            .filter_map(|(digest, gone)| (!gone).then_some(digest))
            .collect();
        for directory in directories {
            let references = References {
                directories: vec![root(&directory)],
                ..References::default()
            };
            if self.find_all(namespace, references, true).await? == Found::All {
                asset.directories.push(directory);
            }
        }
        self.remember_asset(namespace, names, &asset).await?;
        Ok(Found::All)
    }

    /// Remembers an asset that is known to be present.
    ///
    /// # Errors
    /// As [`Cache::put_entry`].
    pub(crate) async fn remember_asset(
        &self,
        namespace: &Namespace,
        names: &[Name],
        asset: &Asset,
    ) -> Result<()> {
        let encoded = asset.encode();
        let function = asset.digest.hash.function();
        let puts = names.iter().map(|name| async {
            let key = name.key(namespace, function)?;
            let mut body = Held::new(encoded.clone());
            let put = self.put_entry(&key, EntryMeta::default(), Precondition::None, &mut body);
            put.await.map(drop)
        });
        futures_util::future::try_join_all(puts).await.map(drop)
    }

    /// The function under which a blob is present, where its name leaves that open; else the likeliest.
    ///
    /// # Errors
    /// `Unavailable` when the store cannot tell.
    pub(crate) async fn settled(&self, namespace: &Namespace, named: &Named) -> Result<Digest> {
        for digest in self.readings(namespace, named) {
            if self.missing_blobs(namespace, &[digest], true).await? == [false] {
                return Ok(digest);
            }
        }
        Ok(named.digest)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn name(uri: &str, qualifiers: &[(&str, &str)]) -> Name {
        let owned = |(name, value): &(&str, &str)| ((*name).to_owned(), (*value).to_owned());
        Name {
            kind: Kind::Blob,
            uri: uri.to_owned(),
            qualifiers: qualifiers.iter().map(owned).collect(),
        }
    }

    fn key(name: &Name) -> String {
        let key = name.key(&Namespace::default(), Function::Sha256).unwrap();
        key.text.into()
    }

    #[test]
    fn a_key_shows_where_an_asset_is_from_and_no_secret() {
        let plain = key(&name("https://h/a/b.zip", &[]));
        assert!(plain.starts_with("blob/https://h/a/b.zip#"), "{plain}");
        let signed = key(&name("https://h/a?signature=s3cret", &[]));
        assert!(signed.starts_with("blob/https://h/a#"), "{signed}");
        let user = key(&name("https://ada:s3cret@h/a", &[]));
        assert!(user.starts_with("blob/#"), "{user}");
        let long = key(&name(&"ö".repeat(9000), &[]));
        assert!(long.len() < EntryKey::MAX_LEN, "{long}");
    }

    #[test]
    fn whatever_tells_assets_apart_tells_their_keys_apart() {
        let mut all = vec![
            key(&name("u", &[])),
            key(&name("u?1", &[])),
            key(&name("u", &[("a", "bc")])),
            key(&name("u", &[("ab", "c")])),
            key(&name("u", &[("a", "b"), ("c", "")])),
        ];
        let directory = Name {
            kind: Kind::Directory,
            ..name("u", &[])
        };
        all.push(key(&directory));
        let other = directory.key(&Namespace::default(), Function::Blake3);
        all.push(other.unwrap().text.into());
        let count = all.len();
        all.sort();
        all.dedup();
        assert_eq!(all.len(), count);
    }

    #[test]
    fn a_record_reads_back_as_it_was_written() {
        let digest = |text: &str| Digest::of(Function::Sha512, text.as_bytes());
        let asset = Asset {
            digest: digest("a"),
            blobs: vec![digest("b"), digest("c")],
            directories: vec![digest("d")],
            since: Timestamp(7),
            expires: Some(Timestamp(9)),
        };
        assert_eq!(Asset::decode(asset.encode()), Some(asset));
        assert_eq!(Asset::decode(Bytes::from_static(b"\x08\x01")), None);
        assert_eq!(Asset::decode(Bytes::from_static(b"{}")), None);
    }
}
