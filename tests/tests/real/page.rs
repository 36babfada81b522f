//! The page for people in a real headless Chromium: what it shows, that its policy lets it, and that nothing a caller
//! chose becomes markup.

use std::path::Path;

use anyhow::{Context as _, Result, ensure};
use zimcache_tests::environment::scratch;
use zimcache_tests::http;
use zimcache_tests::process::{Tool, has_program, said};
use zimcache_tests::report::{Turn, say, skip};
use zimcache_tests::server::{Serve, Server};

const BROWSER: &str = "chromium";
const BROWSER_SECONDS: u32 = 90;
const KEY: &str = "0123456789abcdef0123456789abcdef";

/// The document as it stands after the scripts ran, and everything that was written to the console.
fn visit(url: &str, profile: &Path) -> Result<(String, Vec<String>)> {
    let output = Tool::new(BROWSER, BROWSER_SECONDS)
        .args([
            "--headless=new",
            "--no-sandbox",
            "--disable-gpu",
            "--no-first-run",
        ])
        .args([
            "--enable-logging=stderr",
            "--virtual-time-budget=5000",
            "--dump-dom",
        ])
        .args([
            format!("--user-data-dir={}", profile.display()),
            url.to_owned(),
        ])
        .run()?;
    ensure!(output.status.success(), "{}", said(&output));
    let log = String::from_utf8_lossy(&output.stderr);
    let console = log.lines().filter(|line| line.contains(":CONSOLE"));
    let console = console.map(str::to_owned).collect();
    Ok((
        String::from_utf8_lossy(&output.stdout).into_owned(),
        console,
    ))
}

/// Three hits and a miss of two tools in two namespaces.
fn use_it(server: &Server) -> Result<()> {
    let ask = |method: &str, path: &str, body: Option<&[u8]>| -> Result<u16> {
        Ok(http::once(server.address(), method, path, &[], body)?.status)
    };
    let gradle = format!("/ns/team-a/cache/{KEY}");
    let ccache = format!("/ccache/{}", &KEY.repeat(2)[..40]);
    for path in [&gradle, &ccache] {
        ensure!(ask("PUT", path, Some(&[7; 2048]))? == 200, "{path}");
        ensure!(ask("GET", path, None)? == 200, "{path}");
    }
    ensure!(ask("GET", &gradle, None)? == 200);
    ensure!(ask("GET", &gradle.replace("team-a", "team-b"), None)? == 404);
    Ok(())
}

#[test]
fn the_page_shows_the_figures_in_a_browser_without_a_complaint() -> Result<()> {
    if !has_program(BROWSER) {
        return skip("page", "chromium is not installed");
    }
    let _turn = Turn::shared()?;
    let folder = scratch("page")?;
    let server = Serve::on(&folder.path().join("store"), "1GB").start()?;
    use_it(&server)?;
    let (page, console) = visit(&server.url(), &folder.path().join("profile"))?;
    ensure!(console.is_empty(), "{console:?}");
    for text in [
        "data-drawn=\"7d\"",
        "75<small> %</small>",
        "3 of 4 look-ups",
        "6<small> KiB</small>",
        ">Gradle<",
        ">ccache<",
        ">team-a<",
        ">team-b<",
        "<path d=\"M",
    ] {
        ensure!(page.contains(text), "no {text:?} in {page}");
    }
    let address = format!("build --remote_cache={}", server.url());
    ensure!(
        page.contains(address.trim_end_matches('/')),
        "no {address:?}"
    );
    let (_, shown) = page.split_once("<body").context("a body")?;
    say(&format!(
        "page: {} bytes of document after drawing",
        shown.len()
    ));
    server.stop()?;
    Ok(())
}
