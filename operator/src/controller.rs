//! Which cache is looked at when, and what happens when a round fails.
//!
//! A cache is looked at when it or something of it changes, soon again while something is under way, and now and then
//! anyway. Invariants: a round ends in time; one broken cache does not stop the others; after failures the next try comes
//! later and later.

use std::{collections::BTreeMap, fmt, sync::Arc, time::Duration};

use futures_util::StreamExt as _;
use k8s_openapi::{
    NamespaceResourceScope,
    api::{
        apps::v1::{Deployment, StatefulSet},
        core::v1::{ConfigMap, Pod, Service},
        networking::v1::NetworkPolicy,
        policy::v1::PodDisruptionBudget,
    },
};
use kube::{
    Api, Client, Resource, ResourceExt as _,
    api::{Patch, PatchParams},
    core::DeserializeGuard,
    runtime::{
        Controller,
        controller::{Action, Config},
        reflector::ObjectRef,
        watcher,
    },
};
use parking_lot::Mutex;
use serde::de::DeserializeOwned;
use serde_json::json;
use zimcache_ring::Document;
use zimcache_types::Clock;

use crate::{
    apply::Memory,
    conditions::is_true,
    crd::{ZimCache, ZimCacheStatus, condition},
    dereference::dereference,
    events::{self, News, Teller},
    finalize,
    names::{MANAGER, Names, STATUS_MANAGER},
    reconcile::{self, Error, Outcome, Tools},
    server::{Metrics, ObjectState},
    status,
    validate::{Cache, validate},
};

/// A cache as it comes from the API server, readable or not.
type Guarded = DeserializeGuard<ZimCache>;

/// Longest round.
const ROUND_LIMIT: Duration = Duration::from_mins(1);
/// Between two looks at a cache with which all is well.
const IDLE: Duration = Duration::from_secs(15);
/// Between two looks while something is under way.
const BUSY: Duration = Duration::from_secs(2);
/// First pause after a failure; it doubles each time.
const FIRST_PAUSE: Duration = Duration::from_secs(1);
/// Longest pause after failures.
const LONGEST_PAUSE: Duration = Duration::from_mins(2);
/// Caches worked on at once.
const AT_ONCE: u16 = 8;
/// How long changes of the same cache are gathered.
const GATHER: Duration = Duration::from_millis(300);

/// What all rounds share.
pub struct Context {
    client: Client,
    default_image: String,
    clock: Arc<dyn Clock>,
    teller: Teller,
    metrics: Metrics,
    memory: Memory,
    known: Mutex<BTreeMap<String, Known>>,
}

/// What is remembered of a cache between rounds. Nothing depends on it but comfort.
#[derive(Debug, Default, Clone)]
struct Known {
    ring: Option<Document>,
    failures: u32,
}

impl fmt::Debug for Context {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Context")
            .field("default_image", &self.default_image)
            .finish_non_exhaustive()
    }
}

impl Context {
    /// Nothing is known of any cache yet.
    pub fn new(
        client: Client,
        default_image: String,
        clock: Arc<dyn Clock>,
        metrics: Metrics,
        identity: Option<String>,
    ) -> Context {
        Context {
            teller: Teller::new(client.clone(), identity),
            client,
            default_image,
            clock,
            metrics,
            memory: Memory::default(),
            known: Mutex::default(),
        }
    }

    fn caches(&self, object: &ZimCache) -> Api<ZimCache> {
        Api::namespaced(self.client.clone(), &object.namespace().unwrap_or_default())
    }
}

/// Looks after the caches of a namespace, or of all, until `stop` ends.
pub async fn run(
    context: Arc<Context>,
    namespace: Option<&str>,
    stop: impl Future<Output = ()> + Send + Sync + 'static,
) {
    let client = &context.client;
    let mine =
        || watcher::Config::default().labels(&format!("app.kubernetes.io/managed-by={MANAGER}"));
    let pods = api::<Pod>(client, namespace);
    let maps = api::<ConfigMap>(client, namespace);
    let controller = Controller::new(
        api::<Guarded>(client, namespace),
        watcher::Config::default(),
    )
    .with_config(Config::default().concurrency(AT_ONCE).debounce(GATHER))
    .owns(api::<StatefulSet>(client, namespace), mine())
    .owns(api::<Deployment>(client, namespace), mine())
    .owns(api::<Service>(client, namespace), mine())
    .owns(api::<NetworkPolicy>(client, namespace), mine())
    .owns(api::<PodDisruptionBudget>(client, namespace), mine())
    .watches(pods, mine(), |pod| cache_of(&pod))
    .watches(maps, mine(), |map| cache_of(&map))
    .graceful_shutdown_on(stop);
    controller
        .run(round, later, Arc::clone(&context))
        .for_each(|result| async move {
            if let Err(error) = result {
                // Failures of rounds are told where they happen; what is left is about caches that are gone.
                tracing::debug!(%error, "not looked at");
            }
        })
        .await;
}

fn api<K>(client: &Client, namespace: Option<&str>) -> Api<K>
where
    K: Resource<DynamicType = (), Scope = NamespaceResourceScope> + DeserializeOwned,
{
    match namespace {
        Some(namespace) => Api::namespaced(client.clone(), namespace),
        None => Api::all(client.clone()),
    }
}

/// The cache that the labels of an object name.
fn cache_of<K: Resource<DynamicType = ()>>(object: &K) -> Option<ObjectRef<Guarded>> {
    let cache = object.labels().get("app.kubernetes.io/instance")?;
    Some(ObjectRef::new(cache).within(&object.namespace()?))
}

fn key(object: &Guarded) -> String {
    format!(
        "{}/{}",
        object.namespace().unwrap_or_default(),
        object.name_any()
    )
}

/// One round for one cache.
async fn round(guarded: Arc<Guarded>, context: Arc<Context>) -> Result<Action, Error> {
    let key = key(&guarded);
    let object = match &guarded.0 {
        Ok(object) => object,
        Err(invalid) => {
            context.metrics.begin(&key).failed("Unreadable");
            tracing::warn!(cache = key, error = %invalid.error, "this ZimCache cannot be read");
            return Ok(Action::requeue(LONGEST_PAUSE));
        }
    };
    let mut round = context.metrics.begin(&key);
    let done = tokio::time::timeout(ROUND_LIMIT, Box::pin(work(&context, object, &key))).await;
    let error = match done {
        Ok(Ok(action)) => {
            context.known.lock().entry(key).or_default().failures = 0;
            return Ok(action);
        }
        Ok(Err(error)) => error,
        Err(_) => Error::Slow(ROUND_LIMIT.as_secs()),
    };
    round.failed(error.kind());
    if !is_conflict(&error) {
        tracing::warn!(cache = key, %error, "the round failed");
        tell_failure(&context, object, &error).await;
    }
    Err(error)
}

/// Somebody else wrote at the same time: the next look is right.
fn is_conflict(error: &Error) -> bool {
    matches!(error, Error::Api(kube::Error::Api(status)) if status.is_conflict() || status.is_already_exists())
}

/// When a cache is looked at again after a failure.
fn later(guarded: Arc<Guarded>, error: &Error, context: Arc<Context>) -> Action {
    if is_conflict(error) {
        return Action::requeue(FIRST_PAUSE);
    }
    let mut known = context.known.lock();
    let failures = &mut known.entry(key(&guarded)).or_default().failures;
    let pause = FIRST_PAUSE.saturating_mul(1 << (*failures).min(10));
    *failures = failures.saturating_add(1);
    Action::requeue(pause.min(LONGEST_PAUSE))
}

async fn work(context: &Context, object: &ZimCache, key: &str) -> Result<Action, Error> {
    if object.metadata.deletion_timestamp.is_some() {
        finalize::finalize(&context.client, object).await?;
        forget(context, object, key);
        return Ok(Action::await_change());
    }
    finalize::keep_finalizer(&context.client, object).await?;
    let before = object.status.clone().unwrap_or_default();
    let now = context.clock.now();
    let cache = match validate(object) {
        Ok(cache) => cache,
        Err(problems) => {
            let generation = object.metadata.generation.unwrap_or(0);
            let after = status::stalled(&problems, generation, &before, now);
            context.metrics.set_state(key, ObjectState::Failed);
            write_status(context, object, &before, &after, Vec::new()).await?;
            return Ok(Action::await_change());
        }
    };
    let world = Box::pin(dereference(&context.client, &cache)).await?;
    let known_ring = context
        .known
        .lock()
        .get(key)
        .and_then(|known| known.ring.clone());
    let tools = Tools {
        client: &context.client,
        default_image: &context.default_image,
        memory: &context.memory,
        known_ring: known_ring.as_ref(),
        now,
    };
    let mut outcome = if cache.spec.paused {
        reconcile::look_only(&tools, &cache, &world)?
    } else {
        reconcile::reconcile(&tools, object, &cache, &world).await?
    };
    remember(context, key, &outcome);
    let news = std::mem::take(&mut outcome.news);
    let after = status::status(
        &reconcile::observation(&cache, &world, &outcome, now),
        &before,
    );
    write_status(context, object, &before, &after, news).await?;
    context.metrics.set_state(key, state(&cache, &after));
    let is_idle = is_true(&after.conditions, condition::READY) || cache.spec.paused;
    Ok(Action::requeue(if is_idle { IDLE } else { BUSY }))
}

fn remember(context: &Context, key: &str, outcome: &Outcome) {
    let mut known = context.known.lock();
    known
        .entry(key.to_owned())
        .or_default()
        .ring
        .clone_from(&outcome.document);
    if let Some(expires) = outcome.expires_seconds {
        context.metrics.set_certificate_expiry(key, expires);
    }
}

fn forget(context: &Context, object: &ZimCache, key: &str) {
    context.known.lock().remove(key);
    context.memory.forget(&Names::new(
        object.name_any(),
        object.namespace().unwrap_or_default(),
    ));
    context.metrics.forget(key);
}

fn state(cache: &Cache, status: &ZimCacheStatus) -> ObjectState {
    let is = |kind| is_true(&status.conditions, kind);
    match () {
        () if cache.spec.paused => ObjectState::Paused,
        () if is(condition::READY) => ObjectState::Ready,
        () if is(condition::STALLED) => ObjectState::Failed,
        () if is(condition::DEGRADED) => ObjectState::Degraded,
        () => ObjectState::Progressing,
    }
}

/// Tells what turned, and writes the status if it is another one.
async fn write_status(
    context: &Context,
    object: &ZimCache,
    before: &ZimCacheStatus,
    after: &ZimCacheStatus,
    mut news: Vec<News>,
) -> Result<(), kube::Error> {
    let corrections = news
        .iter()
        .filter(|one| one.reason == "EditReverted")
        .count();
    context.metrics.corrected(corrections as u64);
    if before != after {
        let patch = json!({
            "apiVersion": "zimcache.dev/v1alpha1",
            "kind": "ZimCache",
            "status": after,
        });
        let params = PatchParams::apply(STATUS_MANAGER).force();
        let api = context.caches(object);
        let written = api
            .patch_status(&object.name_any(), &params, &Patch::Apply(&patch))
            .await;
        match written {
            Err(kube::Error::Api(status)) if status.is_not_found() => return Ok(()),
            other => drop(other?),
        }
        news.extend(events::between(before, after));
    }
    context.teller.tell(object, &news).await;
    Ok(())
}

/// A round that failed is a condition and an event, not only a line in a log.
async fn tell_failure(context: &Context, object: &ZimCache, error: &Error) {
    let before = object.status.clone().unwrap_or_default();
    let generation = object.metadata.generation.unwrap_or(0);
    let after = status::failed(
        error.kind(),
        &error.to_string(),
        generation,
        &before,
        context.clock.now(),
    );
    let same = |status: &ZimCacheStatus| {
        let ready = status
            .conditions
            .iter()
            .find(|one| one.type_ == condition::READY);
        ready.map(|one| (one.status.clone(), one.reason.clone(), one.message.clone()))
    };
    let is_new = same(&before) != same(&after);
    let news = is_new.then(|| News::warning("ReconcileFailed", error.to_string()));
    let told = write_status(context, object, &before, &after, news.into_iter().collect()).await;
    if let Err(error) = told {
        tracing::warn!(%error, "the status could not be written");
    }
}
