//! Bad input and bad manners over raw sockets: a clear refusal, nothing stored, and the next client is served.
//!
//! Timeouts are set to a second, so that silent and slow clients need no patience here.

use std::io;
use std::net::SocketAddr;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};
use zimcache_tests::content;
use zimcache_tests::environment::scratch;
use zimcache_tests::http::{self, Connection};
use zimcache_tests::report::{Turn, say};
use zimcache_tests::server::{Serve, Server};

const SHORT: &str = "1s";
/// What a second may become on a busy machine.
const PATIENCE: Duration = Duration::from_secs(8);

struct Fixture {
    server: Server,
    _folder: tempfile::TempDir,
    body: Vec<u8>,
    path: String,
}

impl Fixture {
    fn new(name: &str, flags: &[&str]) -> Result<Fixture> {
        let folder = scratch(name)?;
        let body = content::body(1, 2_000);
        let path = format!("/cas/{}", content::sha256(&body));
        let server = Serve::on(&folder.path().join("store"), "256MB")
            .flags(flags)
            .env("ZIMCACHE_SERVE__GATEWAY__FIRST_BYTE_TIMEOUT", SHORT)
            .env("ZIMCACHE_SERVE__GATEWAY__HEADER_TIMEOUT", SHORT)
            .env("ZIMCACHE_SERVE__GATEWAY__BODY_TIMEOUT", SHORT)
            .start()?;
        let fixture = Fixture {
            server,
            _folder: folder,
            body,
            path,
        };
        fixture.demand_service()?;
        Ok(fixture)
    }

    fn address(&self) -> SocketAddr {
        self.server.address()
    }

    /// Stores and reads a blob on a connection of its own.
    fn demand_service(&self) -> Result<()> {
        let mut connection = Connection::open(self.address())?;
        let stored = connection.request("PUT", &self.path, &[], Some(&self.body))?;
        ensure!(stored.status == 200, "PUT: {}", stored.status);
        let read = connection.request("GET", &self.path, &[], None)?;
        ensure!(
            read.status == 200 && read.body == self.body,
            "GET: {}",
            read.status
        );
        Ok(())
    }

    /// Sends raw bytes and returns the statuses answered until the server closes or falls silent.
    fn answers_to(&self, bytes: &[u8]) -> Result<Vec<u16>> {
        let mut connection = Connection::open(self.address())?;
        // The server may close before it has read all.
        let _ = connection.send_raw(bytes);
        let _ = connection.finish_sending();
        let mut statuses = Vec::new();
        loop {
            match connection.response(false) {
                Ok(response) => statuses.push(response.status),
                Err(error) if error.kind() == io::ErrorKind::InvalidData => {
                    return Err(error).context("an answer that is not HTTP");
                }
                Err(_) => return Ok(statuses),
            }
        }
    }

    fn is_absent(&self, path: &str) -> Result<bool> {
        Ok(http::once(self.address(), "GET", path, &[], None)?.status == 404)
    }
}

#[test]
fn requests_that_smuggle_or_make_no_sense_are_refused_and_harm_nobody() -> Result<()> {
    let _turn = Turn::shared()?;
    let fixture = Fixture::new("shapes", &[])?;
    let path = &fixture.path;
    let hidden = "GET /health HTTP/1.1\r\nHost: h\r\n\r\n";
    let head = |lines: &str| format!("PUT {path} HTTP/1.1\r\nHost: h\r\n{lines}\r\n");
    let refused = [
        head("Content-Length: 5\r\nContent-Length: 6\r\n") + "hello" + hidden,
        head("Content-Length: 5, 6\r\n") + "hello" + hidden,
        head("Content-Length: +5\r\n") + "hello",
        head("Content-Length: -1\r\n") + "hello",
        head("Content-Length: 99999999999999999999999\r\n") + "hello",
        head("Content-Length: 0x10\r\n") + "hello",
        head("X: a\r\n folded\r\nContent-Length: 0\r\n"),
        head("Transfer-Encoding: chunked, identity\r\n") + "0\r\n\r\n",
        head("Transfer-Encoding: xchunked\r\n") + "0\r\n\r\n",
        head("Transfer-Encoding: chunked\r\n") + "zz\r\nhello\r\n0\r\n\r\n",
        head("Transfer-Encoding: chunked\r\n") + "ffffffffffffffffff\r\nhello\r\n0\r\n\r\n",
        head("Na me: x\r\nContent-Length: 0\r\n"),
        head("Name : x\r\nContent-Length: 0\r\n"),
        "GET / HTTP/9.9\r\nHost: h\r\n\r\n".to_owned(),
        "G\0T / HTTP/1.1\r\nHost: h\r\n\r\n".to_owned(),
        "GET /cas/\0 HTTP/1.1\r\nHost: h\r\n\r\n".to_owned(),
        "\r\n\r\n\0\u{1}\u{2}\u{3}\r\n\r\n".to_owned(),
        "PRI * HTTP/2.0\r\n\r\nXX\r\n\r\n".to_owned(),
    ];
    for bytes in &refused {
        let statuses = fixture.answers_to(bytes.as_bytes())?;
        let clear =
            statuses.len() <= 1 && statuses.iter().all(|status| (400..500).contains(status));
        ensure!(clear, "{bytes:?} answered {statuses:?}");
        fixture
            .demand_service()
            .with_context(|| format!("after {bytes:?}"))?;
    }
    // Both framings at once: refused, or read as chunks with nothing answered afterwards.
    let both = head("Content-Length: 3\r\nTransfer-Encoding: chunked\r\n") + "0\r\n\r\n" + hidden;
    let statuses = fixture.answers_to(both.as_bytes())?;
    ensure!(statuses.len() <= 1, "both framings: {statuses:?}");
    fixture.demand_service()?;
    fixture.server.stop()?;
    say(&format!(
        "hostile: {} malformed requests",
        refused.len() + 1
    ));
    Ok(())
}

#[test]
fn endless_headers_and_paths_are_refused() -> Result<()> {
    let _turn = Turn::shared()?;
    let fixture = Fixture::new("endless", &[])?;
    let mut many = "GET /health HTTP/1.1\r\nHost: h\r\n".to_owned();
    for number in 0..100_000 {
        many.extend(["X-", &number.to_string(), ": y\r\n"]);
    }
    many.push_str("\r\n");
    let long_value = format!("GET / HTTP/1.1\r\nX: {}\r\n\r\n", "y".repeat(8 << 20));
    let long_path = format!("GET /{} HTTP/1.1\r\nHost: h\r\n\r\n", "y".repeat(8 << 20));
    for bytes in [many, long_value, long_path] {
        let statuses = fixture.answers_to(bytes.as_bytes())?;
        let clear =
            statuses.len() <= 1 && statuses.iter().all(|status| (400..500).contains(status));
        ensure!(
            clear,
            "{} bytes of header answered {statuses:?}",
            bytes.len()
        );
        fixture.demand_service()?;
    }
    fixture.server.stop()
}

#[test]
fn bodies_that_end_early_store_nothing() -> Result<()> {
    let _turn = Turn::shared()?;
    let fixture = Fixture::new("short", &[])?;
    for (seed, length) in [(10, 3_000), (11, 3_000_000)] {
        let body = content::body(seed, length);
        let half = &body[..length / 2];
        let hash = content::sha256(&body);
        let entry = format!("/ccache/{}", &hash[..40]);
        for path in [format!("/cas/{hash}"), entry] {
            let announced =
                format!("PUT {path} HTTP/1.1\r\nHost: h\r\nContent-Length: {length}\r\n\r\n");
            let chunked = format!(
                "PUT {path} HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\n\r\n{:x}\r\n",
                half.len()
            );
            for head in [announced, chunked] {
                let bytes = [head.as_bytes(), half, b"\r\n"].concat();
                let statuses = fixture.answers_to(&bytes)?;
                ensure!(
                    statuses.iter().all(|status| *status >= 400),
                    "{path}: {statuses:?}"
                );
                ensure!(
                    fixture.is_absent(&path)?,
                    "{path} is there after half its body"
                );
            }
        }
        // One byte more than announced: the blob is wrong, and the rest is no request.
        let path = format!("/cas/{hash}");
        let head = format!(
            "PUT {path} HTTP/1.1\r\nHost: h\r\nContent-Length: {}\r\n\r\n",
            length - 1
        );
        let statuses = fixture.answers_to(&[head.as_bytes(), &body].concat())?;
        ensure!(
            statuses.first() == Some(&400),
            "a length that lies: {statuses:?}"
        );
        ensure!(
            fixture.is_absent(&path)?,
            "{path} is there in spite of its length"
        );
    }
    fixture.demand_service()?;
    fixture.server.stop()
}

#[test]
fn expectations_are_answered_before_the_body() -> Result<()> {
    let _turn = Turn::shared()?;
    let fixture = Fixture::new("expect", &["--max-blob-size", "1MiB"])?;
    let body = content::body(20, 5_000);
    let hash = content::sha256(&body);
    let head = |path: &str, length: usize| {
        format!(
            "PUT {path} HTTP/1.1\r\nHost: h\r\nExpect: 100-continue\r\nContent-Length: {length}\r\n\r\n"
        )
    };
    let path = format!("/cas/{hash}");
    let mut connection = Connection::open(fixture.address())?;
    connection.send_raw(head(&path, body.len()).as_bytes())?;
    let interim = connection.response_head()?;
    ensure!(
        interim.status == 100,
        "expected 100, got {}",
        interim.status
    );
    connection.send_raw(&body)?;
    let done = connection.response(false)?;
    ensure!(done.status == 200, "after 100: {}", done.status);

    let cases = [
        (path.as_str(), 2 << 20, 413),
        ("/cas/nonsense-key", 10, 400),
        ("/nowhere", 10, 404),
    ];
    for (path, length, status) in cases {
        let mut connection = Connection::open(fixture.address())?;
        connection.send_raw(head(path, length).as_bytes())?;
        let refused = connection.response_head()?;
        let accepted = refused.status == status || (status == 400 && refused.status == 404);
        ensure!(accepted, "{path}: {} instead of {status}", refused.status);
    }
    fixture.demand_service()?;
    fixture.server.stop()
}

#[test]
fn silent_and_slow_clients_are_let_go() -> Result<()> {
    let _turn = Turn::shared()?;
    let fixture = Fixture::new("slow", &[])?;
    let half_head = "GET /health HTTP/1.1\r\nHos";
    let half_body = format!(
        "PUT {} HTTP/1.1\r\nHost: h\r\nContent-Length: 2000\r\n\r\nabc",
        fixture.path
    );
    for (what, bytes) in [
        ("silent", ""),
        ("half a header", half_head),
        ("half a body", &half_body),
    ] {
        let begun = Instant::now();
        let mut connection = Connection::open(fixture.address())?;
        connection.send_raw(bytes.as_bytes())?;
        // An answer such as 408 is fine; what counts is that the connection ends.
        if let Ok(response) = connection.response(false) {
            ensure!(
                (400..500).contains(&response.status),
                "{what}: {}",
                response.status
            );
        }
        ensure!(connection.closed()?, "{what}: still open");
        ensure!(
            begun.elapsed() < PATIENCE,
            "{what}: let go after {:?}",
            begun.elapsed()
        );
    }
    trickled_header(&fixture)?;
    fixture.demand_service()?;
    fixture.server.stop()
}

/// One byte of header every 100 ms must not count as life.
fn trickled_header(fixture: &Fixture) -> Result<()> {
    let begun = Instant::now();
    let mut connection = Connection::open(fixture.address())?;
    let header = "GET /health HTTP/1.1\r\nX: ".to_owned() + &"y".repeat(1_000);
    for byte in header.as_bytes() {
        if connection.send_raw(&[*byte]).is_err() {
            return Ok(());
        }
        ensure!(begun.elapsed() < PATIENCE, "a trickled header lives on");
        // The pace of the slow client itself.
        std::thread::sleep(Duration::from_millis(100));
    }
    ensure!(connection.closed()?, "a trickled header was accepted");
    Ok(())
}

#[test]
fn at_the_connection_cap_the_longest_idle_one_makes_room() -> Result<()> {
    let _turn = Turn::shared()?;
    let fixture = Fixture::new("cap", &["--max-connections", "8"])?;
    let mut open = Vec::new();
    for number in 0..8 {
        let mut connection = Connection::open(fixture.address())?;
        connection.request("GET", "/health", &[], None)?;
        open.push(connection);
        if number == 0 {
            // The server measures idleness in steps of up to a quarter of a second.
            std::thread::sleep(Duration::from_millis(600));
        }
    }
    let mut ninth = Connection::open(fixture.address())?;
    let response = ninth.request("GET", "/health", &[], None)?;
    ensure!(response.status == 200, "the ninth: {}", response.status);
    ensure!(open[0].closed()?, "the longest-idle one is still open");
    let response = open[7].request("GET", "/health", &[], None)?;
    ensure!(response.status == 200, "the youngest: {}", response.status);
    drop((open, ninth));
    fixture.server.stop()
}

#[test]
fn a_stop_lets_uploads_finish_and_does_not_wait_for_dead_ones() -> Result<()> {
    let _turn = Turn::shared()?;
    let folder = scratch("drain")?;
    let store = folder.path().join("store");
    let serve = Serve::on(&store, "256MB").flags(&["--drain-timeout", "3s"]);
    let server = serve.start()?;
    let body = content::body(30, 2_000_000);
    let path = format!("/cas/{}", content::sha256(&body));
    let mut upload = begin_upload(&server, &path, body.len())?;
    let mut idle = Connection::open(server.address())?;
    idle.request("GET", "/health", &[], None)?;
    upload.send_raw(&body[..1_000_000])?;
    let stopping = std::thread::spawn(move || server.stop());
    ensure!(idle.closed()?, "an idle connection is kept at the stop");
    upload.send_raw(&body[1_000_000..])?;
    let response = upload.response(false).context("the upload under way")?;
    ensure!(
        response.status == 200,
        "the upload under way: {}",
        response.status
    );
    stopping.join().expect("the stopping thread")?;

    let server = serve.start()?;
    let read = http::once(server.address(), "GET", &path, &[], None)?;
    ensure!(
        read.status == 200 && read.body == body,
        "acknowledged while stopping: {}",
        read.status
    );
    let dead = begin_upload(
        &server,
        "/ccache/0000000000000000000000000000000000000000",
        10,
    )?;
    let begun = Instant::now();
    server.stop()?;
    ensure!(
        begun.elapsed() < PATIENCE,
        "a dead upload held the stop for {:?}",
        begun.elapsed()
    );
    drop(dead);
    Ok(())
}

fn begin_upload(server: &Server, path: &str, length: usize) -> Result<Connection> {
    let mut connection = Connection::open(server.address())?;
    // The answer 100 shows that the server has begun to read.
    let head = format!(
        "PUT {path} HTTP/1.1\r\nHost: h\r\nExpect: 100-continue\r\nContent-Length: {length}\r\n\r\n"
    );
    connection.send_raw(head.as_bytes())?;
    let interim = connection.response_head()?;
    ensure!(
        interim.status == 100,
        "expected 100, got {}",
        interim.status
    );
    Ok(connection)
}
