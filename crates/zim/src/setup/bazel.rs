//! Bazel's HTTP cache: lines of `.bazelrc`. With a token they go to the home's file, because a project's is shared.

use super::{
    check::{Outcome, Probe},
    snippet::{Cache, Credentials, FilePart, Merge, Part, Place, Snippet},
};
use crate::error::Result;

/// An action result that says nothing but exit code 7.
const ACTION_RESULT: [u8; 2] = [4 << 3, 7];

const NO_VARIABLES: &str = "Bazel reads no variables in .bazelrc: write the token itself there.";

pub(super) fn snippet(cache: &Cache) -> Snippet {
    rc(cache, format!("build --remote_cache={}\n", cache.at("")))
}

/// Lines of `.bazelrc`, and one for the token.
pub(super) fn rc(cache: &Cache, mut text: String) -> Snippet {
    let token = cache.token();
    if let Some(token) = &token {
        let line = format!("build --remote_header=\"Authorization=Bearer {token}\"\n");
        text.push_str(&line);
    }
    let by_variable = cache.credentials == Credentials::Variable;
    Snippet {
        parts: vec![Part::File(FilePart {
            place: if token.is_some() {
                Place::Home
            } else {
                Place::Project
            },
            path: ".bazelrc",
            comment: ("# ", ""),
            merge: Merge::Block {
                foreign: &[
                    "build --remote_cache=",
                    "common --remote_cache=",
                    "build --remote_instance_name",
                    "common --remote_instance_name",
                ],
            },
            text,
            secret: token.is_some(),
        })],
        notes: by_variable.then_some(NO_VARIABLES).into_iter().collect(),
    }
}

pub(super) fn check(probe: &Probe<'_>) -> Result<Outcome> {
    let blob = probe.blob_path("/cas/");
    let outcome = probe.round_trip(&blob, &[])?;
    if outcome == Outcome::ReadOnly {
        return Ok(outcome);
    }
    let action = probe.room(&format!("/ac/{}", probe.hex(64)));
    probe.round_trip_of(&action, &[], &ACTION_RESULT)
}
