//! Runs `zim` to its end, or keeps a server running as long as its guard lives.

use std::{
    io::{BufRead, BufReader, Read, Write},
    net::{SocketAddr, TcpStream},
    path::{Path, PathBuf},
    process::{Child, ChildStderr, Command, ExitStatus, Stdio},
    sync::mpsc::{self, RecvTimeoutError},
    thread,
    time::{Duration, Instant},
};

use rustix::process::{Pid, Signal, kill_process};
use tempfile::TempDir;
use zimcache_types::{Function, Hasher};

/// Longest wait for anything.
const PATIENCE: Duration = Duration::from_mins(1);

/// `zim` with these words and an environment of nothing but a home.
pub(crate) fn zim(words: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_zim"));
    command.args(words).env_clear().env("HOME", "/nonexistent");
    command.stdin(Stdio::null());
    command
}

/// How a run of `zim` ended.
#[derive(Debug)]
pub(crate) struct Ended {
    pub(crate) code: i32,
    pub(crate) out: String,
    pub(crate) err: String,
}

/// Runs `zim` to its end.
pub(crate) fn run(words: &[&str]) -> Ended {
    ended(&mut zim(words))
}

/// Runs a prepared command to its end.
pub(crate) fn ended(command: &mut Command) -> Ended {
    let output = command.output().unwrap();
    Ended {
        code: output.status.code().unwrap_or(-1),
        out: String::from_utf8(output.stdout).unwrap(),
        err: String::from_utf8(output.stderr).unwrap(),
    }
}

/// A folder for a store that goes with the test.
#[derive(Debug)]
pub(crate) struct Folder(TempDir);

impl Folder {
    pub(crate) fn new() -> Folder {
        Folder(tempfile::tempdir().unwrap())
    }

    pub(crate) fn path(&self) -> &Path {
        self.0.path()
    }

    /// The folder of the store, as a word of a command line.
    pub(crate) fn store(&self) -> String {
        self.path().join("store").to_str().unwrap().to_owned()
    }

    /// Every file of the store, with its bytes.
    pub(crate) fn segment_files(&self) -> Vec<PathBuf> {
        let segments = self.path().join("store/segments");
        let files = std::fs::read_dir(segments).unwrap();
        files.map(|file| file.unwrap().path()).collect()
    }
}

/// A running server.
#[derive(Debug)]
pub(crate) struct Server {
    child: Child,
    stderr: BufReader<ChildStderr>,
    /// What it printed until it served.
    pub(crate) start: String,
    pub(crate) address: SocketAddr,
}

impl Server {
    /// Starts one on the folder's store with these flags added.
    pub(crate) fn start(folder: &Folder, flags: &[&str]) -> Server {
        Server::start_at_home(folder, Path::new("/nonexistent"), flags)
    }

    /// Starts one whose user's home is there.
    pub(crate) fn start_at_home(folder: &Folder, home: &Path, flags: &[&str]) -> Server {
        let mut command = zim(&["cache", "serve", "--port", "0", "--max-size", "256MiB"]);
        command.args(["--storage", &folder.store()]).args(flags);
        command.env("HOME", home);
        command.stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = command.spawn().unwrap();
        let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
        let stderr = BufReader::new(child.stderr.take().unwrap());
        let mut start = String::new();
        // The line to paste for ccache is the last one of the start.
        while !start.contains("  ccache ") {
            match lines.next() {
                Some(line) => start = start + &line.unwrap() + "\n",
                None => panic!("the server ended: {}{}", start, read_all(stderr)),
            }
        }
        let first = start.lines().next().unwrap();
        let (_, address) = first.split_once("://").unwrap();
        let address = address.parse().unwrap();
        Server {
            child,
            stderr,
            start,
            address,
        }
    }

    pub(crate) fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    pub(crate) fn signal(&self, signal: Signal) {
        let id = Pid::from_raw(i32::try_from(self.child.id()).unwrap()).unwrap();
        kill_process(id, signal).unwrap();
    }

    /// Waits for a line on standard error that contains the text. A server that stays silent is ended.
    pub(crate) fn wait_for_complaint(&mut self, text: &str) {
        let id = Pid::from_raw(i32::try_from(self.child.id()).unwrap()).unwrap();
        let (heard, waiting) = mpsc::sync_channel::<()>(1);
        thread::spawn(move || {
            if waiting.recv_timeout(PATIENCE) == Err(RecvTimeoutError::Timeout) {
                kill_process(id, Signal::KILL).ok();
            }
        });
        let mut line = String::new();
        while self.stderr.read_line(&mut line).unwrap() > 0 {
            if line.contains(text) {
                drop(heard);
                return;
            }
            line.clear();
        }
        panic!("the server ended without a word of {text:?}");
    }

    /// Waits until it ended.
    pub(crate) fn wait(mut self) -> ExitStatus {
        let begun = Instant::now();
        while begun.elapsed() < PATIENCE {
            if let Some(status) = self.child.try_wait().unwrap() {
                return status;
            }
            thread::sleep(Duration::from_millis(5));
        }
        panic!("the server does not end");
    }

    /// Asks it to stop and waits until it did.
    pub(crate) fn stop(self) -> ExitStatus {
        self.signal(Signal::TERM);
        self.wait()
    }

    /// Runs `zim cache …` against it.
    pub(crate) fn ask(&self, words: &[&str]) -> Ended {
        ended(zim(&["cache"]).args(words).args(["--url", &self.url()]))
    }

    /// Stores a blob and returns its path.
    pub(crate) fn put(&self, blob: &[u8]) -> String {
        let mut hasher = Hasher::new(Function::Sha256);
        hasher.update(blob);
        let path = format!("/cas/{}", hasher.finish().to_hex());
        assert_eq!(self.request("PUT", &path, blob).0, 200);
        path
    }

    /// Status and body of a request.
    pub(crate) fn request(&self, method: &str, path: &str, body: &[u8]) -> (u16, Vec<u8>) {
        exchange(
            TcpStream::connect(self.address).unwrap(),
            method,
            path,
            body,
        )
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.child.kill().ok();
        self.child.wait().ok();
    }
}

/// Status and body of one request on a connection of its own.
pub(crate) fn exchange(
    mut connection: impl Read + Write,
    method: &str,
    path: &str,
    body: &[u8],
) -> (u16, Vec<u8>) {
    let length = body.len();
    let head = format!(
        "{method} {path} HTTP/1.1\r\nHost: cache\r\nConnection: close\r\nContent-Length: {length}\r\n\r\n"
    );
    connection.write_all(head.as_bytes()).unwrap();
    connection.write_all(body).unwrap();
    let mut answer = Vec::new();
    connection.read_to_end(&mut answer).unwrap();
    let end = answer
        .windows(4)
        .position(|four| four == b"\r\n\r\n")
        .unwrap();
    let head = String::from_utf8_lossy(&answer[..end]).into_owned();
    let status = head.split(' ').nth(1).unwrap().parse().unwrap();
    (status, answer.split_off(end + 4))
}

fn read_all(mut reader: impl Read) -> String {
    let mut text = String::new();
    reader.read_to_string(&mut text).unwrap();
    text
}
