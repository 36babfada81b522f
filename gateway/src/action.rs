//! What an action result and a tree say, read without trusting them.
//!
//! A message is walked field by field: one output at a time is decoded, so that a body of a few bytes cannot unfold
//! into gigabytes. Not here: whether anything is present (`completeness`). Invariant: an accepted action result names
//! no path outside the working directory and only well-formed digests.

use bytes::Bytes;
use zimcache_proto::{
    Message,
    reapi::{self, OutputDirectory, OutputFile, OutputSymlink},
    wire::{Field, fields},
};
use zimcache_types::{Digest, Hash};

/// Most blobs that one action result may refer to, directories' content included.
pub(crate) const MAX_REFERENCES: usize = 500_000;

/// Why a message was refused.
pub(crate) type Refusal = &'static str;

/// An output directory of an action result.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct DirectoryReference {
    /// The encoded tree.
    pub(crate) tree: Option<Digest>,
    /// The encoded directory at its root.
    pub(crate) root: Option<Digest>,
}

/// What an action result refers to.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(crate) struct References {
    /// Files, standard output and standard error.
    pub(crate) blobs: Vec<Digest>,
    /// Directories, whose content is still to be looked up.
    pub(crate) directories: Vec<DirectoryReference>,
}

/// Reads an action result.
///
/// # Errors
/// A sentence that says what is wrong with it.
pub(crate) fn parse(encoded: &Bytes) -> Result<References, Refusal> {
    let mut references = References::default();
    let mut known = encoded.is_empty();
    for field in fields(encoded) {
        let (number, field) = field.map_err(|_| "it is not a protocol buffer message")?;
        known |= reapi::ActionResult::FIELDS.contains(&number);
        if references.blobs.len() + references.directories.len() > MAX_REFERENCES {
            return Err("it refers to too many blobs");
        }
        references.take(number, field)?;
    }
    // Random bytes may pass for a message of unknown fields only.
    if !known {
        return Err("it has no field of an action result");
    }
    Ok(references)
}

impl References {
    fn take(&mut self, number: u32, field: Field) -> Result<(), Refusal> {
        let wrong = "a field has the wrong type";
        match (number, field) {
            (2, Field::Bytes(file)) => self.take_file(&decode(file)?),
            (3, Field::Bytes(directory)) => self.take_directory(&decode(directory)?),
            (6 | 8, Field::Bytes(stream)) => self.take_stream(&decode(stream)?),
            (10..=12, Field::Bytes(link)) => check_path(&decode::<OutputSymlink>(link)?.path),
            (9, Field::Bytes(metadata)) => {
                decode::<reapi::ExecutedActionMetadata>(metadata).map(drop)
            }
            (4, Field::Number(_)) | (5 | 7, Field::Bytes(_)) => Ok(()),
            (2..=12, _) => Err(wrong),
            _ => Ok(()),
        }
    }

    fn take_file(&mut self, file: &OutputFile) -> Result<(), Refusal> {
        check_path(&file.path)?;
        if file.path.is_empty() {
            return Err("an output file has no path");
        }
        let named = file.digest.as_ref().ok_or("an output file has no digest")?;
        self.blobs.push(digest(named)?);
        Ok(())
    }

    /// Standard output or error; some clients send an empty digest where there is none.
    fn take_stream(&mut self, stream: &reapi::Digest) -> Result<(), Refusal> {
        if *stream != reapi::Digest::default() {
            self.blobs.push(digest(stream)?);
        }
        Ok(())
    }

    fn take_directory(&mut self, directory: &OutputDirectory) -> Result<(), Refusal> {
        check_path(&directory.path)?;
        let tree = directory.tree_digest.as_ref().map(digest).transpose()?;
        let root = directory.root_directory_digest.as_ref();
        let root = root.map(digest).transpose()?;
        if tree.is_none() && root.is_none() {
            return Err("an output directory has no digest");
        }
        self.directories.push(DirectoryReference { tree, root });
        Ok(())
    }
}

/// A tree, read.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(crate) struct TreeReferences {
    /// Every file in it.
    pub(crate) files: Vec<Digest>,
    /// Every directory that one of its directories names.
    pub(crate) directories: Vec<Digest>,
    /// The encoded directories it holds, the root first.
    pub(crate) held: Vec<Bytes>,
}

/// Reads a tree.
///
/// # Errors
/// A sentence that says what is wrong with it.
pub(crate) fn parse_tree(encoded: &Bytes) -> Result<TreeReferences, Refusal> {
    let mut tree = TreeReferences::default();
    let mut root = None;
    for field in fields(encoded) {
        match field.map_err(|_| "it is not a protocol buffer message")? {
            (1, Field::Bytes(directory)) => root = Some(directory),
            (2, Field::Bytes(directory)) => tree.held.push(directory),
            (1 | 2, _) => return Err("a field has the wrong type"),
            _ => {}
        }
    }
    tree.held.insert(0, root.ok_or("a tree has no root")?);
    for directory in tree.held.clone() {
        let (files, directories) = parse_directory(&directory)?;
        tree.files.extend(files);
        tree.directories.extend(directories);
        if tree.files.len() + tree.directories.len() > MAX_REFERENCES {
            return Err("it refers to too many blobs");
        }
    }
    Ok(tree)
}

/// Reads a directory: the digests of its files and of its directories.
///
/// # Errors
/// A sentence that says what is wrong with it.
pub(crate) fn parse_directory(encoded: &Bytes) -> Result<(Vec<Digest>, Vec<Digest>), Refusal> {
    let (mut files, mut directories) = (Vec::new(), Vec::new());
    for field in fields(encoded) {
        match field.map_err(|_| "it is not a protocol buffer message")? {
            (1, Field::Bytes(node)) => {
                let node: reapi::FileNode = decode(node)?;
                files.push(node_digest(&node.name, node.digest.as_ref())?);
            }
            (2, Field::Bytes(node)) => {
                let node: reapi::DirectoryNode = decode(node)?;
                directories.push(node_digest(&node.name, node.digest.as_ref())?);
            }
            (3, Field::Bytes(node)) => check_name(&decode::<reapi::SymlinkNode>(node)?.name)?,
            (5, Field::Bytes(properties)) => drop(decode::<reapi::NodeProperties>(properties)?),
            (1..=3 | 5, _) => return Err("a field has the wrong type"),
            _ => {}
        }
    }
    Ok((files, directories))
}

fn decode<M: Message + Default>(encoded: Bytes) -> Result<M, Refusal> {
    M::decode(encoded).map_err(|_| "a field does not decode")
}

fn node_digest(name: &str, named: Option<&reapi::Digest>) -> Result<Digest, Refusal> {
    check_name(name)?;
    digest(named.ok_or("a directory's entry has no digest")?)
}

fn digest(named: &reapi::Digest) -> Result<Digest, Refusal> {
    let hash = Hash::parse_untyped(&named.hash).map_err(|_| "a digest's hash is malformed")?;
    let size = u64::try_from(named.size_bytes).map_err(|_| "a digest's size is negative")?;
    Ok(Digest::sized(hash, size))
}

/// Clients write outputs where these paths say: none may leave the working directory.
fn check_path(path: &str) -> Result<(), Refusal> {
    if path.starts_with('/') {
        return Err("an output path is absolute");
    }
    if path.split('/').any(|segment| segment == "..") {
        return Err("an output path leaves the working directory");
    }
    if path.contains('\0') {
        return Err("an output path holds a zero byte");
    }
    Ok(())
}

fn check_name(name: &str) -> Result<(), Refusal> {
    let illegal = matches!(name, "" | "." | "..") || name.contains(['/', '\0']);
    if illegal {
        return Err("a directory's entry has an illegal name");
    }
    Ok(())
}
