//! The published client library of Polykit (`polykit-core` 0.2.0) against the real server, and the same raw requests to
//! the published server (`polykit-cache` 0.2.0) and to ours: where the two differ has a name.
//!
//! Both are built by `.ci/needs clients`, in a workspace of their own.

use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail, ensure};
use serde_json::Value;
use zimcache_tests::artifact::Artifact;
use zimcache_tests::content;
use zimcache_tests::environment::{cache_folder, scratch};
use zimcache_tests::http::{Connection, Response};
use zimcache_tests::process::Tool;
use zimcache_tests::relay::{Relay, killed_half_way};
use zimcache_tests::report::{Turn, say};
use zimcache_tests::server::Serve;
use zimcache_tests::tokens::{self, Tokens};

const MAX_BYTES: usize = 1_000_000;

fn program(name: &str) -> Result<PathBuf> {
    let path = cache_folder()?.join("tools/bin").join(name);
    ensure!(
        path.is_file(),
        "{} is missing: run `make clients`",
        path.display()
    );
    Ok(path)
}

/// Lets the library do operations and returns its line about each.
fn drive(url: &str, token: &str, operations: &[&str]) -> Result<Vec<Value>> {
    let driver = Tool::new(program("polykit-driver")?, 180);
    let output = driver.args([url, token]).args(operations).run_ok()?;
    let text = String::from_utf8(output.stdout)?;
    let lines: Vec<Value> = text
        .lines()
        .map(serde_json::from_str)
        .collect::<Result<_, _>>()?;
    ensure!(lines.len() == operations.len(), "lines: {text}");
    Ok(lines)
}

fn demand_error(line: &Value, status: &str) -> Result<()> {
    let error = line["error"].as_str().unwrap_or_default();
    ensure!(error.contains(status), "not an error of {status}: {line}");
    Ok(())
}

#[test]
fn the_published_client_stores_once_finds_and_verifies() -> Result<()> {
    let _turn = Turn::shared()?;
    let storage = scratch("store")?;
    let limit = MAX_BYTES.to_string();
    let serve =
        Serve::on(&storage.path().join("store"), "256MB").flags(&["--max-blob-size", &limit]);
    let server = serve.start()?;
    let lines = drive(
        &server.url(),
        "",
        &[
            "has:one",
            "get:one",
            "put:one:400000",
            "put:one:400000",
            "has:one",
            "get:one",
            "put:huge:1200000",
        ],
    )?;
    ensure!(
        lines[0]["found"] == false && lines[1]["found"] == false,
        "hits from nowhere: {lines:?}"
    );
    ensure!(lines[2]["error"].is_null(), "{}", lines[2]);
    // It takes any failure for a passing one and tries four times, 100, 200 and 400 ms apart.
    demand_error(&lines[3], "409")?;
    ensure!(
        lines[3]["milliseconds"].as_u64() >= Some(700),
        "not four tries: {}",
        lines[3]
    );
    ensure!(lines[4]["found"] == true, "{}", lines[4]);
    ensure!(lines[5]["verified"] == true, "{}", lines[5]);
    ensure!(
        lines[5]["files"]
            .as_object()
            .is_some_and(|files| files.len() == 2),
        "{}",
        lines[5]
    );
    demand_error(&lines[6], "413")?;
    server.stop()?;
    say("polykit-core: miss, 201, 409 in four tries, hit, verified, 413");
    Ok(())
}

#[test]
fn the_published_client_goes_on_when_the_server_dies_half_way() -> Result<()> {
    let _turn = Turn::shared()?;
    let storage = scratch("store")?;
    let serve = Serve::on(&storage.path().join("store"), "256MB");
    let server = serve.start()?;
    let relay = Relay::to(server.address())?;
    relay.stop_after("PUT", 1);
    let url = relay.url();
    let (lines, server) = killed_half_way(&relay, &serve, server, || {
        drive(
            &url,
            "",
            &[
                "put:first:400000",
                "put:second:400000",
                "get:first",
                "get:second",
            ],
        )
    })?;
    ensure!(
        lines[0]["error"].is_null() && lines[1]["error"].is_null(),
        "{lines:?}"
    );
    ensure!(
        lines[2]["verified"] == true && lines[3]["verified"] == true,
        "{lines:?}"
    );
    server.stop()?;
    say("polykit-core: a kill during an upload");
    Ok(())
}

#[test]
fn the_published_client_reads_with_a_read_only_token_and_nothing_with_a_wrong_one() -> Result<()> {
    let _turn = Turn::shared()?;
    let storage = scratch("store")?;
    let tokens = Tokens::in_folder(storage.path());
    let (write, read) = (
        tokens.create("team", "write")?,
        tokens.create("team", "read")?,
    );
    let serve = Serve::on(&storage.path().join("store"), "256MB").flags(&tokens.flags()?);
    let server = serve.start()?;
    let stored = drive(&server.url(), &write, &["put:one:9000", "get:one"])?;
    ensure!(
        stored[0]["error"].is_null() && stored[1]["verified"] == true,
        "{stored:?}"
    );
    let reader = drive(
        &server.url(),
        &read,
        &["get:one", "put:two:9000", "has:two"],
    )?;
    ensure!(
        reader[0]["verified"] == true && reader[0]["hash"] == stored[1]["hash"],
        "{reader:?}"
    );
    demand_error(&reader[1], "403")?;
    ensure!(reader[2]["found"] == false, "{reader:?}");
    for line in drive(&server.url(), tokens::UNKNOWN, &["get:one", "put:two:9000"])? {
        demand_error(&line, "401")?;
    }
    server.stop()?;
    say("polykit-core: read-only, wrong token");
    Ok(())
}

/// A running `polykit-cache`. Dropping it kills it.
struct Published {
    child: Child,
    address: SocketAddr,
}

impl Published {
    /// It cannot choose a port by itself, so a free one is asked for first; somebody else may take it in between.
    fn start(folder: &Path) -> Result<Published> {
        for _ in 0..5 {
            let address = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?.local_addr()?;
            let child = Command::new(program("polykit-cache")?)
                .arg("--storage-dir")
                .arg(folder)
                .args(["--port", &address.port().to_string()])
                .args(["--max-size", &MAX_BYTES.to_string()])
                .stdin(Stdio::null())
                .stdout(Stdio::null())
                .stderr(Stdio::null())
                .spawn()?;
            let mut server = Published { child, address };
            if server.listens()? {
                return Ok(server);
            }
        }
        bail!("polykit-cache does not start")
    }

    fn listens(&mut self) -> Result<bool> {
        let begun = Instant::now();
        while begun.elapsed() < Duration::from_secs(20) {
            if self.child.try_wait()?.is_some() {
                return Ok(false);
            }
            if TcpStream::connect(self.address).is_ok() {
                return Ok(true);
            }
            std::thread::sleep(Duration::from_millis(10));
        }
        Ok(false)
    }
}

impl Drop for Published {
    fn drop(&mut self) {
        // Both fail harmlessly when the process has ended already.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// One request to both servers.
struct Row {
    name: &'static str,
    method: &'static str,
    path: String,
    headers: &'static [&'static str],
    body: Option<Vec<u8>>,
}

/// Where the published server errs or knows less, with its status and ours.
const EXCEPTIONS: &[(&str, u16, u16)] = &[
    // It looks for words in an error's text that are not there.
    ("over the limit", 500, 413),
    // It walks the archive, not the manifest.
    ("a listed file that is missing", 201, 422),
    ("reading the artifact whose file is missing", 200, 404),
    // It answers a request for a range with everything.
    ("a range", 200, 206),
    // It has no page of its health.
    ("health", 404, 200),
];

fn rows() -> Vec<Row> {
    let key = content::sha256(b"differential");
    let missing = content::sha256(b"missing file");
    let sound = Artifact::new(&key, 20_000).pack();
    let mut incomplete = Artifact::new(&missing, 20_000);
    incomplete.files.pop();
    let other = content::sha256(b"other");
    let mut mistaken = Artifact::new(&other, 20_000);
    mistaken.files[0].1[3] ^= 1;
    let row = |name, method, key: &str, body: Option<&[u8]>| Row {
        name,
        method,
        path: format!("/v1/artifacts/{key}"),
        headers: &[],
        body: body.map(<[u8]>::to_vec),
    };
    let long = "ab".repeat(64);
    vec![
        row("a miss", "GET", &key, None),
        row("a miss by HEAD", "HEAD", &key, None),
        row("a key that is too short", "GET", "abc123", None),
        row(
            "a key that is too short to store",
            "PUT",
            "abc123",
            Some(&sound),
        ),
        row("a key that is not hex", "GET", &"g".repeat(64), None),
        row("a long key", "GET", &long, None),
        row("another key inside", "PUT", &other, Some(&sound)),
        row("not an artifact", "PUT", &key, Some(b"not an artifact")),
        row("no body", "PUT", &key, Some(b"")),
        row(
            "a file that differs from its hash",
            "PUT",
            &other,
            Some(&mistaken.pack()),
        ),
        row("stored", "PUT", &key, Some(&sound)),
        row("stored again", "PUT", &key, Some(&sound)),
        row("a hit", "GET", &key, None),
        row("a hit by HEAD", "HEAD", &key, None),
        row("the key in upper case", "GET", &key.to_uppercase(), None),
        Row {
            headers: &["Range: bytes=10-19"],
            ..row("a range", "GET", &key, None)
        },
        row("deleting", "DELETE", &key, None),
        row("posting", "POST", &key, Some(&sound)),
        row(
            "a listed file that is missing",
            "PUT",
            &missing,
            Some(&incomplete.pack()),
        ),
        row(
            "reading the artifact whose file is missing",
            "GET",
            &missing,
            None,
        ),
        Row {
            path: "/health".to_owned(),
            ..row("health", "GET", "", None)
        },
        row(
            "over the limit",
            "PUT",
            &other,
            Some(&Artifact::new(&other, MAX_BYTES + 1).pack()),
        ),
    ]
}

fn ask(address: SocketAddr, row: &Row) -> Result<Response> {
    let mut connection = Connection::open(address)?;
    let sent = connection.request(row.method, &row.path, row.headers, row.body.as_deref());
    sent.with_context(|| row.name)
}

/// What a client can tell two answers apart by.
fn shape(response: &Response) -> (u16, Vec<Option<&str>>, Vec<u8>) {
    let names = ["content-type", "content-length", "x-artifact-hash"];
    // The wording of errors is each server's own, and so is its length.
    if response.status >= 400 {
        return (response.status, Vec::new(), Vec::new());
    }
    let headers = names.iter().map(|name| response.header(name)).collect();
    (response.status, headers, response.body.clone())
}

#[test]
fn the_published_server_and_ours_answer_alike_but_for_its_known_errors() -> Result<()> {
    let _turn = Turn::shared()?;
    let storage = scratch("store")?;
    let published = Published::start(&storage.path().join("published"))?;
    let limit = MAX_BYTES.to_string();
    let serve =
        Serve::on(&storage.path().join("store"), "256MB").flags(&["--max-blob-size", &limit]);
    let server = serve.start()?;
    let rows = rows();
    let mut differences = Vec::new();
    for row in &rows {
        let theirs = ask(published.address, row)?;
        let ours = ask(server.address(), row)?;
        if let Some((_, expected, wanted)) = EXCEPTIONS.iter().find(|known| known.0 == row.name) {
            let seen = (theirs.status, ours.status);
            ensure!(
                seen == (*expected, *wanted),
                "{}: {seen:?} is no longer so",
                row.name
            );
        } else if shape(&theirs) != shape(&ours) {
            let shapes = (
                shape(&theirs).0,
                shape(&theirs).1,
                shape(&ours).0,
                shape(&ours).1,
            );
            differences.push(format!("{}: {shapes:?}", row.name));
        }
    }
    ensure!(differences.is_empty(), "{differences:#?}");
    server.stop()?;
    say(&format!(
        "polykit-cache: {} requests, {} known differences",
        rows.len(),
        EXCEPTIONS.len()
    ));
    Ok(())
}
