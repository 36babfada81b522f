//! `zim cache serve`: what it tells at the start, what it refuses, how it stops.

use std::{
    io::{Read, Write},
    net::{TcpListener, TcpStream},
    os::unix::net::UnixStream,
    time::{Duration, Instant},
};

use rustix::process::Signal;

use super::process::{Folder, Server, ended, exchange, run, zim};

#[test]
fn the_start_tells_where_it_listens_what_it_found_and_what_to_paste() {
    let folder = Folder::new();
    let server = Server::start(&folder, &[]);
    let url = server.url();
    let start = &server.start;
    assert!(
        start.starts_with(&format!("listening on {url}\n")),
        "{start}"
    );
    assert!(start.contains("0 blobs and 0 entries"), "{start}");
    assert!(start.contains(&format!("--remote_cache={url} ")), "{start}");
    assert!(
        start.contains(&format!("remote_storage={url}/ccache")),
        "{start}"
    );
    assert_eq!(server.request("GET", "/health", b"").0, 200);
}

#[test]
fn by_default_both_loopback_addresses_answer_on_one_port() {
    let folder = Folder::new();
    let server = Server::start(&folder, &[]);
    let listening: Vec<&str> = server
        .start
        .lines()
        .filter_map(|line| line.strip_prefix("listening on http://"))
        .collect();
    for address in &listening {
        let connection = TcpStream::connect(address).unwrap();
        assert_eq!(
            exchange(connection, "GET", "/health", b"").0,
            200,
            "{address}"
        );
    }
    let machine_has_v6 = TcpListener::bind("[::1]:0").is_ok();
    assert_eq!(listening.len(), if machine_has_v6 { 2 } else { 1 });
}

#[test]
fn what_was_stored_is_found_after_a_clean_stop_and_after_a_kill() {
    let folder = Folder::new();
    let server = Server::start(&folder, &[]);
    assert!(server.start.contains("; made in"), "{}", server.start);
    let first = server.put(b"before the stop");
    assert_eq!(server.stop().code(), Some(0));
    let server = Server::start(&folder, &[]);
    let start = &server.start;
    assert!(
        start.contains(" 1 blob ") && start.contains("after a clean stop"),
        "{start}"
    );
    let second = server.put(b"before the kill");
    server.signal(Signal::KILL);
    server.wait();
    let server = Server::start(&folder, &[]);
    let start = &server.start;
    assert!(
        start.contains("2 blobs") && start.contains("after a crash"),
        "{start}"
    );
    let answer = |path: &str| server.request("GET", path, b"");
    assert_eq!(answer(&first), (200, b"before the stop".to_vec()));
    assert_eq!(answer(&second), (200, b"before the kill".to_vec()));
}

#[test]
fn a_second_process_on_the_same_store_is_refused() {
    let folder = Folder::new();
    let server = Server::start(&folder, &[]);
    let store = folder.store();
    for words in [
        &["cache", "serve", "--port", "0", "--storage", &store][..],
        &["cache", "stats", "--storage", &store],
        &["cache", "gc", "--storage", &store],
        &["cache", "verify", "--storage", &store],
    ] {
        let told = run(words);
        assert_eq!(told.code, 1, "{words:?}");
        assert!(told.err.contains(&store), "{}", told.err);
        assert!(
            told.err.contains("in use by another process"),
            "{}",
            told.err
        );
    }
    assert_eq!(server.request("GET", "/health", b"").0, 200);
}

#[test]
fn a_busy_port_is_refused_by_its_number() {
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = taken.local_addr().unwrap().port().to_string();
    let folder = Folder::new();
    let told = run(&[
        "cache",
        "serve",
        "--port",
        &port,
        "--storage",
        &folder.store(),
    ]);
    assert_eq!(told.code, 1);
    assert!(
        told.err
            .contains(&format!("port {port} of 127.0.0.1 is in use")),
        "{}",
        told.err
    );
    assert!(told.err.contains("--port"), "{}", told.err);
}

#[test]
fn a_folder_that_cannot_be_made_is_refused_by_name() {
    let folder = Folder::new();
    let file = folder.path().join("file");
    std::fs::write(&file, "").unwrap();
    let inside = file.join("store");
    let told = ended(zim(&["cache", "serve", "--port", "0", "--storage"]).arg(&inside));
    assert_eq!(told.code, 1);
    assert!(told.err.contains(inside.to_str().unwrap()), "{}", told.err);
}

#[test]
fn listening_beyond_this_machine_is_warned_about() {
    let folder = Folder::new();
    let mut server = Server::start(&folder, &["--bind", "0.0.0.0"]);
    assert!(
        server.start.contains("--remote_cache=http://127.0.0.1:"),
        "{}",
        server.start
    );
    server.wait_for_complaint("every request is refused");
}

#[test]
fn other_machines_may_write_only_when_that_is_asked_for_and_it_is_warned_about() {
    let folder = Folder::new();
    let mut server = Server::start(&folder, &["--bind", "0.0.0.0", "--anonymous", "read-write"]);
    server.wait_for_complaint("may read and write this cache");
}

#[test]
fn a_unix_socket_answers_and_goes_away_with_the_server() {
    let folder = Folder::new();
    let socket = folder.path().join("zim.sock");
    let server = Server::start(&folder, &["--unix-socket", socket.to_str().unwrap()]);
    let connection = UnixStream::connect(&socket).unwrap();
    assert_eq!(exchange(connection, "GET", "/health", b"").0, 200);
    assert_eq!(server.stop().code(), Some(0));
    assert!(!socket.exists());
}

/// A connection with an upload under way that never ends.
fn stuck_upload(server: &Server) -> TcpStream {
    let mut connection = TcpStream::connect(server.address).unwrap();
    let key = "0".repeat(64);
    let head = format!(
        "PUT /cas/{key} HTTP/1.1\r\nHost: cache\r\nExpect: 100-continue\r\nContent-Length: 1000\r\n\r\n"
    );
    connection.write_all(head.as_bytes()).unwrap();
    // The answer to Expect shows that the request is under way.
    let mut answer = [0; 25];
    connection.read_exact(&mut answer).unwrap();
    assert_eq!(&answer, b"HTTP/1.1 100 Continue\r\n\r\n");
    connection
}

#[test]
fn a_stop_waits_for_requests_no_longer_than_the_drain_time() {
    let folder = Folder::new();
    let server = Server::start(&folder, &["--drain-timeout", "1s"]);
    let upload = stuck_upload(&server);
    let begun = Instant::now();
    assert_eq!(server.stop().code(), Some(0));
    let took = begun.elapsed();
    assert!(
        (Duration::from_millis(500)..Duration::from_secs(8)).contains(&took),
        "{took:?}"
    );
    drop(upload);
}

#[test]
fn an_idle_server_stops_at_once_on_either_signal() {
    for signal in [Signal::TERM, Signal::INT] {
        let folder = Folder::new();
        let server = Server::start(&folder, &["--drain-timeout", "1h"]);
        server.signal(signal);
        assert_eq!(server.wait().code(), Some(0));
    }
}

#[test]
fn a_second_signal_ends_a_drain_at_once() {
    let folder = Folder::new();
    let mut server = Server::start(&folder, &["--drain-timeout", "1h"]);
    let upload = stuck_upload(&server);
    server.signal(Signal::TERM);
    server.wait_for_complaint("stopping");
    server.signal(Signal::TERM);
    assert_eq!(server.wait().code(), Some(130));
    drop(upload);
}

#[test]
fn the_access_log_is_written_whatever_the_log_level() {
    let folder = Folder::new();
    let flags = [
        "--access-log",
        "--log-level",
        "error",
        "--log-format",
        "json",
    ];
    let mut server = Server::start(&folder, &flags);
    assert_eq!(server.request("GET", "/health", b"").0, 200);
    server.wait_for_complaint("\"path\":\"/health\"");
}
