//! Real ccache 4.7 over HTTP with its three layouts: compile, wipe local state, compile again; nothing is compiled.
//!
//! Two objects travel per compilation, a manifest and a result. `CCACHE_REMOTE_ONLY` keeps local storage out; in one
//! case local storage is on and wiped, as on a machine that is new.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::atomic::{AtomicUsize, Ordering};

use anyhow::{Context as _, Result, ensure};
use tempfile::TempDir;
use zimcache_tests::content;
use zimcache_tests::environment::scratch;
use zimcache_tests::process::{Tool, has_program};
use zimcache_tests::report::{Turn, say};
use zimcache_tests::server::Serve;
use zimcache_tests::sources::{CodeBase, ZLIB, ZSTD};

use crate::churn::Churn;

const LAYOUTS: [&str; 3] = ["subdirs", "flat", "bazel"];
const JOBS: usize = 2;

struct Project {
    folder: TempDir,
    files: Vec<String>,
    remote_only: bool,
}

/// What one run over all files did.
struct Compiled {
    statistics: BTreeMap<String, u64>,
    objects: BTreeMap<String, String>,
}

impl Compiled {
    fn count(&self, name: &str) -> u64 {
        self.statistics.get(name).copied().unwrap_or(0)
    }
}

impl Project {
    fn new(code: CodeBase) -> Result<Project> {
        ensure!(has_program("ccache"), "ccache is missing: install it");
        let folder = scratch("ccache")?;
        let source = folder.path().join("source");
        code.copy_to(&source)?;
        Ok(Project {
            files: code.c_files(&source)?,
            folder,
            remote_only: true,
        })
    }

    fn ccache(&self, name: &str, remote: &str) -> Tool {
        let folder = self.folder.path();
        let tool = Tool::new("ccache", 120)
            .env("HOME", folder)
            .env("CCACHE_DIR", folder.join("ccache"))
            .env("CCACHE_CONFIGPATH", "/dev/null")
            .env("CCACHE_NAMESPACE", name)
            .env("CCACHE_LOGFILE", folder.join("ccache/log"))
            .env("CCACHE_REMOTE_STORAGE", remote)
            .current_dir(&folder.join("source"));
        if self.remote_only {
            tool.env("CCACHE_REMOTE_ONLY", "1")
        } else {
            tool
        }
    }

    /// Wipes everything local, then compiles every file. Builds of another `name` share no objects.
    fn compile(&self, name: &str, remote: &str) -> Result<Compiled> {
        for name in ["ccache", "objects"] {
            let path = self.folder.path().join(name);
            if path.exists() {
                std::fs::remove_dir_all(&path)?;
            }
            std::fs::create_dir(&path)?;
        }
        let next = AtomicUsize::new(0);
        std::thread::scope(|scope| -> Result<()> {
            let worker = || -> Result<()> {
                while let Some(file) = self.files.get(next.fetch_add(1, Ordering::Relaxed)) {
                    self.compile_one(name, remote, file)?;
                }
                Ok(())
            };
            let workers: Vec<_> = (0..JOBS).map(|_| scope.spawn(worker)).collect();
            workers
                .into_iter()
                .try_for_each(|worker| worker.join().expect("a compiling thread"))
        })?;
        Ok(Compiled {
            statistics: self.statistics(name, remote)?,
            objects: self.objects()?,
        })
    }

    fn object(&self, file: &str) -> std::path::PathBuf {
        let name = file.replace('/', "_");
        self.folder
            .path()
            .join("objects")
            .join(name)
            .with_extension("o")
    }

    fn compile_one(&self, name: &str, remote: &str, file: &str) -> Result<()> {
        let flags = [
            "gcc",
            "-O0",
            "-DHAVE_UNISTD_H",
            "-DZSTD_DISABLE_ASM",
            "-I.",
            "-Icommon",
        ];
        self.ccache(name, remote)
            .args(flags)
            .args(["-c", file, "-o"])
            .args([self.object(file)])
            .run_ok()?;
        Ok(())
    }

    fn statistics(&self, name: &str, remote: &str) -> Result<BTreeMap<String, u64>> {
        let output = self.ccache(name, remote).args(["--print-stats"]).run_ok()?;
        let text = String::from_utf8(output.stdout)?;
        let pairs = text.lines().filter_map(|line| line.split_once('\t'));
        let parse = |(name, count): (&str, &str)| Some((name.to_owned(), count.parse().ok()?));
        let counts: Vec<(String, u64)> = pairs.filter_map(parse).collect();
        let troubled = |(name, count): &(String, u64)| {
            *count > 0
                && ["remote_storage_error", "remote_storage_timeout"].contains(&name.as_str())
        };
        if counts.iter().any(troubled) {
            self.say_trouble()?;
        }
        let counts = counts.into_iter();
        Ok(counts.filter(|(_, count)| *count > 0).collect())
    }

    /// What ccache logged about failed requests.
    fn say_trouble(&self) -> Result<()> {
        let log = std::fs::read_to_string(self.folder.path().join("ccache/log"))?;
        let failed = |line: &&str| line.contains("http") || line.contains("remote storage");
        let good = |line: &&str| line.contains("Retrieved") || line.contains("Stored");
        for line in log
            .lines()
            .filter(|line| failed(line) && !good(line))
            .take(20)
        {
            say(line);
        }
        Ok(())
    }

    fn objects(&self) -> Result<BTreeMap<String, String>> {
        let digest = |file: &String| {
            let bytes = std::fs::read(self.object(file)).with_context(|| file.clone())?;
            Ok((file.clone(), content::sha256(&bytes)))
        };
        self.files.iter().map(digest).collect()
    }

    fn check_first(&self, first: &Compiled) -> Result<()> {
        let all = self.files.len() as u64;
        ensure!(first.count("cache_miss") == all, "{:?}", first.statistics);
        ensure!(
            first.count("remote_storage_error") == 0,
            "{:?}",
            first.statistics
        );
        ensure!(
            first.count("remote_storage_timeout") == 0,
            "{:?}",
            first.statistics
        );
        Ok(())
    }

    fn check_second(&self, first: &Compiled, second: &Compiled) -> Result<()> {
        let all = self.files.len() as u64;
        let text = format!("{:?}", second.statistics);
        ensure!(second.count("cache_miss") == 0, "compiled again: {text}");
        ensure!(
            second.count("direct_cache_hit") == all,
            "not all direct: {text}"
        );
        ensure!(
            second.count("remote_storage_read_hit") == 2 * all,
            "not all remote: {text}"
        );
        ensure!(
            second.count("remote_storage_read_miss") == 0,
            "a remote miss: {text}"
        );
        ensure!(
            second.count("remote_storage_error") == 0,
            "an error: {text}"
        );
        ensure!(
            second.count("remote_storage_timeout") == 0,
            "a time-out: {text}"
        );
        ensure!(first.objects == second.objects, "the objects differ");
        Ok(())
    }
}

/// ccache gives up after 100 ms and 10 s by itself, which a machine busy with other tests can exceed; a server that
/// never answers is still found out.
const PATIENCE: &str = "connect-timeout=5000|operation-timeout=30000";

fn remote(url: &str, layout: &str) -> String {
    format!("{url}/ccache|layout={layout}|{PATIENCE}")
}

#[test]
fn a_second_compilation_hits_in_every_layout_also_after_a_kill_and_during_churn() -> Result<()> {
    let _turn = Turn::alone()?;
    let project = Project::new(ZLIB)?;
    let storage = scratch("store")?;
    let serve = Serve::on(&storage.path().join("store"), "2GB");
    let server = serve.start()?;
    let mut firsts = Vec::new();
    for layout in LAYOUTS {
        let first = project.compile(layout, &remote(&server.url(), layout))?;
        project.check_first(&first).context(layout)?;
        let second = project.compile(layout, &remote(&server.url(), layout))?;
        project.check_second(&first, &second).context(layout)?;
        firsts.push(first);
    }
    server.kill_9()?;
    let server = serve.start()?;
    for (layout, first) in LAYOUTS.into_iter().zip(&firsts) {
        let again = project.compile(layout, &remote(&server.url(), layout))?;
        let what = || format!("{layout}, after kill -9");
        project.check_second(first, &again).with_context(what)?;
    }
    let churn = Churn::start(server.address(), "ccache");
    let mut during = Ok(());
    for (layout, first) in LAYOUTS.into_iter().zip(&firsts) {
        let again = project.compile(layout, &remote(&server.url(), layout));
        let checked = again.and_then(|again| project.check_second(first, &again));
        during = during.and(checked.with_context(|| format!("{layout}, during churn")));
    }
    let churned = churn.finish()?;
    during?;
    for (layout, first) in LAYOUTS.into_iter().zip(&firsts) {
        let again = project.compile(layout, &remote(&server.url(), layout))?;
        let what = || format!("{layout}, after churn");
        project.check_second(first, &again).with_context(what)?;
    }
    server.stop()?;
    say(&format!(
        "row 37, ccache: {} files of zlib, 3 layouts, 15 runs after a wipe, {} MB churned beside them",
        project.files.len(),
        churned / 1_000_000
    ));
    Ok(())
}

#[test]
fn a_new_machine_fills_its_local_ccache_from_the_server() -> Result<()> {
    let _turn = Turn::alone()?;
    let mut project = Project::new(ZSTD)?;
    project.remote_only = false;
    let storage = scratch("store")?;
    let server = Serve::on(&storage.path().join("store"), "2GB").start()?;
    let remote = remote(&server.url(), "subdirs");
    let first = project.compile("new", &remote)?;
    project.check_first(&first)?;
    let second = project.compile("new", &remote)?;
    project.check_second(&first, &second)?;
    let kept = project.folder.path().join("ccache");
    ensure!(has_results(&kept)?, "nothing was kept locally");
    server.stop()?;
    let files = project.files.len();
    say(&format!(
        "row 37, ccache: {files} files of zstd with local storage wiped"
    ));
    Ok(())
}

/// Whether ccache keeps results (`R` files) below a folder.
fn has_results(folder: &Path) -> Result<bool> {
    for item in std::fs::read_dir(folder)? {
        let item = item?;
        let name = item.file_name();
        let is_folder = item.file_type()?.is_dir();
        if is_folder && has_results(&item.path())? || name.to_string_lossy().ends_with('R') {
            return Ok(true);
        }
    }
    Ok(false)
}
