//! Real sccache 0.19: a server process of its own that is stopped with its guard, and compilations through it.
//!
//! sccache probes its remote storage once, when its server starts, so every case starts a server. It talks to its clients
//! over a socket file, so no port is taken, and has no local storage: a hit is a hit of the remote storage.

use std::collections::BTreeMap;
use std::fs::File;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail, ensure};
use serde_json::Value;
use tempfile::TempDir;

use crate::content;
use crate::environment::{cache_folder, scratch};
use crate::process::{Tool, said};
use crate::sources::ZLIB;

const START_LIMIT: Duration = Duration::from_secs(30);
const STOP_LIMIT: Duration = Duration::from_secs(30);

/// Where `.ci/needs clients` puts it.
///
/// # Errors
/// When it is not there.
pub fn program() -> Result<PathBuf> {
    let path = cache_folder()?.join("tools/bin/sccache");
    ensure!(
        path.is_file(),
        "{} is missing: run `make clients`",
        path.display()
    );
    Ok(path)
}

/// A C code base and the objects made of it.
#[derive(Debug)]
pub struct Project {
    folder: TempDir,
    files: Vec<String>,
}

impl Project {
    /// The files of zlib.
    ///
    /// # Errors
    /// When they cannot be had.
    pub fn new() -> Result<Project> {
        let folder = scratch("sccache")?;
        let source = folder.path().join("source");
        ZLIB.copy_to(&source)?;
        Ok(Project {
            files: ZLIB.c_files(&source)?,
            folder,
        })
    }

    /// How many files are compiled.
    pub fn files(&self) -> u64 {
        self.files.len() as u64
    }

    /// Starts sccache's server with these variables; `None` when it refuses to start, with what it said.
    ///
    /// # Errors
    /// When it is not installed, or neither starts nor ends.
    pub fn start(&self, variables: &[(&str, &str)]) -> Result<Started<'_>> {
        let log = self.folder.path().join("log");
        let socket = self.folder.path().join("socket");
        let _ = std::fs::remove_file(&socket);
        let mut command = Command::new(program()?);
        command
            .env_clear()
            .env("PATH", "/usr/local/bin:/usr/bin:/bin")
            .env("HOME", self.folder.path())
            .env("SCCACHE_SERVER_UDS", &socket)
            .env("SCCACHE_CONF", "/dev/null")
            .env("SCCACHE_IDLE_TIMEOUT", "0")
            .env("SCCACHE_LOG", "debug")
            .env("SCCACHE_START_SERVER", "1")
            .env("SCCACHE_NO_DAEMON", "1")
            .envs(variables.iter().copied())
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(File::create(&log)?);
        let mut child = command.spawn().context("starting sccache")?;
        let begun = Instant::now();
        while begun.elapsed() < START_LIMIT {
            if socket.exists() {
                return Ok(Started::Running(Sccache {
                    project: self,
                    child,
                    socket,
                    log,
                }));
            }
            if child.try_wait()?.is_some() {
                return Ok(Started::Refused(std::fs::read_to_string(&log)?));
            }
            std::thread::sleep(Duration::from_millis(10));
        }
        // It is ours and has not been handed over yet.
        let _ = (child.kill(), child.wait());
        bail!(
            "sccache did neither start nor end: {}",
            std::fs::read_to_string(log)?
        )
    }

    /// Compiles every file once through a server that has these variables.
    ///
    /// # Errors
    /// When the server refuses to start or a compilation fails.
    pub fn compile(&self, variables: &[(&str, &str)]) -> Result<Compiled> {
        match self.start(variables)? {
            Started::Refused(said) => bail!("sccache refused to start: {said}"),
            Started::Running(sccache) => {
                let compiled = sccache.compile()?;
                sccache.stop()?;
                Ok(compiled)
            }
        }
    }

    fn object(&self, file: &str) -> PathBuf {
        let name = Path::new(file).with_extension("o");
        self.folder.path().join("objects").join(name)
    }
}

/// What came of starting a server.
#[derive(Debug)]
pub enum Started<'a> {
    /// It runs.
    Running(Sccache<'a>),
    /// It ended by itself, saying this.
    Refused(String),
}

/// A running sccache server. Dropping it kills it.
#[derive(Debug)]
pub struct Sccache<'a> {
    project: &'a Project,
    child: Child,
    socket: PathBuf,
    log: PathBuf,
}

impl Sccache<'_> {
    fn tool(&self) -> Result<Tool> {
        let tool = Tool::new(program()?, 120).env("SCCACHE_SERVER_UDS", &self.socket);
        Ok(tool.env("SCCACHE_CONF", "/dev/null"))
    }

    /// Removes earlier objects and compiles every file.
    ///
    /// # Errors
    /// When a compilation fails.
    pub fn compile(&self) -> Result<Compiled> {
        let objects = self.project.folder.path().join("objects");
        crate::folders::wipe(&objects)?;
        std::fs::create_dir(&objects)?;
        let before = self.statistics()?;
        for file in &self.project.files {
            self.tool()?
                .args(["gcc", "-O0", "-DHAVE_UNISTD_H", "-I.", "-c", file, "-o"])
                .args([self.project.object(file)])
                .current_dir(&self.project.folder.path().join("source"))
                .run_ok()
                .with_context(|| self.log_text())?;
        }
        let after = self.statistics()?;
        Ok(Compiled {
            hits: after.hits - before.hits,
            misses: after.misses - before.misses,
            writes: after.writes - before.writes,
            failed_writes: after.failed_writes - before.failed_writes,
            mode: after.mode,
            objects: self.objects()?,
            log: self.log_text(),
        })
    }

    /// The counts, once writes in the background have ended: every miss has been written, or failed to be.
    fn statistics(&self) -> Result<Compiled> {
        let begun = Instant::now();
        loop {
            let counts = self.statistics_now()?;
            let settled = counts.writes + counts.failed_writes >= counts.misses;
            if settled || counts.mode != "ReadWrite" || begun.elapsed() > STOP_LIMIT {
                return Ok(counts);
            }
            std::thread::sleep(Duration::from_millis(20));
        }
    }

    fn statistics_now(&self) -> Result<Compiled> {
        let asked = self
            .tool()?
            .args(["--show-stats", "--stats-format", "json"]);
        let said: Value = serde_json::from_slice(&asked.run_ok()?.stdout)?;
        let stats = &said["stats"];
        let of_languages = |name: &str| {
            let counts = stats[name]["counts"].as_object();
            counts.map_or(0, |counts| counts.values().filter_map(Value::as_u64).sum())
        };
        let number = |name: &str| stats[name].as_u64().unwrap_or(0);
        Ok(Compiled {
            hits: of_languages("cache_hits"),
            misses: of_languages("cache_misses"),
            writes: number("cache_writes"),
            failed_writes: number("cache_write_errors"),
            mode: said["effective_cache_mode"]
                .as_str()
                .unwrap_or_default()
                .to_owned(),
            objects: BTreeMap::new(),
            log: String::new(),
        })
    }

    fn objects(&self) -> Result<BTreeMap<String, String>> {
        let digest = |file: &String| {
            let bytes = std::fs::read(self.project.object(file))?;
            Ok((file.clone(), content::sha256(&bytes)))
        };
        self.project.files.iter().map(digest).collect()
    }

    fn log_text(&self) -> String {
        std::fs::read_to_string(&self.log).unwrap_or_default()
    }

    /// Asks it to stop and waits until it has.
    ///
    /// # Errors
    /// When it does not.
    pub fn stop(mut self) -> Result<()> {
        let asked = self.tool()?.args(["--stop-server"]).run()?;
        let begun = Instant::now();
        while begun.elapsed() < STOP_LIMIT {
            if self.child.try_wait()?.is_some() {
                return Ok(());
            }
            std::thread::sleep(Duration::from_millis(10));
        }
        bail!("sccache does not stop: {}", said(&asked))
    }
}

impl Drop for Sccache<'_> {
    fn drop(&mut self) {
        // Both fail harmlessly when the process has ended already.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// What one run over all files did.
#[derive(Debug)]
pub struct Compiled {
    /// Objects that came from the storage.
    pub hits: u64,
    /// Objects that were compiled.
    pub misses: u64,
    /// Objects that were stored.
    pub writes: u64,
    /// Objects that could not be stored.
    pub failed_writes: u64,
    /// `ReadWrite` or `ReadOnly`, as sccache sees its storage.
    pub mode: String,
    /// The digest of every object file.
    pub objects: BTreeMap<String, String>,
    /// What the server logged.
    pub log: String,
}

impl Compiled {
    /// Demands that everything was compiled, and stored without trouble.
    ///
    /// # Errors
    /// When it was not.
    pub fn demand_stored(&self, files: u64) -> Result<()> {
        let counts = (self.hits, self.misses, self.writes, self.failed_writes);
        ensure!(counts == (0, files, files, 0), "{counts:?} {}", self.log);
        Ok(())
    }

    /// Demands that everything came from the storage and equals what was compiled.
    ///
    /// # Errors
    /// When it does not.
    pub fn demand_hits(&self, first: &Compiled) -> Result<()> {
        let counts = (self.hits, self.misses);
        let files = first.objects.len() as u64;
        ensure!(counts == (files, 0), "{counts:?} {}", self.log);
        ensure!(self.objects == first.objects, "the objects differ");
        Ok(())
    }

    /// Demands that everything was compiled and nothing stored, with the same objects.
    ///
    /// # Errors
    /// When something was stored or found.
    pub fn demand_compiled_only(&self, first: &Compiled) -> Result<()> {
        let counts = (self.hits, self.misses, self.writes);
        let files = first.objects.len() as u64;
        ensure!(counts == (0, files, 0), "{counts:?} {}", self.log);
        ensure!(self.objects == first.objects, "the objects differ");
        Ok(())
    }
}
