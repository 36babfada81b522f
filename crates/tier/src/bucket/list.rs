//! Listing objects, and uploads that nobody finished.

use futures_util::{StreamExt, stream};
use zimcache_types::{Namespace, Timestamp};

use super::{Bucket, Call, timestamp};
use crate::{Operation, Result};

/// Lists on their way at a time.
const AT_ONCE: usize = 8;

/// An object met in a list.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Listed {
    pub(crate) name: String,
    pub(crate) size_bytes: u64,
    pub(crate) modified: Timestamp,
}

/// A page of a list.
#[derive(Debug, Default)]
struct Page {
    objects: Vec<Listed>,
    folders: Vec<String>,
    next: Option<String>,
}

/// An upload in parts that was begun.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Unfinished {
    pub(crate) name: String,
    pub(crate) upload: String,
    pub(crate) begun: Timestamp,
}

impl Bucket {
    /// Shows every object under a prefix to `visit`, in no order. What comes into being meanwhile may be missed.
    ///
    /// Folders of blobs and of kinds of entries are listed at once, eight at a time.
    ///
    /// # Errors
    /// `NoBucket`, `Unreachable`, `Refused`; then not everything was shown.
    pub(crate) async fn walk<V>(&self, prefix: &str, visit: &V) -> Result<()>
    where
        V: Fn(Listed) + Sync,
    {
        let mut folders = vec![prefix.to_owned()];
        // A namespace, then a function or the kinds of entries: two levels make enough folders to share the work.
        for _ in 0..2 {
            let mut below = Vec::new();
            let mut found = stream::iter(folders.into_iter().map(|folder| self.folders(folder)))
                .buffer_unordered(AT_ONCE);
            while let Some(found) = found.next().await {
                below.extend(found?);
            }
            folders = below;
        }
        let mut lists = stream::iter(
            folders
                .into_iter()
                .map(|folder| self.walk_folder(folder, visit)),
        )
        .buffer_unordered(AT_ONCE);
        while let Some(listed) = lists.next().await {
            listed?;
        }
        Ok(())
    }

    /// One list where a page is enough, else one for each folder below.
    async fn walk_folder<V>(&self, folder: String, visit: &V) -> Result<()>
    where
        V: Fn(Listed) + Sync,
    {
        let page = self.page(&folder, false, None).await?;
        if page.next.is_none() {
            page.objects.into_iter().for_each(visit);
            return Ok(());
        }
        let folders = self.folders(folder).await?;
        let mut lists = stream::iter(
            folders
                .into_iter()
                .map(|below| self.walk_flat(below, visit)),
        )
        .buffer_unordered(AT_ONCE / 2);
        while let Some(listed) = lists.next().await {
            listed?;
        }
        Ok(())
    }

    /// Shows every object under a prefix to `visit`, page after page.
    ///
    /// # Errors
    /// As [`Bucket::walk`].
    async fn walk_flat<V>(&self, prefix: String, visit: &V) -> Result<()>
    where
        V: Fn(Listed) + Sync,
    {
        let mut after = None;
        loop {
            let page = self.page(&prefix, false, after).await?;
            page.objects.into_iter().for_each(visit);
            after = page.next;
            if after.is_none() {
                return Ok(());
            }
        }
    }

    /// The folders right below one.
    async fn folders(&self, folder: String) -> Result<Vec<String>> {
        let (mut folders, mut after) = (Vec::new(), None);
        loop {
            let page = self.page(&folder, true, after).await?;
            folders.extend(page.folders);
            after = page.next;
            if after.is_none() {
                return Ok(folders);
            }
        }
    }

    async fn page(&self, prefix: &str, shallow: bool, after: Option<String>) -> Result<Page> {
        let ask = || async {
            let request = self
                .client()
                .list_objects_v2()
                .bucket(self.name())
                .prefix(prefix)
                .set_delimiter(shallow.then(|| "/".to_owned()))
                .set_continuation_token(after.clone());
            self.call(Call::new(Operation::List), request.send()).await
        };
        let answer = self.retried(ask).await;
        let answer = answer.map_err(|refusal| refusal.into_error(Operation::List))?;
        let objects = answer.contents().iter().filter_map(|object| {
            Some(Listed {
                name: object.key()?.to_owned(),
                size_bytes: u64::try_from(object.size().unwrap_or(0)).unwrap_or(0),
                modified: timestamp(object.last_modified()),
            })
        });
        let folders = answer.common_prefixes().iter();
        Ok(Page {
            objects: objects.collect(),
            folders: folders
                .filter_map(|f| f.prefix().map(str::to_owned))
                .collect(),
            next: answer.next_continuation_token().map(str::to_owned),
        })
    }

    /// Removes every object of a namespace, page by page; how many there were.
    ///
    /// # Errors
    /// `NoBucket`, `Unreachable`, `Refused`; then some may be left.
    pub(crate) async fn purge(&self, namespace: &Namespace) -> Result<u64> {
        let folder = self.keys().namespace(namespace);
        let mut removed = 0;
        loop {
            let page = self.page(&folder, false, None).await?;
            if page.objects.is_empty() {
                return Ok(removed);
            }
            let removals = page
                .objects
                .into_iter()
                .map(|listed| async move { self.remove(&listed.name).await });
            let mut removals = stream::iter(removals).buffer_unordered(AT_ONCE);
            while let Some(gone) = removals.next().await {
                gone?;
                removed += 1;
            }
        }
    }

    /// Uploads in parts that were begun under a prefix and neither ended nor aborted. One page: the next sweep sees
    /// the next.
    ///
    /// # Errors
    /// `NoBucket`, `Unreachable`, `Refused`.
    pub(crate) async fn unfinished(&self, prefix: &str) -> Result<Vec<Unfinished>> {
        let ask = || async {
            let request = self
                .client()
                .list_multipart_uploads()
                .bucket(self.name())
                .prefix(prefix);
            self.call(Call::new(Operation::List), request.send()).await
        };
        let answer = self.retried(ask).await;
        let answer = answer.map_err(|refusal| refusal.into_error(Operation::List))?;
        let uploads = answer.uploads().iter().filter_map(|upload| {
            Some(Unfinished {
                name: upload.key()?.to_owned(),
                upload: upload.upload_id()?.to_owned(),
                begun: timestamp(upload.initiated()),
            })
        });
        Ok(uploads.collect())
    }

    /// Gives an unfinished upload up.
    pub(crate) async fn abort(&self, unfinished: &Unfinished) {
        self.abort_parts(&unfinished.name, &unfinished.upload).await;
    }
}
