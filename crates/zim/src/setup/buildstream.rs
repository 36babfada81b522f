//! BuildStream's artifact and source caches: a block of the user's configuration. The token is in a file of its own.

use super::{
    check::{Outcome, Probe},
    reapi,
    snippet::{Cache, FilePart, Merge, Part, Place, Snippet},
};
use crate::error::Result;

pub(super) fn snippet(cache: &Cache) -> Snippet {
    let token = reapi::token_file(cache);
    let mut server = format!("  servers:\n  - url: {}\n    push: true\n", cache.origin());
    if let Some(namespace) = &cache.namespace {
        server.extend(["    instance-name: ", namespace.as_str(), "\n"]);
    }
    if token.is_some() {
        server.extend(["    auth: { access-token: ~/", reapi::TOKEN_FILE, " }\n"]);
    }
    let file = Part::File(FilePart {
        place: Place::Home,
        path: ".config/buildstream.conf",
        comment: ("# ", ""),
        merge: Merge::Block {
            foreign: &["artifacts:", "source-caches:"],
        },
        text: format!("artifacts:\n{server}source-caches:\n{server}"),
        secret: false,
    });
    let mut notes = vec!["Who may only read says push: false."];
    if token.is_some() && !cache.is_https() {
        notes.push(reapi::NEEDS_TLS);
    }
    Snippet {
        parts: [file].into_iter().chain(token).collect(),
        notes,
    }
}

pub(super) fn check(probe: &Probe<'_>) -> Result<Outcome> {
    reapi::check_with_asset(probe)
}
