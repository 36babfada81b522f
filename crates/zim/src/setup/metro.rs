//! Metro's HTTP store, of React Native: a block of `metro.config.js`.

use super::{
    check::{Outcome, Probe},
    snippet::{Cache, FilePart, Merge, Part, Place, Snippet, TOKEN_VARIABLE},
};
use crate::error::Result;

pub(super) fn snippet(cache: &Cache) -> Snippet {
    let endpoint = cache.at("/api/v1/artifacts");
    let variable = cache.token_variable();
    let headers = match variable {
        Some(_) => {
            format!(", headers: {{ Authorization: `Bearer ${{process.env.{TOKEN_VARIABLE}}}` }}")
        }
        None => String::new(),
    };
    let text = format!(
        "const {{ HttpStore }} = require('metro-cache');\n\
         module.exports.cacheStores = [new HttpStore({{ endpoint: '{endpoint}'{headers} }})];\n"
    );
    let file = Part::File(FilePart {
        place: Place::Project,
        path: "metro.config.js",
        comment: ("// ", ""),
        merge: Merge::Block {
            foreign: &["module.exports.cacheStores", "cacheStores"],
        },
        text,
        secret: false,
    });
    Snippet {
        parts: [file].into_iter().chain(variable).collect(),
        notes: vec![],
    }
}

pub(super) fn check(probe: &Probe<'_>) -> Result<Outcome> {
    let path = format!("/api/v1/artifacts/{}", probe.hex(32));
    probe.round_trip(&probe.room(&path), &[])
}
