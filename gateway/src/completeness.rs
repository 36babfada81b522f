//! Whether everything an action result refers to is present: files, standard output and error, and every file and
//! directory inside its output directories.
//!
//! An action result with a lost blob is worse than none: Bazel trusts it and fails later. So it is handed out only
//! when everything is there, and what was seen is leased. Not here: parsing (`action`). Invariants: all blobs are asked
//! for in one batch (a second one for hashes that may be of another function), bounded by
//! [`action::MAX_REFERENCES`]; what lies inside a directory is of the function under which the directory was found; the
//! turn of a large tree is given back before another one is waited for.

use std::collections::HashSet;

use bytes::Bytes;
use zimcache_store::{ByteRange, Touch};
use zimcache_types::{Digest, Function, Namespace};

use crate::{
    action::{self, DirectoryReference, References, Refusal},
    cache::{Cache, alarm, readings},
    error::Result,
};

/// Largest encoded tree or directory that is looked into.
const MAX_TREE_BYTES: u64 = 32 << 20;

/// What was found of everything that an action result refers to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Found {
    /// All of it; it is leased.
    All,
    /// Not these blobs.
    Missing(Vec<Digest>),
    /// A directory that cannot be looked into.
    Malformed(Refusal),
}

impl Cache {
    /// Looks for everything. Unless the function of the digests is certain, they may be of any that has hashes of their
    /// length.
    pub(crate) async fn find_all(
        &self,
        namespace: &Namespace,
        references: References,
        certain: bool,
    ) -> Result<Found> {
        let mut search = Search {
            cache: self,
            namespace,
            certain,
            wanted: references.blobs,
            lost: Vec::new(),
        };
        for directory in &references.directories {
            if let Err(refusal) = search.expand(directory).await? {
                return Ok(Found::Malformed(refusal));
            }
        }
        search.finish().await
    }

    /// A directory or tree, whole: under which digest it was found, and its bytes, or why they are not looked into.
    /// `None` when it is absent.
    pub(crate) async fn directory(
        &self,
        namespace: &Namespace,
        digest: &Digest,
        certain: bool,
    ) -> Result<Option<(Digest, Result<Bytes, Refusal>)>> {
        let own = certain.then_some(digest.hash);
        let any = readings(&digest.hash).filter(|_| !certain);
        for hash in own.into_iter().chain(any) {
            let digest = Digest { hash, ..*digest };
            let opened = self.blobs.open(namespace, &digest, ByteRange::Full).await;
            let Some(reader) = alarm(opened, &hash)? else {
                continue;
            };
            let size = reader.remaining_bytes();
            if size > MAX_TREE_BYTES {
                return Ok(Some((digest, Err("a directory is too large"))));
            }
            let _turn = self.turn_for(size).await;
            let bytes = alarm(reader.read_all(MAX_TREE_BYTES).await.map(Some), &hash)?;
            return Ok(bytes.map(|bytes| (digest, Ok(bytes))));
        }
        Ok(None)
    }
}

/// A search that is under way.
#[derive(Debug)]
struct Search<'a> {
    cache: &'a Cache,
    namespace: &'a Namespace,
    certain: bool,
    /// What is still to be looked for.
    wanted: Vec<Digest>,
    /// What is known to be missing.
    lost: Vec<Digest>,
}

impl Search<'_> {
    /// Adds everything inside an output directory.
    async fn expand(&mut self, directory: &DirectoryReference) -> Result<Result<(), Refusal>> {
        if let Some(tree) = &directory.tree
            && let Err(refusal) = self.expand_tree(tree).await?
        {
            return Ok(Err(refusal));
        }
        match directory.root {
            Some(root) => self.expand_hierarchy(root).await,
            None => Ok(Ok(())),
        }
    }

    /// A tree holds its directories itself; each one that is named must be among them.
    async fn expand_tree(&mut self, digest: &Digest) -> Result<Result<(), Refusal>> {
        let found = self.cache.directory(self.namespace, digest, self.certain);
        let Some((found, encoded)) = found.await? else {
            self.lost.push(*digest);
            return Ok(Ok(()));
        };
        Ok(encoded.and_then(|encoded| self.take_tree(found, &encoded)))
    }

    fn take_tree(&mut self, found: Digest, encoded: &Bytes) -> Result<(), Refusal> {
        let function = found.hash.function();
        let tree = action::parse_tree(encoded, Some(function))?;
        let held: HashSet<Digest> = tree
            .held
            .iter()
            .map(|held| Digest::of(function, held))
            .collect();
        if !tree.directories.iter().all(|named| held.contains(named)) {
            return Err("a tree lacks a directory that it names");
        }
        self.wanted.push(found);
        self.wanted.extend(tree.files);
        self.check_length(0)
    }

    /// A hierarchy has one blob per directory.
    async fn expand_hierarchy(&mut self, root: Digest) -> Result<Result<(), Refusal>> {
        let mut seen = HashSet::from([root]);
        let mut todo = vec![root];
        while let Some(digest) = todo.pop() {
            let found = self.cache.directory(self.namespace, &digest, self.certain);
            let Some((found, encoded)) = found.await? else {
                self.lost.push(digest);
                continue;
            };
            let named = |encoded: Bytes| self.take_directory(found, &encoded);
            let directories = match encoded.and_then(named) {
                Ok(directories) => directories,
                Err(refusal) => return Ok(Err(refusal)),
            };
            todo.extend(directories.into_iter().filter(|child| seen.insert(*child)));
            if let Err(refusal) = self.check_length(todo.len()) {
                return Ok(Err(refusal));
            }
        }
        Ok(Ok(()))
    }

    /// Adds the files of a directory; gives the directories in it.
    fn take_directory(&mut self, found: Digest, encoded: &Bytes) -> Result<Vec<Digest>, Refusal> {
        let function: Function = found.hash.function();
        let (files, directories) = action::parse_directory(encoded, Some(function))?;
        self.wanted.push(found);
        self.wanted.extend(files);
        Ok(directories)
    }

    fn check_length(&self, more: usize) -> Result<(), Refusal> {
        if self.wanted.len() + self.lost.len() + more > action::MAX_REFERENCES {
            return Err("it refers to too many blobs");
        }
        Ok(())
    }

    /// One batch under the likeliest hash function, and one for what may be of another.
    async fn finish(mut self) -> Result<Found> {
        let wanted = std::mem::take(&mut self.wanted);
        let (mut again, mut others) = (Vec::new(), Vec::new());
        for digest in self.absent(wanted).await? {
            match self.other_reading(&digest) {
                Some(other) => {
                    again.push(digest);
                    others.push(other);
                }
                None => self.lost.push(digest),
            }
        }
        let absent: HashSet<Digest> = self.absent(others.clone()).await?.into_iter().collect();
        for (digest, other) in again.into_iter().zip(others) {
            if absent.contains(&other) {
                self.lost.push(digest);
            } else {
                let function = other.hash.function();
                self.cache.functions.learn(self.namespace, function);
            }
        }
        if self.lost.is_empty() {
            return Ok(Found::All);
        }
        self.lost.sort_unstable();
        self.lost.dedup();
        Ok(Found::Missing(self.lost))
    }

    /// Those of them that are absent; the others are leased.
    async fn absent(&self, digests: Vec<Digest>) -> Result<Vec<Digest>> {
        if digests.is_empty() {
            return Ok(digests);
        }
        let found = self
            .cache
            .blobs
            .missing(self.namespace, &digests, Touch::Lease);
        let missing = found.await?;
        let named = digests.into_iter().zip(missing);
        Ok(named
            .filter_map(|(digest, gone)| gone.then_some(digest))
            .collect())
    }

    fn other_reading(&self, digest: &Digest) -> Option<Digest> {
        let function = digest.hash.function();
        let hash = readings(&digest.hash).find(|hash| hash.function() > function)?;
        (!self.certain).then_some(Digest { hash, ..*digest })
    }
}
