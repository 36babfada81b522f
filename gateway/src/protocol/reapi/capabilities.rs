//! What this server can do: `Capabilities.GetCapabilities`.
//!
//! It must work for every client at its start, whatever instance name it gives. `update_enabled` tells the caller's own
//! right, with one exception: Bazel before 6 ends the build when it may not write, so it is told that it may, and each
//! write is refused instead, which it only warns of.

use base64::{Engine as _, engine::general_purpose::STANDARD_NO_PAD};
use http::{HeaderMap, Response};
use zimcache_auth::Scope;
use zimcache_proto::{
    Message as _,
    reapi::{
        ActionCacheUpdateCapabilities, CacheCapabilities, FastCdc2020Params,
        GetCapabilitiesRequest, PriorityCapabilities, RepMaxCdcParams, RequestMetadata,
        ServerCapabilities, compressor, priority_capabilities::PriorityRange,
        symlink_absolute_path_strategy,
    },
    semver::SemVer,
};

use super::{batch, digests, room_of};
use crate::{
    body::Body,
    call::Call,
    chunks,
    grpc::{self, Messages, Outcome},
};

/// Minor version of the newest interface spoken: 2.12.
const NEWEST_MINOR: i32 = 12;
/// First Bazel that takes `update_enabled: false` for what it says (bazelbuild/bazel#16624).
const HONEST_BAZEL: u32 = 6;
/// First Bazel that is known to take an upload up where it was cut.
const RESUMING_BAZEL: u32 = 4;
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
        max_batch_total_size_bytes: size(batch::MOST_BYTES as u64),
        symlink_absolute_path_strategy: symlink_absolute_path_strategy::Value::Allowed.into(),
        supported_compressors: zstd.clone(),
        supported_batch_update_compressors: zstd,
        max_cas_blob_size_bytes: size(config.max_blob_size.as_u64()),
        split_blob_support: true,
        splice_blob_support: true,
        fast_cdc_2020_params: Some(FastCdc2020Params {
            avg_chunk_size_bytes: chunks::FAST_CDC.avg_chunk_size_bytes(),
            seed: chunks::FAST_CDC.seed(),
        }),
        rep_max_cdc_params: Some(RepMaxCdcParams {
            min_chunk_size_bytes: chunks::REP_MAX_CDC.min_chunk_size_bytes(),
            horizon_size_bytes: chunks::REP_MAX_CDC.horizon_size_bytes(),
        }),
    }
}

fn size(bytes: u64) -> i64 {
    i64::try_from(bytes).unwrap_or(i64::MAX)
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
    bazel(headers).is_some_and(|major| major < HONEST_BAZEL)
}

/// Whether the caller is a Bazel that cannot take an upload up anywhere but at its start: 2.1.0 ends it with a
/// `NullPointerException`, 4.2.3 goes on.
pub(super) fn breaks_when_resuming(headers: &HeaderMap) -> bool {
    bazel(headers).is_some_and(|major| (1..RESUMING_BAZEL).contains(&major))
}

/// The major version of a calling Bazel; 0 where it shows none.
fn bazel(headers: &HeaderMap) -> Option<u32> {
    let (name, version) = tool(headers)?;
    let major = version
        .split('.')
        .next()
        .and_then(|major| major.parse().ok())
        .unwrap_or(0);
    (name == "bazel").then_some(major)
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

#[cfg(test)]
mod tests {
    use http::HeaderValue;
    use zimcache_proto::reapi::ToolDetails;

    use super::*;

    fn calling(tool_name: &str, tool_version: &str) -> HeaderMap {
        let metadata = RequestMetadata {
            tool_details: Some(ToolDetails {
                tool_name: tool_name.to_owned(),
                tool_version: tool_version.to_owned(),
            }),
            ..RequestMetadata::default()
        };
        let value = STANDARD_NO_PAD.encode(metadata.encode_to_vec());
        let value = HeaderValue::try_from(value).unwrap();
        HeaderMap::from_iter([(http::header::HeaderName::from_static(METADATA), value)])
    }

    #[test]
    fn old_releases_of_bazel_are_spared_what_breaks_them() {
        let spared = |name, version| {
            let headers = calling(name, version);
            (
                breaks_without_updates(&headers),
                breaks_when_resuming(&headers),
            )
        };
        assert_eq!(spared("bazel", "2.1.0"), (true, true));
        assert_eq!(spared("bazel", "4.2.3"), (true, false));
        // Debian's package of 4.2.3.
        assert_eq!(spared("bazel", ""), (true, false));
        assert_eq!(spared("bazel", "8.0.0"), (false, false));
        assert_eq!(spared("moon", "2.5.5"), (false, false));
        let nobody = HeaderMap::new();
        assert!(!breaks_without_updates(&nobody) && !breaks_when_resuming(&nobody));
    }
}
