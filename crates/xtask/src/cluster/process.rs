//! Starting a process that outlives us, asking whether it is well, and finding it again to stop it.
//!
//! Invariants: the process id is that of the program itself; nothing of ours is inherited by it; a process is stopped
//! only if its command is the one recorded.

use std::{
    fs::{self, File},
    io::{BufRead as _, BufReader, Read as _, Write as _},
    net::{SocketAddr, TcpStream},
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, bail};
use rustix::process::{Pid, Signal, kill_process};
use serde::{Deserialize, Serialize};

use super::parts::{Health, Part};

/// How long a process may take until it is well, and until it is gone.
const START_LIMIT: Duration = Duration::from_mins(1);
const STOP_LIMIT: Duration = Duration::from_secs(20);
/// Closes whatever whoever started us left open, and becomes the program.
const RUN_ALONE: &str = r#"for fd in /proc/$$/fd/*; do fd=${fd##*/}; ((fd > 2)) && eval "exec $fd>&-"; done; exec "$@""#;
/// Between two looks.
const PAUSE: Duration = Duration::from_millis(50);

/// What is written down of a process.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(super) struct Record {
    pub(super) role: String,
    pub(super) name: String,
    pub(super) pid: u32,
    pub(super) url: String,
    /// What would be on its disk, and nothing else.
    pub(super) dir: PathBuf,
    pub(super) command: Vec<String>,
}

/// A process that was started.
#[derive(Debug)]
pub(super) struct Process {
    record: Record,
    health: Health,
    log: PathBuf,
    child: Child,
}

impl Process {
    /// Starts a part in a session of its own.
    pub(super) fn start(root: &Path, folder: &Path, part: &Part) -> Result<Process> {
        let log = folder.join("log").join(format!("{}.log", part.name));
        let output = File::create(&log)?;
        // A child of ours never leads a process group of its own, so setsid replaces itself and keeps the process id;
        // so do bash and env.
        let child = Command::new("setsid")
            .args(["bash", "-c", RUN_ALONE, "bash"])
            .args(&part.command)
            .current_dir(root)
            .stdin(Stdio::null())
            .stdout(output.try_clone()?)
            .stderr(output)
            .spawn()
            .context("setsid (package util-linux) cannot be run")?;
        let record = Record {
            role: part.role.to_owned(),
            name: part.name.clone(),
            pid: child.id(),
            url: part.url.clone(),
            dir: folder.join("data").join(&part.name),
            command: part.command.clone(),
        };
        let pid_file = folder.join("run").join(format!("{}.pid", part.name));
        fs::write(pid_file, format!("{}\n", record.pid))?;
        Ok(Process {
            record,
            health: part.health,
            log,
            child,
        })
    }

    pub(super) fn record(&self) -> Record {
        self.record.clone()
    }

    /// Returns once the process says that it is well.
    pub(super) fn wait_until_healthy(&mut self) -> Result<()> {
        let start = Instant::now();
        while !is_healthy(self.health) {
            let name = &self.record.name;
            if let Some(status) = self.child.try_wait()? {
                bail!("{name} ended with {status}:\n{}", tail(&self.log));
            }
            if start.elapsed() > START_LIMIT {
                bail!("{name} does not get well:\n{}", tail(&self.log));
            }
            thread::sleep(PAUSE);
        }
        Ok(())
    }
}

/// The last lines of a log.
fn tail(log: &Path) -> String {
    let text = fs::read_to_string(log).unwrap_or_default();
    let lines: Vec<&str> = text.lines().collect();
    lines[lines.len().saturating_sub(20)..].join("\n")
}

/// Whether a part is well now.
pub(crate) fn is_healthy(health: Health) -> bool {
    match health {
        Health::Http(address, path) => get(address, path).is_ok_and(|answer| is_ok(&answer)),
        Health::Gateway(address) => get(address, "/api/v1/cluster")
            .is_ok_and(|answer| is_ok(&answer) && !answer.contains(r#""reachable":false"#)),
        Health::Redis(address) => {
            ask(address, "PING\r\n", Some(b'\n')).is_ok_and(|line| line.starts_with("+PONG"))
        }
    }
}

fn is_ok(answer: &str) -> bool {
    answer.split(' ').nth(1) == Some("200")
}

fn get(address: SocketAddr, path: &str) -> Result<String> {
    let request = format!("GET {path} HTTP/1.1\r\nHost: health\r\nConnection: close\r\n\r\n");
    ask(address, &request, None)
}

/// What is answered, up to this byte or the end of the connection.
fn ask(address: SocketAddr, request: &str, end: Option<u8>) -> Result<String> {
    let mut stream = TcpStream::connect_timeout(&address, Duration::from_secs(1))?;
    stream.set_read_timeout(Some(Duration::from_secs(2)))?;
    stream.write_all(request.as_bytes())?;
    let mut answer = Vec::new();
    let mut reader = BufReader::new(stream).take(1 << 20);
    match end {
        Some(end) => reader.read_until(end, &mut answer)?,
        None => reader.read_to_end(&mut answer)?,
    };
    Ok(String::from_utf8_lossy(&answer).into_owned())
}

/// Path of a program that is installed.
pub(crate) fn installed(name: &str) -> Result<String> {
    let folders = std::env::var_os("PATH").unwrap_or_default();
    let paths = std::env::split_paths(&folders).map(|folder| folder.join(name));
    let found = paths.into_iter().find(|path| path.is_file());
    let path =
        found.with_context(|| format!("there is no {name}; .ci/needs cluster installs it"))?;
    Ok(path
        .to_str()
        .context("a path of PATH is no text")?
        .to_owned())
}

/// Path of a program kept in the folder of test tools.
pub(crate) fn tool(name: &str) -> Result<PathBuf> {
    let cache = std::env::var_os("ZIMCACHE_CACHE").map(PathBuf::from);
    let home = || std::env::var_os("HOME").map(|home| Path::new(&home).join(".cache/zimcache"));
    let folder = cache
        .or_else(home)
        .context("neither ZIMCACHE_CACHE nor HOME is set")?;
    let path = folder.join("bin").join(name);
    if !path.is_file() {
        bail!("there is no {}; .ci/needs cluster makes it", path.display());
    }
    Ok(path)
}

/// Ends every process that runs this command, and says how many there were.
pub(super) fn stop(record: &Record, folder: &Path) -> Result<usize> {
    let running = running(&record.command)?;
    for pid in &running {
        signal(*pid, Signal::TERM);
        // One that was stopped has to go on to hear it.
        signal(*pid, Signal::CONT);
    }
    let start = Instant::now();
    while self::running(&record.command)?
        .iter()
        .any(|pid| running.contains(pid))
    {
        if start.elapsed() > STOP_LIMIT {
            for pid in &running {
                signal(*pid, Signal::KILL);
            }
        }
        thread::sleep(PAUSE);
    }
    let pid_file = folder.join("run").join(format!("{}.pid", record.name));
    fs::remove_file(pid_file).ok();
    Ok(running.len())
}

fn signal(pid: Pid, signal: Signal) {
    // It may be gone already.
    kill_process(pid, signal).ok();
}

/// The processes that run this command; `env NAME=VALUE` in front of it is gone once it runs.
fn running(command: &[String]) -> Result<Vec<Pid>> {
    let words = command
        .iter()
        .skip_while(|word| word.ends_with("/env") || is_assignment(word));
    let words: Vec<&str> = words.map(String::as_str).collect();
    let mut found = Vec::new();
    for entry in fs::read_dir("/proc")? {
        let Some(number) = entry?
            .file_name()
            .to_str()
            .and_then(|name| name.parse().ok())
        else {
            continue;
        };
        if runs(number, &words) {
            found.extend(Pid::from_raw(number));
        }
    }
    Ok(found)
}

fn is_assignment(word: &str) -> bool {
    let name = word.split_once('=').map(|(name, _)| name);
    name.is_some_and(|name| name.bytes().all(|b| b.is_ascii_uppercase() || b == b'_'))
}

/// Whether a process has these words as its command. Redis writes its own, of which the address tells it.
fn runs(pid: i32, words: &[&str]) -> bool {
    let line = fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
    let line = String::from_utf8_lossy(&line);
    if words
        .first()
        .is_some_and(|word| word.ends_with("/redis-server"))
    {
        let port = words.iter().skip_while(|word| **word != "--port").nth(1);
        let title = line.trim_end_matches(['\0', ' ']);
        return port.is_some_and(|port| {
            title.contains("redis-server") && title.ends_with(&format!(":{port}"))
        });
    }
    let typed: Vec<&str> = line.trim_end_matches('\0').split('\0').collect();
    typed == words
}
