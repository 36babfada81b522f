//! One round for one cache: look, check, decide, build, apply, tell. The steps in their order; each is in a file of its own.
//!
//! Every round starts from what is there, so it may end anywhere. Invariant: what a pod needs is there before the pod, and
//! what a node holds has an owner before the node goes.

use k8s_openapi::{
    api::apps::v1::{Deployment, StatefulSet},
    apimachinery::pkg::api::resource::Quantity,
};
use kube::{Client, ResourceExt as _};
use zimcache_ring::Document;
use zimcache_types::Timestamp;

use crate::{
    apply::{self, Memory},
    build::{self, Inputs, Object},
    certificates,
    crd::{InternalTls, ZimCache},
    dereference::World,
    drain,
    events::News,
    names::Names,
    ring::{self, Step},
    rollout::{self, Rollout},
    status::{self, Observation},
    storage::{self, Growth},
    validate::Cache,
    volumes,
};

/// What a round needs beside the object.
#[derive(Clone)]
pub struct Tools<'a> {
    /// To the API server.
    pub client: &'a Client,
    /// The image of pods whose cache names none.
    pub default_image: &'a str,
    /// What was applied before.
    pub memory: &'a Memory,
    /// The ring that was published last, if this operator did.
    pub known_ring: Option<&'a Document>,
    /// Now.
    pub now: Timestamp,
}

impl std::fmt::Debug for Tools<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Tools")
            .field("now", &self.now)
            .finish_non_exhaustive()
    }
}

/// What a round came to.
#[derive(Debug)]
pub struct Outcome {
    /// What there is to be told.
    pub news: Vec<News>,
    /// The ring in force.
    pub document: Option<Document>,
    /// What comes next for the ring.
    pub step: Step,
    /// What comes next for the pods.
    pub rollout: Rollout,
    /// How many pods of nodes there have to be.
    pub node_pods: i32,
    /// How the volumes stand.
    pub growth: Growth,
    /// Whether the certificates can be used; or what is wrong.
    pub certificates: Result<(), String>,
    /// When the first of them expires, in seconds of Unix time.
    pub expires_seconds: Option<i64>,
    /// The nodes' set as it came back.
    pub node_set: Option<StatefulSet>,
    /// The gateways as they came back.
    pub gateways: Option<Deployment>,
    /// What went wrong after the important steps, if something did.
    pub failure: Option<(&'static str, String)>,
}

/// Why a round ended early.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The API server refused.
    #[error(transparent)]
    Api(#[from] kube::Error),
    /// The certificates.
    #[error(transparent)]
    Certificates(#[from] certificates::Error),
    /// The volumes.
    #[error(transparent)]
    Storage(#[from] storage::Error),
    /// The ring's ConfigMap holds no ring, and nobody knows what was in it.
    #[error(
        "configmap {name} holds no ring: {why}; write back what was in it, or delete it to have the ring made anew"
    )]
    Ring {
        /// Its name.
        name: String,
        /// What is wrong.
        why: String,
    },
    /// The round took too long.
    #[error("the round took longer than {0} s")]
    Slow(u64),
}

impl Error {
    /// A word for metrics, conditions and events.
    pub const fn kind(&self) -> &'static str {
        match self {
            Error::Api(_) => "ApiServer",
            Error::Certificates(error) => error.kind(),
            Error::Storage(error) => error.kind(),
            Error::Ring { .. } => "RingUnreadable",
            Error::Slow(_) => "Timeout",
        }
    }
}

/// The round of a cache that is not paused.
///
/// # Errors
/// What went wrong; what was done stays done.
pub async fn reconcile(
    tools: &Tools<'_>,
    object: &ZimCache,
    cache: &Cache,
    world: &World,
) -> Result<Outcome, Error> {
    let mut outcome = look(tools, cache, world)?;
    certify(tools, object, cache, &mut outcome).await?;
    apply::ensure_signing_key(tools.client, cache).await?;
    let of = volumes::of(cache);
    let size = Quantity(cache.spec.nodes.storage.size.clone());
    let prepared = storage::prepare(tools.client, &of, &size).await?;
    outcome.growth = prepared.growth;
    turn_ring(tools, cache, world, &mut outcome).await?;
    let held = prepared.template == storage::Template::Hold;
    apply_objects(tools, cache, world, held, &mut outcome).await?;
    volumes::release(tools, cache, world, &mut outcome).await?;
    volumes::replace_lost(tools, cache, &of, &mut outcome).await;
    roll(tools, cache, world, &mut outcome).await?;
    Ok(outcome)
}

/// The round of a paused cache: everything is looked at, nothing is done.
///
/// # Errors
/// When the ring cannot be read.
pub fn look_only(tools: &Tools<'_>, cache: &Cache, world: &World) -> Result<Outcome, Error> {
    let mut outcome = look(tools, cache, world)?;
    let wanted = build::build(&inputs(tools, cache, world, &outcome));
    if !build::are_as_built(&wanted, world.node_set.as_ref(), world.gateways.as_ref()) {
        let sentence = "spec.paused is true: what was changed meanwhile waits".to_owned();
        outcome.failure = Some(("Paused", sentence));
    }
    Ok(outcome)
}

fn look(tools: &Tools<'_>, cache: &Cache, world: &World) -> Result<Outcome, Error> {
    let document = known(tools, &cache.names, world)?;
    let wanted = cache.spec.nodes.replicas;
    let node_pods = drain::pods_needed(&cache.names, wanted, document.as_ref());
    let step = next_step(tools, cache, world, document.as_ref());
    Ok(Outcome {
        news: Vec::new(),
        document,
        step,
        rollout: Rollout::Done,
        node_pods,
        growth: Growth::Settled,
        certificates: Ok(()),
        expires_seconds: None,
        node_set: world.node_set.clone(),
        gateways: world.gateways.clone(),
        failure: None,
    })
}

/// The ring in force: what is published, unless somebody put something older or nothing at all in its place.
fn known(tools: &Tools<'_>, names: &Names, world: &World) -> Result<Option<Document>, Error> {
    let Some(published) = &world.ring else {
        return Ok(tools.known_ring.cloned());
    };
    match (&published.document, tools.known_ring) {
        (Ok(found), Some(known)) if found.epoch() < known.epoch() => Ok(Some(known.clone())),
        (Ok(found), _) => Ok(Some(found.clone())),
        (Err(_), Some(known)) => Ok(Some(known.clone())),
        (Err(why), None) => Err(Error::Ring {
            name: names.ring(),
            why: why.clone(),
        }),
    }
}

fn next_step(tools: &Tools<'_>, cache: &Cache, world: &World, document: Option<&Document>) -> Step {
    ring::next_step(&ring::Seen {
        names: &cache.names,
        wanted: cache.spec.nodes.replicas,
        factor: u32::try_from(cache.spec.replication.factor).unwrap_or(1),
        document,
        reports: &world.reports,
        zones: &world.zones,
        zone_aware: cache.spec.replication.zone_aware,
        lost: &cache.lost,
        forced: &cache.forced,
        claimed: &world.claimed(),
        now_seconds: tools.now.0 / 1_000,
    })
}

async fn certify(
    tools: &Tools<'_>,
    object: &ZimCache,
    cache: &Cache,
    outcome: &mut Outcome,
) -> Result<(), Error> {
    let of = certificates::Of {
        names: cache.names.clone(),
        labels: cache.names.labels(None),
        owner: build::owner(cache),
    };
    let policy = certificates::Policy::default();
    let kept = match cache.spec.tls.internal {
        InternalTls::Operator => {
            let rotation = object.annotations().get(certificates::ROTATE).cloned();
            certificates::keep(tools.client, &of, rotation, &policy, tools.now).await?
        }
        InternalTls::CertManager => {
            let issuer = cache.spec.tls.issuer_ref.as_ref();
            let issuer = issuer.ok_or(certificates::Error::NoIssuer)?;
            certificates::cert_manager::keep(tools.client, &of, issuer, &policy).await?
        }
    };
    let steps = kept.steps.iter().map(ToString::to_string);
    outcome
        .news
        .extend(steps.map(|step| News::normal("Certificates", step)));
    outcome.expires_seconds = (kept.expires_seconds > 0).then_some(kept.expires_seconds);
    if !kept.is_ready {
        outcome.certificates =
            Err("the certificates between gateways and nodes are not made yet".to_owned());
    }
    Ok(())
}

/// Publishes what comes next, and tells the pods.
async fn turn_ring(
    tools: &Tools<'_>,
    cache: &Cache,
    world: &World,
    outcome: &mut Outcome,
) -> Result<(), Error> {
    let before = world.ring.as_ref();
    let published = before.and_then(|ring| ring.document.as_ref().ok());
    let next = match &outcome.step {
        Step::Create(document) => {
            let note = format!("epoch {}", document.epoch());
            outcome.news.push(News::normal("RingCreated", note));
            Some(document.clone())
        }
        Step::Publish(document, why) => {
            let note = format!("epoch {}: {why}", document.epoch());
            outcome.news.push(News::normal("RingChanged", note));
            Some(document.clone())
        }
        Step::Wait(_) | Step::Settled => outcome.document.clone().filter(|document| {
            // Somebody put something else in its place.
            published != Some(document)
        }),
    };
    if let Some(document) = next {
        if outcome.document.as_ref() == Some(&document) {
            let note = format!(
                "ConfigMap {} was changed by somebody else",
                cache.names.ring()
            );
            outcome.news.push(News::warning("EditReverted", note));
        }
        apply::publish(tools.client, &cache.names, before, &document, tools.now).await?;
        outcome.document = Some(document);
    }
    let Some(document) = &outcome.document else {
        return Ok(());
    };
    outcome.node_pods = pods_for_now(cache, world, document);
    let pods = world.nodes.iter().chain(&world.gateway_pods);
    Ok(apply::announce(tools.client, &cache.names, pods, document.epoch()).await?)
}

/// How many pods of nodes there are to be now. One that has left stays until everybody knows: a gateway with the ring of
/// before would still call it.
fn pods_for_now(cache: &Cache, world: &World, document: &Document) -> i32 {
    let needed = drain::pods_needed(&cache.names, cache.spec.nodes.replicas, Some(document));
    if world.behind(document.epoch()).is_empty() {
        return volumes::pods_possible(world, needed);
    }
    let set = world.node_set.as_ref().and_then(|set| set.spec.as_ref());
    let needed = needed.max(set.and_then(|set| set.replicas).unwrap_or(needed));
    volumes::pods_possible(world, needed)
}

async fn apply_objects(
    tools: &Tools<'_>,
    cache: &Cache,
    world: &World,
    node_set_held: bool,
    outcome: &mut Outcome,
) -> Result<(), Error> {
    let all = build::build(&inputs(tools, cache, world, outcome));
    let wanted: Vec<Object> = all
        .iter()
        .filter(|object| match object.resource.kind.as_str() {
            "StatefulSet" => !node_set_held && !lacks_credentials(cache, world),
            "Deployment" => !lacks_redis(cache, world),
            _ => true,
        })
        .cloned()
        .collect();
    let applied = apply::apply(tools.client, &cache.names, &wanted, tools.memory).await?;
    apply::prune(tools.client, cache, &all, &build::optional_kinds()).await?;
    for what in applied.reverted {
        let note = format!("{what} was changed by somebody else; it is as the spec says again");
        outcome.news.push(News::warning("EditReverted", note));
    }
    outcome.node_set = applied.node_set.or_else(|| world.node_set.clone());
    outcome.gateways = applied.gateways.or_else(|| world.gateways.clone());
    Ok(())
}

/// What the objects are built of.
fn inputs<'a>(
    tools: &Tools<'a>,
    cache: &'a Cache,
    world: &'a World,
    outcome: &Outcome,
) -> Inputs<'a> {
    let active = status::active(outcome.document.as_ref(), world);
    let node_pods = usize::try_from(outcome.node_pods).unwrap_or(0);
    Inputs {
        cache,
        default_image: tools.default_image,
        node_pods: outcome.node_pods,
        may_disrupt: active.len() == node_pods && outcome.step == Step::Settled,
        s3_credentials: world.secrets.s3.as_deref(),
        redis_url: world.secrets.redis.as_deref(),
        node_set: world.node_set.as_ref(),
        gateways: world.gateways.as_ref(),
    }
}

/// Whether pods of nodes could not start, or would be other ones than when their Secret is back.
fn lacks_credentials(cache: &Cache, world: &World) -> bool {
    let tier = cache.spec.durable_tier.as_ref();
    tier.is_some_and(|tier| tier.s3.existing_secret.is_some()) && world.secrets.s3.is_none()
}

fn lacks_redis(cache: &Cache, world: &World) -> bool {
    let redis = cache.spec.rate_limits.redis.as_ref();
    redis.is_some_and(|redis| redis.existing_secret.is_some()) && world.secrets.redis.is_none()
}

async fn roll(
    tools: &Tools<'_>,
    cache: &Cache,
    world: &World,
    outcome: &mut Outcome,
) -> Result<(), Error> {
    let status = outcome
        .node_set
        .as_ref()
        .and_then(|set| set.status.as_ref());
    let observed = status.and_then(|status| status.observed_generation);
    let applied = outcome
        .node_set
        .as_ref()
        .and_then(|set| set.metadata.generation);
    let revision = status.and_then(|status| status.update_revision.as_deref());
    let Some(revision) = revision.filter(|_| observed >= applied) else {
        return Ok(());
    };
    let active = status::active(outcome.document.as_ref(), world);
    outcome.rollout = rollout::decide(&rollout::Seen {
        names: &cache.names,
        pods: &world.nodes,
        revision,
        strategy: &cache.spec.nodes.update_strategy,
        active: &active,
        wanted: outcome.node_pods,
        is_quiet: outcome.step == Step::Settled
            && outcome.growth == Growth::Settled
            && outcome.certificates.is_ok(),
    });
    if let Rollout::Restart(pod) = &outcome.rollout {
        apply::restart(tools.client, &cache.names, pod).await?;
        let note = format!("{} is replaced by a pod that is as the spec says", pod.name);
        outcome.news.push(News::normal("NodeRestarting", note));
    }
    Ok(())
}

/// The observation that the status is made of.
pub fn observation<'a>(
    cache: &'a Cache,
    world: &'a World,
    outcome: &'a Outcome,
    now: Timestamp,
) -> Observation<'a> {
    Observation {
        cache,
        world,
        node_set: outcome.node_set.as_ref(),
        gateways: outcome.gateways.as_ref(),
        document: outcome.document.as_ref(),
        step: &outcome.step,
        rollout: &outcome.rollout,
        node_pods: outcome.node_pods,
        growth: &outcome.growth,
        certificates: outcome.certificates.clone(),
        failure: outcome.failure.clone(),
        now,
    }
}
