//! Buck2's remote cache: a section of `.buckconfig.local`, which is not shared. The token is a variable's.

use super::{
    check::{Outcome, Probe},
    reapi::{self, Blobs},
    snippet::{Cache, FilePart, Merge, Part, Place, Snippet, TOKEN_VARIABLE},
};
use crate::error::Result;

pub(super) fn snippet(cache: &Cache) -> Snippet {
    let url = reapi::url(cache);
    let mut text = "[buck2_re_client]\n".to_owned();
    for role in ["engine", "action_cache", "cas"] {
        text.extend([role, "_address = ", &url, "\n"]);
    }
    let tls = if cache.is_https() { "true" } else { "false" };
    text.extend(["tls = ", tls, "\n"]);
    if let Some(namespace) = &cache.namespace {
        text.extend(["instance_name = ", namespace.as_str(), "\n"]);
    }
    let variable = cache.token_variable();
    if variable.is_some() {
        text.extend([
            "http_headers = Authorization: Bearer $",
            TOKEN_VARIABLE,
            "\n",
        ]);
    }
    let file = Part::File(FilePart {
        place: Place::Project,
        path: ".buckconfig.local",
        comment: ("# ", ""),
        merge: Merge::Block {
            foreign: &["[buck2_re_client]"],
        },
        text,
        secret: false,
    });
    Snippet {
        parts: [file].into_iter().chain(variable).collect(),
        notes: vec![
            "The execution platform has to say remote_cache_enabled = True and allow_cache_uploads = True.",
        ],
    }
}

pub(super) fn check(probe: &Probe<'_>) -> Result<Outcome> {
    reapi::check(probe, Blobs::Batched)
}
