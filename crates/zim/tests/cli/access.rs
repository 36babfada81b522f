//! Who may do what on a running server, and changes of its files while it serves.

use std::{
    fs,
    io::{Read, Write},
    net::TcpStream,
    time::{Duration, Instant},
};

use rustix::process::Signal;

use crate::process::{Folder, Server, ended, run, zim};

/// Longest wait for a change to be taken over.
const PATIENCE: Duration = Duration::from_secs(30);

/// A path whose value may be anything.
const PATH: &str = "/cache/0123456789abcdef0123456789abcdef";

/// The whole answer to a request with this header line and body.
fn answer(server: &Server, method: &str, path: &str, header: &str, body: &str) -> String {
    let mut connection = TcpStream::connect(server.address).unwrap();
    let length = body.len();
    let request = format!(
        "{method} {path} HTTP/1.1\r\nHost: a\r\nConnection: close\r\nContent-Length: {length}\r\n{header}\r\n{body}"
    );
    connection.write_all(request.as_bytes()).unwrap();
    let mut answer = String::new();
    connection.read_to_string(&mut answer).unwrap();
    answer
}

/// Status of a PUT or GET of a Gradle value with this header line.
fn status(server: &Server, method: &str, path: &str, header: &str) -> u16 {
    let answer = answer(server, method, path, header, "");
    answer.split(' ').nth(1).unwrap().parse().unwrap()
}

fn bearer(token: &str) -> String {
    format!("Authorization: Bearer {token}\r\n")
}

/// Waits until the server answers so.
fn wait_for(server: &Server, method: &str, path: &str, header: &str, expected: u16) {
    let begun = Instant::now();
    let mut seen = 0;
    while begun.elapsed() < PATIENCE {
        seen = status(server, method, path, header);
        if seen == expected {
            return;
        }
        std::thread::sleep(Duration::from_millis(50));
    }
    panic!("{method} {path} still gives {seen}, not {expected}");
}

/// Makes a token in the file.
fn create(file: &str, namespace: &str, scope: &str) -> String {
    let made = run(&[
        "token",
        "create",
        "--namespace",
        namespace,
        "--scope",
        scope,
        "--file",
        file,
    ]);
    assert_eq!(made.code, 0, "{}", made.err);
    made.out.trim().to_owned()
}

#[test]
fn credentials_are_ignored_until_a_token_exists_and_looked_at_from_then_on() {
    let folder = Folder::new();
    let home = folder.path().join("home");
    fs::create_dir_all(home.join(".config/zimcache")).unwrap();
    let file = home.join(".config/zimcache/tokens.toml");
    let file = file.to_str().unwrap();
    let server = Server::start_at_home(&folder, &home, &[]);
    assert!(
        server
            .start
            .contains("access: without credentials everybody may read and write")
    );
    assert_eq!(status(&server, "PUT", PATH, &bearer("nonsense")), 200);
    let token = create(file, "team", "write");
    wait_for(&server, "PUT", PATH, &bearer("nonsense"), 401);
    assert_eq!(status(&server, "PUT", PATH, &bearer(&token)), 200);
    assert_eq!(
        status(&server, "GET", &format!("/ns/team{PATH}"), &bearer(&token)),
        200
    );
    assert_eq!(
        status(&server, "GET", &format!("/ns/other{PATH}"), &bearer(&token)),
        404
    );
    // Without credentials the policy of a loopback address holds.
    assert_eq!(status(&server, "GET", PATH, ""), 200);
}

#[test]
fn a_revoked_token_is_refused_and_a_read_token_does_not_write() {
    let folder = Folder::new();
    let file = folder.path().join("tokens.toml");
    let file = file.to_str().unwrap();
    let (reader, writer) = (
        create(file, "default", "read"),
        create(file, "default", "write"),
    );
    let server = Server::start(&folder, &["--tokens", file, "--anonymous", "none"]);
    assert_eq!(status(&server, "GET", PATH, ""), 401);
    assert_eq!(
        status(&server, "PUT", PATH, &bearer(&reader)),
        413,
        "Gradle's word for no"
    );
    assert_eq!(status(&server, "PUT", PATH, &bearer(&writer)), 200);
    assert_eq!(status(&server, "GET", PATH, &bearer(&reader)), 200);
    let id = writer.split('_').nth(1).unwrap();
    assert_eq!(run(&["token", "revoke", id, "--file", file]).code, 0);
    wait_for(&server, "GET", PATH, &bearer(&writer), 401);
    assert_eq!(status(&server, "GET", PATH, &bearer(&reader)), 200);
}

#[test]
fn a_changed_file_is_taken_over_and_a_bad_one_changes_nothing() {
    let folder = Folder::new();
    let config = folder.path().join("zim.toml");
    fs::write(&config, "[auth]\nanonymous = 'read'\n").unwrap();
    let mut server = Server::start(&folder, &["--config", config.to_str().unwrap()]);
    assert_eq!(status(&server, "PUT", PATH, ""), 413);
    fs::write(&config, "[auth]\nanonymous = 'read-write'\n").unwrap();
    wait_for(&server, "PUT", PATH, "", 200);
    fs::write(&config, "[auth]\nanonymous = 'maybe'\n").unwrap();
    server.wait_for_complaint("auth.anonymous");
    assert_eq!(status(&server, "PUT", PATH, ""), 200);
    fs::write(
        &config,
        "[gateway]\nmax-connections = 7\n[namespaces.only]\n",
    )
    .unwrap();
    server.signal(Signal::HUP);
    server.wait_for_complaint("need a restart");
    assert_eq!(status(&server, "GET", &format!("/ns/only{PATH}"), ""), 404);
    assert_eq!(status(&server, "PUT", &format!("/ns/only{PATH}"), ""), 200);
    assert_eq!(
        status(&server, "PUT", PATH, ""),
        413,
        "default is not listed"
    );
}

#[test]
fn a_file_of_users_that_is_missing_or_unsafe_stops_the_start() {
    let folder = Folder::new();
    let users = folder.path().join("users");
    let path = users.to_str().unwrap();
    let serve = [
        "cache",
        "serve",
        "--storage",
        "/nonexistent",
        "--check",
        "--htpasswd",
        path,
    ];
    let missing = ended(&mut zim(&serve));
    assert_eq!(missing.code, 2);
    assert!(missing.err.contains("htpasswd -B"), "{}", missing.err);
    fs::write(&users, "ada:$apr1$abcdefgh$0123456789abcdefghijkl\n").unwrap();
    let unsafe_ = ended(&mut zim(&serve));
    assert_eq!(unsafe_.code, 2);
    assert!(unsafe_.err.contains("htpasswd -B"), "{}", unsafe_.err);
}

#[test]
fn a_certificate_without_its_key_is_refused_with_both_names() {
    let serve = [
        "cache",
        "serve",
        "--storage",
        "/nonexistent",
        "--check",
        "--tls-cert",
        "/c",
    ];
    let refused = run(&serve);
    assert_eq!(refused.code, 2);
    assert!(refused.err.contains("tls.key"), "{}", refused.err);
}

/// The path of a URL to upload to, as the server hands it out.
fn upload_path(server: &Server) -> String {
    let create = "/twirp/github.actions.results.api.v1.CacheService/CreateCacheEntry";
    let json = "Content-Type: application/json\r\n";
    let message = r#"{"key":"k","version":"v"}"#;
    let answer = answer(server, "POST", create, json, message);
    let (_, url) = answer.split_once("http://a").unwrap();
    let (path, _) = url.split_once('"').unwrap();
    path.to_owned()
}

#[test]
fn a_signed_url_outlives_a_restart_when_there_is_a_file_of_the_key() {
    let folder = Folder::new();
    let [key, config] = ["key", "zim.toml"].map(|name| folder.path().join(name));
    fs::write(&key, "0123456789abcdef0123456789abcdef\n").unwrap();
    let text = format!("[auth]\nsigning-key-file = \"{}\"\n", key.display());
    fs::write(&config, text).unwrap();
    let flags = ["--config", config.to_str().unwrap()];
    let server = Server::start(&folder, &flags);
    let path = upload_path(&server);
    server.stop();
    let server = Server::start(&folder, &flags);
    assert_eq!(status(&server, "PUT", &path, ""), 201);
    server.stop();
    let server = Server::start(&folder, &[]);
    assert_eq!(status(&server, "PUT", &path, ""), 403);
    server.stop();
}

#[test]
fn a_signing_key_that_is_too_short_or_missing_stops_the_start() {
    let folder = Folder::new();
    let [key, config] = ["key", "zim.toml"].map(|name| folder.path().join(name));
    let text = format!("[auth]\nsigning-key-file = \"{}\"\n", key.display());
    fs::write(&config, text).unwrap();
    let config = config.to_str().unwrap();
    let serve = [
        "cache",
        "serve",
        "--storage",
        "/nonexistent",
        "--check",
        "--config",
        config,
    ];
    let missing = run(&serve);
    assert_eq!(missing.code, 2, "{}", missing.err);
    fs::write(&key, "too short").unwrap();
    let short = run(&serve);
    assert_eq!(short.code, 2);
    assert!(short.err.contains("openssl rand"), "{}", short.err);
}
