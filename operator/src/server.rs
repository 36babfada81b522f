//! The operator's page for those who run the system: is it alive, is it ready, and its figures.
//!
//! | path | methods | answer |
//! | --- | --- | --- |
//! | `/health` | GET | 200 while the election goes round, else 503: then the process hangs |
//! | `/ready` | GET | 200 when every controller has its CRD, else 503 with the names of those that wait |
//! | `/metrics` | GET | Prometheus' text format |
//!
//! Neither of the first two asks for leadership or the API server: a standby is ready, and restarting an operator does
//! not bring an API server back. Labels are closed sets; objects are counted by state and never named.

use std::{
    collections::{BTreeMap, HashMap},
    net::TcpListener,
    sync::Arc,
    time::Duration,
};

use axum::{
    Json, Router,
    extract::State,
    http::{StatusCode, header},
    response::IntoResponse,
    routing::get,
};
use parking_lot::Mutex;
use serde_json::{Value, json};
use tokio::{sync::watch, time::Instant};
use zimcache_telemetry::{
    metrics::{Counter, Gauge, LatencyHistogram, Registry},
    task,
};

/// A process whose election has not gone round for so long hangs. Many times the pause between two rounds.
const STUCK_AFTER: Duration = Duration::from_mins(1);

/// What liveness and readiness follow from. Clones are the same one.
#[derive(Debug, Clone, Default)]
pub struct Health(Arc<Mutex<Vitals>>);

#[derive(Debug, Default)]
struct Vitals {
    /// The last round of the election; none before the first.
    beat: Option<Instant>,
    leads: bool,
    /// What each controller waits for; nothing when it works.
    controllers: BTreeMap<&'static str, Option<String>>,
}

impl Health {
    /// Notes that the election has gone round.
    pub fn beat(&self) {
        self.0.lock().beat = Some(Instant::now());
    }

    /// Notes whether this operator leads, which is a beat too.
    pub fn set_leader(&self, leads: bool) {
        let mut vitals = self.0.lock();
        vitals.beat = Some(Instant::now());
        vitals.leads = leads;
    }

    /// Notes that a controller waits for its CRD.
    pub fn waits(&self, controller: &'static str, crd: impl Into<String>) {
        let mut vitals = self.0.lock();
        vitals.controllers.insert(controller, Some(crd.into()));
    }

    /// Notes that a controller works.
    pub fn works(&self, controller: &'static str) {
        self.0.lock().controllers.insert(controller, None);
    }

    /// Whether this operator leads.
    pub fn leads(&self) -> bool {
        self.0.lock().leads
    }

    fn is_alive(&self) -> bool {
        let beat = self.0.lock().beat;
        beat.is_none_or(|beat| beat.elapsed() < STUCK_AFTER)
    }

    /// Who waits for what, as a line each; nothing when all work.
    fn waiting(&self) -> Vec<String> {
        let vitals = self.0.lock();
        let waiting = vitals.controllers.iter().filter_map(|(name, crd)| {
            let crd = crd.as_ref()?;
            Some(format!("controller {name} waits for the CRD {crd}"))
        });
        waiting.collect()
    }
}

/// In which state an object is, for the count of them.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum ObjectState {
    /// As its spec says.
    Ready,
    /// On the way there.
    Progressing,
    /// It serves with less than it should.
    Degraded,
    /// Nothing is done to it.
    Paused,
    /// Its last reconcile failed.
    Failed,
}

impl ObjectState {
    const ALL: [ObjectState; 5] = [
        ObjectState::Ready,
        ObjectState::Progressing,
        ObjectState::Degraded,
        ObjectState::Paused,
        ObjectState::Failed,
    ];

    /// The label.
    pub const fn as_str(self) -> &'static str {
        match self {
            ObjectState::Ready => "ready",
            ObjectState::Progressing => "progressing",
            ObjectState::Degraded => "degraded",
            ObjectState::Paused => "paused",
            ObjectState::Failed => "failed",
        }
    }
}

/// The operator's figures. Clones count into the same ones; docs/metrics.md names them.
#[derive(Debug, Clone)]
pub struct Metrics(Arc<Figures>);

#[derive(Debug)]
struct Figures {
    registry: Registry,
    reconciles: Counter,
    seconds: LatencyHistogram,
    running: Gauge,
    retrying: Gauge,
    corrections: Counter,
    certificate: Gauge,
    by_state: HashMap<ObjectState, Gauge>,
    failures: Mutex<HashMap<&'static str, Counter>>,
    objects: Mutex<HashMap<String, Object>>,
}

#[derive(Debug, Default)]
struct Object {
    state: Option<ObjectState>,
    failed: bool,
    certificate_expires_seconds: Option<i64>,
}

/// Kinds of failures that are shown before the first of them: whoever looks wants to see nothing, rather than not to see.
const EXPECTED: [&str; 2] = ["ApiServer", "Timeout"];

const FAILURES: (&str, &str) = (
    "zimcache_operator_failures_total",
    "Reconciles that failed, by the kind of error.",
);

impl Metrics {
    /// Figures on a page of their own.
    pub fn new(health: &Health) -> Metrics {
        let registry = Registry::new();
        registry.process("operator", env!("CARGO_PKG_VERSION"));
        let queue = |state| {
            let help = "Objects that are worked on, or wait for another attempt.";
            registry.gauge("zimcache_operator_queue", help, &[("state", state)])
        };
        let by_state = ObjectState::ALL.map(|state| {
            let label = [("state", state.as_str())];
            let help = "Objects by state.";
            (
                state,
                registry.gauge("zimcache_operator_objects", help, &label),
            )
        });
        show_health(&registry, health.clone());
        let failures = EXPECTED.map(|kind| (kind, failures_of(&registry, kind)));
        Metrics(Arc::new(Figures {
            reconciles: registry.counter(
                "zimcache_operator_reconciles_total",
                "Reconciles that ended.",
                &[],
            ),
            seconds: registry.latency(
                "zimcache_operator_reconcile_seconds",
                "How long reconciles took.",
                &[],
            ),
            running: queue("running"),
            retrying: queue("retrying"),
            corrections: registry.counter(
                "zimcache_operator_drift_corrections_total",
                "Objects that somebody else had changed and that were put back.",
                &[],
            ),
            certificate: registry.gauge(
                "zimcache_operator_certificate_expires_seconds",
                "Unix time at which the first of the internal certificates expires; 0 without any.",
                &[],
            ),
            by_state: by_state.into(),
            failures: Mutex::new(failures.into()),
            objects: Mutex::default(),
            registry,
        }))
    }

    /// A reconcile begins; it ends when the guard is told how, or dropped.
    pub fn begin(&self, object: impl Into<String>) -> Reconcile {
        self.0.running.inc();
        Reconcile {
            metrics: self.clone(),
            object: object.into(),
            began: Instant::now(),
            failure: None,
        }
    }

    /// An object is in this state.
    pub fn set_state(&self, object: &str, state: ObjectState) {
        self.change(object, |object| object.state = Some(state));
    }

    /// The first of an object's certificates expires then, in seconds of Unix time.
    pub fn set_certificate_expiry(&self, object: &str, expires_seconds: i64) {
        self.change(object, |object| {
            object.certificate_expires_seconds = Some(expires_seconds);
        });
    }

    /// An object is no more.
    pub fn forget(&self, object: &str) {
        self.0.objects.lock().remove(object);
        self.count_objects();
    }

    /// Objects were put back that somebody else had changed.
    pub fn corrected(&self, objects: u64) {
        self.0.corrections.inc_by(objects);
    }

    /// The page.
    pub fn render(&self) -> String {
        self.0.registry.render()
    }

    fn change(&self, object: &str, change: impl FnOnce(&mut Object)) {
        change(self.0.objects.lock().entry(object.to_owned()).or_default());
        self.count_objects();
    }

    fn count_objects(&self) {
        let objects = self.0.objects.lock();
        let count = |wanted: &dyn Fn(&Object) -> bool| {
            i64::try_from(objects.values().filter(|it| wanted(it)).count()).unwrap_or(i64::MAX)
        };
        for (state, gauge) in &self.0.by_state {
            gauge.set(count(&|object| object.state == Some(*state)));
        }
        self.0.retrying.set(count(&|object| object.failed));
        let expiries = objects.values();
        let first = expiries.filter_map(|object| object.certificate_expires_seconds);
        self.0.certificate.set(first.min().unwrap_or(0));
    }

    /// `kind` is a name out of the code, so that there are few.
    fn failed(&self, kind: &'static str) {
        let mut failures = self.0.failures.lock();
        let counter = failures
            .entry(kind)
            .or_insert_with(|| failures_of(&self.0.registry, kind));
        counter.inc();
    }
}

fn failures_of(registry: &Registry, kind: &'static str) -> Counter {
    let (name, help) = FAILURES;
    registry.counter(name, help, &[("kind", kind)])
}

fn show_health(registry: &Registry, health: Health) {
    use zimcache_telemetry::metrics::{Figure, Kind};
    const OF_HEALTH: &[Figure] = &[Figure {
        kind: Kind::Gauge,
        name: "zimcache_operator_leader",
        help: "1 while this operator leads.",
    }];
    registry.figures(OF_HEALTH, move || vec![u64::from(health.leads())]);
}

/// A reconcile under way. What it is told last counts; dropping it counts it.
#[derive(Debug)]
pub struct Reconcile {
    metrics: Metrics,
    object: String,
    began: Instant,
    failure: Option<&'static str>,
}

impl Reconcile {
    /// It fails, with an error of this kind.
    pub fn failed(&mut self, kind: &'static str) {
        self.failure = Some(kind);
    }
}

impl Drop for Reconcile {
    fn drop(&mut self) {
        let figures = &self.metrics.0;
        figures.running.dec();
        figures.reconciles.inc();
        figures.seconds.observe(self.began.elapsed().as_secs_f64());
        if let Some(kind) = self.failure {
            self.metrics.failed(kind);
        }
        let failed = self.failure.is_some();
        self.metrics.change(&self.object, |object| {
            object.failed = failed;
            if failed {
                object.state = Some(ObjectState::Failed);
            }
        });
    }
}

/// Serves the pages on this address until `stopped` says so. Call it on the runtime.
///
/// # Errors
/// When the listener cannot be used.
pub fn start(
    listener: TcpListener,
    health: Health,
    metrics: Metrics,
    mut stopped: watch::Receiver<bool>,
) -> std::io::Result<()> {
    listener.set_nonblocking(true)?;
    let listener = tokio::net::TcpListener::from_std(listener)?;
    let pages = pages(health, metrics);
    task::spawn("pages", async move {
        let stop = async move {
            stopped.wait_for(|stopped| *stopped).await.ok();
        };
        let served = axum::serve(listener, pages).with_graceful_shutdown(stop);
        if let Err(error) = served.await {
            tracing::error!(%error, "the page for those who run the system has ended");
        }
    });
    Ok(())
}

fn pages(health: Health, metrics: Metrics) -> Router {
    Router::new()
        .route("/health", get(alive))
        .route("/ready", get(ready))
        .with_state(health)
        .merge(
            Router::new()
                .route("/metrics", get(figures))
                .with_state(metrics),
        )
}

async fn alive(State(health): State<Health>) -> (StatusCode, Json<Value>) {
    let version = env!("CARGO_PKG_VERSION");
    if health.is_alive() {
        let answer = json!({ "status": "ok", "version": version, "leader": health.leads() });
        return (StatusCode::OK, Json(answer));
    }
    let answer = json!({ "status": "the election does not go round", "version": version });
    (StatusCode::SERVICE_UNAVAILABLE, Json(answer))
}

async fn ready(State(health): State<Health>) -> (StatusCode, String) {
    let waiting = health.waiting();
    if waiting.is_empty() {
        return (StatusCode::OK, "ready\n".to_owned());
    }
    (StatusCode::SERVICE_UNAVAILABLE, waiting.join("\n") + "\n")
}

async fn figures(State(metrics): State<Metrics>) -> impl IntoResponse {
    let text = [(header::CONTENT_TYPE, "text/plain; version=0.0.4")];
    (text, metrics.render())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn an_operator_whose_election_stands_still_is_not_alive() {
        let health = Health::default();
        assert!(health.is_alive(), "before the first round nothing is wrong");
        health.beat();
        let second = Duration::from_secs(1);
        tokio::time::advance(STUCK_AFTER.checked_sub(second).unwrap()).await;
        assert_eq!(alive(State(health.clone())).await.0, StatusCode::OK);
        tokio::time::advance(second).await;
        let (code, _) = alive(State(health.clone())).await;
        assert_eq!(code, StatusCode::SERVICE_UNAVAILABLE);
        health.beat();
        assert!(health.is_alive());
    }

    #[tokio::test]
    async fn readiness_names_the_controller_that_waits_for_its_crd() {
        let health = Health::default();
        health.waits("zimcache", "zimcaches.zimcache.dev");
        let (code, text) = ready(State(health.clone())).await;
        assert_eq!(code, StatusCode::SERVICE_UNAVAILABLE);
        assert_eq!(
            text,
            "controller zimcache waits for the CRD zimcaches.zimcache.dev\n"
        );
        health.works("zimcache");
        assert_eq!(ready(State(health)).await.0, StatusCode::OK);
    }

    #[tokio::test]
    async fn objects_and_failures_are_counted_and_never_named() {
        let health = Health::default();
        let metrics = Metrics::new(&health);
        metrics.set_state("zim/main", ObjectState::Ready);
        metrics.set_state("zim/other", ObjectState::Paused);
        let mut failing = metrics.begin("zim/main");
        let page = metrics.render();
        assert!(
            page.contains("zimcache_operator_queue{state=\"running\"} 1"),
            "{page}"
        );
        failing.failed("MissingSecret");
        drop(failing);
        metrics.corrected(2);
        metrics.set_certificate_expiry("zim/main", 9000);
        metrics.set_certificate_expiry("zim/other", 7000);
        health.set_leader(true);
        let page = metrics.render();
        for line in [
            "zimcache_operator_failures_total{kind=\"MissingSecret\"} 1",
            "zimcache_operator_failures_total{kind=\"Timeout\"} 0",
            "zimcache_operator_objects{state=\"failed\"} 1",
            "zimcache_operator_objects{state=\"ready\"} 0",
            "zimcache_operator_objects{state=\"paused\"} 1",
            "zimcache_operator_queue{state=\"running\"} 0",
            "zimcache_operator_queue{state=\"retrying\"} 1",
            "zimcache_operator_drift_corrections_total 2",
            "zimcache_operator_certificate_expires_seconds 7000",
            "zimcache_operator_reconciles_total 1",
            "zimcache_operator_reconcile_seconds_count 1",
            "zimcache_operator_leader 1",
        ] {
            assert!(page.contains(line), "{line} is not on the page:\n{page}");
        }
        assert!(!page.contains("main"), "{page}");
        metrics.forget("zim/other");
        drop(metrics.begin("zim/main"));
        let page = metrics.render();
        assert!(
            page.contains("zimcache_operator_objects{state=\"paused\"} 0"),
            "{page}"
        );
        assert!(
            page.contains("zimcache_operator_queue{state=\"retrying\"} 0"),
            "{page}"
        );
    }
}
