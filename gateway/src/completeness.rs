//! Whether everything an action result refers to is present: files, standard output and error, and every file and
//! directory inside its output directories.
//!
//! An action result with a lost blob is worse than none: Bazel trusts it and fails later. So it is handed out only
//! when everything is there, and what was seen is leased. Not here: parsing (`action`). Invariant: all blobs are asked
//! for in one batch (a second one for hashes that may be of another function), bounded by
//! [`action::MAX_REFERENCES`].

use std::collections::HashSet;

use bytes::Bytes;
use zimcache_store::{ByteRange, Touch};
use zimcache_types::{Digest, Namespace};

use crate::{
    action::{self, DirectoryReference, References},
    cache::{Cache, alarm, readings},
    error::Result,
};

/// Largest encoded tree or directory that is looked into.
const MAX_TREE_BYTES: u64 = 32 << 20;

impl Cache {
    /// Whether everything is present. Leases it.
    pub(crate) async fn is_complete(
        &self,
        namespace: &Namespace,
        references: References,
    ) -> Result<bool> {
        let mut wanted = references.blobs;
        for directory in &references.directories {
            if !self.expand(namespace, directory, &mut wanted).await? {
                return Ok(false);
            }
        }
        self.all_present(namespace, wanted).await
    }

    /// Adds everything inside an output directory; false when it is known to be incomplete.
    async fn expand(
        &self,
        namespace: &Namespace,
        directory: &DirectoryReference,
        wanted: &mut Vec<Digest>,
    ) -> Result<bool> {
        if let Some(tree) = &directory.tree
            && !self.expand_tree(namespace, tree, wanted).await?
        {
            return Ok(false);
        }
        match directory.root {
            Some(root) => self.expand_hierarchy(namespace, root, wanted).await,
            None => Ok(true),
        }
    }

    /// A tree holds its directories itself; each one that is named must be among them.
    async fn expand_tree(
        &self,
        namespace: &Namespace,
        digest: &Digest,
        wanted: &mut Vec<Digest>,
    ) -> Result<bool> {
        let _turn = self.turn_for(digest.size_bytes.unwrap_or(u64::MAX)).await;
        let Some((found, encoded)) = self.read(namespace, digest).await? else {
            return Ok(false);
        };
        let Ok(tree) = action::parse_tree(&encoded) else {
            return Ok(false);
        };
        let function = found.hash.function();
        let held: HashSet<Digest> = tree
            .held
            .iter()
            .map(|held| Digest::of(function, held))
            .collect();
        let named = |directory: &Digest| {
            let hash = directory.hash.reinterpret(function);
            let size_bytes = directory.size_bytes;
            hash.is_some_and(|hash| held.contains(&Digest { hash, size_bytes }))
        };
        wanted.push(found);
        wanted.extend(tree.files);
        Ok(wanted.len() <= action::MAX_REFERENCES && tree.directories.iter().all(named))
    }

    /// A hierarchy has one blob per directory.
    async fn expand_hierarchy(
        &self,
        namespace: &Namespace,
        root: Digest,
        wanted: &mut Vec<Digest>,
    ) -> Result<bool> {
        let mut seen = HashSet::from([root]);
        let mut todo = vec![root];
        while let Some(digest) = todo.pop() {
            let Some((found, encoded)) = self.read(namespace, &digest).await? else {
                return Ok(false);
            };
            let Ok((files, directories)) = action::parse_directory(&encoded) else {
                return Ok(false);
            };
            wanted.push(found);
            wanted.extend(files);
            todo.extend(directories.into_iter().filter(|child| seen.insert(*child)));
            if wanted.len() + todo.len() > action::MAX_REFERENCES {
                return Ok(false);
            }
        }
        Ok(true)
    }

    /// A whole blob, and the digest under which it was found.
    async fn read(
        &self,
        namespace: &Namespace,
        digest: &Digest,
    ) -> Result<Option<(Digest, Bytes)>> {
        if self.is_empty_hash(&digest.hash) {
            return Ok(Some((*digest, Bytes::new())));
        }
        for hash in readings(&digest.hash) {
            let digest = Digest { hash, ..*digest };
            let opened = self.blobs.open(namespace, &digest, ByteRange::Full).await;
            let Some(reader) = alarm(opened, &hash)? else {
                continue;
            };
            if reader.remaining_bytes() > MAX_TREE_BYTES {
                return Ok(None);
            }
            let bytes = alarm(reader.read_all(MAX_TREE_BYTES).await.map(Some), &hash)?;
            return Ok(bytes.map(|bytes| (digest, bytes)));
        }
        Ok(None)
    }

    /// One batch under the likeliest hash function, and one for what may be of another.
    async fn all_present(&self, namespace: &Namespace, mut wanted: Vec<Digest>) -> Result<bool> {
        wanted.retain(|digest| !self.is_empty_hash(&digest.hash));
        let mut attempt = 0;
        while !wanted.is_empty() {
            let missing = self.blobs.missing(namespace, &wanted, Touch::Lease).await?;
            let mut answers = missing.into_iter();
            wanted.retain(|_| answers.next().unwrap_or(true));
            attempt += 1;
            for digest in &mut wanted {
                match readings(&digest.hash).find(|hash| hash.function() > digest.hash.function()) {
                    Some(other) if attempt == 1 => digest.hash = other,
                    _ => return Ok(false),
                }
            }
        }
        Ok(true)
    }
}
