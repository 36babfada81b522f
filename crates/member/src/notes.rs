//! What a member remembers of the others across restarts: which store each had when all that it should have had been
//! given to it. A small JSON file beside the store.
//!
//! Invariant: the file is replaced whole; a crash leaves the old or the new one.

use std::{collections::BTreeMap, io, path::PathBuf};

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

/// What is remembered.
#[derive(Debug)]
pub struct Notes {
    path: PathBuf,
    content: Mutex<Content>,
    /// One writer at a time.
    writing: Semaphore,
}

impl Notes {
    /// Reads them; there are none at first.
    ///
    /// # Errors
    /// [`NotesError`].
    pub async fn open(path: PathBuf) -> Result<Notes, NotesError> {
        let content = match fs::read(&path).await {
            Ok(bytes) => match serde_json::from_slice(&bytes) {
                Ok(content) => content,
                Err(_) => return Err(NotesError::Malformed { path }),
            },
            Err(error) if error.kind() == io::ErrorKind::NotFound => Content::default(),
            Err(source) => return Err(NotesError::Io { path, source }),
        };
        Ok(Notes {
            path,
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
        let written = self.write(&content).await;
        written.map_err(|source| NotesError::Io {
            path: self.path.clone(),
            source,
        })?;
        *self.content.lock() = content;
        Ok(())
    }

    async fn write(&self, content: &Content) -> io::Result<()> {
        let bytes = serde_json::to_vec_pretty(content)?;
        let new = self.path.with_extension("new");
        let mut file = fs::File::create(&new).await?;
        file.write_all(&bytes).await?;
        file.sync_all().await?;
        fs::rename(&new, &self.path).await?;
        match self.path.parent() {
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
