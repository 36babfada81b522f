//! recc's cache without remote execution: variables. The token is in a file of its own.

use super::{
    check::{Outcome, Probe},
    reapi::{self, Blobs},
    snippet::{Cache, Part, Snippet},
};
use crate::error::Result;

pub(super) fn snippet(cache: &Cache) -> Snippet {
    let token = reapi::token_file(cache);
    let mut variables = vec![("RECC_SERVER", cache.origin())];
    let namespace = cache.namespace.as_ref();
    variables.extend(namespace.map(|name| ("RECC_INSTANCE", name.to_string())));
    if token.is_some() {
        variables.push((
            "RECC_ACCESS_TOKEN_PATH",
            format!("$HOME/{}", reapi::TOKEN_FILE),
        ));
    }
    // What is not there is compiled here, and shared.
    variables.push(("RECC_CACHE_ONLY", "1".to_owned()));
    variables.push(("RECC_CACHE_UPLOAD_LOCAL_BUILD", "1".to_owned()));
    let mut notes = vec!["Who may only read leaves RECC_CACHE_UPLOAD_LOCAL_BUILD out."];
    if token.is_some() && !cache.is_https() {
        notes.push(reapi::NEEDS_TLS);
    }
    Snippet {
        parts: [Part::Variables(variables)]
            .into_iter()
            .chain(token)
            .collect(),
        notes,
    }
}

pub(super) fn check(probe: &Probe<'_>) -> Result<Outcome> {
    reapi::check(probe, Blobs::Batched)
}
