//! Schemathesis over the API document that the server publishes: no request made from it, right or wrong, may end in a
//! 5xx or a broken connection.

use anyhow::{Context as _, Result, ensure};
use serde_json::Value;
use zimcache_tests::environment::{cache_folder, scratch};
use zimcache_tests::http;
use zimcache_tests::process::{Tool, said};
use zimcache_tests::report::{Turn, say};
use zimcache_tests::server::Serve;

const DOCUMENT: &str = "/api/v1/openapi.json";
const EXAMPLES: u32 = 30;

#[test]
fn requests_made_from_the_api_document_never_end_in_a_server_error() -> Result<()> {
    let _turn = Turn::shared()?;
    let storage = scratch("store")?;
    let mut server = Serve::on(&storage.path().join("store"), "1GB").start()?;
    let document = http::once(server.address(), "GET", DOCUMENT, &[], None)?;
    ensure!(document.status == 200, "{DOCUMENT}: {}", document.status);
    let document: Value = serde_json::from_slice(&document.body).context(DOCUMENT)?;
    let paths = document["paths"].as_object().context("paths")?.len();
    ensure!(paths > 0, "a document without paths");
    let output = Tool::new(cache_folder()?.join("tools/bin/schemathesis"), 300)
        .args([
            "run",
            "--checks",
            "not_a_server_error",
            "--seed",
            "1",
            "--phases",
            "examples,coverage,fuzzing",
        ])
        .args(["--max-examples", &EXAMPLES.to_string(), "--no-color"])
        .args(["--url", &server.url()])
        .args([format!("{}{DOCUMENT}", server.url())])
        .env("HOME", storage.path())
        .current_dir(storage.path())
        .run()?;
    let text = said(&output);
    ensure!(output.status.success(), "{text}\n{}", server.log_tail());
    ensure!(
        server.is_running(),
        "the server died: {}",
        server.log_tail()
    );
    server.stop()?;
    let cases = text
        .lines()
        .rfind(|line| line.contains("generated"))
        .unwrap_or_default();
    say(&format!("schemathesis: {paths} paths, {}", cases.trim()));
    Ok(())
}
