//! moon's remote cache over HTTP: a block of `.moon/workspace.yml`. The namespace is its instance name; an empty one
//! leaves it to the token, which moon's own default, `moon-outputs`, would not.

use http::Method;

use super::{
    check::{Outcome, Probe, same},
    snippet::{Cache, FilePart, Merge, Part, Place, Snippet, TOKEN_VARIABLE},
};
use crate::error::Result;

const JSON: &str = "application/json";

pub(super) fn snippet(cache: &Cache) -> Snippet {
    workspace(cache, "http", cache.server(), "")
}

/// The block of `.moon/workspace.yml` for an API, with more lines about the cache.
pub(super) fn workspace(cache: &Cache, api: &str, host: &str, more: &str) -> Snippet {
    let instance = cache.namespace.as_ref();
    let instance = instance.map_or_else(String::new, ToString::to_string);
    let mut text = format!(
        "remote:\n  api: {api}\n  host: '{host}'\n  cache:\n    instanceName: '{instance}'\n{more}"
    );
    let variable = cache.token_variable();
    if variable.is_some() {
        text.extend(["  auth:\n    token: ", TOKEN_VARIABLE, "\n"]);
    }
    let file = Part::File(FilePart {
        place: Place::Project,
        path: ".moon/workspace.yml",
        comment: ("# ", ""),
        merge: Merge::Block {
            foreign: &["remote:", "unstable_remote:"],
        },
        text,
        secret: false,
    });
    Snippet {
        parts: [file].into_iter().chain(variable).collect(),
        notes: vec![
            "auth.token is the name of a variable, not a token. In CI, moon ignores hosts called localhost.",
        ],
    }
}

/// As moon does it: its status, a blob, an action result in JSON.
pub(super) fn check(probe: &Probe<'_>) -> Result<Outcome> {
    let instance = probe.namespace().unwrap_or("");
    probe.expect(Method::GET, "/status", &[], &[], &[200, 404])?;
    let blob = probe.round_trip(&probe.own_path(&format!("/{instance}/cas/")), &[])?;
    if blob == Outcome::ReadOnly {
        return Ok(blob);
    }
    let path = format!("/{instance}/ac/{}", probe.hex(64));
    let types = [("content-type", JSON), ("accept", JSON)];
    probe.expect(Method::PUT, &path, &types, br#"{"exitCode":7}"#, &[200])?;
    let answer = probe.expect(Method::GET, &path, &types, &[], &[200])?;
    let result: Option<serde_json::Value> = serde_json::from_slice(&answer.body).ok();
    let exit_code = result.and_then(|value| value.get("exitCode")?.as_i64());
    same(exit_code == Some(7), &path)?;
    Ok(Outcome::Works)
}
