//! Row 7: the disk fills up, descriptors run out. Nothing is half visible, the server stays up and recovers.
//!
//! One part needs a loop file system: it fills under the server's feet. The other needs nothing: a store at its own
//! limit must evict and go on.

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};
use zimcache_tests::content::{self, Random};
use zimcache_tests::environment::{scaled, scratch};
use zimcache_tests::http::{self, Connection};
use zimcache_tests::loop_disk::{LoopDisk, fill};
use zimcache_tests::process::has_program;
use zimcache_tests::report::{Turn, say, skip};
use zimcache_tests::server::Serve;

use crate::crash::evicted_records;

const DISK_MIB: u64 = 256;
const SMALL_STORE: &str = "128MiB";
const ENTRIES: u64 = 50;
/// A store may take a moment to notice that somebody freed space.
const RECOVERY_LIMIT: Duration = Duration::from_secs(10);

/// Outcome of a run of PUTs.
#[derive(Default)]
struct Written {
    accepted: Vec<String>,
    refused: Vec<String>,
}

/// Writes blobs of up to 512 KiB until so many bytes were sent.
fn write_blobs(address: SocketAddr, random: &mut Random, bytes: u64) -> Result<Written> {
    let mut connection = Connection::open(address)?;
    let mut written = Written::default();
    let mut sent = 0;
    while sent < bytes {
        let length = 1 + random.below(512 << 10) as usize;
        let body = content::body(random.next_u64(), length);
        let hash = content::sha256(&body);
        let response = connection.request("PUT", &format!("/cas/{hash}"), &[], Some(&body))?;
        match response.status {
            200 => written.accepted.push(hash),
            503 | 507 => written.refused.push(hash),
            status => ensure!(false, "PUT answered {status}: {}", response.text()),
        }
        sent += length as u64;
    }
    Ok(written)
}

/// Writes 10 MB again and again until nothing of it is refused; returns what was accepted then.
fn write_once_there_is_room(address: SocketAddr, random: &mut Random) -> Result<Vec<String>> {
    let begun = Instant::now();
    loop {
        let written = write_blobs(address, random, 10 << 20)?;
        if written.refused.is_empty() {
            return Ok(written.accepted);
        }
        let waited = begun.elapsed();
        let refused = written.refused.len();
        ensure!(
            waited < RECOVERY_LIMIT,
            "{refused} refused {waited:?} after space was freed"
        );
        std::thread::sleep(Duration::from_millis(50));
    }
}

/// How many of these blobs are there; whatever is there must be right.
fn present(address: SocketAddr, hashes: &[String]) -> Result<usize> {
    let mut connection = Connection::open(address)?;
    let mut present = 0;
    for hash in hashes {
        let response = connection.request("GET", &format!("/cas/{hash}"), &[], None)?;
        match response.status {
            200 => ensure!(
                content::sha256(&response.body) == *hash,
                "wrong bytes for {hash}"
            ),
            404 => continue,
            status => ensure!(false, "GET answered {status}: {}", response.text()),
        }
        present += 1;
    }
    Ok(present)
}

#[test]
fn a_disk_that_fills_up_costs_no_acknowledged_small_write_and_is_used_again_when_freed()
-> Result<()> {
    let _turn = Turn::alone()?;
    if let Some(reason) = LoopDisk::unavailable()? {
        return skip("7-loop", &reason);
    }
    let disk = LoopDisk::new(DISK_MIB)?;
    let mut server = Serve::on(&disk.path().join("store"), "2GB").start()?;
    let mut random = Random::new(7);
    let rounds = scaled(3);
    let (mut accepted, mut refused) = (0, 0);
    for round in 1..=rounds {
        let before = write_blobs(server.address(), &mut random, 20 << 20)?;
        let last = before.accepted.last().cloned();
        let ballast = fill(&disk.path(), 2 << 20)?;
        let full = write_blobs(server.address(), &mut random, 300 << 20)?;
        ensure!(
            server.is_running(),
            "the server died in round {round}:\n{}",
            server.log_tail()
        );
        // A refused blob is not there, an accepted one is right or was evicted; nothing is half there.
        ensure!(
            present(server.address(), &full.refused)? == 0,
            "refused and yet there"
        );
        present(server.address(), &full.accepted)?;
        let health = http::once(server.address(), "GET", "/health", &[], None)?;
        ensure!(health.status == 200, "/health {}", health.status);
        std::fs::remove_file(ballast)?;
        let after = write_once_there_is_room(server.address(), &mut random)
            .with_context(|| format!("round {round}"))?;
        let there = present(server.address(), &after)?;
        ensure!(
            there == after.len(),
            "round {round}: {there} of {} left",
            after.len()
        );
        ensure!(last.is_some(), "nothing was accepted in round {round}");
        accepted += full.accepted.len();
        refused += full.refused.len();
    }
    server.stop()?;
    say(&format!(
        "row 7: {rounds} fills of a {DISK_MIB} MiB disk, {accepted} blobs accepted and {refused} refused while full"
    ));
    Ok(())
}

#[test]
fn a_restart_on_a_full_disk_serves_what_was_acknowledged() -> Result<()> {
    let _turn = Turn::alone()?;
    if let Some(reason) = LoopDisk::unavailable()? {
        return skip("7-loop", &reason);
    }
    let disk = LoopDisk::new(DISK_MIB)?;
    let serve = Serve::on(&disk.path().join("store"), "100MB");
    let server = serve.start()?;
    let written = write_blobs(server.address(), &mut Random::new(8), 20 << 20)?;
    ensure!(evicted_records(&server)? == 0, "the store evicted already");
    server.kill_9()?;
    fill(&disk.path(), 0)?;
    let server = serve.start().context("starting on a full disk")?;
    let there = present(server.address(), &written.accepted)?;
    ensure!(
        there == written.accepted.len(),
        "{there} of {} left",
        written.accepted.len()
    );
    server.stop()?;
    say(&format!(
        "row 7: restart on a full disk, {there} blobs read back"
    ));
    Ok(())
}

#[test]
fn a_store_at_its_limit_evicts_old_blobs_keeps_entries_and_never_refuses() -> Result<()> {
    let _turn = Turn::alone()?;
    let folder = scratch("limit")?;
    let server = Serve::on(&folder.path().join("store"), SMALL_STORE).start()?;
    let key = |number: u64| format!("/ccache/{}", &content::sha256(&number.to_le_bytes())[..40]);
    let mut connection = Connection::open(server.address())?;
    for number in 0..ENTRIES {
        let value = content::body(number, 1_000);
        let response = connection.request("PUT", &key(number), &[], Some(&value))?;
        ensure!(
            response.status == 200,
            "entry {number}: {}",
            response.status
        );
    }
    let flood = write_blobs(server.address(), &mut Random::new(9), scaled(500 << 20))?;
    ensure!(flood.refused.is_empty(), "{} refused", flood.refused.len());
    ensure!(evicted_records(&server)? > 0, "nothing was evicted");
    let latest = &flood.accepted[flood.accepted.len() - 5..];
    ensure!(
        present(server.address(), latest)? == 5,
        "the newest blobs are gone"
    );
    for number in 0..ENTRIES {
        let response = connection.request("GET", &key(number), &[], None)?;
        ensure!(
            response.status == 200,
            "entry {number} went in a flood of blobs"
        );
        ensure!(
            response.body == content::body(number, 1_000),
            "entry {number} is wrong"
        );
    }
    let used = disk_bytes(folder.path())?;
    ensure!(used <= 128 << 20, "the store's files take {used} bytes");
    server.stop()?;
    say(&format!(
        "row 7: {} blobs through a {SMALL_STORE} store, {ENTRIES} entries kept",
        flood.accepted.len()
    ));
    Ok(())
}

/// Bytes that the files below a folder take on disk.
fn disk_bytes(folder: &std::path::Path) -> Result<u64> {
    use std::os::unix::fs::MetadataExt as _;
    let mut bytes = 0;
    for item in std::fs::read_dir(folder)? {
        let item = item?;
        bytes += match item.metadata()? {
            metadata if metadata.is_dir() => disk_bytes(&item.path())?,
            metadata => metadata.blocks() * 512,
        };
    }
    Ok(bytes)
}

#[test]
fn a_server_that_runs_out_of_descriptors_serves_again_when_clients_leave() -> Result<()> {
    let _turn = Turn::alone()?;
    if !has_program("prlimit") {
        return skip("rlimit", "no prlimit");
    }
    let folder = scratch("rlimit")?;
    let serve = Serve::on(&folder.path().join("store"), "256MB");
    let mut server = serve.wrapped_by(&["prlimit", "--nofile=96:96"]).start()?;
    let written = write_blobs(server.address(), &mut Random::new(10), 2 << 20)?;
    let crowd: Vec<_> = (0..200)
        .map_while(|_| Connection::open(server.address()).ok())
        .collect();
    ensure!(crowd.len() > 96, "only {} connections", crowd.len());
    drop(crowd);
    ensure!(
        server.is_running(),
        "the server died:\n{}",
        server.log_tail()
    );
    let there = present(server.address(), &written.accepted)?;
    ensure!(
        there == written.accepted.len(),
        "{there} of {}",
        written.accepted.len()
    );
    let again = write_blobs(server.address(), &mut Random::new(11), 2 << 20)?;
    ensure!(again.refused.is_empty(), "{} refused", again.refused.len());
    server.stop()?;
    say("row 7: 200 connections on 96 descriptors, served again afterwards");
    Ok(())
}
