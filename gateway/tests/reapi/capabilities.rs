//! `Capabilities`: what each caller is told that this server can do.

use base64::{Engine as _, engine::general_purpose::STANDARD};
use bazel_remote_apis::build::bazel::{
    remote::execution::v2::{
        CacheCapabilities, GetCapabilitiesRequest, RequestMetadata, ServerCapabilities,
        ToolDetails, chunking_function, compressor, digest_function,
        symlink_absolute_path_strategy,
    },
    semver::SemVer,
};
use prost::Message;
use tonic::{Code, Request, metadata::MetadataValue};

use crate::{
    clients::{bearing, capabilities},
    support::{Outcome, Server, code, within},
    wire,
};

async fn told(
    server: &Server,
    request: impl tonic::IntoRequest<GetCapabilitiesRequest>,
) -> Outcome<ServerCapabilities> {
    let answer = within(capabilities(server).get_capabilities(request)).await?;
    Ok(answer.into_inner())
}

fn of(instance_name: &str) -> GetCapabilitiesRequest {
    GetCapabilitiesRequest {
        instance_name: instance_name.to_owned(),
    }
}

async fn cache(server: &Server) -> CacheCapabilities {
    let told = told(server, of("")).await.unwrap();
    told.cache_capabilities.unwrap()
}

fn may_update(told: ServerCapabilities) -> bool {
    let cache = told.cache_capabilities.unwrap();
    let update = cache.action_cache_update_capabilities.unwrap();
    update.update_enabled
}

#[tokio::test]
async fn versions_from_two_zero_to_the_newest_are_spoken() {
    let server = Server::start().await;
    let told = told(&server, of("")).await.unwrap();
    let version = |minor| {
        Some(SemVer {
            major: 2,
            minor,
            ..SemVer::default()
        })
    };
    assert_eq!(told.deprecated_api_version, version(0));
    assert_eq!(told.low_api_version, version(0));
    assert_eq!(told.high_api_version, version(12));
}

#[tokio::test]
async fn there_is_an_answer_for_every_instance_name() {
    let server = Server::start().await;
    let expected = told(&server, of("")).await.unwrap();
    assert!(may_update(expected.clone()));
    for instance in ["main", "a/b", "moon-outputs", "never seen before"] {
        let answer = told(&server, of(&instance.replace(' ', "-"))).await;
        assert_eq!(answer.unwrap(), expected);
    }
    // Names under which nothing can be stored.
    for instance in ["/", "a/../b", "a b", "ü"] {
        let answer = told(&server, of(instance)).await.unwrap();
        assert_eq!(answer.high_api_version, expected.high_api_version);
        assert!(!may_update(answer), "{instance}");
    }
}

#[tokio::test]
async fn this_is_a_cache_and_executes_nothing() {
    let server = Server::start().await;
    let told = told(&server, of("")).await.unwrap();
    assert_eq!(told.execution_capabilities, None);
}

#[tokio::test]
async fn the_digest_functions_are_listed_and_md5_only_where_it_was_asked_for() {
    use digest_function::Value::{Blake3, Gitsha1, Md5, Sha1, Sha256, Sha256tree, Sha384, Sha512};
    let server = Server::start().await;
    let listed = cache(&server).await;
    let functions: Vec<_> = listed.digest_functions().collect();
    let usual = [Sha256, Blake3, Sha1, Sha384, Sha512, Sha256tree, Gitsha1];
    assert_eq!(functions, usual);
    let server = Server::with(|config| config.md5_digests = true).await;
    let listed = cache(&server).await;
    let functions: Vec<_> = listed.digest_functions().collect();
    assert_eq!(functions, [&usual[..], &[Md5]].concat());
}

#[tokio::test]
async fn a_batch_may_hold_a_little_less_than_four_mebibytes() {
    let server = Server::start().await;
    let most = cache(&server).await.max_batch_total_size_bytes;
    assert_eq!(most, (4 << 20) - (64 << 10));
}

#[tokio::test]
async fn the_largest_blob_is_the_one_of_the_settings() {
    let server = Server::with(|config| config.max_blob_size = "5 MiB".parse().unwrap()).await;
    let most = cache(&server).await.max_cas_blob_size_bytes;
    assert_eq!(most, 5 << 20);
}

#[tokio::test]
async fn zstd_is_taken_and_given_in_streams_and_in_batches() {
    let server = Server::start().await;
    let cache = cache(&server).await;
    let zstd = [i32::from(compressor::Value::Zstd)];
    assert_eq!(cache.supported_compressors, zstd);
    assert_eq!(cache.supported_batch_update_compressors, zstd);
}

#[tokio::test]
async fn blobs_can_be_split_and_spliced_by_parameters_that_clients_accept() {
    let server = Server::start().await;
    let cache = cache(&server).await;
    assert!(cache.split_blob_support && cache.splice_blob_support);
    let fast = cache.fast_cdc_2020_params.unwrap();
    assert_eq!((fast.avg_chunk_size_bytes, fast.seed), (524_288, 0));
    assert!((1 << 10..=1 << 20).contains(&fast.avg_chunk_size_bytes));
    let max = cache.rep_max_cdc_params.unwrap();
    assert_eq!(max.min_chunk_size_bytes, 262_144);
    assert_eq!(max.horizon_size_bytes, 8 * max.min_chunk_size_bytes);
    assert_eq!(i32::from(chunking_function::Value::FastCdc2020), 1);
}

#[tokio::test]
async fn there_is_one_priority_and_links_may_lead_anywhere() {
    let server = Server::start().await;
    let cache = cache(&server).await;
    let priorities = cache.cache_priority_capabilities.unwrap().priorities;
    let [priority] = &priorities[..] else {
        panic!("{priorities:?}");
    };
    assert_eq!((priority.min_priority, priority.max_priority), (0, 0));
    let allowed = symlink_absolute_path_strategy::Value::Allowed;
    assert_eq!(cache.symlink_absolute_path_strategy, i32::from(allowed));
}

#[tokio::test]
async fn who_may_write_is_told_so_and_who_may_only_read_is_told_that() {
    let (policy, tokens) = wire::guarded("team");
    let server = Server::with_policy(policy).await;
    for (token, instance, expected) in [
        (&tokens.read, "team", false),
        (&tokens.write, "team", true),
        (&tokens.admin, "team", true),
        (&tokens.write, "other", false),
        (&tokens.write, "", true),
        (&tokens.read, "", false),
    ] {
        let told = told(&server, bearing(token, of(instance))).await.unwrap();
        assert_eq!(may_update(told), expected, "{instance}");
    }
}

#[tokio::test]
async fn who_is_not_known_is_told_nothing() {
    let (policy, _) = wire::guarded("team");
    let server = Server::with_policy(policy).await;
    assert_eq!(code(told(&server, of("team")).await), Code::Unauthenticated);
    let wrong = bearing("wrong", of("team"));
    assert_eq!(code(told(&server, wrong).await), Code::Unauthenticated);
}

/// A request that says which tool sends it.
fn from_tool(token: &str, name: &str, version: &str) -> Request<GetCapabilitiesRequest> {
    let metadata = RequestMetadata {
        tool_details: Some(ToolDetails {
            tool_name: name.to_owned(),
            tool_version: version.to_owned(),
        }),
        action_id: "capabilities".to_owned(),
        ..RequestMetadata::default()
    };
    let mut request = bearing(token, of("team"));
    request.metadata_mut().insert_bin(
        "build.bazel.remote.execution.v2.requestmetadata-bin",
        MetadataValue::from_bytes(&metadata.encode_to_vec()),
    );
    request
}

#[tokio::test]
async fn a_bazel_that_would_end_the_build_is_told_that_it_may_write() {
    let (policy, tokens) = wire::guarded("team");
    let server = Server::with_policy(policy).await;
    for (name, version, expected) in [
        // Debian's package does not know its version.
        ("bazel", "", true),
        ("bazel", "2.1.0", true),
        ("bazel", "4.2.3", true),
        ("bazel", "5.4.1", true),
        ("bazel", "6.0.0", false),
        ("bazel", "6.0.0rc4", false),
        ("bazel", "10.0.0-pre.1", false),
        ("bazel", "no version", true),
        ("buck2", "1.0", false),
        ("moon", "", false),
    ] {
        let told = told(&server, from_tool(&tokens.read, name, version)).await;
        assert_eq!(may_update(told.unwrap()), expected, "{name} {version}");
    }
}

#[tokio::test]
async fn the_tool_is_known_however_its_header_is_padded() {
    let (policy, tokens) = wire::guarded("team");
    let server = Server::with_policy(policy).await;
    for version in ["4.2.3", "4.2.30", "4.2.300"] {
        let metadata = RequestMetadata {
            tool_details: Some(ToolDetails {
                tool_name: "bazel".to_owned(),
                tool_version: version.to_owned(),
            }),
            ..RequestMetadata::default()
        };
        let padded = STANDARD.encode(metadata.encode_to_vec());
        let reply = raw_capabilities(&server, &tokens.read, &padded).await;
        assert!(may_update(reply), "{version}");
    }
}

/// Asks by HTTP/2 without a client that knows of binary headers.
async fn raw_capabilities(server: &Server, token: &str, metadata: &str) -> ServerCapabilities {
    use http_body_util::{BodyExt as _, Full};
    let stream = tokio::net::TcpStream::connect(server.address)
        .await
        .unwrap();
    let io = hyper_util::rt::TokioIo::new(stream);
    let executor = hyper_util::rt::TokioExecutor::new();
    let shaken = hyper::client::conn::http2::handshake(executor, io).await;
    let (mut client, connection) = shaken.unwrap();
    let driving = zimcache_telemetry::task::spawn("connection", connection);
    let message = of("team").encode_to_vec();
    let length = u32::try_from(message.len()).unwrap().to_be_bytes();
    let body = [&[0][..], &length, &message].concat();
    let path = "/build.bazel.remote.execution.v2.Capabilities/GetCapabilities";
    let request = hyper::Request::post(format!("http://{}{path}", server.address))
        .header("content-type", "application/grpc")
        .header("te", "trailers")
        .header("authorization", format!("Bearer {token}"))
        .header(
            "build.bazel.remote.execution.v2.requestmetadata-bin",
            metadata,
        )
        .body(Full::new(bytes::Bytes::from(body)))
        .unwrap();
    let answer = within(client.send_request(request)).await.unwrap();
    let body = within(answer.into_body().collect()).await.unwrap();
    driving.abort();
    ServerCapabilities::decode(&body.to_bytes()[5..]).unwrap()
}

#[tokio::test]
async fn what_is_no_metadata_is_no_reason_to_refuse() {
    let (policy, tokens) = wire::guarded("team");
    let server = Server::with_policy(policy).await;
    for metadata in ["", "===", "?", "AAAA", "////"] {
        let told = raw_capabilities(&server, &tokens.read, metadata).await;
        assert!(!may_update(told), "{metadata:?}");
    }
}
