//! Builder's remote cache: two variables.

use http::Method;

use super::{
    check::{Outcome, Probe},
    snippet::{Cache, Part, Snippet},
};
use crate::error::Result;

pub(super) fn snippet(cache: &Cache) -> Snippet {
    let mut variables = vec![("BUILDER_REMOTE_CACHE_URL", cache.at(""))];
    if let Some(token) = cache.token() {
        variables.push(("BUILDER_REMOTE_CACHE_TOKEN", token));
    }
    Snippet {
        parts: vec![Part::Variables(variables)],
        notes: vec![],
    }
}

/// As the client does it: HEAD before a GET, keys in upper case.
pub(super) fn check(probe: &Probe<'_>) -> Result<Outcome> {
    let key = probe.hex(64).to_uppercase();
    let path = probe.room(&format!("/artifacts/{key}"));
    probe.expect(Method::HEAD, &path, &[], &[], &[404])?;
    probe.round_trip(&path, &[])
}
