//! Drives the published client library of Polykit, whose own command never reaches the network in version 0.2.0.
//!
//! `polykit-driver URL TOKEN OPERATION...` does the operations in order and prints one line of JSON for each. The token
//! may be empty. Operations: `put:NAME:BYTES`, `get:NAME`, `has:NAME`, and `dump:NAME:BYTES:FILE`, which writes the
//! artifact that `put` would send, for tests that send it themselves. NAME decides the key and the outputs.
//! Not here: any judgement. What was right is for the test that started it to say.

use std::{collections::BTreeMap, path::PathBuf, time::Instant};

use anyhow::{Context as _, Result, bail};
use polykit_core::remote_cache::{
    Artifact, ArtifactVerifier, CacheKey, HttpBackend, RemoteCacheBackend as _, RemoteCacheConfig,
};
use serde_json::{Value, json};

fn main() -> Result<()> {
    let mut arguments = std::env::args().skip(1);
    let url = arguments.next().context("a URL")?;
    let mut config = RemoteCacheConfig::new(url);
    let token = arguments.next().context("a token, or an empty word")?;
    if !token.is_empty() {
        config = config.with_token(token);
    }
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?;
    runtime.block_on(async {
        let backend = HttpBackend::new(&config)?;
        for operation in arguments {
            let begun = Instant::now();
            let mut line = run(&backend, &operation).await?;
            line["operation"] = json!(operation);
            line["milliseconds"] = json!(begun.elapsed().as_millis());
            println!("{line}");
        }
        Ok(())
    })
}

async fn run(backend: &HttpBackend, operation: &str) -> Result<Value> {
    let words: Vec<&str> = operation.split(':').collect();
    match words[..] {
        ["put", name, bytes] => {
            let sent = backend
                .upload_artifact(&key(name)?, &artifact(name, bytes)?)
                .await;
            Ok(json!({ "error": sent.err().map(|error| error.to_string()) }))
        }
        ["get", name] => Ok(match backend.fetch_artifact(&key(name)?).await {
            Ok(None) => json!({ "found": false }),
            Ok(Some(artifact)) => fetched(&artifact),
            Err(error) => json!({ "error": error.to_string() }),
        }),
        ["has", name] => Ok(match backend.has_artifact(&key(name)?).await {
            Ok(found) => json!({ "found": found }),
            Err(error) => json!({ "error": error.to_string() }),
        }),
        ["dump", name, bytes, file] => {
            let artifact = artifact(name, bytes)?;
            std::fs::write(file, artifact.compressed_data())?;
            Ok(json!({ "key": key(name)?.as_string(), "hash": artifact.hash() }))
        }
        _ => bail!("no such operation: {operation}"),
    }
}

fn fetched(artifact: &Artifact) -> Value {
    let verified = ArtifactVerifier::verify(artifact, None);
    json!({
        "found": true,
        "verified": verified.is_ok(),
        "hash": artifact.hash(),
        "key": artifact.metadata().cache_key_hash,
        "files": artifact.manifest().files,
    })
}

fn key(name: &str) -> Result<CacheKey> {
    let key = CacheKey::builder()
        .package_id("sample")
        .task_name(name)
        .command("make")
        .dependency_graph_hash("none")
        .toolchain_version("none")
        .build()?;
    Ok(key)
}

/// An artifact of two files, one of them empty, the other of so many bytes that do not compress.
fn artifact(name: &str, bytes: &str) -> Result<Artifact> {
    let bytes: usize = bytes.parse().context("a number of bytes")?;
    let mut state = name
        .bytes()
        .fold(1_u64, |state, byte| state * 31 + u64::from(byte));
    let noise = std::iter::repeat_with(|| {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        (state >> 32) as u8
    });
    let files = BTreeMap::from([
        (
            PathBuf::from("dist/bundle.bin"),
            noise.take(bytes).collect(),
        ),
        (PathBuf::from("dist/empty.txt"), Vec::new()),
    ]);
    let key = key(name)?.as_string();
    let (package, task) = ("sample".to_owned(), name.to_owned());
    Ok(Artifact::new(package, task, "make".to_owned(), key, files)?)
}
