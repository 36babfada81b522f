//! reclient's cache without remote execution: variables of reproxy and rewrapper.

use super::{
    check::{Outcome, Probe},
    reapi::{self, Blobs},
    snippet::{Cache, Part, Snippet},
};
use crate::error::Result;

pub(super) fn snippet(cache: &Cache) -> Snippet {
    let yes = || "true".to_owned();
    let mut variables = vec![("RBE_service", cache.authority())];
    if !cache.is_https() {
        variables.push(("RBE_service_no_security", yes()));
    }
    // What it calls authentication is Google's.
    variables.push(("RBE_service_no_auth", yes()));
    let namespace = cache.namespace.as_ref();
    variables.extend(namespace.map(|name| ("RBE_instance", name.to_string())));
    let token = cache.token();
    variables.extend(token.map(|token| {
        (
            "RBE_remote_headers",
            format!("authorization=Bearer {token}"),
        )
    }));
    // Actions run here, and their results are shared.
    variables.push(("RBE_exec_strategy", "local".to_owned()));
    Snippet {
        parts: vec![Part::Variables(variables)],
        notes: vec!["Who may only read sets RBE_remote_update_cache=false."],
    }
}

pub(super) fn check(probe: &Probe<'_>) -> Result<Outcome> {
    reapi::check(probe, Blobs::Batched)
}
