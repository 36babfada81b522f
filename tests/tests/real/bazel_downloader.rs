//! Real Bazel 4.2.3 with us as its remote downloader: an archive of an external repository by the Remote Asset API.
//!
//! The archive lies on a second server, which is stopped after the first build. Bazel keeps no downloads of its own, and
//! each build is in a workspace that is new.

use anyhow::{Result, ensure};
use zimcache_tests::bazel::{Release, Workspace};
use zimcache_tests::content;
use zimcache_tests::environment::scratch;
use zimcache_tests::http;
use zimcache_tests::process::Tool;
use zimcache_tests::report::{Turn, say};
use zimcache_tests::server::{Serve, Server};

const BUILD: &str =
    "genrule(name = 'copy', srcs = ['@dep//:data'], outs = ['copied'], cmd = 'cat $< > $@')\n";
const DATA: &str = "from an external repository\n";

/// An archive of a repository with one file.
fn archive() -> Result<Vec<u8>> {
    let folder = scratch("archive")?;
    let write = |name: &str, text: &str| std::fs::write(folder.path().join(name), text);
    write("WORKSPACE", "")?;
    write("BUILD.bazel", "exports_files(['data'])\n")?;
    write("data", DATA)?;
    let tar = Tool::new("tar", 30).current_dir(folder.path());
    Ok(tar.args(["-c", "."]).run_ok()?.stdout)
}

fn workspace(url: &str, digest: &str) -> Result<Workspace> {
    let rules = "load('@bazel_tools//tools/build_defs/repo:http.bzl', 'http_archive')\n";
    let archive = format!(
        "http_archive(name = 'dep', urls = ['{url}'], sha256 = '{digest}', type = 'tar')\n"
    );
    let repositories = format!("{rules}{archive}");
    let files = [("WORKSPACE", repositories.as_str()), ("BUILD.bazel", BUILD)];
    Workspace::of_files(Release::Debian4, &files)
}

fn flags(cache: &Server) -> [String; 3] {
    let address = cache.address();
    [
        format!("--remote_cache=grpc://{address}"),
        format!("--experimental_remote_downloader=grpc://{address}"),
        "--repository_cache=".to_owned(),
    ]
}

/// Builds; it has to succeed and to make the right thing.
fn build(workspace: &Workspace, cache: &Server) -> Result<()> {
    let made = workspace.build(&flags(cache))?.outputs;
    let copied = made.iter().find(|(path, _)| path.ends_with("copied"));
    let right = copied.is_some_and(|(_, digest)| *digest == content::sha256(DATA.as_bytes()));
    ensure!(right, "what was made: {made:?}");
    Ok(())
}

#[test]
fn bazel_4_downloads_an_archive_through_us_also_when_its_origin_is_gone() -> Result<()> {
    let _turn = Turn::shared()?;
    let storage = scratch("store")?;
    let origin = Serve::on(&storage.path().join("origin"), "256MB").start()?;
    let archive = archive()?;
    let digest = content::sha256(&archive);
    let path = format!("/cas/{digest}");
    let stored = http::once(origin.address(), "PUT", &path, &[], Some(&archive))?;
    ensure!(stored.status == 200, "PUT: {}", stored.status);
    let url = format!("{}{path}", origin.url());

    let first = workspace(&url, &digest)?;
    let closed = Serve::on(&storage.path().join("closed"), "256MB").start()?;
    let (code, text) = first.attempt(&flags(&closed))?;
    ensure!(code != Some(0), "fetched without leave: {text}");
    closed.stop()?;

    let serve = Serve::on(&storage.path().join("store"), "256MB")
        .flags(&["--fetch-from", &format!("{}/", origin.url())])
        .env("ZIMCACHE_SERVE__ASSETS__FETCH_PRIVATE", "true");
    let server = serve.start()?;
    build(&first, &server)?;
    drop(first);
    origin.stop()?;
    build(&workspace(&url, &digest)?, &server)?;
    server.stop()?;
    say("bazel downloader: refused without leave, fetched once, had again without its origin");
    Ok(())
}
