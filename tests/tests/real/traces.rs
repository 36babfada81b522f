//! Traces of real processes, at a real receiver of OTLP: one GET through a gateway and a node, whose value only the
//! bucket has, is one trace of linked spans; what nobody wants traced is none; logs name the trace.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};
use serde_json::Value;
use tempfile::TempDir;
use zimcache_tests::cluster::program::{Program, Running};
use zimcache_tests::cluster::{Cluster, Plan, backing};
use zimcache_tests::content::{body, sha256};
use zimcache_tests::environment::{cache_folder, scratch};
use zimcache_tests::http;
use zimcache_tests::process::Tool;
use zimcache_tests::report::skip;

/// Spans leave a process every five seconds.
const ARRIVAL: Duration = Duration::from_mins(1);
const UPLOADED: Duration = Duration::from_secs(150);
const READY: Duration = Duration::from_mins(1);

const TRACE: &str = "0af7651916cd43dd8448eb211c80319c";
const CALLER: &str = "b7ad6b7169203331";
const TRACE_OF_GRPC: &str = "4bf92f3577b34da6a3ce929d0e0e4736";

/// The receiver, and what it got.
struct Receiver {
    url: String,
    spans: PathBuf,
    _running: Running,
    _folder: TempDir,
}

fn script() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("observability/otlp.py")
}

/// Where the protocol's definitions are installed; `.ci/needs` does it.
fn libraries() -> Result<PathBuf> {
    let folder = cache_folder()?.join("tools/python/otlp");
    let is_there = folder.join("opentelemetry").is_dir();
    ensure!(
        is_there,
        "opentelemetry-proto is not in {}",
        folder.display()
    );
    Ok(folder)
}

impl Receiver {
    fn start(libraries: &Path) -> Result<Receiver> {
        let folder = scratch("otlp")?;
        let spans = folder.path().join("spans.jsonl");
        fs::write(&spans, "")?;
        let words = [
            &"python3" as &dyn AsRef<std::ffi::OsStr>,
            &script(),
            &"receive",
            &spans,
        ];
        let path = libraries.to_str().context("a path that is text")?;
        let log = folder.path().join("log");
        let mut running = Program::new("the OTLP receiver", &log, &words)
            .env("PYTHONPATH", path)
            .start()?;
        let address = running.address_after("listening on ")?;
        Ok(Receiver {
            url: format!("http://{address}"),
            spans,
            _running: running,
            _folder: folder,
        })
    }

    fn all(&self) -> Result<Vec<Value>> {
        let text = fs::read_to_string(&self.spans)?;
        // The last line may be on its way.
        let whole = text.rsplit_once('\n').map_or("", |(whole, _)| whole);
        let lines = whole.lines().filter(|line| !line.is_empty());
        Ok(lines.map(serde_json::from_str).collect::<Result<_, _>>()?)
    }

    /// The span of this trace with this name, and this parent if one is given; waits for it.
    fn wait_for(&self, trace: &str, name: &str, parent: Option<&str>) -> Result<Value> {
        let begun = Instant::now();
        loop {
            let all = self.all()?;
            let found = all.iter().find(|span| {
                let is_below = parent.is_none_or(|parent| span["parent"] == parent);
                span["trace"] == trace && span["name"] == name && is_below
            });
            if let Some(found) = found {
                return Ok(found.clone());
            }
            ensure!(
                begun.elapsed() < ARRIVAL,
                "no {name} below {parent:?}: {all:#?}"
            );
            std::thread::sleep(Duration::from_millis(100));
        }
    }
}

fn id(span: &Value) -> Result<&str> {
    span["id"].as_str().context("an id")
}

fn traced_cluster(receiver: &Receiver) -> Result<Cluster> {
    let words = |words: &[&str]| words.iter().map(ToString::to_string).collect();
    // Only whoever says so is traced.
    let flags = ["--otlp-endpoint", &receiver.url, "--sample-ratio", "0"];
    let of_gateways = ["--ram-cache", "0", "--access-log", "--log-format", "json"];
    Cluster::start(&Plan {
        nodes: 2,
        gateways: 1,
        bucket: true,
        gateway_flags: words(&[&flags[..], &of_gateways].concat()),
        node_flags: words(&flags),
        ..Plan::default()
    })
}

/// Puts a blob and leaves it to the bucket alone; its path.
fn only_in_the_bucket(cluster: &mut Cluster) -> Result<String> {
    let blob = body(7, 300_000);
    let path = format!("/cas/{}", sha256(&blob));
    let gateway = cluster.gateways[0].address()?;
    let put = http::once(gateway, "PUT", &path, &[], Some(&blob))?;
    ensure!(put.status == 200, "{}", put.text());
    cluster.wait_until_uploaded(UPLOADED)?;
    for node in &mut cluster.nodes {
        node.kill_9()?;
        node.wipe()?;
    }
    for node in &mut cluster.nodes {
        node.start()?;
    }
    for node in &cluster.nodes {
        node.wait_until_ready(READY)?;
    }
    Ok(path)
}

#[test]
fn one_get_is_one_trace_of_gateway_node_and_bucket() -> Result<()> {
    if let Some(reason) = backing::unavailable() {
        return skip("traces", &reason);
    }
    let libraries = match libraries() {
        Ok(folder) => folder,
        Err(error) => return skip("traces", &format!("{error:#}")),
    };
    let receiver = Receiver::start(&libraries)?;
    let mut cluster = traced_cluster(&receiver)?;
    let path = only_in_the_bucket(&mut cluster)?;
    let gateway = cluster.gateways[0].address()?;
    let context = format!("traceparent: 00-{TRACE}-{CALLER}-01");
    let got = http::once(gateway, "GET", &path, &[&context], None)?;
    ensure!(
        got.status == 200 && got.body.len() == 300_000,
        "{}",
        got.status
    );

    let request = receiver.wait_for(TRACE, "get bazel_http", Some(CALLER))?;
    assert_eq!(request["service"], "zimcache-gateway");
    assert_eq!(request["attributes"]["url.path"], *path);
    assert_eq!(request["attributes"]["http.response.status_code"], 200);
    assert_eq!(request["attributes"]["zimcache.namespace"], "default");
    let question = receiver.wait_for(TRACE, "node read", Some(id(&request)?))?;
    assert_eq!(question["service"], "zimcache-gateway");
    let fetched = receiver.wait_for(TRACE, "s3 get", None)?;
    assert_eq!(fetched["service"], "zimcache-node");
    let parent = fetched["parent"].as_str().context("a parent")?;
    let all = receiver.all()?;
    let call = all.iter().find(|span| span["id"] == parent);
    let call = call.with_context(|| format!("{parent} is no span: {all:#?}"))?;
    assert_eq!(call["name"], "zimcache.node.v1.Node/Read");
    let asked = all.iter().find(|span| span["id"] == call["parent"]);
    assert_eq!(asked.context("who asked the node")?["name"], "node read");

    let log = cluster.log_tails();
    assert!(log.contains(&format!("\"trace_id\":\"{TRACE}\"")), "{log}");
    over_grpc(&receiver, &libraries, &cluster)?;
    // Nothing else was traced: the puts and polls before and between had nobody who wanted it.
    let known = [TRACE, TRACE_OF_GRPC];
    let strange = |span: &&Value| !known.iter().any(|trace| span["trace"] == *trace);
    let all = receiver.all()?;
    assert_eq!(all.iter().find(strange), None);
    Ok(())
}

/// A context that comes as metadata of gRPC is followed, too.
fn over_grpc(receiver: &Receiver, libraries: &Path, cluster: &Cluster) -> Result<()> {
    let address = cluster.gateways[0].address()?.to_string();
    let context = format!("00-{TRACE_OF_GRPC}-{CALLER}-01");
    Tool::new("python3", 30)
        .args([&script()])
        .args(["health", &address, &context])
        .env("PYTHONPATH", libraries)
        .run_ok()?;
    let request = receiver.wait_for(TRACE_OF_GRPC, "other reapi", Some(CALLER));
    request.map(drop)
}
