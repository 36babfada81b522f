//! Promises of the products this one follows, seen from the command line: their variables, users with passwords, names
//! of policies, certificates that are renewed, and what the log tells.

use std::{
    fs,
    io::{Read, Write},
    net::TcpStream,
    path::Path,
    thread,
    time::{Duration, Instant},
};

use rustix::process::Signal;
use zimcache_types::{Digest, Function};

use crate::process::{Folder, Server, ended, run, zim};

/// What `htpasswd -nbBC 4 ada swordfish` of Apache 2.4 printed.
const USERS: &str = "ada:$2y$04$u7TIhmJnJU2YXbp1471zLOE/vDpru6TousbhIYx/J5U7pn/Pd3fI.\n";
/// `ada:swordfish` and `ada:trout`, as a browser writes them.
const ADA: &str = "YWRhOnN3b3JkZmlzaA==";
const NOT_ADA: &str = "YWRhOnRyb3V0";

/// Longest wait for a change to be taken over.
const PATIENCE: Duration = Duration::from_secs(30);

fn object(body: &[u8]) -> String {
    format!(
        "/api/v1/objects/{}",
        Digest::of(Function::Sha256, body).hash.to_hex()
    )
}

#[test]
fn builders_variables_are_settings_in_force() {
    let print = |variables: &[(&str, &str)]| {
        let mut command = zim(&["cache", "serve", "--print-config"]);
        ended(command.envs(variables.iter().copied())).out
    };
    let all = print(&[
        ("BUILDER_CACHE_SERVER_HOST", "0.0.0.0"),
        ("BUILDER_CACHE_SERVER_PORT", "9"),
        ("BUILDER_CACHE_SERVER_STORAGE", "/srv/cache"),
        ("BUILDER_CACHE_SERVER_MAX_SIZE", "107374182400"),
        ("BUILDER_CACHE_SERVER_ENABLE_COMPRESSION", "false"),
        ("BUILDER_CACHE_SERVER_ENABLE_RATE_LIMITING", "true"),
        ("BUILDER_CACHE_SERVER_TLS_CERT", "/etc/cert.pem"),
        ("BUILDER_CACHE_SERVER_TLS_KEY", "/etc/key.pem"),
    ]);
    for line in [
        "bind = [\"0.0.0.0\"]",
        "port = 9",
        "storage = \"/srv/cache\"",
        "max-size = \"100GiB\"",
        "compression = \"off\"",
        "per-address = \"10/s burst 100\"",
        "cert = \"/etc/cert.pem\"",
        "key = \"/etc/key.pem\"",
    ] {
        assert!(all.lines().any(|found| found == line), "{line}: {all}");
    }
    let other = print(&[
        ("BUILDER_CACHE_SERVER_ENABLE_COMPRESSION", "true"),
        ("BUILDER_CACHE_SERVER_ENABLE_RATE_LIMITING", "false"),
    ]);
    assert!(other.contains("compression = \"auto\""), "{other}");
    assert!(!other.contains("per-address"), "{other}");
}

#[test]
fn a_policy_of_eviction_that_is_not_offered_is_refused_and_what_to_do_is_said() {
    let folder = Folder::new();
    let file = folder.path().join("zim.toml");
    for policy in ["lru", "lfu", "ttl", "random"] {
        fs::write(&file, format!("[store]\neviction-policy = '{policy}'\n")).unwrap();
        let refused = run(&[
            "cache",
            "serve",
            "--check",
            "--config",
            file.to_str().unwrap(),
        ]);
        assert_eq!(refused.code, 2, "{policy}");
        for text in ["store.eviction-policy", policy, "s3-fifo"] {
            assert!(refused.err.contains(text), "{text}: {}", refused.err);
        }
    }
}

#[test]
fn every_level_of_the_log_can_be_chosen() {
    for level in ["trace", "debug", "info", "warn", "error"] {
        let words = ["cache", "serve", "--print-config", "--log-level", level];
        let printed = run(&words).out;
        assert!(
            printed.contains(&format!("level = \"{level}\"")),
            "{printed}"
        );
    }
}

/// Status of a request with Basic credentials.
fn as_user(server: &Server, method: &str, credentials: &str, body: &str) -> u16 {
    let (path, length) = (object(body.as_bytes()), body.len());
    let mut connection = TcpStream::connect(server.address).unwrap();
    let request = format!(
        "{method} {path} HTTP/1.1\r\nHost: a\r\nConnection: close\r\nContent-Length: {length}\r\n\
         Authorization: Basic {credentials}\r\n\r\n{body}"
    );
    connection.write_all(request.as_bytes()).unwrap();
    let mut answer = String::new();
    connection.read_to_string(&mut answer).unwrap();
    answer.split(' ').nth(1).unwrap().parse().unwrap()
}

#[test]
fn a_user_with_a_bcrypt_password_has_objects_and_nobody_else_has() {
    let folder = Folder::new();
    let users = folder.path().join("users");
    fs::write(&users, USERS).unwrap();
    let users = users.to_str().unwrap();
    let server = Server::start(&folder, &["--htpasswd", users, "--anonymous", "none"]);
    assert_eq!(as_user(&server, "PUT", ADA, "value"), 200);
    assert_eq!(as_user(&server, "PUT", NOT_ADA, "value"), 401);
    assert_eq!(server.request("PUT", &object(b"value"), b"value").0, 401);
    assert_eq!(server.request("GET", &object(b"value"), b"").0, 401);
}

#[test]
fn the_log_tells_uploads_downloads_refusals_and_the_stop() {
    let folder = Folder::new();
    let mut server = Server::start(&folder, &["--access-log", "--log-format", "json"]);
    let path = object(b"value");
    for (method, body, status, sent) in [
        ("PUT", &b"other"[..], 400, None),
        ("PUT", b"value", 200, Some(0)),
        ("GET", b"", 200, Some(5)),
    ] {
        assert_eq!(server.request(method, &path, body).0, status);
        let sent = sent.map_or(String::new(), |bytes| format!("{bytes},\"micros\":"));
        let said = format!("\"principal\":\"anonymous\",\"status\":{status},\"sent_bytes\":{sent}");
        server.wait_for_complaint(&said);
    }
    server.signal(Signal::TERM);
    server.wait_for_complaint("stopping");
    assert_eq!(server.wait().code(), Some(0));
}

#[test]
fn every_line_of_the_access_log_has_an_id_of_its_request() {
    let folder = Folder::new();
    let mut server = Server::start(&folder, &["--access-log", "--log-format", "json"]);
    for id in ["\"id\":1,", "\"id\":2,"] {
        assert_eq!(server.request("GET", "/health", b"").0, 200);
        server.wait_for_complaint(id);
    }
}

#[test]
fn a_renewed_certificate_is_taken_over_while_serving() {
    let folder = Folder::new();
    let path = |name: &str| folder.path().join(name).to_str().unwrap().to_owned();
    let (certificate, key, trusted) = (path("cert.pem"), path("key.pem"), path("trusted.pem"));
    let make = || {
        let made = rcgen::generate_simple_self_signed(["127.0.0.1".to_owned()]).unwrap();
        fs::write(&trusted, made.cert.pem()).unwrap();
        fs::write(&key, made.signing_key.serialize_pem()).unwrap();
        fs::write(&certificate, made.cert.pem()).unwrap();
    };
    make();
    let server = Server::start(&folder, &["--tls-cert", &certificate, "--tls-key", &key]);
    let url = format!("https://{}", server.address);
    let health = || run(&["health", "--url", &url, "--ca", &trusted]);
    assert_eq!(health().code, 0);
    make();
    let deadline = Instant::now() + PATIENCE;
    while health().code != 0 {
        assert!(Instant::now() < deadline, "{}", health().err);
        thread::sleep(Duration::from_millis(50));
    }
}

#[test]
fn neither_the_unit_nor_the_image_runs_as_root() {
    let deploy = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../deploy");
    let has = |name: &str, wanted: &str| {
        let text = fs::read_to_string(deploy.join(name)).unwrap();
        assert!(text.lines().any(|line| line == wanted), "{name}: {wanted}");
    };
    for line in [
        "User=zimcache",
        "CapabilityBoundingSet=",
        "NoNewPrivileges=yes",
    ] {
        has("zimcache.service", line);
    }
    has("Dockerfile", "USER 65532:65532");
}
