//! What an action result and a tree say, read without trusting them.
//!
//! A message is walked field by field where it lies: nothing is copied but digests, so that a body of a few bytes cannot
//! unfold into gigabytes, and a look-up costs no string. Not here: whether anything is present (`completeness`).
//! Invariants: an accepted action result names no path outside the working directory and only well-formed digests; what
//! is accepted decodes. Where the digest function is not known, the length of a hash tells it.

use bytes::Bytes;
use zimcache_proto::{
    Message, reapi,
    wire::{Field, fields, slices},
};
use zimcache_types::{Digest, Function, Hash};

/// Most blobs that one action result may refer to, directories' content included.
pub(crate) const MAX_REFERENCES: usize = 500_000;

/// Why a message was refused.
pub(crate) type Refusal = &'static str;

const WRONG_TYPE: Refusal = "a field has the wrong type";
const NOT_DECODED: Refusal = "a field does not decode";
const NO_FILE_DIGEST: Refusal = "an output file has no digest";

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
    /// Whether it says how the action was run, be it with nothing in it.
    pub(crate) has_metadata: bool,
}

/// Reads an action result whose digests are of this function.
///
/// # Errors
/// A sentence that says what is wrong with it.
pub(crate) fn parse(encoded: &[u8], function: Option<Function>) -> Result<References, Refusal> {
    let mut references = References::default();
    let mut known = encoded.is_empty();
    for field in slices(encoded) {
        let (number, field) = field.map_err(|_| "it is not a protocol buffer message")?;
        known |= reapi::ActionResult::FIELDS.contains(&number);
        if references.blobs.len() + references.directories.len() > MAX_REFERENCES {
            return Err("it refers to too many blobs");
        }
        references.take(number, field, function)?;
    }
    // Random bytes may pass for a message of unknown fields only.
    if !known {
        return Err("it has no field of an action result");
    }
    Ok(references)
}

impl References {
    fn take(
        &mut self,
        number: u32,
        field: Field<&[u8]>,
        function: Option<Function>,
    ) -> Result<(), Refusal> {
        match (number, field) {
            (2, Field::Bytes(file)) => {
                let digest = OutputFile::read(file)?.digest.ok_or(NO_FILE_DIGEST)?;
                self.blobs.push(digest.under(function)?);
            }
            (3, Field::Bytes(directory)) => {
                self.directories.push(read_directory(directory, function)?);
            }
            // Some clients send an empty digest where there is no output.
            (6 | 8, Field::Bytes(stream)) => match RawDigest::read(stream)? {
                none if none == RawDigest::default() => {}
                stream => self.blobs.push(stream.under(function)?),
            },
            (9, Field::Bytes(metadata)) => {
                decode::<reapi::ExecutedActionMetadata>(metadata)?;
                self.has_metadata = true;
            }
            (10..=12, Field::Bytes(link)) => {
                check_path(&decode::<reapi::OutputSymlink>(link)?.path)?;
            }
            (4, Field::Number(_)) | (5 | 7, Field::Bytes(_)) => {}
            (2..=12, _) => return Err(WRONG_TYPE),
            _ => {}
        }
        Ok(())
    }
}

/// A digest where it lies.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) struct RawDigest<'a> {
    hash: &'a str,
    size_bytes: i64,
}

impl<'a> RawDigest<'a> {
    /// Reads an encoded digest.
    ///
    /// # Errors
    /// When it does not decode.
    pub(crate) fn read(encoded: &'a [u8]) -> Result<RawDigest<'a>, Refusal> {
        let mut digest = RawDigest::default();
        digest.merge(encoded).map(|()| digest)
    }

    fn merge(&mut self, encoded: &'a [u8]) -> Result<(), Refusal> {
        for field in known_fields(encoded) {
            match field? {
                (1, Field::Bytes(hash)) => self.hash = text(hash)?,
                (2, Field::Number(size)) => self.size_bytes = size.cast_signed(),
                (1 | 2, _) => return Err(WRONG_TYPE),
                _ => {}
            }
        }
        Ok(())
    }

    /// The digest that it is under this function, or under the one that its length tells.
    ///
    /// # Errors
    /// When hash or size are malformed.
    pub(crate) fn under(self, function: Option<Function>) -> Result<Digest, Refusal> {
        let parsed = match function {
            Some(function) => Hash::parse(function, self.hash),
            None => Hash::parse_untyped(self.hash),
        };
        let hash = parsed.map_err(|_| "a digest's hash is malformed")?;
        let size = u64::try_from(self.size_bytes).map_err(|_| "a digest's size is negative")?;
        Ok(Digest::sized(hash, size))
    }
}

/// An output file where it lies.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct OutputFile<'a> {
    /// Where it is to be written.
    pub(crate) path: &'a str,
    /// Its content.
    pub(crate) digest: Option<RawDigest<'a>>,
    /// How many bytes of the content are in the message itself.
    pub(crate) inlined_bytes: usize,
}

impl<'a> OutputFile<'a> {
    /// Reads an encoded output file.
    ///
    /// # Errors
    /// When it does not decode, or its path is none of a file in the working directory.
    pub(crate) fn read(encoded: &'a [u8]) -> Result<OutputFile<'a>, Refusal> {
        let (mut path, mut digest, mut inlined_bytes) = ("", None, 0);
        for field in known_fields(encoded) {
            match field? {
                (1, Field::Bytes(named)) => path = text(named)?,
                (2, Field::Bytes(named)) => merge(&mut digest, named)?,
                (5, Field::Bytes(contents)) => inlined_bytes = contents.len(),
                (7, Field::Bytes(properties)) => drop(decode::<reapi::NodeProperties>(properties)?),
                (4, Field::Number(_)) => {}
                (1 | 2 | 4 | 5 | 7, _) => return Err(WRONG_TYPE),
                _ => {}
            }
        }
        check_path(path)?;
        if path.is_empty() {
            return Err("an output file has no path");
        }
        Ok(OutputFile {
            path,
            digest,
            inlined_bytes,
        })
    }
}

fn read_directory(
    encoded: &[u8],
    function: Option<Function>,
) -> Result<DirectoryReference, Refusal> {
    let (mut tree, mut root) = (None, None);
    for field in known_fields(encoded) {
        match field? {
            (1, Field::Bytes(path)) => check_path(text(path)?)?,
            (3, Field::Bytes(digest)) => merge(&mut tree, digest)?,
            (5, Field::Bytes(digest)) => merge(&mut root, digest)?,
            (4, Field::Number(_)) => {}
            (1 | 3 | 4 | 5, _) => return Err(WRONG_TYPE),
            _ => {}
        }
    }
    if tree.is_none() && root.is_none() {
        return Err("an output directory has no digest");
    }
    let under = |digest: RawDigest<'_>| digest.under(function);
    Ok(DirectoryReference {
        tree: tree.map(under).transpose()?,
        root: root.map(under).transpose()?,
    })
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

/// Reads a tree whose digests are of this function.
///
/// # Errors
/// A sentence that says what is wrong with it.
pub(crate) fn parse_tree(
    encoded: &Bytes,
    function: Option<Function>,
) -> Result<TreeReferences, Refusal> {
    let mut tree = TreeReferences::default();
    let mut root = None;
    for field in fields(encoded) {
        match field.map_err(|_| "it is not a protocol buffer message")? {
            (1, Field::Bytes(directory)) => root = Some(directory),
            (2, Field::Bytes(directory)) => tree.held.push(directory),
            (1 | 2, _) => return Err(WRONG_TYPE),
            _ => {}
        }
    }
    tree.held.insert(0, root.ok_or("a tree has no root")?);
    for directory in &tree.held {
        let (files, directories) = parse_directory(directory, function)?;
        tree.files.extend(files);
        tree.directories.extend(directories);
        if tree.files.len() + tree.directories.len() > MAX_REFERENCES {
            return Err("it refers to too many blobs");
        }
    }
    Ok(tree)
}

/// Reads a directory whose digests are of this function: those of its files and of its directories.
///
/// # Errors
/// A sentence that says what is wrong with it.
pub(crate) fn parse_directory(
    encoded: &[u8],
    function: Option<Function>,
) -> Result<(Vec<Digest>, Vec<Digest>), Refusal> {
    let (mut files, mut directories) = (Vec::new(), Vec::new());
    for field in slices(encoded) {
        match field.map_err(|_| "it is not a protocol buffer message")? {
            (1, Field::Bytes(node)) => files.push(read_node(node, function, true)?),
            (2, Field::Bytes(node)) => directories.push(read_node(node, function, false)?),
            (3, Field::Bytes(node)) => check_name(&decode::<reapi::SymlinkNode>(node)?.name)?,
            (5, Field::Bytes(properties)) => drop(decode::<reapi::NodeProperties>(properties)?),
            (1..=3 | 5, _) => return Err(WRONG_TYPE),
            _ => {}
        }
    }
    Ok((files, directories))
}

/// Reads an entry of a directory: name and digest lie in the same fields for files and directories.
fn read_node(encoded: &[u8], function: Option<Function>, is_file: bool) -> Result<Digest, Refusal> {
    let (mut name, mut digest) = ("", None);
    for field in known_fields(encoded) {
        match field? {
            (1, Field::Bytes(named)) => name = text(named)?,
            (2, Field::Bytes(named)) => merge(&mut digest, named)?,
            (4, Field::Number(_)) => {}
            (6, Field::Bytes(properties)) if is_file => {
                decode::<reapi::NodeProperties>(properties)?;
            }
            (1 | 2, _) => return Err(WRONG_TYPE),
            (4 | 6, _) if is_file => return Err(WRONG_TYPE),
            _ => {}
        }
    }
    check_name(name)?;
    let digest = digest.ok_or("a directory's entry has no digest")?;
    digest.under(function)
}

/// A field that is there twice is one message: what is said last counts.
fn merge<'a>(digest: &mut Option<RawDigest<'a>>, encoded: &'a [u8]) -> Result<(), Refusal> {
    digest.get_or_insert_default().merge(encoded)
}

fn known_fields(encoded: &[u8]) -> impl Iterator<Item = Result<(u32, Field<&[u8]>), Refusal>> {
    slices(encoded).map(|field| field.map_err(|_| NOT_DECODED))
}

fn text(bytes: &[u8]) -> Result<&str, Refusal> {
    str::from_utf8(bytes).map_err(|_| NOT_DECODED)
}

fn decode<M: Message + Default>(encoded: &[u8]) -> Result<M, Refusal> {
    M::decode(encoded).map_err(|_| NOT_DECODED)
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
