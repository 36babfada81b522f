//! A real Redis on a free port of this machine, stopped by its process id.

use std::{
    io::{BufRead, BufReader, Write},
    net::{TcpListener, TcpStream},
    process::{Child, Command, Stdio},
    thread,
    time::{Duration, Instant},
};

use rustix::process::{Pid, Signal, kill_process};
use tempfile::TempDir;

/// Longest that a server may take to answer.
const PATIENCE: Duration = Duration::from_secs(20);

/// A server, or a sentinel.
pub(crate) struct RedisServer {
    pub(crate) port: u16,
    folder: TempDir,
    options: Vec<String>,
    child: Child,
}

impl RedisServer {
    pub(crate) fn start() -> RedisServer {
        RedisServer::with(&[])
    }

    /// A server with more options.
    pub(crate) fn with(options: &[&str]) -> RedisServer {
        let options: Vec<_> = options.iter().map(ToString::to_string).collect();
        // Somebody else may take the port between our look and the server's.
        for _ in 0..10 {
            let folder = tempfile::tempdir().unwrap();
            let port = free_port();
            let child = launch(&folder, port, &options);
            let mut server = RedisServer {
                port,
                folder,
                options: options.clone(),
                child,
            };
            if server.answers() {
                return server;
            }
        }
        panic!("no Redis would start; install the package redis-server");
    }

    /// A sentinel of this master, which it calls `zim`.
    pub(crate) fn sentinel(master: &RedisServer) -> RedisServer {
        let folder = tempfile::tempdir().unwrap();
        // It writes to its file.
        let file = folder.path().join("sentinel.conf");
        let text = format!(
            "sentinel monitor zim 127.0.0.1 {} 1\nsentinel down-after-milliseconds zim 500\n\
             sentinel failover-timeout zim 3000\n",
            master.port
        );
        std::fs::write(&file, text).unwrap();
        let file = file.to_str().unwrap();
        let mut sentinel = RedisServer::with(&[file, "--sentinel"]);
        sentinel.folder = folder;
        sentinel
    }

    pub(crate) fn url(&self) -> String {
        format!("redis://127.0.0.1:{}", self.port)
    }

    /// Sends a command and gives its answer, an item a line.
    pub(crate) fn ask(&self, words: &[&str]) -> Vec<String> {
        ask(self.port, words).expect("an answer of Redis")
    }

    /// Dead at once, data and all.
    pub(crate) fn kill(&mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }

    /// On the same port again, and empty.
    pub(crate) fn start_again(&mut self) {
        let begun = Instant::now();
        while begun.elapsed() < PATIENCE {
            self.child = launch(&self.folder, self.port, &self.options);
            if self.answers() {
                return;
            }
        }
        panic!("Redis did not start again");
    }

    /// Neither dead nor alive.
    pub(crate) fn freeze(&self) {
        self.signal(Signal::STOP);
    }

    pub(crate) fn thaw(&self) {
        self.signal(Signal::CONT);
    }

    fn signal(&self, signal: Signal) {
        let pid = i32::try_from(self.child.id()).ok().and_then(Pid::from_raw);
        kill_process(pid.unwrap(), signal).unwrap();
    }

    /// Whether it answers before it ends.
    fn answers(&mut self) -> bool {
        let begun = Instant::now();
        while begun.elapsed() < PATIENCE && self.child.try_wait().unwrap().is_none() {
            if ask(self.port, &["PING"]).is_some() {
                return true;
            }
            thread::sleep(Duration::from_millis(10));
        }
        self.child.kill().ok();
        self.child.wait().ok();
        false
    }
}

impl Drop for RedisServer {
    fn drop(&mut self) {
        self.child.kill().ok();
        self.child.wait().ok();
    }
}

pub(crate) fn free_port() -> u16 {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    listener.local_addr().unwrap().port()
}

fn launch(folder: &TempDir, port: u16, options: &[String]) -> Child {
    let is_sentinel = options.iter().any(|option| option == "--sentinel");
    let mut command = Command::new("redis-server");
    command.args(options);
    command.args(["--port", &port.to_string(), "--bind", "127.0.0.1"]);
    command.arg("--dir").arg(folder.path());
    if !is_sentinel {
        command.args(["--save", "", "--appendonly", "no"]);
    }
    command.stdin(Stdio::null()).stdout(Stdio::null());
    command
        .spawn()
        .expect("redis-server; install the package of that name")
}

/// `None`: nobody is there, or whoever is there asks for a password.
fn ask(port: u16, words: &[&str]) -> Option<Vec<String>> {
    let mut stream = TcpStream::connect(("127.0.0.1", port)).ok()?;
    stream.set_read_timeout(Some(PATIENCE)).ok()?;
    write!(stream, "*{}\r\n", words.len()).ok()?;
    for word in words {
        write!(stream, "${}\r\n{word}\r\n", word.len()).ok()?;
    }
    let mut lines = BufReader::new(stream).lines();
    let mut left = 1;
    let mut items = Vec::new();
    while left > 0 {
        let line = lines.next()?.ok()?;
        left -= 1;
        match line.split_at_checked(1)? {
            ("*", count) => left += count.parse::<usize>().ok()?,
            ("$", "-1") => items.push("nothing".to_owned()),
            ("$", _) => items.push(lines.next()?.ok()?),
            ("-", error) if words == ["PING"] && error.starts_with("LOADING") => return None,
            (_, text) => items.push(text.to_owned()),
        }
    }
    Some(items)
}
