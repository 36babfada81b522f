//! Real nginx and Caddy in front of the real server, with the very files of `deploy/`: only ports, certificate and the
//! server's address are put in.
//!
//! What a proxy must not do: keep a body on its own disk, limit its size, hide who asks.

use std::fs;
use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail, ensure};
use rustix::process::{Pid, Signal, kill_process};
use zimcache_tests::certificate::Certificates;
use zimcache_tests::content::{body, sha256};
use zimcache_tests::environment::scratch;
use zimcache_tests::process::{Tool, said, zim};
use zimcache_tests::report::{Turn, say};
use zimcache_tests::server::{Serve, Server};

/// Longest wait for a proxy to answer or to end.
const PATIENCE: Duration = Duration::from_secs(30);
/// Larger than what nginx takes by default, and than any buffer of a proxy.
const BODY_BYTES: usize = 48 << 20;
/// The client's own address, which is not the proxy's.
const CLIENT: &str = "127.0.0.9";

/// A proxy that ends with its guard.
pub(crate) struct Proxy(Child);

impl Proxy {
    /// Starts one and waits until it takes connections.
    pub(crate) fn start(command: &mut Command, port: u16) -> Result<Proxy> {
        let child = command.stdin(Stdio::null()).spawn()?;
        let mut proxy = Proxy(child);
        let begun = Instant::now();
        while begun.elapsed() < PATIENCE {
            if let Some(status) = proxy.0.try_wait()? {
                bail!("the proxy ended: {status}");
            }
            if std::net::TcpStream::connect(("127.0.0.1", port)).is_ok() {
                return Ok(proxy);
            }
            std::thread::sleep(Duration::from_millis(20));
        }
        bail!("the proxy takes no connections");
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        // Its workers end with it only when it is asked to stop.
        let id = i32::try_from(self.0.id()).ok().and_then(Pid::from_raw);
        if let Some(id) = id {
            kill_process(id, Signal::TERM).ok();
        }
        let begun = Instant::now();
        while begun.elapsed() < PATIENCE {
            if matches!(self.0.try_wait(), Ok(Some(_))) {
                return;
            }
            std::thread::sleep(Duration::from_millis(20));
        }
        self.0.kill().ok();
    }
}

/// A port that is free now.
pub(crate) fn free_port() -> Result<u16> {
    Ok(TcpListener::bind("127.0.0.1:0")?.local_addr()?.port())
}

/// A file of `deploy/` with texts put in; each has to be there.
fn deployed(name: &str, replaced: &[(&str, &str)]) -> Result<String> {
    let path = Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("../deploy")
        .join(name);
    let mut text = fs::read_to_string(path)?;
    for (from, to) in replaced {
        ensure!(text.contains(from), "{name} says nothing of {from:?}");
        text = text.replace(from, to);
    }
    Ok(text)
}

/// Sends a large body through the proxy and has it back; then the log must name the client.
fn goes_through(server: &Server, url: &str, authority: &Path, folder: &Path) -> Result<()> {
    let content = body(7, BODY_BYTES);
    let (source, target) = (folder.join("source"), folder.join("target"));
    fs::write(&source, &content)?;
    let address = format!("{url}/ns/team%2Fa/cas/{}", sha256(&content));
    let curl = |arguments: &[&str]| {
        Tool::new("curl", 120)
            .args([
                "--silent",
                "--show-error",
                "--fail",
                "--noproxy",
                "*",
                "--cacert",
            ])
            .args([authority])
            .args(["--interface", CLIENT])
            .args(arguments)
            .run_ok()
    };
    let text = |path: &Path| path.display().to_string();
    curl(&["--upload-file", &text(&source), &address])?;
    curl(&["--output", &text(&target), &address])?;
    ensure!(
        fs::read(&target)? == content,
        "the content came back different"
    );
    let log = server.log_tail();
    ensure!(
        log.contains(&format!("client={CLIENT}")),
        "the log does not name the client:\n{log}"
    );
    let check = zim(60)?
        .args([
            "setup",
            "turbo",
            "--check",
            "--namespace",
            "team",
            "--url",
            url,
            "--ca",
        ])
        .args([authority])
        .clear_env()
        .run_ok()?;
    ensure!(said(&check).contains("ok: "), "{}", said(&check));
    Ok(())
}

fn serve(folder: &Path) -> Result<Server> {
    let flags = ["--trusted-proxy", "127.0.0.1", "--access-log"];
    Serve::on(&folder.join("store"), "2GB")
        .flags(&flags)
        .start()
}

fn nginx() -> PathBuf {
    let usual = PathBuf::from("/usr/sbin/nginx");
    if usual.exists() {
        usual
    } else {
        PathBuf::from("nginx")
    }
}

#[test]
fn nginx_as_deployed_passes_large_bodies_and_tells_who_asks() -> Result<()> {
    let _turn = Turn::shared()?;
    let scratch = scratch("nginx")?;
    let folder = scratch.path();
    let server = serve(folder)?;
    let certificates = Certificates::make_in(folder)?;
    let [_, certificate, _, key] = certificates.flags();
    let port = free_port()?;
    let site = deployed(
        "nginx.conf",
        &[
            ("127.0.0.1:8080;", &format!("{};", server.address())),
            ("listen 443 ssl", &format!("listen 127.0.0.1:{port} ssl")),
            ("/etc/ssl/cache.example.pem", &certificate),
            ("/etc/ssl/cache.example.key", &key),
        ],
    )?;
    let root = folder.display();
    let paths = ["client_body", "proxy", "fastcgi", "uwsgi", "scgi"]
        .map(|name| format!("    {name}_temp_path {root}/{name};\n"))
        .concat();
    let config = folder.join("nginx.conf");
    fs::write(
        &config,
        format!(
            "daemon off;\npid {root}/nginx.pid;\nerror_log {root}/error.log;\nevents {{}}\n\
             http {{\n    access_log off;\n{paths}{site}}}\n"
        ),
    )?;
    let arguments = ["-e".into(), folder.join("error.log"), "-c".into(), config];
    let tested = Tool::new(nginx(), 30)
        .args(["-t"])
        .args(&arguments)
        .run_ok()?;
    ensure!(!said(&tested).contains("[warn]"), "{}", said(&tested));
    let mut command = Command::new(nginx());
    let proxy = Proxy::start(command.args(&arguments), port)?;
    let url = format!("https://127.0.0.1:{port}");
    goes_through(&server, &url, &certificates.authority(), folder)?;
    let errors = fs::read_to_string(folder.join("error.log")).context("nginx's log")?;
    ensure!(!errors.contains("buffered to a temporary file"), "{errors}");
    drop(proxy);
    server.stop()?;
    say(&format!("nginx: {BODY_BYTES} bytes each way over TLS"));
    Ok(())
}

#[test]
fn caddy_as_deployed_passes_large_bodies_and_tells_who_asks() -> Result<()> {
    let _turn = Turn::shared()?;
    let scratch = scratch("caddy")?;
    let folder = scratch.path();
    let server = serve(folder)?;
    let certificates = Certificates::make_in(folder)?;
    let [_, certificate, _, key] = certificates.flags();
    let port = free_port()?;
    let site = deployed(
        "Caddyfile",
        &[
            ("127.0.0.1:8080", &server.address().to_string()),
            (
                "cache.example {",
                &format!(
                    "https://127.0.0.1:{port} {{\n\tbind 127.0.0.1\n\ttls {certificate} {key}"
                ),
            ),
        ],
    )?;
    let config = folder.join("Caddyfile");
    // No administration port, no redirects from port 80: nothing but the site. A client of an address names no server.
    let global = "{\n\tadmin off\n\tauto_https disable_redirects\n\tdefault_sni 127.0.0.1\n}\n";
    fs::write(&config, format!("{global}{site}"))?;
    let mut command = Command::new("caddy");
    command
        .args(["run", "--adapter", "caddyfile", "--config"])
        .arg(&config);
    command
        .env("HOME", folder)
        .stderr(fs::File::create(folder.join("caddy.log"))?);
    let proxy = Proxy::start(&mut command, port)?;
    let url = format!("https://127.0.0.1:{port}");
    goes_through(&server, &url, &certificates.authority(), folder)?;
    drop(proxy);
    server.stop()?;
    say(&format!("caddy: {BODY_BYTES} bytes each way over TLS"));
    Ok(())
}
