//! Turborepo's remote cache: variables. Its team is the namespace, so the URL names none.

use http::Method;
use zimcache_types::Namespace;

use super::{
    check::{Outcome, Probe},
    snippet::{Cache, Part, Snippet},
};
use crate::error::Result;

pub(super) fn snippet(cache: &Cache) -> Snippet {
    // turbo sends no request without a token and a team; a server that asks for no token takes any.
    let token = cache.token().unwrap_or_else(|| "none".to_owned());
    let team = cache
        .namespace
        .as_ref()
        .map_or(Namespace::DEFAULT, |name| name.as_str());
    Snippet {
        parts: vec![Part::Variables(vec![
            ("TURBO_API", cache.server().to_owned()),
            ("TURBO_TOKEN", token),
            ("TURBO_TEAM", team.to_owned()),
        ])],
        notes: vec![
            "Read-only: turbo run --cache=local:rw,remote:r. A private authority is named by SSL_CERT_FILE.",
        ],
    }
}

pub(super) fn check(probe: &Probe<'_>) -> Result<Outcome> {
    let team = probe.namespace().unwrap_or(Namespace::DEFAULT);
    let query = crate::ls::query(&[("slug", Some(team))]);
    let status = format!("/v8/artifacts/status{query}");
    probe.expect(Method::GET, &status, &[], &[], &[200])?;
    let path = format!("/v8/artifacts/{}{query}", probe.hex(16));
    let headers = [
        ("content-type", "application/octet-stream"),
        ("x-artifact-duration", "7"),
    ];
    probe.round_trip(&path, &headers)
}
