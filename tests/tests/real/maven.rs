//! Real Maven 3.9.11 with its build cache extension 1.3.0: build, wipe, build again; no plugin runs again.
//!
//! Maven runs offline from the repository that `.ci/needs` has primed; only the build cache is remote. Jars are
//! reproducible (`project.build.outputTimestamp`), so they are compared. What resumed downloads need is asked raw.

use std::collections::BTreeMap;
use std::path::PathBuf;

use anyhow::{Context as _, Result, ensure};
use tempfile::TempDir;
use zimcache_tests::content;
use zimcache_tests::environment::{cache_folder, scratch};
use zimcache_tests::folders;
use zimcache_tests::http::{self, Connection};
use zimcache_tests::process::{Tool, said};
use zimcache_tests::relay::{Relay, killed_half_way};
use zimcache_tests::report::{Turn, say};
use zimcache_tests::server::{Serve, Server};
use zimcache_tests::tokens::{self, Tokens};

const BUILD_SECONDS: u32 = 180;
const MODULES: usize = 2;
const REFUSED: &str = "Unable to save to remote cache";
/// Makes Maven send its password with every request, not only with uploads.
const PREEMPTIVE: &str = "-Daether.connector.http.preemptiveAuth=true";
/// What the extension asks for, by the numbers of its releases: 1.0 to 1.1, 1.2, and from 1.3 on.
const PATH_VERSIONS: [&str; 3] = ["v1", "v1.1", "v1.2"];

struct Project {
    folder: TempDir,
    maven: PathBuf,
}

/// What one build did.
struct Build {
    restored: usize,
    compiled: usize,
    saved: usize,
    refused: usize,
    text: String,
    jars: BTreeMap<PathBuf, String>,
}

impl Project {
    fn new() -> Result<Project> {
        let maven = cache_folder()?.join("tools/maven");
        ensure!(
            maven.join("repository").is_dir(),
            "{} is missing: run `.ci/needs test`",
            maven.display()
        );
        let folder = scratch("maven")?;
        folders::copy(&folders::fixture("maven"), &folder.path().join("source"))?;
        Ok(Project { folder, maven })
    }

    /// Wipes what earlier builds left, locally cached builds too, and builds with a token, which may be empty.
    fn build(&self, url: &str, token: &str) -> Result<Build> {
        self.build_with(url, token, &[])
    }

    fn build_with(&self, url: &str, token: &str, flags: &[&str]) -> Result<Build> {
        let folder = self.folder.path();
        let source = folder.join("source");
        for name in [
            "source/numbers/target",
            "source/report/target",
            "build-cache",
        ] {
            folders::wipe(&folder.join(name))?;
        }
        let settings = folder.join("settings.xml");
        std::fs::write(&settings, settings_with(token))?;
        let output = Tool::new(
            self.maven.join("apache-maven-3.9.11/bin/mvn"),
            BUILD_SECONDS,
        )
        .args([
            "--offline",
            "--batch-mode",
            "--no-transfer-progress",
            "--settings",
        ])
        .args([&settings])
        .args([
            format!(
                "-Dmaven.repo.local={}",
                self.maven.join("repository").display()
            ),
            format!(
                "-Dmaven.build.cache.location={}",
                folder.join("build-cache").display()
            ),
            format!("-Dmaven.build.cache.remote.url={url}/maven"),
        ])
        .args(flags)
        .args(["package"])
        .env("HOME", folder)
        .current_dir(&source)
        .run_ok()?;
        let text = said(&output);
        let count = |what: &str| text.lines().filter(|line| line.contains(what)).count();
        Ok(Build {
            restored: count("Found cached build, restoring"),
            compiled: count("--- compiler:3.14.0:compile "),
            saved: count("Saved to remote cache"),
            refused: count(REFUSED),
            jars: folders::digests(&source, |path| {
                path.extension().is_some_and(|end| end == "jar")
            })?,
            text,
        })
    }
}

fn settings_with(token: &str) -> String {
    let server = match token {
        "" => String::new(),
        token => format!(
            "<server><id>zim</id><username>maven</username><password>{token}</password></server>"
        ),
    };
    format!("<settings><servers>{server}</servers></settings>\n")
}

impl Build {
    /// Demands that everything was compiled; `saved` says how many uploads succeeded, the report's among them.
    fn demand_miss(&self, saved: usize) -> Result<()> {
        ensure!(
            (self.restored, self.compiled) == (0, MODULES),
            "not a miss: {}",
            self.text
        );
        ensure!(self.jars.len() == MODULES, "jars: {:?}", self.jars);
        ensure!(
            self.saved == saved,
            "{} saved, not {saved}: {}",
            self.saved,
            self.text
        );
        Ok(())
    }

    fn demand_hit(&self, first: &Build) -> Result<()> {
        ensure!(
            (self.restored, self.compiled) == (MODULES, 0),
            "ran again: {}",
            self.text
        );
        ensure!(self.jars == first.jars, "the jars differ: {}", self.text);
        Ok(())
    }
}

/// Jar and description of two modules, and the report.
const UPLOADS: usize = 2 * MODULES + 1;

#[test]
fn a_second_maven_build_restores_every_module_also_after_a_kill_half_way() -> Result<()> {
    let _turn = Turn::shared()?;
    let project = Project::new()?;
    let storage = scratch("store")?;
    let serve = Serve::on(&storage.path().join("store"), "2GB");
    let server = serve.start()?;
    let relay = Relay::to(server.address())?;
    let url = relay.url();
    // The first module's jar is stored; the server dies under its description.
    relay.stop_after("PUT", 1);
    let (first, server) = killed_half_way(&relay, &serve, server, || project.build(&url, ""))?;
    ensure!(
        (first.restored, first.compiled) == (0, MODULES),
        "not a miss: {}",
        first.text
    );
    ensure!(
        first.saved >= UPLOADS - 1,
        "more than one upload was lost: {}",
        first.text
    );
    let second = project.build(&url, "")?;
    ensure!(
        second.jars == first.jars,
        "the jars differ: {}",
        second.text
    );
    let third = project.build(&url, "")?;
    third.demand_hit(&first)?;
    ensure!(
        third.saved == 1,
        "the report is saved after a hit, too: {}",
        third.text
    );
    server.stop()?;
    say("maven: 2 modules, 3 builds, killed during a PUT of the first");
    Ok(())
}

#[test]
fn maven_reads_with_a_read_only_token_and_builds_without_a_cache_when_its_token_is_wrong()
-> Result<()> {
    let _turn = Turn::shared()?;
    let project = Project::new()?;
    let storage = scratch("store")?;
    let tokens = Tokens::in_folder(storage.path());
    let (write, read) = (
        tokens.create("team", "write")?,
        tokens.create("team", "read")?,
    );
    let serve = Serve::on(&storage.path().join("store"), "2GB").flags(&tokens.flags()?);
    let server = serve.clone().flags(&["--anonymous", "none"]).start()?;
    let refused = project.build(&server.url(), &read)?;
    refused
        .demand_miss(0)
        .context("read-only, nothing stored")?;
    ensure!(refused.refused == UPLOADS, "refusals: {}", refused.text);
    project
        .build(&server.url(), tokens::UNKNOWN)?
        .demand_miss(0)
        .context("a wrong token")?;
    let first = project.build(&server.url(), &write)?;
    first.demand_miss(UPLOADS)?;
    let reader = project.build(&server.url(), &read)?;
    reader.demand_hit(&first).context("read-only")?;
    ensure!(
        reader.saved == 0,
        "a reader saved something: {}",
        reader.text
    );
    server.stop()?;
    // Where strangers may read, nothing asks Maven for its password: it reads as a stranger until its first upload, so
    // it has to be told to show it by itself.
    let server = serve.start()?;
    let stranger = project.build(&server.url(), &read)?;
    ensure!(
        stranger.compiled > 0,
        "a stranger sees the team's: {}",
        stranger.text
    );
    let shown = project.build_with(&server.url(), &read, &[PREEMPTIVE])?;
    shown
        .demand_hit(&first)
        .context("with its password shown unasked")?;
    server.stop()?;
    say("maven: Basic, read-only on an empty and on a full cache, wrong token");
    Ok(())
}

#[test]
fn maven_rebuilds_a_module_whose_jar_is_gone_and_overwrites_jar_and_description() -> Result<()> {
    let _turn = Turn::shared()?;
    let project = Project::new()?;
    let storage = scratch("store")?;
    let server = Serve::on(&storage.path().join("store"), "2GB").start()?;
    let first = project.build(&server.url(), "")?;
    first.demand_miss(UPLOADS)?;
    // A second server that has the descriptions but not the jars.
    let poor = Serve::on(&storage.path().join("poor"), "2GB").start()?;
    let described = uploaded(&first.text, "buildinfo.xml");
    let jars = uploaded(&first.text, ".jar");
    ensure!(
        (described.len(), jars.len()) == (MODULES, MODULES),
        "uploads: {}",
        first.text
    );
    for path in &described {
        let description = get(&server, path)?;
        let sent = http::once(poor.address(), "PUT", path, &[], Some(&description))?;
        ensure!(sent.status == 200, "{} {path}", sent.status);
    }
    let rebuilt = project.build(&poor.url(), "")?;
    ensure!(
        rebuilt.compiled == MODULES,
        "restored from nothing: {}",
        rebuilt.text
    );
    ensure!(
        rebuilt.saved == UPLOADS,
        "not saved again: {}",
        rebuilt.text
    );
    for path in &described {
        ensure!(
            get(&poor, path)? != get(&server, path)?,
            "not overwritten: {path}"
        );
    }
    for path in &jars {
        ensure!(
            get(&poor, path)? == get(&server, path)?,
            "another jar: {path}"
        );
    }
    project.build(&poor.url(), "")?.demand_hit(&first)?;
    poor.stop()?;
    server.stop()?;
    say("maven: descriptions without jars are rebuilt and overwritten");
    Ok(())
}

/// The paths of what a build says it saved, by the end of their names.
fn uploaded(text: &str, end: &str) -> Vec<String> {
    let saved = text
        .lines()
        .filter_map(|line| line.split("Saved to remote cache ").nth(1));
    let path = |url: &str| url.find("/maven/").map(|at| url[at..].to_owned());
    saved
        .filter(|url| url.ends_with(end))
        .filter_map(path)
        .collect()
}

fn get(server: &Server, path: &str) -> Result<Vec<u8>> {
    let response = http::once(server.address(), "GET", path, &[], None)?;
    ensure!(response.status == 200, "GET {path}: {}", response.status);
    Ok(response.body)
}

#[test]
fn an_upload_that_expects_to_continue_is_told_so_or_refused_before_its_body() -> Result<()> {
    let _turn = Turn::shared()?;
    let storage = scratch("store")?;
    let tokens = Tokens::in_folder(storage.path());
    let read = tokens.create("team", "read")?;
    let open = Serve::on(&storage.path().join("open"), "256MB")
        .flags(&["--max-blob-size", "1MB"])
        .start()?;
    let body = content::body(3, 2_000);
    for version in PATH_VERSIONS {
        let path = format!("/maven/{version}/sample.build/numbers/ab12/numbers.jar");
        let mut connection = Connection::open(open.address())?;
        let head = expecting(&path, body.len(), "");
        connection.send_raw(head.as_bytes())?;
        let interim = connection.response_head()?;
        ensure!(interim.status == 100, "no 100 but {}", interim.status);
        connection.send_raw(&body)?;
        let stored = connection.response(false)?;
        ensure!(stored.status == 200, "{} {}", stored.status, stored.text());
        ensure!(get(&open, &path)? == body, "other bytes");
    }
    let path = "/maven/v1.2/sample.build/numbers/ab12/huge.jar";
    let refused = refusal(&open, &expecting(path, 5_000_000, ""))?;
    ensure!(refused == 413, "too large, yet {refused}");
    open.stop()?;
    let closed = Serve::on(&storage.path().join("closed"), "256MB").flags(&tokens.flags()?);
    let closed = closed.start()?;
    let refused = refusal(&closed, &expecting(path, 2_000, &read))?;
    ensure!(refused == 403, "a reader writes, yet {refused}");
    let refused = refusal(&closed, &expecting(path, 2_000, tokens::UNKNOWN))?;
    ensure!(refused == 401, "a stranger writes, yet {refused}");
    closed.stop()?;
    say("maven: 100-continue at three path versions, 413, 403 and 401 before the body");
    Ok(())
}

fn expecting(path: &str, length: usize, token: &str) -> String {
    let authorization = match token {
        "" => String::new(),
        token => format!("Authorization: Bearer {token}\r\n"),
    };
    format!(
        "PUT {path} HTTP/1.1\r\nHost: cache.test\r\n{authorization}Expect: 100-continue\r\n\
         Content-Length: {length}\r\n\r\n"
    )
}

/// The status of the first answer to a head whose body is never sent.
fn refusal(server: &Server, head: &str) -> Result<u16> {
    let mut connection = Connection::open(server.address())?;
    connection.send_raw(head.as_bytes())?;
    Ok(connection.response_head()?.status)
}

/// Maven's resolver goes on from the bytes it has, if the object is older than they are.
#[test]
fn a_download_is_resumed_if_the_object_has_not_changed_since() -> Result<()> {
    let _turn = Turn::shared()?;
    let storage = scratch("store")?;
    let server = Serve::on(&storage.path().join("store"), "256MB").start()?;
    let path = "/maven/v1.2/sample.build/numbers/ab12/numbers.jar";
    let body = content::body(4, 3_000_000);
    let mut connection = Connection::open(server.address())?;
    let sent = connection.request("PUT", path, &[], Some(&body))?;
    ensure!(sent.status == 200, "{}", sent.status);
    let full = connection.request("GET", path, &[], None)?;
    let modified = full
        .header("last-modified")
        .context("a Last-Modified")?
        .to_owned();
    let resume = |since: &str| {
        [
            "Range: bytes=1000000-".to_owned(),
            format!("If-Unmodified-Since: {since}"),
            "Accept-Encoding: identity".to_owned(),
        ]
    };
    for (since, status) in [
        (modified.as_str(), 206),
        ("Fri, 01 Jan 2100 00:00:00 GMT", 206),
        ("Wed, 01 Jan 2020 00:00:00 GMT", 412),
    ] {
        let headers = resume(since);
        let headers: Vec<&str> = headers.iter().map(String::as_str).collect();
        let part = connection.request("GET", path, &headers, None)?;
        ensure!(
            part.status == status,
            "{since}: {} not {status}",
            part.status
        );
        if status == 206 {
            ensure!(part.body == body[1_000_000..], "other bytes");
            let range = part.header("content-range");
            ensure!(range == Some("bytes 1000000-2999999/3000000"), "{range:?}");
        }
    }
    server.stop()?;
    say("maven: resumed downloads, 206 and 412");
    Ok(())
}

#[test]
fn the_paths_of_saved_files_are_read_from_what_maven_says() {
    let text =
        "[INFO] Saved to remote cache http://127.0.0.1:1/maven/v1.2/g/a/ab/a.jar\n[INFO] other\n";
    assert_eq!(uploaded(text, ".jar"), ["/maven/v1.2/g/a/ab/a.jar"]);
    assert!(uploaded(text, "buildinfo.xml").is_empty());
}
