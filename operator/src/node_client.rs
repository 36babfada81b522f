//! What nodes and gateways say of themselves: their pages for those who run the system, read over plain HTTP.
//!
//! Plain structs for the pure deciders of ring, drain and status. Short limits and no retries: whoever does not answer
//! now is asked again at the next reconcile, and a slow pod must not hold up the others. Not here: what follows from an
//! answer. Invariant: silence is [`Silence`], never a made-up report, so that nobody decides on figures that are not there.

use std::{
    collections::BTreeMap,
    net::{IpAddr, SocketAddr},
    time::Duration,
};

use futures_util::{StreamExt as _, stream};
use http_body_util::{BodyExt as _, Empty, Limited};
use hyper::{Request, StatusCode, body::Bytes, client::conn::http1};
use hyper_util::rt::TokioIo;
use serde::{Deserialize, Serialize};
use tokio::net::TcpStream;
use zimcache_store::StoreStats;
use zimcache_telemetry::task;

/// The port of the pages, on nodes and gateways.
pub const ADMIN_PORT: u16 = 9090;
/// A page that takes longer counts as silence.
const LIMIT: Duration = Duration::from_secs(2);
/// Pods asked at once.
const AT_ONCE: usize = 16;
/// Largest page that is read, in bytes.
const PAGE_LIMIT_BYTES: usize = 4 << 20;

/// A pod to ask.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Target {
    /// Its name, which is a node's id in the ring.
    pub pod: String,
    /// Where its pages are.
    pub address: SocketAddr,
}

impl Target {
    /// The pod with this address, on the port of the pages.
    pub fn new(pod: impl Into<String>, ip: IpAddr) -> Target {
        Target {
            pod: pod.into(),
            address: SocketAddr::new(ip, ADMIN_PORT),
        }
    }
}

/// How a node stands: its answer on `/admin/v1/status`. Fields that a neighbouring version lacks have their defaults.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct NodeReport {
    /// Its name in the ring.
    pub id: String,
    /// Version of its program.
    #[serde(default)]
    pub version: String,
    /// Epoch of the ring it follows.
    pub epoch: u64,
    /// Epoch of the last placement for which everything was handed to its owners.
    pub synced_epoch: u64,
    /// Whether its "no" is not to be trusted yet.
    pub catching_up: bool,
    /// Whether it is about to leave.
    #[serde(default)]
    pub draining: bool,
    /// Records that are not in the bucket yet.
    pub dirty: u64,
    /// Bytes of them.
    #[serde(default)]
    pub dirty_bytes: u64,
    /// Records that another owner may lack.
    pub hints: u64,
    /// Bytes of them.
    #[serde(default)]
    pub hint_bytes: u64,
    /// Calls under way.
    #[serde(default)]
    pub calls: u64,
    /// Whether the bucket answers; `None` without one.
    #[serde(default)]
    pub tier_reachable: Option<bool>,
    /// What its store holds.
    #[serde(default)]
    pub stats: StoreStats,
}

impl NodeReport {
    /// Whether nothing is left on it that its owners or the bucket may lack, for the placement of this epoch.
    pub const fn has_handed_over(&self, published_epoch: u64) -> bool {
        self.synced_epoch >= published_epoch && self.hints == 0
    }
}

/// How a gateway stands, from its metrics.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct GatewayReport {
    /// Epoch of the ring it follows.
    pub epoch: u64,
    /// Look-ups that were answered, since its start.
    pub hits: u64,
    /// Look-ups that were not.
    pub misses: u64,
    /// Nodes of the ring that do not answer it.
    pub nodes_unreachable: u64,
    /// Whether Redis serves; `None` where rate limits are not shared.
    pub redis_up: Option<bool>,
}

/// Why there is no report.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Silence {
    /// It took too long.
    #[error("no answer within {} s", LIMIT.as_secs())]
    Slow,
    /// Nobody listens there, or the connection broke.
    #[error("not reachable: {0}")]
    Unreachable(String),
    /// It answers, but refuses.
    #[error("answered {0}")]
    Refused(u16),
    /// What it says is no report.
    #[error("answered something else: {0}")]
    Nonsense(String),
}

/// What each node that was asked said, by pod.
pub type NodeReports = BTreeMap<String, Result<NodeReport, Silence>>;
/// What each gateway that was asked said, by pod.
pub type GatewayReports = BTreeMap<String, Result<GatewayReport, Silence>>;

/// The `syncedEpoch` of every node that answered: what `zimcache_ring` wants to know before it closes a placement.
pub fn synced_epochs(reports: &NodeReports) -> BTreeMap<String, u64> {
    let answered = reports.values().flatten();
    answered
        .map(|report| (report.id.clone(), report.synced_epoch))
        .collect()
}

/// Asks all these nodes, a few at a time.
pub async fn ask_nodes(targets: Vec<Target>) -> NodeReports {
    ask_all(targets, |target| async move {
        let page = get(&target, "/admin/v1/status").await?;
        let report: NodeReport =
            serde_json::from_slice(&page).map_err(|error| Silence::Nonsense(error.to_string()))?;
        if report.id != target.pod {
            // The address has gone to another pod in the meantime.
            let other = format!("it is {}, not {}", report.id, target.pod);
            return Err(Silence::Nonsense(other));
        }
        Ok(report)
    })
    .await
}

/// Asks all these gateways, a few at a time.
pub async fn ask_gateways(targets: Vec<Target>) -> GatewayReports {
    ask_all(targets, |target| async move {
        let page = get(&target, "/metrics").await?;
        Ok(gateway_report(&String::from_utf8_lossy(&page)))
    })
    .await
}

/// Whether a process answers at all.
///
/// # Errors
/// Why it does not.
pub async fn ask_health(target: &Target) -> Result<(), Silence> {
    get(target, "/health").await.map(drop)
}

async fn ask_all<R, A, F>(targets: Vec<Target>, ask: A) -> BTreeMap<String, Result<R, Silence>>
where
    A: Fn(Target) -> F,
    F: Future<Output = Result<R, Silence>>,
{
    let ask = &ask;
    let asked = targets.into_iter().map(|target| async move {
        let pod = target.pod.clone();
        (pod, ask(target).await)
    });
    stream::iter(asked)
        .buffer_unordered(AT_ONCE)
        .collect()
        .await
}

async fn get(target: &Target, path: &str) -> Result<Bytes, Silence> {
    let answer = tokio::time::timeout(LIMIT, fetch(target.address, path)).await;
    answer.unwrap_or(Err(Silence::Slow))
}

async fn fetch(address: SocketAddr, path: &str) -> Result<Bytes, Silence> {
    let unreachable = |error: &dyn std::fmt::Display| Silence::Unreachable(error.to_string());
    let socket = TcpStream::connect(address).await;
    let socket = socket.map_err(|error| unreachable(&error))?;
    let shaken = http1::handshake(TokioIo::new(socket)).await;
    let (mut sender, connection) = shaken.map_err(|error| unreachable(&error))?;
    // Ends by itself when the sender is dropped.
    task::spawn("page of a pod", async move { connection.await.ok() });
    let request = Request::get(path)
        .header("host", address.to_string())
        .body(Empty::<Bytes>::new())
        .map_err(|error| unreachable(&error))?;
    let answer = sender.send_request(request).await;
    let answer = answer.map_err(|error| unreachable(&error))?;
    if answer.status() != StatusCode::OK {
        return Err(Silence::Refused(answer.status().as_u16()));
    }
    let body = Limited::new(answer.into_body(), PAGE_LIMIT_BYTES);
    let body = body.collect().await.map_err(|error| unreachable(&error))?;
    Ok(body.to_bytes())
}

/// The report in a page of metrics: figures of one name are added up over their labels.
fn gateway_report(page: &str) -> GatewayReport {
    let whole = |name: &str| figure(page, name).unwrap_or(0);
    GatewayReport {
        epoch: whole("zimcache_ring_epoch"),
        hits: whole("zimcache_hits_total"),
        misses: whole("zimcache_misses_total"),
        nodes_unreachable: whole("zimcache_cluster_nodes_unreachable"),
        redis_up: figure(page, "zimcache_rate_limit_redis_up").map(|up| up > 0),
    }
}

fn figure(page: &str, name: &str) -> Option<u64> {
    let values = page.lines().filter_map(|line| value(line, name));
    values.reduce(u64::saturating_add)
}

/// The value on a line of this metric; the page's counters are whole numbers.
fn value(line: &str, name: &str) -> Option<u64> {
    let rest = line.strip_prefix(name)?;
    let rest = match rest.strip_prefix('{') {
        Some(labelled) => labelled.rsplit_once('}')?.1,
        None => rest.strip_prefix(' ')?,
    };
    rest.split_whitespace().next()?.parse().ok()
}

#[cfg(test)]
mod tests {
    use axum::{Router, http::StatusCode as Status, routing::get};
    use tokio::net::TcpListener;

    use super::*;

    const STATUS: &str = r#"{"id":"main-node-0","version":"0.1.0","epoch":7,"syncedEpoch":6,"catchingUp":true,
        "draining":false,"dirty":3,"dirtyBytes":4096,"hints":1,"hintBytes":77,"calls":2,"tierReachable":true,
        "stats":{"capacity_bytes":1000,"live_bytes":10},"ofALaterVersion":1}"#;

    async fn serving(pages: Router) -> SocketAddr {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        task::spawn("pages", async move { axum::serve(listener, pages).await });
        address
    }

    fn target(pod: &str, address: SocketAddr) -> Target {
        Target {
            pod: pod.to_owned(),
            address,
        }
    }

    #[tokio::test]
    async fn a_node_is_read_as_it_describes_itself_also_when_it_is_newer() {
        let pages = Router::new().route("/admin/v1/status", get(|| async { STATUS }));
        let address = serving(pages).await;
        let reports = ask_nodes(vec![target("main-node-0", address)]).await;
        let report = reports["main-node-0"].as_ref().unwrap();
        assert_eq!((report.epoch, report.synced_epoch), (7, 6));
        assert_eq!((report.dirty, report.hints), (3, 1));
        assert!(report.catching_up && report.tier_reachable == Some(true));
        assert_eq!(report.stats.capacity_bytes, 1000);
        let epochs = synced_epochs(&reports);
        assert_eq!(epochs, [("main-node-0".to_owned(), 6)].into());
    }

    #[tokio::test]
    async fn silence_has_a_reason_and_keeps_nobody_else_from_being_heard() {
        let pages = Router::new()
            .route("/admin/v1/status", get(|| async { STATUS }))
            .route("/health", get(|| async { Status::SERVICE_UNAVAILABLE }));
        let address = serving(pages).await;
        let closed = {
            let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
            listener.local_addr().unwrap()
        };
        let targets = vec![
            target("main-node-0", address),
            target("main-node-1", closed),
            target("main-node-2", address),
        ];
        let reports = ask_nodes(targets).await;
        assert!(reports["main-node-0"].is_ok());
        assert!(matches!(
            reports["main-node-1"],
            Err(Silence::Unreachable(_))
        ));
        let taken = reports["main-node-2"].as_ref().unwrap_err();
        assert!(taken.to_string().contains("it is main-node-0"), "{taken}");
        let refused = ask_health(&target("x", address)).await;
        assert_eq!(refused, Err(Silence::Refused(503)));
        let absent = get_absent(address).await;
        assert_eq!(absent, Err(Silence::Refused(404)));
    }

    async fn get_absent(address: SocketAddr) -> Result<(), Silence> {
        super::get(&target("x", address), "/absent").await.map(drop)
    }

    #[tokio::test(start_paused = true)]
    async fn a_node_that_accepts_and_says_nothing_is_given_up() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let silent = target("main-node-0", listener.local_addr().unwrap());
        let reports = ask_nodes(vec![silent]).await;
        assert_eq!(reports["main-node-0"], Err(Silence::Slow));
    }

    #[test]
    fn figures_of_a_gateway_are_added_up_over_their_labels() {
        let page = "# HELP zimcache_hits_total Hits.\n\
            zimcache_hits_total{dialect=\"nx\"} 4\n\
            zimcache_hits_total{dialect=\"a} 9\"} 5\n\
            zimcache_hits_totals 100\n\
            zimcache_misses_total 3\n\
            zimcache_ring_epoch 12\n";
        let report = gateway_report(page);
        assert_eq!((report.hits, report.misses, report.epoch), (9, 3, 12));
        assert_eq!(report.redis_up, None);
        let page = "zimcache_rate_limit_redis_up 0\n";
        assert_eq!(gateway_report(page).redis_up, Some(false));
    }

    #[test]
    fn a_node_has_handed_over_only_for_a_placement_that_it_knows_and_without_hints() {
        let report = NodeReport {
            synced_epoch: 6,
            ..NodeReport::default()
        };
        assert!(report.has_handed_over(6) && !report.has_handed_over(7));
        let hinted = NodeReport { hints: 1, ..report };
        assert!(!hinted.has_handed_over(6));
    }
}
