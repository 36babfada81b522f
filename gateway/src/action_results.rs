//! Action results: stored byte for byte, handed out only when everything they refer to is present and leased.
//!
//! The key is the action's hash alone: what lies behind it is never looked at, because some clients have no action there.
//! Not here: what a result says (`action`), whether it is complete (`completeness`). Invariants: what is stored was
//! parsed, so that no accepted result names a path outside the working directory; the turn of a large value is given
//! back before another one is waited for.

use bytes::Bytes;
use zimcache_proto::json;
use zimcache_store::{ByteRange, EntryMeta, Precondition};
use zimcache_types::{Digest, EntryKey, EntryKind, Function, Hash, Namespace};

use crate::{
    Error, action,
    cache::{Cache, Chunks, Named, alarm},
    completeness::Found,
    error::Result,
};

/// Largest action result accepted.
pub const MAX_ACTION_RESULT_BYTES: u64 = 32 << 20;

/// How an action result is written where it comes from or goes to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Form {
    /// As an encoded message, as it is stored.
    Binary,
    /// As JSON.
    Json,
}

/// An action result whose references are all present.
#[derive(Debug)]
pub struct ActionResult {
    /// As it was stored.
    pub bytes: Bytes,
    /// Identity of this version.
    pub version: u64,
    /// Whether it says how the action was run.
    pub has_metadata: bool,
}

/// What became of an action result that was to be stored.
#[derive(Debug)]
pub(crate) enum Updated {
    /// It is stored.
    Stored {
        /// Whether it says how the action was run.
        has_metadata: bool,
    },
    /// It is not: these blobs that it refers to are missing.
    Missing(Vec<Digest>),
}

impl Named {
    /// The function of digests that come with this one, where it is known.
    pub(crate) fn function(&self) -> Option<Function> {
        self.certain.then(|| self.digest.hash.function())
    }
}

impl Cache {
    /// An action result, if there is one and everything it refers to is present. What it refers to is leased.
    ///
    /// # Errors
    /// `Unavailable` when the store cannot tell.
    pub async fn action_result(
        &self,
        namespace: &Namespace,
        action: &Named,
    ) -> Result<Option<ActionResult>> {
        let key = action_key(namespace, &action.digest.hash)?;
        let Some(entry) = self.open_entry(&key, ByteRange::Full).await? else {
            return Ok(None);
        };
        let version = entry.version;
        let turn = self.turn_for(entry.value.remaining_bytes()).await;
        let read = entry.value.read_all(MAX_ACTION_RESULT_BYTES).await;
        drop(turn);
        let Some(bytes) = alarm(read.map(Some), &key.text)? else {
            return Ok(None);
        };
        let Ok(references) = action::parse(&bytes, action.function()) else {
            return Ok(None);
        };
        let has_metadata = references.has_metadata;
        let found = self.find_all(namespace, references, action.certain).await?;
        Ok(matches!(found, Found::All).then_some(ActionResult {
            bytes,
            version,
            has_metadata,
        }))
    }

    /// Stores an action result if everything it refers to is present. What it refers to is leased.
    ///
    /// # Errors
    /// `Invalid` when the bytes are none, or name paths outside the working directory; as [`Cache::put_entry`].
    pub(crate) async fn update_action_result(
        &self,
        namespace: &Namespace,
        action: &Named,
        bytes: Bytes,
    ) -> Result<Updated> {
        let limit = self.action_result_limit();
        within(bytes.len() as u64, limit)?;
        let references = action::parse(&bytes, action.function()).map_err(Error::ActionResult)?;
        let has_metadata = references.has_metadata;
        match self.find_all(namespace, references, action.certain).await? {
            Found::All => {}
            Found::Missing(missing) => return Ok(Updated::Missing(missing)),
            Found::Malformed(refusal) => return Err(Error::ActionResult(refusal)),
        }
        let key = action_key(namespace, &action.digest.hash)?;
        self.store_action_result(&key, bytes).await?;
        Ok(Updated::Stored { has_metadata })
    }

    /// Stores an action result, in its binary form: as the bytes that came, or made of the JSON that came. Whether what
    /// it refers to is present is not asked: clients over HTTP have no way to hear of it.
    ///
    /// # Errors
    /// `Invalid` when the body is none or names paths outside the working directory; as [`Cache::put_entry`].
    pub async fn put_action_result(
        &self,
        namespace: &Namespace,
        action: &Hash,
        form: Form,
        body: &mut impl Chunks,
    ) -> Result<()> {
        let limit = self.action_result_limit();
        let announced = body.announced_bytes();
        within(announced.unwrap_or(0), limit)?;
        let _turn = self.turn_for(announced.unwrap_or(u64::MAX)).await;
        let came = collect(body, limit).await?;
        let bytes = match form {
            Form::Binary => came,
            Form::Json => json::read_action_result(&came)?,
        };
        action::parse(&bytes, None).map_err(Error::ActionResult)?;
        let key = action_key(namespace, action)?;
        self.store_action_result(&key, bytes).await
    }

    /// Deletes an action result; false when there was none.
    ///
    /// # Errors
    /// `Unavailable` when the store takes no writes.
    pub async fn delete_action_result(&self, namespace: &Namespace, action: &Hash) -> Result<bool> {
        self.delete_entry(&action_key(namespace, action)?).await
    }

    async fn store_action_result(&self, key: &EntryKey, bytes: Bytes) -> Result<()> {
        let limit = Some(self.action_result_limit());
        let meta = EntryMeta::default();
        let created = self.entries.put(key, meta, Precondition::None, limit);
        let mut writer = created.await?;
        writer.write(bytes).await?;
        writer.commit().await?;
        Ok(())
    }

    fn action_result_limit(&self) -> u64 {
        self.max_value_bytes.min(MAX_ACTION_RESULT_BYTES)
    }
}

fn action_key(namespace: &Namespace, action: &Hash) -> Result<EntryKey> {
    EntryKey::new(namespace.clone(), EntryKind::ActionResult, action.to_hex())
        .ok_or(Error::Key("no such action"))
}

async fn collect(body: &mut impl Chunks, limit: u64) -> Result<Bytes> {
    let Some(first) = body.next().await.transpose()? else {
        return Ok(Bytes::new());
    };
    let Some(second) = body.next().await.transpose()? else {
        return within(first.len() as u64, limit).map(|()| first);
    };
    let mut all = Vec::from(first);
    all.extend_from_slice(&second);
    while let Some(chunk) = body.next().await {
        within(all.len() as u64, limit)?;
        all.extend_from_slice(&chunk?);
    }
    within(all.len() as u64, limit).map(|()| all.into())
}

fn within(size: u64, limit: u64) -> Result<()> {
    if size > limit {
        return Err(Error::TooLarge { limit });
    }
    Ok(())
}
