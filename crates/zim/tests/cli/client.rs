//! A client's settings, log-in and health, against real servers.

use std::{fs, os::unix::fs::PermissionsExt, process::Command};

use crate::process::{Ended, Folder, Server, ended, run, zim};

/// A user with a home and nothing else.
struct User(Folder);

impl User {
    fn new() -> User {
        User(Folder::new())
    }

    fn zim(&self, words: &[&str]) -> Command {
        let mut command = zim(words);
        command.env("HOME", self.0.path());
        command
    }

    fn run(&self, words: &[&str]) -> Ended {
        ended(&mut self.zim(words))
    }

    fn done(&self, words: &[&str]) -> String {
        let ended = self.run(words);
        assert_eq!(ended.code, 0, "{words:?}: {}", ended.err);
        ended.out
    }
}

/// A file of tokens with one for each scope in the namespace `team-a`: read, write.
fn tokens(folder: &Folder) -> (String, [String; 2]) {
    let file = folder.path().join("tokens.toml");
    let file = file.to_str().unwrap().to_owned();
    let made = ["read", "write"].map(|scope| {
        let words = ["token", "create", "--namespace", "team-a", "--scope", scope];
        let made = ended(zim(&words).args(["--file", &file]));
        assert_eq!(made.code, 0, "{}", made.err);
        made.out.trim().to_owned()
    });
    (file, made)
}

/// Nothing listens there.
const NOWHERE: &str = "http://127.77.77.77:1";

#[test]
fn the_server_is_named_by_flag_then_variable_then_file() {
    let folder = Folder::new();
    let server = Server::start(&folder, &[]);
    let (user, url) = (User::new(), server.url());
    user.done(&["config", "set", "cache.remote", &url]);
    assert!(user.done(&["health"]).starts_with("ok "));
    let by_variable = ended(user.zim(&["health"]).env("ZIMCACHE_URL", NOWHERE));
    assert_eq!(by_variable.code, 1);
    assert!(by_variable.err.contains(NOWHERE), "{}", by_variable.err);
    let mut by_flag = user.zim(&["health", "--url", &url]);
    assert_eq!(ended(by_flag.env("ZIMCACHE_URL", NOWHERE)).code, 0);
    user.done(&["config", "unset", "cache.remote"]);
    let default = user.done(&["config", "get", "cache.remote"]);
    assert_eq!(default, "http://127.0.0.1:8080\n");
}

#[test]
fn settings_are_private_and_unknown_ones_are_refused() {
    let user = User::new();
    user.done(&["config", "set", "cache.token", "hush-hush"]);
    user.done(&["config", "set", "cache.namespace", "team-a"]);
    let file = user.0.path().join(".config/zimcache/config.toml");
    let mode = fs::metadata(&file).unwrap().permissions().mode();
    assert_eq!(mode & 0o777, 0o600);
    let list = user.done(&["config", "list"]);
    assert!(!list.contains("hush"), "{list}");
    assert!(list.contains("team-a  (from the file)"), "{list}");
    let refused = user.run(&["config", "set", "cache.colour", "x"]);
    assert_eq!(refused.code, 2);
    assert!(
        refused.err.contains("cache.remote, cache.token"),
        "{}",
        refused.err
    );
    for (key, value) in [("cache.remote", "cache:1"), ("cache.namespace", "..")] {
        assert_eq!(user.run(&["config", "set", key, value]).code, 2, "{key}");
    }
    fs::write(&file, "[cache]\ncolour = 'red'\n").unwrap();
    let broken = user.run(&["config", "set", "cache.namespace", "b"]);
    assert_eq!(broken.code, 2);
    assert!(fs::read_to_string(&file).unwrap().contains("colour"));
}

#[test]
fn a_token_is_kept_only_when_the_server_accepts_it() {
    let folder = Folder::new();
    let (file, [_, write]) = tokens(&folder);
    let server = Server::start(&folder, &["--tokens", &file, "--anonymous", "none"]);
    let (user, url) = (User::new(), server.url());
    let wrong = user.run(&["login", "--url", &url, "--token", "zim_wrong_token"]);
    assert_eq!(wrong.code, 1);
    assert!(
        wrong.err.contains("does not accept this token"),
        "{}",
        wrong.err
    );
    assert!(!user.0.path().join(".config").exists(), "nothing is kept");
    let words = [
        "login",
        "--url",
        &url,
        "--namespace",
        "team-a",
        "--token",
        &write,
    ];
    assert!(user.done(&words).contains("accepts this token"));
    assert_eq!(user.done(&["config", "get", "cache.token"]).trim(), write);
    user.done(&["cache", "ls"]);
    user.done(&["logout"]);
    let without = user.run(&["cache", "ls"]);
    assert_eq!(without.code, 1);
    assert!(without.err.contains("zim login"), "{}", without.err);
    let by_variable = ended(user.zim(&["cache", "ls"]).env("ZIM_CLOUD_TOKEN", &write));
    assert_eq!(by_variable.code, 0, "{}", by_variable.err);
}

#[test]
fn a_token_may_stay_in_a_variable() {
    let folder = Folder::new();
    let (file, [read, _]) = tokens(&folder);
    let server = Server::start(&folder, &["--tokens", &file, "--anonymous", "none"]);
    let (user, url) = (User::new(), server.url());
    let mut login = user.zim(&["login", "--url", &url, "--token", "env:CI_SECRET"]);
    let login = ended(
        login
            .args(["--namespace", "team-a"])
            .env("CI_SECRET", &read),
    );
    assert_eq!(login.code, 0, "{}", login.err);
    let kept = user.done(&["config", "get", "cache.token"]);
    assert_eq!(kept, "env:CI_SECRET\n");
    let listed = ended(user.zim(&["cache", "ls"]).env("CI_SECRET", &read));
    assert_eq!(listed.code, 0, "{}", listed.err);
    let unset = user.run(&["cache", "ls"]);
    assert_eq!(unset.code, 2);
    assert!(unset.err.contains("env:CI_SECRET"), "{}", unset.err);
}

#[test]
fn a_token_may_come_from_standard_input() {
    let folder = Folder::new();
    let (file, [read, _]) = tokens(&folder);
    let server = Server::start(&folder, &["--tokens", &file, "--anonymous", "none"]);
    let user = User::new();
    let line = folder.path().join("line");
    fs::write(&line, format!("{read}\n")).unwrap();
    let mut login = user.zim(&["login", "--url", &server.url(), "--namespace", "team-a"]);
    let login = ended(login.stdin(fs::File::open(&line).unwrap()));
    assert_eq!(login.code, 0, "{}", login.err);
    assert_eq!(user.done(&["config", "get", "cache.token"]).trim(), read);
}

#[test]
fn https_wants_a_certificate_that_is_trusted() {
    let folder = Folder::new();
    let made = rcgen::generate_simple_self_signed(["127.0.0.1".to_owned()]).unwrap();
    let path = |name: &str| folder.path().join(name).to_str().unwrap().to_owned();
    let (certificate, key) = (path("cert.pem"), path("key.pem"));
    fs::write(&certificate, made.cert.pem()).unwrap();
    fs::write(&key, made.signing_key.serialize_pem()).unwrap();
    let server = Server::start(&folder, &["--tls-cert", &certificate, "--tls-key", &key]);
    let url = format!("https://{}", server.address);
    let trusted = run(&["health", "--url", &url, "--ca", &certificate]);
    assert_eq!(trusted.code, 0, "{}", trusted.err);
    let by_variable = ended(zim(&["health", "--url", &url]).env("SSL_CERT_FILE", &certificate));
    assert_eq!(by_variable.code, 0, "{}", by_variable.err);
    let unknown = run(&["health", "--url", &url]);
    assert_eq!(unknown.code, 1);
    for text in ["cannot be trusted", "--ca FILE", "certificate"] {
        assert!(unknown.err.contains(text), "{}", unknown.err);
    }
    let none = run(&["health", "--url", &url, "--ca", &key]);
    assert_eq!(none.code, 2);
    assert!(none.err.contains("no certificate in it"), "{}", none.err);
}

#[test]
fn health_of_a_server_that_is_gone_is_a_failure() {
    let folder = Folder::new();
    let server = Server::start(&folder, &[]);
    let url = server.url();
    assert_eq!(
        run(&["health", "--url", &url]).out,
        concat!("ok ", env!("CARGO_PKG_VERSION"), "\n")
    );
    server.stop();
    assert_eq!(run(&["health", "--url", &url]).code, 1);
}
