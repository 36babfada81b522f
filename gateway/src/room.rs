//! A caller in a namespace: what every dialect acts through.
//!
//! The one place where rights are checked, once per operation, for all dialects. Without a right nothing is told, not
//! even whether something exists. Not here: who the caller is (`call`), what the operations do (`cache`).

use bytes::Bytes;
use zimcache_auth::{Principal, Scope};
use zimcache_proto::reapi::chunking_function::Value as Chunking;
use zimcache_store::{self as store, ByteRange, Entry, EntryInfo, EntryMeta, Precondition, Reader};
use zimcache_types::{Digest, EntryKey, EntryKind, Function, Hash, Namespace, Timestamp};

use crate::{
    Error,
    action_results::{ActionResult, Form, Updated},
    assets::{Asset, Name},
    cache::{Cache, Chunks, Named},
    chunks::{ChunkList, Spliced},
    completeness::Found,
    error::Result,
    uploads::Put,
};

/// Where the caller's rights come from.
#[derive(Debug, Clone)]
enum Rights {
    /// Who it is.
    Of(Principal),
    /// A URL that we signed; whoever has it may do this.
    Signed(Scope),
}

/// A caller in a namespace.
#[derive(Debug, Clone)]
pub(crate) struct Room<'a> {
    cache: &'a Cache,
    rights: Rights,
    namespace: Namespace,
}

impl<'a> Room<'a> {
    /// A caller who may do what the principal may.
    pub(crate) fn new(cache: &'a Cache, principal: Principal, namespace: Namespace) -> Room<'a> {
        Room {
            cache,
            rights: Rights::Of(principal),
            namespace,
        }
    }

    /// The bearer of a URL that was signed for this.
    pub(crate) fn signed(cache: &'a Cache, scope: Scope, namespace: Namespace) -> Room<'a> {
        Room {
            cache,
            rights: Rights::Signed(scope),
            namespace,
        }
    }

    /// Where the caller is.
    pub(crate) fn namespace(&self) -> &Namespace {
        &self.namespace
    }

    /// Whether the caller has a right here.
    pub(crate) fn allows(&self, scope: Scope) -> bool {
        match &self.rights {
            Rights::Of(principal) => principal.may(scope, &self.namespace),
            Rights::Signed(own) => own.includes(scope),
        }
    }

    /// Refuses callers without a right here.
    ///
    /// # Errors
    /// [`Error::Forbidden`].
    pub(crate) fn require(&self, scope: Scope) -> Result<()> {
        if self.allows(scope) {
            return Ok(());
        }
        Err(Error::Forbidden(match scope {
            Scope::Read => "reading in this namespace",
            Scope::Write => "writing in this namespace",
            Scope::Admin => "looking after this namespace",
        }))
    }

    /// The key of an entry here.
    ///
    /// # Errors
    /// [`Error::Key`] when the text is empty or too long.
    pub(crate) fn key(&self, kind: EntryKind, text: impl Into<Box<str>>) -> Result<EntryKey> {
        EntryKey::new(self.namespace.clone(), kind, text)
            .ok_or(Error::Key("the key is empty or too long"))
    }

    /// Opens a blob; see [`Cache::open_blob`].
    pub(crate) async fn open_blob(
        &self,
        named: &Named,
        range: ByteRange,
    ) -> Result<Option<Reader>> {
        self.require(Scope::Read)?;
        self.cache.open_blob(&self.namespace, named, range).await
    }

    /// For each blob whether it is absent; see [`Cache::missing_blobs`].
    pub(crate) async fn missing_blobs(
        &self,
        digests: &[Digest],
        certain: bool,
    ) -> Result<Vec<bool>> {
        self.require(Scope::Read)?;
        let found = self.cache.missing_blobs(&self.namespace, digests, certain);
        found.await
    }

    /// Stores a blob; see [`Cache::put_blob`].
    pub(crate) async fn put_blob(
        &self,
        named: &Named,
        put: Put<'_>,
        body: &mut impl Chunks,
    ) -> Result<()> {
        self.require(Scope::Write)?;
        let put = self.cache.put_blob(&self.namespace, named, put, body);
        put.await
    }

    /// How much of an interrupted upload is held; see [`Cache::held_bytes`].
    pub(crate) async fn held_bytes(&self, named: &Named, resume_as: &str) -> Result<u64> {
        self.require(Scope::Write)?;
        let held = self.cache.held_bytes(&self.namespace, named, resume_as);
        held.await
    }

    /// Removes a blob; see [`Cache::delete_blob`].
    pub(crate) async fn delete_blob(&self, hash: &Hash) -> Result<bool> {
        self.require(Scope::Write)?;
        self.cache.delete_blob(&self.namespace, hash).await
    }

    /// The chunks of a blob; see [`Cache::split_blob`].
    pub(crate) async fn split_blob(
        &self,
        named: &Named,
        wanted: Chunking,
    ) -> Result<Option<ChunkList>> {
        self.require(Scope::Read)?;
        let may_write = self.allows(Scope::Write);
        let split = self
            .cache
            .split_blob(&self.namespace, named, wanted, may_write);
        split.await
    }

    /// Makes a blob of chunks; see [`Cache::splice_blob`].
    pub(crate) async fn splice_blob(&self, named: &Named, list: &ChunkList) -> Result<Spliced> {
        self.require(Scope::Write)?;
        self.cache.splice_blob(&self.namespace, named, list).await
    }

    /// Opens an entry; see [`Cache::open_entry`].
    pub(crate) async fn open_entry(
        &self,
        kind: EntryKind,
        text: &str,
        range: ByteRange,
    ) -> Result<Option<Entry>> {
        self.require(Scope::Read)?;
        self.cache.open_entry(&self.key(kind, text)?, range).await
    }

    /// Opens an entry of which only what is known about it is wanted: at most its first byte is read.
    pub(crate) async fn peek_entry(&self, kind: EntryKind, text: &str) -> Result<Option<Entry>> {
        const FIRST_BYTE: ByteRange = ByteRange::From {
            first: 0,
            last: Some(0),
        };
        match self.open_entry(kind, text, FIRST_BYTE).await {
            // It is empty, so it has no first byte.
            Err(Error::Store(store::Error::RangeInvalid { .. })) => {
                self.open_entry(kind, text, ByteRange::Full).await
            }
            opened => opened,
        }
    }

    /// Stores an entry; the newest put wins. See [`Cache::put_entry`].
    pub(crate) async fn put_entry(
        &self,
        kind: EntryKind,
        text: &str,
        meta: EntryMeta,
        body: &mut impl Chunks,
    ) -> Result<u64> {
        self.put_entry_if(kind, text, meta, Precondition::None, body)
            .await
    }

    /// Stores an entry when the precondition holds.
    ///
    /// # Errors
    /// `Conflict` when it does not; as [`Cache::put_entry`].
    pub(crate) async fn put_entry_if(
        &self,
        kind: EntryKind,
        text: &str,
        meta: EntryMeta,
        precondition: Precondition,
        body: &mut impl Chunks,
    ) -> Result<u64> {
        self.require(Scope::Write)?;
        let key = self.key(kind, text)?;
        self.cache.put_entry(&key, meta, precondition, body).await
    }

    /// Deletes an entry; see [`Cache::delete_entry`].
    pub(crate) async fn delete_entry(&self, kind: EntryKind, text: &str) -> Result<bool> {
        self.require(Scope::Write)?;
        self.cache.delete_entry(&self.key(kind, text)?).await
    }

    /// Lists entries; see [`Cache::list_entries`].
    pub(crate) async fn list_entries(
        &self,
        kind: EntryKind,
        prefix: &str,
        after: Option<&str>,
        limit: usize,
    ) -> Result<Vec<EntryInfo>> {
        self.require(Scope::Read)?;
        self.cache
            .list_entries(&self.namespace, kind, prefix, after, limit)
            .await
    }

    /// Forgets everything here; see [`Cache::purge`].
    pub(crate) async fn purge(&self) -> Result<()> {
        self.require(Scope::Admin)?;
        self.cache.purge(&self.namespace).await
    }

    /// An action result that is complete; see [`Cache::action_result`].
    pub(crate) async fn action_result(&self, action: &Named) -> Result<Option<ActionResult>> {
        self.require(Scope::Read)?;
        self.cache.action_result(&self.namespace, action).await
    }

    /// Stores an action result that is complete; see [`Cache::update_action_result`].
    pub(crate) async fn update_action_result(
        &self,
        action: &Named,
        result: Bytes,
    ) -> Result<Updated> {
        self.require(Scope::Write)?;
        let updated = self
            .cache
            .update_action_result(&self.namespace, action, result);
        updated.await
    }

    /// Stores an action result; see [`Cache::put_action_result`].
    pub(crate) async fn put_action_result(
        &self,
        action: &Hash,
        form: Form,
        body: &mut impl Chunks,
    ) -> Result<()> {
        self.require(Scope::Write)?;
        self.cache
            .put_action_result(&self.namespace, action, form, body)
            .await
    }

    /// What is known under a URI; see [`Cache::asset`].
    pub(crate) async fn asset(
        &self,
        name: &Name,
        function: Function,
        oldest: Timestamp,
        now: Timestamp,
    ) -> Result<Option<Asset>> {
        self.require(Scope::Read)?;
        self.cache
            .asset(&self.namespace, name, function, oldest, now)
            .await
    }

    /// Remembers what a URI means; see [`Cache::push_asset`].
    pub(crate) async fn push_asset(&self, names: &[Name], asset: Asset) -> Result<Found> {
        self.require(Scope::Write)?;
        self.cache.push_asset(&self.namespace, names, asset).await
    }

    /// Under which function a blob is present; see [`Cache::settled`].
    pub(crate) async fn settled(&self, named: &Named) -> Result<Digest> {
        self.require(Scope::Read)?;
        self.cache.settled(&self.namespace, named).await
    }

    /// Deletes an action result; see [`Cache::delete_action_result`].
    pub(crate) async fn delete_action_result(&self, action: &Hash) -> Result<bool> {
        self.require(Scope::Write)?;
        self.cache
            .delete_action_result(&self.namespace, action)
            .await
    }
}
