//! moon's remote cache over gRPC, with blobs as zstd: a block of `.moon/workspace.yml`. An empty instance name leaves it
//! to the token which namespace is meant.

use super::{
    check::{Outcome, Probe},
    moon::workspace,
    reapi::{self, Blobs},
    snippet::{Cache, Snippet},
};
use crate::error::Result;

pub(super) fn snippet(cache: &Cache) -> Snippet {
    workspace(cache, "grpc", &reapi::url(cache), "    compression: zstd\n")
}

pub(super) fn check(probe: &Probe<'_>) -> Result<Outcome> {
    reapi::check(probe, Blobs::Batched)
}
