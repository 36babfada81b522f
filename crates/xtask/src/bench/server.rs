//! Starting and stopping the servers under test, each on the server core, on a port the system chose.
//!
//! Invariants: a server lives in a folder of its own; it is stopped by its process id, also when the benchmark fails;
//! `start` returns once the server answers.

use std::{
    ffi::OsString,
    fs,
    io::{BufRead, BufReader, Write},
    net::{SocketAddr, TcpListener},
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    sync::mpsc::{self, SyncSender},
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, bail};
use rustix::process::{Pid, Signal, kill_process};

use super::{
    client, machine,
    peers::{self, Tools},
    subject::Subject,
};

/// Capacity every cache is given; rows write far less.
pub(super) const CAPACITY_GIB: u64 = 40;
/// How long a server may take to answer first. bazel-remote walks its files before it listens.
const START_LIMIT: Duration = Duration::from_mins(2);
/// How long a server may take to stop.
const STOP_LIMIT: Duration = Duration::from_secs(20);

/// A running server.
#[derive(Debug)]
pub(super) struct Server {
    /// Which one.
    pub(super) subject: Subject,
    /// Where it listens.
    pub(super) address: SocketAddr,
    child: Child,
    /// Processes that serve with it.
    beside: Vec<u32>,
}

impl Server {
    /// A process that was started and will listen there.
    pub(super) const fn of(subject: Subject, address: SocketAddr, child: Child) -> Server {
        Server {
            subject,
            address,
            child,
            beside: Vec::new(),
        }
    }

    /// These processes serve with it: their processor time counts as its own.
    pub(super) fn is_served_by(&mut self, beside: Vec<u32>) {
        self.beside = beside;
    }

    /// Starts a server over `folder` and waits until it answers.
    pub(super) fn start(tools: &Tools, subject: Subject, folder: &Path) -> Result<Server> {
        let mut server = Server::spawn(tools, subject, folder)?;
        server.wait_for(|address| client::get(address, "/").map(|_| true))?;
        Ok(server)
    }

    /// Starts a server and returns at once; only the address is known.
    pub(super) fn spawn(tools: &Tools, subject: Subject, folder: &Path) -> Result<Server> {
        fs::create_dir_all(folder)?;
        match subject {
            Subject::Zimcache => spawn_zimcache(tools, folder),
            Subject::BazelRemote => spawn_bazel_remote(tools, folder),
            Subject::Nginx => spawn_nginx(tools, folder),
            Subject::NullServer => spawn_null(folder),
            other => bail!("{} is not a server", other.name()),
        }
        .with_context(|| format!("cannot start {}", subject.name()))
    }

    /// Asks again and again, without rest, until the answer is yes.
    pub(super) fn wait_for(&mut self, ask: impl Fn(SocketAddr) -> Result<bool>) -> Result<()> {
        let start = Instant::now();
        loop {
            if matches!(ask(self.address), Ok(true)) {
                return Ok(());
            }
            if let Some(status) = self.child.try_wait()? {
                bail!("{} ended: {status}", self.subject.name());
            }
            if start.elapsed() > START_LIMIT {
                bail!("{} does not answer", self.subject.name());
            }
            thread::sleep(Duration::from_micros(500));
        }
    }

    /// Process id.
    pub(super) fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Process ids of all that serve.
    pub(super) fn pids(&self) -> Vec<u32> {
        let mut pids = vec![self.pid()];
        pids.extend(&self.beside);
        pids
    }

    /// Ends it without warning, as a crash would.
    pub(super) fn kill(mut self) -> Result<()> {
        self.child.kill()?;
        self.child.wait()?;
        Ok(())
    }

    /// Asks it to stop and waits.
    fn terminate(&mut self) {
        if matches!(self.child.try_wait(), Ok(Some(_))) {
            return;
        }
        if let Some(pid) = i32::try_from(self.child.id()).ok().and_then(Pid::from_raw) {
            // An error means that it has just ended.
            let _ = kill_process(pid, Signal::TERM);
        }
        let start = Instant::now();
        while start.elapsed() < STOP_LIMIT {
            if matches!(self.child.try_wait(), Ok(Some(_))) {
                return;
            }
            thread::sleep(Duration::from_millis(5));
        }
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.terminate();
    }
}

/// The folder nginx serves the blobs from.
pub(super) fn nginx_blobs(folder: &Path) -> PathBuf {
    folder.join("www/cas")
}

/// A command that runs on the server core, with its output in a log file. It is told to stop when the benchmark dies.
pub(super) fn pinned(program: &Path, folder: &Path) -> Result<Command> {
    let log = fs::OpenOptions::new()
        .create(true)
        .append(true)
        .open(folder.join("server.log"))?;
    let mut words: Vec<OsString> = Vec::new();
    if peers::on_path("setpriv").is_some() {
        words.extend(["setpriv", "--pdeathsig", "TERM"].map(OsString::from));
    }
    if machine::can_pin() {
        let core = machine::SERVER_CORE.to_string();
        words.extend(["taskset", "-c", &core].map(OsString::from));
    }
    words.push(program.into());
    let mut command = Command::new(&words[0]);
    command
        .args(&words[1..])
        .stdin(Stdio::null())
        .stdout(log.try_clone()?)
        .stderr(log);
    Ok(command)
}

/// Starts our server, which speaks every protocol on one port.
pub(super) fn spawn_zimcache(tools: &Tools, folder: &Path) -> Result<Server> {
    let mut command = pinned(&tools.zimcache, folder)?;
    command
        .args(["cache", "serve", "--port", "0", "--storage"])
        .arg(folder.join("store"))
        .args(["--max-size", &format!("{CAPACITY_GIB}GiB")]);
    spawn_and_listen(Subject::Zimcache, command, folder)
}

fn spawn_null(folder: &Path) -> Result<Server> {
    let mut command = pinned(&std::env::current_exe()?, folder)?;
    command.args(["bench", "--null-server"]);
    spawn_and_listen(Subject::NullServer, command, folder)
}

/// Starts a server that says on its standard output where it listens.
fn spawn_and_listen(subject: Subject, mut command: Command, folder: &Path) -> Result<Server> {
    let mut child = command.stdout(Stdio::piped()).spawn()?;
    let output = child.stdout.take().context("no standard output")?;
    let log = fs::File::create(folder.join("output.log"))?;
    let (sender, receiver) = mpsc::sync_channel(1);
    thread::spawn(move || follow_output(BufReader::new(output), log, &sender));
    let address = receiver.recv_timeout(START_LIMIT);
    let mut server = Server {
        subject,
        address: SocketAddr::from(([127, 0, 0, 1], 0)),
        child,
        beside: Vec::new(),
    };
    let Ok(address) = address else {
        server.terminate();
        bail!("it did not say where it listens; see server.log");
    };
    server.address = address;
    Ok(server)
}

/// Copies the server's output to a log and reports the address it names.
fn follow_output(output: impl BufRead, mut log: fs::File, address: &SyncSender<SocketAddr>) {
    let mut open = true;
    for line in output.lines().map_while(Result::ok) {
        let _ = writeln!(log, "{line}");
        if open
            && let Some((_, rest)) = line.split_once("listening on http://")
            && let Some(Ok(found)) = rest.split_whitespace().next().map(str::parse)
        {
            open = address.send(found).is_err();
        }
    }
}

fn spawn_bazel_remote(tools: &Tools, folder: &Path) -> Result<Server> {
    let address = free_address()?;
    let child = pinned(&tools.bazel_remote, folder)?
        .arg("--dir")
        .arg(folder.join("store"))
        .args(["--max_size", &CAPACITY_GIB.to_string()])
        .args(["--storage_mode", "uncompressed"])
        .args(["--http_address", &address.to_string()])
        .args(["--grpc_address", "none"])
        .args(["--access_log_level", "none"])
        .spawn()?;
    Ok(Server::of(Subject::BazelRemote, address, child))
}

fn spawn_nginx(tools: &Tools, folder: &Path) -> Result<Server> {
    let address = free_address()?;
    fs::create_dir_all(nginx_blobs(folder))?;
    let user = if rustix::process::geteuid().is_root() {
        "user root root;"
    } else {
        ""
    };
    let configuration = format!(
        "{user}
worker_processes 1;
daemon off;
pid nginx.pid;
events {{ worker_connections 1024; }}
http {{
  access_log off;
  sendfile on;
  tcp_nopush on;
  keepalive_requests 1000000000;
  default_type application/octet-stream;
  client_max_body_size 0;
  client_body_temp_path body;
  proxy_temp_path proxy;
  fastcgi_temp_path fastcgi;
  uwsgi_temp_path uwsgi;
  scgi_temp_path scgi;
  server {{
    listen {address};
    root www;
    location / {{ dav_methods PUT; }}
  }}
}}
"
    );
    fs::write(folder.join("nginx.conf"), configuration)?;
    let child = pinned(&tools.nginx, folder)?
        .args(["-c", "nginx.conf", "-e", "stderr", "-p"])
        .arg(folder)
        .args(["-g", "error_log stderr crit;"])
        .spawn()?;
    Ok(Server::of(Subject::Nginx, address, child))
}

/// An address nobody listens on now, for servers that cannot say which port the system gave them.
pub(super) fn free_address() -> Result<SocketAddr> {
    Ok(TcpListener::bind("127.0.0.1:0")?.local_addr()?)
}
