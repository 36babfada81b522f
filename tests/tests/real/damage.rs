//! Damage on disk and guests in the folder: one flipped byte costs one record, never a wrong answer; a second server
//! is refused; files that are not ours are left alone.

use std::os::unix::fs::FileExt as _;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result, ensure};
use zimcache_tests::content;
use zimcache_tests::environment::scratch;
use zimcache_tests::http;
use zimcache_tests::process::{said, zim};
use zimcache_tests::report::{Turn, say};
use zimcache_tests::server::{Serve, Server};

const SMALL_BYTES: usize = 3_000;
const LARGE_BYTES: usize = 5 << 20;
const VERIFY_SECONDS: u32 = 60;

/// Hash and bytes of a stored blob.
struct Stored {
    hash: String,
    body: Vec<u8>,
}

fn put(server: &Server, seed: u64, length_bytes: usize) -> Result<Stored> {
    let body = content::body(seed, length_bytes);
    let hash = content::sha256(&body);
    let path = format!("/cas/{hash}");
    let response = http::once(server.address(), "PUT", &path, &[], Some(&body))?;
    ensure!(response.status == 200, "PUT: {}", response.status);
    Ok(Stored { hash, body })
}

fn get(server: &Server, stored: &Stored) -> std::io::Result<http::Response> {
    let path = format!("/cas/{}", stored.hash);
    http::once(server.address(), "GET", &path, &[], None)
}

fn demand_right(server: &Server, stored: &Stored) -> Result<()> {
    let response = get(server, stored)?;
    ensure!(
        response.status == 200,
        "{}: {}",
        stored.hash,
        response.status
    );
    ensure!(response.body == stored.body, "{}: other bytes", stored.hash);
    Ok(())
}

/// A miss, or an answer that breaks off: anything but 200 with a whole body.
fn demand_not_served(server: &Server, stored: &Stored) -> Result<()> {
    match get(server, stored) {
        Err(_) => Ok(()),
        Ok(response) => {
            let right = response.body == stored.body;
            ensure!(
                response.status == 404,
                "a damaged blob of {} bytes answered {}, its bytes are right: {right}",
                stored.body.len(),
                response.status
            );
            Ok(())
        }
    }
}

fn files_below(folder: &Path) -> Result<Vec<PathBuf>> {
    let mut files = Vec::new();
    let mut folders = vec![folder.to_owned()];
    while let Some(folder) = folders.pop() {
        for item in std::fs::read_dir(folder)? {
            let item = item?;
            if item.file_type()?.is_dir() {
                folders.push(item.path());
            } else {
                files.push(item.path());
            }
        }
    }
    Ok(files)
}

/// Finds where the middle of a body lies on disk and flips one bit nearby.
fn damage(store: &Path, body: &[u8]) -> Result<()> {
    let start = content::stamp_before(body.len() / 2);
    let sample = &body[start..start + 64];
    for path in files_below(store)? {
        let bytes = std::fs::read(&path)?;
        let first = sample[0];
        let found = bytes
            .windows(sample.len())
            .position(|window| window[0] == first && window == sample);
        if let Some(at) = found {
            let file = std::fs::OpenOptions::new().write(true).open(&path)?;
            file.write_all_at(&[bytes[at + 50] ^ 1], at as u64 + 50)?;
            file.sync_all()?;
            return Ok(());
        }
    }
    anyhow::bail!("the body is in no file of {}", store.display())
}

#[test]
fn a_flipped_byte_costs_that_record_only_and_verify_says_so() -> Result<()> {
    let _turn = Turn::shared()?;
    let folder = scratch("damage")?;
    let store = folder.path().join("store");
    let serve = Serve::on(&store, "256MB");
    let server = serve.start()?;
    let healthy: Vec<Stored> = (0..20)
        .map(|seed| put(&server, seed, SMALL_BYTES))
        .collect::<Result<_>>()?;
    let read_first = put(&server, 100, SMALL_BYTES)?;
    let large = put(&server, 101, LARGE_BYTES)?;
    let verified_first = put(&server, 102, SMALL_BYTES)?;
    let neighbour = put(&server, 103, SMALL_BYTES)?;
    server.stop()?;

    let clean = verify_offline(&store)?;
    ensure!(clean == Some(0), "verify of a clean store: {clean:?}");
    for stored in [&read_first, &large, &verified_first] {
        damage(&store, &stored.body)?;
    }
    let offline = verify_offline(&store)?;
    ensure!(
        offline == Some(1),
        "offline verify of a damaged store: {offline:?}"
    );

    let server = serve.start().context("starting on a damaged store")?;
    for stored in [&read_first, &large] {
        demand_not_served(&server, stored)?;
        demand_not_served(&server, stored).context("the second time")?;
    }
    demand_not_served(&server, &verified_first)?;
    for stored in healthy.iter().chain([&neighbour]) {
        demand_right(&server, stored)?;
    }
    // A client that misses uploads again, and then it is whole again.
    put(&server, 100, SMALL_BYTES)?;
    demand_right(&server, &read_first)?;
    server.stop()?;
    say("row 5 on real files: 3 flipped bytes, 3 records gone, 21 neighbours right, verify told");
    Ok(())
}

#[test]
fn a_running_server_finds_damage_when_told_to_verify() -> Result<()> {
    let _turn = Turn::shared()?;
    let folder = scratch("verify")?;
    let store = folder.path().join("store");
    let serve = Serve::on(&store, "256MB");
    let server = serve.start()?;
    let damaged = put(&server, 1, SMALL_BYTES)?;
    let neighbour = put(&server, 2, SMALL_BYTES)?;
    server.stop()?;
    damage(&store, &damaged.body)?;
    let server = serve.start()?;
    let code = verify_online(&server)?;
    ensure!(
        code == Some(1),
        "verify of a running damaged store: {code:?}"
    );
    demand_not_served(&server, &damaged)?;
    demand_right(&server, &neighbour)?;
    let code = verify_online(&server)?;
    ensure!(
        code == Some(0),
        "the damage is gone, verify again: {code:?}"
    );
    server.stop()
}

fn verify_online(server: &Server) -> Result<Option<i32>> {
    let tool = zim(VERIFY_SECONDS)?.args(["cache", "verify", "--url"]);
    Ok(tool.args([server.url()]).run()?.status.code())
}

fn verify_offline(store: &Path) -> Result<Option<i32>> {
    let tool = zim(VERIFY_SECONDS)?.args(["cache", "verify", "--storage"]);
    Ok(tool.args([store]).run()?.status.code())
}

#[test]
fn files_of_others_in_the_folder_are_harmless_and_left_alone() -> Result<()> {
    let _turn = Turn::shared()?;
    let folder = scratch("foreign")?;
    let store = folder.path().join("store");
    let serve = Serve::on(&store, "256MB");
    let server = serve.start()?;
    let stored = put(&server, 1, SMALL_BYTES)?;
    server.stop()?;
    let mut places: Vec<PathBuf> = vec![store.clone()];
    places.extend(
        std::fs::read_dir(&store)?
            .filter_map(Result::ok)
            .map(|item| item.path())
            .filter(|path| path.is_dir()),
    );
    let guests: Vec<PathBuf> = places
        .iter()
        .flat_map(|place| {
            ["notes.txt", "99999.seg.bak", "backup-of-0001"].map(|name| place.join(name))
        })
        .collect();
    for guest in &guests {
        std::fs::write(guest, "not a segment")?;
    }
    std::fs::create_dir(store.join("lost+found"))?;
    let server = serve.start().context("with foreign files in the folder")?;
    demand_right(&server, &stored)?;
    put(&server, 2, SMALL_BYTES)?;
    server.kill_9()?;
    let server = serve.start().context("with foreign files, after a kill")?;
    demand_right(&server, &stored)?;
    server.stop()?;
    for guest in &guests {
        ensure!(
            std::fs::read(guest)? == b"not a segment",
            "{} changed",
            guest.display()
        );
    }
    Ok(())
}

#[test]
fn a_second_server_on_the_folder_is_refused_and_the_first_goes_on() -> Result<()> {
    let _turn = Turn::shared()?;
    let folder = scratch("second")?;
    let store = folder.path().join("store");
    let serve = Serve::on(&store, "256MB");
    let server = serve.start()?;
    let stored = put(&server, 1, SMALL_BYTES)?;
    let (status, text) = serve.refusal()?;
    ensure!(!status.success(), "a second server ended well");
    let text = text.to_lowercase();
    let clear = ["in use", "another", "locked", "already"]
        .iter()
        .any(|word| text.contains(word));
    ensure!(clear, "an unclear refusal: {text}");
    ensure!(!text.contains("panicked"), "a panic: {text}");
    let offline = zim(VERIFY_SECONDS)?
        .args(["cache", "gc", "--storage"])
        .args([&store])
        .run()?;
    ensure!(
        !offline.status.success(),
        "gc beside a server: {}",
        said(&offline)
    );
    demand_right(&server, &stored)?;
    server.kill_9()?;
    let server = serve.start().context("the lock must go with its process")?;
    demand_right(&server, &stored)?;
    server.stop()
}
