//! Nx's self-hosted remote cache: two variables.

use super::{
    check::{Outcome, Probe},
    snippet::{Cache, Part, Snippet},
};
use crate::error::Result;

pub(super) fn snippet(cache: &Cache) -> Snippet {
    let mut variables = vec![("NX_SELF_HOSTED_REMOTE_CACHE_SERVER", cache.at(""))];
    if let Some(token) = cache.token() {
        variables.push(("NX_SELF_HOSTED_REMOTE_CACHE_ACCESS_TOKEN", token));
    }
    Snippet {
        parts: vec![Part::Variables(variables)],
        notes: vec!["Nx 20.8 or later. A private authority is named by SSL_CERT_FILE."],
    }
}

pub(super) fn check(probe: &Probe<'_>) -> Result<Outcome> {
    let path = probe.room(&format!("/v1/cache/{}", probe.decimal()));
    probe.round_trip(&path, &[("content-type", "application/octet-stream")])
}
