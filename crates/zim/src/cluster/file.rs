//! The file of the ring, changed by one command at a time and never half written.

use std::path::Path;

use zimcache_auth::replace::Place;
use zimcache_ring::{Change, Document, next};

use crate::error::{Error, Result};

/// The document in the file.
pub(super) fn read(path: &Path) -> Result<Document> {
    Document::read(path).map_err(|source| unusable(path, source))
}

/// Makes the file; it must not be there.
pub(super) fn create(path: &Path, document: &Document) -> Result<()> {
    let place = Place::lock(path).map_err(Error::RingFile)?;
    if path.exists() {
        return Err(Error::RingExists(path.to_owned()));
    }
    write(&place, path, document)
}

/// Changes what is in the file, and gives what is in it then.
pub(super) fn change(path: &Path, change: &Change) -> Result<Document> {
    let place = Place::lock(path).map_err(Error::RingFile)?;
    let document = next(&read(path)?, change).map_err(Error::RingChange)?;
    write(&place, path, &document)?;
    Ok(document)
}

fn write(place: &Place, path: &Path, document: &Document) -> Result<()> {
    let text = document
        .to_json()
        .map_err(|source| unusable(path, source))?;
    place.replace(&text).map_err(Error::RingFile)
}

fn unusable(path: &Path, source: zimcache_ring::Error) -> Error {
    Error::Ring {
        place: path.display().to_string(),
        source,
    }
}
