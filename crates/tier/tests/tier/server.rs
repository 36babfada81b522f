//! A versitygw of one test: started on a free port, stopped by its pid, its files open to look at.

use std::{
    io::{Read, Write},
    net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream},
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    time::{Duration, Instant, SystemTime},
};

use rustix::process::{Pid, Signal, kill_process};
use tempfile::TempDir;
use zimcache_tier::{Access, BucketSettings};

pub(crate) const BUCKET: &str = "cold";
const USER: &str = "test";
const SECRET: &str = "testsecret";
const VERSION: &str = "1.8.0";

/// A running server, or one that was stopped.
#[derive(Debug)]
pub(crate) struct Server {
    folder: TempDir,
    address: SocketAddr,
    child: Option<Child>,
    tls: bool,
}

/// The program; built by Go where it is missing.
fn program() -> PathBuf {
    let home = PathBuf::from(std::env::var_os("HOME").expect("a home directory"));
    let folder = home.join(".cache/zimcache/bin");
    let program = folder.join(format!("versitygw-{VERSION}"));
    if !program.is_file() {
        std::fs::create_dir_all(&folder).unwrap();
        let build = TempDir::new_in(&folder).unwrap();
        let package = format!("github.com/versity/versitygw/cmd/versitygw@v{VERSION}");
        let built = Command::new("go")
            .args(["install", &package])
            .env("GOBIN", build.path())
            .current_dir(build.path())
            .status();
        assert!(built.expect("Go builds versitygw").success());
        std::fs::rename(build.path().join("versitygw"), &program).unwrap();
    }
    program
}

impl Server {
    /// A server with an empty bucket.
    pub(crate) fn start() -> Server {
        let server = Server::without_bucket();
        std::fs::create_dir(server.bucket_folder()).unwrap();
        server
    }

    pub(crate) fn without_bucket() -> Server {
        Server::in_folder(TempDir::new().unwrap(), false)
    }

    /// A server that speaks TLS with a certificate that nobody knows but the holder of [`Server::certificate`].
    pub(crate) fn with_tls() -> Server {
        let folder = TempDir::new().unwrap();
        let own = rcgen::generate_simple_self_signed(["127.0.0.1".to_owned()]).unwrap();
        std::fs::write(folder.path().join("cert.pem"), own.cert.pem()).unwrap();
        std::fs::write(
            folder.path().join("key.pem"),
            own.signing_key.serialize_pem(),
        )
        .unwrap();
        let server = Server::in_folder(folder, true);
        std::fs::create_dir(server.bucket_folder()).unwrap();
        server
    }

    pub(crate) fn certificate(&self) -> PathBuf {
        self.folder.path().join("cert.pem")
    }

    fn in_folder(folder: TempDir, tls: bool) -> Server {
        std::fs::create_dir(folder.path().join("data")).unwrap();
        let free = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        let address = free.local_addr().unwrap();
        drop(free);
        let mut server = Server {
            folder,
            address,
            child: None,
            tls,
        };
        server.run();
        server
    }

    /// Starts it again, on the same port and data.
    pub(crate) fn run(&mut self) {
        let mut command = Command::new(program());
        command
            .args(["--port", &self.address.to_string(), "--health", "/health"])
            .args([
                "--access-log",
                self.access_log().to_str().unwrap(),
                "--quiet",
            ]);
        if self.tls {
            let key = self.folder.path().join("key.pem");
            command
                .arg("--cert")
                .arg(self.certificate())
                .arg("--key")
                .arg(key);
        }
        let child = command
            .arg("posix")
            .arg(self.folder.path().join("data"))
            .env("ROOT_ACCESS_KEY", USER)
            .env("ROOT_SECRET_KEY", SECRET)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn();
        self.child = Some(child.unwrap());
        let deadline = Instant::now() + Duration::from_mins(1);
        while !self.is_well() {
            assert!(Instant::now() < deadline, "the server does not come up");
            std::thread::sleep(Duration::from_millis(20));
        }
    }

    fn is_well(&self) -> bool {
        let limit = Duration::from_secs(5);
        let Ok(mut stream) = TcpStream::connect_timeout(&self.address, limit) else {
            return false;
        };
        if self.tls {
            return true;
        }
        stream.set_read_timeout(Some(limit)).unwrap();
        let request = b"GET /health HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n\r\n";
        let mut answer = [0; 12];
        stream.write_all(request).is_ok()
            && stream.read_exact(&mut answer).is_ok()
            && &answer == b"HTTP/1.1 200"
    }

    /// Kills it without warning.
    pub(crate) fn kill(&mut self) {
        if let Some(mut child) = self.child.take() {
            child.kill().unwrap();
            child.wait().unwrap();
        }
    }

    fn signal(&self, signal: Signal) {
        let child = self.child.as_ref().expect("a running server");
        kill_process(Pid::from_child(child), signal).unwrap();
    }

    /// Stops it in its tracks: connections are taken and never answered.
    pub(crate) fn freeze(&self) {
        self.signal(Signal::STOP);
    }

    pub(crate) fn thaw(&self) {
        self.signal(Signal::CONT);
    }

    pub(crate) const fn address(&self) -> SocketAddr {
        self.address
    }

    pub(crate) fn settings(&self) -> BucketSettings {
        settings_at(self.address)
    }

    pub(crate) fn bucket_folder(&self) -> PathBuf {
        self.folder.path().join("data").join(BUCKET)
    }

    fn access_log(&self) -> PathBuf {
        self.folder.path().join("access.log")
    }

    /// How many requests of an object the server has logged for this operation.
    pub(crate) fn logged(&self, operation: &str) -> usize {
        let log = std::fs::read_to_string(self.access_log()).unwrap_or_default();
        log.lines().filter(|line| line.contains(operation)).count()
    }

    /// The exact set of objects, by name, in order.
    pub(crate) fn objects(&self) -> Vec<String> {
        let bucket = self.bucket_folder();
        let mut names = Vec::new();
        collect(&bucket, &bucket, &mut names);
        names.sort();
        names
    }

    /// Makes an object look as if it had been written so long ago.
    pub(crate) fn age(&self, name: &str, age: Duration) {
        let file = std::fs::File::options()
            .write(true)
            .open(self.bucket_folder().join(name))
            .unwrap();
        #[allow(
            clippy::disallowed_methods,
            reason = "the server's files show its clock"
        )]
        let then = SystemTime::now() - age;
        file.set_modified(then).unwrap();
    }

    /// How long ago an object was written.
    pub(crate) fn age_of(&self, name: &str) -> Duration {
        let written = std::fs::metadata(self.bucket_folder().join(name)).unwrap();
        written.modified().unwrap().elapsed().unwrap_or_default()
    }
}

fn collect(root: &Path, folder: &Path, names: &mut Vec<String>) {
    for entry in std::fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        // The server's own folder for what is unfinished.
        if path.ends_with(".sgwtmp") {
            continue;
        }
        if path.is_dir() {
            collect(root, &path, names);
        } else {
            names.push(
                path.strip_prefix(root)
                    .unwrap()
                    .to_str()
                    .unwrap()
                    .to_owned(),
            );
        }
    }
}

pub(crate) fn settings_at(address: SocketAddr) -> BucketSettings {
    BucketSettings {
        bucket: BUCKET.into(),
        endpoint: Some(format!("http://{address}").into()),
        path_style: true,
        access: Some(Access {
            key: USER.into(),
            secret: SECRET.into(),
        }),
        ..BucketSettings::default()
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        if let Some(mut child) = self.child.take() {
            // A frozen server dies of this too.
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}
