//! Real BuildStream 2.8.1 with its buildbox-casd: artifacts and sources pushed to our Remote Asset API and pulled from it.
//!
//! The sample imports an archive that is taken away after the first build: whatever a later build or checkout has, it has
//! from the server. BuildStream has a home of its own, and with it a cache that is wiped. Configured as `zim setup
//! buildstream` says.

use std::collections::BTreeMap;
use std::path::PathBuf;

use anyhow::{Context as _, Result, ensure};
use tempfile::TempDir;
use zimcache_tests::certificate::Certificates;
use zimcache_tests::content;
use zimcache_tests::environment::{cache_folder, scratch};
use zimcache_tests::folders;
use zimcache_tests::process::{Tool, said};
use zimcache_tests::report::{Turn, say};
use zimcache_tests::server::Serve;
use zimcache_tests::setup::Setup;
use zimcache_tests::tokens::{self, Tokens};

const BUILD_SECONDS: u32 = 120;
/// An import, and a stack of it.
const ELEMENTS: u64 = 2;
/// Above a batch, so that it goes by ByteStream.
const LARGE_BYTES: usize = 6_000_000;
const NAMESPACE: &str = "acme";
/// Without it casd keeps 5 % of the disk free, and waits for ever where less is.
const RESERVED: &str = "cache:\n  reserved-disk-space: 100M\n";
const STACK: &str = "kind: stack\ndepends: [import.bst]\n";
const CONFIGURATION: &str = ".config/buildstream.conf";

/// A project, and the home of a user.
struct Project {
    folder: TempDir,
}

/// What one run did.
struct Run {
    code: Option<i32>,
    text: String,
}

impl Project {
    fn new() -> Result<Project> {
        let project = Project {
            folder: scratch("buildstream")?,
        };
        let files = project.path("files");
        std::fs::create_dir_all(files.join("deep/with blank"))?;
        std::fs::write(files.join("deep/large"), content::body(5, LARGE_BYTES))?;
        std::fs::write(files.join("deep/with blank/note"), "a note\n")?;
        std::fs::write(files.join("empty"), "")?;
        let archive = project.path("sample.tar");
        let tar = Tool::new("tar", 30).args(["-cf".as_ref(), archive.as_os_str()]);
        tar.args(["."]).current_dir(&files).run_ok()?;
        let digest = content::sha256(&std::fs::read(&archive)?);
        let import = format!(
            "kind: import\nsources:\n- kind: tar\n  url: file://{}\n  ref: {digest}\n  base-dir: ''\n",
            archive.display()
        );
        std::fs::create_dir_all(project.path("project/elements"))?;
        std::fs::create_dir(project.path("home"))?;
        let conf = "name: sample\nmin-version: 2.0\nelement-path: elements\n";
        std::fs::write(project.path("project/project.conf"), conf)?;
        std::fs::write(project.path("project/elements/import.bst"), import)?;
        std::fs::write(project.path("project/elements/all.bst"), STACK)?;
        Ok(project)
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    fn configure(&self, setup: &Setup) -> Result<()> {
        setup.append_to(&self.path("home"), "")?;
        let file = self.path("home").join(CONFIGURATION);
        let text = std::fs::read_to_string(&file)?;
        std::fs::write(file, format!("{RESERVED}{text}"))?;
        Ok(())
    }

    /// Replaces a setting in what was configured.
    fn reconfigure(&self, from: &str, to: &str) -> Result<()> {
        let file = self.path("home").join(CONFIGURATION);
        let text = std::fs::read_to_string(&file)?;
        ensure!(text.contains(from), "no {from:?} in {text}");
        std::fs::write(file, text.replace(from, to))?;
        Ok(())
    }

    /// From now on nothing but the server has the content.
    fn lose_the_archive(&self) -> Result<()> {
        Ok(std::fs::remove_file(self.path("sample.tar"))?)
    }

    /// Runs BuildStream with an empty cache.
    fn run(&self, arguments: &[&str]) -> Result<Run> {
        let home = self.path("home");
        folders::wipe(&home.join(".cache"))?;
        let nowhere = "http://127.0.0.1:9";
        let tools = cache_folder()?.join("tools/bin");
        ensure!(
            tools.join("bst").exists(),
            "BuildStream is missing: run `.ci/needs test`"
        );
        let output = Tool::new(tools.join("bst"), BUILD_SECONDS)
            .env("HOME", &home)
            .env("XDG_CACHE_HOME", home.join(".cache"))
            .env("XDG_CONFIG_HOME", home.join(".config"))
            .env("LC_ALL", "C.UTF-8")
            .env("http_proxy", nowhere)
            .env("https_proxy", nowhere)
            .env("no_proxy", "127.0.0.1")
            .args(["--no-interactive", "--no-colors"])
            .args(arguments)
            .current_dir(&self.path("project"))
            .run()?;
        Ok(Run {
            code: output.status.code(),
            text: said(&output),
        })
    }

    fn build(&self) -> Result<Run> {
        let run = self.run(&["build", "all.bst"])?;
        ensure!(run.code == Some(0), "{:?}: {}", run.code, run.text);
        Ok(run)
    }

    /// What an artifact or a source holds, by SHA-256.
    fn checked_out(&self, arguments: &[&str], inside: &str) -> Result<BTreeMap<PathBuf, String>> {
        let target = self.path("out");
        folders::wipe(&target)?;
        let to = target.to_str().context("a path that is text")?;
        let run = self.run(&[arguments, &["--directory", to]].concat())?;
        ensure!(run.code == Some(0), "{:?}: {}", run.code, run.text);
        folders::digests(&target.join(inside), |_| true)
    }

    fn demand_content(&self, found: &BTreeMap<PathBuf, String>) -> Result<()> {
        let files = folders::digests(&self.path("files"), |_| true)?;
        ensure!(*found == files, "{found:?} instead of {files:?}");
        Ok(())
    }
}

impl Run {
    /// How many elements a queue of the summary processed; 0 where there is no such queue.
    fn processed(&self, queue: &str) -> Result<u64> {
        let name = format!("{queue} Queue:");
        let Some(line) = self.text.lines().rfind(|line| line.contains(&name)) else {
            return Ok(0);
        };
        let count = line
            .split("processed ")
            .nth(1)
            .and_then(|rest| rest.split(',').next());
        let count = count.with_context(|| format!("no count in {line:?}"))?;
        Ok(count.parse()?)
    }

    /// Demands so many elements of each queue.
    fn demand(&self, pulled: u64, built: u64, pushed: u64) -> Result<()> {
        for (queue, count) in [("Pull", pulled), ("Build", built), ("Push", pushed)] {
            let processed = self.processed(queue)?;
            ensure!(
                processed == count,
                "{queue}: {processed} instead of {count}: {}",
                self.text
            );
        }
        ensure!(
            !self.text.contains("Failed to initialize remote"),
            "trouble with the cache: {}",
            self.text
        );
        Ok(())
    }
}

#[test]
fn a_second_buildstream_build_pulls_everything_also_after_a_kill() -> Result<()> {
    let _turn = Turn::shared()?;
    let project = Project::new()?;
    let storage = scratch("store")?;
    let serve = Serve::on(&storage.path().join("store"), "1GB");
    let server = serve.start()?;
    let configure = |url: &str| project.configure(&Setup::without_token("buildstream", url)?);
    configure(&server.url())?;

    let first = project.build()?;
    first.demand(0, ELEMENTS, ELEMENTS)?;
    ensure!(first.processed("Src-push")? > 0, "{}", first.text);
    project.lose_the_archive()?;
    project.build()?.demand(ELEMENTS, 0, 0)?;

    server.kill_9()?;
    let server = serve.start()?;
    configure(&server.url())?;
    let artifact = ["artifact", "checkout", "all.bst"];
    project.demand_content(&project.checked_out(&artifact, "")?)?;
    let source = ["source", "checkout", "import.bst"];
    project.demand_content(&project.checked_out(&source, "import")?)?;
    server.stop()?;
    say(&format!(
        "buildstream: {ELEMENTS} artifacts and their sources pushed, pulled after a kill; {} MB read back twice",
        LARGE_BYTES / 1_000_000
    ));
    Ok(())
}

/// Over TLS, because casd gives no token to a server without it.
#[test]
fn buildstream_with_a_token_pushes_and_pulls_as_it_may() -> Result<()> {
    let _turn = Turn::shared()?;
    let project = Project::new()?;
    let storage = scratch("store")?;
    let tokens = Tokens::in_folder(storage.path());
    let write = tokens.create(NAMESPACE, "write")?;
    let read = tokens.create(NAMESPACE, "read")?;
    let certificates = Certificates::make_in(storage.path())?;
    let server = Serve::on(&storage.path().join("store"), "1GB")
        .flags(&["--anonymous", "none"])
        .flags(&certificates.flags().each_ref().map(String::as_str))
        .flags(&tokens.flags()?)
        .start()?;
    let authority = certificates.authority();
    let configure = |token: &str, push: &str| {
        let namespace = Some(NAMESPACE);
        project.configure(&Setup::of("buildstream", &server.url(), token, namespace)?)?;
        let trusted = format!("auth: {{ server-cert: {},", authority.display());
        project.reconfigure("auth: {", &trusted)?;
        project.reconfigure("push: true", &format!("push: {push}"))
    };

    configure(&read, "false")?;
    project.build()?.demand(0, ELEMENTS, 0)?;
    configure(&read, "true")?;
    let refused = project.run(&["build", "all.bst"])?;
    let told = refused.code != Some(0) && refused.text.contains("Failed to push");
    ensure!(told, "{:?}: {}", refused.code, refused.text);
    configure(&write, "true")?;
    let first = project.build()?;
    first
        .demand(0, ELEMENTS, ELEMENTS)
        .context("what was refused was stored")?;
    configure(tokens::UNKNOWN, "true")?;
    let wrong = project.build()?;
    let told = wrong.text.contains("Failed to initialize remote")
        && wrong.text.contains("valid credentials are needed");
    ensure!(
        told && wrong.processed("Build")? == ELEMENTS,
        "{}",
        wrong.text
    );
    project.lose_the_archive()?;
    for push in ["true", "false"] {
        configure(&read, push)?;
        project.build()?.demand(ELEMENTS, 0, 0)?;
    }
    server.stop()?;
    say(
        "buildstream over TLS: reader, writer, wrong token, and the reader again with and without push",
    );
    Ok(())
}
