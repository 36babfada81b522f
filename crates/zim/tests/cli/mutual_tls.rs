//! A node and gateways that show each other certificates, also renewed ones, and the gateway's page of its own.

use std::{
    fs,
    io::{BufRead, BufReader},
    net::{SocketAddr, TcpListener, TcpStream},
    path::Path,
    process::{Child, Stdio},
    sync::mpsc::{Receiver, SyncSender, sync_channel},
    thread,
    time::Duration,
};

use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, IsCa, KeyPair};

use crate::process::{Folder, exchange, run, zim};

/// Longest wait for a line.
const PATIENCE: Duration = Duration::from_mins(1);

/// A gateway or a node, and everything it says.
struct Part {
    child: Child,
    lines: Receiver<String>,
}

impl Part {
    fn start(words: &[&str], ring: &str, certificates: &Path) -> Part {
        let file = |name: &str| certificates.join(name).to_str().unwrap().to_owned();
        let mut command = zim(words);
        command.args(["--ring", ring, "--peer-ca", &file("ca.crt")]);
        command.args([
            "--peer-cert",
            &file("tls.crt"),
            "--peer-key",
            &file("tls.key"),
        ]);
        command.stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = command.spawn().unwrap();
        let (say, lines) = sync_channel(1000);
        let also = say.clone();
        let (out, err) = (child.stdout.take().unwrap(), child.stderr.take().unwrap());
        let forward = |line: Result<String, _>, say: &SyncSender<String>| {
            say.send(line.unwrap_or_default()).ok();
        };
        thread::spawn(move || {
            BufReader::new(out)
                .lines()
                .for_each(|line| forward(line, &say));
        });
        thread::spawn(move || {
            BufReader::new(err)
                .lines()
                .for_each(|line| forward(line, &also));
        });
        Part { child, lines }
    }

    /// Waits for a line with this in it, and returns what follows it there.
    fn wait_for(&self, text: &str) -> String {
        let mut said = String::new();
        loop {
            let Ok(line) = self.lines.recv_timeout(PATIENCE) else {
                panic!("it never said {text:?}: {said}");
            };
            if let Some((_, rest)) = line.split_once(text) {
                return rest.to_owned();
            }
            said = said + &line + "\n";
        }
    }
}

impl Drop for Part {
    fn drop(&mut self) {
        self.child.kill().ok();
        self.child.wait().ok();
    }
}

/// Puts an authority of its own, and a certificate that it signed, into a folder.
fn certify(folder: &Path) {
    let mut authority = CertificateParams::default();
    authority.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    let authority = CertifiedIssuer::self_signed(authority, KeyPair::generate().unwrap()).unwrap();
    let key = KeyPair::generate().unwrap();
    let own = CertificateParams::new(["127.0.0.1".to_owned()]).unwrap();
    let own = own.signed_by(&key, &authority).unwrap();
    fs::create_dir_all(folder).unwrap();
    fs::write(folder.join("ca.crt"), authority.pem()).unwrap();
    fs::write(folder.join("tls.key"), key.serialize_pem()).unwrap();
    fs::write(folder.join("tls.crt"), own.pem()).unwrap();
}

fn gateway(ring: &str, certificates: &Path) -> (Part, SocketAddr, SocketAddr) {
    let words = [
        "gateway",
        "--port",
        "0",
        "--bind",
        "127.0.0.1",
        "--admin",
        "127.0.0.1:0",
    ];
    let part = Part::start(&words, ring, certificates);
    let page = part.wait_for("health and metrics on http://");
    let door = part.wait_for("listening on http://");
    let (door, page) = (door.parse().unwrap(), page.parse().unwrap());
    (part, door, page)
}

fn ask(at: SocketAddr, method: &str, path: &str, body: &[u8]) -> (u16, Vec<u8>) {
    exchange(TcpStream::connect(at).unwrap(), method, path, body)
}

#[test]
fn renewed_certificates_are_in_force_without_a_restart() {
    let folder = Folder::new();
    let ring = folder.path().join("ring.json").to_str().unwrap().to_owned();
    let certificates = folder.path().join("peer");
    certify(&certificates);
    let port = TcpListener::bind("127.0.0.1:0")
        .unwrap()
        .local_addr()
        .unwrap();
    let member = format!("node-0=https://{port}");
    let made = run(&[
        "cluster",
        "ring",
        "init",
        "--replicas",
        "1",
        &member,
        "--ring",
        &ring,
    ]);
    assert_eq!(made.code, 0, "{}", made.err);

    let (store, listen) = (folder.store(), port.to_string());
    let words = [
        "node",
        "--member",
        "node-0",
        "--listen",
        &listen,
        "--storage",
        &store,
    ];
    let words = [&words[..], &["--max-size", "256MiB"]].concat();
    let node = Part::start(&words, &ring, &certificates);
    node.wait_for("listening on https://");
    let (first, door, page) = gateway(&ring, &certificates);
    let path = "/cache/0123456789abcdef0123456789abcdef";
    assert_eq!(ask(door, "PUT", path, b"value").0, 200);
    assert_eq!(ask(page, "GET", "/ready", b""), (200, b"ready\n".to_vec()));
    let metrics = String::from_utf8(ask(page, "GET", "/metrics", b"").1).unwrap();
    assert!(metrics.contains("zimcache_requests_total"), "{metrics}");

    // Those of a stranger open nothing.
    let strange = folder.path().join("strange");
    certify(&strange);
    let (_stranger, door, _) = gateway(&ring, &strange);
    assert_eq!(
        ask(door, "GET", path, b"").0,
        404,
        "what it cannot reach is a miss"
    );

    // The authority itself is another one now.
    certify(&certificates);
    for part in [&node, &first] {
        part.wait_for("renewed peer certificates are in force");
    }
    let (_second, door, _) = gateway(&ring, &certificates);
    assert_eq!(ask(door, "GET", path, b""), (200, b"value".to_vec()));
}

#[test]
fn tls_has_a_port_of_its_own_beside_the_one_in_clear() {
    let folder = Folder::new();
    let certificates = folder.path().join("public");
    certify(&certificates);
    let file = |name: &str| certificates.join(name).to_str().unwrap().to_owned();
    let (cert, key) = (file("tls.crt"), file("tls.key"));
    let flags = ["--tls-cert", &cert, "--tls-key", &key, "--tls-port", "0"];
    let server = crate::process::Server::start(&folder, &flags);
    assert_eq!(server.request("GET", "/health", b"").0, 200);
    let refused = run(&["cache", "serve", "--tls-port", "0", "--check"]);
    assert_ne!(refused.code, 0);
    assert!(refused.err.contains("tls.port"), "{}", refused.err);
}
