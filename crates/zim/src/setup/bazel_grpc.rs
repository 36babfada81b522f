//! Bazel over gRPC: lines of `.bazelrc`. With a token they go to the home's file, because a project's is shared.
//!
//! Better than HTTP where nothing on the way is in HTTP/2's: Bazel asks what is there before it sends, and goes on where
//! an upload was cut.

use super::{
    bazel::rc,
    check::{Outcome, Probe},
    reapi::{self, Blobs},
    snippet::{Cache, Snippet},
};
use crate::error::Result;

pub(super) fn snippet(cache: &Cache) -> Snippet {
    let mut text = format!("build --remote_cache={}\n", reapi::url(cache));
    if let Some(namespace) = &cache.namespace {
        text.extend(["build --remote_instance_name=", namespace.as_str(), "\n"]);
    }
    let mut snippet = rc(cache, text);
    snippet
        .notes
        .push("Bazel 5 and later can send and receive zstd: build --remote_cache_compression.");
    snippet
}

pub(super) fn check(probe: &Probe<'_>) -> Result<Outcome> {
    reapi::check(probe, Blobs::Streamed)
}
