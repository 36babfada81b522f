//! What this server can do: `Capabilities.GetCapabilities`.
//!
//! It must work for every client at its start, whatever instance name it gives. `update_enabled` tells the caller's own
//! right, with one exception: Bazel before 7 ends the build when it may not write, so it is told that it may, and each
//! write is refused instead, which it only warns of.

use base64::{Engine as _, engine::general_purpose::STANDARD_NO_PAD};
use http::{HeaderMap, Response};
use zimcache_auth::Scope;
use zimcache_proto::{
    Message as _,
    reapi::{
        ActionCacheUpdateCapabilities, CacheCapabilities, GetCapabilitiesRequest,
        PriorityCapabilities, RequestMetadata, ServerCapabilities, compressor,
        priority_capabilities::PriorityRange, symlink_absolute_path_strategy,
    },
    semver::SemVer,
};

use super::{batch, digests, room_of};
use crate::{
    body::Body,
    call::Call,
    grpc::{self, Messages, Outcome},
};

/// Minor version of the newest interface spoken: 2.12.
const NEWEST_MINOR: i32 = 12;
/// First Bazel that takes `update_enabled: false` for what it says.
const HONEST_BAZEL: u32 = 7;
const METADATA: &str = "build.bazel.remote.execution.v2.requestmetadata-bin";

/// Answers `GetCapabilities`.
pub(super) async fn get(call: Call<'_>) -> Outcome<Response<Body>> {
    call.principal().await?;
    let shared = call.shared;
    let request: GetCapabilitiesRequest = Messages::new(call.upload, &shared.messages)
        .decode()
        .await?;
    let may_write = match room_of(&call, &request.instance_name).await {
        Ok(room) => room.allows(Scope::Write),
        Err(_) => false,
    };
    let update_enabled = may_write || breaks_without_updates(&call.head.headers);
    Ok(grpc::unary(&ServerCapabilities {
        cache_capabilities: Some(cache_capabilities(&call, update_enabled)),
        execution_capabilities: None,
        deprecated_api_version: Some(version(0)),
        low_api_version: Some(version(0)),
        high_api_version: Some(version(NEWEST_MINOR)),
    }))
}

fn cache_capabilities(call: &Call<'_>, update_enabled: bool) -> CacheCapabilities {
    let config = &call.shared.config;
    let functions = digests::functions(config).map(|function| i32::from(function.number()));
    let zstd = vec![compressor::Value::Zstd.into()];
    CacheCapabilities {
        digest_functions: functions.collect(),
        action_cache_update_capabilities: Some(ActionCacheUpdateCapabilities { update_enabled }),
        cache_priority_capabilities: Some(PriorityCapabilities {
            priorities: vec![PriorityRange {
                min_priority: 0,
                max_priority: 0,
            }],
        }),
        max_batch_total_size_bytes: batch::MOST_BYTES as i64,
        symlink_absolute_path_strategy: symlink_absolute_path_strategy::Value::Allowed.into(),
        supported_compressors: zstd.clone(),
        supported_batch_update_compressors: zstd,
        max_cas_blob_size_bytes: i64::try_from(config.max_blob_size.as_u64()).unwrap_or(i64::MAX),
        ..CacheCapabilities::default()
    }
}

fn version(minor: i32) -> SemVer {
    SemVer {
        major: 2,
        minor,
        ..SemVer::default()
    }
}

/// Whether the caller is a Bazel that ends the build when it may not write; packages of Debian show no version.
fn breaks_without_updates(headers: &HeaderMap) -> bool {
    let Some(tool) = tool(headers) else {
        return false;
    };
    let major = tool.1.split('.').next().unwrap_or_default();
    tool.0 == "bazel" && major.parse::<u32>().is_ok_and(|major| major < HONEST_BAZEL)
        || tool.0 == "bazel" && tool.1.is_empty()
}

/// Name and version of the tool that calls, if it says so.
fn tool(headers: &HeaderMap) -> Option<(String, String)> {
    let value = headers.get(METADATA)?.as_bytes();
    let unpadded = value.trim_ascii_end();
    let end = unpadded.iter().rposition(|byte| *byte != b'=')? + 1;
    let decoded = STANDARD_NO_PAD.decode(&unpadded[..end]).ok()?;
    let metadata = RequestMetadata::decode(decoded.as_slice()).ok()?;
    let details = metadata.tool_details?;
    Some((details.tool_name, details.tool_version))
}
