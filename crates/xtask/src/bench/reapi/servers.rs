//! Starting the servers that speak the Remote Execution API, each with a configuration its own pages recommend.
//!
//! Invariant: `start` returns once the server has answered a call.

use std::{
    fs,
    net::SocketAddr,
    path::{Path, PathBuf},
};

use anyhow::{Context, Result, bail};
use serde_json::{Value, json};

use super::super::{
    corpus::Payload,
    load::{self, Limit, Pace, Plan, grpc::CallList},
    peers::Tools,
    server::{self, CAPACITY_GIB, Server},
    subject::Subject,
};

/// Bytes of bb-storage's table of keys: 66 for each of 8 M keys.
const BB_TABLE_BYTES: u64 = 66 * 8_000_000;
/// Largest message bb-storage takes, as in its example.
const BB_MESSAGE_BYTES: u64 = 16 << 20;

/// Starts a server over `folder` and waits until it answers calls.
pub(super) fn start(tools: &Tools, subject: Subject, folder: &Path) -> Result<Server> {
    fs::create_dir_all(folder)?;
    let mut server = match subject {
        Subject::Zimcache => server::spawn_zimcache(tools, folder),
        Subject::BazelRemote => spawn_bazel_remote(tools, folder),
        Subject::BbStorage => spawn_bb_storage(tools, subject, folder, 300),
        Subject::BbStorageSecond => spawn_bb_storage(tools, subject, folder, 1),
        Subject::NativeLink => spawn_nativelink(tools, folder),
        other => bail!("{} does not speak this API", other.name()),
    }
    .with_context(|| format!("cannot start {}", subject.name()))?;
    server.wait_for(answers)?;
    Ok(server)
}

/// Whether the server says what it can do.
fn answers(address: SocketAddr) -> Result<bool> {
    let payload = Payload::new(0);
    let mut calls = CallList::new(&payload, false);
    calls.capabilities();
    let outcome = load::run(&Plan {
        address,
        connections: 1,
        work: &calls,
        pace: Pace::Closed,
        limit: Limit::Once,
    })?;
    Ok(outcome.requests == 1)
}

fn spawn_bazel_remote(tools: &Tools, folder: &Path) -> Result<Server> {
    let address = server::free_address()?;
    let child = server::pinned(&tools.bazel_remote, folder)?
        .arg("--dir")
        .arg(folder.join("store"))
        .args(["--max_size", &CAPACITY_GIB.to_string()])
        .args(["--storage_mode", "uncompressed"])
        .args(["--http_address", &server::free_address()?.to_string()])
        .args(["--grpc_address", &address.to_string()])
        .args(["--access_log_level", "none"])
        .spawn()?;
    Ok(Server::of(Subject::BazelRemote, address, child))
}

/// The configuration of its README, with this capacity and epoch; action results are checked for completeness.
fn spawn_bb_storage(
    tools: &Tools,
    subject: Subject,
    folder: &Path,
    epoch_seconds: u64,
) -> Result<Server> {
    let address = server::free_address()?;
    let allow = json!({ "allow": {} });
    let configuration = json!({
        "contentAddressableStorage": {
            "backend": bb_local(&folder.join("cas"), CAPACITY_GIB << 30, 3, epoch_seconds)?,
            "getAuthorizer": allow,
            "putAuthorizer": allow,
            "findMissingAuthorizer": allow,
        },
        "actionCache": {
            "backend": { "completenessChecking": {
                "backend": bb_local(&folder.join("ac"), 1 << 30, 1, epoch_seconds)?,
                "maximumTotalTreeSizeBytes": BB_MESSAGE_BYTES,
            } },
            "getAuthorizer": allow,
            "putAuthorizer": allow,
        },
        "grpcServers": [{
            "listenAddresses": [address.to_string()],
            "authenticationPolicy": allow,
        }],
        "executeAuthorizer": allow,
        "maximumMessageSizeBytes": BB_MESSAGE_BYTES,
    });
    let child = server::pinned(&tools.bb_storage, folder)?
        .arg(write(folder, "bb_storage.jsonnet", &configuration)?)
        .spawn()?;
    Ok(Server::of(subject, address, child))
}

fn bb_local(folder: &Path, bytes: u64, new_blocks: u64, epoch_seconds: u64) -> Result<Value> {
    let state = folder.join("persistent_state");
    fs::create_dir_all(&state)?;
    Ok(json!({ "local": {
        "keyLocationMapOnBlockDevice": { "file": {
            "path": folder.join("key_location_map"),
            "sizeBytes": BB_TABLE_BYTES,
        } },
        "keyLocationMapMaximumGetAttempts": 16,
        "keyLocationMapMaximumPutAttempts": 64,
        "oldBlocks": 8,
        "currentBlocks": 24,
        "newBlocks": new_blocks,
        "blocksOnBlockDevice": {
            "source": { "file": { "path": folder.join("blocks"), "sizeBytes": bytes } },
            "spareBlocks": 3,
        },
        "persistent": {
            "stateDirectoryPath": state,
            "minimumEpochInterval": format!("{epoch_seconds}s"),
        },
    } }))
}

/// A cache without workers: blobs verified, one file each; action results checked for completeness.
fn spawn_nativelink(tools: &Tools, folder: &Path) -> Result<Server> {
    let address = server::free_address()?;
    let files = |name: &str| {
        json!({ "filesystem": {
            "content_path": folder.join(name).join("content"),
            "temp_path": folder.join(name).join("temp"),
            "eviction_policy": {
                "max_bytes": CAPACITY_GIB << 30,
                "evict_bytes": 1 << 30,
            },
        } })
    };
    let cas = json!([{ "instance_name": "", "cas_store": "CAS" }]);
    let configuration = json!({
        "stores": [
            { "name": "CAS", "verify": {
                "backend": files("cas"),
                "verify_size": true,
                "verify_hash": true,
            } },
            { "name": "AC", "completeness_checking": {
                "backend": files("ac"),
                "cas_store": { "ref_store": { "name": "CAS" } },
            } },
        ],
        "servers": [{
            "listener": { "http": { "socket_address": address.to_string() } },
            "services": {
                "cas": cas,
                "ac": [{ "instance_name": "", "ac_store": "AC" }],
                "capabilities": [{ "instance_name": "" }],
                "bytestream": cas,
            },
        }],
    });
    let child = server::pinned(&tools.nativelink, folder)?
        .arg(write(folder, "nativelink.json5", &configuration)?)
        .env("OTEL_SDK_DISABLED", "true")
        .env("RUST_LOG", "error")
        .spawn()?;
    Ok(Server::of(Subject::NativeLink, address, child))
}

fn write(folder: &Path, name: &str, configuration: &Value) -> Result<PathBuf> {
    let path = folder.join(name);
    fs::write(&path, serde_json::to_string_pretty(configuration)?)?;
    Ok(path)
}
