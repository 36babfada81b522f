//! What a member remembers of the others across restarts: which store each had when all that it should have had been
//! given to it. A small JSON file beside the store, or whatever a simulation puts in its place.
//!
//! Invariant: the file is replaced whole; a crash leaves the old or the new one.

use std::{collections::BTreeMap, fmt, io, path::PathBuf};

use async_trait::async_trait;
use parking_lot::Mutex;
use serde::{Deserialize, Serialize};
use tokio::{fs, io::AsyncWriteExt as _, sync::Semaphore};

/// Why the notes cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum NotesError {
    /// The file cannot be read or written.
    #[error("cannot use {path}")]
    Io {
        /// Which file.
        path: PathBuf,
        /// The operating system's answer.
        #[source]
        source: io::Error,
    },
    /// The file is not what we wrote.
    #[error("{path} does not hold the notes of a node")]
    Malformed {
        /// Which file.
        path: PathBuf,
    },
}

/// The file's content.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Content {
    /// Store of each member, by its id.
    stores: BTreeMap<String, [u8; 16]>,
}

/// Where notes are written down.
#[async_trait]
pub trait Paper: Send + Sync + fmt::Debug + 'static {
    /// Where that is, for messages.
    fn path(&self) -> PathBuf;

    /// What was written last; an error of the kind `NotFound` when there is nothing yet.
    ///
    /// # Errors
    /// When it cannot be read.
    async fn read(&self) -> io::Result<Vec<u8>>;

    /// Replaces what is written, durably and as a whole.
    ///
    /// # Errors
    /// When it cannot be written; what was there before stays.
    async fn replace(&self, content: &[u8]) -> io::Result<()>;
}

/// What is remembered.
#[derive(Debug)]
pub struct Notes {
    paper: Box<dyn Paper>,
    content: Mutex<Content>,
    /// One writer at a time.
    writing: Semaphore,
}

impl Notes {
    /// Reads them from a file; there are none at first.
    ///
    /// # Errors
    /// [`NotesError`].
    pub async fn open(path: PathBuf) -> Result<Notes, NotesError> {
        Notes::on(Box::new(File(path))).await
    }

    /// Reads them from wherever they are; there are none at first.
    ///
    /// # Errors
    /// [`NotesError`].
    pub async fn on(paper: Box<dyn Paper>) -> Result<Notes, NotesError> {
        let path = paper.path();
        let content = match paper.read().await {
            Ok(bytes) => match serde_json::from_slice(&bytes) {
                Ok(content) => content,
                Err(_) => return Err(NotesError::Malformed { path }),
            },
            Err(error) if error.kind() == io::ErrorKind::NotFound => Content::default(),
            Err(source) => return Err(NotesError::Io { path, source }),
        };
        Ok(Notes {
            paper,
            content: Mutex::new(content),
            writing: Semaphore::new(1),
        })
    }

    /// The store a member had.
    pub fn store_of(&self, member: &str) -> Option<[u8; 16]> {
        self.content.lock().stores.get(member).copied()
    }

    /// Remembers a member's store, durably.
    ///
    /// # Errors
    /// [`NotesError::Io`]; it is not remembered then.
    pub async fn remember(&self, member: &str, store: [u8; 16]) -> Result<(), NotesError> {
        let _writing = self.writing.acquire().await;
        let mut content = self.content.lock().clone();
        content.stores.insert(member.to_owned(), store);
        let written = match serde_json::to_vec_pretty(&content) {
            Ok(bytes) => self.paper.replace(&bytes).await,
            Err(error) => Err(error.into()),
        };
        written.map_err(|source| NotesError::Io {
            path: self.paper.path(),
            source,
        })?;
        *self.content.lock() = content;
        Ok(())
    }
}

/// A file that is replaced by renaming.
#[derive(Debug)]
struct File(PathBuf);

#[async_trait]
impl Paper for File {
    fn path(&self) -> PathBuf {
        self.0.clone()
    }

    async fn read(&self) -> io::Result<Vec<u8>> {
        fs::read(&self.0).await
    }

    async fn replace(&self, content: &[u8]) -> io::Result<()> {
        let new = self.0.with_extension("new");
        let mut file = fs::File::create(&new).await?;
        file.write_all(content).await?;
        file.sync_all().await?;
        fs::rename(&new, &self.0).await?;
        match self.0.parent() {
            Some(folder) => fs::File::open(folder).await?.sync_all().await,
            None => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn what_was_remembered_is_there_after_a_restart() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("members.json");
        let notes = Notes::open(path.clone()).await.unwrap();
        assert_eq!(notes.store_of("a"), None);
        notes.remember("a", [1; 16]).await.unwrap();
        notes.remember("b", [2; 16]).await.unwrap();
        notes.remember("a", [3; 16]).await.unwrap();
        let notes = Notes::open(path.clone()).await.unwrap();
        assert_eq!(notes.store_of("a"), Some([3; 16]));
        assert_eq!(notes.store_of("b"), Some([2; 16]));
        fs::write(&path, "nonsense").await.unwrap();
        let refused = Notes::open(path).await;
        assert!(matches!(refused, Err(NotesError::Malformed { .. })));
    }
}
