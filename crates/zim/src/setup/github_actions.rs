//! Clients of the GitHub Actions cache (sccache, BuildKit, the toolkit's): variables that lead them here.

use http::Method;
use serde_json::{Value, json};

use super::{
    check::{Outcome, Probe, same},
    snippet::{Cache, Part, Snippet},
};
use crate::error::Result;

const SERVICE: &str = "/twirp/github.actions.results.api.v1.CacheService";

pub(super) fn snippet(cache: &Cache) -> Snippet {
    // The client sends no request without a token; a server that asks for none takes any.
    let token = cache.token().unwrap_or_else(|| "none".to_owned());
    Snippet {
        parts: vec![Part::Variables(vec![
            ("ACTIONS_CACHE_SERVICE_V2", "on".to_owned()),
            ("ACTIONS_RESULTS_URL", cache.at("/")),
            ("ACTIONS_RUNTIME_TOKEN", token),
            ("SCCACHE_GHA_ENABLED", "on".to_owned()),
        ])],
        notes: vec!["The last one is for sccache alone."],
    }
}

/// As the second version of the protocol goes: reserve, upload, finish, look up, download.
pub(super) fn check(probe: &Probe<'_>) -> Result<Outcome> {
    let (key, version) = (format!("zimcache-check/{}", probe.hex(32)), probe.hex(64));
    let mut body = json!({ "key": key, "version": version });
    let looked_up = call(probe, "GetCacheEntryDownloadURL", &body)?;
    same(looked_up["ok"] != json!(true), "a look-up of a new key")?;
    let Some(reserved) = reserve(probe, &body)? else {
        return Ok(Outcome::ReadOnly);
    };
    let upload = reserved["signed_upload_url"].as_str().unwrap_or_default();
    let kind = [("x-ms-blob-type", "BlockBlob")];
    let upload = probe.local(upload);
    probe.expect_signed(Method::PUT, &upload, &kind, probe.value(), &[200, 201])?;
    body["size_bytes"] = json!(probe.value().len().to_string());
    let finished = call(probe, "FinalizeCacheEntryUpload", &body)?;
    same(finished["ok"] == json!(true), "the end of the upload")?;
    let found = call(probe, "GetCacheEntryDownloadURL", &body)?;
    let download = found["signed_download_url"].as_str().unwrap_or_default();
    let download = probe.local(download);
    let answer = probe.expect_signed(Method::GET, &download, &[], &[], &[200])?;
    same(answer.body == probe.value(), "the download")?;
    Ok(Outcome::Works)
}

fn call(probe: &Probe<'_>, name: &str, body: &Value) -> Result<Value> {
    let path = probe.room(&format!("{SERVICE}/{name}"));
    let json = [("content-type", "application/json")];
    let text = body.to_string();
    let answer = probe.expect(Method::POST, &path, &json, text.as_bytes(), &[200])?;
    Ok(serde_json::from_slice(&answer.body).unwrap_or_default())
}

/// The place for an upload; `None` when the caller may only read.
fn reserve(probe: &Probe<'_>, body: &Value) -> Result<Option<Value>> {
    let path = probe.room(&format!("{SERVICE}/CreateCacheEntry"));
    let json = [("content-type", "application/json")];
    let text = body.to_string();
    let answer = probe.expect(Method::POST, &path, &json, text.as_bytes(), &[200, 403])?;
    let reserved: Value = serde_json::from_slice(&answer.body).unwrap_or_default();
    Ok((answer.status == 200 && reserved["ok"] == json!(true)).then_some(reserved))
}
