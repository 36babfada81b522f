//! One running `zim cache serve`: started on a port the kernel chooses, stopped by its process id when the guard goes.

use std::collections::VecDeque;
use std::fs::File;
use std::io::{BufRead as _, BufReader};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdout, Command, ExitStatus, Stdio};
use std::sync::mpsc::{Receiver, RecvTimeoutError, SyncSender, sync_channel};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, anyhow, bail};
use rustix::process::{Pid, Signal, kill_process};

use crate::environment::zim_binary;
use crate::http;

const START_LIMIT: Duration = Duration::from_mins(1);
const STOP_LIMIT: Duration = Duration::from_secs(30);
const LISTENING: &str = "listening on ";
const LOG_TAIL_LINES: usize = 40;

/// How to start a server.
#[derive(Debug, Clone)]
pub struct Serve {
    storage: PathBuf,
    max_size: String,
    flags: Vec<String>,
    variables: Vec<(String, String)>,
    wrapper: Vec<String>,
}

impl Serve {
    /// A server on this folder with a limit such as `2GB`.
    pub fn on(storage: &Path, max_size: &str) -> Serve {
        Serve {
            storage: storage.to_owned(),
            max_size: max_size.to_owned(),
            flags: Vec::new(),
            variables: Vec::new(),
            wrapper: Vec::new(),
        }
    }

    /// Adds flags.
    #[must_use]
    pub fn flags(mut self, flags: &[&str]) -> Serve {
        self.flags.extend(flags.iter().map(ToString::to_string));
        self
    }

    /// Sets a variable of the server's environment, which is empty otherwise.
    #[must_use]
    pub fn env(mut self, name: &str, value: &str) -> Serve {
        self.variables.push((name.to_owned(), value.to_owned()));
        self
    }

    /// Starts the server through another program that replaces itself by it (`prlimit …`, `strace -D …`).
    #[must_use]
    pub fn wrapped_by(mut self, wrapper: &[&str]) -> Serve {
        self.wrapper = wrapper.iter().map(ToString::to_string).collect();
        self
    }

    fn command(&self) -> Result<Command> {
        let mut words: Vec<PathBuf> = self.wrapper.iter().map(PathBuf::from).collect();
        words.push(zim_binary()?);
        let mut command = Command::new(&words[0]);
        command.args(&words[1..]);
        command.args([
            "cache",
            "serve",
            "--port",
            "0",
            "--max-size",
            &self.max_size,
        ]);
        command.arg("--storage").arg(&self.storage);
        command.args(&self.flags).env_clear();
        command.env("PATH", "/usr/local/bin:/usr/bin:/bin:/usr/sbin:/sbin");
        command.envs(self.variables.iter().map(|(name, value)| (name, value)));
        Ok(command)
    }

    /// Starts it and waits until it listens and, unless it speaks TLS, `/health` answers 200.
    ///
    /// # Errors
    /// When it ends or stays silent instead; the text holds its log.
    pub fn start(&self) -> Result<Server> {
        let begun = Instant::now();
        let log = tempfile::NamedTempFile::new()?;
        let mut child = self
            .command()?
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(File::create(log.path())?)
            .spawn()
            .context("starting zim")?;
        let stdout = child.stdout.take().context("the server's output")?;
        let mut server = Server {
            child,
            scheme: "",
            address: SocketAddr::from(([127, 0, 0, 1], 0)),
            started_in: Duration::ZERO,
            log,
        };
        let lines = lines_of(stdout);
        (server.scheme, server.address) = server.wait_for_address(&lines)?;
        server.started_in = begun.elapsed();
        if server.scheme == "https" {
            return Ok(server);
        }
        let health = http::once(server.address, "GET", "/health", &[], None)
            .with_context(|| format!("/health after the start:\n{}", server.log_tail()))?;
        if health.status != 200 {
            bail!("/health says {} after the start", health.status);
        }
        server.started_in = begun.elapsed();
        Ok(server)
    }

    /// Runs it where it is expected to refuse: returns its exit status and what it said.
    ///
    /// # Errors
    /// When it serves instead of refusing.
    pub fn refusal(&self) -> Result<(ExitStatus, String)> {
        match self.start() {
            Ok(server) => bail!("a server started at {} after all", server.address),
            Err(error) => match error.downcast::<Ended>() {
                Ok(ended) => Ok((ended.status, ended.said)),
                Err(error) => Err(error),
            },
        }
    }
}

/// The server ended before it listened.
#[derive(Debug)]
pub struct Ended {
    /// How it ended.
    pub status: ExitStatus,
    /// Its last words.
    pub said: String,
}

impl std::fmt::Display for Ended {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(formatter, "zim ended with {}:\n{}", self.status, self.said)
    }
}

impl std::error::Error for Ended {}

/// A running server. Dropping it kills it.
#[derive(Debug)]
pub struct Server {
    child: Child,
    scheme: &'static str,
    address: SocketAddr,
    started_in: Duration,
    log: tempfile::NamedTempFile,
}

impl Server {
    /// Where it listens.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Its URL without a trailing slash.
    pub fn url(&self) -> String {
        format!("{}://{}", self.scheme, self.address)
    }

    /// The time from the start of the process to the first 200 of `/health`.
    pub fn started_in(&self) -> Duration {
        self.started_in
    }

    /// Its process id.
    pub fn process_id(&self) -> u32 {
        self.child.id()
    }

    /// Whether the process still runs.
    pub fn is_running(&mut self) -> bool {
        matches!(self.child.try_wait(), Ok(None))
    }

    /// The most memory it has had at a time, in bytes.
    ///
    /// # Errors
    /// When the system does not tell.
    pub fn peak_memory_bytes(&self) -> Result<u64> {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.child.id()))?;
        let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"));
        let kilobytes = line.and_then(|line| line.trim().strip_suffix(" kB"));
        let kilobytes: u64 = kilobytes.context("VmHWM in the status")?.parse()?;
        Ok(kilobytes * 1024)
    }

    /// The figures of `/api/v1/stats`.
    ///
    /// # Errors
    /// When they cannot be had.
    pub fn stats(&self) -> Result<serde_json::Value> {
        let response = http::once(self.address, "GET", "/api/v1/stats", &[], None)?;
        if response.status != 200 {
            bail!("/api/v1/stats says {}", response.status);
        }
        serde_json::from_slice(&response.body).context("/api/v1/stats is not JSON")
    }

    /// Kills it as `kill -9` does, without any chance to tidy up.
    ///
    /// # Errors
    /// When it cannot be killed.
    pub fn kill_9(mut self) -> Result<()> {
        self.child.kill().context("kill -9")?;
        self.child.wait().context("waiting for the killed server")?;
        Ok(())
    }

    /// Asks it to stop (SIGTERM) and waits until it has.
    ///
    /// # Errors
    /// When it does not stop within 30 s or ends with a failure.
    pub fn stop(mut self) -> Result<()> {
        let status = self.terminate()?;
        if !status.success() {
            bail!("the server ended with {status}:\n{}", self.log_tail());
        }
        Ok(())
    }

    fn terminate(&mut self) -> Result<ExitStatus> {
        let id = i32::try_from(self.child.id())?;
        let id = Pid::from_raw(id).context("a process id")?;
        kill_process(id, Signal::TERM)?;
        let begun = Instant::now();
        while begun.elapsed() < STOP_LIMIT {
            if let Some(status) = self.child.try_wait()? {
                return Ok(status);
            }
            std::thread::sleep(Duration::from_millis(5));
        }
        bail!("no stop {STOP_LIMIT:?} after SIGTERM:\n{}", self.log_tail())
    }

    /// The last lines of its log, for failure texts.
    pub fn log_tail(&self) -> String {
        let Ok(log) = std::fs::read_to_string(self.log.path()) else {
            return String::new();
        };
        let mut tail = VecDeque::new();
        for line in log.lines() {
            if tail.len() == LOG_TAIL_LINES {
                tail.pop_front();
            }
            tail.push_back(line);
        }
        Vec::from(tail).join("\n")
    }

    fn wait_for_address(&mut self, lines: &Receiver<String>) -> Result<(&'static str, SocketAddr)> {
        let begun = Instant::now();
        let mut said = String::new();
        while begun.elapsed() < START_LIMIT {
            match lines.recv_timeout(START_LIMIT.saturating_sub(begun.elapsed())) {
                Ok(line) => {
                    if let Some(found) = address_in(&line) {
                        return Ok(found);
                    }
                    said.push_str(&line);
                    said.push('\n');
                }
                Err(RecvTimeoutError::Timeout) => break,
                Err(RecvTimeoutError::Disconnected) => {
                    let status = self.child.wait()?;
                    said.push_str(&self.log_tail());
                    return Err(anyhow!(Ended { status, said }));
                }
            }
        }
        bail!(
            "no address within {START_LIMIT:?}:\n{said}{}",
            self.log_tail()
        )
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        // Both fail harmlessly when the process has ended already.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Scheme and 127.0.0.1 address in a line `… listening on http://127.0.0.1:PORT …`.
fn address_in(line: &str) -> Option<(&'static str, SocketAddr)> {
    let (scheme, rest) = line.split(LISTENING).nth(1)?.split_once("://")?;
    let scheme = ["http", "https"]
        .into_iter()
        .find(|known| *known == scheme)?;
    let end = rest.find(|c: char| !c.is_ascii_digit() && c != '.' && c != ':');
    let address = rest[..end.unwrap_or(rest.len())].parse().ok()?;
    Some((scheme, address))
}

/// Passes the lines up to the address on, then only drains the pipe, so that the server never blocks on it.
fn lines_of(stdout: ChildStdout) -> Receiver<String> {
    let (sender, receiver): (SyncSender<String>, _) = sync_channel(1024);
    std::thread::spawn(move || {
        for line in BufReader::new(stdout).lines().map_while(Result::ok) {
            let _ = sender.try_send(line);
        }
    });
    receiver
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_address_is_found_in_the_line_that_names_it() {
        let address = SocketAddr::from(([127, 0, 0, 1], 4711));
        let found = address_in("listening on http://127.0.0.1:4711");
        assert_eq!(found, Some(("http", address)));
        let found = address_in("listening on http://127.0.0.1:4711/ and http://[::1]:4711/");
        assert_eq!(found, Some(("http", address)));
        let found = address_in("listening on https://127.0.0.1:4711");
        assert_eq!(found, Some(("https", address)));
        assert_eq!(address_in("found 0 blobs"), None);
    }
}
