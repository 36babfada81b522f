//! A program as a child process: started again and again with the same command, stopped by its process id.
//!
//! Invariants: nothing is found by its name; what is stopped was started here; whatever it says is kept in one log.

use std::ffi::{OsStr, OsString};
use std::fs::{File, OpenOptions};
use std::io::{Read as _, Seek as _, SeekFrom};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail};
use rustix::process::{Pid, Signal, kill_process};

/// Longest wait for a line of a program that starts, and for the end of one that was asked to stop.
const START_LIMIT: Duration = Duration::from_mins(1);
const STOP_LIMIT: Duration = Duration::from_mins(1);
const PAUSE: Duration = Duration::from_millis(10);
const SEARCH_PATH: &str = "/usr/local/bin:/usr/bin:/bin:/usr/sbin:/sbin";
/// How much of a log a failure shows.
const TAIL_BYTES: u64 = 6 << 10;

/// What is run, and where its words go.
#[derive(Debug, Clone)]
pub struct Program {
    name: String,
    words: Vec<OsString>,
    variables: Vec<(String, String)>,
    log: PathBuf,
}

impl Program {
    /// A program with its arguments; its environment is empty but for a search path.
    pub fn new(name: &str, log: &Path, words: &[&dyn AsRef<OsStr>]) -> Program {
        Program {
            name: name.to_owned(),
            words: words.iter().map(|word| word.as_ref().to_owned()).collect(),
            variables: Vec::new(),
            log: log.to_owned(),
        }
    }

    /// Adds arguments.
    #[must_use]
    pub fn args<S: AsRef<OsStr>>(mut self, more: &[S]) -> Program {
        self.words
            .extend(more.iter().map(|word| word.as_ref().to_owned()));
        self
    }

    /// Sets a variable.
    #[must_use]
    pub fn env(mut self, name: &str, value: &str) -> Program {
        self.variables.push((name.to_owned(), value.to_owned()));
        self
    }

    /// Starts it.
    ///
    /// # Errors
    /// When it is not there, or its log cannot be written.
    pub fn start(&self) -> Result<Running> {
        let mut log = OpenOptions::new()
            .create(true)
            .append(true)
            .open(&self.log)?;
        let said_before = log.seek(SeekFrom::End(0))?;
        let child = Command::new(&self.words[0])
            .args(&self.words[1..])
            .env_clear()
            .env("PATH", SEARCH_PATH)
            .envs(self.variables.iter().map(|(name, value)| (name, value)))
            .stdin(Stdio::null())
            .stdout(log.try_clone()?)
            .stderr(log)
            .spawn()
            .with_context(|| format!("starting {}", self.name))?;
        Ok(Running {
            name: self.name.clone(),
            child,
            log: self.log.clone(),
            said_before,
        })
    }
}

/// A program that runs. Dropping it kills it.
#[derive(Debug)]
pub struct Running {
    name: String,
    child: Child,
    log: PathBuf,
    said_before: u64,
}

impl Running {
    /// Its process id.
    pub fn id(&self) -> u32 {
        self.child.id()
    }

    /// The address of its own machine that it names after these words; waits until it does.
    ///
    /// # Errors
    /// When it ends or stays silent; the text holds its log.
    pub fn address_after(&mut self, words: &str) -> Result<SocketAddr> {
        let begun = Instant::now();
        loop {
            if let Some(found) = address_in(&self.said()?, words) {
                return Ok(found);
            }
            if let Some(status) = self.child.try_wait()? {
                bail!("{} ended with {status}:\n{}", self.name, self.log_tail());
            }
            if begun.elapsed() > START_LIMIT {
                bail!("{} does not start:\n{}", self.name, self.log_tail());
            }
            std::thread::sleep(PAUSE);
        }
    }

    /// What it has said since this start.
    fn said(&self) -> Result<String> {
        let mut log = File::open(&self.log)?;
        log.seek(SeekFrom::Start(self.said_before))?;
        let mut text = Vec::new();
        log.read_to_end(&mut text)?;
        Ok(String::from_utf8_lossy(&text).into_owned())
    }

    /// Whether it still runs.
    pub fn is_running(&mut self) -> bool {
        matches!(self.child.try_wait(), Ok(None))
    }

    /// Its last words, for failure texts.
    pub fn log_tail(&self) -> String {
        tail_of(&self.log)
    }

    /// Kills it as `kill -9` does.
    ///
    /// # Errors
    /// When it cannot be killed.
    pub fn kill_9(mut self) -> Result<()> {
        self.child.kill().context("kill -9")?;
        self.child.wait().context("waiting for what was killed")?;
        Ok(())
    }

    /// Has it stand still until [`Running::go_on`].
    ///
    /// # Errors
    /// When it is gone.
    pub fn stand_still(&self) -> Result<()> {
        self.signal(Signal::STOP)
    }

    /// Has it go on.
    ///
    /// # Errors
    /// When it is gone.
    pub fn go_on(&self) -> Result<()> {
        self.signal(Signal::CONT)
    }

    /// Asks it to stop and waits until it has.
    ///
    /// # Errors
    /// When it does not stop in time, or ends with a failure.
    pub fn stop(mut self) -> Result<()> {
        self.signal(Signal::TERM)?;
        let begun = Instant::now();
        while begun.elapsed() < STOP_LIMIT {
            if let Some(status) = self.child.try_wait()? {
                if !status.success() {
                    bail!("{} ended with {status}:\n{}", self.name, self.log_tail());
                }
                return Ok(());
            }
            std::thread::sleep(PAUSE);
        }
        bail!("{} does not stop:\n{}", self.name, self.log_tail())
    }

    fn signal(&self, signal: Signal) -> Result<()> {
        let id = i32::try_from(self.child.id())?;
        let id = Pid::from_raw(id).context("a process id")?;
        kill_process(id, signal).with_context(|| format!("a signal to {}", self.name))
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        // Both fail harmlessly when it has ended already.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// The end of a log; empty when there is none.
pub(super) fn tail_of(log: &Path) -> String {
    let read = || -> std::io::Result<Vec<u8>> {
        let mut file = File::open(log)?;
        let length = file.metadata()?.len();
        file.seek(SeekFrom::Start(length.saturating_sub(TAIL_BYTES)))?;
        let mut text = Vec::new();
        file.read_to_end(&mut text)?;
        Ok(text)
    };
    String::from_utf8_lossy(&read().unwrap_or_default()).into_owned()
}

/// The address in `… WORDS http://127.0.0.1:PORT …`, once its line is complete.
fn address_in(said: &str, words: &str) -> Option<SocketAddr> {
    let (_, rest) = said.split_once(words)?;
    let line = &rest[..rest.find('\n')?];
    let (_, address) = line.split_once("://")?;
    let end = address.find(|c: char| !c.is_ascii_digit() && c != '.' && c != ':');
    address[..end.unwrap_or(address.len())].parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_is_taken_from_a_line_that_is_complete() {
        let said =
            "health and metrics on http://127.0.0.1:9\nlistening on http://127.0.0.1:4711 as a\n";
        let found = address_in(said, "listening on ");
        assert_eq!(found, Some(SocketAddr::from(([127, 0, 0, 1], 4711))));
        assert_eq!(
            address_in("listening on http://127.0.0.1:47", "listening on "),
            None
        );
    }

    #[test]
    fn a_program_is_started_again_on_the_same_log_and_only_the_new_words_count() -> Result<()> {
        let folder = tempfile::tempdir()?;
        let script = "echo >> $0; echo at http://127.0.0.1:$(wc -l < $0); exec sleep 100";
        let count = folder.path().join("count");
        let log = folder.path().join("log");
        let program = Program::new("sh", &log, &[&"sh", &"-c", &script, &count]);
        let mut first = program.start()?;
        assert_eq!(first.address_after("at ")?.port(), 1);
        let mut second = program.start()?;
        assert_eq!(second.address_after("at ")?.port(), 2);
        second.stand_still()?;
        second.go_on()?;
        second.kill_9()?;
        assert!(first.is_running());
        Ok(())
    }
}
