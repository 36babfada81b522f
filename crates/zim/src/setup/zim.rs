//! `zim` itself: its settings, by its own commands.

use super::{
    check::{Outcome, Probe},
    snippet::{Cache, Part, Snippet},
};
use crate::error::Result;

pub(super) fn snippet(cache: &Cache) -> Snippet {
    let set = |key: &str, value: &str| Part::Command(format!("zim config set {key} {value}"));
    let mut parts = vec![set("cache.remote", cache.server())];
    parts.extend(cache.token().map(|token| set("cache.token", &token)));
    let namespace = cache.namespace.as_ref();
    parts.extend(namespace.map(|name| set("cache.namespace", name.as_str())));
    Snippet {
        parts,
        notes: vec!["zim login checks the token before it keeps it."],
    }
}

pub(super) fn check(probe: &Probe<'_>) -> Result<Outcome> {
    probe.round_trip(&probe.blob_path("/api/v1/objects/"), &[])
}
