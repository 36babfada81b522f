//! buildbox-casd 1.4.25 alone, as it comes with BuildStream: a proxy of the Remote Execution API in front of us, and the
//! one real client of SplitBlob and SpliceBlob that can be had.
//!
//! casd starts with an empty cache of its own each time, so what it has it has from the server. Its instance `near` is
//! our namespace.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context as _, Result, ensure};
use tempfile::TempDir;
use zimcache_tests::content;
use zimcache_tests::environment::{cache_folder, scratch};
use zimcache_tests::folders;
use zimcache_tests::http;
use zimcache_tests::monorepo::TASKS;
use zimcache_tests::process::Tool;
use zimcache_tests::relay::Relay;
use zimcache_tests::report::{Turn, say};

use crate::moon::{Cache, Storage, Workspace};
use crate::proxy::{Proxy, free_port};

const NAMESPACE: &str = "acme";
const INSTANCE: &str = "near";
/// About 17 chunks of the size that the server asks for.
const FILE_BYTES: usize = 9_000_000;
/// Where a file is changed, and by how much it grows.
const EDIT_AT: usize = 4_000_000;
const EDIT: &[u8] = b"some more";
/// Most bytes that an edit may cost: the chunks around it are of at most 2 MiB each.
const EDIT_COSTS_BYTES: u64 = 4_500_000;
/// Least number of chunks that such a file is made of.
const CHUNKS: usize = 5;

/// A running casd.
struct Casd {
    _process: Proxy,
    port: u16,
    cache: TempDir,
}

impl Casd {
    fn start(remote: &str) -> Result<Casd> {
        let program = libraries()?.join("buildstream/subprojects/buildbox/buildbox-casd");
        let (port, cache) = (free_port()?, scratch("casd")?);
        let mut command = Command::new(program);
        command
            .arg(format!("--bind=127.0.0.1:{port}"))
            .arg(format!("--cas-remote={remote}"))
            .arg(format!("--ac-remote={remote}"))
            .arg(format!("--proxy-instance={INSTANCE}:{NAMESPACE}"))
            .arg(format!("--enable-chunking-for-instance={INSTANCE}"))
            // Else it keeps 2 GB of the disk free, and waits for ever where less is.
            .arg("--reserved=100M")
            .arg(cache.path())
            .stdout(Stdio::null())
            .stderr(Stdio::null());
        Ok(Casd {
            _process: Proxy::start(&mut command, port)?,
            port,
            cache,
        })
    }

    /// Speaks casd's own protocol.
    fn ask(&self, verb: &str, words: &[&str]) -> Result<String> {
        let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("clients/casd/files.py");
        let output = Tool::new("python3", 90)
            .env("PYTHONPATH", libraries()?)
            .args([script])
            .args([verb, &format!("127.0.0.1:{}", self.port), INSTANCE])
            .args(words)
            .run_ok()?;
        Ok(String::from_utf8(output.stdout)?)
    }

    /// Lets casd upload a file.
    fn put(&self, bytes: &[u8]) -> Result<()> {
        let file = self.cache.path().join("file");
        std::fs::write(&file, bytes)?;
        let said = self.ask("put", &[file.to_str().context("a path that is text")?])?;
        let (digest, size) = (content::sha256(bytes), bytes.len());
        ensure!(said.trim() == format!("{digest} {size}"), "{said}");
        Ok(())
    }

    /// Lets casd fetch a file, and counts the chunks that it came in.
    fn get(&self, bytes: &[u8]) -> Result<usize> {
        let (digest, size) = (content::sha256(bytes), bytes.len().to_string());
        self.ask("get", &[&digest, &size])?;
        let objects = self.cache.path().join("cas/objects");
        let held = folders::digests(&objects, |_| true)?;
        ensure!(
            held.values().any(|held| *held == digest),
            "casd does not have {digest}"
        );
        Ok(held.len() - 1)
    }
}

/// Where BuildStream and casd are.
fn libraries() -> Result<PathBuf> {
    let folder = cache_folder()?.join("tools/python/bst");
    ensure!(folder.is_dir(), "casd is missing: run `.ci/needs test`");
    Ok(folder)
}

#[test]
fn moon_hits_through_casd_as_a_proxy() -> Result<()> {
    let _turn = Turn::shared()?;
    let workspace = Workspace::new()?;
    let storage = Storage::new()?;
    let server = storage.serve.start()?;
    // The description of a task holds the URL, which has to stay the same: so the relay is in front of casd.
    let casd = Casd::start(&server.url())?;
    let relay = Relay::to(([127, 0, 0, 1], casd.port).into())?;
    let url = relay.url();
    let build = || workspace.build(Cache::over_grpc(&url, "any").in_namespace(INSTANCE));

    // casd has no zstd, which moon warns of.
    let first = build()?;
    first.demand(0)?;
    drop(casd);
    let casd = Casd::start(&server.url())?;
    relay.point_to(([127, 0, 0, 1], casd.port).into());
    let second = build()?;
    second.demand(TASKS)?;
    ensure!(second.outputs == first.outputs, "the outputs differ");
    server.stop()?;
    say("casd: a proxy between moon and us, emptied between two builds");
    Ok(())
}

#[test]
fn casd_sends_and_fetches_in_chunks_and_sends_no_chunk_twice() -> Result<()> {
    let _turn = Turn::shared()?;
    let storage = Storage::new()?;
    let server = storage.serve.start()?;
    let relay = Relay::to(server.address())?;
    let file = content::body(3, FILE_BYTES);
    let mut edited = file.clone();
    edited.splice(EDIT_AT..EDIT_AT, EDIT.iter().copied());

    Casd::start(&relay.url())?.put(&file)?;
    let whole = relay.sent_bytes();
    ensure!(whole > FILE_BYTES as u64, "only {whole} bytes were sent");
    Casd::start(&relay.url())?.put(&edited)?;
    let edit = relay.sent_bytes() - whole;
    ensure!(edit < EDIT_COSTS_BYTES, "an edit cost {edit} bytes");

    let mut chunks = 0;
    for bytes in [&file, &edited] {
        chunks = Casd::start(&relay.url())?.get(bytes)?;
        ensure!(chunks >= CHUNKS, "it came in {chunks} chunks");
        // What was sent in chunks is there for everybody.
        let path = format!("/ns/{NAMESPACE}/cas/{}", content::sha256(bytes));
        let plain = http::once(server.address(), "GET", &path, &[], None)?;
        ensure!(
            plain.status == 200 && plain.body == **bytes,
            "{}",
            plain.status
        );
    }
    server.stop()?;
    say(&format!(
        "casd: 9 MB in {chunks} chunks, an edit in the middle sent {} KB",
        edit / 1_000
    ));
    Ok(())
}
