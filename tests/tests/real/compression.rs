//! Compression at rest, as a client sees it: less on the disk, the same bytes back, and the stored form for who takes it.

use anyhow::{Result, ensure};
use zimcache_tests::content::{body, sha256};
use zimcache_tests::environment::scratch;
use zimcache_tests::http::{Connection, Response};
use zimcache_tests::report::{Turn, say};
use zimcache_tests::server::Serve;

const LINES: usize = 60_000;

/// Text as a compiler's log has it, several parts long.
fn text() -> Vec<u8> {
    let line = |n| {
        format!(
            "src/module_{}/file_{n}.c:{n}: note: included from here\n",
            n % 17
        )
    };
    (0..LINES).map(line).collect::<String>().into_bytes()
}

fn get(connection: &mut Connection, path: &str, header: &str) -> Result<Response> {
    Ok(connection.request("GET", path, &[header], None)?)
}

#[test]
fn what_compresses_takes_less_room_and_comes_back_as_it_was_or_as_it_is_stored() -> Result<()> {
    let _turn = Turn::shared()?;
    let folder = scratch("compression")?;
    let server = Serve::on(&folder.path().join("store"), "1GB").start()?;
    let mut connection = Connection::open(server.address())?;
    let (text, noise) = (text(), body(7, 3 << 20));
    for value in [&text, &noise] {
        let path = format!("/cas/{}", sha256(value));
        let stored = connection.request("PUT", &path, &[], Some(value))?;
        ensure!(stored.status == 200, "{}", stored.status);
    }
    let path = format!("/cas/{}", sha256(&text));
    let plain = get(&mut connection, &path, "Accept: */*")?;
    ensure!(plain.body == text && plain.header("content-encoding").is_none());
    let packed = get(&mut connection, &path, "Accept-Encoding: gzip, zstd")?;
    ensure!(packed.header("content-encoding") == Some("zstd"));
    ensure!(packed.header("etag") != plain.header("etag"));
    ensure!(
        zstd::decode_all(&*packed.body)? == text,
        "other bytes inside"
    );
    ensure!(
        packed.body.len() * 4 < text.len(),
        "{} bytes",
        packed.body.len()
    );
    let part = connection.request(
        "GET",
        &path,
        &["Accept-Encoding: zstd", "Range: bytes=1048570-1048589"],
        None,
    )?;
    ensure!(part.status == 206 && part.body == text[1_048_570..1_048_590]);
    let noisy = format!("/cas/{}", sha256(&noise));
    let raw = get(&mut connection, &noisy, "Accept-Encoding: zstd")?;
    ensure!(raw.body == noise && raw.header("content-encoding").is_none());
    say(&format!(
        "compression: {} bytes of text travel and lie as {}",
        text.len(),
        packed.body.len()
    ));
    server.stop()?;
    Ok(())
}
