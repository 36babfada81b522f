//! HTTP/2 conformance: h2spec against the clear-text port of the real binary; at most 2 of its 145 cases may fail.
//!
//! The tool is built once from the Go module proxy into the user's cache folder (`.ci/needs` does it ahead of time).

use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result, ensure};
use zimcache_tests::content;
use zimcache_tests::environment::{cache_folder, scratch};
use zimcache_tests::http;
use zimcache_tests::process::{Tool, has_program, said};
use zimcache_tests::report::{Turn, say, skip};
use zimcache_tests::server::Serve;

const CASES: u32 = 145;
const MAY_FAIL: u32 = 2;
const MODULE: &str =
    "module tool\n\ngo 1.24\n\nrequire github.com/summerwind/h2spec v2.2.1+incompatible\n";
const PACKAGE: &str = "github.com/summerwind/h2spec/cmd/h2spec";

#[test]
fn the_h2c_port_passes_the_conformance_suite() -> Result<()> {
    let _turn = Turn::alone()?;
    let h2spec = match h2spec() {
        Ok(path) => path,
        Err(error) => return skip("h2spec", &format!("{error:#}")),
    };
    let folder = scratch("h2spec")?;
    let server = Serve::on(&folder.path().join("store"), "256MB").start()?;
    // Its requests ask for a path that must exist with a body.
    let body = content::body(1, 2_000);
    let path = format!("/cas/{}", content::sha256(&body));
    let stored = http::once(server.address(), "PUT", &path, &[], Some(&body))?;
    ensure!(stored.status == 200, "PUT: {}", stored.status);
    let output = Tool::new(&h2spec, 300)
        .args(["--host", "127.0.0.1", "--timeout", "3", "--path", &path])
        .args(["--port", &server.address().port().to_string()])
        .run()?;
    let text = said(&output);
    let (cases, failed) = totals(&text).with_context(|| text.clone())?;
    ensure!(cases == CASES, "{cases} cases ran:\n{text}");
    ensure!(
        failed <= MAY_FAIL,
        "{failed} cases failed:\n{}",
        failures(&text)
    );
    let alive = http::once(server.address(), "GET", &path, &[], None)?;
    ensure!(
        alive.status == 200 && alive.body == body,
        "afterwards: {}",
        alive.status
    );
    server.stop()?;
    say(&format!(
        "h2spec: {cases} cases, {failed} failed (at most {MAY_FAIL} may)"
    ));
    Ok(())
}

/// The tool in the cache folder; built when missing.
fn h2spec() -> Result<PathBuf> {
    let programs = cache_folder()?.join("bin");
    let path = programs.join("h2spec-2.2.1");
    if path.is_file() {
        return Ok(path);
    }
    let go = ["go", "/usr/local/go/bin/go"]
        .into_iter()
        .find(|name| has_program(name));
    let go = go.context("no h2spec in the cache folder and no Go to build it")?;
    std::fs::create_dir_all(&programs)?;
    let module = scratch("go")?;
    std::fs::write(module.path().join("go.mod"), MODULE)?;
    let built = module.path().join("h2spec");
    Tool::new(go, 500)
        .args([
            Path::new("build"),
            Path::new("-o"),
            &built,
            Path::new(PACKAGE),
        ])
        .env("GOFLAGS", "-mod=mod -buildvcs=false")
        .env("GOTOOLCHAIN", "local")
        .env("GOTELEMETRY", "off")
        .current_dir(module.path())
        .run_ok()?;
    // Copied next to its place first: a rename is atomic.
    let partial = programs.join(format!("h2spec.{}", std::process::id()));
    std::fs::copy(&built, &partial)?;
    std::fs::rename(&partial, &path)?;
    Ok(path)
}

/// Cases and failures of a line such as `145 tests, 144 passed, 0 skipped, 1 failed`.
fn totals(text: &str) -> Option<(u32, u32)> {
    let line = text.lines().rfind(|line| line.contains(" tests, "))?;
    let number = |word: &str| {
        let part = line.split(", ").find(|part| part.ends_with(word))?;
        part.split_whitespace().next()?.parse().ok()
    };
    Some((number("tests")?, number("failed")?))
}

/// The part of the report that lists failures.
fn failures(text: &str) -> &str {
    text.find("Failures:").map_or(text, |at| &text[at..])
}

#[test]
fn the_totals_of_a_report_are_read() {
    let line = "Finished in 3.1 seconds\n145 tests, 143 passed, 0 skipped, 2 failed\n";
    assert_eq!(totals(line), Some((145, 2)));
}
