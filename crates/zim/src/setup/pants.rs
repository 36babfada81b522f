//! Pants' remote cache: `.pants.rc`, which is not shared, because a table of `pants.toml` cannot stand in it twice.

use super::{
    check::{Outcome, Probe},
    reapi::{self, Blobs},
    snippet::{Cache, FilePart, Merge, Part, Place, Snippet},
};
use crate::error::Result;

/// The variable of `[GLOBAL].remote_oauth_bearer_token`.
const TOKEN: &str = "PANTS_REMOTE_OAUTH_BEARER_TOKEN";

pub(super) fn snippet(cache: &Cache) -> Snippet {
    let mut text = format!(
        "[GLOBAL]\nremote_cache_read = true\nremote_cache_write = true\nremote_store_address = \"{}\"\n",
        reapi::url(cache)
    );
    if let Some(namespace) = &cache.namespace {
        text.extend(["remote_instance_name = \"", namespace.as_str(), "\"\n"]);
    }
    let mut parts = vec![Part::File(FilePart {
        place: Place::Project,
        path: ".pants.rc",
        comment: ("# ", ""),
        merge: Merge::Whole,
        text,
        secret: false,
    })];
    parts.extend(
        cache
            .token()
            .map(|token| Part::Variables(vec![(TOKEN, token)])),
    );
    Snippet {
        parts,
        notes: vec!["For everybody, the same lines go into [GLOBAL] of pants.toml."],
    }
}

pub(super) fn check(probe: &Probe<'_>) -> Result<Outcome> {
    reapi::check(probe, Blobs::Batched)
}
